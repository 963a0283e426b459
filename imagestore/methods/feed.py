"""The event feed as the store offers it."""

from imagestore.errors import InvalidArgument
from imagestore.events.feed import FeedReader
from imagestore.events.selection import Filter, Selector
from imagestore.methods.addressing import Addressing
from imagestore.model import EventsRequest
from imagestore.service import LOCAL, Caller


class FeedMethods(Addressing):
    """See the module."""

    async def events(self, request: EventsRequest, caller: Caller = LOCAL) -> FeedReader:
        """See ``imagestore.service.Service.events``."""
        actors = self._running()
        after = actors.feed.seq if request.after is None else request.after
        if after > actors.feed.seq:
            raise InvalidArgument(f"the journal ends at seq {actors.feed.seq}, before {after}")
        wanted = Filter(
            operation=request.operation or None,
            dataset=request.dataset or None,
            guest=request.guest or None,
            image=request.image or None,
            who=request.who or None,
            types=request.types,
        )
        selector = Selector(wanted, pool=self.pool_name)
        if wanted.has_subject and after:
            for envelope in await actors.archive.beginnings(after):
                selector.takes(envelope)  # so that the rest of what it is about is told
        return actors.feed.reader(after, selector)
