"""A real server on loopback, in the test's own nursery, over a store in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from imagestore.http.server import serve_http
from imagestore.http.settings import HttpSettings
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
        self, service: Service, settings: HttpSettings, *, task_status: trio.TaskStatus[None]
    ) -> None:
        async with trio.open_nursery() as nursery:
            self.address = await nursery.start(self._serve, service, settings)
            task_status.started()
        self.ended.set()

    async def _serve(
        self, service: Service, settings: HttpSettings, *, task_status: trio.TaskStatus[tuple[str, int]]
    ) -> None:
        await serve_http(
            service,
            host="127.0.0.1",
            port=0,
            shutdown=self.shutdown,
            settings=settings,
            task_status=task_status,
        )


Start = Callable[..., Awaitable[RunningServer]]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(requestable={"debian": 8})


@pytest.fixture
async def start(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Start]:
    """Start a server over a service, with the limits given.  No connection may fail in it."""

    async def start(service: Service, settings: HttpSettings | None = None) -> RunningServer:
        server = RunningServer()
        await nursery.start(server.run, service, settings or HttpSettings())
        return server

    with trio.fail_after(PATIENCE_SECONDS):
        yield start
    failed = [record for record in caplog.get_records("call") if "connection failed" in record.getMessage()]
    assert failed == []
    nursery.cancel_scope.cancel()


@pytest.fixture
async def address(start: Start, store: MemoryStore) -> tuple[str, int]:
    return (await start(store)).address
