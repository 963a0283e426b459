"""The methods of snapshots: taken, listed, deleted, gone back to."""

from imagestore import names
from imagestore.actors.commands import (
    CreateSnapshot,
    DeleteSnapshot,
    RollbackSnapshot,
)
from imagestore.errors import (
    InvalidArgument,
    NotSnapshot,
)
from imagestore.methods.addressing import Addressing
from imagestore.model import (
    SnapshotRequest,
    SnapshotResponse,
)
from imagestore.pools.base import Dataset
from imagestore.service import LOCAL, Caller


class SnapshotMethods(Addressing):
    """See the module."""

    async def create_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        """Snapshot ``dest`` of a dataset; of a guest, or with ``recursive``, of all below at one instant."""
        if not request.id:
            raise InvalidArgument("need an id")
        row = self._existing(request.id)
        if row.kind == "snapshot":
            raise InvalidArgument("cannot create a snapshot of a snapshot")
        if not request.dest:
            raise InvalidArgument("need a dest")
        names.check_snapshot_dest(request.dest)
        command = CreateSnapshot(name=row.name, snapshot=request.dest, recursive=request.recursive)
        rows = await self._perform(row.name, command, caller)
        return SnapshotResponse(snapshots=tuple(map(self._snapshot, rows)))

    def _existing_snapshot(self, request: SnapshotRequest) -> Dataset:
        if not request.id:
            raise InvalidArgument("need an id")
        row = self._existing(request.id)
        if row.kind != "snapshot":
            raise NotSnapshot(detail=f"{request.id} is a {row.kind}")
        return row

    async def get_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        """One snapshot."""
        return SnapshotResponse(snapshots=(self._snapshot(self._existing_snapshot(request)),))

    async def list_snapshots(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        """The snapshots of a dataset and of all below; of the whole pool without an id."""
        name = self._existing(request.id).name if request.id else ""
        snapshots = [row for row in self._listed(name) if row.kind == "snapshot"]
        return SnapshotResponse(snapshots=tuple(map(self._snapshot, snapshots)))

    async def delete_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        """Delete a snapshot; with ``recursive`` those of the same name below."""
        row = self._existing_snapshot(request)
        command = DeleteSnapshot(name=row.name, recursive=request.recursive)
        rows = await self._perform(row.name, command, caller)
        return SnapshotResponse(snapshots=tuple(map(self._snapshot, rows)))

    async def rollback_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        """Go back to a snapshot; newer ones are destroyed only with ``destroyMoreRecent``."""
        row = self._existing_snapshot(request)
        command = RollbackSnapshot(
            name=row.name, destroy_more_recent=request.destroyMoreRecent, force=request.force
        )
        rows = await self._perform(row.name, command, caller)
        return SnapshotResponse(snapshots=tuple(map(self._snapshot, rows)))
