"""The metrics of a store: what was done is counted, in units and names that a monitoring system takes."""

from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from imagestore.model import GuestRequest, SnapshotRequest, VolumeRequest
from imagestore.service import METHODS_BY_NAME, Caller
from imagestore.store import Store
from tests.store.conftest import Run


def read(text: bytes) -> Callable[..., float]:
    """A sample's value, by its name and labels."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    return lambda name, **labels: samples[f"imagestore_{name}", frozenset(labels.items())]


async def test_what_was_done_is_counted(run: Run) -> None:
    async with run() as store:
        before = read(await store.metrics())
        create = METHODS_BY_NAME["CreateVolume"]
        await store.call(create, VolumeRequest(id="v", size=8), Caller())
        guest = GuestRequest(guest={"id": "g", "disks": [{"size": 4}]})
        await store.call(METHODS_BY_NAME["CreateGuestDisks"], guest, Caller())
        snapshot = SnapshotRequest(id="guests/g/disk-0", dest="s")
        await store.call(METHODS_BY_NAME["CreateSnapshot"], snapshot, Caller())
        value = read(await store.metrics())
        assert value("ready") == 1
        assert value("read_only") == 0
        assert value("rpc_seconds_count", method="CreateVolume", outcome="succeeded") == 1
        assert value("pool_command_seconds_count", command="TakeSnapshot") == 1
        for name, labels, more in (
            ("operations_total", {"outcome": "succeeded"}, 3),
            ("journal_append_seconds_count", {}, 6),
        ):
            assert value(name, **labels) - before(name, **labels) == more
        assert value("journal_flush_seconds_count") >= 6
        assert value("journal_flush_seconds_bucket", le="+Inf") == value("journal_flush_seconds_count")
        assert value("datasets", role="disk") == 1
        assert value("pool_promised_bytes") == 12 << 20
        assert value("guest_last_snapshot_timestamp_seconds", guest="g") > 1_700_000_000


async def test_a_store_that_does_not_run_still_tells(run: Run) -> None:
    async with run() as running:
        config = running.config
    value = read(await Store(config).metrics())
    assert value("ready") == 0
