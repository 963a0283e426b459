"""How a store is, in one word, with the reason and the command that is next. Pure.

The page and ``imagestore status`` show what is judged here, and nothing else:
so they can never differ.
"""

from typing import Literal

from msgspec import Struct

from imagestore.sizes import show_bytes

Level = Literal["ok", "attention", "read-only"]

FULL_SHARE = 0.8
"""A pool of which more is used wants attention; copy-on-write pools become slow and cannot be emptied."""

SERVICE = "imagestore.service"
"""The systemd unit of the Debian package."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be, in one line, and the command that is next ("" if none is)."""

    level: Level
    reason: str
    next: str = ""


class Condition(Struct, frozen=True, kw_only=True):
    """The worst of what was found, and all of it, the worst first; ``reason`` is "" when all is well."""

    level: Level = "ok"
    reason: str = ""
    next: str = ""
    findings: tuple[Finding, ...] = ()


class Facts(Struct, frozen=True, kw_only=True):
    """What is judged.

    ``trouble`` is why nothing can be changed, in one line, ``pool_trouble`` the
    pool's own word for that.  Bytes; ``size_bytes`` 0: the pool has not said.
    ``failures`` are operations of the last day that failed and were not done
    since, as ``method subject: error``, ``failed_operation`` the last one's
    id; ``broken_images`` are ids.
    """

    trouble: str = ""
    pool_trouble: str = ""
    read_only: bool = False
    stopping: bool = False
    is_zfs: bool = False
    pool: str = ""
    size_bytes: int = 0
    available_bytes: int = 0
    promised_bytes: int = 0
    lost: int = 0
    renamed: int = 0
    broken_images: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    failed_operation: str = ""


def judge(facts: Facts) -> Condition:
    """What is wrong, the worst first."""
    found = [*_writable(facts), *_space(facts), *_datasets(facts), *_failures(facts)]
    if not found:
        return Condition()
    worst = found[0]
    return Condition(level=worst.level, reason=worst.reason, next=worst.next, findings=tuple(found))


def _writable(facts: Facts) -> list[Finding]:
    if facts.read_only:
        return [
            Finding(
                level="read-only",
                reason=f"{facts.trouble}; mend that and start the store again",
                next=f"systemctl restart {SERVICE}",
            )
        ]
    if facts.pool_trouble:
        next_ = f"zpool status -v {facts.pool}" if facts.is_zfs else f"journalctl -u {SERVICE} -e"
        return [Finding(level="attention", reason=facts.pool_trouble, next=next_)]
    if facts.trouble:
        next_ = f"systemctl status {SERVICE}" if facts.stopping else "dmesg --level=err,warn"
        return [Finding(level="attention", reason=facts.trouble, next=next_)]
    return []


def _space(facts: Facts) -> list[Finding]:
    if not facts.size_bytes:
        return []
    found = []
    used = 1 - facts.available_bytes / facts.size_bytes
    if used > FULL_SHARE:
        found.append(
            Finding(
                level="attention",
                reason=f"the pool is {used:.0%} full; {show_bytes(facts.available_bytes)} are left",
                next="imagestore image gc --unused 30d --dry-run",
            )
        )
    if facts.promised_bytes > facts.available_bytes:
        promised, left = show_bytes(facts.promised_bytes), show_bytes(facts.available_bytes)
        found.append(
            Finding(
                level="attention",
                reason=f"guests may still write {promised}, and {left} are left: nothing new can be made",
                next="imagestore guest ls",
            )
        )
    return found


def _datasets(facts: Facts) -> list[Finding]:
    found = []
    if facts.lost or facts.renamed:
        said = [f"{facts.lost} destroyed"] if facts.lost else []
        said += [f"{facts.renamed} renamed"] if facts.renamed else []
        reason = f"datasets of the store were changed by others: {', '.join(said)}"
        found.append(Finding(level="attention", reason=reason, next="imagestore drift"))
    if facts.broken_images:
        first, *others = facts.broken_images
        more = f" and {len(others)} more" if others else ""
        reason = f"images that are asked for and are not there: {first}{more}"
        found.append(Finding(level="attention", reason=reason, next=f"imagestore image pull {first}"))
    return found


def _failures(facts: Facts) -> list[Finding]:
    if not facts.failures:
        return []
    last, *others = facts.failures
    more = f", and {len(others)} more in a day" if others else ""
    show = f"imagestore op show {facts.failed_operation}"
    return [Finding(level="attention", reason=f"failed: {last}{more}", next=show)]
