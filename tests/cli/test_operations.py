"""``imagestore op``, keys and ``log -f`` against a real store, also while it is restarted."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from imagestore.cli.storeprocess import StoreProcess
from imagestore.events.catalogue import JournalOpened
from imagestore.events.follow import Follower
from imagestore.operationclient import OperationClient
from imagestore.wire import Changing
from tests.cli.conftest import Run, free_port


def last_operation(run: Run) -> dict[str, object]:
    found: dict[str, object] = json.loads(run("op", "ls", "--last", "1", "-o", "json").out)[0]
    return found


def test_operations_are_listed_shown_and_waited_for(process: StoreProcess, run: Run) -> None:
    accepted = run("volume", "create", "a/b", "1M", "--no-wait")
    operation = accepted.out.strip()
    assert accepted.status == 0
    assert len(operation) == 36
    waited = run("op", "wait", operation)
    assert (waited.status, waited.err) == (0, "")
    assert "dataset-created a/b" in waited.out
    assert last_operation(run)["id"] == operation
    assert json.loads(run("op", "show", operation, "-o", "json").out)["status"] == "succeeded"
    listed = run("op", "ls", "--dataset", "a/b", "--status", "succeeded", "--since", "1h").out.splitlines()
    assert listed[0].split() == ["ID", "TIME", "TOOK", "WHO", "METHOD", "SUBJECT", "STATUS"]
    assert len(listed) == 2
    assert run("op", "show", "unknown").status == 3


def test_a_failed_operation_is_waited_for_and_exits_as_it_did(process: StoreProcess, run: Run) -> None:
    operation = run("image", "pull", "golden", "--no-wait").out.strip()
    ended = run("op", "wait", operation)
    assert ended.status not in (0, 42)
    assert "failed" in ended.out
    assert ended.err.startswith("imagestore: ")
    cancelled = run("op", "cancel", operation)
    assert cancelled.status == 5
    assert "operation has ended" in cancelled.err


def test_a_key_makes_a_command_once(process: StoreProcess, run: Run) -> None:
    key = ("--idempotency-key", "night 7", "-o", "json")
    first = run("volume", "create", "a", "1M", *key)
    operation = last_operation(run)["id"]
    run("volume", "rm", "a", "--yes")
    process.kill()
    process.start()
    again = run("volume", "create", "a", "1M", *key)
    assert again == first
    assert run("volume", "show", "a").status == 3, "it was not made again"
    assert operation != last_operation(run)["id"]
    other = run("volume", "create", "b", "1M", *key)
    assert (other.status, other.err.splitlines()[0]) == (
        12,
        "imagestore: idempotency key stands for another request",
    )
    hostile = run("volume", "create", "b", "1M", "--idempotency-key", "x" * 10_000)
    assert hostile.status == 2
    assert "1 to 255" in hostile.err


def test_a_command_is_tried_again_until_the_store_is_back(process: StoreProcess, run: Run) -> None:
    process.kill()
    assert run("volume", "create", "a", "1M").status == 40
    starting = threading.Thread(target=process.start)
    starting.start()
    ended = run("volume", "create", "a", "1M", "--retry", "30", "-o", "json")
    starting.join()
    assert (ended.status, json.loads(ended.out)["size"]) == (0, 1)


def test_a_wait_goes_on_over_a_restart(process: StoreProcess, run: Run) -> None:
    client = OperationClient(f"http://127.0.0.1:{process._port}", changing=Changing(retry_seconds=10))
    client.create_volume("a", size_mib=1)
    operation = last_operation(run)["id"]
    process.kill()
    starting = threading.Thread(target=process.start)
    starting.start()
    assert client.wait_operation(str(operation), seconds=30).status == "succeeded"
    starting.join()


def spawned(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "imagestore", *arguments], stdout=subprocess.PIPE, text=True
    )


def lines_until(stream: IO[str] | None, text: str) -> list[str]:
    assert stream is not None
    found = []
    for line in stream:
        found.append(line)
        if text in line:
            return found
    raise AssertionError(f"it ended before {text}: {found}")


def test_log_follows_a_store_over_its_death(process: StoreProcess, run: Run, tmp_path: Path) -> None:
    with spawned("log", "-f", "--from-seq", "2", "-o", "jsonl") as following:
        try:
            run("volume", "create", "first", "1M")
            got = lines_until(following.stdout, "operation-finished")
            process.kill()
            process.start()
            run("volume", "create", "second", "1M")
            got += lines_until(following.stdout, '"second"')
        finally:
            following.kill()
    seqs = [json.loads(line)["seq"] for line in got]
    assert seqs == list(range(2, seqs[-1] + 1))
    written = Follower(str(tmp_path / "journal")).more()
    assert sum(isinstance(envelope.event, JournalOpened) for envelope in written) == 2


def test_log_follows_the_files_of_a_journal(process: StoreProcess, run: Run, tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    with spawned("log", "-f", "--journal", journal, "--dataset", "second", "--from-seq", "2") as following:
        try:
            run("volume", "create", "first", "1M")
            run("volume", "create", "second", "1M")
            got = lines_until(following.stdout, "operation-finished")
        finally:
            following.kill()
    assert got[0].split() == ["SEQ", "TIME", "WHO", "OPERATION", "EVENT", "WHAT"]
    assert [line.split()[5] for line in got[1:]] == [
        "operation-started",
        "dataset-created",
        "operation-finished",
    ]


def test_last_and_follow_exclude_each_other(run: Run) -> None:
    ended = run("log", "-f", "--last", "3")
    assert ended.status == 2
    assert "--last" in ended.err


def test_a_store_that_is_not_there_cannot_be_followed(run: Run) -> None:
    assert run("log", "-f", "--server", f"http://127.0.0.1:{free_port()}").status == 40


def test_log_asks_the_store_and_tells_what_the_files_hold(
    process: StoreProcess, run: Run, tmp_path: Path
) -> None:
    for name in ("first", "second", "second/below"):
        run("volume", "create", name, "1M")
    journal = str(tmp_path / "journal")
    operation = str(last_operation(run)["id"])
    wanted: list[tuple[str, ...]] = [
        *[(), ("--last", "3"), ("--from-seq", "5"), ("--dataset", "second"), ("--until", "2001-01-01")],
        *[("--dataset", "second", "--last", "2"), ("--since", "1h", "--who", "127.0.0.1"), ("--last", "999")],
        *[("--operation", operation), ("--operation", operation[-8:]), ("--until", "0s", "--last", "2")],
        *[
            ("--since", "2999-01-01"),
            ("--dataset", "never", "--last", "2"),
            ("--from-seq", "3", "--last", "2"),
        ],
    ]
    for options in wanted:
        told = run("log", "-o", "jsonl", *options)
        read = run("log", "-o", "jsonl", "--journal", journal, *options)
        assert (told.status, told.out) == (0, read.out), options
    assert len(run("log", "-o", "jsonl", "--last", "3").out.splitlines()) == 3
    assert run("log").out.splitlines()[0].split() == ["SEQ", "TIME", "WHO", "OPERATION", "EVENT", "WHAT"]


def test_explain_asks_the_store(process: StoreProcess, run: Run) -> None:
    run("volume", "create", "a", "1M")
    lines = run("explain", "a").out.splitlines()
    assert lines[0].startswith("a: volume, guid ")
    assert lines[0].endswith("; there")
    assert [line.split()[5] for line in lines[2:5]] == [
        "operation-started",
        "dataset-created",
        "operation-finished",
    ]
    assert json.loads(run("explain", "a", "-o", "json").out)["dataset"] == "a"
    unknown = run("explain", "never")
    assert unknown.status == 3
    assert "imagestore drift" in unknown.err
