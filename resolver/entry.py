"""What a cache holds of one identifier, and its one encoding for every cache and door."""

import struct
from dataclasses import dataclass

from resolver.errors import InvalidValueError
from resolver.record import Record, values_from_wire, values_to_wire

_HEAD = struct.Struct(">16scQHH")
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


def entry_to_bytes(entry: Entry) -> bytes:
    """The encoding for the shared cache: version first, as 16 hexadecimal digits.

    The digits compare as text like the numbers they are, also inside the cache server's script.
    """
    record = entry.record
    kind = _NEVER if record is None else _DELETED if record.deleted else _LIVE
    epoch = entry.epoch.encode()
    handle = b"" if record is None else record.handle.encode()
    head = _HEAD.pack(
        b"%016x" % entry.version, kind, int(entry.fetched_at_s * 1000), len(epoch), len(handle)
    )
    values = values_to_wire(record.values) if record is not None else b""
    return b"".join((head, epoch, handle, values))


def entry_from_bytes(data: bytes) -> Entry:
    """Inverse of `entry_to_bytes`.

    Raises:
        InvalidValueError: if `data` is not such an encoding.
    """
    try:
        version, kind, fetched_at_ms, epoch_size, handle_size = _HEAD.unpack_from(data)
        handle_start = _HEAD.size + epoch_size
        values_start = handle_start + handle_size
        epoch = data[_HEAD.size : handle_start].decode()
        fetched_at_s = fetched_at_ms / 1000
        if kind == _NEVER:
            return Entry(None, fetched_at_s, epoch)
        handle = data[handle_start:values_start].decode()
        values = values_from_wire(data[values_start:])
        record = Record(handle, int(version, 16), values, deleted=kind == _DELETED)
    except (struct.error, ValueError) as error:
        raise InvalidValueError(f"cached entry is damaged: {error}") from None
    return Entry(record, fetched_at_s, epoch)
