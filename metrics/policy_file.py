"""Policy files: one policy a file, in TOML."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal, TypeVar

from metrics.dimension import LEVELS
from metrics.place import FOREIGN, HK_MO_TW, OTHER_PROVINCE, Home, place_classes, province_name
from metrics.policy import (
    COUNTED,
    ENTERPRISE_NODE_READINGS,
    INTEGRATION_READINGS,
    PERIODS,
    REGISTRATION_READINGS,
    RESOLUTION_READINGS,
    WINDOW_DAYS_MAX,
    WINDOWED_MEASURES,
    CalendarYear,
    Condition,
    DevicesMeasure,
    EnterprisesMeasure,
    EventsMeasure,
    FromTo,
    IntegrationMeasure,
    KindsMeasure,
    Measure,
    Named,
    Policy,
    PolicyError,
    ThresholdsMeasure,
    Trailing,
    Window,
    Words,
)

# Each policy is judged at every scrape, and is a screen of its own.
POLICIES_MAX = 20
# The longest bundled policy has 10 kB; a book of a hundred measures would fit.
FILE_SIZE_BYTES_MAX = 262_144
TEXT_SIZE_MAX = 4_000
# Each entry becomes a label value or a row on a screen: more would not be read by anybody.
ENTRIES_MAX = 100
# A number that a double still holds exactly, so that the metrics page can show it.
NUMBER_MAX = 2**53

# Ids become label values, so they are short and plain.
_ID_FORM = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_LABEL_FORM = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PROVINCE_FORM = re.compile(r"[1-9][0-9]")

_BUNDLED = Path(__file__).parent / "policies"


def load_policy(path: Path) -> Policy:
    """The policy that a TOML file describes.

    Raises:
        PolicyError: for a file that cannot be read, and for a missing, unknown or unfit key.
    """
    table = _Table(str(path), "", _load_toml(path))
    policy = _policy(table)
    table.done()
    if policy.windows and policy.claim_window not in {window.id for window in policy.windows}:
        raise table.error("claim_window", "the id of one of the windows", policy.claim_window)
    return policy


def load_policies(path: Path) -> tuple[Policy, ...]:
    """The policy of a file, or those of all `*.toml` in a folder, by file name.

    Raises:
        PolicyError: as `load_policy`; for a folder with no policy or too many; and for an id
            that two of them have, since figures of both would go by one name.
    """
    if not path.is_dir():
        return (load_policy(path),)
    # Editors and file synchronisers keep hidden files beside those that are meant.
    files = sorted(file for file in path.glob("*.toml") if not file.name.startswith("."))
    if not 1 <= len(files) <= POLICIES_MAX:
        raise PolicyError(f"{path}: expected 1 to {POLICIES_MAX} files *.toml, found {len(files)}")
    policies = tuple(load_policy(file) for file in files)
    for policy_id, number in Counter(policy.id for policy in policies).items():
        if number > 1:
            raise PolicyError(f"{path}: id {policy_id!r}: expected in one file, found in {number}")
    return policies


def bundled_policies() -> tuple[Policy, ...]:
    """The policies that come with the node, by file name."""
    return load_policies(_BUNDLED)


def policies_beside_bundled(path: Path | None) -> tuple[Policy, ...]:
    """The policies of a file or folder, then the bundled ones that none of them replaces by its id.

    Raises:
        PolicyError: as `load_policies`.
    """
    own = () if path is None else load_policies(path)
    ids = {policy.id for policy in own}
    return (*own, *(policy for policy in bundled_policies() if policy.id not in ids))


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

    def lacks(self, key: str, may_lack: bool = True) -> bool:
        """Whether a key that may be missing is missing; a key that must not be never is."""
        return may_lack and key not in self._left

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

    def id(self, key: str = "id") -> str:
        return self.form(key, _ID_FORM, "1 to 64 characters a-z, 0-9, - and _")

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
    is_excerpt = _is_excerpt(table)
    valid_from, valid_to = _validity(table, is_excerpt)
    home = table.table("home", _home)
    classes = place_classes(home)
    measures = _distinct(table, "measures", lambda entry: _measure(entry, classes, is_excerpt))
    needed = {key for measure in measures for key in _keys_needed(measure)}

    def readings(key: str, known: Sequence[str]) -> tuple[Named, ...]:
        return _distinct(table, key, _named(known), key in needed)

    return Policy(
        id=table.id(),
        title=table.words("title"),
        issuer=None if table.lacks("issuer", is_excerpt) else table.words("issuer"),
        document_number=None if table.lacks("document_number") else table.text("document_number"),
        is_excerpt=is_excerpt,
        source=None if table.lacks("source", not is_excerpt) else table.text("source"),
        note=None if table.lacks("note", not is_excerpt) else table.words("note"),
        valid_from=valid_from,
        valid_to=valid_to,
        validity_quote=_quote(table, "validity_quote", is_excerpt),
        home=home,
        claim_window=""
        if table.lacks("claim_window", "windows" not in needed)
        else table.id("claim_window"),
        levels=_distinct(table, "levels", _named(LEVELS)),
        resolution_readings=_distinct(table, "resolution_readings", _named(RESOLUTION_READINGS)),
        integration_readings=readings("integration_readings", INTEGRATION_READINGS),
        registration_readings=readings("registration_readings", REGISTRATION_READINGS),
        enterprise_node_readings=readings("enterprise_node_readings", ENTERPRISE_NODE_READINGS),
        windows=_distinct(table, "windows", _window, "windows" in needed),
        measures=measures,
    )


def _keys_needed(measure: Measure) -> Iterable[str]:
    """The keys of the policy that it may lack, unless a measure like this is in it."""
    if isinstance(measure, WINDOWED_MEASURES):
        yield "windows"
    if isinstance(measure, IntegrationMeasure):
        yield "integration_readings"
    if isinstance(measure, ThresholdsMeasure):
        for condition in measure.conditions:
            yield f"{condition.counted.removesuffix('s')}_readings"


def _is_excerpt(table: _Table) -> bool:
    return (
        not table.lacks("text_known")
        and table.one_of("text_known", ("whole", "excerpt")) == "excerpt"
    )


def _quote(table: _Table, key: str, is_excerpt: bool) -> str | None:
    return None if table.lacks(key, is_excerpt) else table.text(key)


def _validity(table: _Table, is_excerpt: bool) -> tuple[date | None, date | None]:
    """A whole text says when it comes into force; not every one says when that ends."""
    if table.lacks("valid_from", is_excerpt):
        return None, None if table.lacks("valid_to") else table.day("valid_to")
    if table.lacks("valid_to"):
        return table.day("valid_from"), None
    return _days(table, "valid_from", "valid_to")


_I = TypeVar("_I", bound=Named | Window | Measure | Condition)


def _distinct(
    table: _Table, key: str, read: Callable[[_Table], _I], is_needed: bool = True
) -> tuple[_I, ...]:
    if table.lacks(key, not is_needed):
        return ()
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


def _any_named(table: _Table) -> Named:
    return Named(table.id(), table.words("name"))


def _window(table: _Table) -> Window:
    window_id, name = table.id(), table.words("name")
    match table.one_of("kind", ("trailing", "calendar_year", "from_to")):
        case "trailing":
            return Trailing(window_id, name, table.whole("days", 1, WINDOW_DAYS_MAX))
        case "calendar_year":
            year = None if table.lacks("year") else table.whole("year", 1970, 9999)
            return CalendarYear(window_id, name, year)
    first, last = _days(table, "first", "last")
    if (last - first).days >= WINDOW_DAYS_MAX:
        raise table.error("last", f"at most {WINDOW_DAYS_MAX} days in the window", last.isoformat())
    return FromTo(window_id, name, first, last)


def _measure(table: _Table, classes: Sequence[str], is_excerpt: bool) -> Measure:
    kind = table.one_of("kind", tuple(_MEASURES))
    quote = _quote(table, "quote", is_excerpt)
    return _MEASURES[kind](table, table.id(), table.words("title"), quote, classes)


def _integration_measure(
    table: _Table, measure_id: str, title: Words, quote: str | None, classes: Sequence[str]
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
    table: _Table, measure_id: str, title: Words, quote: str | None, classes: Sequence[str]
) -> Measure:
    kinds = _distinct(table, "kinds", _any_named)
    return KindsMeasure(measure_id, title, quote, kinds, table.yes_or_no("home_only"))


def _enterprises_measure(
    table: _Table, measure_id: str, title: Words, quote: str | None, classes: Sequence[str]
) -> Measure:
    steps = table.wholes("steps_at_least", 1)
    if list(steps) != sorted(set(steps)):
        raise table.error("steps_at_least", "numbers that grow", list(steps))
    return EnterprisesMeasure(measure_id, title, quote, steps)


def _devices_measure(
    table: _Table, measure_id: str, title: Words, quote: str | None, classes: Sequence[str]
) -> Measure:
    at_most = table.whole("per_enterprise_and_year_at_most", 1)
    return DevicesMeasure(measure_id, title, quote, at_most)


def _events_measure(
    table: _Table, measure_id: str, title: Words, quote: str | None, classes: Sequence[str]
) -> Measure:
    return EventsMeasure(measure_id, title, quote)


def _thresholds_measure(
    table: _Table, measure_id: str, title: Words, quote: str | None, classes: Sequence[str]
) -> Measure:
    return ThresholdsMeasure(
        measure_id,
        title,
        quote,
        conditions=_distinct(table, "conditions", _condition),
        unmeasured=_distinct(table, "unmeasured", _any_named, is_needed=False),
    )


def _condition(table: _Table) -> Condition:
    comparison = _comparison(table)
    periods = {period.id: period for period in PERIODS}
    return Condition(
        id=table.id(),
        name=table.words("name"),
        counted=table.one_of("counted", COUNTED),
        period=periods[table.one_of("period", tuple(periods))],
        comparison=comparison,
        # "More than 0" asks for something; "at least 0" asks for nothing.
        threshold=table.whole(comparison, 1 if comparison == "at_least" else 0),
    )


def _comparison(table: _Table) -> Literal["at_least", "more_than"]:
    has_at_least, has_more_than = not table.lacks("at_least"), not table.lacks("more_than")
    if has_at_least == has_more_than:
        found = "both" if has_at_least else None
        raise table.error("at_least", "either this number or more_than", found)
    return "at_least" if has_at_least else "more_than"


_MEASURES: Final = {
    "resolutions_and_integrations": _integration_measure,
    "applications_by_kind": _kinds_measure,
    "enterprises_served": _enterprises_measure,
    "devices_registered": _devices_measure,
    "security_events": _events_measure,
    "thresholds": _thresholds_measure,
}
