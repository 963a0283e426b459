"""image, guest, volume and snap: what they ask of the store and what they print."""

import json
import socket
from typing import Any

import pytest

from imagestore.cli.guests import parse_disk
from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore


def test_pull_waits_and_shows_the_image(run: Run, memory_store: MemoryStore) -> None:
    ended = run("image", "pull", "deb12", "--type", "kvm")
    assert ended.status == 0
    assert ended.out.splitlines() == [
        "ID     TYPE  SIZE  STATUS    SNAPSHOT",
        "deb12  kvm     2G  complete  tank/images/deb12@made",
    ]
    method, request = memory_store.calls[0]
    assert method == "RequestImage"
    assert (request["id"], request["type"]) == ("deb12", "kvm")


def test_a_listing_is_one_json_document_or_one_object_a_line(run: Run, memory_store: MemoryStore) -> None:
    run("image", "pull", "a")
    run("image", "pull", "b")
    listed = json.loads(run("image", "ls", "-o", "json").out)
    lines = [json.loads(line) for line in run("image", "ls", "-o", "jsonl").out.splitlines()]
    assert [image["id"] for image in listed] == ["a", "b"]
    assert listed == lines


def test_an_image_under_way_shows_how_far_it_is(run: Run, memory_store: MemoryStore) -> None:
    memory_store.images["a"] = {
        "id": "a",
        "type": "",
        "size": 0,
        "status": "downloading",
        "progress": {"done_bytes": 3 << 20, "total_bytes": 1 << 30},
    }
    memory_store.images["b"] = {"id": "b", "type": "", "size": 0, "status": "error", "reason": "gone"}
    out = run("image", "ls").out
    assert "downloading 3M of 1G" in out
    assert "error: gone" in out


def test_a_fetch_that_failed_says_why_with_an_exit_code_of_its_own(
    run: Run, memory_store: MemoryStore
) -> None:
    memory_store.refusals["RequestImage"] = "image deb12 was not found at the image service images.test"
    ended = run("image", "pull", "deb12")
    assert ended.status == 10
    assert ended.err == f"imagestore: {memory_store.refusals['RequestImage']}\n"


def test_one_object_as_json_is_not_in_a_list(run: Run, memory_store: MemoryStore) -> None:
    memory_store.volumes["scratch/data"] = 512
    shown = json.loads(run("volume", "show", "scratch/data", "-o", "json").out)
    assert shown == {"id": "tank/scratch/data", "size": 512, "device": "/dev/zvol/tank/scratch/data"}


def test_clone_makes_a_volume_of_an_image(run: Run, memory_store: MemoryStore) -> None:
    run("image", "pull", "deb12")
    assert "tank/scratch/x" in run("image", "clone", "deb12", "scratch/x").out
    assert memory_store.volumes["scratch/x"] == 2048


def test_rm_removes_the_image_and_a_second_rm_says_not_found(run: Run, memory_store: MemoryStore) -> None:
    run("image", "pull", "deb12")
    assert run("image", "rm", "deb12").status == 0
    ended = run("image", "rm", "deb12")
    assert (ended.status, ended.out, ended.err.splitlines()[0]) == (3, "", "imagestore: not found")
    assert "imagestore image ls" in ended.err


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        ("not found", 3),
        ("not a valid dataset", 2),
        ("dataset already exists: guests/x/disk-0", 4),
        ("image has dependent clones: a, b", 5),
        ("dataset is in use: guests/x/disk-0 (pid 4242 qemu-system-x86)", 5),
        ("no space left on device", 6),
        ("resource temporarily unavailable", 7),
        ("store is read-only: the journal failed; restart it after mending the disk", 8),
        ("image is being fetched: x", 5),
        ("dataset cannot be destroyed: images", 5),
        ("the journal failed: Input/output error", 20),
        ("the outcome of 0198 is not known: creating has not ended after 300 seconds", 20),
        ("pool tank is suspended: its disks do not answer", 30),
        ("pool tank is not imported", 30),
        ("secret/v is encrypted and its key is not loaded", 30),
        ("no space left on device for the journal; nothing was written", 20),
        ("asking for free space failed: No such file or directory: /srv/tank", 30),
        ("something that is not the store's is in the way: /srv/tank/v", 30),
        ("something nobody foresaw", 1),
    ],
)
def test_a_refusal_is_one_line_and_its_exit_code(
    run: Run, memory_store: MemoryStore, refusal: str, status: int
) -> None:
    memory_store.refusals["DeleteImage"] = refusal
    ended = run("image", "rm", "x")
    assert ended.status == status
    assert ended.err.splitlines()[0] == f"imagestore: {refusal}"
    assert ended.out == ""


