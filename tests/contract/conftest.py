"""The server that the recorded examples run against: a real, empty ``imagestore serve``."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from imagestore.cli.storeprocess import StoreProcess
from tests.contract.replay import Address


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with StoreProcess(str(tmp_path_factory.mktemp("store")), "127.0.0.1:1") as process:
        parts = urlsplit(process.start().server)
        assert parts.hostname is not None
        assert parts.port is not None
        yield parts.hostname, parts.port
