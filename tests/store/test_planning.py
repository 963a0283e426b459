"""A dry run of any change: judged as the change itself, told in full, and nothing of it done or journaled."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from imagestore.config import Config
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    Forbidden,
    HasClones,
    InUse,
    InvalidArgument,
    NewerSnapshots,
    NoSpace,
    NotFound,
)
from imagestore.events import reader
from imagestore.model import PlanRequest, PlanResponse, VolumeRequest
from imagestore.service import LOCAL, METHODS, METHODS_BY_NAME, Caller
from imagestore.store import Store
from tests.imageservice import ImageService, answer
from tests.pools.harness import opened_for_writing
from tests.store.conftest import MIB, Run, raw_image

GUEST = {"id": "vm1", "disks": [{"image": "deb12"}, {"size": 3}]}

Ask = Callable[..., Awaitable[PlanResponse]]


async def change(store: Store, method: str, **request: Any) -> Struct:
    """The change itself."""
    entry = METHODS_BY_NAME[method]
    return await store.call(entry, msgspec.convert(request, entry.request), LOCAL)


@pytest.fixture
async def store(run: Run, service: ImageService) -> AsyncIterator[Store]:
    """Image deb12; guest vm1: a clone of it, a blank disk, snapshots monday and tuesday; volume v."""
    service.download("deb12", answer(raw_image()))
    async with run(image_service=service.address) as store:
        await change(store, "RequestImage", id="deb12")
        await change(store, "CreateGuestDisks", guest=GUEST)
        await change(store, "CreateSnapshot", id="guests/vm1", dest="monday")
        await change(store, "CreateSnapshot", id="guests/vm1", dest="tuesday")
        await change(store, "CreateVolume", id="v", size=2)
        yield store


@pytest.fixture
def plan(store: Store, config: Config) -> Ask:
    """Ask what a change would do, and see that nothing came of asking."""

    async def ask(method: str, caller: Caller = LOCAL, **request: Any) -> PlanResponse:
        before = reader.head(config.journal), await rows(store)
        try:
            return await store.plan_change(PlanRequest(method=method, request=request), caller)
        finally:
            assert (reader.head(config.journal), await rows(store)) == before

    return ask


async def rows(store: Store) -> list[str]:
    return [volume.id for volume in (await store.list_volumes(VolumeRequest())).volumes]


def told(plan: PlanResponse) -> list[tuple[str, str]]:
    return [(effect.action, effect.id) for effect in plan.effects]


async def test_a_guests_disks_with_all_that_is_made_for_them(plan: Ask, tmp_path: Path) -> None:
    disks = [{"image": "deb12"}, {"size": 3}]
    foretold = await plan("CreateGuestDisks", guest={"id": "vm2", "disks": disks})
    assert told(foretold) == [
        ("make", "pool/guests/vm2"),
        ("make", "pool/guests/vm2/disk-0"),
        ("make", "pool/guests/vm2/disk-1"),
    ]
    assert [effect.size_bytes for effect in foretold.effects] == [0, 2 * MIB, 3 * MIB]
    assert foretold.reserve_bytes == 5 * MIB
    assert foretold.available_bytes > foretold.reserve_bytes
    assert foretold.commands[0] == f"mkdir {tmp_path}/pool/guests/vm2"
    assert foretold.commands[2] == f"truncate --size {3 * MIB} {tmp_path}/pool/guests/vm2/disk-1"


async def test_what_goes_with_a_guest(plan: Ask) -> None:
    foretold = await plan("DeleteGuestsDisks", guest={"id": "vm1"})
    assert {action for action, _ in told(foretold)} == {"destroy"}
    ids = [name for _, name in told(foretold)]
    assert len(ids) == 9
    assert ids.index("pool/guests/vm1/disk-0@monday") < ids.index("pool/guests/vm1/disk-0")
    assert ids[-1] == "pool/guests/vm1"
    assert len(foretold.commands) == 9


async def test_a_rollback_names_what_is_lost(plan: Ask) -> None:
    with pytest.raises(NewerSnapshots):
        await plan("RollbackSnapshot", id="guests/vm1@monday")
    foretold = await plan("RollbackSnapshot", id="guests/vm1@monday", destroyMoreRecent=True)
    destroyed = {name for action, name in told(foretold) if action == "destroy"}
    back = [name for action, name in told(foretold) if action == "roll back"]
    assert destroyed == {f"pool/guests/vm1{disk}@tuesday" for disk in ("", "/disk-0", "/disk-1")}
    assert back == ["pool/guests/vm1/disk-0", "pool/guests/vm1/disk-1"]


@pytest.mark.parametrize(
    ("method", "request_", "effects"),
    [
        ("CreateVolume", {"id": "a/b", "size": 1}, [("make", "pool/a"), ("make", "pool/a/b")]),
        ("ResizeVolume", {"id": "guests/vm1/disk-1", "size": 9}, [("resize", "pool/guests/vm1/disk-1")]),
        ("DeleteDataset", {"id": "v"}, [("destroy", "pool/v")]),
        ("CreateSnapshot", {"id": "v", "dest": "s"}, [("make", "pool/v@s")]),
        (
            "DeleteSnapshot",
            {"id": "guests/vm1/disk-1@monday"},
            [("destroy", "pool/guests/vm1/disk-1@monday")],
        ),
        ("CloneImage", {"id": "deb12", "dest": "c"}, [("make", "pool/c")]),
        ("PublishImage", {"id": "g", "snapshot": "guests/vm1/disk-0@monday"}, [("make", "pool/images/g")]),
        ("RequestImage", {"id": "new"}, [("make", "pool/images/new")]),
        ("SetImageAlias", {"alias": "a", "id": "deb12"}, [("note", "")]),
        ("RegisterSource", {"id": "x", "source": "https://cloud.example/x"}, [("note", "")]),
        ("DeleteImage", {"id": "deb12", "whenUnused": True}, [("note", "")]),
        ("CreateToken", {"name": "ci", "role": "reader"}, [("note", "")]),
    ],
)
async def test_each_kind_of_change(
    plan: Ask, method: str, request_: dict[str, Any], effects: list[tuple[str, str]]
) -> None:
    foretold = await plan(method, **request_)
    assert told(foretold) == effects
    assert all(effect.what for effect in foretold.effects)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("CreateVolume", {"id": "v", "size": 2}),
        ("CreateGuestDisks", {"guest": GUEST}),
        ("RequestImage", {"id": "deb12"}),
    ],
)
async def test_what_is_so_already(plan: Ask, method: str, request_: dict[str, Any]) -> None:
    foretold = await plan(method, **request_)
    assert foretold.settled
    assert foretold.effects == ()


@pytest.mark.parametrize(
    ("method", "request_", "refusal"),
    [
        ("DeleteImage", {"id": "deb12"}, HasClones),
        ("CreateVolume", {"id": "v", "size": 3}, AlreadyExists),
        ("CreateVolume", {"id": "w", "size": 1 << 40}, NoSpace),
        ("DeleteDataset", {"id": "nothing"}, NotFound),
        ("CreateVolume", {"id": "w", "size": "three"}, InvalidArgument),
        ("ListVolumes", {}, InvalidArgument),
        ("NoSuchMethod", {}, InvalidArgument),
        ("CollectImages", {"unusedSeconds": 1}, InvalidArgument),
    ],
)
async def test_what_stands_in_the_way_is_the_answer(
    plan: Ask, method: str, request_: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await plan(method, **request_)


async def test_a_disk_in_use_stands_in_the_way_of_a_dry_run_too(plan: Ask, tmp_path: Path) -> None:
    with opened_for_writing(str(tmp_path / "pool" / "v")):
        with pytest.raises(InUse):
            await plan("DeleteDataset", id="v")
        foretold = await plan("DeleteDataset", id="v", force=True)
    assert told(foretold) == [("destroy", "pool/v")]


async def test_who_may_not_make_a_change_may_not_try_it(plan: Ask) -> None:
    with pytest.raises(Forbidden):
        await plan("DeleteDataset", Caller(principal="token:r", role="reader"), id="v")
    operator = Caller(principal="token:o", role="operator")
    assert told(await plan("DeleteDataset", operator, id="v")) == [("destroy", "pool/v")]
    with pytest.raises(Forbidden):
        await plan("DeleteDataset", operator, id="v", force=True)


async def test_every_change_can_be_tried_or_has_a_dry_run_of_its_own(store: Store, plan: Ask) -> None:
    for method in METHODS:
        if not method.mutates:
            continue
        with pytest.raises((InvalidArgument, NotFound)) as refused:
            await plan(method.name)
        has_its_own = "dryRun" in method.request.__struct_fields__
        assert ("dryRun of its own" in str(refused.value)) == has_its_own, method.name


async def test_a_stream_is_judged_by_its_heading(plan: Ask, store: Store) -> None:
    (full,) = (await plan("ReceiveVolume", id="w", snapshot="s")).effects
    assert (full.action, full.id, full.what) == ("make", "pool/w", "volume, of what is sent")
    row = store._running().zpool.view.get("guests/vm1/disk-1@tuesday")
    assert row is not None
    clone = await plan("ReceiveVolume", id="w", snapshot="s", baseGuid=row.guid, isClone=True)
    assert clone.effects[0].what == "clone of guests/vm1/disk-1@tuesday, of what is sent"
    (onto,) = (await plan("ReceiveVolume", id="guests/vm1/disk-1", snapshot="s", baseGuid=row.guid)).effects
    assert (onto.action, onto.id) == ("bring up to date", "pool/guests/vm1/disk-1")
    assert onto.what == "with what is sent, on from guests/vm1/disk-1@tuesday"


async def test_a_stream_is_refused_as_it_would_be(plan: Ask) -> None:
    with pytest.raises(AlreadyExists, match="dataset already exists: v"):
        await plan("ReceiveVolume", id="v", snapshot="s")
    with pytest.raises(NotFound):
        await plan("ReceiveVolume", id="w", snapshot="s", baseGuid=7)
    with pytest.raises(Blocked, match="not the stream's base"):
        await plan("ReceiveVolume", id="guests/vm1/disk-1", snapshot="s", baseGuid=7)
    with pytest.raises(InvalidArgument, match="ReceiveVolume: "):
        await plan("ReceiveVolume", id=7)
    with pytest.raises(Forbidden):
        await plan("ReceiveVolume", Caller(principal="eve", role="reader"), id="w", snapshot="s")
