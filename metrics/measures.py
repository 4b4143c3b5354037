"""Where the node stands against a policy: every reading over every window, and the claim."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, TypeAlias

from metrics.day import date_of
from metrics.dimension import (
    CALLER_CLASSES,
    CALLER_OPERATOR,
    CALLER_PROBE,
    CALLER_SANDBOX,
    EXTERNAL_CALLERS,
    LEVELS,
    OUTCOMES,
    SUCCESSES,
    UNCOUNTABLE_OUTCOMES,
)
from metrics.integrations import ApplicationEntry, Standing, keys_by_place, standings
from metrics.place import place_classes
from metrics.policy import (
    RESOLUTION_READINGS,
    DevicesMeasure,
    EnterprisesMeasure,
    EventsMeasure,
    IntegrationMeasure,
    KindsMeasure,
    Measure,
    Policy,
    Span,
    Window,
    Words,
)

# Never countable, whatever the reading: own probes, load tests and trials, the operator.
UNCOUNTABLE_CALLERS: Final = frozenset({CALLER_OPERATOR, CALLER_PROBE, CALLER_SANDBOX})
UNCOUNTABLE_REASONS: Final = (
    *(caller for caller in CALLER_CLASSES if caller in UNCOUNTABLE_CALLERS),
    *(outcome for outcome in OUTCOMES if outcome in UNCOUNTABLE_OUTCOMES),
)

# (level, reading or reason) -> day number -> count
_Series: TypeAlias = Mapping[tuple[str, str], Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class LedgerDays:
    """What the ledger holds of the days that are evaluated.

    `counts`: (day number, level, caller class, outcome) -> resolutions; a missing key is 0.
    `application_successes`: application id -> day number -> external successes.
    `damaged_days`: day number -> why nothing is claimed for that day.
    """

    counts: Mapping[tuple[int, str, str, str], int]
    application_successes: Mapping[str, Mapping[int, int]]
    damaged_days: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegistryNumbers:
    """What the registry can count.

    `enterprises_served`: with a passed real-name check and at least one resolution. `devices`:
    (enterprise, calendar year) -> identifiers registered that year under a device template.
    """

    enterprises_registered: int
    enterprises_served: int
    identifiers_registered: int
    prefixes_allotted: int
    devices: Mapping[tuple[str, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that an evaluation needs; None for a number that nobody could give now."""

    ledger: LedgerDays
    applications: Sequence[ApplicationEntry]
    registry: RegistryNumbers | None
    security_events: int | None = None


@dataclass(frozen=True, slots=True)
class ReadingTotal:
    """One reading of the resolutions over `days` calendar days, by level.

    The levels are never added: one look-up can reach both. The greater speaks for the node.
    """

    reading: str
    by_level: Mapping[str, int]
    days: int

    @property
    def level(self) -> str:
        return max(self.by_level, key=lambda level: self.by_level[level])

    @property
    def total(self) -> int:
        return self.by_level[self.level]

    @property
    def average(self) -> float:
        return self.total / self.days

    def to_json(self) -> dict[str, object]:
        return {
            "reading": self.reading,
            "level": self.level,
            "total": self.total,
            "average": self.average,
            "by_level": {
                level: {"total": total, "average": total / self.days}
                for level, total in self.by_level.items()
            },
        }


