"""What a cache holds of one identifier, and its one encoding for every cache and door."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from resolver.errors import InvalidValueError
from resolver.record import Record, values_from_wire, values_to_wire

Announcements: TypeAlias = Sequence[tuple[str, str, int]]
"""Topic, key, version: `record` (identifier key, its new version), `registered` (prefix key, 0);
other topics only travel."""

_HEAD = struct.Struct(">16scQHHI")
_LIVE, _DELETED, _NEVER = b"R", b"D", b"N"


@dataclass(slots=True)
class Entry:
    """A record as it was at `fetched_at_s`, or the knowledge that there never was one (None).

    `epoch` is the registration epoch of the prefix when the absence was learnt: a registration
    below the prefix begins a new epoch, and ends every "not found" of the old one. `body` is the
    prepared answer to the plain question, made on first use.
    """

    record: Record | None
    fetched_at_s: float
    epoch: str = ""
    body: bytes | None = None

    @property
    def version(self) -> int:
        return 0 if self.record is None else self.record.version

    @property
    def is_present(self) -> bool:
        return self.record is not None and not self.record.deleted


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the shared cache has where an entry was looked for.

    `epoch` is the present registration epoch of the prefix. `ticket` is given where no entry is,
    and must be shown to put one there: it is void as soon as a change was announced or the place
    was emptied, so that whoever read the registry before cannot bring an old value back.
    """

    entry: Entry | None
    epoch: str
    ticket: str = ""


def entry_to_bytes(entry: Entry) -> bytes:
    """The encoding for the shared cache: version first, as 16 hexadecimal digits.

    The digits compare as text like the numbers they are, also inside the cache server's script.
    """
    record = entry.record
    kind = _NEVER if record is None else _DELETED if record.deleted else _LIVE
    epoch = entry.epoch.encode()
    handle = b"" if record is None else record.handle.encode()
    values = b"" if record is None else values_to_wire(record.values)
    head = _HEAD.pack(
        b"%016x" % entry.version,
        kind,
        max(0, int(entry.fetched_at_s * 1000)),
        len(epoch),
        len(handle),
        len(values),
    )
    return b"".join((head, epoch, handle, values))


def entry_from_bytes(data: bytes) -> Entry:
    """Inverse of `entry_to_bytes`.

    Raises:
        InvalidValueError: if `data` is not such an encoding.
    """
    try:
        version, kind, fetched_at_ms, epoch_size, handle_size, values_size = _HEAD.unpack_from(data)
        handle_start = _HEAD.size + epoch_size
        values_start = handle_start + handle_size
        if len(data) != values_start + values_size or kind not in (_LIVE, _DELETED, _NEVER):
            raise ValueError(f"{len(data)} bytes of kind {kind!r}")
        epoch = data[_HEAD.size : handle_start].decode()
        if kind == _NEVER:
            return Entry(None, fetched_at_ms / 1000, epoch)
        handle = data[handle_start:values_start].decode()
        values = values_from_wire(data[values_start:])
        record = Record(handle, int(version, 16), values, deleted=kind == _DELETED)
    except (struct.error, ValueError) as error:
        raise InvalidValueError(f"cached entry is damaged: {error}") from None
    return Entry(record, fetched_at_ms / 1000, epoch)
