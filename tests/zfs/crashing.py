"""Children that run a store on a ZFS pool, do one thing to it, and kill themselves at a named point.

``python -m tests.zfs.crashing`` reads cases from its standard input, one JSON
line each, forks a child for each, and answers with its exit status (-9: killed
at the point; 0: the point was never reached).  What one child left under way
the next one settles when it starts; so each case works on datasets of its own.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self
from unittest.mock import patch

import msgspec
import trio
from msgspec import Struct

from imagestore.config import Config
from imagestore.model import GuestRequest, ImageRequest, ReceiveRequest, SnapshotRequest, VolumeRequest
from imagestore.pools.zfs import core as core_module  # noqa: F401 (loaded once, before the forks)
from imagestore.pools.zfs import driver as driver_module  # noqa: F401
from imagestore.pools.zfs.core import ZfsCore
from imagestore.store import Store
from imagestore.streams.nvlist import NvList

ROOT = Path(__file__).parent.parent.parent

SECOND_MADE = "driver: the second of several is about to be made"
UNMARKED = "driver: a stream onto a volume is in the pool, and about to be marked"

DISKS = [{"image": "raw"}, {"size": 1}]


class Case(Struct, frozen=True, kw_only=True):
    """``number`` makes the names that the action works on; no ``point``: it is not to die."""

    directory: str
    pool: str
    image_service: str
    action: str
    number: int = 0
    point: str = ""


# --- what can be done ---------------------------------------------------------------------


async def _prepare(store: Store, number: int) -> None:
    """Image ``raw``; guests ``g`` and ``r`` with snapshots; for each number what the deletions take away."""
    await store.request_image(ImageRequest(id="raw"))

    async def guest(name: str) -> None:
        await store.create_guest_disks(GuestRequest(guest={"id": name, "disks": DISKS}))

    async def volume(name: str) -> None:
        await store.create_volume(VolumeRequest(id=name, size=1))

    async with trio.open_nursery() as nursery:
        for name in ("g", "r", *(f"d{each}" for each in range(number))):
            nursery.start_soon(guest, name)
        for each in range(number):
            nursery.start_soon(volume, f"v{each}")
            nursery.start_soon(store.request_image, ImageRequest(id=f"doomed{each}"))
    for name in ("g", "r"):
        for snapshot in ("one", "two"):
            await store.create_snapshot(SnapshotRequest(id=f"guests/{name}", dest=snapshot))
    for each in range(number):
        await store.create_snapshot(SnapshotRequest(id="guests/g", dest=f"doomed{each}"))


async def _receive(store: Store, case: Case, name: str, file: str) -> None:
    async with store.receive(ReceiveRequest(id=name)) as upload:
        await upload.feed(Path(case.directory, file).read_bytes())
        await upload.finish()


async def _prepare_receptions(store: Store, case: Case) -> None:
    for each in range(case.number):
        await _receive(store, case, f"onto{each}", "full")


async def _settle(store: Store, case: Case) -> None:
    """Nothing but the start, and the end of what it queued again."""
    for image in (await store.list_images(ImageRequest())).images:
        if image.status not in ("complete", "error"):
            await store.request_image(ImageRequest(id=image.id))


Action = Callable[[Store, Case], Awaitable[object]]

ACTIONS: dict[str, Action] = {
    "settle": _settle,
    "prepare": lambda store, case: _prepare(store, case.number),
    "prepare receptions": _prepare_receptions,
    "CreateVolume": lambda store, case: store.create_volume(
        VolumeRequest(id=f"new{case.number}/deep/volume", size=1)
    ),
    "CloneImage": lambda store, case: store.clone_image(
        ImageRequest(id="raw", dest=f"of{case.number}/clone")
    ),
    "CreateGuestDisks": lambda store, case: store.create_guest_disks(
        GuestRequest(guest={"id": f"h{case.number}", "disks": DISKS})
    ),
    "CreateSnapshot": lambda store, case: store.create_snapshot(
        SnapshotRequest(id="guests/g", dest=f"s{case.number}")
    ),
    "RollbackSnapshot": lambda store, case: store.rollback_snapshot(
        SnapshotRequest(id="guests/r@one", destroyMoreRecent=True)
    ),
    "DeleteSnapshot": lambda store, case: store.delete_snapshot(
        SnapshotRequest(id=f"guests/g@doomed{case.number}")
    ),
    "DeleteDataset": lambda store, case: store.delete_dataset(VolumeRequest(id=f"v{case.number}")),
    "DeleteGuestsDisks": lambda store, case: store.delete_guests_disks(
        GuestRequest(guest={"id": f"d{case.number}"})
    ),
    "DeleteImage": lambda store, case: store.delete_image(ImageRequest(id=f"doomed{case.number}")),
    "RequestImage": lambda store, case: store.request_image(ImageRequest(id=f"i{case.number}")),
    "receive": lambda store, case: _receive(store, case, f"in{case.number}/new", "full"),
    "receive onto": lambda store, case: _receive(store, case, f"onto{case.number}", "increment"),
}


# --- the child ------------------------------------------------------------------------------


class DeadlyCore:
    """Reaches the points inside the driver."""

    def __init__(self, reach: Callable[[str], None]) -> None:
        self._reach = reach
        self.is_armed = False
        self._made = 0

    def count(self, make: Callable[..., int]) -> Callable[..., int]:
        def made(core: ZfsCore, *arguments: object) -> int:
            self._made += self.is_armed
            if self._made == 2:
                self._reach(SECOND_MADE)
            return make(core, *arguments)

        return made

    def program(
        self, core: ZfsCore, pool: str, text: str, arguments: Sequence[str], *, changes: bool
    ) -> tuple[int, NvList]:
        if (
            self.is_armed
            and changes
            and "imagestore:receiving" in arguments
            and "imagestore:last" in arguments
        ):
            self._reach(UNMARKED)
        return _PROGRAM(core, pool, text, arguments, changes=changes)


_PROGRAM = ZfsCore.program


async def act(case: Case) -> None:
    armed = False

    def reach(point: str) -> None:
        if armed and point == case.point:
            os.kill(os.getpid(), signal.SIGKILL)

    deadly = DeadlyCore(reach)
    config = Config(
        pool=f"zfs:{case.pool}",
        journal=f"{case.directory}/journal",
        image_service=case.image_service,
        fetch_tries=1,
        journal_segment_bytes=1 << 20,
        allow_unsafe_filesystem=True,
    )
    store = Store(config, trace=reach)
    with (
        patch.object(ZfsCore, "create", deadly.count(ZfsCore.create)),
        patch.object(ZfsCore, "clone", deadly.count(ZfsCore.clone)),
        patch.object(ZfsCore, "program", lambda core, *a, **k: deadly.program(core, *a, **k)),
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            armed = deadly.is_armed = True
            await ACTIONS[case.action](store, case)
            await store.destroy()


class Children:
    """The process that forks, from the outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zfs.crashing"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, case: Case) -> int:
        """The exit status of a child; negative is the signal that killed it.  Blocks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(case) + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def main() -> None:
    for line in sys.stdin:
        case = msgspec.json.decode(line, type=Case)
        child = os.fork()
        if child == 0:
            try:
                trio.run(act, case)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