def test_a_name_that_is_none_is_refused_with_what_would_be_right(run: Run, memory_store: MemoryStore) -> None:
    memory_store.refusals["CreateVolume"] = "not a valid dataset"
    ended = run("volume", "create", "--", "-r", "1G")
    assert ended.status == 2
    assert ended.err.splitlines()[1].startswith("  names are letters, digits and _ : . -")


@pytest.mark.parametrize("command", [("create", "--disk", "1M"), ("rm", "--yes")])
def test_a_guest_id_that_is_none_is_refused_before_anything_is_asked(
    run: Run, memory_store: MemoryStore, command: tuple[str, ...]
) -> None:
    ended = run("guest", *command, "--", "-x")
    assert ended.status == 2
    assert ended.err.splitlines() == [
        "imagestore: invalid argument",
        "  guest id '-x': 1 to 200 letters, digits and _ : . -, the first not . or -",
    ]
    assert memory_store.calls == []


@pytest.mark.parametrize(
    ("size", "mib"), [("512M", 512), ("10G", 10240), ("1T", 1 << 20), ("7", 7), ("2GiB", 2048)]
)
def test_sizes_travel_as_mib(run: Run, memory_store: MemoryStore, size: str, mib: int) -> None:
    assert run("volume", "create", "v", size).status == 0
    assert memory_store.volumes["v"] == mib


@pytest.mark.parametrize("size", ["1.5G", "10X", "0", "1K", "1025K", "99999999T", "G", ""])
def test_a_size_that_is_none_is_refused_before_anything_is_asked(
    run: Run, memory_store: MemoryStore, size: str
) -> None:
    ended = run("volume", "create", "v", size)
    assert ended.status == 2
    assert size in ended.err
    assert memory_store.calls == []


def test_volume_rm_passes_force_on(run: Run, memory_store: MemoryStore) -> None:
    memory_store.volumes["v"] = 1
    assert run("volume", "rm", "v", "--force").status == 0
    assert memory_store.calls == [("DeleteDataset", {"id": "v", "size": 0, "force": True, "thick": False})]


def test_a_guest_gets_its_disks_in_order(run: Run, memory_store: MemoryStore) -> None:
    ended = run("guest", "create", "vm1", "--disk", "image=deb12,bus=virtio", "--disk", "size=10G")
    assert ended.status == 0
    _, request = memory_store.calls[0]
    assert [disk.get("image", disk["size"]) for disk in request["guest"]["disks"]] == ["deb12", 10240]
    assert [line.split()[0] for line in ended.out.splitlines()[1:]] == [
        "tank/guests/vm1/disk-0",
        "tank/guests/vm1/disk-1",
    ]


def test_guests_are_listed_from_their_disks(run: Run, memory_store: MemoryStore) -> None:
    memory_store.volumes = {
        "images/deb12": 1,
        "guests/vm1/disk-0": 1024,
        "guests/vm1/disk-1": 1024,
        "guests/vm2/disk-0": 512,
        "guests/vm2/extra": 1,
    }
    assert run("guest", "ls").out.splitlines() == [
        "ID   DISKS  SIZE",
        "vm1      2    2G",
        "vm2      1  512M",
    ]
    assert "tank/guests/vm2/disk-0" in run("guest", "show", "vm2").out
    assert run("guest", "show", "vm3").status == 3


