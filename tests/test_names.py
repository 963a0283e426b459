"""Names: what passes stays in the pool and is nobody's option."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagestore import names
from imagestore.errors import InvalidArgument, NotValid

POOL = "mistify"


@pytest.mark.parametrize(
    "name",
    [
        "images",
        "guests/vm1/disk-0",
        "guests/vm1/disk-0@monday",
        "a:b/c_d/E.f-1",
        "a@-s",  # behind the @ nothing is an option
        "a@.s",
        "@s",  # a snapshot of the pool's root
        "/".join(["a"] * names.MAX_DEPTH),
        "a" * (names.MAX_NAME_BYTES - len(POOL) - 1),
    ],
)
def test_a_valid_name_comes_back_as_it_was(name: str) -> None:
    assert names.parse(name, POOL) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "../other",
        "a/../../b",
        ".staging-1",
        "images/.staging-1",
        "-r",
        "a/-r",
        "--",
        "a b",
        " a",
        "a\n",
        "a\0b",
        "a\tb",
        "a%b",
        "a#bookmark",
        "a@",
        "a@b@c",
        "a@b/c",
        "a@b\n",
        "a@b c",
        "ä",
        "a@ä",
        "a\u202eb",
        "~",
        "$HOME",
        "a;b",
        "a*",
        "x" * 300,
        "/".join(["a"] * (names.MAX_DEPTH + 1)),
        "a" * (names.MAX_NAME_BYTES - len(POOL)),
    ],
)
def test_a_name_that_could_leave_the_pool_or_be_an_option_is_refused(name: str) -> None:
    with pytest.raises(NotValid, match=r"^not a valid dataset$") as caught:
        names.parse(name, POOL)
    assert caught.value.detail
    assert "\n" not in caught.value.detail, "a refusal is one line"


@given(st.text(alphabet=st.sampled_from("ab0_:.-/@ \n\0#~é"), max_size=40))
def test_whatever_passes_is_made_of_harmless_components(text: str) -> None:
    try:
        name = names.parse(text, POOL)
    except NotValid:
        return
    dataset, _, snapshot = name.partition("@")
    for component in dataset.split("/") if dataset else []:
        assert component
        assert component[0] not in ".-"
        assert component.isascii()
        assert not set(component) & set(" \n\0#~/@")
    assert not set(snapshot) & set(" \n\0#~/@")
    assert names.parse(names.full(name, POOL), "other") == names.full(name, POOL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("images/debian", ("images/debian",)),
        ("mistify/images", ("mistify/images", "images")),
        ("mistify/guests/a@s", ("mistify/guests/a@s", "guests/a@s")),
        ("mistify@s", ("mistify@s", "@s")),
        ("mistify", ("mistify", "")),
        ("mistifyx/a", ("mistifyx/a",)),
    ],
)
def test_a_full_name_may_also_be_a_relative_one_which_comes_first(
    text: str, expected: tuple[str, ...]
) -> None:
    assert names.candidates(text, POOL) == expected


@pytest.mark.parametrize("text", ["", "mistify/", "mistify/..", "mistify/../other", "mistify@", "/mistify/a"])
def test_a_full_name_is_checked_like_any_other(text: str) -> None:
    with pytest.raises(NotValid):
        names.candidates(text, POOL)


@given(st.from_regex(r"[a-z][a-z0-9-]{0,5}(/[a-z][a-z0-9-]{0,5}){0,4}(@[a-z0-9.]{1,5})?", fullmatch=True))
def test_the_full_name_means_the_relative_one(name: str) -> None:
    assert names.candidates(names.full(name, POOL), POOL)[-1] == name


def test_full_names_have_the_pool_in_front() -> None:
    assert names.full("", POOL) == "mistify"
    assert names.full("@s", POOL) == "mistify@s"
    assert names.full("guests/a", POOL) == "mistify/guests/a"


@pytest.mark.parametrize(
    ("name", "parent"),
    [("a/b/c", "a/b"), ("a/b@s", "a/b"), ("a", ""), ("a@s", "a"), ("@s", ""), ("", "")],
)
def test_the_parent_is_one_level_up(name: str, parent: str) -> None:
    assert names.parent(name) == parent


def test_ancestors_are_outermost_first_and_leave_out_the_root() -> None:
    assert names.ancestors("a/b/c") == ("a", "a/b")
    assert names.ancestors("a") == ()


@pytest.mark.parametrize(
    ("name", "subtree", "within"),
    [
        ("a", "a", True),
        ("a/b", "a", True),
        ("a@s", "a", True),
        ("a/b@s", "a", True),
        ("ab", "a", False),
        ("a-b", "a", False),
        ("a", "a/b", False),
        ("anything", "", True),
    ],
)
def test_a_subtree_ends_at_component_boundaries(name: str, subtree: str, within: bool) -> None:
    assert names.is_within(name, subtree) is within


@pytest.mark.parametrize(
    "text", ["", ".", "..", "-x", ".x", "a/b", "a@b", "a b", "a\n", "a\0", "é", "x" * 201, "x" * 300]
)
def test_ids_that_are_not_one_component_are_refused(text: str) -> None:
    with pytest.raises(NotValid):
        names.check_image_id(text)
    with pytest.raises(InvalidArgument, match=r"^invalid argument$"):
        names.check_guest_id(text)


@pytest.mark.parametrize("text", ["a", "0", "_", "debian-12.5:amd64", "x" * 200])
def test_ids_of_one_component_pass(text: str) -> None:
    assert names.check_image_id(text) == text
    assert names.check_guest_id(text) == text


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a@b", "a\n", "é", "x" * 201])
def test_a_snapshot_name_that_cannot_be_is_refused_in_the_old_words(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid snapshot dest$"):
        names.check_snapshot_dest(text)


@pytest.mark.parametrize("text", ["a", "-a", ".a", "2026-01-01T00:00:00", "A_b:c.d-e"])
def test_a_snapshot_name_that_can_be_passes(text: str) -> None:
    assert names.check_snapshot_dest(text) == text


def test_the_stores_own_places_are_valid_names_but_for_the_reserved_one() -> None:
    for name in (names.image("debian"), names.guest("vm1"), names.disk("vm1", 3)):
        assert names.parse(name, POOL) == name
    assert names.disk("vm1", 3) == "guests/vm1/disk-3"
    with pytest.raises(NotValid):
        names.parse(names.staging("0190"), POOL)
