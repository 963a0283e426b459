"""Bytes in a pipe."""

import os

from imagestore.pipes import InPipe


def test_who_wants_copies_gets_them_out_of_the_pipe() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"stream")
        piece = InPipe(reader, 4)
        assert (len(piece), bytes(piece), len(piece)) == (4, b"stre", 0)
        assert os.read(reader, 10) == b"am"
    finally:
        os.close(reader)
        os.close(writer)
