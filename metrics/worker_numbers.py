"""The operational numbers of every worker of an instance, added up for the metrics page.

Each worker owns a small memory-mapped file of 64-bit slots; what a slot means is fixed here. A
page adds the files of all workers, so that it does not matter which of them is asked. The files of
dead workers are added to one file `retired`, so that no counter goes back. These are numbers for
operators, not the ledger: a power cut may lose them.

File layout, little-endian: magic 8 B, layout version u4, slots u4, identity 16 B, then the slots.
In `retired` the identity is that of the worker whose file was added last.
"""

import fcntl
import mmap
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, TypeAlias

CACHE_TIERS: Final = ("l1", "l2", "registry")
CACHE_RESULTS: Final = ("hit", "miss", "stale")
REFUSED_REASONS: Final = (
    "connections",
    "head_size",
    "body_size",
    "slow_client",
    "rate_source",
    "rate_caller",
    "in_flight",
    "unknown_names",
)
# The slots in their order. A new one is put at the end: files of an older version stay readable.
LOOKUP_SLOTS: Final = {pair: slot for slot, pair in enumerate(product(CACHE_TIERS, CACHE_RESULTS))}
L1_HIT: Final = LOOKUP_SLOTS["l1", "hit"]
REFUSED_SLOTS: Final = {
    reason: slot for slot, reason in enumerate(REFUSED_REASONS, len(LOOKUP_SLOTS))
}
REFUSED_CONNECTIONS: Final = REFUSED_SLOTS["connections"]
REFUSED_HEAD_SIZE: Final = REFUSED_SLOTS["head_size"]
REFUSED_BODY_SIZE: Final = REFUSED_SLOTS["body_size"]
REFUSED_SLOW_CLIENT: Final = REFUSED_SLOTS["slow_client"]
REFUSED_RATE_SOURCE: Final = REFUSED_SLOTS["rate_source"]
REFUSED_RATE_CALLER: Final = REFUSED_SLOTS["rate_caller"]
REFUSED_IN_FLIGHT: Final = REFUSED_SLOTS["in_flight"]
REFUSED_UNKNOWN_NAMES: Final = REFUSED_SLOTS["unknown_names"]
L1_EMPTIED: Final = len(LOOKUP_SLOTS) + len(REFUSED_SLOTS)
# Gauges end with their worker; everything before them only grows.
CONNECTIONS: Final = L1_EMPTIED + 1
CACHE_ENTRIES: Final = L1_EMPTIED + 2
_COUNTERS: Final = CONNECTIONS
_SLOTS: Final = CACHE_ENTRIES + 1

_MAGIC: Final = b"IDNNUMB1"
_LAYOUT: Final = 1
_HEADER: Final = struct.Struct("<8sII16s")
# One page: a map is not smaller.
_FILE_SIZE_BYTES: Final = 4096
_SUFFIX: Final = ".numbers"
_NOBODY: Final = uuid.UUID(int=0)

