"""The shared cache in memory: the twin of Redis, for one process."""

import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence

from resolver.entry import Announcements, Entry, Shelf, entry_from_bytes, entry_to_bytes
from resolver.errors import CacheUnavailableError

# About 100 MB of typical entries.
PLACES_MAX = 100_000


class MemoryCache:
    """Implements SharedCache; entries, tickets and epochs as in Redis, the oldest evicted first.

    `is_up` and `is_trusted` are set by whoever owns it; `listeners` hear every announcement.
    """

    def __init__(self, places_max: int = PLACES_MAX) -> None:
        self._places: OrderedDict[str, str | bytes] = OrderedDict()
        self._epochs: OrderedDict[str, str] = OrderedDict()
        self._places_max = places_max
        self.listeners: list[Callable[[Announcements], None]] = []
        self.is_up = True
        self.is_trusted = True

    async def get_many(self, keys: Sequence[tuple[str, str]]) -> list[Shelf]:
        """See SharedCache."""
        self._answer_or_fail()
        return [self._shelf(key, prefix_key) for key, prefix_key in keys]

    async def fill(self, entries: Sequence[tuple[str, Entry, str]]) -> None:
        """See SharedCache."""
        self._answer_or_fail()
        for key, entry, ticket in entries:
            known = self._places.get(key)
            is_older = isinstance(known, bytes) and _version(known) <= entry.version
            if is_older or (isinstance(known, str) and known == ticket):
                self._places[key] = entry_to_bytes(entry)

    async def announce(self, announcements: Announcements) -> None:
        """Forget what is older, then tell every listener."""
        self._answer_or_fail()
        for topic, key, version in announcements:
            if topic == "registered":
                self._epochs[key] = _new_ticket()
            elif topic == "record":
                known = self._places.get(key)
                if isinstance(known, str) or (known is not None and _version(known) < version):
                    del self._places[key]
        for listener in self.listeners:
            listener(announcements)

    async def flush(self) -> None:
        """Forget everything."""
        self._places.clear()
        self._epochs.clear()

    def _shelf(self, key: str, prefix_key: str) -> Shelf:
        found = self._places.setdefault(key, _new_ticket())
        entry = None if isinstance(found, str) else entry_from_bytes(found)
        if entry is not None and entry.record is not None:
            return Shelf(entry, "")
        epoch = self._epochs.setdefault(prefix_key, _new_ticket())
        self._evict()
        return Shelf(entry, epoch, found if isinstance(found, str) else "")

    def _evict(self) -> None:
        for places in (self._places, self._epochs):
            if len(places) > self._places_max:
                places.popitem(last=False)

    def _answer_or_fail(self) -> None:
        if not self.is_up:
            raise CacheUnavailableError("the cache is away")


def _version(data: bytes) -> int:
    return int(data[:16], 16)


def _new_ticket() -> str:
    return uuid.uuid4().hex
