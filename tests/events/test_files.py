"""The journal's system calls, where they do more than the kernel's call of the same name."""

import os
from pathlib import Path

import pytest

from imagestore.events.files import SYSTEM_FILES


def no_proc(path: str) -> str:
    raise FileNotFoundError(path)


@pytest.mark.parametrize("proc", [True, False])
def test_an_open_file_is_named_until_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proc: bool
) -> None:
    if not proc:
        monkeypatch.setattr(os, "readlink", no_proc)
    path = tmp_path / "segment"
    descriptor = SYSTEM_FILES.open(str(path), os.O_RDWR | os.O_CREAT)
    try:
        assert SYSTEM_FILES.is_named(descriptor)
        renamed = path.rename(tmp_path / "looks (deleted)")
        assert SYSTEM_FILES.is_named(descriptor)
        renamed.unlink()
        assert not SYSTEM_FILES.is_named(descriptor)
    finally:
        SYSTEM_FILES.close(descriptor)
