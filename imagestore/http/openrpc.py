"""The OpenRPC document: every method with its parameters, results and errors, for programs to read.

Made from the method table, the shapes of requests, the types of answers and
the hierarchy of errors; nothing in it is written by hand.
Specification: https://spec.open-rpc.org, version 1.3.2.
"""

import inspect
import typing
from collections.abc import Iterator
from functools import cache

import msgspec
from msgspec import Struct

from imagestore import __version__
from imagestore.errors import ImageStoreError
from imagestore.http.shapes import REQUESTS, Flag, Kind, ListOf, MapOf, Object, Text, Whole
from imagestore.service import METHODS, SERVICE_NAME, Method, Service

DISCOVER = "rpc.discover"
"""The method that returns the document."""

Schema = dict[str, object]


@cache
def document(serving: type = Service) -> Schema:
    """The document, as JSON values; ``serving`` is the class whose docstrings tell what the methods do."""
    answers = {method.name: _answer_of(method) for method in METHODS}
    _, components = msgspec.json.schema_components(
        list(dict.fromkeys(answers.values())), ref_template="#/components/schemas/{name}"
    )
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "imagestore",
            "version": __version__,
            "description": "Sizes are in MiB. Methods are also callable by their bare name.",
        },
        "methods": [_method(method, answers[method.name], serving) for method in METHODS],
        "components": {"schemas": components, "errors": {error["message"]: error for error in _errors()}},
    }


def _answer_of(method: Method) -> type[Struct]:
    hints = typing.get_type_hints(getattr(Service, method.attribute))
    answer: type[Struct] = hints["return"]
    return answer


def _method(method: Method, answer: type[Struct], serving: type) -> Schema:
    shape = REQUESTS[method.request]
    return {
        "name": f"{SERVICE_NAME}.{method.name}",
        **_words(inspect.getdoc(getattr(serving, method.attribute)) or ""),
        "paramStructure": "by-name",
        "params": [
            {"name": name, "required": False, "schema": _schema(kind)} for name, kind in shape.fields.items()
        ],
        "result": {"name": answer.__name__, "schema": {"$ref": f"#/components/schemas/{answer.__name__}"}},
        "x-mutates": method.mutates,
        "x-role": method.needs,
        "x-also": list(method.also),
    }


def _words(text: str) -> Schema:
    """A docstring as summary, and description if it says more than that."""
    summary, _, more = text.partition("\n\n")
    told = {"summary": " ".join(summary.split())} if summary else {}
    return {**told, "description": text} if more else {**told}


def _schema(kind: Kind) -> Schema:
    match kind:
        case Text():
            return {"type": "string"}
        case Flag():
            return {"type": "boolean"}
        case Whole():
            return {"type": "integer", "minimum": kind.lowest, "maximum": kind.highest}
        case ListOf():
            return {"type": "array", "items": _schema(kind.element)}
        case MapOf():
            return {"type": "object", "additionalProperties": _schema(kind.element)}
        case Object():
            properties = {name: _schema(member) for name, member in kind.fields.items()}
            return {"type": "object", "properties": properties, "additionalProperties": kind.open}


def _errors() -> Iterator[dict[str, object]]:
    """One entry for each type of error: its code, and its name as the message."""
    for error in _subclasses(ImageStoreError):
        text = (error.__doc__ or "").partition("\n")[0]
        data = {"status": error.http_status, "retryable": error.retryable, "meaning": text}
        yield {"code": error.code, "message": error.__name__, "data": data}


def _subclasses(error: type[ImageStoreError]) -> Iterator[type[ImageStoreError]]:
    yield error
    for derived in error.__subclasses__():
        yield from _subclasses(derived)