@dataclass(frozen=True, slots=True)
class WindowNumbers:
    """Everything counted in one window.

    `span` is the whole window; days from today on count as 0. `integrations`: reading -> place
    class -> the application ids, owners or regions counted. `uncountable`: level -> reason ->
    resolutions. `successes_by_place`: external successes of registered applications.
    """

    window: Window
    span: Span
    days_to_come: int
    is_inside_validity: bool
    damaged_days: Mapping[int, str]
    resolutions: Mapping[str, ReadingTotal]
    uncountable: Mapping[str, Mapping[str, int]]
    integrations: Mapping[str, Mapping[str, frozenset[str]]]
    standings: tuple[Standing, ...]
    successes_by_place: Mapping[str, int]

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.window.id,
            "name": _words_json(self.window.name),
            "first": _iso(self.span.first),
            "last": _iso(self.span.last),
            "days": self.span.days,
            "days_to_come": self.days_to_come,
            "is_inside_validity": self.is_inside_validity,
            "damaged_days": [
                {"day": _iso(day), "reason": reason} for day, reason in self.damaged_days.items()
            ],
            "resolutions": [total.to_json() for total in self.resolutions.values()],
            "uncountable": {level: dict(reasons) for level, reasons in self.uncountable.items()},
            "integrations": {
                reading: {label: sorted(keys) for label, keys in by_place.items()}
                for reading, by_place in self.integrations.items()
            },
            "successes_by_place": dict(self.successes_by_place),
            "applications": [standing.to_json() for standing in self.standings],
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """One measure in one window under one pair of readings."""

    measure: IntegrationMeasure
    window: str
    resolutions: ReadingTotal
    integration_reading: str
    other_provinces: int
    other_countries: int
    missing: tuple[Words, ...]

    @property
    def is_volume_met(self) -> bool:
        # In whole numbers: no rounding decides over "strictly more".
        return self.volume_missing == 0

    @property
    def volume_missing(self) -> int:
        """Resolutions that the window lacks."""
        return _volume_missing(self.measure, self.resolutions)

    @property
    def are_integrations_met(self) -> bool:
        return (
            self.other_provinces >= self.measure.other_provinces_at_least
            or self.other_countries >= self.measure.other_countries_at_least
        )

    @property
    def is_met(self) -> bool:
        return self.is_volume_met and self.are_integrations_met

    def to_json(self) -> dict[str, object]:
        measure = self.measure
        return {
            "measure": measure.id,
            "window": self.window,
            "resolution_reading": self.resolutions.reading,
            "integration_reading": self.integration_reading,
            "met": self.is_met,
            "volume": {
                "met": self.is_volume_met,
                "average": self.resolutions.average,
                "more_than": measure.daily_average_more_than,
                "total": self.resolutions.total,
                "days": self.resolutions.days,
                "level": self.resolutions.level,
                "resolutions_missing": self.volume_missing,
            },
            "integrations": {
                "met": self.are_integrations_met,
                "other_provinces": self.other_provinces,
                "other_provinces_at_least": measure.other_provinces_at_least,
                "other_countries": self.other_countries,
                "other_countries_at_least": measure.other_countries_at_least,
            },
            "missing": [_words_json(words) for words in self.missing],
        }


