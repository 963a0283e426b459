"""The life of images, judged."""

import pytest

from imagestore.actors.claims import Claim
from imagestore.actors.commands import (
    CloneImage,
    Command,
    CreateGuestDisks,
    DeleteImage,
    DiskOrder,
    PublishImage,
    ReapImage,
    RemoveAlias,
    ReviveImage,
    SetAlias,
)
from imagestore.actors.decisions import claim_of, decide
from imagestore.actors.imagedecisions import aliases_of, image_named, unused_images
from imagestore.actors.plans import Plan, Settled
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    HasClones,
    ImageStoreError,
    NotFound,
    NotSnapshot,
    NotVolume,
)
from imagestore.events.catalogue import (
    AliasRemoved,
    AliasSet,
    DestroyIntent,
    ImageRetired,
    ImageRevived,
    NoteIntent,
    PublishIntent,
)
from imagestore.events.state import ImageRecord, State
from imagestore.pools.base import Dataset
from tests.actors.rows import MIB, dataset_id, image_rows, row, state_with_image, view_of

DEB = image_rows("deb")
GUEST = (row("guests/g"), row("guests/g@s"))
DISK = row("guests/g/disk-0", volsize=64 * MIB, origin="images/deb@base", written=3 * MIB)
SNAPSHOT = row("guests/g/disk-0@s", volsize=64 * MIB, written=3 * MIB)
ALIKE = (*DEB, *GUEST, DISK, SNAPSHOT)


def state(*, retired: str | None = None, **aliases: str) -> State:
    """``deb`` is complete, perhaps retired since an operation took its last clone; aliases name images."""
    made = state_with_image("deb", DEB)
    made.images["new"] = ImageRecord(id="new", operation="op")
    made.aliases |= aliases
    if retired is not None:
        made.retired["deb"] = retired
    return made


def plan(command: Command, of: State, *rows: Dataset) -> Plan:
    decided = decide(command, of, view_of(*(rows or ALIKE)))
    assert isinstance(decided, Plan)
    return decided


def refusal(command: Command, of: State, *rows: Dataset) -> ImageStoreError:
    with pytest.raises(ImageStoreError) as raised:
        decide(command, of, view_of(*(rows or ALIKE)))
    return raised.value


# --- deleting when unused ------------------------------------------------------------


def test_an_image_with_clones_is_hidden_when_it_is_to_go_unused() -> None:
    made = plan(DeleteImage(image="deb", when_unused=True), state())
    assert made.intent == NoteIntent(fact=ImageRetired(image="deb"))


def test_an_image_without_clones_goes_at_once() -> None:
    for when_unused in (True, False):
        made = plan(DeleteImage(image="deb", when_unused=when_unused), state(), *DEB)
        assert made.intent == DestroyIntent(datasets=tuple(map(dataset_id, DEB)), image="deb")


def test_hiding_what_is_hidden_changes_nothing() -> None:
    command = DeleteImage(image="deb", when_unused=True)
    assert decide(command, state(retired=""), view_of(*ALIKE)) == Settled()


def test_an_image_that_is_being_fetched_is_not_hidden() -> None:
    error = refusal(DeleteImage(image="new", when_unused=True), state())
    assert str(error) == "image is being fetched: new"


@pytest.mark.parametrize("when_unused", [True, False])
def test_an_image_with_aliases_stays_and_they_are_named(when_unused: bool) -> None:
    error = refusal(DeleteImage(image="deb", when_unused=when_unused), state(stable="deb", deb12="deb"))
    assert isinstance(error, Blocked)
    assert str(error) == "image has aliases: deb12, stable"
    assert error.blockers == ("deb12", "stable")


def test_a_hidden_image_is_deleted_when_its_last_clone_has_gone_and_says_why() -> None:
    made = plan(ReapImage(image="deb"), state(retired="deletion"), *DEB)
    assert made.intent == DestroyIntent(datasets=tuple(map(dataset_id, DEB)), image="deb")
    assert (made.method, made.cause) == ("DeleteImage", "deletion")