_Values: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over the living workers, `workers` of them, and the counters of the dead ones."""

    workers: int
    values: _Values

    @property
    def cache_lookups(self) -> dict[tuple[str, str], int]:
        """Look-ups by (tier, result); `stale` only where it occurred, which is in few tiers."""
        found = {pair: self.values[slot] for pair, slot in LOOKUP_SLOTS.items()}
        return {pair: number for pair, number in found.items() if number or pair[1] != "stale"}

    @property
    def refused(self) -> dict[str, int]:
        """Requests and connections turned away, by reason."""
        return {reason: self.values[slot] for reason, slot in REFUSED_SLOTS.items()}

    @property
    def l1_emptied(self) -> int:
        return self.values[L1_EMPTIED]

    @property
    def connections(self) -> int:
        return self.values[CONNECTIONS]

    @property
    def cache_entries(self) -> int:
        return self.values[CACHE_ENTRIES]


class WorkerNumbers:
    """The numbers of this process; one call costs one look-up and one store."""

    def __init__(self, folder: Path) -> None:
        """Make the file in `folder`, locked for the life of this process.

        Raises:
            OSError: if the disk is full or cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        identity = uuid.uuid4()
        self.path = folder / f"{identity}{_SUFFIX}"
        with _locked(folder):
            # Crash in here: the next sum removes the file, which nobody has locked.
            self._file = _allocated(self.path, identity)
        self._map = mmap.mmap(self._file, _FILE_SIZE_BYTES)
        self._slots = memoryview(self._map)[_HEADER.size :].cast("Q")

    @property
    def memory(self) -> memoryview:
        """The slots themselves, for who adds very often; to be let go of before `close`."""
        return self._slots

    def add(self, slot: int) -> None:
        """Add one to a counter."""
        self._slots[slot] += 1

    def add_many(self, slot: int, number: int) -> None:
        """Add to a counter."""
        self._slots[slot] += number

    def show(self, slot: int, value: int) -> None:
        """Set a gauge."""
        self._slots[slot] = value

    def totals(self) -> Totals:
        """See `totals`; blocks for a moment."""
        return totals(self._folder)

    def close(self) -> None:
        """Count no more; the file stays until its counters are added to those of the dead."""
        self._slots.release()
        self._map.close()
        os.close(self._file)


def totals(folder: Path) -> Totals:
    """The numbers of all workers that ever counted in `folder`.

    Raises:
        OSError: if the disk cannot be read or written.
    """
    with _locked(folder):
        last, retired = _read(folder / "retired") or (_NOBODY, (0,) * _SLOTS)
        # There only if somebody crashed between the two last steps of _retire: it is added already.
        (folder / f"{last}{_SUFFIX}").unlink(missing_ok=True)
        living: list[_Values] = []
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            found = _read(path)
            if _has_owner(path):
                living.append((0,) * _SLOTS if found is None else found[1])
            elif found is None:
                path.unlink()  # its owner died while making it: nothing was counted in it
            else:
                retired = _retire(path, retired, found)
        return Totals(len(living), _added([retired, *living]))


def _retire(path: Path, retired: _Values, dead: tuple[uuid.UUID, _Values]) -> _Values:
    """Add the counters of a dead worker to those of the dead; returns their new sums."""
    identity, values = dead
    sums = _added([retired, values])[:_COUNTERS] + (0,) * (_SLOTS - _COUNTERS)
    fresh = path.with_name("retired.new")
    fresh.write_bytes(_content(identity, sums))
    # Crash here: nothing has changed, the file is written anew.
    fresh.replace(path.with_name("retired"))
    # Crash here: `retired` names the file, so that it is not added twice.
    path.unlink()
    return sums


def _added(rows: Sequence[_Values]) -> _Values:
    return tuple(sum(column) for column in zip(*rows, strict=True))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the one lock of the folder: files come and go under it only."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _has_owner(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _allocated(path: Path, identity: uuid.UUID) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Real blocks, not a hole: a store into a hole on a full disk would kill the process.
        os.posix_fallocate(descriptor, 0, _FILE_SIZE_BYTES)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.pwrite(descriptor, _content(identity, (0,) * _SLOTS), 0)
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def _content(identity: uuid.UUID, values: _Values) -> bytes:
    header = _HEADER.pack(_MAGIC, _LAYOUT, len(values), identity.bytes)
    return header + struct.pack(f"<{len(values)}Q", *values)


def _read(path: Path) -> tuple[uuid.UUID, _Values] | None:
    """Identity and values of a file; None if it is missing, half made or of another layout."""
    try:
        data = path.read_bytes()
        magic, layout, number, identity = _HEADER.unpack_from(data)
        if (magic, layout) != (_MAGIC, _LAYOUT):
            return None
        values = struct.unpack_from(f"<{number}Q", data, _HEADER.size)
    except (FileNotFoundError, struct.error):
        return None
    # A version with other slots wrote it: the first ones mean the same.
    return uuid.UUID(bytes=identity), (*values, *(0,) * _SLOTS)[:_SLOTS]
