"""Handle values inside messages, in the layout in which records are stored."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from resolver.errors import InvalidValueError
from resolver.record import (
    PUBLIC_READ,
    VALUES_MAX,
    HandleValue,
    values_from_wire,
    values_to_wire,
)
from resolver.wire._reader import Reader

_HEAD = struct.Struct(">iIBiB")
_I4 = struct.Struct(">i")
_U4 = struct.Struct(">I")
_TIMESTAMP_OFFSET = 4
# Head, and the sizes of an empty type, no data and no references.
_VALUE_SIZE_BYTES_LEAST = 26


class ValueSpan(NamedTuple):
    """Where one value stands in the bytes of a record, and who may read it."""

    start: int
    end: int
    timestamp_s: int
    permissions: int


def value_spans(data: bytes) -> Iterator[ValueSpan]:
    """The places of the values in `data`, without an object for each field.

    Raises:
        InvalidValueError: at the first value that is not whole.
    """
    offset = 0
    while offset < len(data):
        start = offset
        try:
            _, timestamp_s, _, _, permissions = _HEAD.unpack_from(data, offset)
            offset = _after_counted(data, offset + _HEAD.size)
            offset = _after_counted(data, offset)
            offset = _after_references(data, offset)
        except struct.error:
            raise InvalidValueError(f"value at byte {start} is cut short") from None
        yield ValueSpan(start, offset, timestamp_s, permissions)


def _after_counted(data: bytes, offset: int) -> int:
    (size_bytes,) = _I4.unpack_from(data, offset)
    end: int = offset + 4 + size_bytes
    if size_bytes < 0 or end > len(data):
        raise InvalidValueError(f"length {size_bytes} at byte {offset} does not fit")
    return end


def _after_references(data: bytes, offset: int) -> int:
    (count,) = _I4.unpack_from(data, offset)
    offset += 4
    if not 0 <= count <= (len(data) - offset) // 8:
        raise InvalidValueError(f"{count} references at byte {offset - 4} do not fit")
    for _ in range(count):
        offset = _after_counted(data, offset) + 4
    if offset > len(data):
        raise InvalidValueError(f"references at byte {offset} are cut short")
    return offset


def read_values(reader: Reader) -> tuple[HandleValue, ...]:
    """`i4 n ‖ n×value`, timestamps as they are.

    Raises:
        InvalidValueError: names the byte at which the values are damaged.
    """
    count = reader.count(VALUES_MAX, _VALUE_SIZE_BYTES_LEAST)
    start, data = reader.offset, reader.rest
    try:
        spans = list(islice(value_spans(data), count))
        values = values_from_wire(reader.take(spans[-1].end if spans else 0))
    except InvalidValueError as error:
        raise reader.damaged(f"{count} values; {error} of these", start) from None
    if len(values) != count:
        raise reader.damaged(f"{count} values, found {len(values)}", start)
    return values


def counted_values(values: Sequence[HandleValue]) -> bytes:
    """Inverse of `read_values`."""
    return _I4.pack(len(values)) + values_to_wire(values)


def public_values(wire: bytes, stamp_s: int) -> bytes:
    """`i4 n ‖ n×value`: the values of a record that anybody may read, each with its time.

    `wire` and `stamp_s` are those of Record: a stored timestamp of zero means `stamp_s`.

    Raises:
        InvalidValueError: if what is stored is damaged.
    """
    spans = [span for span in value_spans(wire) if span.permissions & PUBLIC_READ]
    parts = [_I4.pack(len(spans))]
    parts += _stamped(wire, spans, _U4.pack(stamp_s))
    return b"".join(parts)


def _stamped(wire: bytes, spans: Iterable[ValueSpan], stamp: bytes) -> Iterator[bytes]:
    for start, end, timestamp_s, _ in spans:
        if timestamp_s:
            yield wire[start:end]
        else:
            place = start + _TIMESTAMP_OFFSET
            yield wire[start:place] + stamp + wire[place + 4 : end]
