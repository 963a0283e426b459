"""Whatever a server does: one line says why, nothing is left, and the next try starts clean."""

import re
from pathlib import Path

import pytest

from tests.imageservice import ImageService
from tests.store.hostile import BEHAVIOURS, Behaviour, meet


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
async def test_a_server_that_means_harm_leaves_a_reason_and_nothing_else(
    behaviour: Behaviour, tmp_path: Path, service: ImageService
) -> None:
    met = await meet(behaviour, tmp_path, service)
    assert re.search(behaviour.reason, met.got)
    assert met.got.startswith("error: ")
    assert "\n" not in met.got
    assert met.left == "nothing"
    assert met.after == "complete"
