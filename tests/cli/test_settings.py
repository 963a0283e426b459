"""config show and check: the settings as the flags of serve make them."""

import json
from pathlib import Path

import pytest

from imagestore.config import Config
from tests.cli.conftest import Run


def shown(run: Run, *flags: str) -> dict[str, object]:
    ended = run("config", "show", "-o", "json", *flags)
    assert (ended.status, ended.err) == (0, "")
    settings = json.loads(ended.out)
    assert isinstance(settings, dict)
    return settings


def test_the_originals_flags_mean_what_they_meant(run: Run) -> None:
    settings = shown(run, "-z", "tank", "-p", "1999", "-i", "images.test", "-l", "debug")
    assert settings["pool"] == "zfs:tank"
    assert settings["port"] == 1999
    assert settings["image_service"] == "images.test"
    assert settings["log_level"] == "debug"


def test_set_reaches_every_setting(run: Run) -> None:
    settings = shown(run, "--set", "shutdown_seconds=5", "--set", "allow_unauthenticated=true")
    assert (settings["shutdown_seconds"], settings["allow_unauthenticated"]) == (5, True)


def test_flags_win_over_the_environment_and_that_over_the_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "imagestore.toml"
    file.write_text("port = 1\nmax_pending = 1\nmailbox_size = 1\n")
    monkeypatch.setenv("IMAGESTORE_CONFIG", str(file))
    monkeypatch.setenv("IMAGESTORE_PORT", "2")
    monkeypatch.setenv("IMAGESTORE_MAX_PENDING", "2")
    settings = shown(run, "--port", "3")
    assert [settings[key] for key in ("port", "max_pending", "mailbox_size")] == [3, 2, 1]


def test_each_setting_says_where_it_comes_from(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "x.toml").write_text('port = 1\nmax_pending = 1\nImageServer = "images.test"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGESTORE_MAX_PENDING", "2")
    monkeypatch.setenv("IMAGESTORE_CACHE", "/c")
    flags = ("--config", "x.toml", "-z", "tank", "--set", "cache=/d")
    origins = shown(run, *flags)["origins"]
    assert isinstance(origins, dict)
    given = {key: origin for key, origin in origins.items() if origin != "default"}
    assert given == {
        "pool": "flag",
        "cache": "flag",
        "port": f"file:{tmp_path}/x.toml",
        "image_service": f"file:{tmp_path}/x.toml",
        "max_pending": "environment:IMAGESTORE_MAX_PENDING",
    }
    rows = dict(line.split(maxsplit=1) for line in run("config", "show", *flags).out.splitlines())
    assert all(rows[key].endswith(f" {origin}") for key, origin in origins.items())


def test_json_has_the_settings_at_their_names_and_the_origin_of_each(run: Run) -> None:
    settings = shown(run)
    origins = settings.pop("origins")
    assert isinstance(origins, dict)
    assert list(origins) == list(settings)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--port", "http"), "port = 'http' is not valid"),
        (("-z", "tank", "--pool", "dir:/x"), "both say what pool is"),
        (("--set", "prot=1"), "there is no setting 'prot'"),
        (("--set", "port"), "is not KEY=VALUE"),
        (("--port", "1", "--set", "port=2"), "port is given twice"),
        (("--config", "/none.toml"), "cannot read /none.toml"),
    ],
)
def test_a_mistake_exits_2_and_is_named(run: Run, flags: tuple[str, ...], message: str) -> None:
    for command in ("show", "check"):
        ended = run("config", command, *flags)
        assert ended.status == 2
        assert message in ended.err


def test_check_of_right_settings_exits_0(run: Run) -> None:
    ended = run("config", "check", "--pool", "dir:/srv/p", "--journal", "/srv/j")
    assert ended.status == 0
    assert ended.out == "the settings are right: dir:/srv/p, journal /srv/j, port 19999\n"


def test_every_setting_is_shown_in_the_table(run: Run) -> None:
    table = run("config", "show").out
    assert all(f"\n{key} " in table for key in Config.__struct_fields__)