@dataclass(frozen=True, slots=True)
class MeasureNumber:
    """The number of a measure that needs no window.

    `value` is None while it is not known; `is_met` is None where the measure sets no threshold
    or the value is not known; `parts` are the numbers behind it.
    """

    measure: Measure
    reading: str
    value: int | None
    parts: Mapping[str, int] = field(default_factory=dict)
    step_reached: int | None = None
    is_met: bool | None = None
    missing: tuple[Words, ...] = ()

    def to_json(self) -> dict[str, object]:
        return {
            "measure": self.measure.id,
            "kind": self.measure.kind,
            "title": _words_json(self.measure.title),
            "reading": self.reading,
            "value": self.value,
            "parts": dict(self.parts),
            "step_reached": self.step_reached,
            "met": self.is_met,
            "missing": [_words_json(words) for words in self.missing],
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Where the node stands on `today` (a day number); today itself is in no window."""

    policy: Policy
    today: int
    validity: Words
    today_so_far: Mapping[str, ReadingTotal]
    today_uncountable: Mapping[str, Mapping[str, int]]
    today_damaged: str | None
    windows: Mapping[str, WindowNumbers]
    claim_window: str
    verdicts: tuple[Verdict, ...]
    numbers: tuple[MeasureNumber, ...]

    @property
    def is_in_force(self) -> bool:
        return self.today in self.policy.validity

    @property
    def claimed(self) -> WindowNumbers:
        """The numbers of the window on which the node claims."""
        return self.windows[self.claim_window]

    @property
    def claims(self) -> tuple[Verdict, ...]:
        """For each measure the verdict of the strictest readings over the claim window."""
        return tuple(
            verdict
            for verdict in self.verdicts
            if verdict.window == self.claim_window
            and verdict.resolutions.reading == self.policy.resolution_readings[0].id
            and verdict.integration_reading == self.policy.integration_readings[0].id
        )

    def is_met_by_every_reading(self, measure_id: str) -> bool:
        """Whether over the claim window no pair of readings says otherwise."""
        return all(
            verdict.is_met
            for verdict in self.verdicts
            if verdict.measure.id == measure_id and verdict.window == self.claim_window
        )

    def to_json(self) -> dict[str, object]:
        """The evaluation in JSON types; keys always come in the same order."""
        policy = self.policy
        return {
            "policy": policy.id,
            "title": _words_json(policy.title),
            "issuer": _words_json(policy.issuer),
            "document_number": policy.document_number,
            "valid_from": policy.valid_from.isoformat(),
            "valid_to": policy.valid_to.isoformat(),
            "today": _iso(self.today),
            "is_in_force": self.is_in_force,
            "validity": _words_json(self.validity),
            "claim_window": self.claim_window,
            "claims": [
                claim.to_json()
                | {
                    "met_by_every_reading": self.is_met_by_every_reading(claim.measure.id),
                    "title": _words_json(claim.measure.title),
                    "quote": claim.measure.quote,
                }
                for claim in self.claims
            ],
            "today_so_far": {
                "damaged": self.today_damaged,
                "resolutions": [total.to_json() for total in self.today_so_far.values()],
                "uncountable": {
                    level: dict(reasons) for level, reasons in self.today_uncountable.items()
                },
            },
            "windows": [numbers.to_json() for numbers in self.windows.values()],
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "numbers": [number.to_json() for number in self.numbers],
        }


def is_countable(reading: str, caller_class: str, outcome: str) -> bool:
    """Whether a resolution belongs to a reading of the volume.

    What is never countable belongs to none. `successes` drops the question who asked; as long as
    every countable caller stands outside the operator it equals `external_successes`.
    """
    if uncountable_reason(caller_class, outcome) is not None:
        return False
    if reading == "requests":
        return True
    return outcome in SUCCESSES and (reading == "successes" or caller_class in EXTERNAL_CALLERS)


def uncountable_reason(caller_class: str, outcome: str) -> str | None:
    """The caller class or else the outcome that keeps a resolution out of every reading."""
    if caller_class in UNCOUNTABLE_CALLERS:
        return caller_class
    return outcome if outcome in UNCOUNTABLE_OUTCOMES else None


def span_needed(policy: Policy, today: int, extra_windows: Sequence[Window] = ()) -> Span:
    """The days that `evaluate` looks at, today included."""
    spans = [window.span(today) for window in (*policy.windows, *extra_windows)]
    return Span(min(span.first for span in spans), today)


def evaluate(
    policy: Policy,
    facts: Facts,
    today: int,
    *,
    extra_windows: Sequence[Window] = (),
    claim_window: str = "",
) -> Evaluation:
    """Every reading over every window of the policy, and what the node claims.

    Args:
        today: day number in Asia/Shanghai; the last complete day is the one before.
        extra_windows: windows asked for besides those of the policy.
        claim_window: id of the window to claim on, the policy's choice if empty.

    Raises:
        ValueError: if there is no window `claim_window`, or two windows have one id.
    """
    windows = _windows(policy, extra_windows)
    claim_window = claim_window or policy.claim_window
    if claim_window not in windows:
        raise ValueError(f"claim window {claim_window!r}: expected one of {', '.join(windows)}")
    counter = _Counter(policy, facts, today)
    numbers = {window_id: counter.window(window) for window_id, window in windows.items()}
    return Evaluation(
        policy=policy,
        today=today,
        validity=_validity(policy, today),
        today_so_far=counter.resolutions(Span(today, today), 1),
        today_uncountable=counter.uncountable(Span(today, today)),
        today_damaged=facts.ledger.damaged_days.get(today),
        windows=numbers,
        claim_window=claim_window,
        verdicts=tuple(_verdicts(policy, numbers.values())),
        numbers=tuple(_numbers(policy, facts, numbers[claim_window])),
    )


def _windows(policy: Policy, extra: Sequence[Window]) -> dict[str, Window]:
    windows: dict[str, Window] = {}
    for window in (*policy.windows, *extra):
        if window.id in windows:
            raise ValueError(f"window {window.id!r}: expected an id that no other window has")
        windows[window.id] = window
    return windows


class _Counter:
    """The ledger of one evaluation, summed by day once and then asked window by window."""

    def __init__(self, policy: Policy, facts: Facts, today: int) -> None:
        self._policy = policy
        self._applications = facts.applications
        self._damaged = facts.ledger.damaged_days
        self._today = today
        self._levels = tuple(level.id for level in policy.levels)
        self._countable, self._uncountable = _by_day(facts.ledger)
        self._successes = {
            application: {day: n for day, n in by_day.items() if day not in self._damaged}
            for application, by_day in facts.ledger.application_successes.items()
        }

    def window(self, window: Window) -> WindowNumbers:
        span = window.span(self._today)
        complete = Span(span.first, min(span.last, self._today - 1))
        found = standings(self._applications, self._successes, complete, self._policy.home)
        validity = self._policy.validity
        return WindowNumbers(
            window=window,
            span=span,
            days_to_come=max(0, span.last - max(self._today, span.first) + 1),
            is_inside_validity=span.first in validity and span.last in validity,
            damaged_days={day: self._damaged[day] for day in sorted(self._damaged) if day in span},
            resolutions=self.resolutions(complete, span.days),
            uncountable=self.uncountable(complete),
            integrations={
                reading.id: keys_by_place(reading.id, found, self._policy.home)
                for reading in self._policy.integration_readings
            },
            standings=found,
            successes_by_place=_successes_by_place(found, place_classes(self._policy.home)),
        )

    def resolutions(self, span: Span, days: int) -> dict[str, ReadingTotal]:
        return {
            reading.id: ReadingTotal(
                reading.id,
                {level: _sum(self._countable, level, reading.id, span) for level in self._levels},
                days,
            )
            for reading in self._policy.resolution_readings
        }

    def uncountable(self, span: Span) -> dict[str, dict[str, int]]:
        return {
            level: {
                reason: _sum(self._uncountable, level, reason, span)
                for reason in UNCOUNTABLE_REASONS
            }
            for level in LEVELS
        }


def _by_day(ledger: LedgerDays) -> tuple[_Series, _Series]:
    """The countable resolutions by level, reading and day, and the others by level, reason, day.

    A damaged day is 0 in every reading; what was not countable anyway is shown all the same.
    """
    countable: dict[tuple[str, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    uncountable: dict[tuple[str, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for (day, level, caller_class, outcome), count in ledger.counts.items():
        reason = uncountable_reason(caller_class, outcome)
        if reason is not None:
            uncountable[level, reason][day] += count
        elif day not in ledger.damaged_days:
            for reading in RESOLUTION_READINGS:
                if is_countable(reading, caller_class, outcome):
                    countable[level, reading][day] += count
    return countable, uncountable


def _sum(series: _Series, level: str, name: str, span: Span) -> int:
    by_day = series.get((level, name), {})
    return sum(count for day, count in by_day.items() if day in span)


def _successes_by_place(found: Iterable[Standing], labels: Iterable[str]) -> dict[str, int]:
    successes = dict.fromkeys(labels, 0)
    for standing in found:
        successes[standing.place_class] += standing.successes
    return successes


def _verdicts(policy: Policy, windows: Iterable[WindowNumbers]) -> Iterable[Verdict]:
    measures = [measure for measure in policy.measures if isinstance(measure, IntegrationMeasure)]
    for measure in measures:
        for numbers in windows:
            for total in numbers.resolutions.values():
                for reading, by_place in numbers.integrations.items():
                    yield _verdict(measure, numbers, total, reading, by_place)


def _verdict(
    measure: IntegrationMeasure,
    numbers: WindowNumbers,
    total: ReadingTotal,
    reading: str,
    by_place: Mapping[str, frozenset[str]],
) -> Verdict:
    provinces = _distinct(by_place, measure.other_provinces)
    countries = _distinct(by_place, measure.other_countries)
    missing = (
        *_missing_volume(measure, total),
        *_missing_integrations(measure, provinces, countries),
    )
    return Verdict(measure, numbers.window.id, total, reading, provinces, countries, missing)


def _distinct(by_place: Mapping[str, frozenset[str]], labels: Iterable[str]) -> int:
    return len(frozenset().union(*(by_place[label] for label in labels)))


def _volume_missing(measure: IntegrationMeasure, total: ReadingTotal) -> int:
    return max(0, measure.daily_average_more_than * total.days + 1 - total.total)


def _missing_volume(measure: IntegrationMeasure, total: ReadingTotal) -> tuple[Words, ...]:
    missing = _volume_missing(measure, total)
    if not missing:
        return ()
    # Rounded down, so that what is not enough never looks like enough.
    average = total.total // total.days
    more_than = measure.daily_average_more_than
    return (
        Words(
            f"日均解析量 {average:,} 次，须超过 {more_than:,} 次："
            f"{total.days} 天内还差 {missing:,} 次解析",
            f"daily average {average:,}, more than {more_than:,} is needed: "
            f"{missing:,} resolutions short over {total.days} days",
        ),
    )


def _missing_integrations(
    measure: IntegrationMeasure, provinces: int, countries: int
) -> tuple[Words, ...]:
    provinces_missing = measure.other_provinces_at_least - provinces
    countries_missing = measure.other_countries_at_least - countries
    if provinces_missing <= 0 or countries_missing <= 0:
        return ()
    return (
        Words(
            f"区外接入 {provinces} 个，须 {measure.other_provinces_at_least} 个及以上，"
            f"还差 {provinces_missing} 个；或其他国家（地区）接入 {countries} 个，"
            f"须 {measure.other_countries_at_least} 个以上（含本数），还差 {countries_missing} 个",
            f"{provinces} from other provinces, at least {measure.other_provinces_at_least} needed "
            f"({provinces_missing} short); or {countries} from other countries and regions, "
            f"at least {measure.other_countries_at_least} needed ({countries_missing} short)",
        ),
    )


def _numbers(policy: Policy, facts: Facts, window: WindowNumbers) -> Iterable[MeasureNumber]:
    for measure in policy.measures:
        match measure:
            case KindsMeasure():
                yield _applications_by_kind(measure, policy, window)
            case EnterprisesMeasure():
                yield from _enterprises(measure, facts.registry)
            case DevicesMeasure():
                yield _devices(measure, facts.registry)
            case EventsMeasure():
                yield MeasureNumber(measure, "security_events", facts.security_events)


def _applications_by_kind(
    measure: KindsMeasure, policy: Policy, window: WindowNumbers
) -> MeasureNumber:
    """Applications that resolved in the claim window; a row in the register alone is no use."""
    parts = {kind.id: 0 for kind in measure.kinds}
    for standing in window.standings:
        is_at_home = standing.place_class == policy.home.label
        if standing.is_active and standing.entry.kind in parts:
            parts[standing.entry.kind] += is_at_home or not measure.home_only
    return MeasureNumber(measure, "applications", sum(parts.values()), parts)


def _enterprises(
    measure: EnterprisesMeasure, registry: RegistryNumbers | None
) -> Iterable[MeasureNumber]:
    """Strictest first: enterprises served, then all that are registered."""
    served = None if registry is None else registry.enterprises_served
    registered = None if registry is None else registry.enterprises_registered
    yield _stepped(measure, "enterprises_served", served)
    yield _stepped(measure, "enterprises_registered", registered)


def _stepped(measure: EnterprisesMeasure, reading: str, value: int | None) -> MeasureNumber:
    if value is None:
        return MeasureNumber(measure, reading, None)
    reached = [step for step in measure.steps_at_least if value >= step]
    ahead = [step for step in measure.steps_at_least if value < step]
    missing = tuple(
        Words(f"距 {step:,} 家还差 {step - value:,} 家", f"{step - value:,} short of {step:,}")
        for step in ahead[:1]
    )
    return MeasureNumber(
        measure,
        reading,
        value,
        step_reached=max(reached, default=None),
        is_met=bool(reached),
        missing=missing,
    )


def _devices(measure: DevicesMeasure, registry: RegistryNumbers | None) -> MeasureNumber:
    if registry is None:
        return MeasureNumber(measure, "devices_countable", None)
    at_most = measure.per_enterprise_and_year_at_most
    countable = sum(min(count, at_most) for count in registry.devices.values())
    parts = {"registered": sum(registry.devices.values()), "countable": countable}
    return MeasureNumber(measure, "devices_countable", countable, parts)


def _validity(policy: Policy, today: int) -> Words:
    day, first, last = date_of(today), policy.valid_from, policy.valid_to
    if day < first:
        return _outside(day, f"本政策自 {first} 起施行", f"the policy comes into force on {first}")
    if day > last:
        return _outside(day, f"本政策有效期至 {last}", f"the policy was in force until {last}")
    return Words(
        f"{day} 在本政策有效期内（{first} 至 {last}）",
        f"{day} is within the validity of the policy ({first} to {last})",
    )


def _outside(day: date, zh: str, en: str) -> Words:
    return Words(
        f"{zh}，{day} 不在有效期内，以下仍按条文计算",
        f"{en}; {day} is outside, evaluated all the same",
    )


def _words_json(words: Words) -> dict[str, str]:
    return {"zh": words.zh, "en": words.en}


def _iso(day: int) -> str:
    return date_of(day).isoformat()
