"""Handle values: their one encoding, and the limits of what may be stored."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.errors import InvalidValueError
from resolver.record import (
    INDEX_MAX,
    PERMISSIONS_DEFAULT,
    RECORD_SIZE_BYTES_MAX,
    REFERENCES_MAX,
    TTL_ABSOLUTE,
    TYPE_CHARACTERS_MAX,
    VALUE_DATA_SIZE_BYTES_MAX,
    VALUES_MAX,
    HandleValue,
    Reference,
    check_value,
    check_values,
    merge_values,
    stamped,
    values_from_wire,
    values_to_wire,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_VALUES = st.lists(
    st.builds(
        HandleValue,
        st.integers(1, INDEX_MAX),
        _TEXT,
        st.binary(max_size=60),
        st.integers(-(2**31), 2**31 - 1),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(1, 2**32 - 1),
        st.lists(st.builds(Reference, _TEXT, st.integers(0, INDEX_MAX)), max_size=3).map(tuple),
    ),
    max_size=4,
).map(tuple)
_URL = HandleValue(1, "URL", b"https://example.org", timestamp_s=1_700_000_000)
# Source: RFC 3652 §3.2.1, put together by hand.
_URL_WIRE = (
    b"\x00\x00\x00\x01"  # index
    b"\x65\x53\xf1\x00"  # timestamp
    b"\x00\x00\x01\x51\x80"  # relative, 86,400 s
    b"\x0e"  # permissions
    b"\x00\x00\x00\x03URL"
    b"\x00\x00\x00\x13https://example.org"
    b"\x00\x00\x00\x00"  # no references
)


def test_a_value_is_written_as_the_protocol_says() -> None:
    assert values_to_wire([_URL]) == _URL_WIRE
    assert values_from_wire(_URL_WIRE) == (_URL,)


@given(_VALUES)
def test_what_is_read_is_what_was_written(values: tuple[HandleValue, ...]) -> None:
    assert values_from_wire(values_to_wire(values)) == values


def test_no_values_are_no_bytes() -> None:
    assert values_to_wire([]) == b""
    assert values_from_wire(b"") == ()


@pytest.mark.parametrize("value", [_URL, replace(_URL, references=(Reference("a/b", 7),))])
def test_values_cut_at_any_byte_are_damaged(value: HandleValue) -> None:
    data = values_to_wire([value])
    for size in range(1, len(data)):
        with pytest.raises(InvalidValueError, match="stored values are damaged"):
            values_from_wire(data[:size])


@pytest.mark.parametrize(
    "damage",
    [
        _URL_WIRE + b"\x00",
        _URL_WIRE[:14] + b"\xff\xff\xff\xff" + _URL_WIRE[18:],
        _URL_WIRE[:-4] + b"\x7f\xff\xff\xff",
        _URL_WIRE[:-4] + b"\xff\xff\xff\xff",
        _URL_WIRE.replace(b"URL", b"\xff\xff\xff"),
    ],
)
def test_damaged_values_are_reported_not_guessed(damage: bytes) -> None:
    with pytest.raises(InvalidValueError, match="stored values are damaged"):
        values_from_wire(damage)


def test_a_value_without_a_time_gets_that_of_its_record() -> None:
    data = values_to_wire([replace(_URL, timestamp_s=0), _URL])
    times_s = [value.timestamp_s for value in values_from_wire(data, timestamp_s=5)]
    assert times_s == [5, 1_700_000_000]


def test_values_are_stamped_with_one_time() -> None:
    assert [value.timestamp_s for value in stamped([_URL, _URL], 9)] == [9, 9]


def test_changed_values_take_the_place_of_their_index() -> None:
    one, two, three = (HandleValue(index, "T", b"old") for index in (1, 2, 3))
    new = HandleValue(2, "T", b"new")
    assert merge_values((three, two), (one, new)) == (one, new, three)


def test_a_value_is_public_by_its_bit() -> None:
    assert HandleValue(1, "T", b"").permissions == PERMISSIONS_DEFAULT
    assert HandleValue(1, "T", b"").is_public
    assert not HandleValue(1, "T", b"", permissions=0x0D).is_public


@pytest.mark.parametrize(
    "value",
    [
        HandleValue(INDEX_MAX, "T", b""),
        HandleValue(1, "类" * TYPE_CHARACTERS_MAX, b""),
        HandleValue(1, "T", b"x" * VALUE_DATA_SIZE_BYTES_MAX),
        HandleValue(1, "T", b"", ttl=0, ttl_type=TTL_ABSOLUTE, permissions=0),
        HandleValue(1, "T", b"", references=(Reference("a", 1),) * REFERENCES_MAX),
    ],
)
def test_a_value_at_its_limit_is_accepted(value: HandleValue) -> None:
    check_value(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (HandleValue(0, "T", b""), "Value indexes must be positive"),
        (HandleValue(-1, "T", b""), "Value indexes must be positive"),
        (HandleValue(INDEX_MAX + 1, "T", b""), "Value indexes must be positive"),
        (HandleValue(7, "", b""), "value 7: type"),
        (HandleValue(7, "T" * (TYPE_CHARACTERS_MAX + 1), b""), "value 7: type"),
        (HandleValue(7, "类" * (TYPE_CHARACTERS_MAX + 1), b""), "value 7: type"),
        (HandleValue(7, "a\nb", b""), "value 7: type"),
        (HandleValue(7, "\ud800", b""), "value 7: type"),
        (HandleValue(7, "T", b"x" * (VALUE_DATA_SIZE_BYTES_MAX + 1)), "value 7: data is 65537"),
        (HandleValue(7, "T", b"", ttl=-1), "value 7: ttl"),
        (HandleValue(7, "T", b"", ttl=2**31), "value 7: ttl"),
        (HandleValue(7, "T", b"", ttl_type=2), "value 7: ttl"),
        (HandleValue(7, "T", b"", permissions=16), "value 7: permissions"),
        (
            HandleValue(7, "T", b"", references=(Reference("a", 1),) * (REFERENCES_MAX + 1)),
            "value 7: more than 100 references",
        ),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_its_index(
    value: HandleValue, message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        check_value(value)


def test_a_record_has_limits_of_number_and_size() -> None:
    check_values([HandleValue(n + 1, "T", b"") for n in range(VALUES_MAX)])
    with pytest.raises(InvalidValueError, match="1001 values; at most 1000"):
        check_values([HandleValue(n + 1, "T", b"") for n in range(VALUES_MAX + 1)])
    large = [HandleValue(n + 1, "T", b"x" * 61_000) for n in range(4)]
    check_values(large)
    with pytest.raises(InvalidValueError, match=f"at most {RECORD_SIZE_BYTES_MAX} are allowed"):
        check_values([*large, HandleValue(5, "T", b"x" * 2_000)])


def test_references_count_towards_the_size_of_a_record() -> None:
    references = (Reference("a" * 60_000, 1),) * 5
    with pytest.raises(InvalidValueError, match=f"at most {RECORD_SIZE_BYTES_MAX} are allowed"):
        check_values([HandleValue(1, "T", b"", references=references)])


def test_one_bad_value_refuses_the_record() -> None:
    with pytest.raises(InvalidValueError, match="value 2: ttl"):
        check_values([_URL, HandleValue(2, "T", b"", ttl=-1)])
