"""The journal: counts in a memory-mapped file that survives the death of its process.

File layout, little-endian. The file is allocated in full at its creation, so that counting
never meets a full disk.

    page 0      magic 8 B, layout version u4, identity 16 B, opened at u8 (s), count slots u4,
                source slots u4, size of the directory u4 (bytes), CRC-32 u4
    slots       count slots, then source slots: one u8 each
    directory   what each slot means, in the order of the slots: records
                kind u1 ('C' or 'S'), text length u2, UTF-8 text, CRC-32 u4; zeros end it

A slot's meaning is written before its first increment. An increment is one aligned 8-byte store,
so a kill leaves the old or the new value. The map belongs to the kernel: a killed process loses
nothing; a power cut loses what was counted since the last `sync`, at most about a second.
"""

import fcntl
import mmap
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

_MAGIC = b"IDNJRNL1"
_LAYOUT = 1
_HEADER = struct.Struct("<8sI16sQIIII")
_HEADER_SIZE_BYTES = 4096
_ENTRY = struct.Struct("<BH")
_CRC = struct.Struct("<I")

# A field of a meaning; the longest that exist are prefixes (64 characters) and IPv6 addresses.
_FIELD_LENGTH_MAX = 128
MEANING_SIZE_BYTES_MAX = 4_096
# Twelve million counts a second, all day, in one slot: a greater value is damage.
VALUE_MAX = 1 << 40

KIND_COUNT, KIND_SOURCE = ord("C"), ord("S")
_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class JournalSize:
    """Room for the meanings of one worker until the next rotation: prefixes x callers x channels x
    outcomes of a day, and sources; 1.3 MB of slots and 14 MB of meanings.

    What is reserved is for coarse meanings, at most 288 a day, when no new journal can be made.
    """

    count_slots: int = 32_768
    source_slots: int = 131_072
    directory_bytes: int = 14 * 1024 * 1024
    reserved_count_slots: int = 4_096
    reserved_source_slots: int = 64
    reserved_directory_bytes: int = 1024 * 1024

    @property
    def slots_end(self) -> int:
        return _HEADER_SIZE_BYTES + 8 * (self.count_slots + self.source_slots)

    @property
    def file_bytes(self) -> int:
        return self.slots_end + self.directory_bytes


FULL_SIZE = JournalSize()


class JournalDamagedError(Exception):
    """The file or its meaning cannot be trusted; says where and what was expected."""


class JournalFullError(Exception):
    """No slot is left for a new meaning; the journal must be rotated."""


@dataclass(frozen=True, slots=True)
class CountMeaning:
    """What a count slot counts. `day` is a day number of Asia/Shanghai; `caller` is an
    application's id, or empty where the class says all."""

    day: int
    level: str
    prefix: str
    caller_class: str
    caller: str
    channel: str
    outcome: str


