"""libzfs_core, OpenZFS's stable C interface, through ctypes.

A call costs what the kernel does; a ``zfs`` process costs two to three times
that, most of it its own start.  Errors are errno numbers, not texts, and there
is no child that outlives the store.  (What the kernel has begun for a thread
of a killed process it finishes before that process is gone, and its locks with
it.)  What the interface lacks is left to the commands: streams, native
properties of what exists, file systems that may be mounted.

Owns the library's types and memory.  Name-value lists cross packed (XDR).
Every method blocks and may be called from several threads at once; for a
pool whose disks do not answer it blocks until they do.
"""

import ctypes
import errno
import os
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Self

from imagestore.errors import PoolError
from imagestore.pools.zfs.failures import NEEDS_ROOT
from imagestore.streams import nvlist
from imagestore.streams.nvlist import NvList, NvValue

_LIBRARIES: Final = ("libzfs_core.so.3", "libzfs_core.so")
_NVPAIR_LIBRARIES: Final = ("libnvpair.so.3", "libnvpair.so")

_TYPES: Final = {"filesystem": 2, "volume": 3}
_XDR: Final = 1

INSTRUCTION_LIMIT: Final = 100_000_000
MEMORY_LIMIT_BYTES: Final = 100_000_000
"""The most that a channel program may have."""

Properties = Mapping[str, int | str]


class ZfsCore:
    """The library, initialised once for the process.

    Raises:
        PoolError: it is not installed, or the kernel's module is not loaded.
    """

    def __init__(self) -> None:
        self._core = _load(_LIBRARIES)
        self._pairs = _load(_NVPAIR_LIBRARIES)
        self._libc = ctypes.CDLL(None)
        self._libc.free.argtypes = [ctypes.c_void_p]
        self._libc.free.restype = None
        self._pairs.nvlist_free.restype = None
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64
        for library, name, types in (
            (self._pairs, "nvlist_unpack", [text, ctypes.c_size_t, pointer, ctypes.c_int]),
            (self._pairs, "nvlist_pack", [pointer, pointer, pointer, ctypes.c_int, ctypes.c_int]),
            (self._pairs, "nvlist_add_string_array", [pointer, text, pointer, ctypes.c_uint]),
            (self._pairs, "nvlist_free", [pointer]),
            (self._core, "lzc_create", [text, ctypes.c_int, pointer, pointer, ctypes.c_uint]),
            (self._core, "lzc_clone", [text, text, pointer]),
            (self._core, "lzc_snapshot", [pointer, pointer, pointer]),
            (self._core, "lzc_rename", [text, text]),
            (self._core, "lzc_channel_program", [text, text, number, number, pointer, pointer]),
            (self._core, "lzc_channel_program_nosync", [text, text, number, number, pointer, pointer]),
        ):
            getattr(library, name).argtypes = types
        status = self._core.libzfs_core_init()
        if status in (errno.EACCES, errno.EPERM):
            raise PoolError(
                f"/dev/zfs may not be opened by user {os.getuid()}: {os.strerror(status).lower()}",
                detail=NEEDS_ROOT,
            )
        if status:
            raise PoolError(
                f"OpenZFS is installed, but its kernel module does not answer: {os.strerror(status)}",
                detail="load it: modprobe zfs (Debian: zfs-dkms and the kernel's headers build it)",
            )

    def create(self, name: str, kind: Literal["filesystem", "volume"], properties: Properties) -> int:
        """Make a dataset; the errno, 0 for success.  As all that return a number."""
        with _List(self._pairs, dict(properties)) as given:
            return int(self._core.lzc_create(name.encode(), _TYPES[kind], given.pointer, None, 0))

    def clone(self, name: str, origin: str, properties: Properties) -> int:
        with _List(self._pairs, dict(properties)) as given:
            return int(self._core.lzc_clone(name.encode(), origin.encode(), given.pointer))

    def snapshot(self, snapshots: Sequence[str], properties: Properties) -> int:
        """Take all of them at one instant, or none."""
        failed = ctypes.c_void_p()
        with (
            _List(self._pairs, dict.fromkeys(snapshots)) as names,
            _List(self._pairs, dict(properties)) as given,
        ):
            status = int(self._core.lzc_snapshot(names.pointer, given.pointer, ctypes.byref(failed)))
        if failed.value is not None:
            self._pairs.nvlist_free(failed)
        return status

    def rename(self, name: str, new_name: str) -> int:
        return int(self._core.lzc_rename(name.encode(), new_name.encode()))

    def program(self, pool: str, text: str, arguments: Sequence[str], *, changes: bool) -> tuple[int, NvList]:
        """Run a channel program with ``argv``; the errno, and what it returned or its ``error``.

        ``changes``: in a transaction of its own; otherwise it can only look.
        """
        run = self._core.lzc_channel_program if changes else self._core.lzc_channel_program_nosync
        output = ctypes.c_void_p()
        words = (ctypes.c_char_p * len(arguments))(*(word.encode() for word in arguments))
        with _List(self._pairs, {}) as given:
            if arguments and self._pairs.nvlist_add_string_array(
                given.pointer, b"argv", words, len(arguments)
            ):
                return errno.ENOMEM, {}
            status = run(
                pool.encode(),
                text.encode(),
                INSTRUCTION_LIMIT,
                MEMORY_LIMIT_BYTES,
                given.pointer,
                ctypes.byref(output),
            )
        return int(status), self._take(output)

    def _take(self, pointer: ctypes.c_void_p) -> NvList:
        """What a list of the library's holds; frees it."""
        if pointer.value is None:
            return {}
        packed, size = ctypes.c_void_p(), ctypes.c_size_t()
        try:
            if self._pairs.nvlist_pack(pointer, ctypes.byref(packed), ctypes.byref(size), _XDR, 0):
                raise PoolError("what libzfs_core answered cannot be packed")
        finally:
            self._pairs.nvlist_free(pointer)
        try:
            assert packed.value is not None
            return nvlist.decode(memoryview(ctypes.string_at(packed.value, size.value)))
        finally:
            self._libc.free(packed)


class _List:
    """A name-value list in the library's memory, for the length of a block."""

    def __init__(self, library: ctypes.CDLL, pairs: Mapping[str, NvValue]) -> None:
        self._library = library
        self.pointer = ctypes.c_void_p()
        packed = nvlist.encode(dict(pairs))
        if library.nvlist_unpack(packed, len(packed), ctypes.byref(self.pointer), 0):
            raise PoolError("libnvpair did not take a name-value list")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._library.nvlist_free(self.pointer)


def _load(names: Sequence[str]) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise PoolError(
        f"OpenZFS is not installed: there is no {names[0]}",
        detail="install it (Debian: apt-get install zfs-dkms zfsutils-linux), or use a directory pool: "
        "--pool dir:/srv/imagestore/pool",
    )
