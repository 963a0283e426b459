"""Where the pool is not what the journal says: renamed, lost, and what is foreign."""

from msgspec import UNSET

from imagestore import names
from imagestore.actors.drift import drift
from imagestore.actors.plans import is_visible
from imagestore.events.catalogue import DatasetLost, DatasetRenamed
from imagestore.methods.addressing import Addressing
from imagestore.model import Drifted, DriftRequest, DriftResponse
from imagestore.service import LOCAL, Caller


class AuditMethods(Addressing):
    """See the module."""

    async def get_drift(self, request: DriftRequest, caller: Caller = LOCAL) -> DriftResponse:
        """Where the pool is not what the journal says, now."""
        actors = self._running()
        state, view = actors.operations.state, actors.zpool.view
        found: list[Drifted] = []
        for event in drift(state, view):
            if isinstance(event, DatasetLost | DatasetRenamed):
                record = state.datasets[event.name]
                renamed = isinstance(event, DatasetRenamed)
                now = self._full(event.new_name) if isinstance(event, DatasetRenamed) else UNSET
                found.append(
                    Drifted(
                        id=self._full(event.name),
                        change="renamed" if renamed else "lost",
                        kind=record.kind,
                        guid=event.guid,
                        now=now,
                    )
                )
        ours = {(record.guid, record.createtxg) for record in state.datasets.values()}
        found += [
            Drifted(id=self._full(row.name), change="foreign", kind=row.kind, guid=row.guid)
            for row in view.under("")
            if (row.guid, row.createtxg) not in ours
            and row.name not in ("", names.IMAGES, names.GUESTS)
            and is_visible(row, state)
        ]
        return DriftResponse(datasets=tuple(found))
