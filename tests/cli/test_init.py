"""init: the file that it writes is one that serve understands, and nothing is overwritten unasked."""

import tomllib
from pathlib import Path

import click
import pytest

from imagestore.cli import init
from imagestore.config import load
from tests.cli.conftest import Run


def arguments(place: Path, *more: str) -> tuple[str, ...]:
    return (
        *("init", "--pool", f"dir:{place}/pool", "--journal", f"{place}/journal"),
        *("-i", "images.test:1", "--to", f"{place}/imagestore.toml", *more),
    )


def test_the_file_holds_what_the_flags_said_and_the_directories_are_there(run: Run, tmp_path: Path) -> None:
    ended = run(*arguments(tmp_path))
    assert (ended.status, ended.err) == (0, "")
    settings = load({}, environment={}, file=f"{tmp_path}/imagestore.toml")
    assert settings.pool == f"dir:{tmp_path}/pool"
    assert settings.journal == f"{tmp_path}/journal"
    assert settings.image_service == "images.test:1"
    assert (tmp_path / "pool").is_dir()
    assert (tmp_path / "journal").is_dir()
    assert f"imagestore doctor --config {tmp_path}/imagestore.toml" in ended.out


def test_a_dry_run_prints_the_file_and_makes_nothing(run: Run, tmp_path: Path) -> None:
    ended = run(*arguments(tmp_path, "--dry-run"))
    assert tomllib.loads(ended.out)["journal"] == f"{tmp_path}/journal"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_without_force(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "imagestore.toml"
    file.write_text("port = 7\n")
    refused = run(*arguments(tmp_path))
    assert refused.status == 4
    assert "--force replaces it" in refused.err
    assert file.read_text() == "port = 7\n"
    assert run(*arguments(tmp_path, "--force")).status == 0
    assert "port" not in tomllib.loads(file.read_text())


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--pool", "tank", "is neither dir:PATH nor zfs:NAME"),
        ("--image-service", "http://images.test/", "is not HOST, HOST:PORT or https://HOST:PORT"),
        ("--user", "nobody-of-this-name", "adduser --system"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path, flag: str, value: str, message: str
) -> None:
    ended = run("init", "--to", str(tmp_path / "x.toml"), "--journal", str(tmp_path / "j"), flag, value)
    assert ended.status == 2
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_person_is_asked_for_what_no_flag_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

    def prompt(question: str, **options: object) -> str:
        asked.append(question)
        return "" if "User" in question else f"{tmp_path}/asked"

    monkeypatch.setattr(init, "sys", type("Sys", (), {"stdin": Terminal(), "stderr": Terminal()}))
    monkeypatch.setattr(click, "prompt", prompt)
    ended = run("init", "--pool", "zfs:tank", "-i", "images.test", "--dry-run")
    assert asked == ["Directory of the journal", "User that the store runs as"]
    assert tomllib.loads(ended.out) == {
        "pool": "zfs:tank",
        "journal": f"{tmp_path}/asked",
        "image_service": "images.test",
    }


def test_any_path_becomes_a_toml_string(tmp_path: Path) -> None:
    answers = init.Answers(pool='dir:/a"b\\c', journal="/j ü", image_service="i", user="")
    assert tomllib.loads(init.settings_text(answers)) == {
        "pool": 'dir:/a"b\\c',
        "journal": "/j ü",
        "image_service": "i",
    }
