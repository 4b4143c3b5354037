"""When a wanted number would be reached, if the days to come were like the last thirty.

A day means its evening: the last complete day of the period with which the number is reached.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final, Protocol

from metrics.day import date_of
from metrics.policy import CalendarYear, Cumulative, Period, Span, Trailing, Words

# As many weekends in each, and no older than a month.
PACE_DAYS: Final = 30
# A hundred years: whatever takes longer is called never.
HORIZON_DAYS: Final = 36_525


class Series:
    """Numbers by day, known from `first` to yesterday or to today.

    `earlier` is the sum of all days before `first`, None if it is not known. A day without a
    number is 0.
    """

    def __init__(
        self,
        by_day: Mapping[int, int],
        first: int,
        today: int,
        *,
        earlier: int | None = 0,
        has_today: bool = False,
    ) -> None:
        self.first = first
        self.last = today if has_today else today - 1
        self.earlier = earlier
        days = range(first, self.last + 1)
        # The sum of the known days before `first` + index.
        self._sums = [0, *accumulate(by_day.get(day, 0) for day in days)]
        self.pace_total = self._between(today - PACE_DAYS, today - 1)

    @property
    def pace(self) -> float:
        """The mean of the last `PACE_DAYS` complete days."""
        return self.pace_total / PACE_DAYS

    def total(self, first: int, last: int) -> int | None:
        """The sum of the days from first to last; days to come are 0. None if it is not known."""
        known = self._between(first, last)
        if first >= self.first or self.earlier == 0:
            return known
        # What lies before is one sum: it is of use only to whoever wants all of it.
        reaches_all = first <= 0 and last >= self.first - 1
        return None if self.earlier is None or not reaches_all else self.earlier + known

    def _between(self, first: int, last: int) -> int:
        known = len(self._sums) - 1
        low = min(max(first - self.first, 0), known)
        high = min(max(last + 1 - self.first, low), known)
        return self._sums[high] - self._sums[low]


class Goal(Protocol):
    """Something that is reached on some day, or never."""

    @property
    def is_met(self) -> bool:
        """Whether it is reached by the last day that is known."""
        ...

    def met_since(self) -> int | None:
        """With which day the present time of being met began; None if that is not known."""
        ...

    def first_met(self, day: int) -> int | None:
        """The first day, from `day` on, with which it is met at the present pace, if there is one.

        Days before the last known one are not looked at.
        """
        ...


# Without slots: several goals are made of one target, and what it has counted once it keeps.
@dataclass(frozen=True)
class Target:
    """At least `at_least`, and `a_day` for each day of a window, counted in the period.

    The series must know the period. `is_dated` is False for numbers whose days tell the pace, but
    not since when the number was reached.
    """

    series: Series
    period: Period
    at_least: int
    a_day: int = 0
    is_dated: bool = True

    @property
    def is_met(self) -> bool:
        return self._is_met_with(self.series.last) is True

    def met_since(self) -> int | None:
        return self._since if self.is_dated else None

    def first_met(self, day: int) -> int | None:
        return self._next if day <= self.series.last else self._first_from(day)

    @cached_property
    def _since(self) -> int | None:
        day = self.series.last
        while (was_met := self._is_met_with(day - 1)) is True:
            day -= 1
        return day if was_met is False else None

    @cached_property
    def _next(self) -> int | None:
        return self._first_from(self.series.last)

    def _first_from(self, day: int) -> int | None:
        if self._is_hopeless():
            return None
        days = (self._first_in(stretch) for stretch in self._stretches(day))
        return next((found for found in days if found is not None), None)

    def _wanted(self, span: Span) -> int:
        return self.at_least + self.a_day * span.days

    def _is_met_with(self, day: int) -> bool | None:
        """Whether it was met when `day` (a known one) was complete; None if that is not known."""
        span = self.period.span(day + 1)
        total = self.series.total(span.first, min(span.last, day))
        return None if total is None else total >= self._wanted(span)

    def _is_hopeless(self) -> bool:
        """Whether a trailing window lacks more than it could gain before it is as the pace is.

        Spares the walk through its days, where old ones fall out while new ones come.
        """
        if not isinstance(self.period, Trailing):
            return False
        span = self.period.span(self.series.last + 1)
        lacking = self._wanted(span) - (self.series.total(span.first, span.last) or 0)
        return lacking * PACE_DAYS > max(0, self.series.pace_total) * span.days

    def _stretches(self, day: int) -> Iterable[Span]:
        """Days, from `day` on, as runs in which the first day of the period stays the same."""
        match self.period:
            case Trailing(days=days):
                # After so many days the window holds nothing but the pace, and stays as it is.
                end = max(day, self.series.last + days)
                yield from (Span(day, day) for day in range(day, end + 1))
            case CalendarYear(year=None):
                while day <= self.series.last + HORIZON_DAYS:
                    year = self.period.span(day + 1)
                    yield Span(day, year.last)
                    day = year.last + 1
            case Cumulative():
                yield Span(day, self.series.last + HORIZON_DAYS)
            case _:
                yield Span(day, max(day, self.period.span(day + 1).last))

    def _first_in(self, stretch: Span) -> int | None:
        """In whole numbers, `PACE_DAYS` times what they stand for: no rounding decides."""
        series, pace = self.series, self.series.pace_total
        span = self.period.span(stretch.last + 1)
        known = series.total(span.first, min(span.last, series.last))
        if known is None:
            return None
        # From the day after it on, each day brings the pace.
        before = max(series.last, span.first - 1)
        to_come = max(0, min(stretch.first, span.last) - before)
        short = (self._wanted(span) - known) * PACE_DAYS - to_come * pace
        if short <= 0:
            return stretch.first
        if pace <= 0:
            return None
        day = max(stretch.first, before) - (-short // pace)
        return day if day <= min(stretch.last, span.last) else None


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Met when one of the goals is."""

    goals: Sequence[Goal]

    @property
    def is_met(self) -> bool:
        return any(goal.is_met for goal in self.goals)

    def met_since(self) -> int | None:
        days = [goal.met_since() for goal in self.goals if goal.is_met]
        return min(_known(days), default=None) if None not in days else None

    def first_met(self, day: int) -> int | None:
        return min(_known(goal.first_met(day) for goal in self.goals), default=None)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Met when all of the goals are."""

    goals: Sequence[Goal]

    @property
    def is_met(self) -> bool:
        return all(goal.is_met for goal in self.goals)

    def met_since(self) -> int | None:
        days = [goal.met_since() for goal in self.goals]
        return max(_known(days), default=None) if None not in days else None

    def first_met(self, day: int) -> int | None:
        """What is met first may be lost before the rest is met: then it is looked for anew."""
        while True:
            latest = day
            for goal in self.goals:
                found = goal.first_met(latest)
                if found is None:
                    return None
                latest = found
            if latest == day:
                return day
            day = latest


@dataclass(frozen=True, slots=True)
class Projection:
    """Whether a goal is met, and the day (number) since which it is, or with which it would be.

    `day` is None if it is met and nobody knows since when, and if it is not and never would be.
    """

    is_met: bool
    day: int | None

    @property
    def state(self) -> str:
        if self.is_met:
            return "met"
        return "never" if self.day is None else "expected"

    @property
    def words(self) -> Words:
        if self.day is None:
            return _MET if self.is_met else _NEVER
        day = date_of(self.day)
        if self.is_met:
            return Words(f"自 {day} 起满足", f"met since {day}")
        return Words(f"预计 {day} 满足", f"expected on {day}")

    def to_json(self) -> dict[str, object]:
        day = None if self.day is None else date_of(self.day).isoformat()
        return {"state": self.state, "day": day, **self.words.to_json()}


_MET: Final = Words("已满足", "met")
_NEVER: Final = Words("按目前速度无法满足", "never at this pace")


def project(goal: Goal, today: int) -> Projection:
    """Since when `goal` is met or, at the present pace, the day with which it would be.

    Args:
        today: day number; with the day before it the goal is met, or it is not.
    """
    if goal.is_met:
        return Projection(True, goal.met_since())
    return Projection(False, goal.first_met(today - 1))


def projection_json(goal: Goal | None, today: int) -> dict[str, object] | None:
    """The projection in JSON types; None for a number that is not known."""
    return None if goal is None else project(goal, today).to_json()


def _known(days: Iterable[int | None]) -> Iterable[int]:
    return (day for day in days if day is not None)
