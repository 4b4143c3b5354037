"""The cache in the process (L1): bounded, and emptied when invalidations may have been missed."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, TypeAlias

from resolver.entry import Entry, Prepared
from resolver.freshness import (
    CONNECTED_S,
    DISCONNECTED_S,
    HEARD_S,
    RENEWED_AHEAD_S,
    RENEWED_FROM_S,
    is_fresh_absence,
)
from resolver.record import Record

# Beyond the bytes of its answer an entry takes about 500 bytes (loadtest.bench measures it), its
# answer and values about as much; so this is some 200 MB at most for one worker.
PRESENT_MAX: Final = 200_000
# Names that were asked for and do not exist are kept apart: a flood of them evicts no product.
ABSENT_MAX: Final = 20_000
# Entries fetched within this time share their moment; they are taken for as old as the first.
_MOMENT_S: Final = 0.05
_MOMENTS_MAX: Final = 4_096
# Multiples of it, without their whole part, fill the unit evenly in any number.
_GOLDEN: Final = 0.618_034
# What left the cache is freed piece by piece: all of it at once would stop the process for 20 ms.
_FREED_A_TURN: Final = 4

Mark: TypeAlias = tuple[int, int]
"""A moment: the generation, and the latest registration below a prefix."""

# A moment that never comes: what is kept with it is never answered as fresh.
_NEVER: Mark = (-1, -1)


class Moment:
    """When entries were learnt, and how long they may be believed; shared by many entries.

    `keys` are those of the entries that were learnt then, also if they have left since.
    """

    __slots__ = ("fetched_at_s", "generation", "keys", "since_s", "until_s")

    def __init__(self, generation: int, fetched_at_s: float, cap_s: float) -> None:
        self.generation = generation
        self.fetched_at_s = fetched_at_s
        self.keys: list[str] = []
        # A clock that stepped back makes an entry young, not old: bound that side, too.
        self.since_s = fetched_at_s - cap_s
        self.until_s = fetched_at_s + cap_s


# What the cache let go of belongs to this moment: whoever still holds it must not answer with it.
_GONE: Final = Moment(-1, 0.0, 0.0)


class Kept(Prepared):
    """A live record in the smallest form that answers every question, and prepared answers.

    Its `moment` says whether it may still be believed; that of what left the cache never does.
    Whoever answers with it sets `is_used`: what nobody asks for is not renewed.
    """

    __slots__ = ("handle", "is_used", "moment", "stamp_s", "version", "wire")

    handle: str
    is_used: bool
    version: int
    wire: bytes
    stamp_s: int
    moment: Moment

    def entry(self) -> Entry:
        """The entry as every other part knows it."""
        record = Record(self.handle, self.version, self.wire, self.stamp_s)
        return Entry(record, self.moment.fetched_at_s, prepared=self)


class Hot:
    """Entries by identifier key; what was not asked for longest goes first.

    Live records are kept in two generations of use: `young` holds what was asked for lately; when
    it has half the room, it becomes the old one, whose rest is forgotten. So a hit in `young`
    costs one look-up and changes nothing.

    `connected` says whether invalidations arrive. Entries of an earlier generation are never
    answered as fresh: a lost connection begins a new generation.
    """

    def __init__(self, present_max: int = PRESENT_MAX, absent_max: int = ABSENT_MAX) -> None:
        self.young: dict[str, Kept] = {}
        self._old: dict[str, Kept] = {}
        self._leaving: dict[str, Kept] = {}
        self._young_max = max(1, present_max // 2)
        self._is_off = present_max == 0
        self._absent: OrderedDict[str, tuple[Mark, Entry]] = OrderedDict()
        self._absent_max = absent_max
        self._moments: dict[tuple[int, int], Moment] = {}
        self._registrations: dict[str, int] = {}
        self._registrations_before = self._registration = 0
        self._stamp_s = 0
        self._spread = -_GOLDEN  # the first moment lasts longest
        self.generation = 0
        self.heard_at_s = 0.0
        self.connected = False

    def __len__(self) -> int:
        return len(self.young) + len(self._old) + len(self._absent)

    def fresh(self, key: str, prefix_key: str, now_s: float) -> Entry | None:
        """The entry that may be answered now, or None."""
        kept = self.kept(key)
        if kept is None:
            return self._fresh_absent(key, prefix_key, now_s)
        if not self.may_answer(kept, now_s):
            return None
        kept.is_used = True
        return kept.entry()

    def kept(self, key: str) -> Kept | None:
        """What is kept of a live record, whatever its age; what was used comes among the young."""
        return self.young.get(key) or self._used_again(key)

    def may_answer(self, kept: Kept, now_s: float) -> bool:
        """True if `kept` may be believed at `now_s`."""
        moment = kept.moment
        if moment.generation != self.generation or not moment.since_s < now_s < moment.until_s:
            return False
        return self.hears(now_s) or abs(now_s - moment.fetched_at_s) < DISCONNECTED_S

    def prepared(self, keys: Iterable[str], now_s: float) -> list[Kept | None]:
        """What is kept of `keys`, None where it may not be believed or its prefix has changed."""
        return [self._prepared(key, now_s) for key in keys]

    def _prepared(self, key: str, now_s: float) -> Kept | None:
        kept = self.young.get(key) or self._used_again(key)
        if kept is None or kept.prefix is None or kept.prefix.is_superseded:
            return None
        if not self.may_answer(kept, now_s):
            return None
        kept.is_used = True
        return kept

    def hears(self, now_s: float) -> bool:
        """True if invalidations arrive for certain."""
        return self.connected and abs(now_s - self.heard_at_s) < HEARD_S

    def last_known(self, key: str) -> Entry | None:
        """The newest entry whatever its age, for answers marked stale; a deleted one, too, if no
        more is known of the newest version.
        """
        kept = self._held(key)
        if kept is not None:
            return kept.entry()
        absent = self._absent.get(key)
        return None if absent is None else absent[1]

    def known_version(self, key: str) -> int:
        """The newest version known; -1 if nothing is."""
        kept = self._held(key)
        if kept is not None:
            return kept.version
        absent = self._absent.get(key)
        return -1 if absent is None else absent[1].version

    def mark(self, prefix_key: str) -> Mark:
        """The present moment, to be taken before what is to be kept is asked for."""
        return self.generation, self._registrations.get(prefix_key, self._registrations_before)

    def put(self, key: str, entry: Entry, mark: Mark) -> None:
        """Keep `entry`, asked for at `mark`, unless a newer version is known."""
        if self.known_version(key) > entry.version or self._is_off:
            return
        record = entry.record
        if record is None or record.deleted:
            self._drop(key)
            self._keep_absent(key, entry, mark)
            return
        self._absent.pop(key, None)
        self._drop(key)
        self._keep(key, self._packed(key, record, entry, mark))

    def outdated(self, key: str, version: int) -> None:
        """A newer version exists: forget what is older, but not that there is something newer."""
        known = self.known_version(key)
        if known >= 0 and known < version:
            self._drop(key)
            newer = Entry(Record("", version, deleted=True), 0.0)
            self._keep_absent(key, newer, _NEVER)

    def due(self, now_s: float) -> list[str]:
        """Keys of what was used and will soon not be believed any more; each is given once."""
        if not self.hears(now_s):
            return []
        ending = [
            number
            for number, moment in self._moments.items()
            if moment.until_s < now_s + RENEWED_AHEAD_S
        ]
        keys: list[str] = []
        for number in ending:
            moment = self._moments.pop(number)
            keys += (key for key in moment.keys if self._is_used_since(moment, key))
            moment.keys.clear()
        return keys

    def renew(self, key: str, entry: Entry, mark: Mark) -> None:
        """Believe anew what is kept, if `entry`, asked for at `mark`, says the same.

        What differs without having a newer version was changed behind the registry's back: it is
        forgotten.
        """
        kept, record = self._present(key), entry.record
        if kept is None or record is None or kept.version != record.version:
            return
        if not _is_of(kept, record):
            self._drop(key)
        elif kept.moment.generation == mark[0] == self.generation:
            kept.is_used = False
            self._learnt(key, kept, mark[0], entry.fetched_at_s)

    def registered(self, prefix_key: str) -> None:
        """Something was registered below a prefix: earlier "not found" no longer holds."""
        self._registration += 1
        if len(self._registrations) >= self._absent_max:
            self._registrations.clear()
            self._registrations_before = self._registration
        self._registrations[prefix_key] = self._registration

    def heard(self, asked_at_s: float) -> None:
        """Every invalidation that was sent before `asked_at_s` has arrived."""
        self.heard_at_s = asked_at_s

    def disconnect(self) -> None:
        """Invalidations may be missed from now on."""
        self.connected = False
        self._begin_generation()

    def connect(self) -> None:
        """Invalidations arrive again; what was learnt before may be outdated."""
        self.connected = True
        self._begin_generation()

    def _begin_generation(self) -> None:
        self.generation += 1
        self._moments.clear()

    def _used_again(self, key: str) -> Kept | None:
        kept = self._old.pop(key, None)
        if kept is not None:
            self._keep(key, kept)
        return kept

    def _held(self, key: str) -> Kept | None:
        return self._present(key) or self._leaving.get(key)

    def _present(self, key: str) -> Kept | None:
        return self.young.get(key) or self._old.get(key)

    def _is_used_since(self, moment: Moment, key: str) -> bool:
        kept = self._present(key)
        return kept is not None and kept.moment is moment and kept.is_used

    def _keep(self, key: str, kept: Kept) -> None:
        self.young[key] = kept
        if len(self.young) > self._young_max:
            del self.young[key]
            # Nothing is leaving any more: filling `young` has freed several for each that came.
            self._leaving, self._old, self.young = self._old, self.young, {key: kept}
        for _ in range(min(_FREED_A_TURN, len(self._leaving))):
            self._leaving.popitem()[1].moment = _GONE

    def _packed(self, key: str, record: Record, entry: Entry, mark: Mark) -> Kept:
        kept = Kept()
        # One object for equal texts and numbers: most are, and each would be 32 to 100 bytes.
        kept.handle = key if record.handle == key else record.handle
        if record.stamp_s != self._stamp_s:
            self._stamp_s = record.stamp_s
        kept.stamp_s = self._stamp_s
        kept.version, kept.wire = record.version, record.wire
        kept.is_used = True
        self._learnt(key, kept, mark[0], entry.fetched_at_s)
        entry.prepared = kept
        return kept

    def _learnt(self, key: str, kept: Kept, generation: int, fetched_at_s: float) -> None:
        kept.moment = self._moment(generation, fetched_at_s)
        kept.moment.keys.append(key)

    def _moment(self, generation: int, fetched_at_s: float) -> Moment:
        number = (generation, int(fetched_at_s / _MOMENT_S))
        moment = self._moments.get(number)
        if moment is None or moment.fetched_at_s > fetched_at_s:
            if len(self._moments) >= _MOMENTS_MAX:
                self._moments.clear()
            moment = self._moments[number] = Moment(generation, fetched_at_s, self._cap_s())
        return moment

    def _cap_s(self) -> float:
        """How long the entries of a new moment are believed; the caps of moments that follow each
        other lie far apart, and together spread evenly."""
        if not self.connected:
            return DISCONNECTED_S
        self._spread = (self._spread + _GOLDEN) % 1.0
        return CONNECTED_S - self._spread * (CONNECTED_S - RENEWED_FROM_S)

    def _drop(self, key: str) -> None:
        for kept_there in (self.young, self._old, self._leaving):
            kept = kept_there.pop(key, None)
            if kept is not None:
                kept.moment = _GONE

    def _keep_absent(self, key: str, entry: Entry, mark: Mark) -> None:
        self._absent[key] = (mark, entry)
        self._absent.move_to_end(key)
        if len(self._absent) > self._absent_max:
            self._absent.popitem(last=False)

    def _fresh_absent(self, key: str, prefix_key: str, now_s: float) -> Entry | None:
        found = self._absent.get(key)
        if found is None or found[0] != self.mark(prefix_key):
            return None
        entry = found[1]
        return entry if is_fresh_absence(entry, now_s, connected=self.hears(now_s)) else None


def _is_of(kept: Kept, record: Record) -> bool:
    is_named = kept.handle == record.handle and kept.stamp_s == record.stamp_s
    return is_named and kept.wire == record.wire and not record.deleted
