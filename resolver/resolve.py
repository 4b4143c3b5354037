"""The whole act of resolving: process cache, shared cache, registry, and what to say without them.

The seams: `RecordSource` (PostgreSQL; in-memory twin) and `SharedCache` (Redis; in-memory twin).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Protocol

from resolver import referral
from resolver.entry import Entry, Shelf
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.freshness import DISCONNECTED_S, is_worth_sharing, stale_age_s
from resolver.hot import Hot, Kept, Mark
from resolver.identifier import PREFIX_HANDLE_PREFIX, Identifier
from resolver.prefix_directory import (
    NOT_HERE,
    PrefixDirectory,
    PrefixState,
    handle_of,
    names_prefix,
    refusal,
)
from resolver.record import HandleValue, Record
from resolver.response_code import ResponseCode
from resolver.unknown_budget import ANONYMOUS, UnknownBudget

# A fill that lost this many races against writers is answered, but not kept.
_RACES_MAX = 4
# Flights that share their questions: a statement of a thousand keys takes 3 ms.
_TOGETHER_MAX = 1_000
# Fetches and fills under way; beyond this the shared cache is not filled: it is optional.
_FILLS_MAX = 256
_TOO_MANY_UNKNOWN = "Too many names that do not exist are asked for: try again in a second"


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

    async def get_many(self, keys: Sequence[tuple[str, str]]) -> list[Shelf]:
        """What is there for each (key, prefix key).

        Raises:
            CacheUnavailableError: if it does not answer.
        """

    async def fill(self, entries: Sequence[tuple[str, Entry, str]]) -> None:
        """Put entries (key, entry, ticket) where the ticket still holds or an older one is.

        Raises:
            CacheUnavailableError: if it does not answer.
        """


class OwnPrefixHandles(Protocol):
    """What this node says of the prefixes that live here, besides what is stored."""

    def laid_over(self, record: Record | None, handle: str, *, is_homed: bool) -> Record | None:
        """The prefix handle `handle`, of which `record` is stored; None if it does not exist."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The answer to one question, before values are selected.

    `prefix` is the state of the prefix that answers, None if it does not live here. `entry` is set
    where the code is SUCCESS. `referral` is set where it is SERVICE_REFERRAL or PREFIX_REFERRAL:
    the HS_SITE or HS_SITE.PREFIX values of the service to be asked. `stale_age_s` is set where the
    answer is the last one known, the registry being away. UNKNOWN answers have the code
    SERVER_TOO_BUSY; `is_refused` tells those that were not looked for, because too many names that
    do not exist were asked for.
    """

    code: ResponseCode
    prefix: PrefixState | None = None
    entry: Entry | None = None
    message: str | None = None
    stale_age_s: int | None = None
    is_refused: bool = False
    referral: tuple[HandleValue, ...] = ()

    @property
    def record(self) -> Record:
        assert self.entry is not None
        assert self.entry.record is not None
        return self.entry.record


_Fetched = tuple[Entry, bool]
"""An entry, and whether it is the last one known rather than the present one."""


@dataclass(slots=True, eq=False)
class _Flight:
    """One fetch under way.

    `mark` is the moment at which it last asked, `floor` the newest version announced meanwhile.
    `asker` names the account that pays if there is no such record; None for a name heard before.
    """

    identifier: Identifier
    asked_at_s: float
    mark: Mark
    result: "asyncio.Future[_Fetched]"
    asker: str | None = None
    floor: int = 0
    shelf: Shelf | None = None

    @property
    def key(self) -> str:
        return self.identifier.key


@dataclass(slots=True)
class Lookups:
    """How often each tier was asked and what it gave, for the metrics page."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, tier: str, result: str, number: int = 1) -> None:
        self.counts[tier, result] = self.counts.get((tier, result), 0) + number