def test_guest_rm_asks_for_the_guests_disks(run: Run, memory_store: MemoryStore) -> None:
    memory_store.volumes = {"guests/vm1/disk-0": 1, "scratch": 1}
    assert run("guest", "rm", "vm1").out == "guest vm1 has no disks any more\n"
    assert list(memory_store.volumes) == ["scratch"]


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("10G", {"size": 10240}),
        ("deb12", {"image": "deb12"}),
        ("image=10G", {"image": "10G"}),
        (
            "image=a,size=1G,bus=virtio,device=vda",
            {"image": "a", "size": 1024, "bus": "virtio", "device": "vda"},
        ),
    ],
)
def test_a_disk_is_a_size_an_image_or_both(text: str, disk: dict[str, Any]) -> None:
    assert parse_disk(text) == disk


@pytest.mark.parametrize(
    "text", ["", "10X", "size=", "size=big", "bus=virtio", "colour=red,size=1G", "size=1G,size=2G"]
)
def test_a_disk_that_makes_no_sense_is_refused(run: Run, memory_store: MemoryStore, text: str) -> None:
    assert run("guest", "create", "vm1", "--disk", text).status == 2
    assert memory_store.calls == []


def test_snapshots_are_taken_listed_shown_and_removed(run: Run, memory_store: MemoryStore) -> None:
    assert run("snap", "create", "guests/vm1@monday", "--recursive").status == 0
    assert memory_store.calls[0][1]["recursive"] is True
    assert run("snap", "ls", "guests").out.splitlines() == [
        "ID                      WRITTEN",
        "tank/guests/vm1@monday       3M",
    ]
    assert json.loads(run("snap", "show", "guests/vm1@monday", "-o", "jsonl").out)["size"] == 3
    assert run("snap", "rm", "guests/vm1@monday").status == 0
    assert memory_store.snapshots == {}


def test_rollback_says_how_newer_snapshots_can_go(run: Run, memory_store: MemoryStore) -> None:
    memory_store.snapshots["v@a"] = 1
    memory_store.refusals["RollbackSnapshot"] = "more recent snapshots exist: v@b"
    ended = run("snap", "rollback", "v@a")
    assert ended.status == 5
    assert "--destroy-more-recent" in ended.err
    memory_store.refusals.clear()
    assert run("snap", "rollback", "v@a", "--destroy-more-recent", "--force").status == 0
    assert memory_store.calls[-1][1]["destroyMoreRecent"] is True
    assert memory_store.calls[-1][1]["force"] is True


@pytest.mark.parametrize("name", ["v", "@a", "v@", ""])
def test_a_snapshots_name_has_two_parts(run: Run, memory_store: MemoryStore, name: str) -> None:
    assert run("snap", "create", name).status == 2
    assert memory_store.calls == []


def test_a_store_that_is_not_there_is_named_with_the_command_that_starts_one(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = run("image", "ls", "--server", f"127.0.0.1:{port}")
    assert ended.status == 40
    assert ended.err.startswith(f"imagestore: no store answers at http://127.0.0.1:{port}: ")
    assert "imagestore serve" in ended.err


def test_a_store_that_does_not_answer_in_time_is_not_waited_for(run: Run, memory_store: MemoryStore) -> None:
    memory_store.waits = True
    ended = run("image", "pull", "deb12", "--timeout", "0.05")
    assert ended.status == 42
    assert "no answer within 0.05 s" in ended.err


@pytest.mark.parametrize("server", ["ftp://x", "http://", "http://x/path", "http://x:port"])
def test_an_address_that_is_none_is_refused(run: Run, server: str) -> None:
    ended = run("image", "ls", "--server", server)
    assert ended.status == 2
    assert "is not http://HOST:PORT" in ended.err


def test_a_name_with_control_characters_moves_no_cursor(run: Run, memory_store: MemoryStore) -> None:
    memory_store.volumes["a\x1b[2Jb"] = 1
    assert "\x1b" not in run("volume", "ls").out
