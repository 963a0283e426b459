"""A real server on loopback, in the test's own nursery, over a store in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
import trio

from imagestore.http.server import serve_http
from imagestore.http.settings import HttpSettings
from imagestore.service import Service
from tests.http.memory_store import MemoryStore

Start = Callable[..., Awaitable[tuple[str, int]]]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(requestable={"debian": 8})


@pytest.fixture
async def start(nursery: trio.Nursery) -> AsyncIterator[Start]:
    """Start a server over a service; returns its address."""

    async def start(
        service: Service, *, shutdown: trio.Event | None = None, **limits: float
    ) -> tuple[str, int]:
        settings = HttpSettings(**limits)  # type: ignore[arg-type]  # ints where the field is one
        address: tuple[str, int] = await nursery.start(
            partial(
                serve_http,
                service,
                host="127.0.0.1",
                port=0,
                shutdown=shutdown or trio.Event(),
                settings=settings,
            )
        )
        return address

    yield start
    nursery.cancel_scope.cancel()


@pytest.fixture
async def address(start: Start, store: MemoryStore) -> tuple[str, int]:
    return await start(store)