@pytest.mark.parametrize(("retired", "rows"), [("", ALIKE), (None, DEB), (None, ALIKE)])
def test_an_image_that_is_used_or_was_revived_is_not_reaped(
    retired: str | None, rows: tuple[Dataset, ...]
) -> None:
    assert decide(ReapImage(image="deb"), state(retired=retired), view_of(*rows)) == Settled()


def test_a_hidden_image_whose_dataset_somebody_destroyed_is_forgotten() -> None:
    made = plan(ReapImage(image="deb"), state(retired=""), *GUEST)
    assert made.intent == DestroyIntent(datasets=(), image="deb")


def test_a_hidden_image_is_revived() -> None:
    made = plan(ReviveImage(image="deb"), state(retired=""))
    assert made.intent == NoteIntent(fact=ImageRevived(image="deb"))


@pytest.mark.parametrize(("retired", "rows"), [(None, ALIKE), ("", GUEST)])
def test_there_is_nothing_to_revive_of_an_image_that_is_shown_or_gone(
    retired: str | None, rows: tuple[Dataset, ...]
) -> None:
    assert decide(ReviveImage(image="deb"), state(retired=retired), view_of(*rows)) == Settled()


def test_nothing_new_is_made_of_a_hidden_image() -> None:
    hidden = state(retired="")
    for command in (
        CloneImage(image="deb", name="c"),
        CreateGuestDisks(guest="h", disks=(DiskOrder(image="deb"),)),
        SetAlias(alias="a", image="deb"),
    ):
        error = refusal(command, hidden)
        assert isinstance(error, NotFound)
        assert "last clone" in error.detail


def test_what_was_made_of_a_hidden_image_can_be_asked_for_again() -> None:
    clone = row("c", volsize=64 * MIB, origin="images/deb@base")
    hidden = state(retired="")
    again = decide(CloneImage(image="deb", name="c"), hidden, view_of(*DEB, clone))
    assert again == Settled(rows=(clone,))
    disks = CreateGuestDisks(guest="g", disks=(DiskOrder(image="deb"),))
    assert decide(disks, hidden, view_of(*ALIKE)) == Settled(rows=(DISK,))


# --- publishing ------------------------------------------------------------------------

PUBLISH = PublishImage(image="gold", snapshot="guests/g/disk-0@s", type="kvm")


def test_a_snapshot_is_published_as_an_image_of_its_own() -> None:
    made = plan(PUBLISH, state())
    assert made.intent == PublishIntent(image="gold", snapshot=dataset_id(SNAPSHOT), type="kvm")
    assert made.reserve_bytes == SNAPSHOT.referenced
    assert claim_of(PUBLISH, state(), view_of(*ALIKE)) == Claim(exclusive=("images/gold",))


def published_state(of: Dataset) -> State:
    made = state()
    gold = image_rows("gold")
    record = state_with_image("gold", gold).images["gold"]
    record.published = dataset_id(of)
    made.images["gold"] = record
    return made


def test_publishing_the_same_again_is_settled() -> None:
    gold = image_rows("gold")
    decided = decide(PUBLISH, published_state(SNAPSHOT), view_of(*ALIKE, *gold))
    assert decided == Settled(rows=(gold[0],))


def test_another_image_of_that_id_is_not_replaced() -> None:
    error = refusal(PUBLISH, published_state(DEB[1]), *ALIKE, *image_rows("gold"))
    assert str(error) == "dataset already exists: images/gold"


def test_a_hidden_image_of_that_id_is_not_taken_for_the_same() -> None:
    hidden = published_state(SNAPSHOT)
    hidden.retired["gold"] = ""
    error = refusal(PUBLISH, hidden, *ALIKE, *image_rows("gold"))
    assert isinstance(error, AlreadyExists)


def test_a_foreign_dataset_is_in_the_way_of_publishing() -> None:
    assert isinstance(refusal(PUBLISH, state(), *ALIKE, row("images/gold", volsize=MIB)), AlreadyExists)


def test_an_image_that_failed_gives_its_id_to_one_that_is_published() -> None:
    failed = state()
    failed.images["gold"] = ImageRecord(id="gold", status="error", reason="404")
    assert isinstance(plan(PUBLISH, failed).intent, PublishIntent)


