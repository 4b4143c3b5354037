"""The cache in the process (L1): bounded, and emptied when invalidations may have been missed."""

from collections import OrderedDict

from resolver.entry import Entry
from resolver.freshness import is_fresh

# Record, dictionary slot and prepared answer of a typical product take about 1.5 kB; so this is
# about 300 MB at most for one worker.
PRESENT_MAX = 200_000
# Names that were asked for and do not exist are kept apart: a flood of them evicts no product.
ABSENT_MAX = 20_000


class Hot:
    """Entries by identifier key, least recently used out first.

    `connected` says whether invalidations arrive. Entries of an earlier generation are never
    answered as fresh: a lost connection begins a new generation.
    """

    def __init__(self, present_max: int = PRESENT_MAX, absent_max: int = ABSENT_MAX) -> None:
        self._present: OrderedDict[str, tuple[int, Entry]] = OrderedDict()
        self._absent: OrderedDict[str, tuple[int, Entry]] = OrderedDict()
        self._present_max = present_max
        self._absent_max = absent_max
        self._epochs: dict[str, str] = {}
        self.generation = 0
        self.connected = False

    def __len__(self) -> int:
        return len(self._present) + len(self._absent)

    def fresh(self, key: str, prefix_key: str, now_s: float) -> Entry | None:
        """The entry that may be answered now, or None."""
        found = self._present.get(key)
        if found is None:
            return self._fresh_absent(key, prefix_key, now_s)
        generation, entry = found
        if generation != self.generation or not is_fresh(entry, now_s, connected=self.connected):
            return None
        self._present.move_to_end(key)
        return entry

    def last_known(self, key: str) -> Entry | None:
        """The entry whatever its age, for answers marked stale; only of what was there."""
        found = self._present.get(key)
        return None if found is None else found[1]

    def put(self, key: str, entry: Entry, generation: int) -> None:
        """Keep `entry`, learnt in `generation`, unless a newer version is known."""
        known = self._present.get(key)
        if known is not None and known[1].version > entry.version:
            return
        if entry.is_present:
            self._absent.pop(key, None)
            _keep(self._present, key, (generation, entry), self._present_max)
        else:
            self._present.pop(key, None)
            _keep(self._absent, key, (generation, entry), self._absent_max)

    def outdated(self, key: str, version: int) -> None:
        """A newer version exists: forget what is older."""
        for entries in (self._present, self._absent):
            found = entries.get(key)
            if found is not None and found[1].version < version:
                del entries[key]

    def registered(self, prefix_key: str, epoch: str) -> None:
        """Something was registered below a prefix: earlier "not found" no longer holds."""
        if len(self._epochs) >= self._absent_max:
            self._epochs.clear()
            self._absent.clear()
        self._epochs[prefix_key] = epoch

    def disconnect(self) -> None:
        """Invalidations may be missed from now on."""
        self.connected = False
        self.generation += 1
        self._epochs.clear()

    def connect(self) -> None:
        """Invalidations arrive again; what was learnt before may be outdated."""
        self.connected = True
        self.generation += 1
        self._epochs.clear()

    def _fresh_absent(self, key: str, prefix_key: str, now_s: float) -> Entry | None:
        found = self._absent.get(key)
        if found is None:
            return None
        generation, entry = found
        if self._epochs.get(prefix_key, entry.epoch) != entry.epoch:
            return None
        if generation != self.generation or not is_fresh(entry, now_s, connected=self.connected):
            return None
        return entry


def _keep(
    entries: OrderedDict[str, tuple[int, Entry]], key: str, item: tuple[int, Entry], most: int
) -> None:
    entries[key] = item
    entries.move_to_end(key)
    if len(entries) > most:
        entries.popitem(last=False)