class Resolver:
    """Resolves identifiers for every door."""

    def __init__(
        self,
        records: RecordSource,
        cache: SharedCache,
        directory: PrefixDirectory,
        hot: Hot,
        unknown: UnknownBudget | None = None,
        lookups: Lookups | None = None,
        own: OwnPrefixHandles | None = None,
    ) -> None:
        self._records = records
        self._cache = cache
        self._directory = directory
        self._hot = hot
        self._own = own
        self._flights: dict[str, _Flight] = {}
        self._waiting: list[_Flight] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._unknown = unknown or UnknownBudget()
        self.lookups = lookups or Lookups()

    async def resolve(
        self,
        identifier: Identifier,
        now_s: float,
        *,
        authoritative: bool = False,
        asker: str = ANONYMOUS,
        do_not_refer: bool = False,
    ) -> Resolution:
        """Answer one question; never raises for a store that is away.

        `asker` names the account of `unknown_budget` that pays for a name that does not exist.
        With `do_not_refer` the answer is SERVER_NOT_RESPONSIBLE where it would be a referral.
        """
        (resolution,) = await self.resolve_many(
            [identifier],
            now_s,
            authoritative=authoritative,
            asker=asker,
            do_not_refer=do_not_refer,
        )
        return resolution

    async def resolve_many(
        self,
        identifiers: Sequence[Identifier],
        now_s: float,
        *,
        authoritative: bool = False,
        asker: str = ANONYMOUS,
        do_not_refer: bool = False,
    ) -> list[Resolution]:
        """Answer many questions with one round trip to each tier for all that is missing, and one
        more for all that are to be referred."""
        answers = await self._answers(identifiers, now_s, authoritative, asker)
        asked = {
            place: handles
            for place, answer in enumerate(answers)
            if (handles := self._referring(identifiers[place], answer, do_not_refer=do_not_refer))
        }
        if asked:
            ask = partial(self._found, now_s=now_s, authoritative=authoritative, asker=asker)
            for place, told in (await _told(asked, answers, ask)).items():
                answers[place] = _referred(answers[place], told, do_not_refer=do_not_refer)
        return answers

    def _referring(
        self, identifier: Identifier, answer: Resolution, *, do_not_refer: bool
    ) -> list[Identifier]:
        """The prefix handles, nearest first, that may name somebody else to be asked."""
        state = answer.prefix
        if state is not None and state.suspended:
            return []
        if state is not None and answer.code == ResponseCode.HANDLE_NOT_FOUND:
            is_handle = identifier.is_prefix_handle
            return referral.handles_above(identifier, state) if is_handle else []
        if do_not_refer or answer.code != ResponseCode.SERVER_NOT_RESPONSIBLE:
            return []
        if state is not None:
            return [handle_of(state.key)]
        return self._handle_of_derived(identifier)

    def _handle_of_derived(self, identifier: Identifier) -> list[Identifier]:
        """The handle of a prefix that nobody allotted, if it would live here: it may have been
        delegated in the native protocol."""
        handle = handle_of(identifier.prefix)
        if identifier.is_prefix_handle or self._directory.responsible(handle) is None:
            return []
        return [handle]

    async def _found(
        self, names: Iterable[Identifier], *, now_s: float, authoritative: bool, asker: str
    ) -> dict[str, Resolution]:
        """What this node itself answers to `names`, by key."""
        unique = list({name.key: name for name in names}.values())
        answers = await self._answers(unique, now_s, authoritative, asker)
        return {name.key: answer for name, answer in zip(unique, answers, strict=True)}

    async def _answers(
        self, identifiers: Sequence[Identifier], now_s: float, authoritative: bool, asker: str
    ) -> list[Resolution]:
        """Answers of this node itself."""
        answers: list[Resolution | None] = [None] * len(identifiers)
        asked: dict[str, Identifier] = {}
        for position, identifier in enumerate(identifiers):
            answer = self._at_once(identifier, now_s, authoritative)
            answers[position] = answer
            if answer is None:
                asked[identifier.key] = identifier
        if asked:
            fetched = await self._fetch(asked.values(), now_s, authoritative, asker)
            for position, identifier in enumerate(identifiers):
                if answers[position] is None:
                    answers[position] = self._answer(identifier, fetched[identifier.key], now_s)
        return [answer for answer in answers if answer is not None]

    def prepared(self, keys: Iterable[str], now_s: float) -> list[Kept | None]:
        """The records under `keys` with prepared answers, None where they may not be given as they
        are."""
        if not self._records.is_up:
            return [None for _ in keys]
        return self._hot.prepared(keys, now_s)

    def outdated(self, key: str, version: int) -> None:
        """A newer version of a record was announced: nothing older may be answered."""
        self._hot.outdated(key, version)
        flight = self._flights.get(key)
        if flight is not None:
            flight.floor = max(flight.floor, version)

    def registered(self, prefix_key: str) -> None:
        """New identifiers below a prefix were announced: earlier absences no longer hold."""
        self._hot.registered(prefix_key)

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
        if entry is None:
            return None
        return self._resolution(identifier, entry, state, now_s, is_stale=False)

    def _answer(
        self,
        identifier: Identifier,
        fetched: "_Fetched | RegistryUnavailableError | None",
        now_s: float,
    ) -> Resolution:
        # Anew: it may have been suspended while it was looked for.
        state = self._directory.responsible(identifier)
        refused = refusal(state, identifier)
        if refused is not None:
            return Resolution(refused[0], state, message=refused[1])
        if fetched is None:
            code = ResponseCode.SERVER_TOO_BUSY
            return Resolution(code, state, message=_TOO_MANY_UNKNOWN, is_refused=True)
        if isinstance(fetched, RegistryUnavailableError):
            found = self._without_registry(identifier, state, now_s)
            busy = Resolution(ResponseCode.SERVER_TOO_BUSY, state, message=str(fetched))
            return busy if found.code == ResponseCode.HANDLE_NOT_FOUND else found
        entry, is_stale = fetched
        return self._resolution(identifier, entry, state, now_s, is_stale=is_stale)

    def _resolution(
        self,
        identifier: Identifier,
        entry: Entry,
        state: PrefixState | None,
        now_s: float,
        *,
        is_stale: bool,
    ) -> Resolution:
        entry = self._laid_over(identifier, entry, state)
        if not entry.is_present:
            return Resolution(ResponseCode.HANDLE_NOT_FOUND, state)
        is_last_known = is_stale or not self._records.is_up
        age_s = stale_age_s(entry, now_s) if is_last_known else None
        return Resolution(ResponseCode.SUCCESS, state, entry, stale_age_s=age_s)

    def _without_registry(
        self, identifier: Identifier, state: PrefixState | None, now_s: float
    ) -> Resolution:
        """What this node says of itself, right whatever is stored, if nothing is known to be."""
        if self._hot.known_version(identifier.key) > 0:
            return Resolution(ResponseCode.HANDLE_NOT_FOUND, state)
        return self._resolution(identifier, Entry(None, now_s), state, now_s, is_stale=True)

    def _laid_over(self, identifier: Identifier, entry: Entry, state: PrefixState | None) -> Entry:
        """The entry as it is answered: of a prefix handle, with the site of this node."""
        if self._own is None or state is None or not state.hosted:
            return entry
        if not names_prefix(state, identifier):
            return entry
        handle = f"{PREFIX_HANDLE_PREFIX}/{identifier.suffix}"
        record = self._own.laid_over(entry.record, handle, is_homed=state.homed)
        return entry if record is entry.record else Entry(record, entry.fetched_at_s)

    async def _fetch(
        self, identifiers: Iterable[Identifier], now_s: float, authoritative: bool, asker: str
    ) -> "dict[str, _Fetched | RegistryUnavailableError | None]":
        """Entries by key; a question that is under way already is joined, not asked again.

        None where there is no budget for a name that may not exist. The fetch is a task of its
        own: a caller that goes away does not take it along.
        """
        found: dict[str, _Fetched | RegistryUnavailableError | None] = {}
        flights, mine = {}, []
        for identifier in identifiers:
            flight = None if authoritative else self._joinable(identifier.key, now_s)
            if flight is None:
                flight = self._new_flight(identifier, now_s, asker)
                if flight is None:
                    found[identifier.key] = None
                    continue
                mine.append(flight)
                if not authoritative:
                    self._flights[identifier.key] = flight
            flights[identifier.key] = flight
        if mine:
            self._depart(mine, now_s, authoritative)
        for key, flight in flights.items():
            try:
                found[key] = await asyncio.shield(flight.result)
            except RegistryUnavailableError as error:
                found[key] = error
        return found

    def _new_flight(self, identifier: Identifier, now_s: float, asker: str) -> _Flight | None:
        """A flight to be begun, or None without budget; what existed once needs none."""
        is_known = self._hot.known_version(identifier.key) > 0 or self._is_of_a_prefix(identifier)
        payer = None if is_known else asker
        if payer is not None and not self._unknown.admits(payer, now_s):
            return None
        result = asyncio.get_running_loop().create_future()
        return _Flight(identifier, now_s, self._hot.mark(identifier.prefix_key), result, payer)

    def _is_of_a_prefix(self, identifier: Identifier) -> bool:
        """True for the handle of a prefix that lives here: stored or not, it is no made-up name."""
        state = self._directory.responsible(identifier)
        return state is not None and names_prefix(state, identifier)

    def _joinable(self, key: str, now_s: float) -> _Flight | None:
        """The flight under way, unless it may bring what is too old without announcements.

        One that has landed while others of its group have not says what was true then.
        """
        flight = self._flights.get(key)
        if flight is None or flight.result.done():
            return None
        return flight if abs(now_s - flight.asked_at_s) < DISCONNECTED_S else None

    def _depart(self, flights: list[_Flight], now_s: float, authoritative: bool) -> None:
        """Begin flights; those of one turn of the event loop go together."""
        if authoritative:
            self._start(self._fly(flights, now_s, authoritative))
            return
        if not self._waiting:
            self._start(self._fly_together())
        self._waiting += flights

    async def _fly_together(self) -> None:
        flights, self._waiting = self._waiting, []
        for first in range(0, len(flights), _TOGETHER_MAX):
            some = flights[first : first + _TOGETHER_MAX]
            # What they bring is as old as the first question among them.
            asked_at_s = min(flight.asked_at_s for flight in some)
            self._start(self._fly(some, asked_at_s, authoritative=False))

    async def _fly(self, flights: list[_Flight], now_s: float, authoritative: bool) -> None:
        """Bring every flight to a result; what the caches do not know the registry is asked."""
        try:
            if not authoritative:
                await self._ask_shared(flights)
            missing = [flight for flight in flights if not self._landed(flight, now_s)]
            if missing:
                await self._ask_registry(missing, now_s)
        except Exception as error:
            for flight in flights:
                _fail(flight, error)
        finally:
            for flight in flights:
                self._settle(flight)
                flight.result.cancel()  # of what has a result, nothing
                if self._flights.get(flight.key) is flight:
                    del self._flights[flight.key]

    def _settle(self, flight: _Flight) -> None:
        if flight.asker is not None:
            result = flight.result
            is_known = result.done() and not result.cancelled() and result.exception() is None
            is_absent = is_known and not result.result()[0].is_present
            self._unknown.settle(flight.asker, is_absent=is_absent)

    async def _ask_shared(self, flights: list[_Flight]) -> None:
        if not self._cache.is_up:
            return
        with contextlib.suppress(CacheUnavailableError):
            shelves = await self._cache.get_many(
                [(flight.key, flight.identifier.prefix_key) for flight in flights]
            )
            for flight, shelf in zip(flights, shelves, strict=True):
                flight.shelf = shelf

    def _landed(self, flight: _Flight, now_s: float) -> bool:
        """Finish a flight from the shared cache, if what it holds may be believed."""
        shelf = flight.shelf
        if shelf is None:
            return False
        entry = shelf.entry
        believed = (
            entry is not None
            and self._cache.is_trusted
            and not self._is_overtaken(flight, entry.record)
            and (entry.record is not None or entry.epoch == shelf.epoch)
            and is_worth_sharing(entry, now_s)
        )
        self.lookups.add("l2", "hit" if believed else "miss")
        if entry is None or not believed:
            return False
        if self._is_registered(flight):
            self._hot.put(flight.key, entry, flight.mark)
        flight.result.set_result((entry, False))
        return True

    def _is_overtaken(self, flight: _Flight, record: Record | None) -> bool:
        """True if there is something newer: announced since the asking, or known before."""
        if record is None and self._hot.mark(flight.identifier.prefix_key) != flight.mark:
            return True
        return _version(record) < max(flight.floor, self._hot.known_version(flight.key))

    def _is_registered(self, flight: _Flight) -> bool:
        """True if announcements reach this flight; what another one brings is not kept."""
        return self._flights.get(flight.key) is flight

    async def _ask_registry(self, flights: list[_Flight], now_s: float) -> None:
        """Finish flights from the registry, or with the last entry known if it is away.

        Each as soon as it can be: until then others join it. It is asked for again where something
        newer was announced meanwhile.
        """
        for races_left in reversed(range(_RACES_MAX)):
            for flight in flights:
                flight.mark = self._hot.mark(flight.identifier.prefix_key)
                if not races_left and self._is_registered(flight):
                    # What this brings is right for who has asked so far, and for nobody later.
                    del self._flights[flight.key]
            try:
                records = await self._fetched([flight.key for flight in flights])
            except RegistryUnavailableError as error:
                for flight in flights:
                    self._land_stale(flight, error)
                return
            flights = self._land(flights, records, now_s, is_last=not races_left)
            if not flights:
                return

    def _land(
        self, flights: list[_Flight], records: dict[str, Record], now_s: float, *, is_last: bool
    ) -> list[_Flight]:
        """Finish flights with what the registry had; returns those that must ask again."""
        fills: list[tuple[str, Entry, str]] = []
        again: list[_Flight] = []
        found = 0
        for flight in flights:
            shelf, record = flight.shelf, records.get(flight.key)
            entry = Entry(record, now_s, "" if shelf is None else shelf.epoch)
            is_overtaken = self._is_overtaken(flight, record)
            if is_overtaken and not is_last:
                again.append(flight)
                continue
            if self._is_registered(flight) and not is_overtaken:
                self._hot.put(flight.key, entry, flight.mark)
                if shelf is not None:
                    fills.append((flight.key, entry, shelf.ticket))
            elif record is not None:
                # Who was shown this is not shown anything older, though it is not announced yet.
                self.outdated(flight.key, record.version)
            flight.result.set_result((entry, False))
            found += record is not None
        self.lookups.add("registry", "hit", found)
        self.lookups.add("registry", "miss", len(flights) - len(again) - found)
        if fills and self._cache.is_up and len(self._tasks) < _FILLS_MAX:
            self._start(self._fill(fills))
        return again

    async def _fetched(self, keys: list[str]) -> dict[str, Record]:
        if len(keys) > 1:
            return await self._records.fetch_many(keys)
        record = await self._records.fetch(keys[0])
        return {} if record is None else {keys[0]: record}

    def _land_stale(self, flight: _Flight, error: RegistryUnavailableError) -> None:
        """Finish a flight with the last entry known, if that was present and is not outdated."""
        shared = None if flight.shelf is None else flight.shelf.entry
        known = [entry for entry in (shared, self._hot.last_known(flight.key)) if entry is not None]
        newest = max(known, key=lambda entry: entry.version, default=None)
        if newest is None or not newest.is_present or newest.version < flight.floor:
            _fail(flight, error)
            return
        self.lookups.add("registry", "stale")
        flight.result.set_result((newest, True))

    async def _fill(self, entries: list[tuple[str, Entry, str]]) -> None:
        with contextlib.suppress(CacheUnavailableError):
            await self._cache.fill(entries)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_Ask = Callable[[Iterable[Identifier]], Awaitable[dict[str, Resolution]]]


