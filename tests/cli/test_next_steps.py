"""What a command that failed says is to be typed next: for every command, and what it names is there."""

import re

import click
import pytest

from imagestore import errors
from imagestore.cli.connection import next_step
from imagestore.cli.main import COMMANDS, cli
from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore

ASKING = sorted(set(COMMANDS) & {"image", "guest", "volume", "snap", "send", "receive", "op", "token"})


def found(words: list[str]) -> click.Command:
    """The command that ``words`` begin with."""
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group) or not re.fullmatch("[a-z-]+", word):
            break
        inner = command.get_command(click.Context(command), word)
        assert inner is not None, words
        command = inner
    return command


@pytest.mark.parametrize(
    "command", [*ASKING, "adopt", "release", "explain", "guest create", "image source rm"]
)
def test_what_is_not_found_is_looked_for_with_a_command_that_there_is(command: str) -> None:
    said = next_step(errors.NotFound(), command)
    for words in re.findall(r"imagestore ((?:[a-z-]+ ?)+)", said):
        assert not isinstance(found(words.split()), click.Group), said
    assert "imagestore " in said


def test_a_guest_that_needs_an_image_is_told_of_images_and_not_of_guests() -> None:
    assert "image pull" in next_step(errors.NotFound(), "guest create")
    assert "guest ls" in next_step(errors.NotFound(), "guest show")


@pytest.mark.parametrize(
    ("problem", "command", "options", "said"),
    [
        (errors.NoSpace(), "guest create", (), "imagestore status"),
        (errors.TemporarilyUnavailable(), "volume create", ("--retry",), "--retry"),
        (errors.TemporarilyUnavailable(), "volume ls", (), ""),
        (errors.HasClones.of("image", ["a"]), "image rm", ("--when-unused",), "--when-unused"),
        (errors.HasClones.of("snapshot", ["a"]), "snap rm", (), ""),
        (errors.FetchFailed("x cannot be reached: no"), "image pull", (), "imagestore doctor"),
        (errors.FetchFailed("x is no image"), "image pull", (), ""),
        (errors.AlreadyExists(), "guest create", (), "imagestore guest show"),
        (errors.AlreadyExists("token already exists: ci"), "token create", (), "take another name"),
        (errors.AlreadyExists("image already exists: a"), "image alias set", (), "an alias is"),
        (errors.FetchFailed("h is in a private network"), "image pull", (), "the store's setting"),
        (errors.ContentRefused("this is no ZFS send stream"), "receive", (), "imagestore image pull FILE"),
        (errors.ContentRefused("this is no ZFS send stream"), "image pull", (), ""),
        (errors.Blocked("dataset belongs to image a: images/a"), "volume rm", (), "it goes with the image"),
        (errors.Blocked("dataset cannot be destroyed: images"), "volume rm", (), "what is in it"),
        (errors.InvalidArgument("volume is larger: v"), "volume resize", (), "a volume only grows"),
        (errors.InvalidArgument("invalid snapshot dest"), "snap create", (), "a snapshot's name"),
    ],
)
def test_other_refusals(
    problem: errors.ImageStoreError, command: str, options: tuple[str, ...], said: str
) -> None:
    step = next_step(problem, command, frozenset(options))
    assert step.startswith(said) if said else step == ""


def test_whoever_asks_for_tls_where_there_is_none_is_told_the_address(
    run: Run, memory_store: MemoryStore
) -> None:
    ended = run("volume", "ls", "--server", memory_store.address.replace("http:", "https:"))
    assert ended.status == 40
    assert ended.err.endswith(f": name it as {memory_store.address}\n")


def test_a_command_says_it_below_the_error(run: Run, memory_store: MemoryStore) -> None:
    memory_store.refusals["CreateGuestDisks"] = "not found"
    memory_store.images["deb"] = {"id": "deb", "status": "complete"}
    memory_store.images["late"] = {"id": "late", "status": "downloading"}
    memory_store.aliases["stable"] = "deb"
    disks = [word for image in ("deb", "nosuch", "stable", "late", "nosuch") for word in ("--disk", image)]
    ended = run("guest", "create", "g", *disks, "--disk", "1G")
    assert ended.status == 3
    assert ended.err.splitlines()[0] == "imagestore: not found"
    assert ended.err.splitlines()[1].startswith("  there is no image nosuch, late; imagestore image pull ID")
    assert "imagestore image pull ID" in run("guest", "create", "g", "--disk", "deb").err
