"""The whole act of resolving: process cache, shared cache, registry, and what to say without them.

The seams: `RecordSource` (PostgreSQL; in-memory twin) and `SharedCache` (Redis; in-memory twin).
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from resolver.entry import Entry
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.freshness import is_fresh, stale_age_s
from resolver.hot import Hot
from resolver.identifier import Identifier
from resolver.prefix_directory import PrefixDirectory, PrefixState, refusal
from resolver.record import Record
from resolver.response_code import ResponseCode

# A fill that lost this many races against writers is answered, but not kept.
_RACES_MAX = 4
# Fetches and fills under way; beyond this the shared cache is not filled: it is optional.
_FILLS_MAX = 256


class RecordSource(Protocol):
    """The truth about records."""

    @property
    def is_up(self) -> bool:
        """False while it is known to be away: answers are then the last ones known."""

    async def fetch(self, key: str) -> Record | None:
        """The record, deleted ones included, or None if there never was one.

        Raises:
            RegistryUnavailableError: if it cannot be known now.
        """

    async def fetch_many(self, keys: Sequence[str]) -> dict[str, Record]:
        """The records that exist, in one statement. Raises as `fetch`."""


class SharedCache(Protocol):
    """The cache that all workers share; a fill never overwrites a newer version."""

    @property
    def is_up(self) -> bool:
        """False while it is known to be away."""

    @property
    def is_trusted(self) -> bool:
        """False until every change made while it was away has reached it."""

    @property
    def connection_number(self) -> int:
        """Grows with every connection: a fill begun before a loss must not be finished after."""

    async def get_many(self, keys: Sequence[tuple[str, str]]) -> list[tuple[Entry | None, str]]:
        """For each (key, prefix key): the entry, and the prefix's present registration epoch.

        Raises:
            CacheUnavailableError: if it does not answer.
        """

    async def fill(self, entries: Sequence[tuple[str, Entry]], connection_number: int) -> None:
        """Keep entries unless newer versions are there, or the connection has changed.

        Raises:
            CacheUnavailableError: if it does not answer.
        """


@dataclass(frozen=True, slots=True)
class Resolution:
    """The answer to one question, before values are selected.

    `prefix` is the state of the allotted prefix, None if it does not live here. `entry` is set
    where the code is SUCCESS. `stale_age_s` is set where the answer is the last one known, the
    registry being away. UNKNOWN answers have the code SERVER_TOO_BUSY.
    """

    code: ResponseCode
    prefix: PrefixState | None = None
    entry: Entry | None = None
    message: str | None = None
    stale_age_s: int | None = None

    @property
    def record(self) -> Record:
        assert self.entry is not None
        assert self.entry.record is not None
        return self.entry.record


_Fetched = tuple[Entry, bool]
"""An entry, and whether it is the last one known rather than the present one."""


@dataclass(slots=True, eq=False)
class _Flight:
    """One fetch under way, and the newest version announced meanwhile."""

    identifier: Identifier
    result: "asyncio.Future[_Fetched]"
    floor: int = 0


@dataclass(slots=True)
class Lookups:
    """How often each tier was asked and what it gave, for the metrics page."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, tier: str, result: str, number: int = 1) -> None:
        self.counts[tier, result] = self.counts.get((tier, result), 0) + number


