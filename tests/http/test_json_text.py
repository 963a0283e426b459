"""JSON that strangers send: where the first document ends, and what is wrong with it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagestore.http.json_text import (
    MAX_NESTING,
    WALK_BYTES,
    MalformedJson,
    document_of,
    first_document,
    value,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "EOF"),
        (b" \r\n", "EOF"),
        (b"{", "unexpected EOF"),
        (b'{"a"', "unexpected EOF"),
        (b'{"a":', "unexpected EOF"),
        (b'{"a":1', "unexpected EOF"),
        (b'"abc', "unexpected EOF"),
        (b'"abc\\', "unexpected EOF"),
        (b'"\\u12', "unexpected EOF"),
        (b"-", "unexpected EOF"),
        (b"tru", "unexpected EOF"),
        (b"{1:2}", "invalid character '1' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b'{"a":01}', "invalid character '1' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b"[1}", "invalid character '}' after array element"),
        (b'["a\nb"]', "invalid character '\\n' in string literal"),
        (b'["a\x00"]', "invalid character '\\x00' in string literal"),
        (b'["\\x41"]', "invalid character 'x' in string escape code"),
        (b'["\\u00g1"]', "invalid character 'g' in \\u hexadecimal character escape"),
        (b"[nulx]", "invalid character 'x' in literal null (expecting 'l')"),
        (b"[falsy]", "invalid character 'y' in literal false (expecting 'e')"),
        (b"[-a]", "invalid character 'a' in numeric literal"),
        (b"[1.a]", "invalid character 'a' after decimal point in numeric literal"),
        (b"[1ea]", "invalid character 'a' in exponent of numeric literal"),
        (b"[1.5e+]", "invalid character ']' in exponent of numeric literal"),
        (b"[NaN]", "invalid character 'N' looking for beginning of value"),
        (b"[Infinity]", "invalid character 'I' looking for beginning of value"),
        (b"'a'", "invalid character '\\'' looking for beginning of value"),
        (b'["\xff"]', "invalid UTF-8 at byte 2 of the body"),
        (b"[" * 101 + b"]" * 101, "json: nested deeper than 100 levels at byte 100"),
        (b'{"a":' * 5000, "json: nested deeper than 100 levels at byte 500"),
    ],
)
def test_what_is_malformed_is_refused_in_words_that_say_where(body: bytes, text: str) -> None:
    with pytest.raises(MalformedJson) as caught:
        document_of(body)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b' {"a": [1, 2]} {"b": 3}', b'{"a": [1, 2]}'),
        (b"[]]", b"[]"),
        (b'"a"b', b'"a"'),
        (b"{}\xff", b"{}"),
        (b"true false", b"true"),
        (b"1.5e3 x", b"1.5e3"),
        (b"[{},[],{}],", b"[{},[],{}]"),
        (b"[" * MAX_NESTING + b"]" * MAX_NESTING, b"[" * MAX_NESTING + b"]" * MAX_NESTING),
        (b"[1]" + b"[" * 200, b"[1]"),
        (b'["' + b"[" * 200 + b'"]', b'["' + b"[" * 200 + b'"]'),
    ],
)
def test_the_first_document_counts_and_what_follows_is_ignored(body: bytes, document: bytes) -> None:
    assert document_of(body) == document


@given(JSON, st.sampled_from([None, 1]), st.binary(max_size=8))
def test_the_slow_walk_ends_where_a_document_does(sent: object, indent: int | None, rest: bytes) -> None:
    document = json.dumps(sent, indent=indent).encode()
    separator = b" " if document[-1:].isdigit() else b""
    assert first_document(document + separator + rest) == document


@given(JSON, st.data())
def test_the_slow_walk_and_pythons_own_decoder_agree_on_damage(sent: object, data: st.DataObject) -> None:
    document = bytearray(json.dumps([sent]).encode())
    position = data.draw(st.integers(1, len(document) - 1))
    document[position] = data.draw(st.sampled_from(b'"\\{}[]:,0x \x01'))
    try:
        _, end = json.JSONDecoder().raw_decode(document.decode())
    except json.JSONDecodeError:
        with pytest.raises(MalformedJson):
            first_document(bytes(document))
    else:
        assert first_document(bytes(document)) == document[:end]


LONG = b'"' + b"\xc3\xa9" * WALK_BYTES + b'"'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b"[%b" % LONG,
            f"json: Expecting ',' delimiter: line 1 column {WALK_BYTES + 4} (char {WALK_BYTES + 3})",
        ),
        (b"[NaN,%b]" % LONG, "json: JSON is malformed: invalid character (byte 1)"),
        (b'["\xff",%b] x' % LONG, "invalid UTF-8 at byte 2 of the body"),
        (
            b'["%b%b' % (b"[" * 101, b'\\"' * (1 << 19)),
            "json: Unterminated string starting at: line 1 column 2 (char 1)",
        ),
        (
            b" " * 2 * WALK_BYTES,
            f"json: Expecting value: line 1 column {2 * WALK_BYTES + 1} (char {2 * WALK_BYTES})",
        ),
    ],
)
def test_what_is_malformed_and_long_is_refused_in_words_that_say_where(body: bytes, text: str) -> None:
    with pytest.raises(MalformedJson) as caught:
        document_of(body)
    assert str(caught.value) == text


def test_the_first_document_counts_when_it_is_long_too() -> None:
    assert document_of(b"\n[%b, 1e999] rest" % LONG) == b"[%b, 1e999]" % LONG


@pytest.mark.parametrize("body", [b"1" * 5000, b'"\\ud800"'])
def test_what_python_cannot_hold_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedJson, match=r"^json: "):
        value(body)
