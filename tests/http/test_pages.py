"""The page as it is served: its parts, and what a browser may do with them."""

import re

import pytest

from imagestore.http.pages import parts
from imagestore.http.settings import AccessSettings
from tests.http.conftest import Start
from tests.http.memory_store import MemoryStore
from tests.http.wire import Wire

_LINKED = re.compile(rb'(?:href|src)="(/[^"#]*)"|from "\./([a-z]+\.js)"')


def linked() -> set[str]:
    """Every part that another part asks for."""
    found = set()
    for part in parts().values():
        for absolute, relative in _LINKED.findall(part.body):
            found.add(absolute.decode() or f"/ui/{relative.decode()}")
    return found


def test_every_part_is_asked_for_and_every_part_asked_for_is_there() -> None:
    assert linked() == set(parts()) - {"/"}


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    for path, part in parts().items():
        text = part.body.decode()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path
    page = parts()["/"].body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", page)


@pytest.mark.parametrize("path", sorted(parts()))
async def test_a_part_is_sent_with_what_a_browser_may_do(path: str, address: tuple[str, int]) -> None:
    async with await Wire.open(address) as wire:
        reply = await wire.ask("GET", path, {"Accept-Encoding": "gzip"})
    assert (reply.status, reply.body) == (200, parts()[path].body)
    assert reply.headers["content-encoding"] == "gzip"
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in reply.headers


async def test_only_get_is_answered(address: tuple[str, int]) -> None:
    async with await Wire.open(address) as wire:
        reply = await wire.ask("POST", "/", {"Content-Type": "application/json"}, b"{}")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")


async def test_the_page_is_for_everybody_and_what_it_shows_is_not(start: Start, store: MemoryStore) -> None:
    access = AccessSettings(loopback_role=None)
    server = await start(store, access=access)
    async with await Wire.open(server.address) as wire:
        assert (await wire.ask("GET", "/")).status == 200
        assert (await wire.ask("GET", "/ui/main.js")).status == 200
        assert (await wire.ask("GET", "/events")).status == 401