@pytest.mark.parametrize(
    ("command", "kind", "text"),
    [
        (PublishImage(image="gold", snapshot="guests/g/disk-0@t"), NotFound, "not found"),
        (PublishImage(image="gold", snapshot="guests/g/disk-0"), NotSnapshot, "not a snapshot"),
        (PublishImage(image="gold", snapshot="guests/g@s"), NotVolume, "not a volume"),
        (PublishImage(image="stable", snapshot=SNAPSHOT.name), AlreadyExists, "alias already exists: stable"),
        (PublishImage(image="new", snapshot=SNAPSHOT.name), Blocked, "image is being fetched: new"),
    ],
)
def test_what_cannot_be_published_is_refused(
    command: PublishImage, kind: type[ImageStoreError], text: str
) -> None:
    error = refusal(command, state(stable="deb"))
    assert isinstance(error, kind)
    assert str(error) == text


# --- aliases ---------------------------------------------------------------------------


def test_an_alias_is_set_while_its_image_cannot_go() -> None:
    command = SetAlias(alias="stable", image="deb")
    assert plan(command, state()).intent == NoteIntent(fact=AliasSet(alias="stable", image="deb"))
    assert claim_of(command, state(), view_of(*ALIKE)) == Claim(
        exclusive=("images/stable",), shared=("images/deb",)
    )


def test_an_alias_is_moved_in_one_step() -> None:
    made = plan(SetAlias(alias="stable", image="deb"), state(stable="other"))
    assert made.intent == NoteIntent(fact=AliasSet(alias="stable", image="deb"))


def test_the_same_alias_again_is_settled() -> None:
    command = SetAlias(alias="stable", image="deb")
    assert decide(command, state(stable="deb"), view_of(*ALIKE)) == Settled()


@pytest.mark.parametrize("image", ["nowhere", "new"])
def test_an_alias_names_a_complete_image(image: str) -> None:
    assert isinstance(refusal(SetAlias(alias="stable", image=image), state()), NotFound)


@pytest.mark.parametrize("alias", ["deb", "new", "stranger"])
def test_an_alias_is_no_images_id(alias: str) -> None:
    error = refusal(SetAlias(alias=alias, image="deb"), state(), *ALIKE, row("images/stranger", volsize=MIB))
    assert isinstance(error, AlreadyExists)
    assert str(error) == f"image already exists: {alias}"


def test_an_alias_is_removed() -> None:
    made = plan(RemoveAlias(alias="stable"), state(stable="deb"))
    assert made.intent == NoteIntent(fact=AliasRemoved(alias="stable"))
    assert isinstance(refusal(RemoveAlias(alias="unheard"), state()), NotFound)


def test_a_name_means_an_image_before_an_alias_and_itself_when_it_is_neither() -> None:
    of = state(stable="deb", newest="deb")
    assert [image_named(text, of) for text in ("deb", "stable", "unheard", "")] == [
        "deb",
        "deb",
        "unheard",
        "",
    ]
    assert aliases_of("deb", of) == ["newest", "stable"]


# --- collecting --------------------------------------------------------------------------


def test_images_that_nothing_uses_are_collected_after_a_time() -> None:
    of = state()
    record = of.images["deb"]
    record.completed_ns, record.last_used_ns = 100, 0
    assert unused_images(of, view_of(*DEB), before_ns=101) == ["deb"]
    assert unused_images(of, view_of(*DEB), before_ns=100) == []
    record.last_used_ns = 200
    assert unused_images(of, view_of(*DEB), before_ns=200) == []


@pytest.mark.parametrize(
    ("of", "rows"),
    [(state(), ALIKE), (state(stable="deb"), DEB), (state(retired=""), DEB), (state(), DEB[:1])],
    ids=["cloned", "named", "hidden", "not whole"],
)
def test_images_that_are_used_named_or_not_whole_stay(of: State, rows: tuple[Dataset, ...]) -> None:
    assert unused_images(of, view_of(*rows), before_ns=1 << 62) == []


def test_a_refusal_for_clones_still_names_them() -> None:
    error = refusal(DeleteImage(image="deb"), state())
    assert isinstance(error, HasClones)
    assert str(error) == "image has dependent clones: guests/g/disk-0"
