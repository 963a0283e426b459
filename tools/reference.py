"""The reference, ``docs/reference.md``, made of the code: ``python -m tools.reference`` writes it.

Owns how it looks; every word of it comes from the method table, the OpenRPC
document, the hierarchy of errors, the settings and the docstrings.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from imagestore import config, errors, wiretexts
from imagestore.config import Config
from imagestore.errors import ImageStoreError
from imagestore.http.openrpc import document
from imagestore.methods import Methods
from imagestore.service import METHODS, SERVICE_NAME, Method

PLACE = Path(__file__).parent.parent / "docs" / "reference.md"

HEAD = """\
# Reference

Made by `make docs` from the method table, the types, the errors and the settings; a test fails when it
is old. The same for programs: `rpc.discover`, a method of the store, returns the OpenRPC document.
How methods are called: [contract.md](contract.md).
"""

U64 = 2**64 - 1


def reference() -> str:
    """The whole document."""
    described: Any = document()
    parts = [
        HEAD,
        "## Methods\n",
        *(_method(method, described) for method in METHODS),
        "## Requests\n\nEvery field may be left out; a method reads those that it needs.\n",
        *_requests(described),
        "## Answers\n\nA field that may be left out is in *italics*.\n",
        *(_type(name, schema) for name, schema in sorted(described["components"]["schemas"].items())),
        "## Errors\n",
        _errors(),
        "## Settings\n",
        _settings(),
    ]
    return "\n".join(parts)


# --- methods and types ----------------------------------------------------------------


def _method(method: Method, described: Any) -> str:
    entry = next(each for each in described["methods"] if each["name"] == f"{SERVICE_NAME}.{method.name}")
    words = inspect.getdoc(getattr(Methods, method.attribute)) or ""
    request, answer = method.request.__name__, entry["result"]["name"]
    about = [f"role {method.needs}", "changes the store" if method.mutates else "changes nothing"]
    if method.also:
        about.append(f"also called {', '.join(_code(name) for name in method.also)}")
    return (
        f"### {method.name}\n\n{_prose(words)}\n\n{_link(request)} → {_link(answer)}; {'; '.join(about)}.\n"
    )


def _requests(described: Any) -> Iterator[str]:
    """What methods are asked with, each type once."""
    seen: dict[str, list[str]] = {}
    for method, entry in zip(METHODS, described["methods"], strict=True):
        fields = [f"- {_code(each['name'])}: {_kind(each['schema'])}" for each in entry["params"]]
        words = inspect.cleandoc(method.request.__doc__ or "")
        said = [f"{_prose(words)}\n"] if _says_something(words) else []
        seen[method.request.__name__] = [f"### {method.request.__name__}\n", *said, *fields, ""]
    yield from ("\n".join(lines) for _, lines in sorted(seen.items()))


def _type(name: str, schema: Any) -> str:
    words = schema.get("description", "")
    required = set(schema.get("required", ()))
    lines = [f"### {name}\n"]
    if _says_something(words):
        lines.append(f"{_prose(words)}\n")
    for field, kind in schema.get("properties", {}).items():
        shown = _code(field) if field in required else f"*{_code(field)}*"
        lines.append(f"- {shown}: {_kind(kind)}")
    return "\n".join([*lines, ""])


def _kind(schema: Any) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _link(name)
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(_code(str(value)) for value in schema['enum'])}"
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema.get('items', {}))}"
        case "object" if schema.get("properties"):
            inner = ", ".join(f"{name}: {_kind(each)}" for name, each in schema["properties"].items())
            return (
                f"object {{{inner}}}{', and whatever else it has' if schema['additionalProperties'] else ''}"
            )
        case "object":
            of = schema.get("additionalProperties")
            return f"object of {_kind(of)}" if isinstance(of, dict) and of else "object"
        case "integer" if schema.get("minimum") == 0:
            return "whole number from 0"
        case "integer":
            return "whole number"
        case str() as kind:
            return kind
        case _:
            return "anything"


# --- errors ----------------------------------------------------------------------------


def _errors() -> str:
    rows = [
        (
            _code(error.__name__),
            "<br>".join(_code(text) for text in _texts(error)) or "says what it is",
            str(error.code),
            str(error.http_status),
            str(error.exit_code),
            "yes" if error.retryable else "",
            _prose((error.__doc__ or "").strip()),
        )
        for error in _subclasses(ImageStoreError)
    ]
    heads = ("error", "text on the old wire", "code", "HTTP", "exit", "again?", "meaning")
    return (
        "*code* is that of JSON-RPC 2.0, *HTTP* the status of the endpoints that are no RPC, *exit* the"
        " status of the command line;\n*again?* says whether the same request may succeed later. `…` stands"
        " for names.\n\n" + _table(heads, rows)
    )


def _texts(error: type[ImageStoreError]) -> Iterator[str]:
    """What the error says on the old wire, as far as it is fixed."""
    texts = [text for text, kind in wiretexts.EXACT.items() if kind is error]
    if "text" in vars(error) and error.text not in texts:
        texts.append(error.text)
    yield from sorted(texts)
    yield from (f"{text.rstrip()} …" for text, kind in wiretexts.BEGINNINGS if kind is error)


def _subclasses(error: type[ImageStoreError]) -> Iterator[type[ImageStoreError]]:
    """In the order in which they stand in ``errors.py``."""
    every = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, error)}
    yield from sorted(every, key=lambda each: inspect.findsource(each)[1])


# --- settings ---------------------------------------------------------------------------


def _settings() -> str:
    """Every setting with its sentence, as ``config.py`` has it."""
    tree = ast.parse(inspect.getsource(config))
    (body,) = (
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == Config.__name__
    )
    rows = []
    for field, words in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(words, ast.Expr):
            assert isinstance(field.target, ast.Name)
            rows.append((_code(field.target.id), _prose(str(ast.literal_eval(words.value)))))
    return (
        "In a TOML file as `key = value`, as `--set KEY=VALUE` on the command line, as `IMAGESTORE_KEY` in"
        " the environment.\n\n" + _table(("setting", "meaning"), rows)
    )


# --- words --------------------------------------------------------------------------------


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _prose(words: str) -> str:
    """A docstring as one paragraph of Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(words.split())).replace("*", r"\*")


def _says_something(words: str) -> bool:
    """msgspec writes a signature where a type has no docstring of its own."""
    return bool(words) and not re.match(r"\w+\(", words)


def _link(type_name: str) -> str:
    return f"[{_code(type_name)}](#{type_name.lower()})"


def _code(text: str) -> str:
    return f"`{text}`"


def main() -> None:
    """Write the file."""
    PLACE.write_text(reference())


if __name__ == "__main__":
    main()