class Resolver:
    """Resolves identifiers for every door."""

    def __init__(
        self, records: RecordSource, cache: SharedCache, directory: PrefixDirectory, hot: Hot
    ) -> None:
        self._records = records
        self._cache = cache
        self._directory = directory
        self._hot = hot
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.lookups = Lookups()

    async def resolve(
        self, identifier: Identifier, now_s: float, *, authoritative: bool = False
    ) -> Resolution:
        """Answer one question; never raises for a store that is away."""
        (resolution,) = await self.resolve_many([identifier], now_s, authoritative=authoritative)
        return resolution

    async def resolve_many(
        self, identifiers: Sequence[Identifier], now_s: float, *, authoritative: bool = False
    ) -> list[Resolution]:
        """Answer many questions with one round trip to each tier for all that is missing."""
        answers: list[Resolution | None] = [None] * len(identifiers)
        asked: dict[str, Identifier] = {}
        for position, identifier in enumerate(identifiers):
            answer = self._at_once(identifier, now_s, authoritative)
            answers[position] = answer
            if answer is None:
                asked[identifier.key] = identifier
        if asked:
            fetched = await self._fetch(asked.values(), now_s, authoritative)
            for position, identifier in enumerate(identifiers):
                if answers[position] is None:
                    answers[position] = self._answer(identifier, fetched[identifier.key], now_s)
        return [answer for answer in answers if answer is not None]

    def outdated(self, key: str, version: int) -> None:
        """A newer version of a record was announced: nothing older may be answered."""
        self._hot.outdated(key, version)
        flight = self._flights.get(key)
        if flight is not None:
            flight.floor = max(flight.floor, version)

    def registered(self, prefix_key: str, epoch: str) -> None:
        """New identifiers below a prefix were announced: earlier absences no longer hold."""
        self._hot.registered(prefix_key, epoch)

    def _at_once(
        self, identifier: Identifier, now_s: float, authoritative: bool
    ) -> Resolution | None:
        try:
            state = self._directory.responsible(identifier)
        except RegistryUnavailableError as error:
            return Resolution(ResponseCode.SERVER_TOO_BUSY, message=str(error))
        refused = refusal(state, identifier)
        if refused is not None:
            return Resolution(refused[0], state, message=refused[1])
        if authoritative:
            return None
        entry = self._hot.fresh(identifier.key, identifier.prefix_key, now_s)
        self.lookups.add("l1", "miss" if entry is None else "hit")
        return None if entry is None else self._resolution(entry, state, now_s, is_stale=False)

    def _answer(
        self, identifier: Identifier, fetched: "_Fetched | RegistryUnavailableError", now_s: float
    ) -> Resolution:
        state = self._directory.responsible(identifier)
        if isinstance(fetched, RegistryUnavailableError):
            return Resolution(ResponseCode.SERVER_TOO_BUSY, state, message=str(fetched))
        entry, is_stale = fetched
        return self._resolution(entry, state, now_s, is_stale=is_stale)

    def _resolution(
        self, entry: Entry, state: PrefixState | None, now_s: float, *, is_stale: bool
    ) -> Resolution:
        if not entry.is_present:
            return Resolution(ResponseCode.HANDLE_NOT_FOUND, state)
        is_last_known = is_stale or not self._records.is_up
        age_s = stale_age_s(entry, now_s) if is_last_known else None
        return Resolution(ResponseCode.SUCCESS, state, entry, stale_age_s=age_s)

    async def _fetch(
        self, identifiers: Iterable[Identifier], now_s: float, authoritative: bool
    ) -> "dict[str, _Fetched | RegistryUnavailableError]":
        """Entries by key; a question that is under way already is joined, not asked again.

        The fetch is a task of its own: a caller that goes away does not take it along.
        """
        loop = asyncio.get_running_loop()
        flights, mine = {}, []
        for identifier in identifiers:
            flight = None if authoritative else self._flights.get(identifier.key)
            if flight is None:
                flight = _Flight(identifier, loop.create_future())
                mine.append(flight)
            flights[identifier.key] = flight
        if mine:
            self._start(self._fly(mine, now_s, authoritative))
        found: dict[str, _Fetched | RegistryUnavailableError] = {}
        for key, flight in flights.items():
            try:
                found[key] = await asyncio.shield(flight.result)
            except RegistryUnavailableError as error:
                found[key] = error
        return found

    async def _fly(self, flights: list[_Flight], now_s: float, authoritative: bool) -> None:
        """Bring every flight to a result; what the caches do not know the registry is asked."""
        if not authoritative:
            self._flights.update((flight.identifier.key, flight) for flight in flights)
        try:
            generation, connection = self._hot.generation, self._cache.connection_number
            shared = {} if authoritative else await self._ask_shared(flights)
            missing = [f for f in flights if not self._landed(f, shared, generation, now_s)]
            if missing:
                fetched = await self._ask_registry(missing, shared, now_s)
                if not authoritative:
                    self._keep(fetched, generation, connection)
        except Exception as error:
            for flight in flights:
                if not flight.result.done():
                    flight.result.set_exception(error)
                    flight.result.exception()  # a caller that went away leaves it unread
        finally:
            for flight in flights:
                if self._flights.get(flight.identifier.key) is flight:
                    del self._flights[flight.identifier.key]

    async def _ask_shared(self, flights: list[_Flight]) -> dict[str, tuple[Entry | None, str]]:
        if not self._cache.is_up:
            return {}
        try:
            found = await self._cache.get_many(
                [(flight.identifier.key, flight.identifier.prefix_key) for flight in flights]
            )
        except CacheUnavailableError:
            return {}
        return {f.identifier.key: item for f, item in zip(flights, found, strict=True)}

    def _landed(
        self,
        flight: _Flight,
        shared: dict[str, tuple[Entry | None, str]],
        generation: int,
        now_s: float,
    ) -> bool:
        """Finish a flight from the shared cache, if what it holds may be believed."""
        entry, epoch = shared.get(flight.identifier.key, (None, ""))
        believed = (
            entry is not None
            and self._cache.is_trusted
            and entry.version >= flight.floor
            and (entry.record is not None or entry.epoch == epoch)
            and is_fresh(entry, now_s, connected=True)
        )
        if shared:
            self.lookups.add("l2", "hit" if believed else "miss")
        if entry is None or not believed:
            return False
        self._hot.put(flight.identifier.key, entry, generation)
        flight.result.set_result((entry, False))
        return True

    async def _ask_registry(
        self,
        flights: list[_Flight],
        shared: dict[str, tuple[Entry | None, str]],
        now_s: float,
    ) -> list[tuple[str, Entry]]:
        """Finish flights from the registry, or with the last entry known if it is away."""
        try:
            records = await self._newest(flights)
        except RegistryUnavailableError as error:
            for flight in flights:
                self._land_stale(flight, shared, error)
            return []
        self.lookups.add("registry", "hit", len(records))
        self.lookups.add("registry", "miss", len(flights) - len(records))
        fetched = []
        for flight in flights:
            key = flight.identifier.key
            epoch = shared.get(key, (None, ""))[1]
            entry = Entry(records.get(key), now_s, epoch)
            if entry.version >= flight.floor:
                fetched.append((key, entry))
            flight.result.set_result((entry, False))
        return fetched

    async def _newest(self, flights: list[_Flight]) -> dict[str, Record]:
        """Records from the registry; asked again where a newer version was announced meanwhile."""
        records: dict[str, Record] = {}
        asked = flights
        for _ in range(_RACES_MAX):
            if len(asked) == 1:
                key = asked[0].identifier.key
                record = await self._records.fetch(key)
                if record is not None:
                    records[key] = record
            else:
                records.update(
                    await self._records.fetch_many([flight.identifier.key for flight in asked])
                )
            asked = [flight for flight in asked if _version(records, flight) < flight.floor]
            if not asked:
                break
        return records

    def _land_stale(
        self,
        flight: _Flight,
        shared: dict[str, tuple[Entry | None, str]],
        error: RegistryUnavailableError,
    ) -> None:
        key = flight.identifier.key
        known = [
            entry
            for entry in (shared.get(key, (None, ""))[0], self._hot.last_known(key))
            if entry is not None and entry.is_present and entry.version >= flight.floor
        ]
        if not known:
            flight.result.set_exception(error)
            flight.result.exception()
            return
        self.lookups.add("registry", "stale")
        flight.result.set_result((max(known, key=lambda entry: entry.version), True))

    def _keep(
        self, fetched: list[tuple[str, Entry]], generation: int, connection_number: int
    ) -> None:
        for key, entry in fetched:
            self._hot.put(key, entry, generation)
        if fetched and self._cache.is_up and len(self._tasks) < _FILLS_MAX:
            self._start(self._fill(fetched, connection_number))

    async def _fill(self, fetched: list[tuple[str, Entry]], connection_number: int) -> None:
        with contextlib.suppress(CacheUnavailableError):
            await self._cache.fill(fetched, connection_number)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _version(records: dict[str, Record], flight: _Flight) -> int:
    record = records.get(flight.identifier.key)
    return 0 if record is None else record.version
