"""A real store under load and strace: no reply to a change leaves before a flush has made it durable.

A kill proves less: SIGKILL keeps what the kernel has in its memory.
"""

import itertools
import json
from pathlib import Path

import pytest
import trio

from tests.crash.process import Place, StoreProcess
from tests.flushes.systemcalls import SEEN, Exchange, calls, exchanges, judge
from tests.http.wire import RPC_PATH, Wire

CLIENTS = 6
ROUNDS = 8
CHANGES = 3
"""Of each round: a volume made, snapshotted, deleted."""

LONGEST_STRING = 1 << 22


def tracing(into: Path) -> list[str]:
    """strace, as a process beside the store: signals to the one that was started reach the store."""
    return [
        *("strace", "--daemonize", "--follow-forks", "--seccomp-bpf", "--decode-fds=all", "--signal=none"),
        *("--trace", ",".join(SEEN), "--string-limit", str(LONGEST_STRING), "--output", str(into)),
    ]


async def change_much(address: tuple[str, int], client: int) -> None:
    """One change after the other, on a connection of its own."""
    async with await Wire.open(address) as wire:
        for number in range(ROUNDS):
            name = f"volume-{client}-{number}"
            for method, request in (
                ("CreateVolume", {"id": name, "size": 8}),
                ("CreateSnapshot", {"id": name, "dest": "s"}),
                ("DeleteDataset", {"id": name}),
            ):
                asked = {"method": f"ImageStore.{method}", "params": [request], "id": number}
                headers = {"Content-Type": "application/json"}
                reply = await wire.ask("POST", RPC_PATH, headers, json.dumps(asked).encode())
                assert reply.status == 200, reply.body


async def traced(directory: Path) -> str:
    """What strace saw of a store that several clients change at once."""
    trace = directory / "trace"
    process = StoreProcess(Place(directory), "127.0.0.1:1", under=tracing(trace))
    try:
        await process.spawn()
        host, _, port = (await process.until_ready()).removeprefix("http://").rpartition(":")
        async with trio.open_nursery() as nursery:
            for client in range(CLIENTS):
                nursery.start_soon(change_much, (host, int(port)), client)
        assert await process.stop() == 0
    finally:
        await process.kill()
    return trace.read_text()


@pytest.mark.system
async def test_between_each_request_and_its_reply_lie_the_flushes_of_intent_and_outcome(
    tmp_path: Path,
) -> None:
    seen = list(calls(await traced(tmp_path)))
    changes = [exchange for exchange in exchanges(seen) if exchange.operation]
    assert len(changes) == CLIENTS * ROUNDS * CHANGES
    assert len({change.operation for change in changes}) == len(changes)
    assert overlapping(changes) > 0, "the clients did not ask at once"
    journal = str(Place(tmp_path).journal)
    assert [line for change in changes for line in judge(change, seen, journal)] == []


def overlapping(changes: list[Exchange]) -> int:
    """How many changes were asked for while another had no reply yet."""
    return sum(later.request.ended < earlier.reply.began for earlier, later in itertools.pairwise(changes))
