"""The fold: every event type, what it refuses, and that it is pure."""

import copy
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagestore.events.catalogue import (
    AliasRemoved,
    AliasSet,
    CreateIntent,
    DatasetAdopted,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetLost,
    DatasetReceived,
    DatasetReleased,
    DatasetRenamed,
    DatasetResized,
    DatasetRolledBack,
    Envelope,
    Event,
    FetchIntent,
    ImageCompleted,
    ImageDeleted,
    ImageFailed,
    ImagePublished,
    ImageReleased,
    ImageRequested,
    ImageRetired,
    ImageRevived,
    JournalCut,
    JournalOpened,
    NewBlank,
    OperationFinished,
    OperationResumed,
    OperationStarted,
    PoolAttached,
    SegmentsArchived,
    SourceRegistered,
    SourceRemoved,
    TokenCreated,
    TokenRevoked,
)
from imagestore.events.state import (
    DatasetRecord,
    ImageRecord,
    OperationRecord,
    SourceRecord,
    State,
    TokenRecord,
    apply,
)

CREATE = CreateIntent(datasets=(NewBlank(name="volume", size_bytes=1 << 20),))
FETCH = FetchIntent(image="debian", staging="images/.staging-op")
IMAGE = DatasetId(name="images/debian", guid=1, createtxg=10)
SNAPSHOT = DatasetId(name="images/debian@1", guid=2, createtxg=11)
TIME_NS = 1_700_000_000_000_000_000
"""The seq of each event of a test is added."""


def created(name: str, guid: int, *, size_bytes: int = 1 << 20) -> DatasetCreated:
    return DatasetCreated(
        name=name,
        kind="snapshot" if "@" in name else "volume",
        role="volume",
        guid=guid,
        createtxg=guid * 10,
        size_bytes=size_bytes,
    )


def fold(*events: Event, state: State | None = None, operation: str = "op") -> State:
    state = State() if state is None else state
    for event in events:
        seq = state.seq + 1
        apply(
            state,
            Envelope(
                id=f"event-{seq}",
                seq=seq,
                time_ns=TIME_NS + seq,
                operation=operation,
                principal="somebody",
                event=event,
            ),
        )
    return state


def fetched() -> State:
    return fold(
        ImageRequested(image="debian", type="kvm", source="images.example"),
        ImageCompleted(
            image="debian", volume=IMAGE, snapshot=SNAPSHOT, size_bytes=10 << 30, sha256="ab" * 32
        ),
    )


# --- operations ---------------------------------------------------------------


def test_an_accepted_operation_is_under_way_with_all_that_its_intent_said() -> None:
    state = fold(
        OperationStarted(method="CreateVolume", subject="volume", intent=CREATE, reserved_bytes=5, force=True)
    )
    assert state.operations == {
        "op": OperationRecord(
            id="op",
            method="CreateVolume",
            subject="volume",
            intent=CREATE,
            principal="somebody",
            seq=1,
            started_ns=1_700_000_000_000_000_001,
            reserved_bytes=5,
            force=True,
        )
    }


def test_a_resumed_operation_counts_its_attempts() -> None:
    started = OperationStarted(method="CreateVolume", subject="volume", intent=CREATE)
    state = fold(started, OperationResumed(attempt=1), OperationResumed(attempt=2))
    assert state.operations["op"].attempts == 2


@pytest.mark.parametrize(
    "end",
    [
        OperationFinished(outcome="succeeded"),
        OperationFinished(outcome="failed", error="no space left on device", error_type="NoSpace"),
        OperationFinished(outcome="cancelled", left_behind=(IMAGE,)),
    ],
)
def test_a_finished_operation_is_no_longer_under_way(end: OperationFinished) -> None:
    state = fold(OperationStarted(method="CreateVolume", subject="volume", intent=CREATE), end)
    assert state.operations == {}


def test_operations_stand_in_the_order_of_acceptance() -> None:
    state = State()
    started = OperationStarted(method="CreateVolume", subject="volume", intent=CREATE)
    for operation in ("z", "a", "m"):
        fold(started, state=state, operation=operation)
    fold(OperationFinished(outcome="succeeded"), state=state, operation="a")
    assert list(state.operations) == ["z", "m"]


