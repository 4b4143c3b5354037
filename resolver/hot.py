"""The cache in the process (L1): bounded, and emptied when invalidations may have been missed."""

from collections import OrderedDict
from typing import TypeAlias

from resolver.entry import Entry
from resolver.freshness import HEARD_S, is_fresh
from resolver.record import Record

# Record, dictionary slot and prepared answer of a typical product take about 1.5 kB; so this is
# about 300 MB at most for one worker.
PRESENT_MAX = 200_000
# Names that were asked for and do not exist are kept apart: a flood of them evicts no product.
ABSENT_MAX = 20_000

Mark: TypeAlias = tuple[int, int]
"""A moment: the generation, and the latest registration below a prefix."""

# A moment that never comes: what is kept with it is never answered as fresh.
_NEVER: Mark = (-1, -1)

_Kept: TypeAlias = OrderedDict[str, tuple[Mark, Entry]]


class Hot:
    """Entries by identifier key, least recently used out first.

    `connected` says whether invalidations arrive. Entries of an earlier generation are never
    answered as fresh: a lost connection begins a new generation.
    """

    def __init__(self, present_max: int = PRESENT_MAX, absent_max: int = ABSENT_MAX) -> None:
        self._present: _Kept = OrderedDict()
        self._absent: _Kept = OrderedDict()
        self._present_max = present_max
        self._absent_max = absent_max
        self._registrations: dict[str, int] = {}
        self._registrations_before = self._registration = 0
        self._generation = 0
        self._heard_at_s = 0.0
        self.connected = False

    def __len__(self) -> int:
        return len(self._present) + len(self._absent)

    def fresh(self, key: str, prefix_key: str, now_s: float) -> Entry | None:
        """The entry that may be answered now, or None."""
        found = self._present.get(key)
        if found is None:
            return self._fresh_absent(key, prefix_key, now_s)
        (generation, _), entry = found
        if generation != self._generation or not self._is_fresh(entry, now_s):
            return None
        self._present.move_to_end(key)
        return entry

    def last_known(self, key: str) -> Entry | None:
        """The newest entry whatever its age, for answers marked stale; a deleted one, too, if no
        more is known of the newest version.
        """
        found = self._present.get(key) or self._absent.get(key)
        return None if found is None else found[1]

    def mark(self, prefix_key: str) -> Mark:
        """The present moment, to be taken before what is to be kept is asked for."""
        return self._generation, self._registrations.get(prefix_key, self._registrations_before)

    def put(self, key: str, entry: Entry, mark: Mark) -> None:
        """Keep `entry`, asked for at `mark`, unless a newer version is known."""
        known = self.last_known(key)
        if known is not None and known.version > entry.version:
            return
        if entry.is_present:
            self._absent.pop(key, None)
            _keep(self._present, key, (mark, entry), self._present_max)
        else:
            self._present.pop(key, None)
            _keep(self._absent, key, (mark, entry), self._absent_max)

    def outdated(self, key: str, version: int) -> None:
        """A newer version exists: forget what is older, but not that there is something newer."""
        known = self.last_known(key)
        if known is not None and known.version < version:
            self._present.pop(key, None)
            newer = Entry(Record("", version, (), deleted=True), 0.0)
            _keep(self._absent, key, (_NEVER, newer), self._absent_max)

    def registered(self, prefix_key: str) -> None:
        """Something was registered below a prefix: earlier "not found" no longer holds."""
        self._registration += 1
        if len(self._registrations) >= self._absent_max:
            self._registrations.clear()
            self._registrations_before = self._registration
        self._registrations[prefix_key] = self._registration

    def heard(self, asked_at_s: float) -> None:
        """Every invalidation that was sent before `asked_at_s` has arrived."""
        self._heard_at_s = asked_at_s

    def disconnect(self) -> None:
        """Invalidations may be missed from now on."""
        self.connected = False
        self._generation += 1

    def connect(self) -> None:
        """Invalidations arrive again; what was learnt before may be outdated."""
        self.connected = True
        self._generation += 1

    def _fresh_absent(self, key: str, prefix_key: str, now_s: float) -> Entry | None:
        found = self._absent.get(key)
        if found is None or found[0] != self.mark(prefix_key):
            return None
        return found[1] if self._is_fresh(found[1], now_s) else None

    def _is_fresh(self, entry: Entry, now_s: float) -> bool:
        hears = self.connected and abs(now_s - self._heard_at_s) < HEARD_S
        return is_fresh(entry, now_s, connected=hears)


def _keep(entries: _Kept, key: str, item: tuple[Mark, Entry], most: int) -> None:
    entries[key] = item
    entries.move_to_end(key)
    if len(entries) > most:
        entries.popitem(last=False)
