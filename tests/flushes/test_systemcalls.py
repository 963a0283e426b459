"""Reading strace, and the judgement whether a flush came before the reply."""

import pytest

from tests.flushes.systemcalls import calls, exchanges, judge, written

ASK = (
    '10 recvfrom(21<TCP:[127.0.0.1:1->127.0.0.1:2]>, "POST /x HTTP/1.1\\r\\n\\r\\n{}", '
    "65536, 0, NULL, NULL) = 21"
)
START = (
    '11 pwrite64(16</j/segment-1>, "IJFR\\271\\0\\"[{\\"id\\":\\"e1\\",\\"operation\\":\\"op1\\",'
    '\\"event\\":{\\"event\\":\\"operation-started\\"}}]\\0\\0", 90, 4096) = 90'
)
END = START.replace("started", "finished")
OTHER_END = END.replace("11 ", "12 ")
FLUSH = "11 fdatasync(16</j/segment-1>) = 0"
BEGUN = "11 fdatasync(16</j/segment-1> <unfinished ...>"
ENDED = "11 <... fdatasync resumed>) = 0"
REPLY = (
    "10 sendto(21<TCP:[127.0.0.1:1->127.0.0.1:2]>, "
    '"HTTP/1.1 200 \\r\\nimagestore-operation: op1\\r\\n\\r\\n{}", 50, 0, NULL, 0) = 50'
)
GOOD = [ASK, START, FLUSH, END, FLUSH, REPLY]


def wrong(lines: list[str]) -> list[str]:
    seen = list(calls("\n".join(lines)))
    (exchange,) = exchanges(seen)
    assert exchange.operation == "op1"
    return judge(exchange, seen, "/j")


def test_flushes_before_the_reply_are_right() -> None:
    assert wrong(GOOD) == []


def test_what_was_written_is_read_out_of_its_frames() -> None:
    both = END.replace("]\\0\\0", ']\\0IJFR[{\\"id\\":\\"e2\\",\\"event\\":{\\"event\\":\\"x\\"}}]')
    (write,) = calls(both)
    assert list(written(write)) == [("op1", "operation-finished"), ("", "x")]
    assert write.data.startswith(b'IJFR\xb9\0"[')


def test_a_call_that_others_interrupt_began_where_it_began_and_ended_where_it_ended() -> None:
    interrupted = [
        "10 recvfrom(21<TCP:[127.0.0.1:1->127.0.0.1:2]>,  <unfinished ...>",
        "11 fdatasync(16</j/segment-1> <unfinished ...>",
        '10 <... recvfrom resumed>"POST /", 65536, 0, NULL, NULL) = 6',
        "11 <... fdatasync resumed>)          = 0",
    ]
    ask, flush = calls("\n".join(interrupted))
    assert (ask.name, ask.data, ask.began, ask.ended) == ("recvfrom", b"POST /", 0, 2)
    assert (flush.name, flush.file, flush.began, flush.ended) == ("fdatasync", "/j/segment-1", 1, 3)


def test_what_is_no_call_of_interest_is_passed_over() -> None:
    lines = [
        "10 +++ exited with 0 +++",
        "10 close(3</x>) = 0",
        "strace: Process 12 attached",
        "10 getpid() = 10",
    ]
    assert list(calls("\n".join(lines))) == []


def test_a_string_that_was_cut_short_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1"):
        list(calls('10 sendto(21<TCP:[a]>, "abc"..., 50, 0, NULL, 0) = 50'))


def test_each_connection_has_its_own_exchanges() -> None:
    other = [line.replace("127.0.0.1:2", "127.0.0.1:3").replace("op1", "op2") for line in (ASK, REPLY)]
    found = list(exchanges(calls("\n".join([ASK, other[0], other[1], REPLY, ASK, REPLY]))))
    assert [exchange.operation for exchange in found] == ["op2", "op1", "op1"]
    assert all(e.request.file == e.reply.file for e in found)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([ASK, START, END, REPLY], "started was not flushed"),
        ([ASK, START, FLUSH, END, REPLY], "finished was not flushed"),
        ([ASK, START, FLUSH, END, REPLY, FLUSH], "finished was not flushed"),
        ([ASK, START, FLUSH, END, FLUSH.replace("= 0", "= -1"), REPLY], "finished was not flushed"),
        (
            [ASK, START, FLUSH, END, FLUSH.replace("segment-1", "segment-2"), REPLY],
            "finished was not flushed",
        ),
        ([ASK, START, FLUSH, FLUSH, END, REPLY], "finished was not flushed"),
        ([ASK, START, FLUSH, REPLY, END, FLUSH], "finished was not written"),
        ([ASK, FLUSH, END, FLUSH, REPLY], "started was not written"),
        ([START, FLUSH, ASK, END, FLUSH, REPLY], "started was not written"),
        ([ASK, START, END, FLUSH, REPLY], "finished was not written"),
        ([ASK, START, FLUSH, END.replace("op1", "op2"), FLUSH, REPLY], "finished was not written"),
        ([ASK, START, FLUSH, BEGUN, OTHER_END, ENDED, REPLY], "finished was not flushed"),
        ([ASK, START, FLUSH, END, BEGUN, REPLY, ENDED], "finished was not flushed"),
    ],
)
def test_each_way_to_reply_too_early_is_seen(lines: list[str], said: str) -> None:
    assert any(said in line for line in wrong(lines)), wrong(lines)