@pytest.mark.parametrize("event", [OperationResumed(attempt=1), OperationFinished(outcome="succeeded")])
def test_an_operation_that_never_started_cannot_go_on_or_end(event: Event) -> None:
    with pytest.raises(ValueError, match=r"seq 1: no operation 'op' is under way"):
        fold(event)


def test_an_operation_ends_once() -> None:
    started = OperationStarted(method="CreateVolume", subject="volume", intent=CREATE)
    with pytest.raises(ValueError, match=r"seq 3: no operation"):
        fold(started, OperationFinished(outcome="succeeded"), OperationFinished(outcome="succeeded"))


# --- datasets ------------------------------------------------------------------


def test_a_created_dataset_is_ours_and_says_who_made_it() -> None:
    event = DatasetCreated(
        name="guests/vm/disk-0",
        kind="volume",
        role="disk",
        guid=7,
        createtxg=70,
        size_bytes=10 << 30,
        origin=SNAPSHOT,
        image="debian",
        guest="vm",
        disk="0",
    )
    assert fold(event).datasets == {
        "guests/vm/disk-0": DatasetRecord(
            name="guests/vm/disk-0",
            kind="volume",
            role="disk",
            guid=7,
            createtxg=70,
            size_bytes=10 << 30,
            origin=SNAPSHOT,
            image="debian",
            guest="vm",
            disk="0",
            made_by="op",
        )
    }


@pytest.mark.parametrize("gone", [DatasetDestroyed, DatasetLost])
def test_a_dataset_that_is_gone_is_ours_no_longer(gone: type[DatasetDestroyed | DatasetLost]) -> None:
    state = fold(created("a", 1), created("b", 2), gone(name="a", guid=1, createtxg=10))
    assert list(state.datasets) == ["b"]


@pytest.mark.parametrize("gone", [DatasetDestroyed, DatasetLost])
@pytest.mark.parametrize(("guid", "createtxg"), [(2, 10), (1, 11), (2, 20)])
def test_the_end_of_another_dataset_of_that_name_is_not_the_end_of_ours(
    gone: type[DatasetDestroyed | DatasetLost], guid: int, createtxg: int
) -> None:
    state = fold(created("a", 1), gone(name="a", guid=guid, createtxg=createtxg))
    assert list(state.datasets) == ["a"]


def test_a_renamed_dataset_moves_alone_for_what_moved_along_has_its_own_event() -> None:
    state = fold(
        created("a", 1),
        created("a@s", 2),
        DatasetRenamed(name="a", new_name="x/y", guid=1, createtxg=10),
    )
    assert {name: record.guid for name, record in state.datasets.items()} == {"a@s": 2, "x/y": 1}
    assert all(record.name == name for name, record in state.datasets.items())


def test_what_is_not_ours_cannot_be_renamed() -> None:
    with pytest.raises(ValueError, match=r"seq 2: no dataset 'a' to rename"):
        fold(created("a", 1), DatasetRenamed(name="a", new_name="b", guid=9, createtxg=10))


def test_a_rollback_brings_the_size_of_then_back() -> None:
    back = DatasetRolledBack(
        name="a",
        guid=1,
        createtxg=10,
        snapshot=DatasetId(name="a@s", guid=2, createtxg=20),
        size_bytes=512,
    )
    assert fold(created("a", 1), created("a@s", 2), back).datasets["a"].size_bytes == 512


def test_a_stream_onto_a_volume_brings_its_size() -> None:
    came = DatasetReceived(
        name="a", guid=1, createtxg=10, snapshot=DatasetId(name="a@s", guid=2, createtxg=20), size_bytes=8192
    )
    assert fold(created("a", 1), created("a@s", 2), came).datasets["a"].size_bytes == 8192


def test_a_resized_volume_has_its_new_size_and_another_one_of_its_name_has_not() -> None:
    resized = DatasetResized(name="a", guid=1, createtxg=10, size_bytes=1 << 21)
    assert fold(created("a", 1), resized).datasets["a"].size_bytes == 1 << 21
    assert fold(created("a", 2), resized).datasets["a"].size_bytes != 1 << 21


