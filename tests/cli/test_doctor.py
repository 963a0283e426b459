"""doctor: each thing that can be amiss is found, and what mends it is named; nothing is left behind."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagestore.doctor import machine, network, zfspool
from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port where somebody listens, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def healthy(tmp_path: Path, taken_port: int) -> list[str]:
    """Flags of a store that would start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    return [
        *("--pool", f"dir:{tmp_path}/pool", "--journal", f"{tmp_path}/journal"),
        *("--port", str(free), "--image-service", f"127.0.0.1:{taken_port}"),
    ]


def found(run: Run, *flags: str) -> dict[str, dict[str, str]]:
    ended = run("doctor", "-o", "json", *flags)
    findings = {finding["what"]: finding for finding in json.loads(ended.out)}
    is_bad = any(finding["verdict"] == "problem" for finding in findings.values())
    assert ended.status == int(is_bad)
    return findings


def test_nothing_is_amiss_and_nothing_is_left(run: Run, tmp_path: Path, healthy: list[str]) -> None:
    (tmp_path / "pool").mkdir()
    findings = found(run, *healthy)
    assert {what for what, finding in findings.items() if finding["verdict"] == "problem"} == set()
    assert {"python", "clock", "pool", "clones", "journal", "port", "image service"} <= set(findings)
    assert list(tmp_path.rglob("*")) == [tmp_path / "pool"]


def test_the_table_ends_with_how_many_problems_there_are(
    run: Run, tmp_path: Path, healthy: list[str]
) -> None:
    assert run("doctor", *healthy).out.endswith("no problems: imagestore serve would start\n")
    ended = run("doctor", *healthy, "--pool", f"dir:{tmp_path}/none/pool")
    assert ended.status == 1
    assert f"         mkdir -p {tmp_path}/none\n" in ended.out
    assert ended.out.endswith("1 problem; below each is what mends it\n")


def test_a_file_where_a_directory_is_due(run: Run, tmp_path: Path, healthy: list[str]) -> None:
    (tmp_path / "pool").write_text("")
    (tmp_path / "journal").write_text("")
    findings = found(run, *healthy)
    assert findings["pool"]["verdict"] == findings["journal"]["verdict"] == "problem"


def test_a_damaged_journal_and_what_says_more(run: Run, tmp_path: Path, healthy: list[str]) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "00000000000000000001.log").write_bytes(b"none of ours" * 100)
    finding = found(run, *healthy)["journal"]
    assert finding["verdict"] == "problem"
    assert finding["mend"] == f"imagestore journal verify --journal {tmp_path}/journal"


def test_a_port_that_a_store_has(run: Run, healthy: list[str], memory_store: MemoryStore) -> None:
    store = memory_store.address.rpartition(":")[2]
    assert found(run, *healthy, "--port", store)["port"]["found"].endswith("a store serves there")


def test_a_port_that_somebody_else_has(
    run: Run, healthy: list[str], taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "ASK_SECONDS", 0.1)
    finding = found(run, *healthy, "--port", str(taken_port))["port"]
    assert (finding["verdict"], finding["mend"]) == ("problem", f"ss -ltnp 'sport = :{taken_port}'")


def test_an_image_service_that_does_not_answer_is_a_note(run: Run, healthy: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = listener.getsockname()[1]
    finding = found(run, *healthy, "--image-service", f"127.0.0.1:{gone}")["image service"]
    assert finding["verdict"] == "note"
    assert "imagestore image pull ADDRESS" in finding["mend"]


def test_programs_that_are_not_installed(
    run: Run, healthy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SEARCH_PATH", "")
    monkeypatch.setenv("PATH", "")
    findings = found(run, *healthy)
    assert findings["qemu-img"]["mend"] == "apt-get install qemu-utils"
    assert findings["gpgv"]["verdict"] == "note"


def test_a_clock_that_was_never_set() -> None:
    assert machine.look_at_clock(86_400.0).verdict == "problem"


def test_a_zfs_pool_on_a_machine_without_zfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zfspool, "DEVICE", "/dev/no-zfs-here")
    monkeypatch.setattr(machine, "SEARCH_PATH", "")
    monkeypatch.setenv("PATH", "")
    findings = {finding.what: finding for finding in zfspool.look_at_zfs_pool("tank")}
    assert "modprobe zfs" in findings["zfs module"].mend
    assert findings["zfs commands"].verdict == "problem"


@pytest.mark.parametrize(
    ("properties", "verdict", "mend"),
    [
        ({"health": "ONLINE", "readonly": "off"}, "ok", ""),
        ({"health": "DEGRADED", "readonly": "off"}, "ok", ""),
        ({"health": "SUSPENDED", "readonly": "off"}, "problem", "zpool status tank"),
        ({"health": "ONLINE", "readonly": "on"}, "problem", "zpool export tank && zpool import tank"),
    ],
)
def test_what_the_properties_of_a_pool_say(properties: dict[str, str], verdict: str, mend: str) -> None:
    finding = zfspool.judged("tank", properties)
    assert (finding.verdict, finding.mend) == (verdict, mend)
