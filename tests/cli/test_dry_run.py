"""--dry-run: one question, by a method of its own, for every command that changes something."""

from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from imagestore.cli.main import COMMANDS, cli
from imagestore.cli.storeprocess import StoreProcess
from imagestore.client import Client
from imagestore.errors import InvalidArgument
from imagestore.model import PlannedEffect, PlanResponse
from imagestore.service import METHODS
from imagestore.wire import LOOKING, Changing
from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore

PLAN = PlanResponse(
    method="DeleteDataset",
    subject="tank/v",
    effects=(
        PlannedEffect(action="destroy", id="tank/v", what="volume, 1M written", size_bytes=1 << 20),
        PlannedEffect(action="note", id="", what="that it is so", size_bytes=0),
    ),
    reserve_bytes=1 << 20,
    available_bytes=1 << 30,
    commands=("zfs destroy tank/v",),
)

CHANGES_ELSEWHERE = {"recover", "stream", "journal", "demo", "init", "image-service"}
"""What changes nothing of a running store by RPC, or takes bytes; init has a --dry-run of its own."""

WITHOUT = {"op cancel"}
"""A cancellation is no change of the pool: there is nothing to foresee."""


@pytest.fixture
def foretelling(memory_store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    def plan_change(request: dict[str, Any]) -> object:
        return msgspec.to_builtins(PLAN)

    monkeypatch.setattr(memory_store, "plan_change", plan_change, raising=False)
    return memory_store


@pytest.mark.parametrize(
    ("arguments", "method", "request_"),
    [
        (("volume", "rm", "v", "--force"), "DeleteDataset", {"id": "v", "force": True}),
        (("volume", "create", "v", "1G"), "CreateVolume", {"id": "v", "size": 1024}),
        (("volume", "resize", "v", "2G"), "ResizeVolume", {"id": "v", "size": 2048}),
        (("guest", "create", "vm1", "--disk", "1G"), "CreateGuestDisks", {}),
        (("guest", "rm", "vm1"), "DeleteGuestsDisks", {}),
        (("snap", "create", "v@s"), "CreateSnapshot", {"id": "v", "dest": "s"}),
        (("snap", "rm", "v@s"), "DeleteSnapshot", {"id": "v@s"}),
        (("snap", "rollback", "v@s"), "RollbackSnapshot", {"id": "v@s"}),
        (("image", "rm", "i"), "DeleteImage", {"id": "i"}),
        (("image", "clone", "i", "c"), "CloneImage", {"id": "i", "dest": "c"}),
        (("image", "pull", "i"), "RequestImage", {"id": "i"}),
        (("image", "publish", "v@s", "--as", "i"), "PublishImage", {"id": "i", "snapshot": "v@s"}),
        (("image", "alias", "set", "a", "i"), "SetImageAlias", {"alias": "a", "id": "i"}),
        (("image", "alias", "rm", "a"), "RemoveImageAlias", {"alias": "a"}),
        (("image", "source", "add", "i", "https://x.example/i"), "RegisterSource", {"id": "i"}),
        (("image", "source", "rm", "i"), "RemoveSource", {"id": "i"}),
        (("token", "create", "ci", "--role", "reader"), "CreateToken", {"name": "ci"}),
        (("token", "revoke", "ci"), "RevokeToken", {"name": "ci"}),
    ],
)
def test_each_command_asks_once_and_changes_nothing(
    run: Run, foretelling: MemoryStore, arguments: tuple[str, ...], method: str, request_: dict[str, object]
) -> None:
    ended = run(*arguments, "--dry-run")
    assert ended.status == 0
    ((asked, plan),) = foretelling.calls
    assert (asked, plan["method"]) == ("PlanChange", method)
    assert request_.items() <= plan["request"].items()
    assert ended.out == (
        "would destroy tank/v: volume, 1M written\n"
        "would note in the journal: that it is so\n"
        "would promise 1M of 1G free\n"
        "  zfs destroy tank/v\n"
    )
    assert "nothing was done" in ended.err


def test_json_is_the_stores_own_answer(run: Run, foretelling: MemoryStore) -> None:
    ended = run("volume", "rm", "v", "--dry-run", "-o", "json")
    assert msgspec.json.decode(ended.out, type=PlanResponse) == PLAN


def test_a_refusal_exits_as_the_change_itself_would(run: Run, memory_store: MemoryStore) -> None:
    memory_store.refusals["PlanChange"] = "image has dependent clones: guests/vm1/disk-0"
    ended = run("image", "rm", "i", "--dry-run")
    assert ended.status == 5
    assert "guests/vm1/disk-0" in ended.err


def test_nobody_is_asked_whether_it_is_meant(
    run: Run, foretelling: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirm(*arguments: object, **options: object) -> None:
        raise AssertionError("a dry run needs no consent")

    monkeypatch.setattr("imagestore.cli.connection.sys", _Terminals())
    monkeypatch.setattr(click, "confirm", confirm)
    assert run("volume", "rm", "v", "--dry-run").status == 0


class _Terminals:
    """What sys is where a person sits at all three."""

    def __init__(self) -> None:
        self.stdin = self.stdout = self.stderr = self

    def isatty(self) -> bool:
        return True


def test_an_upload_is_judged_and_not_begun(run: Run, process: StoreProcess, tmp_path: Any) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    pull = ("image", "pull", str(tmp_path / "disk"), "--as", "i")
    foreseen = run(*pull, "--dry-run")
    assert (foreseen.status, foreseen.out) == (0, "would make pool/images/i: image, of what is sent\n")
    assert run("image", "ls", "-o", "jsonl").out == ""
    assert run(*pull).status == 0
    assert run(*pull, "--dry-run").out == "nothing would change: it is so already\n"


def test_a_stream_is_judged_by_its_heading_and_not_begun(
    run: Run, process: StoreProcess, tmp_path: Path
) -> None:
    (tmp_path / "raw").write_bytes(b"x" * 8192)
    stream = str(tmp_path / "stream")
    assert run("stream", "make", str(tmp_path / "raw"), stream).status == 0
    foreseen = run("receive", "guests/vm1/disk-0", stream, "--dry-run")
    assert (foreseen.status, foreseen.out) == (
        0,
        "would make pool/guests/vm1: file system\n"
        "would make pool/guests/vm1/disk-0: volume, of what is sent\n",
    )
    assert run("volume", "ls", "-o", "jsonl").out == ""
    assert run("receive", "guests/vm1/disk-0", stream).status == 0
    refused = run("receive", "guests/vm1/disk-0", stream, "--dry-run")
    assert refused.status == 4
    assert "already exists: guests/vm1/disk-0" in refused.err
    no_stream = run("receive", "v", str(tmp_path / "raw"), "--dry-run")
    assert no_stream.status != 0
    assert "no ZFS send stream" in no_stream.err


def test_a_stream_is_not_begun_on_a_dry_run(memory_store: MemoryStore) -> None:
    client = Client(memory_store.address, changing=Changing(dry_run=True))
    with pytest.raises(InvalidArgument, match="cannot be tried dry"):
        client.receive("v", [b"x"])
    assert memory_store.calls == []


def test_the_names_tell_which_methods_only_look() -> None:
    looking = {method.name for method in METHODS if method.name.startswith(LOOKING)}
    assert looking == {method.name for method in METHODS if not method.mutates}


def test_every_command_that_changes_a_store_can_be_tried_dry() -> None:
    without = {
        path for path, command in leaves(cli, "") if {"key", "yes"} & named(command) and not is_dry(command)
    }
    assert without - WITHOUT == set()


def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    found: list[tuple[str, click.Command]] = []
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        if path or name not in CHANGES_ELSEWHERE:
            found += leaves(below, f"{path} {name}".strip())
    return found


def named(command: click.Command) -> set[str]:
    return {parameter.name or "" for parameter in command.params}


def is_dry(command: click.Command) -> bool:
    return "dry_run" in named(command)


def test_what_is_left_out_is_there() -> None:
    assert set(COMMANDS) >= CHANGES_ELSEWHERE
