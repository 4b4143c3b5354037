"""Policies: the rules of a measure as data, read from one TOML file each."""

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

from metrics.day import date_of, number_of
from metrics.dimension import LEVELS
from metrics.place import FOREIGN, HK_MO_TW, OTHER_PROVINCE, Home, place_classes, province_name

RESOLUTION_READINGS: Final = ("external_successes", "successes", "requests")
INTEGRATION_READINGS: Final = ("applications", "owners", "regions")

# The bundled policy has 10 kB; a book of a hundred measures would fit.
FILE_SIZE_BYTES_MAX = 262_144
TEXT_SIZE_MAX = 4_000
# Each entry becomes a label value or a row on a screen: more would not be read by anybody.
ENTRIES_MAX = 100
# The ledger is asked for at most one leap year at a time.
WINDOW_DAYS_MAX = 366
# A number that a double still holds exactly, so that the metrics page can show it.
NUMBER_MAX = 2**53

# Ids become label values, so they are short and plain.
_ID_FORM = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_LABEL_FORM = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PROVINCE_FORM = re.compile(r"[1-9][0-9]")

_BUNDLED = Path(__file__).parent / "policies"


class PolicyError(ValueError):
    """A policy file cannot be used: which file, which key, what was expected."""


@dataclass(frozen=True, slots=True)
class Words:
    """The same words in Chinese and in English."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Named:
    """An id, and how people call it: a level, a reading, a kind of application."""

    id: str
    name: Words


@dataclass(frozen=True, slots=True)
class Span:
    """Day numbers `first` to `last`, both included."""

    first: int
    last: int

    @property
    def days(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, day: int) -> bool:
        return self.first <= day <= self.last


@dataclass(frozen=True, slots=True)
class Trailing:
    """The last `days` complete days; yesterday is the last of them."""

    id: str
    name: Words
    days: int

    def span(self, today: int) -> Span:
        return Span(today - self.days, today - 1)


@dataclass(frozen=True, slots=True)
class CalendarYear:
    """All days of `year`; without one, of the year that yesterday belongs to.

    Days to come are in the window like any other day without data, so that the first days of
    January cannot pass for a year.
    """

    id: str
    name: Words
    year: int | None = None

    def span(self, today: int) -> Span:
        year = self.year or date_of(today - 1).year
        return Span(number_of(date(year, 1, 1)), number_of(date(year, 12, 31)))


@dataclass(frozen=True, slots=True)
class FromTo:
    """The days from `first` to `last`, both included."""

    id: str
    name: Words
    first: date
    last: date

    def __post_init__(self) -> None:
        """Refuse a window without days, and one longer than the ledger is asked for.

        Raises:
            PolicyError: says which bound is broken.
        """
        days = (self.last - self.first).days + 1
        if not 1 <= days <= WINDOW_DAYS_MAX:
            raise PolicyError(
                f"window {self.id!r}, {self.first} to {self.last}: "
                f"expected 1 to {WINDOW_DAYS_MAX} days, found {days}"
            )

    def span(self, today: int) -> Span:
        return Span(number_of(self.first), number_of(self.last))


Window: TypeAlias = Trailing | CalendarYear | FromTo


@dataclass(frozen=True, slots=True)
class IntegrationMeasure:
    """Met when the volume and one of the two numbers of integrations are reached."""

    id: str
    title: Words
    quote: str
    daily_average_more_than: int
    other_provinces_at_least: int
    other_countries_at_least: int
    other_provinces: tuple[str, ...]  # place classes
    other_countries: tuple[str, ...]  # place classes
    kind: Literal["resolutions_and_integrations"] = "resolutions_and_integrations"


@dataclass(frozen=True, slots=True)
class KindsMeasure:
    """A number of applications for each kind; `home_only` leaves out owners elsewhere."""

    id: str
    title: Words
    quote: str
    kinds: tuple[Named, ...]
    home_only: bool
    kind: Literal["applications_by_kind"] = "applications_by_kind"


@dataclass(frozen=True, slots=True)
class EnterprisesMeasure:
    """Met in steps, by the number of enterprises."""

    id: str
    title: Words
    quote: str
    steps_at_least: tuple[int, ...]
    kind: Literal["enterprises_served"] = "enterprises_served"


@dataclass(frozen=True, slots=True)
class DevicesMeasure:
    """A number of devices, capped for each enterprise and calendar year."""

    id: str
    title: Words
    quote: str
    per_enterprise_and_year_at_most: int
    kind: Literal["devices_registered"] = "devices_registered"


@dataclass(frozen=True, slots=True)
class EventsMeasure:
    """A number of security events delivered."""

    id: str
    title: Words
    quote: str
    kind: Literal["security_events"] = "security_events"


Measure: TypeAlias = (
    IntegrationMeasure | KindsMeasure | EnterprisesMeasure | DevicesMeasure | EventsMeasure
)


@dataclass(frozen=True, slots=True)
class Policy:
    """One published policy; readings are in order, strictest first."""

    id: str
    title: Words
    issuer: Words
    document_number: str
    valid_from: date
    valid_to: date
    validity_quote: str
    home: Home
    claim_window: str
    levels: tuple[Named, ...]
    resolution_readings: tuple[Named, ...]
    integration_readings: tuple[Named, ...]
    windows: tuple[Window, ...]
    measures: tuple[Measure, ...]

    @property
    def validity(self) -> Span:
        """The days on which the policy is in force."""
        return Span(number_of(self.valid_from), number_of(self.valid_to))


def load_policy(path: Path) -> Policy:
    """The policy that a TOML file describes.

    Raises:
        PolicyError: for a file that cannot be read, and for a missing, unknown or unfit key.
    """
    table = _Table(str(path), "", _load_toml(path))
    policy = _policy(table)
    table.done()
    if policy.claim_window not in {window.id for window in policy.windows}:
        raise table.error("claim_window", "the id of one of the windows", policy.claim_window)
    return policy


def bundled_policies() -> tuple[Policy, ...]:
    """The policies that come with the node, by file name."""
    return tuple(load_policy(path) for path in sorted(_BUNDLED.glob("*.toml")))


def _load_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > FILE_SIZE_BYTES_MAX:
        raise PolicyError(f"{path}: expected a file of at most {FILE_SIZE_BYTES_MAX} bytes")
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"{path}: expected TOML in UTF-8: {error}") from error


_T = TypeVar("_T")


class _Table:
    """One table of a policy file, taken apart key by key; what is left over is a mistake."""

    def __init__(self, file: str, where: str, data: dict[str, object]) -> None:
        self._file = file
        self._where = where
        self._left = dict(data)

    def error(self, key: str, expected: str, found: object) -> PolicyError:
        shown = "nothing" if found is None else repr(found)
        return PolicyError(f"{self._file}: {self._where}{key}: expected {expected}, found {shown}")

    def done(self) -> None:
        for key in self._left:
            raise PolicyError(f"{self._file}: {self._where}{key}: unknown key, remove it")

    def has(self, key: str) -> bool:
        return key in self._left

    def text(self, key: str) -> str:
        found = self._left.pop(key, None)
        if not isinstance(found, str) or not found.strip() or len(found) > TEXT_SIZE_MAX:
            raise self.error(key, f"a text of 1 to {TEXT_SIZE_MAX} characters", found)
        return found

    def form(self, key: str, form: re.Pattern[str], expected: str) -> str:
        found = self.text(key)
        if not form.fullmatch(found):
            raise self.error(key, expected, found)
        return found

    def id(self) -> str:
        return self.form("id", _ID_FORM, "1 to 64 characters a-z, 0-9, - and _")

    def one_of(self, key: str, known: Sequence[str]) -> str:
        found = self.text(key)
        if found not in known:
            raise self.error(key, f"one of {', '.join(known)}", found)
        return found

    def whole(self, key: str, at_least: int, at_most: int = NUMBER_MAX) -> int:
        return self._whole(key, self._left.pop(key, None), at_least, at_most)

    def wholes(self, key: str, at_least: int) -> tuple[int, ...]:
        found = self._entries(key)
        return tuple(
            self._whole(f"{key}[{place}]", entry, at_least, NUMBER_MAX)
            for place, entry in enumerate(found)
        )

    def yes_or_no(self, key: str) -> bool:
        found = self._left.pop(key, None)
        if not isinstance(found, bool):
            raise self.error(key, "true or false", found)
        return found

    def day(self, key: str) -> date:
        found = self._left.pop(key, None)
        if not isinstance(found, date) or isinstance(found, datetime):
            raise self.error(key, "a date such as 2020-06-23, without quotes", found)
        return found

    def choices(self, key: str, known: Sequence[str]) -> tuple[str, ...]:
        found = self._entries(key)
        for place, entry in enumerate(found):
            if entry not in known or entry in found[:place]:
                raise self.error(f"{key}[{place}]", f"one of {', '.join(known)}, once", entry)
        return tuple(str(entry) for entry in found)

    def table(self, key: str, read: Callable[["_Table"], _T]) -> _T:
        found = self._left.pop(key, None)
        return self._read(key, found, read)

    def tables(self, key: str, read: Callable[["_Table"], _T]) -> tuple[_T, ...]:
        return tuple(
            self._read(f"{key}[{place}]", entry, read)
            for place, entry in enumerate(self._entries(key))
        )

    def words(self, key: str) -> Words:
        return self.table(key, lambda table: Words(table.text("zh"), table.text("en")))

    def _read(self, key: str, found: object, read: Callable[["_Table"], _T]) -> _T:
        if not isinstance(found, dict):
            raise self.error(key, "a table", found)
        table = _Table(self._file, f"{self._where}{key}.", found)
        value = read(table)
        table.done()
        return value

    def _whole(self, key: str, found: object, at_least: int, at_most: int) -> int:
        if isinstance(found, int) and not isinstance(found, bool) and at_least <= found <= at_most:
            return found
        raise self.error(key, f"a whole number from {at_least} to {at_most}", found)

    def _entries(self, key: str) -> list[object]:
        found = self._left.pop(key, None)
        if not isinstance(found, list) or not 1 <= len(found) <= ENTRIES_MAX:
            raise self.error(key, f"1 to {ENTRIES_MAX} entries", found)
        return found


def _policy(table: _Table) -> Policy:
    valid_from, valid_to = _days(table, "valid_from", "valid_to")
    home = table.table("home", _home)
    classes = place_classes(home)
    return Policy(
        id=table.id(),
        title=table.words("title"),
        issuer=table.words("issuer"),
        document_number=table.text("document_number"),
        valid_from=valid_from,
        valid_to=valid_to,
        validity_quote=table.text("validity_quote"),
        home=home,
        claim_window=table.text("claim_window"),
        levels=_distinct(table, "levels", _named(LEVELS)),
        resolution_readings=_distinct(table, "resolution_readings", _named(RESOLUTION_READINGS)),
        integration_readings=_distinct(table, "integration_readings", _named(INTEGRATION_READINGS)),
        windows=_distinct(table, "windows", _window),
        measures=_distinct(table, "measures", lambda entry: _measure(entry, classes)),
    )


_I = TypeVar("_I", bound=Named | Window | Measure)


def _distinct(table: _Table, key: str, read: Callable[[_Table], _I]) -> tuple[_I, ...]:
    entries = table.tables(key, read)
    seen: set[str] = set()
    for place, entry in enumerate(entries):
        if entry.id in seen:
            raise table.error(f"{key}[{place}].id", "an id that no other entry has", entry.id)
        seen.add(entry.id)
    return entries


def _days(table: _Table, first_key: str, last_key: str) -> tuple[date, date]:
    first, last = table.day(first_key), table.day(last_key)
    if last < first:
        raise table.error(last_key, f"a day not before {first_key}", last.isoformat())
    return first, last


def _home(table: _Table) -> Home:
    province = table.form("province", _PROVINCE_FORM, "two digits of GB/T 2260")
    if province_name(province) is None:
        raise table.error("province", "a province of GB/T 2260", province)
    label = table.form("label", _LABEL_FORM, "a label value of a-z, 0-9 and _")
    if label in (OTHER_PROVINCE, HK_MO_TW, FOREIGN):
        raise table.error("label", "a label value of its own", label)
    return Home(province, label)


def _named(known: Sequence[str]) -> Callable[[_Table], Named]:
    return lambda table: Named(table.one_of("id", known), table.words("name"))


def _kind(table: _Table) -> Named:
    return Named(table.id(), table.words("name"))


def _window(table: _Table) -> Window:
    window_id, name = table.id(), table.words("name")
    match table.one_of("kind", ("trailing", "calendar_year", "from_to")):
        case "trailing":
            return Trailing(window_id, name, table.whole("days", 1, WINDOW_DAYS_MAX))
        case "calendar_year":
            year = table.whole("year", 1970, 9999) if table.has("year") else None
            return CalendarYear(window_id, name, year)
    first, last = _days(table, "first", "last")
    if (last - first).days >= WINDOW_DAYS_MAX:
        raise table.error("last", f"at most {WINDOW_DAYS_MAX} days in the window", last.isoformat())
    return FromTo(window_id, name, first, last)


def _measure(table: _Table, classes: Sequence[str]) -> Measure:
    kind = table.one_of("kind", tuple(_MEASURES))
    return _MEASURES[kind](table, table.id(), table.words("title"), table.text("quote"), classes)


def _integration_measure(
    table: _Table, measure_id: str, title: Words, quote: str, classes: Sequence[str]
) -> Measure:
    return IntegrationMeasure(
        measure_id,
        title,
        quote,
        daily_average_more_than=table.whole("daily_average_more_than", 0),
        other_provinces_at_least=table.whole("other_provinces_at_least", 1),
        other_countries_at_least=table.whole("other_countries_at_least", 1),
        other_provinces=table.choices("other_provinces", classes),
        other_countries=table.choices("other_countries", classes),
    )


def _kinds_measure(
    table: _Table, measure_id: str, title: Words, quote: str, classes: Sequence[str]
) -> Measure:
    kinds = _distinct(table, "kinds", _kind)
    return KindsMeasure(measure_id, title, quote, kinds, table.yes_or_no("home_only"))


def _enterprises_measure(
    table: _Table, measure_id: str, title: Words, quote: str, classes: Sequence[str]
) -> Measure:
    steps = table.wholes("steps_at_least", 1)
    if list(steps) != sorted(set(steps)):
        raise table.error("steps_at_least", "numbers that grow", list(steps))
    return EnterprisesMeasure(measure_id, title, quote, steps)


def _devices_measure(
    table: _Table, measure_id: str, title: Words, quote: str, classes: Sequence[str]
) -> Measure:
    at_most = table.whole("per_enterprise_and_year_at_most", 1)
    return DevicesMeasure(measure_id, title, quote, at_most)


def _events_measure(
    table: _Table, measure_id: str, title: Words, quote: str, classes: Sequence[str]
) -> Measure:
    return EventsMeasure(measure_id, title, quote)


_MEASURES: Final = {
    "resolutions_and_integrations": _integration_measure,
    "applications_by_kind": _kinds_measure,
    "enterprises_served": _enterprises_measure,
    "devices_registered": _devices_measure,
    "security_events": _events_measure,
}
