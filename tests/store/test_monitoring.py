"""The alert rules and the dashboard speak of metrics that the store has; promtool takes the rules."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from imagestore.model import GuestRequest, SnapshotRequest
from imagestore.service import METHODS_BY_NAME, Caller
from tests.store.conftest import Run

MONITORING = Path(__file__).parent.parent.parent / "monitoring"
FILES = ("alerts.yml", "dashboard.json")
_METRIC = re.compile(r"\bimagestore_[a-z_]+")


@pytest.mark.parametrize("file", FILES)
async def test_every_metric_that_is_spoken_of_is_told(file: str, run: Run) -> None:
    async with run() as store:
        guest = GuestRequest(guest={"id": "g", "disks": [{"size": 4}]})
        await store.call(METHODS_BY_NAME["CreateGuestDisks"], guest, Caller())
        snapshot = SnapshotRequest(id="guests/g/disk-0", dest="s")
        await store.call(METHODS_BY_NAME["CreateSnapshot"], snapshot, Caller())
        text = (await store.metrics()).decode()
    told = {
        name
        for family in text_string_to_metric_families(text)
        for name in (family.name, *(sample.name for sample in family.samples))
    }
    spoken_of = set(_METRIC.findall((MONITORING / file).read_text()))
    assert spoken_of
    assert spoken_of - told == set()


def test_the_dashboard_is_json_with_a_query_in_each_panel() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    assert all(panel["targets"] for panel in dashboard["panels"])


@pytest.mark.system
def test_promtool_takes_the_rules() -> None:
    command = ["promtool", "check", "rules", str(MONITORING / "alerts.yml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "rules found" in ended.stdout
