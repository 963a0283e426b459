"""Errors: one hierarchy, four faces, and the words of the old wire."""

import pytest

from imagestore import errors
from imagestore.errors import ImageStoreError


def every_type(root: type[ImageStoreError] = ImageStoreError) -> list[type[ImageStoreError]]:
    found = [root]
    for child in root.__subclasses__():
        found += every_type(child)
    return [each for each in found if each.__module__ == "imagestore.errors"]


TYPES = every_type()
RESERVED_BY_JSON_RPC = {-32700, -32600, -32601, -32602, -32603}


@pytest.mark.parametrize("error", TYPES, ids=lambda error: error.__name__)
def test_every_error_has_a_code_that_json_rpc_allows(error: type[ImageStoreError]) -> None:
    assert error.code in RESERVED_BY_JSON_RPC or -32099 <= error.code <= -32000


@pytest.mark.parametrize("error", TYPES, ids=lambda error: error.__name__)
def test_every_error_has_a_status_and_an_exit_code_that_mean_failure(error: type[ImageStoreError]) -> None:
    assert 400 <= error.http_status <= 599
    assert 1 <= error.exit_code <= 125, "126 and up belong to the shell"


@pytest.mark.parametrize("error", TYPES, ids=lambda error: error.__name__)
def test_every_error_is_explained_and_has_one_line_of_text(error: type[ImageStoreError]) -> None:
    assert error.__doc__
    assert error.text
    assert "\n" not in error.text


def test_errors_of_different_code_differ_in_exit_code() -> None:
    """A script that looks at the exit code sees what an RPC client sees."""
    codes: dict[int, set[int]] = {}
    for error in TYPES:
        if error is ImageStoreError or issubclass(error, errors.TemporarilyUnavailable | errors.Stopping):
            continue
        codes.setdefault(error.exit_code, set()).add(error.code)
    assert {exit_code: found for exit_code, found in codes.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.InvalidArgument(), "invalid argument"),
        (errors.NotValid(), "not a valid dataset"),
        (errors.NotVolume(), "not a volume"),
        (errors.NotSnapshot(), "not a snapshot"),
        (errors.NotFound(), "not found"),
        (errors.AlreadyExists.named("guests/a"), "dataset already exists: guests/a"),
        (errors.HasClones.of("snapshot", ["a", "b"]), "snapshot has dependent clones: a, b"),
        (errors.HasClones.of("image", ["a"]), "image has dependent clones: a"),
        (
            errors.InUse.by("guests/x/disk-0", ["pid 4242 qemu-system-x86"]),
            "dataset is in use: guests/x/disk-0 (pid 4242 qemu-system-x86)",
        ),
        (errors.InUse.by("guests/x/disk-0", []), "dataset is in use: guests/x/disk-0"),
        (errors.NoSpace(), "no space left on device"),
        (errors.TemporarilyUnavailable(), "resource temporarily unavailable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_old_wire_keeps_its_words(error: ImageStoreError, text: str) -> None:
    assert str(error) == text


def test_the_detail_stays_off_the_old_wire() -> None:
    error = errors.InvalidArgument("need a dest", detail="say where the clone shall be")
    assert str(error) == "need a dest"
    assert error.detail == "say where the clone shall be"


def test_what_blocks_is_kept_in_its_order() -> None:
    assert errors.HasClones.of("image", ["b", "a"]).blockers == ("b", "a")
    assert errors.NewerSnapshots.named(["a@2", "a@3"]).blockers == ("a@2", "a@3")
    assert errors.Held.named(["a@1"]).blockers == ("a@1",)
    assert errors.InUse.by("a", ["pid 1 init"]).blockers == ("pid 1 init",)


def test_only_what_may_succeed_unchanged_later_is_retryable() -> None:
    retryable = {error.__name__ for error in TYPES if error.retryable}
    assert retryable >= {"TemporarilyUnavailable", "DeadlineExceeded", "Stopping", "FetchUnreachable"}
    for final in (errors.NotFound, errors.InvalidArgument, errors.Corrupt, errors.OutcomeUnknown):
        assert not final.retryable


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("EAGAIN", errors.TemporarilyUnavailable),
        ("EEXIST", errors.AlreadyExists),
        ("ENOSPC", errors.NoSpace),
        ("EINVAL", errors.InvalidArgument),
        ("ErrNotFound", errors.NotFound),
        ("ErrNotVolume", errors.NotVolume),
        ("ErrNotSnapshot", errors.NotSnapshot),
        ("ErrNotValid", errors.NotValid),
    ],
)
def test_the_originals_names_can_be_caught(name: str, error: type[ImageStoreError]) -> None:
    assert getattr(errors, name) is error
