"""Records: the handle values of one identifier, and the one canonical encoding of them."""

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from resolver.errors import InvalidValueError

# A bound for every size; SNMS allows 255 bytes a value and IDHub 4000 characters, a certificate
# chain or a 10320/loc document needs more.
VALUE_DATA_SIZE_BYTES_MAX = 65_536
# In characters, like the rest of the rule something that a schema or a form can say.
TYPE_CHARACTERS_MAX = 128
VALUES_MAX = 1_000
REFERENCES_MAX = 100
# One native message holds at most 262,144 bytes; a record must fit into one.
RECORD_SIZE_BYTES_MAX = 245_760
INDEX_MAX = 2**31 - 1
TTL_S_DEFAULT = 86_400

ADMIN_READ, ADMIN_WRITE, PUBLIC_READ, PUBLIC_WRITE = 0x08, 0x04, 0x02, 0x01
PERMISSIONS_DEFAULT = ADMIN_READ | ADMIN_WRITE | PUBLIC_READ

TTL_RELATIVE, TTL_ABSOLUTE = 0, 1

# A stored value with this timestamp was written when the record's present version was.
TIMESTAMP_OF_RECORD_S = 0

_HEAD = struct.Struct(">iIBiB")
_I4 = struct.Struct(">i")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reference:
    """A pointer to one value of another identifier."""

    handle: str
    index: int


@dataclass(frozen=True, slots=True)
class HandleValue:
    """One value of a record (RFC 3651 §3.1).

    `data` are the raw bytes; `ttl` is seconds (relative) or seconds since 1970 (absolute), by
    `ttl_type`; `timestamp_s` is seconds since 1970, UTC.
    """

    index: int
    type: str
    data: bytes
    ttl: int = TTL_S_DEFAULT
    ttl_type: int = TTL_RELATIVE
    permissions: int = PERMISSIONS_DEFAULT
    timestamp_s: int = TIMESTAMP_OF_RECORD_S
    references: tuple[Reference, ...] = ()

    @property
    def is_public(self) -> bool:
        return bool(self.permissions & PUBLIC_READ)


@dataclass(frozen=True, slots=True)
class Record:
    """What the registry holds of one identifier at one version.

    `version` only grows, per registry. A deleted identifier keeps a record with
    `deleted=True` and no values, so that its version can never be overtaken by an older one.
    `wire` are the values as `values_to_wire` writes them, read anew by whoever needs them: a
    cache of a hundred thousand records holds no object for each value. `stamp_s` is the time of
    the values that were written with this version.
    """

    handle: str
    version: int
    wire: bytes = b""
    stamp_s: int = TIMESTAMP_OF_RECORD_S
    deleted: bool = False

    @classmethod
    def of(cls, handle: str, version: int, values: "Iterable[HandleValue]" = ()) -> "Record":
        """A record that holds `values`, each with its own timestamp."""
        return cls(handle, version, values_to_wire(values))

    @property
    def values(self) -> tuple[HandleValue, ...]:
        """The values, in the order of the registration.

        Raises:
            InvalidValueError: if what is stored is damaged.
        """
        return values_from_wire(self.wire, timestamp_s=self.stamp_s)


def values_to_wire(values: Iterable[HandleValue]) -> bytes:
    """The values back to back in the layout of RFC 3652 §3.2.1, as stored and as sent.

    Source: specs §3.4 `value`; recorded vectors.
    """
    parts: list[bytes] = []
    for value in values:
        type_bytes = value.type.encode()
        parts += (
            _HEAD.pack(
                value.index, value.timestamp_s, value.ttl_type, value.ttl, value.permissions
            ),
            _I4.pack(len(type_bytes)),
            type_bytes,
            _I4.pack(len(value.data)),
            value.data,
            _I4.pack(len(value.references)),
        )
        for reference in value.references:
            handle_bytes = reference.handle.encode()
            parts += (_I4.pack(len(handle_bytes)), handle_bytes, _I4.pack(reference.index))
    return b"".join(parts)


