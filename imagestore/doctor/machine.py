"""Looks at the machine: Python, the clock, the programs that some images need."""

import os
import shutil
import sys
import time
from collections.abc import Iterator

from imagestore.doctor.finding import Finding, fine, note, problem

OLDEST_PYTHON = (3, 11)

EARLIEST_SECONDS = 1_735_689_600
"""The start of 2025: a clock before it was never set."""

PROGRAMS = (
    ("qemu-img", "qemu-utils", "no qcow2, vmdk, vdi, vhd or vhdx images"),
    ("gpgv", "gpgv", "no signed lists of sums (--keyring, sums_keyring)"),
)
"""Programs, their Debian packages, and what there is not without them."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def look_at_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return problem("python", f"{version} is older than 3.11", "apt-get install python3")
    return fine("python", version)


def look_at_clock(now_seconds: float | None = None) -> Finding:
    """A clock that was never set dates every event wrongly; order does not depend on it."""
    now = time.time() if now_seconds is None else now_seconds
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < EARLIEST_SECONDS:
        return problem("clock", f"{shown} cannot be", "timedatectl set-ntp true")
    return fine("clock", shown)


def find_program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SEARCH_PATH}")


def look_at_programs() -> Iterator[Finding]:
    for name, package, lacking in PROGRAMS:
        path = find_program(name)
        if path is None:
            yield note(name, f"not installed: {lacking}", f"apt-get install {package}")
        else:
            yield fine(name, path)
