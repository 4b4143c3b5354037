"""Counting resolutions: one increment each, into the journal of this process."""

from pathlib import Path

from metrics.day import DAY_S, SHANGHAI_OFFSET_S, day_number
from metrics.journal import (
    CountMeaning,
    Journal,
    JournalFullError,
    SourceMeaning,
)

# Distinct (prefix, source) pairs that are told apart a day; the rest is counted as one source.
# Ten million a day is far above what the addresses of a province's factories and phones need.
SOURCES_A_DAY_MAX = 10_000_000
SOURCE_OVERFLOW = "overflow"

_HotKey = tuple[str, str, str, str, str, str, str]


class Counting:
    """The counts of this process.

    `count` is called once for every resolution, just before its answer is sent: a process killed
    in between has counted an answer that did not arrive, never the other way round.
    """

    def __init__(self, folder: Path, now_s: float) -> None:
        """Open a journal in `folder`.

        Raises:
            OSError: if the disk is full or cannot be written.
        """
        self._folder = folder
        self._journal = self._new_journal(now_s)
        self._retired: list[Journal] = []
        self._hot: dict[_HotKey, tuple[int, int]] = {}
        self._day_end_s = 0.0
        self._day = 0
        self._sources_today = 0
        self.overflow = 0

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
        if now_s >= self._day_end_s or now_s < self._day_end_s - DAY_S:
            self._turn_day(now_s)
        key = (level, prefix, caller_class, caller, channel, outcome, source)
        slots = self._hot.get(key)
        if slots is None:
            slots = self._open_slots(key, now_s)
        increment = self._journal.increment
        increment(slots[0])
        increment(slots[1])

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

    def _turn_day(self, now_s: float) -> None:
        self._day = day_number(now_s)
        self._day_end_s = (self._day + 1) * DAY_S - SHANGHAI_OFFSET_S
        self._hot.clear()
        self._sources_today = 0

    def _open_slots(self, key: _HotKey, now_s: float) -> tuple[int, int]:
        try:
            slots = self._slots(key)
        except JournalFullError:
            slots = self._slots_of_next(key, now_s)
        # The memo holds at most what two journals can mean; sources come and go.
        if len(self._hot) >= 400_000:
            self._hot.clear()
        self._hot[key] = slots
        return slots

    def _slots_of_next(self, key: _HotKey, now_s: float) -> tuple[int, int]:
        try:
            self._rotate(now_s)
        except OSError:
            return self._coarse_slots(key)
        return self._slots(key)

    def _coarse_slots(self, key: _HotKey) -> tuple[int, int]:
        """Without room for a new journal the count goes on, without prefix, caller and source."""
        level, _, caller_class, _, channel, outcome, _ = key
        meaning = CountMeaning(self._day, level, "", caller_class, "", channel, outcome)
        source = SourceMeaning(self._day, "", SOURCE_OVERFLOW)
        self.overflow += 1
        return (
            self._journal.count_slot(meaning, reserve=True),
            self._journal.source_slot(source, reserve=True),
        )

    def _slots(self, key: _HotKey) -> tuple[int, int]:
        level, prefix, caller_class, caller, channel, outcome, source = key
        count = self._journal.count_slot(
            CountMeaning(self._day, level, prefix, caller_class, caller, channel, outcome)
        )
        if self._sources_today >= SOURCES_A_DAY_MAX:
            source = SOURCE_OVERFLOW
            self.overflow += 1
        before = self._journal.sources_used
        slot = self._journal.source_slot(SourceMeaning(self._day, prefix, source))
        self._sources_today += self._journal.sources_used - before
        return count, slot

    def _rotate(self, now_s: float) -> None:
        """Begin a new journal; the full one is flushed once more and closed by its owner.

        A crash after the new file is there leaves two journals for adoption, which is harmless.
        """
        full = self._journal
        self._journal = self._new_journal(now_s)
        self._retired.append(full)
        self._hot.clear()

    def _new_journal(self, now_s: float) -> Journal:
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            path = self._folder / f"{int(now_s * 1e6):017d}-{number}.journal"
            if not path.exists():
                return Journal(path, now_s)
            number += 1