def test_only_the_same_name_guid_and_createtxg_together_are_ours() -> None:
    state = fold(created("a", 1))
    assert state.owned("a", 1, 10) is state.datasets["a"]
    assert state.owned("a", 2, 10) is None
    assert state.owned("a", 1, 11) is None
    assert state.owned("b", 1, 10) is None


# --- images ----------------------------------------------------------------------


def test_a_requested_image_is_pending_under_its_operation() -> None:
    state = fold(ImageRequested(image="debian", type="kvm", source="images.example"))
    assert state.images == {
        "debian": ImageRecord(
            id="debian", type="kvm", source="images.example", operation="op", requested_ns=TIME_NS + 1
        )
    }
    assert state.images["debian"].status == "pending"


def test_a_completed_image_knows_its_volume_and_its_snapshot() -> None:
    assert fetched().images["debian"] == ImageRecord(
        id="debian",
        type="kvm",
        source="images.example",
        status="complete",
        volume=IMAGE,
        snapshot=SNAPSHOT,
        size_bytes=10 << 30,
        sha256="ab" * 32,
        known_sha256="ab" * 32,
        requested_ns=TIME_NS + 1,
        completed_ns=TIME_NS + 2,
    )


def test_a_failed_image_says_why() -> None:
    state = fold(ImageRequested(image="debian"), ImageFailed(image="debian", reason="404 from the source"))
    assert state.images["debian"] == ImageRecord(
        id="debian", status="error", reason="404 from the source", requested_ns=TIME_NS + 1
    )


@pytest.mark.parametrize("before", [fetched(), fold(ImageRequested(image="debian"))])
def test_an_image_requested_again_is_pending_and_forgets_what_was(before: State) -> None:
    state = copy.deepcopy(before)
    fold(ImageFailed(image="debian", reason="gone"), ImageRequested(image="debian"), state=state)
    assert state.images["debian"] == ImageRecord(
        id="debian",
        operation="op",
        requested_ns=TIME_NS + state.seq,
        known_sha256=before.images["debian"].sha256,
    )


def test_images_stand_in_the_order_of_first_request() -> None:
    state = fold(*(ImageRequested(image=image) for image in ("z", "a", "m", "z")))
    assert list(state.images) == ["z", "a", "m"]


def test_a_deleted_image_is_forgotten() -> None:
    assert fold(ImageDeleted(image="debian"), state=fetched()).images == {}


@pytest.mark.parametrize(
    "event",
    [
        ImageCompleted(image="debian", volume=IMAGE, snapshot=SNAPSHOT, size_bytes=1),
        ImageFailed(image="debian", reason="gone"),
        ImageDeleted(image="debian"),
        ImageRetired(image="debian"),
    ],
)
def test_facts_about_an_image_nobody_asked_for_are_refused(event: Event) -> None:
    with pytest.raises(ValueError, match=r"seq 1: image 'debian' was never requested"):
        fold(event)


PUBLISHED = ImagePublished(
    image="gold", type="kvm", snapshot=DatasetId(name="guests/g/disk-0@s", guid=8, createtxg=80)
)


def test_a_published_image_knows_what_it_is_a_copy_of_until_it_is_fetched() -> None:
    state = fold(PUBLISHED, ImageCompleted(image="gold", volume=IMAGE, snapshot=SNAPSHOT, size_bytes=1 << 20))
    record = state.images["gold"]
    assert (record.status, record.published, record.source) == ("complete", PUBLISHED.snapshot, "")
    fold(ImageRequested(image="gold", source="https://x/y"), state=state)
    assert (record.published, record.source) == (None, "https://x/y")


def clone(name: str = "guests/g/disk-0") -> DatasetCreated:
    return DatasetCreated(
        name=name, kind="volume", role="disk", guid=5, createtxg=50, origin=SNAPSHOT, image="debian"
    )


def test_an_image_was_last_used_when_a_clone_was_made_or_went() -> None:
    state = fetched()
    assert state.images["debian"].last_used_ns == 0
    fold(clone(), created("other", 6), state=state)
    assert state.images["debian"].last_used_ns == TIME_NS + state.seq - 1
    fold(DatasetLost(name="guests/g/disk-0", guid=5, createtxg=50), state=state)
    assert state.images["debian"].last_used_ns == TIME_NS + state.seq


