"""The reference is what the code says, and says something of everything."""

import inspect
from typing import Any

import pytest
from msgspec import Struct

from imagestore.http.openrpc import document
from imagestore.methods import Methods
from imagestore.service import METHODS, Method
from tools.reference import PLACE, reference


def test_the_committed_reference_is_up_to_date() -> None:
    assert PLACE.read_text() == reference(), "run make docs"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_says_what_it_does(method: Method) -> None:
    words = inspect.getdoc(getattr(Methods, method.attribute)) or ""
    assert words.partition("\n")[0].endswith("."), f"give Methods.{method.attribute} a docstring"


def test_it_has_every_method_error_and_setting_once() -> None:
    lines = reference().splitlines()
    for heading in (f"### {method.name}" for method in METHODS):
        assert lines.count(heading) == 1
    for row in (
        "| `NotFound` | `not found` | -32001 | 404 | 3 |",
        "| `port` | TCP port; 0 takes a free one.",
    ):
        assert sum(line.startswith(row) for line in lines) == 1


def test_a_request_without_words_does_not_borrow_those_of_its_base_class() -> None:
    assert Struct.__doc__ is not None
    assert Struct.__doc__.split(".")[0].strip() not in reference()


def test_every_link_within_it_leads_somewhere() -> None:
    text = reference()
    headings = {line.removeprefix("### ").lower() for line in text.splitlines() if line.startswith("### ")}
    linked = {part.partition(")")[0] for part in text.split("](#")[1:]}
    assert linked
    assert linked - headings == set()


def test_the_document_for_programs_says_of_every_method_what_it_does() -> None:
    methods: Any = document(Methods)["methods"]
    assert [method["name"] for method in methods if not method.get("summary")] == []
    (created,) = [method for method in methods if method["name"] == "ImageStore.CreateToken"]
    assert created["summary"] == "Make a token; ``secret`` in the answer is told this once."
    assert "Raises InvalidArgument" in created["description"]
