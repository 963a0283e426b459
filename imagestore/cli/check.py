"""``imagestore check``: one line and an exit status for Nagios, Icinga and their like.

Owns the thresholds' judgement; what is measured is the store's ``/metrics``.
"""

import re
import time
from collections.abc import Iterable, Mapping

import click
from msgspec import Struct

from imagestore.cli.connection import connected, examples
from imagestore.client import Client
from imagestore.errors import ImageStoreError

OK, WARNING, CRITICAL = 0, 1, 2
WORDS = ("OK", "WARNING", "CRITICAL")

MOST_NAMED = 5
"""So many guests are named in the line; of more the number is told."""

_AGE = re.compile(r"([0-9]{1,6})([mhd])\Z")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


class Limits(Struct, frozen=True, kw_only=True):
    """None is not looked at.  Shares of the pool's size from 0 to 1, ages in seconds."""

    pool_warning: float | None = None
    pool_critical: float | None = None
    snapshot_age: int | None = None
    failed_operations: int | None = None


class Measured(Struct, frozen=True, kw_only=True):
    """What the metrics say.  Bytes; times in seconds since 1970, by guest."""

    ready: bool
    read_only: bool
    pool_size: float = 0
    pool_available: float = 0
    pool_free: float = 0
    broken_images: int = 0
    failed_operations: int = 0
    last_snapshots: Mapping[str, float] = {}


def judge(measured: Measured, limits: Limits, now: float) -> list[tuple[int, str]]:
    """What is wrong, with how much; nothing if all is well."""
    found: list[tuple[int, str]] = []
    if measured.read_only:
        found.append((CRITICAL, "read-only: the journal failed; mend its disk and restart the store"))
    elif not measured.ready:
        found.append((CRITICAL, "not ready; /readyz says why"))
    found += _pool(measured, limits)
    if limits.snapshot_age is not None:
        old = sorted(guest for guest, at in measured.last_snapshots.items() if now - at > limits.snapshot_age)
        if old:
            found.append((WARNING, f"last snapshot too old: {_names(old)}"))
    if limits.failed_operations is not None and measured.failed_operations > limits.failed_operations:
        found.append((WARNING, f"{measured.failed_operations} operations failed since the start"))
    count = measured.broken_images
    if count:
        found.append((WARNING, f"{count} image{'s are' if count > 1 else ' is'} broken: imagestore image ls"))
    return found


def _pool(measured: Measured, limits: Limits) -> Iterable[tuple[int, str]]:
    if not measured.pool_size:
        return
    used = 1 - measured.pool_available / measured.pool_size
    for level, limit in ((CRITICAL, limits.pool_critical), (WARNING, limits.pool_warning)):
        if limit is not None and used > limit:
            yield level, f"pool is {used:.0%} full, limit {limit:.0%}"
            return


def _names(guests: list[str]) -> str:
    more = f" and {len(guests) - MOST_NAMED} more" if len(guests) > MOST_NAMED else ""
    return ", ".join(guests[:MOST_NAMED]) + more


def read(text: str) -> Measured:
    """What ``/metrics`` says."""
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, float] = {}
    snapshots: dict[str, float] = {}
    broken = failed = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name, labels = sample.name.removeprefix("imagestore_"), sample.labels
            if name == "guest_last_snapshot_timestamp_seconds":
                snapshots[labels["guest"]] = sample.value
            elif name == "images" and labels["status"] == "error":
                broken = sample.value
            elif name == "operations_total" and labels["outcome"] == "failed":
                failed = sample.value
            elif not labels:
                values[name] = sample.value
    return Measured(
        ready=values.get("ready") == 1,
        read_only=values.get("read_only") == 1,
        pool_size=values.get("pool_size_bytes", 0),
        pool_available=values.get("pool_available_bytes", 0),
        pool_free=values.get("pool_free_bytes", 0),
        broken_images=int(broken),
        failed_operations=int(failed),
        last_snapshots=snapshots,
    )


class ShareType(click.ParamType[float]):
    """``80%`` as 0.8."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).removesuffix("%")
        if not (text.isascii() and text.isdigit() and int(text) <= 100):
            self.fail(f"{value!r} is no share; write 80%", param, ctx)
        return int(text) / 100


class AgeType(click.ParamType[int]):
    """``26h`` as seconds."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _AGE.match(str(value))
        if found is None:
            self.fail(f"{value!r} is no age; write 90m, 26h or 7d", param, ctx)
        return int(found[1]) * _SECONDS[found[2]]


@click.command(
    epilog=examples(
        "imagestore check",
        "imagestore check --pool-max 80% --snapshot-age 26h",
        "imagestore check --pool-warn 70% --pool-max 85% --server http://store1:19999",
    )
)
@click.option("--pool-max", type=ShareType(), metavar="PERCENT", help="CRITICAL when the pool is fuller.")
@click.option("--pool-warn", type=ShareType(), metavar="PERCENT", help="WARNING when the pool is fuller.")
@click.option(
    "--snapshot-age", type=AgeType(), metavar="AGE", help="WARNING when a guest's last snapshot is older."
)
@click.option(
    "--failed-max", type=click.IntRange(min=0), metavar="N", help="WARNING when more operations have failed."
)
@connected
@click.pass_context
def check(
    context: click.Context,
    client: Client,
    pool_max: float | None,
    pool_warn: float | None,
    snapshot_age: int | None,
    failed_max: int | None,
) -> None:
    """One line and an exit status for monitoring: 0 OK, 1 WARNING, 2 CRITICAL.

    A store that is read-only, not ready or not there is CRITICAL, a broken image a WARNING; the
    rest is looked at where a limit is given.
    """
    limits = Limits(
        pool_warning=pool_warn,
        pool_critical=pool_max,
        snapshot_age=snapshot_age,
        failed_operations=failed_max,
    )
    try:
        measured = read(client.metrics())
    except ImageStoreError as error:
        click.echo(f"IMAGESTORE CRITICAL: {error}")
        context.exit(CRITICAL)
    found = sorted(judge(measured, limits, time.time()), key=lambda each: -each[0])
    level = found[0][0] if found else OK
    told = "; ".join(text for _, text in found) or "ready"
    click.echo(f"IMAGESTORE {WORDS[level]}: {told} | {_performance(measured, limits)}")
    context.exit(level)


def _performance(measured: Measured, limits: Limits) -> str:
    """Nagios' performance data: label=value;warning;critical;minimum;maximum."""
    size = int(measured.pool_size)
    levels = (
        "" if limit is None else str(int(limit * size))
        for limit in (limits.pool_warning, limits.pool_critical)
    )
    used = int(measured.pool_size - measured.pool_available)
    return f"pool_used={used}B;{';'.join(levels)};0;{size} failed_operations={measured.failed_operations}c"
