"""Texts recorded off OpenZFS 2.1.11 mean what they meant."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from imagestore import errors
from imagestore.pools.zfs.failures import NOTHING_OVERRIDES, failure, failure_of_number, in_use, relative

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "zfs_texts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: " ".join(r["command"])[:60])
def test_a_recorded_text_has_its_meaning(recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    error = failure(recorded["command"], recorded["text"], "tank")
    assert type(error).__name__ == recorded["error"]
    assert recorded["says"] in str(error)


def test_a_text_that_is_not_known_is_quoted_in_one_line() -> None:
    error = failure(("zfs", "create", "tank/x"), "something\nquite new\n", "tank")
    assert str(error) == "zfs create failed: something quite new"
    assert type(error) is errors.PoolError


def test_a_missing_right_is_told_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    error = failure(("zfs", "clone"), "cannot create 'tank/c': permission denied", "tank")
    assert "not permitted" in str(error)
    assert "run the store as root" in error.detail
    assert "channel programs" in failure_of_number("zfs program", errno.EPERM, "", "tank").detail


@pytest.mark.parametrize("name", ["secret/w", "secret/v@s"])
def test_what_is_denied_to_root_is_locked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    text = f"cannot set property for 'tank/{name}': permission denied"
    for error in (failure(("zfs", "set"), text, "tank"), failure_of_number("x", errno.EACCES, name, "tank")):
        assert str(error) == f"{name} is encrypted and its key is not loaded"
        above = {"secret/w": "tank/secret", "secret/v@s": "tank/secret/v"}[name]
        assert error.detail == f'zfs load-key "$(zfs get -H -o value encryptionroot {above})"'


def test_a_pool_that_lacks_a_feature_is_told_with_what_gives_it() -> None:
    error = failure_of_number("creating", errno.ENOTSUP, "v", "tank")
    assert str(error) == "pool tank lacks a feature: creating v"
    assert "zpool upgrade tank" in error.detail


def test_a_suspended_pool_is_told_with_what_mends_it() -> None:
    error = failure(("zfs", "create"), "cannot create 'tank/c': pool I/O is currently suspended", "tank")
    assert "zpool clear tank" in error.detail


def test_what_is_in_use_says_that_force_does_not_help() -> None:
    error = in_use("guests/vm/disk-0", ["pid 7 qemu"])
    assert str(error) == "dataset is in use: guests/vm/disk-0 (pid 7 qemu)"
    assert error.detail == NOTHING_OVERRIDES


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tank", ""), ("tank/a/b", "a/b"), ("tank@s", "@s"), ("tanker/a", "tanker/a")],
)
def test_a_name_loses_its_pool(name: str, expected: str) -> None:
    assert relative(name, "tank") == expected
