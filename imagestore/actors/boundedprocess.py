"""Programs that read what strangers made: no shell, limits of the kernel, no network, bounded output.

A program runs under ``prlimit`` (address space, processor time, size of files,
no core dumps) and, where this machine lets us, in a network namespace of its
own, with nothing of our environment, in ``/``.  It is killed when it takes too
long, says too much, or is no longer wanted.  One that outlives a killed store
ends by its limits, and what it writes has no name any more by then.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial

import trio
from msgspec import Struct

from imagestore.errors import ConfigError

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

OUTPUT_BYTES = 1 << 20
"""A program that says more is killed."""

COMPLAINT_BYTES = 4096
"""So much of what it says on stderr is kept."""

_ISOLATIONS = (("unshare", "--net"), ("unshare", "--user", "--map-current-user", "--net"))


class Limits(Struct, frozen=True, kw_only=True):
    """``seconds`` bound the wall's clock and the processor's, each; ``file_bytes`` any file it writes."""

    seconds: int
    memory_bytes: int = 2 << 30
    file_bytes: int = 0


class Finished(Struct, frozen=True, kw_only=True):
    """``status`` is negative when a signal ended it, None when we did: it took too long or said too much."""

    status: int | None
    output: bytes
    complaint: str


def find_program(name: str, package: str, purpose: str) -> str:
    """The absolute path of ``name``. Raises ConfigError, naming Debian's package, if it is not installed."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SEARCH_PATH}")
    if path is None:
        raise ConfigError(f"{purpose} needs {name}, which is not installed: apt-get install {package}")
    return path


async def run_bounded(program: str, *words: str, limits: Limits) -> Finished:
    """Run ``program`` (an absolute path) with ``words``; cancelling kills it.

    Raises:
        ConfigError: it cannot be started.
    """
    command = [
        *await _isolation(),
        find_program("prlimit", "util-linux", "limiting other programs"),
        f"--as={limits.memory_bytes}",
        f"--cpu={limits.seconds}",
        f"--fsize={limits.file_bytes}",
        "--core=0",
        "--",
        program,
        *words,
    ]
    output, complaint = bytearray(), bytearray()
    status: int | None = None
    failures: list[BaseException] = []
    with trio.move_on_after(limits.seconds):
        try:
            async with trio.open_nursery() as nursery:
                process = await nursery.start(partial(_process, command))
                async with trio.open_nursery() as readers:
                    readers.start_soon(_read, process.stderr, complaint, None)
                    await _read(process.stdout, output, nursery.cancel_scope)
                status = await process.wait()
        except* OSError as group:
            failures += group.exceptions
    if failures:
        raise ConfigError(f"{program} cannot be started: {failures[0]}") from failures[0]
    return Finished(
        status=status,
        output=bytes(output),
        complaint=" ".join(complaint.decode("utf-8", "replace").split()),
    )


async def _process(
    command: Sequence[str], *, task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED
) -> None:
    await trio.run_process(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
        deliver_cancel=_kill,
        env={"PATH": SEARCH_PATH, "LC_ALL": "C"},
        cwd="/",
        start_new_session=True,
        task_status=task_status,
    )


async def _kill(process: trio.Process) -> None:
    process.kill()


async def _read(
    stream: trio.abc.ReceiveStream | None, into: bytearray, too_much: trio.CancelScope | None
) -> None:
    """Read to the end; beyond the bound cancel ``too_much``, or throw away."""
    assert stream is not None
    async for piece in stream:
        bound = COMPLAINT_BYTES if too_much is None else OUTPUT_BYTES
        if too_much is not None and len(into) + len(piece) > bound:
            too_much.cancel(reason="a program says too much")
        into += piece[: bound - len(into)]


_isolated = trio.lowlevel.RunVar[tuple[str, ...]]("imagestore network isolation")


async def _isolation() -> tuple[str, ...]:
    """What to put before a command so that it has no network; nothing where the kernel refuses that."""
    try:
        return _isolated.get()
    except LookupError:
        pass
    found: tuple[str, ...] = ()
    for words in _ISOLATIONS:
        path = shutil.which(words[0], path=SEARCH_PATH)
        if path is None:
            continue
        tried = await trio.run_process(
            [path, *words[1:], "true"], check=False, capture_stdout=True, capture_stderr=True, cwd="/"
        )
        if tried.returncode == 0:
            found = (path, *words[1:], "--")
            break
    _isolated.set(found)
    return found
