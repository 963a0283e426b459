"""The journal over RPC: searched, and asked where a dataset came from.

Both bounded: what takes longer is for ``imagestore log`` and ``explain --journal``,
which read the files themselves.
"""

from imagestore.errors import InvalidArgument, NotFound
from imagestore.events.retelling import explanation, line_of
from imagestore.events.selection import Filter
from imagestore.methods.operations import OperationMethods
from imagestore.screen import (
    ExplainRequest,
    ExplainResponse,
    SearchRequest,
    SearchResponse,
)
from imagestore.service import LOCAL, Caller
from imagestore.times import read_time

PAGE = 50
LARGEST_PAGE = 500
"""Events of one answer, unless a limit is given, and at most."""

MOST_CHARACTERS = 200
"""Of a text that is looked for."""


class PastMethods(OperationMethods):
    """See the module."""

    async def search_events(self, request: SearchRequest, caller: Caller = LOCAL) -> SearchResponse:
        """Events of the journal in words, the newest first, a page at a time."""
        if len(request.text) > MOST_CHARACTERS:
            raise InvalidArgument(detail=f"text: at most {MOST_CHARACTERS} characters")
        wanted = Filter(
            who=request.who or None,
            dataset=self._relative(request.dataset) or None,
            guest=request.guest or None,
            image=request.image or None,
            operation=request.operation or None,
            types=tuple(part.strip() for part in request.type.split(",") if part.strip()),
            since_ns=read_time(request.since) or None,
            before_seq=request.before or None,
        )
        limit = min(request.limit or PAGE, LARGEST_PAGE)
        page = await self._running().archive.search(wanted, text=request.text, limit=limit)
        return SearchResponse(events=tuple(map(line_of, page.events)), next=page.next)

    async def explain_dataset(self, request: ExplainRequest, caller: Caller = LOCAL) -> ExplainResponse:
        """What ever had a name, where the last of it came from, and what was done to it.

        Raises NotFound: the journal has never heard of it.
        """
        dataset = self._relative(request.id)
        if not dataset:
            raise InvalidArgument("need an id")
        story = await self._running().archive.explain(dataset)
        told = story.lineage
        if not told.lives and not told.attempts:
            raise NotFound(detail=f"the journal knows nothing of {dataset}")
        return explanation(told, truncated=story.truncated)