def values_from_wire(data: bytes, *, timestamp_s: int = 0) -> tuple[HandleValue, ...]:
    """Inverse of `values_to_wire`; a zero timestamp is replaced by `timestamp_s`.

    Raises:
        InvalidValueError: if `data` is not a whole number of well-formed values.
    """
    values: list[HandleValue] = []
    offset, end = 0, len(data)
    try:
        while offset < end:
            index, stamp_s, ttl_type, ttl, permissions = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            type_bytes, offset = _counted(data, offset)
            content, offset = _counted(data, offset)
            (count,) = _I4.unpack_from(data, offset)
            offset += 4
            references: tuple[Reference, ...] = ()
            if count:
                references, offset = _references(data, offset, count)
            values.append(
                HandleValue(
                    index,
                    type_bytes.decode(),
                    content,
                    ttl,
                    ttl_type,
                    permissions,
                    stamp_s or timestamp_s,
                    references,
                )
            )
    except (struct.error, UnicodeDecodeError) as error:
        raise InvalidValueError(f"stored values are damaged at byte {offset}: {error}") from None
    return tuple(values)


def _counted(data: bytes, offset: int) -> tuple[bytes, int]:
    (size,) = _I4.unpack_from(data, offset)
    start = offset + 4
    if size < 0 or start + size > len(data):
        raise InvalidValueError(f"stored values are damaged at byte {offset}: length {size}")
    return data[start : start + size], start + size


def _references(data: bytes, offset: int, count: int) -> tuple[tuple[Reference, ...], int]:
    if not 0 < count <= (len(data) - offset) // 8:
        raise InvalidValueError(f"stored values are damaged at byte {offset}: {count} references")
    references: list[Reference] = []
    for _ in range(count):
        handle_bytes, offset = _counted(data, offset)
        (index,) = _I4.unpack_from(data, offset)
        offset += 4
        references.append(Reference(handle_bytes.decode(), index))
    return tuple(references), offset


def check_values(values: Sequence[HandleValue]) -> None:
    """Accept the values of a record that is to be stored.

    Raises:
        InvalidValueError: names the index, the rule and the limit.
    """
    if len(values) > VALUES_MAX:
        raise InvalidValueError(f"{len(values)} values; at most {VALUES_MAX} are allowed")
    total_bytes = 0
    for value in values:
        check_value(value)
        references_bytes = sum(len(one.handle.encode()) + 8 for one in value.references)
        total_bytes += len(value.data) + len(value.type.encode()) + references_bytes + 32
    if total_bytes > RECORD_SIZE_BYTES_MAX:
        raise InvalidValueError(
            f"record is about {total_bytes} bytes; at most {RECORD_SIZE_BYTES_MAX} are allowed"
        )


def is_type(text: str) -> bool:
    """True for a type that may be stored: short enough and without control characters."""
    return 0 < len(text) <= TYPE_CHARACTERS_MAX and _CONTROL.search(text) is None


def check_value(value: HandleValue) -> None:
    """Accept one value that is to be stored.

    Raises:
        InvalidValueError: names the index, the rule and the limit.
    """
    if not 0 < value.index <= INDEX_MAX:
        raise InvalidValueError("Value indexes must be positive")
    if not is_type(value.type):
        raise InvalidValueError(
            f"value {value.index}: type must be 1 to {TYPE_CHARACTERS_MAX} printable characters"
        )
    if len(value.data) > VALUE_DATA_SIZE_BYTES_MAX:
        raise InvalidValueError(
            f"value {value.index}: data is {len(value.data)} bytes, "
            f"at most {VALUE_DATA_SIZE_BYTES_MAX} are allowed"
        )
    if value.ttl_type not in (TTL_RELATIVE, TTL_ABSOLUTE) or not 0 <= value.ttl < 2**31:
        raise InvalidValueError(f"value {value.index}: ttl must be 0 to 2147483647")
    if not 0 <= value.permissions <= 0x0F:
        raise InvalidValueError(f"value {value.index}: permissions must be four bits")
    if len(value.references) > REFERENCES_MAX:
        raise InvalidValueError(f"value {value.index}: more than {REFERENCES_MAX} references")


def merge_values(
    old: Sequence[HandleValue], changed: Sequence[HandleValue]
) -> tuple[HandleValue, ...]:
    """`old` with the values of `changed` added or put in place of their index, by index."""
    by_index = {value.index: value for value in old}
    by_index.update((value.index, value) for value in changed)
    return tuple(by_index[index] for index in sorted(by_index))


def stamped(values: Iterable[HandleValue], timestamp_s: int) -> tuple[HandleValue, ...]:
    """`values` with `timestamp_s` as the time of every one of them."""
    return tuple(replace(value, timestamp_s=timestamp_s) for value in values)
