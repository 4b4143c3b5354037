"""Measures of several thresholds: each number over its period, by every reading."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from metrics.day import date_of
from metrics.facts import Facts
from metrics.policy import (
    Condition,
    Cumulative,
    Named,
    Period,
    Policy,
    Span,
    ThresholdsMeasure,
    Words,
)
from metrics.projection import AllOf, Goal, Series, Target, projection_json
from metrics.volume import Volume

# Every condition by its first reading · by its last.
STRICTEST: Final = "strictest"
LOOSEST: Final = "loosest"
READINGS: Final = (STRICTEST, LOOSEST)


@dataclass(frozen=True, slots=True)
class ConditionReading:
    """One condition by one reading of its number.

    `value` (of complete days) and `goal` are None if nobody could give the number now.
    """

    condition: Condition
    reading: Named
    value: int | None
    pace: float | None
    goal: Goal | None

    @property
    def is_met(self) -> bool | None:
        return None if self.value is None else self.value >= self.condition.least

    @property
    def short(self) -> int | None:
        """How many are missing."""
        return None if self.value is None else max(0, self.condition.least - self.value)

    @property
    def missing(self) -> tuple[Words, ...]:
        if self.value is None or not self.short:
            return ()
        threshold, value = self.condition.threshold, self.value
        is_strict = self.condition.comparison == "more_than"
        zh, en = ("须超过", "more than") if is_strict else ("须不少于", "at least")
        name = self.condition.name
        return (
            Words(
                f"{name.zh} {value:,}，{zh} {threshold:,}：还差 {self.short:,}",
                f"{name.en}: {value:,}, {en} {threshold:,} needed: {self.short:,} short",
            ),
        )

    def to_json(self, today: int) -> dict[str, object]:
        return {
            "reading": self.reading.id,
            "name": self.reading.name.to_json(),
            "value": self.value,
            "pace": self.pace,
            "met": self.is_met,
            "short": self.short,
            "missing": [words.to_json() for words in self.missing],
            "projection": projection_json(self.goal, today),
        }


@dataclass(frozen=True, slots=True)
class ConditionStanding:
    """One condition by all its readings, strictest first, over the days of `span`."""

    condition: Condition
    span: Span
    readings: tuple[ConditionReading, ...]

    def by(self, reading: str) -> ConditionReading:
        """By one of `READINGS`."""
        return self.readings[0 if reading == STRICTEST else -1]

    def to_json(self, today: int) -> dict[str, object]:
        condition = self.condition
        is_cumulative = isinstance(condition.period, Cumulative)
        return {
            "id": condition.id,
            "name": condition.name.to_json(),
            "counted": condition.counted,
            "period": condition.period.id,
            # What is cumulative has no first day.
            "first": None if is_cumulative else date_of(self.span.first).isoformat(),
            "last": date_of(self.span.last).isoformat(),
            condition.comparison: condition.threshold,
            "readings": [reading.to_json(today) for reading in self.readings],
        }


@dataclass(frozen=True, slots=True)
class ThresholdsStanding:
    """Where the node stands against one measure of thresholds."""

    measure: ThresholdsMeasure
    conditions: tuple[ConditionStanding, ...]

    def is_met(self, reading: str) -> bool | None:
        """Whether every condition is met by one of `READINGS`; None if that is not known."""
        states = [condition.by(reading).is_met for condition in self.conditions]
        if False in states:
            return False
        return None if None in states else True

    def goal(self, reading: str) -> Goal | None:
        """All conditions together, by one of `READINGS`; None if one of them is not known."""
        goals = [condition.by(reading).goal for condition in self.conditions]
        known = tuple(goal for goal in goals if goal is not None)
        return AllOf(known) if len(known) == len(goals) else None

    def missing(self, reading: str) -> tuple[Words, ...]:
        """What the conditions lack by one of `READINGS`."""
        return tuple(
            words for condition in self.conditions for words in condition.by(reading).missing
        )

    def to_json(self, today: int) -> dict[str, object]:
        measure = self.measure
        return {
            "measure": measure.id,
            "title": measure.title.to_json(),
            "quote": measure.quote,
            "readings": [
                {
                    "reading": reading,
                    "met": self.is_met(reading),
                    "missing": [words.to_json() for words in self.missing(reading)],
                    "projection": projection_json(self.goal(reading), today),
                }
                for reading in READINGS
            ],
            "conditions": [condition.to_json(today) for condition in self.conditions],
            "unmeasured": [named.to_json() for named in measure.unmeasured],
        }


def thresholds_standings(
    policy: Policy, facts: Facts, volume: Volume, today: int
) -> Iterable[ThresholdsStanding]:
    """Where the node stands on `today` (day number) against each measure of thresholds.

    All numbers are those of complete days: today is in none of them.
    """
    counter = _Counter(policy, facts, volume, today)
    for measure in policy.measures:
        if isinstance(measure, ThresholdsMeasure):
            conditions = tuple(counter.standing(condition) for condition in measure.conditions)
            yield ThresholdsStanding(measure, conditions)


class _Counter:
    def __init__(self, policy: Policy, facts: Facts, volume: Volume, today: int) -> None:
        self._policy = policy
        self._growth: Mapping[str, Mapping[int, int]] = (
            {} if facts.registry is None else facts.registry.growth
        )
        self._volume = volume
        self._pace = volume.pace()
        self._today = today

    def standing(self, condition: Condition) -> ConditionStanding:
        readings = self._policy.readings(condition.counted)
        judge = self._of_ledger if condition.counted == "resolutions" else self._of_registry
        return ConditionStanding(
            condition,
            condition.period.span(self._today),
            tuple(judge(condition, reading) for reading in readings),
        )

    def _of_ledger(self, condition: Condition, reading: Named) -> ConditionReading:
        period: Period = condition.period
        value = self._volume.total(reading.id, period)
        pace = self._pace[reading.id].average
        goal = None if value is None else self._volume.goal(reading.id, period, condition.least)
        return ConditionReading(condition, reading, value, pace, goal)

    def _of_registry(self, condition: Condition, reading: Named) -> ConditionReading:
        growth = self._growth.get(reading.id)
        if growth is None:
            return ConditionReading(condition, reading, None, None, None)
        series = Series(growth, min(growth, default=self._today), self._today)
        target = Target(series, condition.period, condition.least)
        span = condition.period.span(self._today)
        value = series.total(span.first, span.last)
        return ConditionReading(condition, reading, value, series.pace, target)
