"""Where the node stands against a policy: every reading over every window, and the claim."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from metrics.day import date_of
from metrics.facts import Facts
from metrics.integrations import (
    Standing,
    first_days_by_place,
    first_success_days,
    standings,
)
from metrics.measure_number import MeasureNumber, measure_numbers
from metrics.place import place_classes
from metrics.policy import (
    CUMULATIVE,
    WINDOWED_MEASURES,
    CalendarYear,
    Cumulative,
    IntegrationMeasure,
    Policy,
    Span,
    ThresholdsMeasure,
    Window,
    Words,
)
from metrics.projection import (
    PACE_DAYS,
    AllOf,
    AnyOf,
    Goal,
    Series,
    Target,
    projection_json,
)
from metrics.thresholds import ThresholdsStanding, thresholds_standings
from metrics.volume import ReadingTotal, Volume


@dataclass(frozen=True, slots=True)
class WindowNumbers:
    """Everything counted in one window.

    `span` is the whole window; days from today on count as 0. `integrations`: reading -> place
    class -> the application ids, owners or regions counted, each with the day number of its first
    success at hand. `uncountable`: level -> reason -> resolutions. `successes_by_place`: external
    successes of registered applications. `is_inside_validity`: None if the policy does not tell.
    """

    window: Window
    span: Span
    days_to_come: int
    is_inside_validity: bool | None
    damaged_days: Mapping[int, str]
    resolutions: Mapping[str, ReadingTotal]
    uncountable: Mapping[str, Mapping[str, int]]
    integrations: Mapping[str, Mapping[str, Mapping[str, int]]]
    standings: tuple[Standing, ...]
    successes_by_place: Mapping[str, int]

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.window.id,
            "name": self.window.name.to_json(),
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
    volume_goal: Goal
    integrations_goal: Goal

    @property
    def goal(self) -> Goal:
        """Volume and integrations on one day."""
        # Integrations first: while they are out of sight, nobody walks through the windows.
        return AllOf((self.integrations_goal, self.volume_goal))

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

    def to_json(self, today: int) -> dict[str, object]:
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
                "projection": projection_json(self.volume_goal, today),
            },
            "integrations": {
                "met": self.are_integrations_met,
                "other_provinces": self.other_provinces,
                "other_provinces_at_least": measure.other_provinces_at_least,
                "other_countries": self.other_countries,
                "other_countries_at_least": measure.other_countries_at_least,
                "projection": projection_json(self.integrations_goal, today),
            },
            "missing": [words.to_json() for words in self.missing],
            "projection": projection_json(self.goal, today),
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Where the node stands on `today` (a day number); today itself is in no window.

    `pace`: each reading over the last `PACE_DAYS` complete days, by which everything is projected.
    `claim_window` is empty if the policy measures nothing over a window.
    """

    policy: Policy
    today: int
    validity: Words
    today_so_far: Mapping[str, ReadingTotal]
    today_uncountable: Mapping[str, Mapping[str, int]]
    today_damaged: str | None
    pace: Mapping[str, ReadingTotal]
    windows: Mapping[str, WindowNumbers]
    claim_window: str
    verdicts: tuple[Verdict, ...]
    numbers: tuple[MeasureNumber, ...]
    thresholds: tuple[ThresholdsStanding, ...]

    @property
    def is_in_force(self) -> bool | None:
        """None if the policy does not tell."""
        return self.policy.is_in_force(self.today)

    @property
    def claimed(self) -> WindowNumbers:
        """The numbers of the window on which the node claims.

        Raises:
            KeyError: if the policy measures nothing over a window.
        """
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
        return {
            **self._policy_json(),
            "claim_window": self.claim_window or None,
            "pace": self._pace_json(),
            "claims": [self._claim_json(claim) for claim in self.claims],
            "today_so_far": {
                "damaged": self.today_damaged,
                "resolutions": [total.to_json() for total in self.today_so_far.values()],
                "uncountable": {
                    level: dict(reasons) for level, reasons in self.today_uncountable.items()
                },
            },
            "windows": [numbers.to_json() for numbers in self.windows.values()],
            "verdicts": [verdict.to_json(self.today) for verdict in self.verdicts],
            "numbers": [number.to_json(self.today) for number in self.numbers],
            "thresholds": [standing.to_json(self.today) for standing in self.thresholds],
        }

    def _policy_json(self) -> dict[str, object]:
        policy = self.policy
        return {
            "policy": policy.id,
            "title": policy.title.to_json(),
            "issuer": policy.issuer and policy.issuer.to_json(),
            "document_number": policy.document_number,
            "is_excerpt": policy.is_excerpt,
            "source": policy.source,
            "note": policy.note and policy.note.to_json(),
            "valid_from": policy.valid_from and policy.valid_from.isoformat(),
            "valid_to": policy.valid_to and policy.valid_to.isoformat(),
            "today": _iso(self.today),
            "is_in_force": self.is_in_force,
            "validity": self.validity.to_json(),
        }

    def _pace_json(self) -> dict[str, object]:
        return {
            "days": PACE_DAYS,
            "first": _iso(self.today - PACE_DAYS),
            "last": _iso(self.today - 1),
            "resolutions": [total.to_json() for total in self.pace.values()],
        }

    def _claim_json(self, claim: Verdict) -> dict[str, object]:
        return claim.to_json(self.today) | {
            "met_by_every_reading": self.is_met_by_every_reading(claim.measure.id),
            "title": claim.measure.title.to_json(),
            "quote": claim.measure.quote,
        }


