"""The Unix socket: its mode and group, what it takes the place of, what it does not."""

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from imagestore.errors import ConfigError
from imagestore.http.listeners import open_unix_listener


async def test_it_is_its_groups_and_is_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "made" / "store.sock"
    group = grp.getgrgid(os.getgid()).gr_name
    async with open_unix_listener(str(path), group=group):
        status = path.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o660
        assert status.st_gid == os.getgid()
        assert [each.name for each in path.parent.iterdir()] == ["store.sock"]
    assert list(path.parent.iterdir()) == []


async def test_it_takes_the_place_of_one_that_a_killed_store_left(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with open_unix_listener(str(path)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_it_does_not_take_the_place_of_a_living_store(tmp_path: Path) -> None:
    path = str(tmp_path / "store.sock")
    async with open_unix_listener(path):
        with pytest.raises(ConfigError, match="another store listens"):
            async with open_unix_listener(path):
                pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


async def test_a_file_is_not_taken_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is there and is no socket"):
        async with open_unix_listener(str(path)):
            pass
    assert path.read_text() == "precious"


async def test_what_another_store_put_there_meanwhile_is_left(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    async with open_unix_listener(str(path)):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


@pytest.mark.parametrize("place", ["/proc/none/store.sock", "/" + "x" * 108])
async def test_where_none_can_be_is_said(place: str) -> None:
    with pytest.raises(ConfigError, match="socket"):
        async with open_unix_listener(place):
            pass


async def test_a_group_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no group 'no such group'"):
        async with open_unix_listener(str(tmp_path / "store.sock"), group="no such group"):
            pass
    assert list(tmp_path.iterdir()) == []
