"""The text of a request: JSON in, typed Python or one line that says what is wrong.

Owns the reading of bytes that a stranger sent.  The first JSON document of a
body counts, what follows it is ignored; nesting is bounded by
:data:`MAX_NESTING`; numbers that Python would change (1.50, 1e400) are kept as
they were sent, as ``msgspec.Raw``, so that they leave as they came.

msgspec reads what is well formed.  What it refuses is walked a second time by
:func:`first_document`, slowly, to find either the end of the first document or
the words in which Go's ``encoding/json`` would have refused it: old clients
know those.  A body too long for that is walked by Python's own decoder, in
its words.  This module knows nothing of methods, shapes or HTTP.
"""

import json
import re

import msgspec
from msgspec import Raw

MAX_NESTING = 100
"""Most arrays and objects within one another; real requests need five."""

WALK_BYTES = 16 << 10
"""Longest body that is walked slowly: some 20 ms in which nobody else is served."""


class MalformedJson(Exception):
    """The body is not JSON; ``str()`` is one line that says where."""


_SPACE = re.compile(rb"[ \t\r\n]*+")
# A group that repeats is never possessive: CPython 3.11.2 then takes half an escape for a match.
# Each turn begins with a backslash and what lies between holds none, so there is one way to match
# and nothing to go back for; every string matches, ended or not.
_STRING = re.compile(rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*"?|[\[\]{}]', re.DOTALL)
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_KINDS = {
    ord("{"): "object",
    ord("["): "array",
    ord('"'): "string",
    ord("t"): "bool",
    ord("f"): "bool",
    ord("n"): "null",
}

_long_documents = json.JSONDecoder(parse_float=str, parse_int=str)
_members = msgspec.json.Decoder(dict[str, Raw])
_elements = msgspec.json.Decoder(list[Raw])
_value: msgspec.json.Decoder[object] = msgspec.json.Decoder(float_hook=lambda text: Raw(text.encode()))


def kind_of(document: bytes | Raw) -> str:
    """``object``, ``array``, ``string``, ``bool``, ``null`` or ``number``, in Go's words."""
    return _KINDS.get(memoryview(document)[0], "number")


def document_of(body: bytes) -> bytes:
    """The first JSON document of ``body``, without the space around it.

    Raises:
        MalformedJson: there is none, it is nested too deeply, or is not UTF-8.
    """
    if body.count(b"[") + body.count(b"{") > MAX_NESTING:
        _refuse_deep_nesting(body)
    try:
        document = bytes(msgspec.json.decode(body, type=Raw)).strip(b" \t\r\n")
    except (msgspec.DecodeError, RecursionError):
        document = first_document(body) if len(body) <= WALK_BYTES else _first_long_document(body)
    try:
        str(document, "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedJson(f"invalid UTF-8 at byte {error.start} of the body") from None
    return document


def members(document: bytes) -> dict[str, Raw]:
    """The members of an object, each still as it was sent.

    Raises:
        MalformedJson: a key cannot be decoded.
    """
    try:
        return _members.decode(document)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedJson(f"json: {error}") from None


def elements(document: Raw) -> list[Raw]:
    """The elements of an array, each still as it was sent."""
    return _elements.decode(document)


def value(document: bytes | Raw) -> object:
    """The document as Python values; fractions and exponents as ``Raw``.

    Raises:
        MalformedJson: a number has thousands of digits, a string half a surrogate pair.
    """
    try:
        return _value.decode(document)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedJson(f"json: {error}") from None


def _refuse_deep_nesting(body: bytes) -> None:
    depth = 0
    for match in _BRACKETS.finditer(body):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
            if depth > MAX_NESTING:
                raise MalformedJson(f"json: nested deeper than {MAX_NESTING} levels at byte {match.start()}")
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return  # the first document has ended


def _first_long_document(body: bytes) -> bytes:
    text = body.decode("utf-8", "surrogateescape")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        _, end = _long_documents.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise MalformedJson(f"json: {error}") from None
    document = text[start:end].encode("utf-8", "surrogateescape")
    try:
        msgspec.json.decode(document, type=Raw)
    except msgspec.DecodeError as error:  # NaN and Infinity, which Python takes
        raise MalformedJson(f"json: {error}") from None
    return document


# --- the slow walk ---------------------------------------------------------------


def first_document(body: bytes) -> bytes:
    """The first document of ``body``, by the grammar alone.

    Raises:
        MalformedJson: in the words of Go's scanner.
    """
    start = _skip_space(body, 0)
    if start == len(body):
        raise MalformedJson("EOF")
    return body[start : _walk(body, start)]


def _walk(body: bytes, position: int) -> int:
    """Where the value that begins at ``position`` ends."""
    closers: list[int] = []
    while True:
        character = _at(body, position)
        if character == ord("{"):
            closers.append(ord("}"))
            position = _skip_space(body, position + 1)
            if _at(body, position) != ord("}"):
                position = _walk_key(body, position)
                continue
        elif character == ord("["):
            closers.append(ord("]"))
            position = _skip_space(body, position + 1)
            if _at(body, position) != ord("]"):
                continue
        else:
            position = _walk_scalar(body, position)
        # A value has ended, or an empty container is about to be closed.
        while closers:
            position = _skip_space(body, position)
            character = _at(body, position)
            if character == closers[-1]:
                closers.pop()
                position += 1
            elif character == ord(","):
                position = _skip_space(body, position + 1)
                if closers[-1] == ord("}"):
                    position = _walk_key(body, position)
                break
            else:
                where = "object key:value pair" if closers[-1] == ord("}") else "array element"
                raise _invalid(character, f"after {where}")
        else:
            return position


def _walk_key(body: bytes, position: int) -> int:
    """Where the value of the member begins whose key stands at ``position``."""
    if _at(body, position) != ord('"'):
        raise _invalid(body[position], "looking for beginning of object key string")
    position = _skip_space(body, _walk_string(body, position))
    if _at(body, position) != ord(":"):
        raise _invalid(body[position], "after object key")
    return _skip_space(body, position + 1)


def _walk_scalar(body: bytes, position: int) -> int:
    character = body[position]
    if character == ord('"'):
        return _walk_string(body, position)
    literal = _LITERALS.get(character)
    if literal is not None:
        for offset, expected in enumerate(literal):
            if _at(body, position + offset) != expected:
                raise _invalid(
                    body[position + offset],
                    f"in literal {literal.decode()} (expecting {_quoted(expected)})",
                )
        return position + len(literal)
    if character == ord("-") or chr(character).isdigit():
        return _walk_number(body, position)
    raise _invalid(character, "looking for beginning of value")


def _walk_string(body: bytes, position: int) -> int:
    match = _STRING.match(body, position)
    end = match.end() if match else position
    character = _at(body, end)
    if character == ord('"'):
        return end + 1
    if character != ord("\\"):
        raise _invalid(character, "in string literal")
    if _at(body, end + 1) != ord("u"):
        raise _invalid(body[end + 1], "in string escape code")
    digit = end + 2
    while chr(_at(body, digit)) in "0123456789abcdefABCDEF":
        digit += 1
    raise _invalid(body[digit], "in \\u hexadecimal character escape")


def _walk_number(body: bytes, position: int) -> int:
    match = _NUMBER.match(body, position)
    if match is None:
        raise _invalid(_at(body, position + 1), "in numeric literal")
    end = match.end()
    following = body[end : end + 1]
    if following == b"." and b"." not in match[0] and b"e" not in match[0].lower():
        raise _invalid(_at(body, end + 1), "after decimal point in numeric literal")
    if following in (b"e", b"E") and b"e" not in match[0].lower():
        digit = end + 1 + (_at(body, end + 1) in b"+-")
        raise _invalid(_at(body, digit), "in exponent of numeric literal")
    return end


def _skip_space(body: bytes, position: int) -> int:
    match = _SPACE.match(body, position)
    return match.end() if match else position


def _at(body: bytes, position: int) -> int:
    if position >= len(body):
        raise MalformedJson("unexpected EOF")
    return body[position]


def _invalid(character: int, where: str) -> MalformedJson:
    return MalformedJson(f"invalid character {_quoted(character)} {where}")


def _quoted(character: int) -> str:
    """A byte as Go shows it: taken for a code point, quoted."""
    text = chr(character)
    escapes = {"'": "\\'", "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
    if text in escapes:
        return f"'{escapes[text]}'"
    return f"'{text}'" if text.isprintable() else f"'\\x{character:02x}'"
