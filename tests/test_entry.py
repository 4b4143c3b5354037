"""The encoding of cached entries: whole, cut at every byte, and with junk after."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.entry import Entry, entry_from_bytes, entry_to_bytes
from resolver.errors import InvalidValueError
from resolver.record import HandleValue, Record, Reference, values_to_wire

_VALUES = st.builds(
    HandleValue,
    st.integers(1, 2**31 - 1),
    st.text(max_size=20),
    st.binary(max_size=50),
    timestamp_s=st.integers(1, 2**31 - 1),
    references=st.tuples(st.builds(Reference, st.text(max_size=9), st.integers(0, 2**31 - 1))),
)
_RECORDS = st.builds(
    Record,
    st.text(min_size=1, max_size=60),
    st.integers(1, 2**63 - 1),
    st.lists(_VALUES, max_size=2).map(values_to_wire),
    st.integers(0, 2**33),
    st.booleans(),
)
_ENTRIES = st.builds(
    Entry, st.none() | _RECORDS, st.integers(0, 2**40).map(float), st.text(max_size=40)
)
_ENTRY = Entry(Record.of("88.1.2/A", 7, (HandleValue(1, "URL", b"https://x"),)), 1000.0, "e1")


@given(_ENTRIES)
def test_what_is_read_is_what_was_written(entry: Entry) -> None:
    assert entry_from_bytes(entry_to_bytes(entry)) == entry


@pytest.mark.parametrize("entry", [_ENTRY, Entry(None, 1000.0, "e1")])
def test_a_cut_entry_is_damaged_at_every_byte(entry: Entry) -> None:
    data = entry_to_bytes(entry)
    for size in range(len(data)):
        with pytest.raises(InvalidValueError, match="cached entry is damaged"):
            entry_from_bytes(data[:size])


def test_junk_after_an_entry_is_damage() -> None:
    with pytest.raises(InvalidValueError):
        entry_from_bytes(entry_to_bytes(_ENTRY) + b"\x00")


def test_an_entry_of_an_unknown_kind_is_damage() -> None:
    data = bytearray(entry_to_bytes(_ENTRY))
    data[16:17] = b"X"
    with pytest.raises(InvalidValueError, match="kind b'X'"):
        entry_from_bytes(bytes(data))


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_encodings_compare_as_text_like_their_versions(one: int, other: int) -> None:
    first, second = (entry_to_bytes(Entry(Record("a", n), 1.0))[:16] for n in (one, other))
    assert (first < second) == (one < other)


def test_only_a_live_record_is_present() -> None:
    assert _ENTRY.is_present
    assert not Entry(Record("a", 3, deleted=True), 1.0).is_present
    assert not Entry(None, 1.0).is_present


def test_who_was_never_there_has_the_version_before_all_others() -> None:
    assert Entry(None, 1.0).version == 0


def test_a_time_before_1970_is_kept_as_1970() -> None:
    assert entry_from_bytes(entry_to_bytes(Entry(None, -5.0))).fetched_at_s == 0
