"""Looks at a ZFS pool, with an administrator's commands: module, commands, rights, health."""

import os
import shlex
import subprocess
from collections.abc import Iterator

from imagestore.doctor.finding import Finding, fine, problem
from imagestore.doctor.machine import find_program

DEVICE = "/dev/zfs"
ASK_SECONDS = 20.0
HEALTHY = ("ONLINE", "DEGRADED")


def look_at_zfs_pool(pool: str) -> Iterator[Finding]:
    if os.path.exists(DEVICE):
        yield fine("zfs module", f"loaded: {DEVICE} is there")
    else:
        yield problem(
            "zfs module", f"{DEVICE} is not there", "apt-get install zfs-dkms zfsutils-linux && modprobe zfs"
        )
    zpool = find_program("zpool")
    if zpool is None or find_program("zfs") is None:
        yield problem("zfs commands", "zfs and zpool are not installed", "apt-get install zfsutils-linux")
    else:
        yield fine("zfs commands", zpool)
    if os.geteuid():
        yield problem(
            "rights", "a ZFS pool needs root: channel programs are for root", "sudo imagestore doctor"
        )
    else:
        yield fine("rights", "root")
    if zpool is not None and os.path.exists(DEVICE):
        yield _pool(zpool, pool)


def _pool(zpool: str, pool: str) -> Finding:
    words = [zpool, "get", "-Hp", "-o", "property,value", "health,readonly,free", "--", pool]
    try:
        ended = subprocess.run(  # noqa: S603 (a fixed command, no shell)
            words, capture_output=True, text=True, timeout=ASK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return problem("pool", f"{pool} does not answer within {ASK_SECONDS:.0f} s", "zpool status")
    except OSError as error:
        return problem("pool", f"{zpool}: {error.strerror}", "apt-get install zfsutils-linux")
    if ended.returncode:
        complaint = (ended.stderr.strip().splitlines() or ["zpool says nothing"])[-1]
        quoted = shlex.quote(pool)
        return problem("pool", complaint, f"zpool import {quoted}, or zpool create {quoted} DEVICE")
    return judged(pool, dict(line.split("\t")[:2] for line in ended.stdout.splitlines()))


def judged(pool: str, properties: dict[str, str]) -> Finding:
    """What its properties say of a pool."""
    health = properties.get("health", "in an unknown state")
    if properties.get("readonly") == "on":
        return problem("pool", f"{pool} is imported read-only", f"zpool export {pool} && zpool import {pool}")
    if health not in HEALTHY:
        return problem("pool", f"{pool} is {health}", f"zpool status {pool}")
    return fine("pool", f"{pool} is {health}")
