"""The guests as people look at them: in use, how large, what was written, where from, when last snapshotted.

Rows come from state and view; only whether a disk is in use is asked of the
pool, once for all guests of an answer.
"""

from collections.abc import Iterable, Sequence

from msgspec import UNSET, Struct

from imagestore import names
from imagestore.actors.guestdisks import whole
from imagestore.actors.plans import is_guest, is_visible
from imagestore.errors import NotFound
from imagestore.methods.addressing import Addressing
from imagestore.pools.base import Dataset
from imagestore.screen import DiskSnapshot, DiskStatus, GuestsRequest, GuestsResponse, GuestStatus
from imagestore.service import LOCAL, Caller
from imagestore.times import show_time

PAGE = 1_000
"""Guests of one answer, at most."""


class Disk(Struct, frozen=True, kw_only=True):
    """A disk's row and those of its snapshots, oldest first."""

    row: Dataset
    snapshots: tuple[Dataset, ...]

    @property
    def last_ns(self) -> int:
        """When the last snapshot was taken; 0 if there is none."""
        return max((snapshot.creation for snapshot in self.snapshots), default=0) * 1_000_000_000


class GuestListMethods(Addressing):
    """See the module."""

    async def describe_guests(self, request: GuestsRequest, caller: Caller = LOCAL) -> GuestsResponse:
        """A page of the guests, by id, with disks, sizes, use and last snapshot."""
        ids = self._guest_ids()
        if request.id:
            if names.check_guest_id(request.id) not in ids:
                raise NotFound(detail=f"guest {request.id}")
            wanted, more = [request.id], False
        else:
            later = [guest for guest in ids if guest > request.after]
            wanted = later[: min(request.limit or PAGE, PAGE)]
            more = len(wanted) < len(later)
        disks = {guest: self._disks(guest) for guest in wanted}
        used = await self._used(disk.row.name for found in disks.values() for disk in found)
        told = [self._guest(guest, disks[guest], used, whole=bool(request.id)) for guest in wanted]
        return GuestsResponse(guests=tuple(told), total=len(ids), next=wanted[-1] if more else "")

    def _guest_ids(self) -> list[str]:
        """Sorted."""
        actors = self._running()
        state = actors.operations.state
        rows = actors.zpool.view.under(names.GUESTS)
        return sorted(row.name.partition("/")[2] for row in rows if is_guest(row) and is_visible(row, state))

    def _disks(self, guest: str) -> Sequence[Disk]:
        actors = self._running()
        rows = whole(guest, actors.operations.state, actors.zpool.view)
        snapshots: dict[str, list[Dataset]] = {}
        for row in rows:
            if row.kind == "snapshot":
                snapshots.setdefault(names.parent(row.name), []).append(row)
        volumes = [row for row in rows if row.kind == "volume"]
        return [Disk(row=row, snapshots=tuple(snapshots.get(row.name, ()))) for row in volumes]

    async def _used(self, disks: Iterable[str]) -> frozenset[str]:
        return frozenset(await self._running().zpool.driver.those_in_use(tuple(disks)))

    def _guest(self, guest: str, disks: Sequence[Disk], used: frozenset[str], *, whole: bool) -> GuestStatus:
        return GuestStatus(
            id=guest,
            in_use=any(disk.row.name in used for disk in disks),
            size_bytes=sum(disk.row.volsize for disk in disks),
            written_bytes=sum(disk.row.referenced for disk in disks),
            disks=tuple(self._disk(disk, used, whole=whole) for disk in disks),
            last_snapshot=show_time(max((disk.last_ns for disk in disks), default=0)),
        )

    def _disk(self, disk: Disk, used: frozenset[str], *, whole: bool) -> DiskStatus:
        actors = self._running()
        row = disk.row
        record = actors.operations.state.owned(row.name, row.guid, row.createtxg)
        return DiskStatus(
            id=self._full(row.name),
            size_bytes=row.volsize,
            written_bytes=row.referenced,
            device=actors.zpool.driver.device(row.name),
            in_use=row.name in used,
            image=record.image if record is not None else row.tags.image,
            origin=self._full(row.origin) if row.origin else "",
            last_snapshot=show_time(disk.last_ns),
            snapshots=tuple(map(self._disk_snapshot, disk.snapshots)) if whole else UNSET,
        )

    def _disk_snapshot(self, row: Dataset) -> DiskSnapshot:
        taken = show_time(row.creation * 1_000_000_000)
        return DiskSnapshot(id=self._full(row.name), taken=taken or "", written_bytes=row.written)