def span_needed(policy: Policy, today: int, extra_windows: Sequence[Window] = ()) -> Span:
    """The days that `evaluate` looks at one by one, today included."""
    periods = (*policy.windows, *extra_windows, *_counted_periods(policy))
    spans = [period.span(today) for period in periods if not isinstance(period, Cumulative)]
    return Span(min(today - PACE_DAYS, *(span.first for span in spans)), today)


def needs_earlier(policy: Policy) -> bool:
    """Whether `evaluate` asks for the sum of all days before those of `span_needed`, too."""
    return any(isinstance(period, Cumulative) for period in _counted_periods(policy))


def _counted_periods(policy: Policy) -> Iterable[Cumulative | CalendarYear]:
    for measure in policy.measures:
        if isinstance(measure, ThresholdsMeasure):
            counted = (one for one in measure.conditions if one.counted == "resolutions")
            yield from (condition.period for condition in counted)


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
    if claim_window not in windows and (claim_window or _has_windowed(policy)):
        raise ValueError(f"claim window {claim_window!r}: expected one of {', '.join(windows)}")
    volume = Volume(
        facts.ledger,
        tuple(level.id for level in policy.levels),
        tuple(reading.id for reading in policy.resolution_readings),
        today,
    )
    counter = _Counter(policy, facts, volume, today)
    numbers = {window_id: counter.window(window) for window_id, window in windows.items()}
    claimed = numbers[claim_window].standings if claim_window else ()
    return Evaluation(
        policy=policy,
        today=today,
        validity=_validity(policy, today),
        today_so_far=volume.totals(Span(today, today), 1),
        today_uncountable=volume.uncountable(Span(today, today)),
        today_damaged=facts.ledger.damaged_days.get(today),
        pace=volume.pace(),
        windows=numbers,
        claim_window=claim_window,
        verdicts=tuple(_verdicts(policy, numbers.values(), volume, today)),
        numbers=tuple(measure_numbers(policy, facts, claimed, today)),
        thresholds=tuple(thresholds_standings(policy, facts, volume, today)),
    )


def _has_windowed(policy: Policy) -> bool:
    return any(isinstance(measure, WINDOWED_MEASURES) for measure in policy.measures)


def _windows(policy: Policy, extra: Sequence[Window]) -> dict[str, Window]:
    windows: dict[str, Window] = {}
    for window in (*policy.windows, *extra):
        if window.id in windows:
            raise ValueError(f"window {window.id!r}: expected an id that no other window has")
        windows[window.id] = window
    return windows


class _Counter:
    """The facts of one evaluation, asked window by window."""

    def __init__(self, policy: Policy, facts: Facts, volume: Volume, today: int) -> None:
        self._policy = policy
        self._applications = facts.applications
        self._damaged = facts.ledger.damaged_days
        self._volume = volume
        self._today = today
        self._successes = {
            application: {day: n for day, n in by_day.items() if day not in self._damaged}
            for application, by_day in facts.ledger.application_successes.items()
        }
        self._first_days = first_success_days(facts.applications, self._successes)

    def window(self, window: Window) -> WindowNumbers:
        span = window.span(self._today)
        complete = Span(span.first, min(span.last, self._today - 1))
        found = standings(
            self._applications, self._successes, self._first_days, complete, self._policy.home
        )
        return WindowNumbers(
            window=window,
            span=span,
            days_to_come=max(0, span.last - max(self._today, span.first) + 1),
            is_inside_validity=_is_inside_validity(self._policy, span),
            damaged_days={day: self._damaged[day] for day in sorted(self._damaged) if day in span},
            resolutions=self._volume.totals(complete, span.days),
            uncountable=self._volume.uncountable(complete),
            integrations={
                reading.id: first_days_by_place(reading.id, found, self._policy.home)
                for reading in self._policy.integration_readings
            },
            standings=found,
            successes_by_place=_successes_by_place(found, place_classes(self._policy.home)),
        )


