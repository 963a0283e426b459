"""Decodes a body by its content: plain or gzipped, a ZFS send stream or a raw disk image.

:class:`Decoder` is pushed the bytes of a body, in any cut, and gives those of
the image.  It never looks at names or types that somebody announced.  What it
gives is bounded step by step, however much a small body unpacks to; gzip's
trailers are verified and nothing may follow the last.

Does not verify send streams: their reader does.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from imagestore.errors import ContentRefused
from imagestore.streams import signatures
from imagestore.streams.signatures import Kind

Piece = bytes | memoryview

OUTPUT_BYTES: Final = 1 << 20
"""Longest piece that unpacking gives at once."""

_INPUT_BYTES: Final = 64 << 10
_GZIP_WINDOW: Final = 31
SECTOR_BYTES: Final = 512


class Decoder:
    """Bytes of a body in, bytes of its image out.

    Each iterator that :meth:`feed` or :meth:`finish` gives has to be exhausted
    before the next call; after an error the decoder is of no more use.
    """

    def __init__(self) -> None:
        self.kind: Kind | None = None
        """What the content is, once its first bytes have told: never later than with the first piece."""
        self._start = b""
        self._is_gzip: bool | None = None
        self._codec: zlib._Decompress | None = None
        self._members = 0
        self._head = b""
        self._raw_bytes = 0
        self._tail = b""

    def feed(self, data: Piece) -> Iterator[Piece]:
        """Take the next bytes of the body; give what they unpack to, a piece at a time.

        Pieces of a plain body are views of ``data``.

        Raises:
            ContentRefused: one line saying what the content is, or how it is damaged.
        """
        if self._is_gzip is None:
            self._start += bytes(data)
            if len(self._start) < len(signatures.GZIP_MAGIC):
                return
            self._is_gzip = self._start.startswith(signatures.GZIP_MAGIC)
            data, self._start = self._start, b""
        if self._is_gzip:
            yield from self._inflate(memoryview(data))
        else:
            yield from self._content(data)

    def finish(self) -> Iterator[Piece]:
        """Tell that the body has ended; give what was held back.

        Raises:
            ContentRefused: it is empty, cut, or no image.
        """
        if self._is_gzip and self._codec is not None:
            raise ContentRefused("gzip content is cut: its trailer is missing")
        if self._start:
            self._head, self._start = self._start, b""
        if self.kind is None:
            if not self._head:
                raise ContentRefused("content is empty")
            self.kind = signatures.classify(self._head)
            yield self._counted(self._head)
        if self.kind == "raw":
            if self._raw_bytes % SECTOR_BYTES:
                raise ContentRefused(
                    f"content is {self._raw_bytes} bytes long; "
                    f"a raw disk image has a multiple of {SECTOR_BYTES}"
                )
            signatures.check_footer(self._tail)

    def _inflate(self, data: memoryview) -> Iterator[Piece]:
        for at in range(0, len(data), _INPUT_BYTES):
            rest: Piece = data[at : at + _INPUT_BYTES]
            more = True
            while more:
                output, rest, more = self._inflate_step(rest)
                if output:
                    yield from self._content(output)

    def _inflate_step(self, data: Piece) -> tuple[bytes, bytes, bool]:
        """At most OUTPUT_BYTES of output, the input that is left, and whether to go on with it."""
        if self._codec is None:
            if not len(data):
                return b"", b"", False
            if self._members and not signatures.GZIP_MAGIC.startswith(bytes(data[:2])):
                raise ContentRefused("bytes follow gzip's trailer; nothing but another gzip member may")
            self._codec = zlib.decompressobj(_GZIP_WINDOW)
            self._members += 1
        try:
            output = self._codec.decompress(data, OUTPUT_BYTES)
        except zlib.error as error:
            raise ContentRefused(f"gzip content is damaged: {error}") from None
        if self._codec.eof:
            rest = self._codec.unused_data
            self._codec = None
            return output, rest, bool(rest)
        rest = self._codec.unconsumed_tail
        # A full output says that zlib may hold more, even of input that is used up
        return output, rest, bool(rest) or len(output) == OUTPUT_BYTES

    def _content(self, data: Piece) -> Iterator[Piece]:
        """Find out what the content is; pass it on."""
        if self.kind is not None:
            if len(data):
                yield self._counted(data)
            return
        self._head += bytes(data)
        if len(self._head) < signatures.STREAM_HEAD_BYTES:
            return
        if len(self._head) < signatures.HEAD_BYTES and not signatures.is_stream(self._head):
            return
        self.kind = signatures.classify(self._head)
        head, self._head = self._head, b""
        yield self._counted(head)

    def _counted(self, data: Piece) -> Piece:
        if self.kind == "raw":
            self._raw_bytes += len(data)
            if len(data) >= signatures.VHD_FOOTER_BYTES:
                self._tail = bytes(data[-signatures.VHD_FOOTER_BYTES :])
            else:
                self._tail = (self._tail + bytes(data))[-signatures.VHD_FOOTER_BYTES :]
        return data
