"""Reading a head and not a byte more, and the body behind it, over real sockets."""

from collections.abc import AsyncIterator

import pytest
import trio

from imagestore.actors.plainbody import PIECE_BYTES, HeadReader, Stalled, Truncated, body

Pair = tuple[trio.SocketStream, trio.socket.SocketType]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """The sender's stream, and the reader's socket."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    reader = await trio.open_tcp_stream("127.0.0.1", port)
    sender = await listener.accept()
    yield sender, reader.socket
    for stream in (sender, reader, listener):
        await trio.aclose_forcefully(stream)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


@pytest.mark.parametrize("cut", range(1, len(HEAD)))
async def test_a_head_comes_whole_and_nothing_behind_it_in_whatever_cut(pair: Pair, cut: int) -> None:
    sender, plain = pair
    head = HeadReader(plain)
    got = b""

    async def send() -> None:
        await sender.send_all(HEAD[:cut])
        while len(got) < cut:
            await trio.lowlevel.checkpoint()
        await sender.send_all(HEAD[cut:] + b"body")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while not head.is_complete:
            got += await head.read(1 << 16)
    assert got == HEAD
    assert b"".join([bytes(p) async for p in body(plain, 4, 5)]) == b"body"


async def test_an_interim_answer_is_not_the_end_of_the_heads(pair: Pair) -> None:
    sender, plain = pair
    await sender.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + b"body")
    head = HeadReader(plain)
    assert await head.read(1 << 16) == b"HTTP/1.1 103 Early Hints\r\n\r\n"
    assert not head.is_complete
    assert await head.read(1 << 16) == HEAD
    assert head.is_complete


async def test_the_end_of_the_connection_in_a_head(pair: Pair) -> None:
    sender, plain = pair
    await sender.send_all(b"HTTP/1.1 200")
    await sender.send_eof()
    head = HeadReader(plain)
    assert await head.read(1 << 16) == b"HTTP/1.1 200"
    assert await head.read(1 << 16) == b""


async def test_a_body_comes_in_large_pieces_and_no_byte_behind_it(pair: Pair) -> None:
    sender, plain = pair
    sent = bytes(range(256)) * 16384
    pieces: list[memoryview] = []

    async def read() -> None:
        pieces.extend([piece async for piece in body(plain, len(sent), 5)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await sender.send_all(sent + b"more")
    assert b"".join(pieces) == sent
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert await plain.recv(10) == b"more"


async def test_what_has_come_is_given_away_when_the_sender_pauses(pair: Pair) -> None:
    sender, plain = pair
    await sender.send_all(b"some")
    pieces = body(plain, 100, 5)
    assert bytes(await anext(pieces)) == b"some"
    await pieces.aclose()


async def test_a_body_that_ends_early_is_truncated(pair: Pair) -> None:
    sender, plain = pair
    await sender.send_all(b"some")
    await sender.send_eof()
    pieces = body(plain, 100, 5)
    assert bytes(await anext(pieces)) == b"some"
    with pytest.raises(Truncated):
        await anext(pieces)


async def test_a_sender_that_says_nothing_for_too_long_stalls(pair: Pair) -> None:
    _, plain = pair
    with pytest.raises(Stalled):
        await anext(body(plain, 100, 0.01))


async def test_cancelling_a_reader_that_waits_ends_it(pair: Pair) -> None:
    _, plain = pair
    pieces = body(plain, 100, 1000)
    with trio.move_on_after(0.01) as scope:
        await anext(pieces)
    assert scope.cancelled_caught
