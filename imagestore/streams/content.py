"""Decodes a body by its content: plain or compressed, a ZFS send stream or a disk image.

:class:`Decoder` is pushed the bytes of a body, in any cut, and gives those of
the image.  It never looks at names or types that somebody announced.  What it
gives is bounded step by step, however much a small body unpacks to; trailers
of the compression are verified and nothing may follow the last.

Does not verify send streams: their reader does.  Does not read disk formats:
their bytes come out as they are in the file.
"""

from collections.abc import Iterator
from typing import Final

from imagestore.errors import ContentRefused
from imagestore.streams import compressions, signatures
from imagestore.streams.compressions import OUTPUT_BYTES as OUTPUT_BYTES
from imagestore.streams.compressions import Piece as Piece
from imagestore.streams.compressions import Unpacker, compression_of
from imagestore.streams.signatures import VHD_FOOTER_BYTES, Content

SECTOR_BYTES: Final = 512


class Decoder:
    """Bytes of a body in, bytes of its image out.

    With ``takes_disk_formats`` qcow2 and the like are content as well; else
    they are refused.  Each iterator that :meth:`feed` or :meth:`finish` gives
    has to be exhausted before the next call; after an error the decoder is of
    no more use.
    """

    def __init__(self, *, takes_disk_formats: bool = False) -> None:
        self.kind: Content | None = None
        """What the content is, once its first bytes have told: never later than with the first piece."""
        self._takes_disk_formats = takes_disk_formats
        self._start: bytes | None = b""
        """The body's first bytes, until they tell its compression."""
        self._unpacker: Unpacker | None = None
        self._head = b""
        self._raw_bytes = 0
        self._held: Piece = b""
        """The last of raw content: it may be a footer, which is no part of the disk."""

    @property
    def is_packed(self) -> bool:
        """Whether the body is compressed; known when ``kind`` is."""
        return self._unpacker is not None

    def feed(self, data: Piece) -> Iterator[Piece]:
        """Take the next bytes of the body; give what they unpack to, a piece at a time.

        Pieces of a plain body are views of ``data``; of raw content the last
        one is given with the next call, so ``data`` has to stay as it is.

        Raises:
            ContentRefused: one line saying what the content is, or how it is damaged.
        """
        if self._start is not None:
            self._start += bytes(data)
            if len(self._start) < compressions.HEAD_BYTES:
                return
            data = self._begin()
        yield from self._unpacked(data)

    def finish(self) -> Iterator[Piece]:
        """Tell that the body has ended; give what was held back.

        Raises:
            ContentRefused: it is empty, cut, or no image.
        """
        if self._start is not None:
            yield from self._unpacked(self._begin())
        if self._unpacker is not None:
            self._unpacker.finish()
        if self.kind is None:
            if not self._head:
                raise ContentRefused("content is empty")
            yield from self._recognised()
        if self.kind == "raw":
            yield from self._last()

    def _begin(self) -> bytes:
        """The compression is known now; the bytes that told it."""
        assert self._start is not None
        start, self._start = self._start, None
        compression = compression_of(start)
        if compression is not None:
            self._unpacker = Unpacker(compression)
        return start

    def _unpacked(self, data: Piece) -> Iterator[Piece]:
        if self._unpacker is None:
            yield from self._content(data)
        else:
            for output in self._unpacker.feed(data):
                yield from self._content(output)

    def _content(self, data: Piece) -> Iterator[Piece]:
        """Find out what the content is; pass it on."""
        if self.kind is not None:
            yield from self._passed(data)
            return
        self._head += bytes(data)
        if len(self._head) < signatures.STREAM_HEAD_BYTES:
            return
        if len(self._head) < signatures.HEAD_BYTES and not signatures.is_stream(self._head):
            return
        yield from self._recognised()

    def _recognised(self) -> Iterator[Piece]:
        kind = signatures.classify(self._head)
        if kind != "stream" and kind != "raw" and not self._takes_disk_formats:
            signatures.refuse_format(kind)
        self.kind = kind
        head, self._head = self._head, b""
        yield from self._passed(head)

    def _passed(self, data: Piece) -> Iterator[Piece]:
        if self.kind != "raw":
            if len(data):
                yield data
            return
        self._raw_bytes += len(data)
        if len(data) >= VHD_FOOTER_BYTES:
            data, self._held = self._held, data
        else:
            both = bytes(self._held) + bytes(data)
            data, self._held = both[:-VHD_FOOTER_BYTES], both[-VHD_FOOTER_BYTES:]
        if len(data):
            yield data

    def _last(self) -> Iterator[Piece]:
        if self._raw_bytes % SECTOR_BYTES:
            raise ContentRefused(
                f"content is {self._raw_bytes} bytes long; a raw disk image has a multiple of {SECTOR_BYTES}"
            )
        disk, tail = self._held[:-VHD_FOOTER_BYTES], bytes(self._held[-VHD_FOOTER_BYTES:])
        for piece in (disk, signatures.without_footer(tail, self._raw_bytes)):
            if len(piece):
                yield piece
