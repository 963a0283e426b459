"""What a stream says of itself before its content: which snapshot it brings first, and from which base.

Nothing here is vouched for yet: the checker judges the same bytes again.  Pure.
"""

import itertools
from collections.abc import Iterable

from imagestore.errors import ContentRefused, StreamError
from imagestore.streams import records
from imagestore.streams.content import Decoder
from imagestore.streams.decoding import decode
from imagestore.streams.records import HEADER_BYTES, Begin, End
from imagestore.streams.rules import parse_name
from imagestore.streams.snapshot import SnapshotInfo


def heading_of(start: bytes | bytearray) -> SnapshotInfo | None:
    """The first snapshot that a stream brings; its sizes are 0, the content will tell.

    ``start`` is the stream's beginning; None when it is too short.  A package
    is seen through: its own header and what it lists come first.

    Raises:
        StreamError: this is the beginning of no stream that could be taken.
    """
    with memoryview(start) as view:
        begin = _begin_at(view, 0)
        if begin is not None and begin.header_type == records.PACKAGE:
            end_at = HEADER_BYTES + begin.payload_bytes
            if len(view) < end_at + HEADER_BYTES:
                return None
            if not isinstance(decode(view, end_at), End):
                raise StreamError("the package's header does not end with END")
            begin = _begin_at(view, end_at + HEADER_BYTES)
    if begin is None:
        return None
    return SnapshotInfo(
        name=parse_name(begin.toname),
        guid=begin.toguid,
        volsize=0,
        volblocksize=0,
        creation_seconds=begin.creation_seconds,
        from_guid=begin.fromguid,
        is_clone=bool(begin.flags & records.FLAG_CLONE),
    )


def heading_in(pieces: Iterable[bytes]) -> SnapshotInfo:
    """The same of a stream that comes in pieces, packed or not; no more is taken than that needs.

    Raises:
        ContentRefused: this is no send stream.
        StreamError: it is cut, or none that could be taken.
    """
    decoder, start = Decoder(), bytearray()
    unpacked = itertools.chain.from_iterable(itertools.chain(map(decoder.feed, pieces), [decoder.finish()]))
    for part in unpacked:
        check_stream(decoder)
        start += part
        if (heading := heading_of(start)) is not None:
            return heading
    raise cut_in_heading(start)


def check_stream(decoder: Decoder) -> None:
    """Raises ContentRefused when what is being unpacked turned out to be something else."""
    if decoder.kind == "raw":
        raise ContentRefused("this is no ZFS send stream; it looks like a raw disk image")


def cut_in_heading(start: bytes | bytearray) -> StreamError:
    return StreamError(f"the stream is cut in its heading, after {len(start)} bytes")


def _begin_at(view: memoryview, at: int) -> Begin | None:
    if len(view) < at + HEADER_BYTES:
        return None
    record = decode(view, at)
    if not isinstance(record, Begin):
        raise StreamError(f"{records.type_name(record)} stands where BEGIN must; this is no send stream")
    return record