def test_a_retired_image_remembers_who_took_its_last_clone() -> None:
    state = fold(clone(), ImageRetired(image="debian"), state=fetched())
    assert state.retired == {"debian": ""}
    fold(DatasetDestroyed(name="guests/g/disk-0", guid=5, createtxg=50), state=state, operation="deletion")
    assert state.retired == {"debian": "deletion"}


@pytest.mark.parametrize(
    "event",
    [
        ImageRevived(image="debian"),
        ImageRequested(image="debian"),
        ImageDeleted(image="debian"),
        msgspec.structs.replace(PUBLISHED, image="debian"),
    ],
)
def test_an_image_is_retired_until_it_is_revived_or_another(event: Event) -> None:
    assert fold(ImageRetired(image="debian"), event, state=fetched()).retired == {}


def test_an_alias_names_the_image_that_it_was_last_set_to() -> None:
    state = fold(AliasSet(alias="deb", image="a"), AliasSet(alias="deb", image="b"))
    assert state.aliases == {"deb": "b"}
    assert fold(AliasRemoved(alias="deb"), state=state).aliases == {}


def test_a_source_is_the_one_registered_last_until_it_is_removed() -> None:
    state = fold(
        SourceRegistered(image="deb", address="https://a.example/deb"),
        SourceRegistered(image="deb", address="https://b.example/deb", sha256="ab" * 32),
    )
    assert state.sources == {"deb": SourceRecord(address="https://b.example/deb", sha256="ab" * 32)}
    assert fold(SourceRemoved(image="deb"), state=state).sources == {}


def test_a_token_is_known_by_its_name_with_who_made_it_until_it_is_revoked() -> None:
    made = TokenCreated(name="ops", role="operator", sha256="cd" * 32, expires_ns=9)
    state = State()
    apply(state, Envelope(id="", seq=1, time_ns=7, principal="unix:alice", event=made))
    record = TokenRecord(
        name="ops", role="operator", sha256="cd" * 32, created_ns=7, created_by="unix:alice", expires_ns=9
    )
    assert state.tokens == {"ops": record}
    assert fold(TokenRevoked(name="ops"), state=state).tokens == {}


# --- the store itself ----------------------------------------------------------------


def test_the_epoch_is_the_journals_last() -> None:
    assert fold(*(JournalOpened(epoch=epoch, version="1") for epoch in (1, 2, 3))).epoch == 3


def test_the_pool_is_the_one_attached() -> None:
    state = fold(PoolAttached(driver="directory", pool="mistify"))
    assert (state.driver, state.pool) == ("directory", "mistify")


def test_a_cut_changes_nothing_but_the_seq() -> None:
    assert fold(JournalCut(segment="1", offset=8, length=3, saved_as="1.cut-8")) == State(seq=1)


# --- order and purity --------------------------------------------------------------------


@pytest.mark.parametrize("seq", [0, 1, 2, 4, 100])
def test_an_event_out_of_sequence_is_refused_and_changes_nothing(seq: int) -> None:
    state = fold(created("a", 1), created("b", 2))
    before = copy.deepcopy(state)
    with pytest.raises(ValueError, match=rf"^seq {seq} does not follow 2$"):
        apply(state, Envelope(id="x", seq=seq, time_ns=0, event=created("c", 3)))
    assert state == before


# --- adoption ----------------------------------------------------------------------------


ADOPTED = DatasetAdopted(
    name="old/root", kind="volume", role="disk", guid=7, createtxg=70, size_bytes=512, guest="g", disk="0"
)


def test_what_is_adopted_is_ours_until_it_is_released() -> None:
    state = fold(ADOPTED)
    assert state.datasets["old/root"] == DatasetRecord(
        name="old/root",
        kind="volume",
        role="disk",
        guid=7,
        createtxg=70,
        size_bytes=512,
        guest="g",
        disk="0",
        made_by="op",
    )
    assert fold(ADOPTED, DatasetReleased(name="old/root", guid=8, createtxg=70)).datasets == state.datasets
    assert fold(ADOPTED, DatasetReleased(name="old/root", guid=7, createtxg=70)).datasets == {}