@dataclass(frozen=True, slots=True)
class SourceMeaning:
    """What a source slot counts: resolutions of a prefix on a day from one address."""

    day: int
    prefix: str
    source: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All slots of a journal at one moment: slot number, meaning, absolute value."""

    identity: uuid.UUID
    opened_at_s: int
    counts: tuple[tuple[int, CountMeaning, int], ...]
    sources: tuple[tuple[int, SourceMeaning, int], ...]


class Journal:
    """The journal that this process writes. One increment costs one look-up and one store."""

    def __init__(self, folder: Path, now_s: float, size: JournalSize = FULL_SIZE) -> None:
        """Create the file in `folder` and lock it for the life of this process.

        A crash while it is made leaves a file with the suffix `.new`, which nobody reads.

        Raises:
            OSError: if the disk is full or cannot be written.
        """
        self.identity = uuid.uuid4()
        self.opened_at_s = int(now_s)
        self.path = folder / f"{self.opened_at_s:011d}-{self.identity}.journal"
        self._size = size
        self._file = _allocate(self.path, self.identity, self.opened_at_s, size)
        self._map = mmap.mmap(self._file, 0)
        self._slots = memoryview(self._map)[_HEADER_SIZE_BYTES : size.slots_end].cast("Q")
        self._directory_end = size.slots_end
        self._counts: dict[CountMeaning, int] = {}
        self._sources: dict[SourceMeaning, int] = {}

    @property
    def sources_used(self) -> int:
        """How many sources have a slot."""
        return len(self._sources)

    def count_slot(self, meaning: CountMeaning, *, reserve: bool = False) -> int:
        """The slot that counts `meaning`, opened on first use; `reserve` may use the last ones.

        Raises:
            JournalFullError: if there is none left.
        """
        slot = self._counts.get(meaning)
        if slot is None:
            slot = len(self._counts)
            kept_back = 0 if reserve else self._size.reserved_count_slots
            if slot >= self._size.count_slots - kept_back:
                raise JournalFullError
            self._describe(KIND_COUNT, _count_text(meaning), reserve)
            self._counts[meaning] = slot
        return slot

    def source_slot(self, meaning: SourceMeaning, *, reserve: bool = False) -> int:
        """The slot that counts a source, opened on first use; `reserve` may use the last ones.

        Raises:
            JournalFullError: if there is none left.
        """
        slot = self._sources.get(meaning)
        if slot is None:
            number = len(self._sources)
            kept_back = 0 if reserve else self._size.reserved_source_slots
            if number >= self._size.source_slots - kept_back:
                raise JournalFullError
            self._describe(KIND_SOURCE, _source_text(meaning), reserve)
            slot = self._sources[meaning] = self._size.count_slots + number
        return slot

    @property
    def memory(self) -> memoryview:
        """The slots themselves, 64 bits each; to be let go of before `close`."""
        return self._slots

    def add(self, slot: int, number: int) -> None:
        """Add to a slot: one aligned store."""
        self._slots[slot] += number

    def counts(self) -> tuple[tuple[int, CountMeaning, int], ...]:
        """Slot, meaning and absolute value of every count slot in use, now."""
        return tuple((slot, meaning, self._slots[slot]) for meaning, slot in self._counts.items())

    def snapshot(self) -> Snapshot:
        """The absolute value of every slot in use, now."""
        slots = self._slots
        sources = tuple((slot, meaning, slots[slot]) for meaning, slot in self._sources.items())
        return Snapshot(self.identity, self.opened_at_s, self.counts(), sources)

    def values(self) -> tuple[list[int], list[int]]:
        """The values of all slots in use: counts, sources."""
        first = self._size.count_slots
        counts = self._slots[: len(self._counts)].tolist()
        return counts, self._slots[first : first + len(self._sources)].tolist()

    def grown(
        self, before: tuple[list[int], list[int]], now: tuple[list[int], list[int]]
    ) -> Snapshot:
        """The slots whose value in `now` is not the one in `before` (both from `values`)."""
        return Snapshot(
            self.identity,
            self.opened_at_s,
            tuple(_grown(list(self._counts), before[0], now[0], 0)),
            tuple(_grown(list(self._sources), before[1], now[1], self._size.count_slots)),
        )

    def sync(self) -> None:
        """Bring the map to the disk; blocks, and releases the interpreter while it does."""
        # Not mmap.flush, which keeps the interpreter; on Linux it writes the same pages.
        os.fdatasync(self._file)

    def close(self) -> None:
        """Let go of the file; it stays for adoption until it is flushed and removed."""
        self._slots.release()
        self._map.close()
        os.close(self._file)

    def _describe(self, kind: int, text: str, reserve: bool) -> None:
        record = _directory_record(kind, text)
        end = self._directory_end + len(record)
        kept_back = 0 if reserve else self._size.reserved_directory_bytes
        if end + kept_back > len(self._map):
            raise JournalFullError
        # The tail first, the kind byte last: a kill in between leaves a directory that still ends
        # where it ended.
        self._map[self._directory_end + 1 : end] = record[1:]
        self._map[self._directory_end] = record[0]
        self._directory_end = end


_Meaning = TypeVar("_Meaning", CountMeaning, SourceMeaning)


def _grown(
    meanings: list[_Meaning], before: list[int], now: list[int], first_slot: int
) -> Iterator[tuple[int, _Meaning, int]]:
    if before == now:
        return
    for slot, (old, new) in enumerate(zip_longest(before, now, fillvalue=-1)):
        if old != new:
            yield first_slot + slot, meanings[slot], new


def identity_of(path: Path) -> uuid.UUID:
    """The identity of the journal at `path`, by its name; a strange name gives one of its own."""
    try:
        return uuid.UUID(path.stem.partition("-")[2])
    except ValueError:
        return uuid.uuid5(uuid.NAMESPACE_OID, path.name)


def read_snapshot(path: Path) -> Snapshot:
    """Read the journal of another process, living or dead.

    Raises:
        JournalDamagedError: if the file is not a whole journal; nothing of it is used then.
        FileNotFoundError: if it was adopted and removed meanwhile.
    """
    data = path.read_bytes()
    opened_at_s, size = _header(path, data)
    slots = memoryview(data)[_HEADER_SIZE_BYTES : size.slots_end].cast("Q")
    greatest = max(slots.tolist())
    if greatest > VALUE_MAX:
        raise JournalDamagedError(f"{path}: a slot holds {greatest}, at most {VALUE_MAX} can be")
    counts: list[tuple[int, CountMeaning, int]] = []
    sources: list[tuple[int, SourceMeaning, int]] = []
    for kind, text in _directory(path, data, size.slots_end):
        if kind == KIND_COUNT:
            slot = len(counts)
            counts.append((slot, _count_meaning(path, text), slots[slot]))
        else:
            slot = size.count_slots + len(sources)
            sources.append((slot, _source_meaning(path, text), slots[slot]))
    unused = (slots[len(counts) : size.count_slots], slots[size.count_slots + len(sources) :])
    if any(part.tobytes().strip(b"\x00") for part in unused):
        # A value there is a count whose meaning was lost.
        raise JournalDamagedError(f"{path}: counts without a meaning")
    return Snapshot(identity_of(path), opened_at_s, tuple(counts), tuple(sources))


def _allocate(path: Path, identity: uuid.UUID, opened_at_s: int, size: JournalSize) -> int:
    unfinished = path.with_suffix(".new")
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Real blocks, not a hole: a store into a hole on a full disk would kill the process.
        os.posix_fallocate(descriptor, 0, size.file_bytes)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        sizes = (size.count_slots, size.source_slots, size.directory_bytes)
        fields = (_MAGIC, _LAYOUT, identity.bytes, opened_at_s, *sizes)
        crc = zlib.crc32(_HEADER.pack(*fields, 0))
        os.pwrite(descriptor, _HEADER.pack(*fields, crc), 0)
        os.fsync(descriptor)
        unfinished.rename(path)
        _sync_folder(path.parent)
    except BaseException:
        os.close(descriptor)
        unfinished.unlink(missing_ok=True)
        raise
    return descriptor


def _sync_folder(folder: Path) -> None:
    """Without this a power cut can take the name away, and the counts with it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(path: Path, data: bytes) -> tuple[int, JournalSize]:
    if len(data) < _HEADER_SIZE_BYTES or not data.startswith(_MAGIC):
        raise JournalDamagedError(f"{path}: expected a journal, which begins with {_MAGIC!r}")
    magic, layout, identity, opened_at_s, *sizes, crc = _HEADER.unpack_from(data)
    if layout != _LAYOUT:
        raise JournalDamagedError(f"{path}: layout {layout}, this program reads layout {_LAYOUT}")
    if crc != zlib.crc32(_HEADER.pack(magic, layout, identity, opened_at_s, *sizes, 0)):
        raise JournalDamagedError(f"{path}: the header is damaged")
    size = JournalSize(*sizes)
    if len(data) != size.file_bytes:
        raise JournalDamagedError(f"{path}: {len(data)} bytes, expected {size.file_bytes}")
    if uuid.UUID(bytes=identity) != identity_of(path):
        raise JournalDamagedError(f"{path}: holds the journal {uuid.UUID(bytes=identity)}")
    return opened_at_s, size


