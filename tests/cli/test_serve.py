"""serve and demo, as processes: the ready line, SIGTERM, and the whole demo."""

import json
import subprocess
import sys
from pathlib import Path

from imagestore.cli.storeprocess import StoreProcess
from tests.cli.conftest import Run


def test_serve_says_where_it_is_and_ends_with_0_at_sigterm(tmp_path: Path, run: Run) -> None:
    with StoreProcess(str(tmp_path), "127.0.0.1:9") as store:
        client = store.start()
        assert client.ready()
        made = run("volume", "create", "scratch/data", "1M", "--server", client.server, "-o", "json")
        assert json.loads(made.out)["device"] == str(tmp_path / "pool" / "scratch" / "data")
        assert store.stop() == 0
    verified = run("journal", "verify", "--journal", str(tmp_path / "journal"))
    assert (verified.status, verified.err) == (0, "")


def test_serve_refuses_a_pool_whose_journal_is_missing(tmp_path: Path) -> None:
    with StoreProcess(str(tmp_path), "127.0.0.1:9") as store:
        store.start()
        store.stop()
    arguments = ["serve", "--pool", f"dir:{tmp_path}/pool", "--journal", f"{tmp_path}/other", "--port", "0"]
    ended = subprocess.run(
        [sys.executable, "-m", "imagestore", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 31
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-2].startswith("imagestore: ")
    assert "imagestore recover" in ended.stderr


def test_the_demo_sees_what_must_be_and_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "imagestore", "demo"],
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("Everything was as it must be.\n")
    assert "kill -9" in ended.stdout
    assert "\033" not in ended.stdout
    assert list(tmp_path.iterdir()) == []
