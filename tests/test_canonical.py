"""Canonical JSON: one spelling for each value, and no other is read."""

import json
from collections import OrderedDict
from enum import IntEnum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metrics import canonical
from metrics.canonical import (
    DEPTH_MAX,
    INTEGER_MAX,
    CanonicalError,
    Value,
    from_canonical,
    to_canonical,
)

# One list for the writer and the reader.
VECTORS: list[tuple[Value, bytes]] = [
    (None, b"null"),
    (True, b"true"),
    (False, b"false"),
    (0, b"0"),
    (-1, b"-1"),
    (INTEGER_MAX, b"9007199254740991"),
    (-INTEGER_MAX, b"-9007199254740991"),
    ("", b'""'),
    ([], b"[]"),
    ({}, b"{}"),
    ([1, [2, "3"], {"b": 1, "a": None}], b'[1,[2,"3"],{"a":null,"b":1}]'),
    # RFC 8785 §3.2.2.2.
    ('€$\x0f\nA\'B"\\\\"/', '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()),
    ("\b\t\n\f\r\x00\x1f\x7f\u2028", '"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f\u2028"'.encode()),
    # RFC 8785 §3.2.3, as far as names go here.
    (
        {"€": 1, "\r": 2, "\ufb33": 3, "1": 4, "\x80": 5, "ö": 6},
        '{"\\r":2,"1":4,"\x80":5,"ö":6,"€":1,"\ufb33":3}'.encode(),
    ),
    # Not normalized: one letter in two spellings stays two texts.
    (["é", "e\u0301"], '["é","e\u0301"]'.encode()),
    ("𠮷", '"𠮷"'.encode()),
]


@pytest.mark.parametrize(("value", "data"), VECTORS)
def test_each_value_has_one_spelling(value: Value, data: bytes) -> None:
    assert to_canonical(value) == data
    assert from_canonical(data) == value


def test_a_tuple_is_spelt_as_an_array() -> None:
    assert to_canonical((1, (2,))) == b"[1,[2]]"
    assert from_canonical(b"[1,[2]]") == [1, [2]]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"a": 1}', r"""byte 5: expected b'1}', found b' 1}'"""),
        (b"[1]\n", r"byte 3: expected b'', found b'\\n'"),
        (b" 1", r"byte 0: expected b'1', found b' 1'"),
        (b'{"b":1,"a":2}', "byte 2: expected b'a"),
        (b'{"a":[{"n":1,"n":1}]}', r"\$\.a\[0\]: expected each name once, found 'n' again"),
        (b'"\\u0041"', "byte 1: expected b'A"),
        (b'"\\/"', "byte 1: expected b'/"),
        (b'"\\u000F"', "byte 6: expected b'f"),
        (b'"\\u000a"', "byte 2: expected b'n"),
        (b'{"a":[0,1.5]}', r"\$\.a\[1\]: expected a whole number, found 1\.5"),
        (b"1e3", r"\$: expected a whole number, found 1e3"),
        (b"-0", "byte 0: expected b'0', found b'-0'"),
        (b"NaN", r"\$: expected a whole number, found NaN"),
        (b"[-Infinity]", r"\$\[0\]: expected a whole number, found -Infinity"),
        (b"9007199254740992", r"\$: expected a whole number within ±9007199254740991"),
        (b"[" + b"9" * 5_000 + b"]", r"\$\[0\]: expected a whole number within .* found 9{24}…$"),
        (b"01", "byte 1: expected JSON: Extra data"),
        (b"[1,]", "byte 3: expected JSON"),
        ('["é",x]'.encode(), "byte 6: expected JSON"),
        (b'"\n"', "byte 1: expected JSON: Invalid control character"),
        (b"", "byte 0: expected JSON"),
        (b"\xef\xbb\xbf1", "byte 0: expected JSON"),
        (b'"\xff"', "byte 1: expected UTF-8"),
        (b'"\xed\xa0\x80"', "byte 1: expected UTF-8"),
        (b'["\\ud800"]', r"\$\[0\]: expected Unicode text, found half a character in '\\ud800'"),
        ('{"𠮷":1}'.encode(), r"\$: expected names up to U\+FFFF, found '\\U00020bb7'"),
        (b"[" * 100_000, "expected at most 16 values within each other"),
    ],
)
def test_whatever_is_not_canonical_is_refused_with_its_place(data: bytes, error: str) -> None:
    with pytest.raises(CanonicalError, match=error):
        from_canonical(data)


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"a": [1.0]}, r"\$\.a\[0\]: expected a JSON value without fractions, found float"),
        (b"a", r"\$: expected a JSON value without fractions, found bytes"),
        ({1: 2}, r"\$: expected names that are text, found int"),
        (INTEGER_MAX + 1, r"\$: expected a whole number within"),
        (-INTEGER_MAX - 1, r"\$: expected a whole number within"),
        ("\udc00", r"\$: expected Unicode text"),
        ({"\udc00": 1}, r"\$: expected names up to U\+FFFF"),
        ([Number.ONE], r"\$\[0\]: .* found Number"),
        (OrderedDict(a=1), r"\$: .* found OrderedDict"),
    ],
)
def test_what_has_no_canonical_form_is_not_written(value: object, error: str) -> None:
    with pytest.raises(CanonicalError, match=error):
        to_canonical(value)  # type: ignore[arg-type]


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_depth_has_a_limit() -> None:
    assert to_canonical(from_canonical(nested(DEPTH_MAX))) == nested(DEPTH_MAX)
    with pytest.raises(CanonicalError, match=f"expected at most {DEPTH_MAX} values within"):
        from_canonical(nested(DEPTH_MAX + 1))


def test_size_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "DOCUMENT_SIZE_BYTES_MAX", 10)
    assert from_canonical(to_canonical("a" * 8)) == "a" * 8
    with pytest.raises(CanonicalError, match="expected at most 10 bytes, found 11 bytes"):
        to_canonical("a" * 9)
    with pytest.raises(CanonicalError, match="expected at most 10 bytes, found 11 bytes"):
        from_canonical(b"x" * 11)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF))
SCALARS = st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=12
)


@given(VALUES)
def test_what_is_written_is_read_and_is_json(value: Value) -> None:
    data = to_canonical(value)
    assert from_canonical(data) == value == json.loads(data)


@given(VALUES)
def test_names_are_in_the_order_that_the_rfc_means(value: Value) -> None:
    if isinstance(value, dict):
        names = list(json.loads(to_canonical(value)))
        assert names == sorted(names, key=lambda name: name.encode("utf-16-be"))


@given(VALUES, st.data())
def test_a_changed_byte_is_refused_or_another_value(value: Value, data: st.DataObject) -> None:
    changed = bytearray(to_canonical(value))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    assert_refused_or_canonical(bytes(changed))


@given(st.binary() | TEXTS.map(str.encode))
@example(b"[]]")
def test_any_bytes_are_refused_or_canonical(data: bytes) -> None:
    assert_refused_or_canonical(data)


def assert_refused_or_canonical(data: bytes) -> None:
    try:
        value = from_canonical(data)
    except CanonicalError:
        return
    assert to_canonical(value) == data