def _directory(path: Path, data: bytes, start: int) -> Iterator[tuple[int, str]]:
    offset = start
    while offset + _ENTRY.size <= len(data) and data[offset]:
        kind, size = _ENTRY.unpack_from(data, offset)
        end = offset + _ENTRY.size + size + _CRC.size
        if kind not in (KIND_COUNT, KIND_SOURCE) or size > MEANING_SIZE_BYTES_MAX:
            raise JournalDamagedError(f"{path}: directory damaged at byte {offset}")
        record = data[offset:end]
        if len(record) < end - offset or zlib.crc32(record[:-4]) != _CRC.unpack(record[-4:])[0]:
            raise JournalDamagedError(f"{path}: directory damaged at byte {offset}")
        yield kind, record[_ENTRY.size : -4].decode()
        offset = end


def _directory_record(kind: int, text: str) -> bytes:
    encoded = text.encode()
    record = _ENTRY.pack(kind, len(encoded)) + encoded
    return record + _CRC.pack(zlib.crc32(record))


def _text(day: int, *fields: str) -> str:
    """A meaning as text. Nothing that comes from outside can break it: what is not printable (a
    separator, NUL, half a surrogate pair) becomes a question mark, what is too long is cut."""
    return _SEPARATOR.join((str(day), *map(_field, fields)))


def _field(text: str) -> str:
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    return text[:_FIELD_LENGTH_MAX]


def _count_text(meaning: CountMeaning) -> str:
    return _text(
        meaning.day,
        meaning.level,
        meaning.prefix,
        meaning.caller_class,
        meaning.caller,
        meaning.channel,
        meaning.outcome,
    )


def _count_meaning(path: Path, text: str) -> CountMeaning:
    try:
        day, level, prefix, caller_class, caller, channel, outcome = text.split(_SEPARATOR)
        return CountMeaning(int(day), level, prefix, caller_class, caller, channel, outcome)
    except ValueError:
        raise JournalDamagedError(f"{path}: not the meaning of a count: {text!r}") from None


def _source_text(meaning: SourceMeaning) -> str:
    return _text(meaning.day, meaning.prefix, meaning.source)


def _source_meaning(path: Path, text: str) -> SourceMeaning:
    try:
        day, prefix, source = text.split(_SEPARATOR)
        return SourceMeaning(int(day), prefix, source)
    except ValueError:
        raise JournalDamagedError(f"{path}: not the meaning of a source: {text!r}") from None
