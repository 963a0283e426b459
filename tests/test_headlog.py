"""The journal's head goes to the system's log when it has moved, and holds nothing up."""

import threading

import trio
import trio.testing

from imagestore.headlog import log_heads


class Journal:
    uuid = "019ab697e8017000bcfbb050acab1a6b"
    head = (3, "ab" * 32)


async def test_the_head_is_sent_at_once_and_whenever_it_has_moved(nursery: trio.Nursery) -> None:
    journal, sent, moved = Journal(), list[str](), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def send(line: str) -> None:
        sent.append(line)
        if len(sent) > 1:
            trio.from_thread.run_sync(moved.set, trio_token=token)
        else:
            journal.head = (4, "cd" * 32)

    nursery.start_soon(lambda: log_heads(journal, 0.001, send=send))
    with trio.fail_after(10):
        await moved.wait()
    assert sent == [
        f"journal {Journal.uuid} head 3:{'ab' * 32}",
        f"journal {Journal.uuid} head 4:{'cd' * 32}",
    ]
    nursery.cancel_scope.cancel()


async def test_a_log_that_does_not_answer_keeps_nobody_from_ending() -> None:
    released = threading.Event()
    asked = threading.Event()

    def hangs(line: str) -> None:
        asked.set()
        released.wait(10)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: log_heads(Journal(), 1, send=hangs))
            await trio.to_thread.run_sync(asked.wait)
            nursery.cancel_scope.cancel()
    released.set()