def test_an_image_that_is_released_is_none_any_more() -> None:
    state = fold(ImageRequested(image="a"), ImageRetired(image="a"), ImageReleased(image="a"))
    assert (state.images, state.retired) == ({}, {})
    with pytest.raises(ValueError, match="never requested"):
        fold(ImageReleased(image="a"))


# --- a history with everything in it -------------------------------------------------------


HISTORY: tuple[Event, ...] = (
    JournalOpened(epoch=1, version="1"),
    PoolAttached(driver="directory", pool="mistify"),
    OperationStarted(method="RequestImage", subject="debian", intent=FETCH),
    ImageRequested(image="debian"),
    OperationResumed(attempt=1),
    JournalCut(segment="1", offset=8, length=3, saved_as="1.cut-8"),
    SegmentsArchived(first=1, last=2, last_seq=9, hash="ab", place="/mnt/cold"),
    created("images/.staging-op", 1),
    created("images/.staging-op@1", 2),
    DatasetRenamed(name="images/.staging-op", new_name="images/debian", guid=1, createtxg=10),
    DatasetRenamed(name="images/.staging-op@1", new_name="images/debian@1", guid=2, createtxg=20),
    ImageCompleted(image="debian", volume=IMAGE, snapshot=SNAPSHOT, size_bytes=1 << 20),
    OperationFinished(outcome="succeeded"),
    OperationStarted(method="CreateVolume", subject="volume", intent=CREATE),
    created("volume", 3),
    created("volume@s", 4),
    DatasetRolledBack(
        name="volume",
        guid=3,
        createtxg=30,
        snapshot=DatasetId(name="volume@s", guid=4, createtxg=40),
        size_bytes=4096,
    ),
    DatasetResized(name="volume", guid=3, createtxg=30, size_bytes=6144),
    DatasetReceived(
        name="volume",
        guid=3,
        createtxg=30,
        snapshot=DatasetId(name="volume@s", guid=4, createtxg=40),
        size_bytes=8192,
    ),
    OperationFinished(outcome="succeeded"),
    DatasetDestroyed(name="volume@s", guid=4, createtxg=40),
    DatasetLost(name="volume", guid=3, createtxg=30),
    ADOPTED,
    DatasetReleased(name="old/root", guid=7, createtxg=70),
    ImageRequested(image="taken"),
    ImageReleased(image="taken"),
    PUBLISHED,
    ImageRetired(image="gold"),
    ImageRevived(image="gold"),
    AliasSet(alias="deb", image="debian"),
    AliasRemoved(alias="deb"),
    SourceRegistered(image="void", address="https://example.net/void", sha256="ab" * 32),
    SourceRegistered(image="debian", address="https://example.net/d", sums="https://example.net/SHA256SUMS"),
    SourceRemoved(image="void"),
    ImageRequested(image="void"),
    ImageFailed(image="void", reason="404 from the source"),
    ImageDeleted(image="void"),
    TokenCreated(name="ops", role="admin", sha256="cd" * 32),
    TokenRevoked(name="ops"),
)


def test_the_history_has_every_event_type() -> None:
    """A new event type is added to HISTORY, and to the tests above."""
    assert {type(event) for event in HISTORY} == set(get_args(Event))


def test_the_same_history_gives_the_same_state() -> None:
    assert fold(*HISTORY) == fold(*HISTORY)
    assert list(fold(*HISTORY).datasets) == ["images/debian", "images/debian@1"]


@given(st.integers(min_value=0, max_value=len(HISTORY)))
def test_a_state_that_went_through_bytes_folds_on_as_if_it_had_not(cut: int) -> None:
    """What a checkpoint does."""
    whole = fold(*HISTORY)
    saved = msgspec.json.encode(fold(*HISTORY[:cut]))
    assert fold(*HISTORY[cut:], state=msgspec.json.decode(saved, type=State)) == whole


def test_the_fold_keeps_nothing_of_the_event_that_could_change_under_it() -> None:
    """Events and what they hold are frozen, so two states may share them."""
    first = fold(*HISTORY[:-3])
    second = copy.deepcopy(first)
    fold(*HISTORY[-3:], state=first)
    assert first != second
    assert fold(*HISTORY[-3:], state=second) == first
