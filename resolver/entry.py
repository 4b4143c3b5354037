"""What is known of one identifier, and its one encoding for every cache and door."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from resolver.errors import InvalidValueError
from resolver.prefix_directory import PrefixState
from resolver.record import Record

Announcements: TypeAlias = Sequence[tuple[str, str, int]]
"""Topic, key, version: `record` (identifier key, its new version), `registered` (prefix key, 0);
other topics only travel."""

# Version, kind, fetched at (ms), time stamp (s), sizes of epoch, handle and values, CRC-32.
_HEAD = struct.Struct(">16scQQHHII")
_CRC_SIZE_BYTES = 4
_LIVE, _DELETED, _NEVER = b"R", b"D", b"N"


class Prepared:
    """Answers made once for everybody, with what must hold for them to be given.

    `json` is the plain JSON answer as the transport takes it: its length, an empty line, the body.
    `redirect` is the relative ttl of the value that leads on (s), and the redirect after the
    headers that change with time; None where it was not asked for, or depends on who asks.
    `native` are the public values as a message of the Handle protocol has them.
    `prefix` is the state of the prefix when they were made: once superseded, they are void.
    """

    __slots__ = ("json", "native", "prefix", "redirect")

    json: bytes | None
    native: bytes | None
    prefix: PrefixState | None
    redirect: tuple[int, bytes] | None

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, prefix: PrefixState | None) -> None:
        """Void everything: from now on answers are prepared under `prefix`."""
        self.json = None
        self.native = None
        self.prefix = prefix
        self.redirect = None


@dataclass(slots=True)
class Entry:
    """A record as it was at `fetched_at_s`, or the knowledge that there never was one (None).

    `epoch` is the registration epoch of the prefix when the absence was learnt: a registration
    below the prefix begins a new epoch, and ends every "not found" of the old one. `prepared` is
    where the process cache keeps answers; None where it keeps nothing.
    """

    record: Record | None
    fetched_at_s: float
    epoch: str = ""
    prepared: Prepared | None = field(default=None, compare=False)

    @property
    def version(self) -> int:
        return 0 if self.record is None else self.record.version

    @property
    def is_present(self) -> bool:
        return self.record is not None and not self.record.deleted


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the shared cache has where an entry was looked for.

    `epoch` is the present registration epoch of the prefix, "" where a record makes it needless.
    `ticket` is given where no entry is, and must be shown to put one there: it is void as soon as
    a change was announced or the place was emptied, so that whoever read the registry before
    cannot bring an old value back.
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
    values = b"" if record is None else record.wire
    body = b"".join((epoch, handle, values))
    head = (
        b"%016x" % entry.version,
        kind,
        max(0, int(entry.fetched_at_s * 1000)),
        0 if record is None else record.stamp_s,
        len(epoch),
        len(handle),
        len(values),
    )
    crc = zlib.crc32(body, zlib.crc32(_HEAD.pack(*head, 0)))
    return _HEAD.pack(*head, crc) + body


def entry_from_bytes(data: bytes) -> Entry:
    """Inverse of `entry_to_bytes`.

    Raises:
        InvalidValueError: if `data` is not such an encoding.
    """
    try:
        *head, crc = _HEAD.unpack_from(data)
        version, kind, fetched_at_ms, stamp_s, epoch_size, handle_size, _ = head
        body = data[_HEAD.size :]
        if crc != zlib.crc32(body, zlib.crc32(data[: _HEAD.size - _CRC_SIZE_BYTES] + bytes(4))):
            raise ValueError(f"{len(data)} bytes of kind {kind!r}")
        handle_end = epoch_size + handle_size
        epoch = body[:epoch_size].decode()
        if kind == _NEVER:
            return Entry(None, fetched_at_ms / 1000, epoch)
        record = Record(
            body[epoch_size:handle_end].decode(),
            int(version, 16),
            body[handle_end:],
            stamp_s,
            kind == _DELETED,
        )
    except (struct.error, ValueError) as error:
        raise InvalidValueError(f"cached entry is damaged: {error}") from None
    return Entry(record, fetched_at_ms / 1000, epoch)
