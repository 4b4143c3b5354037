"""Canonical JSON: one value has exactly one spelling in bytes, so that a digest of it means it.

Strings, whole numbers, true, false, null, arrays and objects; no fractions. Nothing stands
between the tokens, members are sorted by name, text is UTF-8 as it came (no normalization), and
only what JSON cannot hold otherwise is escaped.

Source: RFC 8785 (JCS) without floating-point numbers; RFC 7493 §2 (I-JSON) for what is refused.
"""

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Value: TypeAlias = "str | int | bool | Sequence[Value] | Mapping[str, Value] | None"
"""A JSON value. Arrays are lists or tuples, objects are dicts; nothing else is taken."""

# Half a million rows of counts of 120 bytes; a busy day of a node has some ten thousand.
DOCUMENT_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
# The deepest of our documents has six; deeper ones only try the stack of the reader.
DEPTH_MAX: Final = 16
# Beyond it programs that read numbers as doubles take two numbers for one. Source: RFC 7493 §2.2.
INTEGER_MAX: Final = 2**53 - 1
_INTEGER_DIGITS_MAX = len(str(-INTEGER_MAX))

_SURROGATE = re.compile("[\ud800-\udfff]")
# RFC 8785 sorts names by UTF-16 code units. Up to here that is the order of the code points,
# which every language has at hand.
_NAME_CHARACTER_MAX = "\uffff"
# How much of the data an error shows.
_SHOWN = 24


class CanonicalError(ValueError):
    """A value that has no canonical form, or data that is not in it; says what and where."""


@dataclass(frozen=True, slots=True)
class _Unfit:
    """What the reader met in the place of a value, and why it cannot stay."""

    reason: str


def to_canonical(value: Value) -> bytes:
    """The one spelling of `value`.

    Raises:
        CanonicalError: for a type, number, name, text or depth that has none, with its place
            (`$.rows[3]`); for more than DOCUMENT_SIZE_BYTES_MAX.
    """
    _require_fit(value)
    data = _spelt(value)
    _require_size(data)
    return data


def from_canonical(data: bytes) -> Value:
    """The value that `data` spells; arrays are lists.

    Raises:
        CanonicalError: for whatever is not the one spelling of a value, with the byte or the
            place (`$.rows[3]`) where it ends to be.
    """
    _require_size(data)
    value = _parsed(data)
    _require_fit(value)
    expected = _spelt(value)
    if data != expected:
        raise CanonicalError(_difference(data, expected))
    return value


def _spelt(value: Value) -> bytes:
    # With these options the standard library writes RFC 8785 for the values that are fit.
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    ).encode()


def _parsed(data: bytes) -> Value:
    try:
        value: Value = _READER.decode(data.decode())
    except UnicodeDecodeError as error:
        raise CanonicalError(f"byte {error.start}: expected UTF-8") from error
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        raise CanonicalError(f"byte {offset}: expected JSON: {error.msg}") from error
    except RecursionError as error:
        raise CanonicalError(f"expected at most {DEPTH_MAX} values within each other") from error
    return value


def _whole(text: str) -> object:
    # Python refuses to read very long numbers, at a limit that can be set from outside.
    if len(text) > _INTEGER_DIGITS_MAX:
        return _Unfit(f"expected a whole number within ±{INTEGER_MAX}, found {text[:_SHOWN]}…")
    return int(text)


def _fraction(text: str) -> object:
    return _Unfit(f"expected a whole number, found {text[:_SHOWN]}")


def _members(pairs: list[tuple[str, object]]) -> object:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
    return _Unfit(f"expected each name once, found {twice!r} again")


_READER = json.JSONDecoder(
    parse_int=_whole, parse_float=_fraction, parse_constant=_fraction, object_pairs_hook=_members
)


def _require_size(data: bytes) -> None:
    if len(data) > DOCUMENT_SIZE_BYTES_MAX:
        raise CanonicalError(
            f"expected at most {DOCUMENT_SIZE_BYTES_MAX} bytes, found {len(data)} bytes"
        )


def _require_fit(value: Value) -> None:
    fault = _fault(value, 0)
    if fault is not None:
        raise CanonicalError(f"${fault}")


def _fault(value: object, depth: int) -> str | None:
    """What is wrong inside `value`, behind its place; None if nothing is."""
    # Exact types: a subclass, as an enumeration, may spell itself by rules of its own.
    kind = type(value)
    if kind is str:
        return _fault_of_text(str(value))
    if kind is int:
        return _fault_of_number(value)
    if value is None or kind is bool:
        return None
    if depth == DEPTH_MAX:
        return f": expected at most {DEPTH_MAX} values within each other"
    if isinstance(value, dict) and kind is dict:
        return _fault_of_members(value, depth + 1)
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return _fault_of_entries(value, depth + 1)
    if isinstance(value, _Unfit):
        return f": {value.reason}"
    return f": expected a JSON value without fractions, found {kind.__name__}"


def _fault_of_text(text: str) -> str | None:
    if text.isascii() or not _SURROGATE.search(text):
        return None
    return f": expected Unicode text, found half a character in {text[:_SHOWN]!a}"


def _fault_of_number(number: object) -> str | None:
    assert isinstance(number, int)
    if -INTEGER_MAX <= number <= INTEGER_MAX:
        return None
    return f": expected a whole number within ±{INTEGER_MAX}, found more"


def _fault_of_members(members: dict[object, object], depth: int) -> str | None:
    for name, value in members.items():
        if type(name) is not str:
            return f": expected names that are text, found {type(name).__name__}"
        if not name.isascii() and (_SURROGATE.search(name) or max(name) > _NAME_CHARACTER_MAX):
            return f": expected names up to U+FFFF, found {name[:_SHOWN]!a}"
        fault = _fault(value, depth)
        if fault is not None:
            return f".{name}{fault}"
    return None


def _fault_of_entries(entries: Sequence[object], depth: int) -> str | None:
    for place, value in enumerate(entries):
        fault = _fault(value, depth)
        if fault is not None:
            return f"[{place}]{fault}"
    return None


def _difference(found: bytes, expected: bytes) -> str:
    length = min(len(found), len(expected))
    offset = bisect_left(
        range(1, length + 1), True, key=lambda size: found[:size] != expected[:size]
    )
    shown = slice(offset, offset + _SHOWN)
    return f"byte {offset}: expected {expected[shown]!r}, found {found[shown]!r}"
