"""What a store in memory says of itself: that it is well, and nothing else."""

from imagestore import errors
from imagestore.condition import Condition
from imagestore.screen import (
    DriftStatus,
    ExplainRequest,
    ExplainResponse,
    GuestsRequest,
    GuestsResponse,
    JournalStatus,
    PoolStatus,
    SearchRequest,
    SearchResponse,
    Status,
    StatusRequest,
    StatusResponse,
)
from imagestore.service import LOCAL, Caller


class MemoryScreen:
    """It has neither guests nor a journal."""

    async def get_status(self, request: StatusRequest, caller: Caller = LOCAL) -> StatusResponse:
        return StatusResponse(
            status=Status(
                version="0",
                now="",
                condition=Condition(),
                pool=PoolStatus(name="mem", driver="memory", health="ok"),
                journal=JournalStatus(seq=0, head="", epoch=0),
                drift=DriftStatus(),
            )
        )

    async def describe_guests(self, request: GuestsRequest, caller: Caller = LOCAL) -> GuestsResponse:
        return GuestsResponse(guests=(), total=0)

    async def search_events(self, request: SearchRequest, caller: Caller = LOCAL) -> SearchResponse:
        return SearchResponse(events=())

    async def explain_dataset(self, request: ExplainRequest, caller: Caller = LOCAL) -> ExplainResponse:
        raise errors.NotFound
