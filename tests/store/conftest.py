"""A real store on a directory pool in the test's own directory."""

import functools
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from imagestore.config import Config
from imagestore.store import SYSTEM, Store, Surroundings
from tests.imageservice import ImageService

MIB = 1 << 20

Run = Callable[..., AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def running(config: Config, *, surroundings: Surroundings = SYSTEM) -> AsyncIterator[Store]:
    """A store that is ready; destroyed at the end, its data left."""
    store = Store(config, surroundings=surroundings)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        try:
            yield store
        finally:
            with trio.CancelScope(shield=True):
                await store.destroy()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        pool=f"dir:{tmp_path}/pool",
        journal=f"{tmp_path}/journal",
        image_service="127.0.0.1:1",
        num_fetchers=2,
        fetch_tries=1,
        fetch_wait_seconds=0.01,
        port=0,
        journal_segment_bytes=1 << 20,
    )


@pytest.fixture
def run(config: Config) -> Run:
    """``run(**settings)`` runs a store on the test's pool and journal."""
    return lambda **settings: running(replace(config, **settings))


@pytest.fixture
async def service(nursery: trio.Nursery) -> ImageService:
    service = ImageService()
    await nursery.start(service.run)
    return service


@functools.cache
def raw_image(size: int = 2 * MIB) -> bytes:
    """A raw disk image that compresses to about half and has a hole."""
    block = bytes(itertools.islice(itertools.cycle(range(251)), 4096))
    return (block * (size // 8192) + bytes(size))[:size]
