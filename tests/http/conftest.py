"""A real server on loopback, in the test's own nursery, over a store in memory."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio

from imagestore.http.listeners import open_unix_listener
from imagestore.http.server import serve_http
from imagestore.http.settings import AccessSettings, HttpSettings
from imagestore.service import Service
from tests.http.memory_store import MemoryStore

PATIENCE_SECONDS = 20
"""How long a test waits for what must happen, before it fails instead of hanging."""


class RunningServer:
    """A server: where it is, how to stop it, and whether it has ended."""

    def __init__(self) -> None:
        self.address = ("", 0)
        self.shutdown = trio.Event()
        self.ended = trio.Event()

    async def run(
        self,
        service: Service,
        settings: HttpSettings,
        access: AccessSettings | None,
        tls: ssl.SSLContext | None,
        socket: str,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        async with AsyncExitStack() as opened, trio.open_nursery() as nursery:
            unix = await opened.enter_async_context(open_unix_listener(socket)) if socket else None
            serve = partial(
                serve_http, host="127.0.0.1", port=0, shutdown=self.shutdown, settings=settings, access=access
            )
            self.address = await nursery.start(partial(serve, tls=tls, unix=unix), service)
            task_status.started()
        self.ended.set()


Start = Callable[..., Awaitable[RunningServer]]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(requestable={"debian": 8})


@pytest.fixture
async def start(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Start]:
    """Start a server over a service, with the limits and doors given.  No connection may fail in it."""

    async def start(
        service: Service,
        settings: HttpSettings | None = None,
        *,
        access: AccessSettings | None = None,
        tls: ssl.SSLContext | None = None,
        socket: str = "",
    ) -> RunningServer:
        server = RunningServer()
        await nursery.start(server.run, service, settings or HttpSettings(), access, tls, socket)
        return server

    with trio.fail_after(PATIENCE_SECONDS):
        yield start
    failed = [record for record in caplog.get_records("call") if "connection failed" in record.getMessage()]
    assert failed == []
    nursery.cancel_scope.cancel()


@pytest.fixture
async def address(start: Start, store: MemoryStore) -> tuple[str, int]:
    return (await start(store)).address
