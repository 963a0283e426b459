"""The event feed as the store offers it."""

from msgspec.structs import replace

from imagestore.errors import InvalidArgument
from imagestore.events.feed import FeedReader
from imagestore.events.selection import Filter, Selector
from imagestore.methods.addressing import Addressing
from imagestore.model import EventsRequest
from imagestore.service import LOCAL, Caller
from imagestore.times import read_time


class FeedMethods(Addressing):
    """See the module."""

    async def events(self, request: EventsRequest, caller: Caller = LOCAL) -> FeedReader:
        """See ``imagestore.service.Service.events``."""
        actors = self._running()
        now = actors.feed.seq
        after = request.after
        if after is None:
            after = now if request.last is None else 0
        if after > now:
            raise InvalidArgument(f"the journal ends at seq {now}, before {after}")
        wanted = Filter(
            operation=request.operation or None,
            dataset=self._relative(request.dataset) or request.dataset or None,
            guest=request.guest or None,
            image=request.image or None,
            who=request.who or None,
            types=request.types,
            since_ns=read_time(request.since, "since") if request.since else None,
            until_ns=read_time(request.latest, "latest") if request.latest else None,
        )
        if request.last is not None:
            end = now if request.until is None else min(now, request.until)
            past = replace(wanted, from_seq=after + 1, before_seq=end + 1)
            after = max(after, await self._place_before_last(past, request.last, end))
        selector = Selector(wanted, pool=self.pool_name)
        if wanted.has_subject and after:
            for envelope in await actors.archive.beginnings(after):
                selector.takes(envelope)  # so that the rest of what it is about is told
        return actors.feed.reader(after, selector)

    async def _place_before_last(self, wanted: Filter, last: int, end: int) -> int:
        """The event behind which the ``last`` that are wanted begin, up to event ``end``."""
        if wanted.takes_all:
            return end - last
        first = await self._running().archive.first_of_last(wanted, last)
        return end if first is None else first - 1