async def _told(
    asked: Mapping[int, list[Identifier]], answers: Sequence[Resolution], ask: _Ask
) -> dict[int, Resolution]:
    """What the nearest of the prefix handles asked for each place says, or their service handle."""
    found = await ask(chain.from_iterable(asked.values()))
    told = {
        place: answer
        for place, handles in asked.items()
        if (answer := _nearest(found[handle.key] for handle in handles)) is not None
    }
    services = {
        place: service
        for place, answer in told.items()
        if answers[place].code == ResponseCode.SERVER_NOT_RESPONSIBLE
        and (service := _service(answer)) is not None
    }
    if services:
        sites = await ask(services.values())
        told.update((place, sites[service.key]) for place, service in services.items())
    return told


def _nearest(answers: Iterable[Resolution]) -> Resolution | None:
    return next((one for one in answers if one.code != ResponseCode.HANDLE_NOT_FOUND), None)


def _service(answer: Resolution) -> Identifier | None:
    """Where the sites are, if not in the prefix handle itself."""
    if answer.code != ResponseCode.SUCCESS or referral.sites(answer.record):
        return None
    return referral.service(answer.record)


def _referred(answer: Resolution, told: Resolution, *, do_not_refer: bool) -> Resolution:
    """The answer, or who is to be asked instead by what was `told`."""
    if told.code == ResponseCode.SERVER_TOO_BUSY:
        return told
    if told.code != ResponseCode.SUCCESS:
        return answer
    is_derived = answer.code == ResponseCode.HANDLE_NOT_FOUND
    find = referral.sites_of_derived if is_derived else referral.sites
    sites = find(told.record)
    if not sites:
        return answer
    if do_not_refer:
        return Resolution(ResponseCode.SERVER_NOT_RESPONSIBLE, answer.prefix, message=NOT_HERE)
    code = ResponseCode.PREFIX_REFERRAL if is_derived else ResponseCode.SERVICE_REFERRAL
    return Resolution(code, answer.prefix, stale_age_s=told.stale_age_s, referral=sites)


def _version(record: Record | None) -> int:
    return 0 if record is None else record.version


def _fail(flight: _Flight, error: Exception) -> None:
    if not flight.result.done():
        flight.result.set_exception(error)
        flight.result.exception()  # a caller that went away leaves it unread
