"""Unpacks bodies that are compressed as a whole: gzip, xz, zstd, bzip2; recognised by their first bytes.

An unpacker is pushed the body in any cut and gives pieces of bounded length,
however much a small body unpacks to.  Several members (gzip), streams (xz,
bzip2) or frames (zstd) in a row are one body; nothing else may follow the
last.  Checksums and trailers are verified by the format's own library, which
is imported when a body needs it.
"""

import re
from collections.abc import Iterator
from typing import Final, Protocol

from imagestore.errors import ContentRefused

Piece = bytes | memoryview

HEAD_BYTES: Final = 10
"""As much of a body's beginning tells its compression."""

OUTPUT_BYTES: Final = 1 << 20
"""Longest piece that unpacking gives at once."""

MEMORY_BYTES: Final = 128 << 20
"""So much may a packer's dictionary take: xz -9 needs 65 MiB, zstd --long 128."""

_INPUT_BYTES: Final = 64 << 10
_ZSTD_INPUT_BYTES: Final = 256
"""zstd's library bounds no output: four bytes of input are at most 128 KiB of it, these are 8 MiB."""

_GZIP_WINDOW: Final = 31
_SIGNATURES: Final = (
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"\xfd7zXZ\0"), "xz"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"), "bzip2"),
)


def compression_of(head: bytes) -> str | None:
    """``gzip``, ``xz``, ``zstd`` or ``bzip2``; None if a body with this beginning is none of them."""
    return next((name for pattern, name in _SIGNATURES if pattern.match(head)), None)


class Unpacker:
    """Bytes of a body compressed as ``name`` in, what it unpacks to out.

    Each iterator has to be exhausted before the next call.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._step_bytes = _ZSTD_INPUT_BYTES if name == "zstd" else _INPUT_BYTES
        self._part: _Part | None = None
        self._parts = 0
        self._start = b""
        """The beginning of what follows a part, too short to be judged."""

    def feed(self, data: Piece) -> Iterator[bytes]:
        """Raises ContentRefused: damaged, too large a dictionary, or followed by something else."""
        view = memoryview(data)
        for at in range(0, len(view), self._step_bytes):
            yield from self._step(view[at : at + self._step_bytes])

    def finish(self) -> None:
        """Tell that the body has ended. Raises ContentRefused: it is cut."""
        if self._part is not None:
            raise ContentRefused(f"{self._name} content is cut: its trailer is missing")
        if self._start:
            raise self._followed()

    def _step(self, data: Piece) -> Iterator[bytes]:
        while len(data):
            if self._part is None:
                data = self._begin(data)
                if self._part is None:
                    return
            # A part may hold output of input that is used up: asked again until it has none.
            while True:
                output = self._part.feed(data)
                data = b""
                for at in range(0, len(output), OUTPUT_BYTES):
                    yield output[at : at + OUTPUT_BYTES]
                if self._part.at_end or not self._part.has_more:
                    break
            if self._part.at_end:
                data, self._part = self._part.rest, None

    def _begin(self, data: Piece) -> Piece:
        """Begin the next part if ``data`` has its signature; what is to be fed to it."""
        start = self._start + bytes(data)
        if self._name == "xz" and self._parts:
            padding = len(start) - len(start.lstrip(b"\0"))
            start = start[padding - padding % 4 :]
        self._start = b""
        if self._parts and compression_of(start) != self._name:
            if len(start) >= HEAD_BYTES or not self._may_become(start):
                raise self._followed()
            self._start = start
            return b""
        self._part = _PARTS[self._name]()
        self._parts += 1
        return start

    def _may_become(self, start: bytes) -> bool:
        beginnings = {"gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ\0", "bzip2": b"BZh"}
        if self._name == "zstd":
            return len(start) < 4
        beginning = beginnings[self._name]
        return start.startswith(beginning) or beginning.startswith(start) or not start.strip(b"\0")

    def _followed(self) -> ContentRefused:
        return ContentRefused(
            f"bytes follow {self._name}'s trailer; nothing but more {self._name} content may"
        )


class _Part(Protocol):
    """One member, stream or frame.  ``rest`` is what lies behind its end."""

    at_end: bool
    has_more: bool
    rest: bytes

    def feed(self, data: Piece) -> bytes: ...


class _Gzip:
    """By isa-l, which unpacks twice as fast as zlib does."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._codec = isal_zlib.decompressobj(_GZIP_WINDOW)
        self._error: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub declares an instance
        self.at_end = self.has_more = False
        self.rest = b""

    def feed(self, data: Piece) -> bytes:
        try:
            output: bytes = self._codec.decompress(self._codec.unconsumed_tail or data, OUTPUT_BYTES)
        except self._error as error:
            raise ContentRefused(f"gzip content is damaged: {error}") from None
        self.at_end = self._codec.eof
        self.rest = self._codec.unused_data
        # A full output says that the codec may hold more, even of input that is used up.
        self.has_more = bool(self._codec.unconsumed_tail) or len(output) == OUTPUT_BYTES
        return output


class _Xz:
    def __init__(self) -> None:
        import lzma

        self._codec = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_BYTES)
        self._error = lzma.LZMAError
        self.at_end = self.has_more = False
        self.rest = b""

    def feed(self, data: Piece) -> bytes:
        try:
            output = self._codec.decompress(data, OUTPUT_BYTES)
        except (self._error, EOFError) as error:
            reason = "it needs too much memory" if "limit" in str(error).lower() else str(error)
            raise ContentRefused(f"xz content is damaged: {reason}") from None
        self.at_end = self._codec.eof
        self.rest = self._codec.unused_data
        self.has_more = not self._codec.needs_input
        return output


class _Bzip2:
    def __init__(self) -> None:
        import bz2

        self._codec = bz2.BZ2Decompressor()
        self.at_end = self.has_more = False
        self.rest = b""

    def feed(self, data: Piece) -> bytes:
        try:
            output = self._codec.decompress(data, OUTPUT_BYTES)
        except (OSError, ValueError, EOFError) as error:
            raise ContentRefused(f"bzip2 content is damaged: {error}") from None
        self.at_end = self._codec.eof
        self.rest = self._codec.unused_data
        self.has_more = not self._codec.needs_input
        return output


class _Zstd:
    def __init__(self) -> None:
        import zstandard

        self._codec = zstandard.ZstdDecompressor(max_window_size=MEMORY_BYTES).decompressobj()
        self._error = zstandard.ZstdError
        self.at_end = self.has_more = False
        self.rest = b""

    def feed(self, data: Piece) -> bytes:
        try:
            output = self._codec.decompress(data)
        except self._error as error:
            raise ContentRefused(f"zstd content is damaged: {error}") from None
        self.at_end = self._codec.eof
        self.rest = self._codec.unused_data
        return output


_PARTS: Final[dict[str, type[_Gzip] | type[_Xz] | type[_Bzip2] | type[_Zstd]]] = {
    "gzip": _Gzip,
    "xz": _Xz,
    "bzip2": _Bzip2,
    "zstd": _Zstd,
}
