"""The journal: counts in a memory-mapped file that survives the death of its process.

File layout, little-endian. The file is allocated in full at its creation, so that counting
never meets a full disk.

    page 0      magic 8 B, layout version u4, identity 16 B, opened at u8 (s), slots u4, CRC-32 u4
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
_HEADER = struct.Struct("<8sI16sQII")
_HEADER_SIZE_BYTES = 4096
_ENTRY = struct.Struct("<BH")
_CRC = struct.Struct("<I")

# Meanings of one worker until the next rotation: prefixes x callers x channels x outcomes of a
# day. 32,768 of them and 131,072 sources take 1.3 MB of slots and 14 MB of meanings.
COUNT_SLOTS = 32_768
SOURCE_SLOTS = 131_072
DIRECTORY_SIZE_BYTES = 14 * 1024 * 1024
MEANING_SIZE_BYTES_MAX = 1_024
# Kept back for when no new journal can be made (full disk): coarse meanings still find a place.
RESERVED_COUNT_SLOTS = 512
RESERVED_SOURCE_SLOTS = 64
RESERVED_DIRECTORY_SIZE_BYTES = 256 * 1024

KIND_COUNT, KIND_SOURCE = ord("C"), ord("S")
_SEPARATOR = "\x1f"


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

    def days(self) -> frozenset[int]:
        return frozenset(meaning.day for _, meaning, _ in self.counts)


class Journal:
    """The journal that this process writes. One increment costs one look-up and one store."""

    def __init__(self, path: Path, now_s: float) -> None:
        """Create the file and lock it for the life of this process.

        A crash while it is made leaves a file with the suffix `.new`, which nobody reads.

        Raises:
            OSError: if the disk is full or cannot be written.
        """
        self.identity = uuid.uuid4()
        self.opened_at_s = int(now_s)
        self.path = path
        self._file = _allocate(path, self.identity, self.opened_at_s)
        self._map = mmap.mmap(self._file, 0)
        slots_end = _HEADER_SIZE_BYTES + 8 * (COUNT_SLOTS + SOURCE_SLOTS)
        self._slots = memoryview(self._map)[_HEADER_SIZE_BYTES:slots_end].cast("Q")
        self._directory_end = slots_end
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
            if slot >= COUNT_SLOTS - (0 if reserve else RESERVED_COUNT_SLOTS):
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
            if number >= SOURCE_SLOTS - (0 if reserve else RESERVED_SOURCE_SLOTS):
                raise JournalFullError
            self._describe(KIND_SOURCE, _source_text(meaning), reserve)
            slot = self._sources[meaning] = COUNT_SLOTS + number
        return slot

    def increment(self, slot: int) -> None:
        """Add one to a slot."""
        self._slots[slot] += 1

    def snapshot(self) -> Snapshot:
        """The absolute value of every slot in use, now."""
        slots = self._slots
        return Snapshot(
            self.identity,
            self.opened_at_s,
            tuple((slot, meaning, slots[slot]) for meaning, slot in self._counts.items()),
            tuple((slot, meaning, slots[slot]) for meaning, slot in self._sources.items()),
        )

    def values(self) -> tuple[list[int], list[int]]:
        """The values of all slots in use: counts, sources."""
        counts = self._slots[: len(self._counts)].tolist()
        return counts, self._slots[COUNT_SLOTS : COUNT_SLOTS + len(self._sources)].tolist()

    def grown(
        self, before: tuple[list[int], list[int]], now: tuple[list[int], list[int]]
    ) -> Snapshot:
        """The slots whose value in `now` is not the one in `before` (both from `values`)."""
        return Snapshot(
            self.identity,
            self.opened_at_s,
            tuple(_grown(list(self._counts), before[0], now[0], 0)),
            tuple(_grown(list(self._sources), before[1], now[1], COUNT_SLOTS)),
        )

    def sync(self) -> None:
        """Bring the map to the disk; blocks, and releases the interpreter while it does."""
        self._map.flush()

    def close(self) -> None:
        """Let go of the file; it stays for adoption until it is flushed and removed."""
        self._slots.release()
        self._map.close()
        os.close(self._file)

    def _describe(self, kind: int, text: str, reserve: bool) -> None:
        record = _directory_record(kind, text)
        end = self._directory_end + len(record)
        kept_back = _ENTRY.size if reserve else RESERVED_DIRECTORY_SIZE_BYTES
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


def read_identity(path: Path) -> uuid.UUID:
    """The identity of the journal at `path`, without reading its counts.

    Raises:
        JournalDamagedError: if the header cannot be trusted.
        FileNotFoundError: if it is gone.
    """
    with path.open("rb") as file:
        return _header(path, file.read(_HEADER_SIZE_BYTES))[0]


def read_snapshot(path: Path) -> Snapshot:
    """Read the journal of another process, living or dead.

    Raises:
        JournalDamagedError: if the file is not a whole journal; nothing of it is used then.
        FileNotFoundError: if it was adopted and removed meanwhile.
    """
    data = path.read_bytes()
    identity, opened_at_s = _header(path, data)
    expected = _HEADER_SIZE_BYTES + 8 * (COUNT_SLOTS + SOURCE_SLOTS) + DIRECTORY_SIZE_BYTES
    if len(data) != expected:
        raise JournalDamagedError(f"{path}: {len(data)} bytes, expected {expected}")
    slots_end = _HEADER_SIZE_BYTES + 8 * (COUNT_SLOTS + SOURCE_SLOTS)
    slots = memoryview(data)[_HEADER_SIZE_BYTES:slots_end].cast("Q")
    counts: list[tuple[int, CountMeaning, int]] = []
    sources: list[tuple[int, SourceMeaning, int]] = []
    for kind, text in _directory(path, data, slots_end):
        if kind == KIND_COUNT:
            slot = len(counts)
            counts.append((slot, _count_meaning(path, text), slots[slot]))
        else:
            slot = COUNT_SLOTS + len(sources)
            sources.append((slot, _source_meaning(path, text), slots[slot]))
    _require_silence(path, data, slots_end, len(counts), len(sources))
    return Snapshot(identity, opened_at_s, tuple(counts), tuple(sources))


def _allocate(path: Path, identity: uuid.UUID, opened_at_s: int) -> int:
    size = _HEADER_SIZE_BYTES + 8 * (COUNT_SLOTS + SOURCE_SLOTS) + DIRECTORY_SIZE_BYTES
    unfinished = path.with_suffix(".new")
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        # Real blocks, not a hole: a store into a hole on a full disk would kill the process.
        os.posix_fallocate(descriptor, 0, size)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        fields = (_MAGIC, 1, identity.bytes, opened_at_s, COUNT_SLOTS + SOURCE_SLOTS)
        crc = zlib.crc32(_HEADER.pack(*fields, 0))
        os.pwrite(descriptor, _HEADER.pack(*fields, crc), 0)
        os.fsync(descriptor)
        unfinished.rename(path)
    except BaseException:
        os.close(descriptor)
        unfinished.unlink(missing_ok=True)
        raise
    return descriptor


def _header(path: Path, data: bytes) -> tuple[uuid.UUID, int]:
    if len(data) < _HEADER.size:
        raise JournalDamagedError(f"{path}: {len(data)} bytes are too few for a header")
    magic, layout, identity, opened_at_s, slots, crc = _HEADER.unpack_from(data)
    fields = (magic, layout, identity, opened_at_s, slots)
    if magic != _MAGIC or layout != 1 or crc != zlib.crc32(_HEADER.pack(*fields, 0)):
        raise JournalDamagedError(f"{path}: the header is damaged")
    return uuid.UUID(bytes=identity), opened_at_s


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


def _require_silence(path: Path, data: bytes, slots_end: int, counts: int, sources: int) -> None:
    """Slots without a meaning must be zero: a value there is a count whose meaning was lost."""
    unused = (
        (_HEADER_SIZE_BYTES + 8 * counts, _HEADER_SIZE_BYTES + 8 * COUNT_SLOTS),
        (_HEADER_SIZE_BYTES + 8 * (COUNT_SLOTS + sources), slots_end),
    )
    for start, end in unused:
        if data.count(0, start, end) != end - start:
            raise JournalDamagedError(f"{path}: counts without a meaning after byte {start}")


def _directory_record(kind: int, text: str) -> bytes:
    encoded = text.encode()
    record = _ENTRY.pack(kind, len(encoded)) + encoded
    return record + _CRC.pack(zlib.crc32(record))


def _count_text(meaning: CountMeaning) -> str:
    return _SEPARATOR.join(
        (
            str(meaning.day),
            meaning.level,
            meaning.prefix,
            meaning.caller_class,
            meaning.caller,
            meaning.channel,
            meaning.outcome,
        )
    )


def _count_meaning(path: Path, text: str) -> CountMeaning:
    try:
        day, level, prefix, caller_class, caller, channel, outcome = text.split(_SEPARATOR)
        return CountMeaning(int(day), level, prefix, caller_class, caller, channel, outcome)
    except ValueError:
        raise JournalDamagedError(f"{path}: not the meaning of a count: {text!r}") from None


def _source_text(meaning: SourceMeaning) -> str:
    return _SEPARATOR.join((str(meaning.day), meaning.prefix, meaning.source))


def _source_meaning(path: Path, text: str) -> SourceMeaning:
    try:
        day, prefix, source = text.split(_SEPARATOR)
        return SourceMeaning(int(day), prefix, source)
    except ValueError:
        raise JournalDamagedError(f"{path}: not the meaning of a source: {text!r}") from None
