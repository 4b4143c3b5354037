"""Counting resolutions: one increment each, into the journal of this process."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from metrics.day import DAY_S, SHANGHAI_OFFSET_S, day_number
from metrics.journal import (
    FULL_SIZE,
    CountMeaning,
    Journal,
    JournalFullError,
    JournalSize,
    SourceMeaning,
)

# Distinct (prefix, source) pairs that are told apart a day; the rest is counted as one source.
# Ten million a day is far above what the addresses of a province's factories and phones need.
SOURCES_A_DAY_MAX = 10_000_000
SOURCE_OVERFLOW = "overflow"
# How long the count stays coarse before a new journal is tried again: an attempt on a full disk
# takes milliseconds, and comes in the middle of an answer.
ROTATION_PAUSE_S = 5.0
# The memo of questions that were counted before; an entry is some 400 bytes.
MEMO_MAX = 100_000

CountKey: TypeAlias = tuple[str, str, str, str, str, str, str]
"""Level, prefix, caller class, caller, channel, outcome, source."""


class Cells(NamedTuple):
    """Where one kind of resolution from one source is counted: two places in mapped memory.

    To be incremented together, just before the answer is sent; void once `on_void` was called.
    """

    memory: memoryview
    for_count: int
    for_source: int


class Counting:
    """The counts of this process.

    `count` is called once for every resolution, just before its answer is sent: a process killed
    in between has counted an answer that did not arrive, never the other way round.
    """

    def __init__(self, folder: Path, now_s: float, size: JournalSize = FULL_SIZE) -> None:
        """Open a journal in `folder`.

        Raises:
            OSError: if the disk is full or cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._size = size
        self._journal = Journal(folder, now_s, size)
        self._retired: list[Journal] = []
        self._hot: dict[CountKey, tuple[int, int]] = {}
        self._day_end_s = 0.0
        self._day = 0
        self._sources_today = 0
        self._refused_at_s = float("-inf")
        self.on_void: Callable[[], None] = _nobody

    def count(
        self,
        now_s: float,
        level: str,
        prefix: str,
        caller_class: str,
        caller: str,
        channel: str,
        outcome: str,
        source: str,
    ) -> None:
        """Count one resolution. `prefix` is an allotted prefix key, or empty for any other."""
        self.add(1, now_s, (level, prefix, caller_class, caller, channel, outcome, source))

    def add(self, number: int, now_s: float, key: CountKey) -> None:
        """Count `number` resolutions of one kind, answered together; see `count`."""
        slots = self._slots_today(key, now_s)
        add = self._journal.add  # after the slots: they may be in a new journal
        add(slots[0], number)
        add(slots[1], number)

    def cells(self, now_s: float, key: CountKey) -> Cells:
        """Where `count` would count, for the caller to do it; valid on the day of `now_s`."""
        slots = self._slots_today(key, now_s)
        return Cells(self._journal.memory, *slots)

    @property
    def journals(self) -> tuple[Journal, ...]:
        """The journals that this process holds: full ones, then the one being written."""
        return (*self._retired, self._journal)

    @property
    def retired(self) -> tuple[Journal, ...]:
        """Full journals that wait for their last flush."""
        return tuple(self._retired)

    def forget(self, journal: Journal) -> None:
        """Let go of a retired journal after its last flush."""
        self._retired.remove(journal)
        journal.close()

    def sync(self) -> None:
        """Bring the present counts to the disk; blocks."""
        for journal in self.journals:
            journal.sync()

    def close(self) -> None:
        """Stop counting; the files stay for the ledger to adopt."""
        for journal in self.journals:
            journal.close()

    def keep_day(self, now_s: float) -> None:
        """Begin a new day if it has come; then all cells are void."""
        if now_s >= self._day_end_s or now_s < self._day_end_s - DAY_S:
            self._turn_day(now_s)

    def _turn_day(self, now_s: float) -> None:
        self._day = day_number(now_s)
        self._day_end_s = (self._day + 1) * DAY_S - SHANGHAI_OFFSET_S
        self._hot.clear()
        self._sources_today = 0
        self.on_void()

    def _slots_today(self, key: CountKey, now_s: float) -> tuple[int, int]:
        self.keep_day(now_s)
        return self._hot.get(key) or self._open_slots(key, now_s)

    def _open_slots(self, key: CountKey, now_s: float) -> tuple[int, int]:
        try:
            slots = self._slots(key)
        except JournalFullError:
            slots = self._slots_of_next(key, now_s)
        if len(self._hot) >= MEMO_MAX:
            self._hot.clear()
        self._hot[key] = slots
        return slots

    def _slots_of_next(self, key: CountKey, now_s: float) -> tuple[int, int]:
        if abs(now_s - self._refused_at_s) < ROTATION_PAUSE_S:
            return self._coarse_slots(key)
        try:
            self._rotate(now_s)
        except OSError:
            self._refused_at_s = now_s
            return self._coarse_slots(key)
        return self._slots(key)

    def _coarse_slots(self, key: CountKey) -> tuple[int, int]:
        """Without room for a new journal the count goes on: what has no slot yet is counted
        without prefix and caller, or without source."""
        level, prefix, caller_class, _, channel, outcome, source = key
        day, journal = self._day, self._journal
        try:
            count = journal.count_slot(CountMeaning(day, *key[:-1]))
        except JournalFullError:
            coarse = CountMeaning(day, level, "", caller_class, "", channel, outcome)
            count = journal.count_slot(coarse, reserve=True)
        try:
            return count, journal.source_slot(SourceMeaning(day, prefix, source))
        except JournalFullError:
            unknown = SourceMeaning(day, "", SOURCE_OVERFLOW)
            return count, journal.source_slot(unknown, reserve=True)

    def _slots(self, key: CountKey) -> tuple[int, int]:
        prefix, source = key[1], key[-1]
        count = self._journal.count_slot(CountMeaning(self._day, *key[:-1]))
        if self._sources_today >= SOURCES_A_DAY_MAX:
            source = SOURCE_OVERFLOW
        before = self._journal.sources_used
        slot = self._journal.source_slot(SourceMeaning(self._day, prefix, source))
        self._sources_today += self._journal.sources_used - before
        return count, slot

    def _rotate(self, now_s: float) -> None:
        """Begin a new journal; the full one is flushed once more and closed by its owner.

        A crash after the new file is there leaves two journals for adoption, which is harmless.
        """
        full, self._journal = self._journal, Journal(self._folder, now_s, self._size)
        self._retired.append(full)
        self._hot.clear()
        self.on_void()


def _nobody() -> None:
    """Nobody holds cells."""