def _is_inside_validity(policy: Policy, span: Span) -> bool | None:
    ends = {policy.is_in_force(span.first), policy.is_in_force(span.last)}
    if False in ends:
        return False
    return None if None in ends else True


def _successes_by_place(found: Iterable[Standing], labels: Iterable[str]) -> dict[str, int]:
    successes = dict.fromkeys(labels, 0)
    for standing in found:
        successes[standing.place_class] += standing.successes
    return successes


def _verdicts(
    policy: Policy, windows: Iterable[WindowNumbers], volume: Volume, today: int
) -> Iterable[Verdict]:
    measures = [measure for measure in policy.measures if isinstance(measure, IntegrationMeasure)]
    for measure in measures:
        for numbers in windows:
            integrations = {
                reading: _Integrations(measure, by_place, today)
                for reading, by_place in numbers.integrations.items()
            }
            for total in numbers.resolutions.values():
                a_day = measure.daily_average_more_than
                goal = volume.goal(total.reading, numbers.window, at_least=1, a_day=a_day)
                for reading, found in integrations.items():
                    yield _verdict(measure, numbers, total, goal, reading, found)


class _Integrations:
    """What one reading counts in one window, and how it has grown."""

    def __init__(
        self, measure: IntegrationMeasure, by_place: Mapping[str, Mapping[str, int]], today: int
    ) -> None:
        provinces = _first_days(by_place, measure.other_provinces)
        countries = _first_days(by_place, measure.other_countries)
        self.provinces, self.countries = len(provinces), len(countries)
        self.goal = AnyOf(
            (
                _grown(provinces.values(), measure.other_provinces_at_least, today),
                _grown(countries.values(), measure.other_countries_at_least, today),
            )
        )


def _first_days(by_place: Mapping[str, Mapping[str, int]], labels: Iterable[str]) -> dict[str, int]:
    """An owner in two places is one owner."""
    found: dict[str, int] = {}
    for label in labels:
        for key, day in by_place[label].items():
            found[key] = min(day, found.get(key, day))
    return found


def _grown(first_days: Iterable[int], at_least: int, today: int) -> Target:
    """So many of what resolves now, at the pace at which it resolved for the first time.

    Nobody knows since when: contracts come later, and what resolves now may have rested.
    """
    by_day = Counter(first_days)
    series = Series(by_day, min(by_day, default=today), today)
    return Target(series, CUMULATIVE, at_least, is_dated=False)


def _verdict(
    measure: IntegrationMeasure,
    numbers: WindowNumbers,
    total: ReadingTotal,
    volume_goal: Goal,
    integration_reading: str,
    integrations: _Integrations,
) -> Verdict:
    provinces, countries = integrations.provinces, integrations.countries
    missing = (
        *_missing_volume(measure, total),
        *_missing_integrations(measure, provinces, countries),
    )
    return Verdict(
        measure,
        numbers.window.id,
        total,
        integration_reading,
        provinces,
        countries,
        missing,
        volume_goal,
        integrations.goal,
    )


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


def _validity(policy: Policy, today: int) -> Words:
    day, first, last = date_of(today), policy.valid_from, policy.valid_to
    if first is not None and day < first:
        return _outside(day, f"本政策自 {first} 起施行", f"the policy comes into force on {first}")
    if last is not None and day > last:
        return _outside(day, f"本政策有效期至 {last}", f"the policy was in force until {last}")
    if policy.is_in_force(today) is None:
        return Words(
            "本政策的有效期未知，以下仍按所掌握的内容计算",
            "when the policy is in force is not known; evaluated all the same",
        )
    return Words(
        f"{day} 在本政策有效期内（{first} 至 {last}）" if last else f"本政策自 {first} 起有效",
        f"{day} is within the validity of the policy ({first} to {last})"
        if last
        else f"the policy is in force since {first}",
    )


def _outside(day: date, zh: str, en: str) -> Words:
    return Words(
        f"{zh}，{day} 不在有效期内，以下仍按条文计算",
        f"{en}; {day} is outside, evaluated all the same",
    )


def _iso(day: int) -> str:
    return date_of(day).isoformat()
