"""The volume: resolutions by level and reading, summed by day once and then asked by period."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from metrics.countable import UNCOUNTABLE_REASONS, is_countable, uncountable_reason
from metrics.dimension import LEVELS
from metrics.facts import LedgerDays
from metrics.policy import RESOLUTION_READINGS, Period, Span
from metrics.projection import PACE_DAYS, AnyOf, Series, Target

# (level, reading or reason) -> day number -> count
_ByDay: TypeAlias = Mapping[tuple[str, str], Mapping[int, int]]


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


class Volume:
    """The resolutions of one ledger, as a policy's levels and readings see them on `today`."""

    def __init__(
        self, ledger: LedgerDays, levels: Sequence[str], readings: Sequence[str], today: int
    ) -> None:
        self._levels = levels
        self._readings = readings
        self._today = today
        self._countable, self._uncountable = _by_day(ledger)
        first = ledger.first_day
        if first is None:
            first = min((day for day, *_ in ledger.counts), default=today)
        self._series = {
            (level, reading): Series(
                self._countable.get((level, reading), {}),
                first,
                today,
                earlier=_earlier(ledger, level, reading),
            )
            for level in levels
            for reading in readings
        }

    def totals(self, span: Span, days: int) -> dict[str, ReadingTotal]:
        """Each reading over the days of `span`, as a part of `days` calendar days."""
        return {
            reading: ReadingTotal(
                reading,
                {level: _sum(self._countable, level, reading, span) for level in self._levels},
                days,
            )
            for reading in self._readings
        }

    def uncountable(self, span: Span) -> dict[str, dict[str, int]]:
        """What no reading counts, by level and reason."""
        return {
            level: {
                reason: _sum(self._uncountable, level, reason, span)
                for reason in UNCOUNTABLE_REASONS
            }
            for level in LEVELS
        }

    def pace(self) -> dict[str, ReadingTotal]:
        """Each reading over the days by which the present pace is measured."""
        return self.totals(Span(self._today - PACE_DAYS, self._today - 1), PACE_DAYS)

    def total(self, reading: str, period: Period) -> int | None:
        """The resolutions of a period, of the greater level; None if the ledger was not asked."""
        span = period.span(self._today)
        totals = [
            self._series[level, reading].total(span.first, span.last) for level in self._levels
        ]
        known = [total for total in totals if total is not None]
        return max(known) if len(known) == len(totals) else None

    def goal(self, reading: str, period: Period, at_least: int, a_day: int = 0) -> AnyOf:
        """At least so many resolutions of a reading, by one of the levels."""
        return AnyOf(
            tuple(
                Target(self._series[level, reading], period, at_least, a_day)
                for level in self._levels
            )
        )


def _earlier(ledger: LedgerDays, level: str, reading: str) -> int | None:
    if ledger.first_day is None:
        return 0
    if ledger.earlier is None:
        return None
    return sum(
        count
        for (at, caller_class, outcome), count in ledger.earlier.items()
        if at == level and is_countable(reading, caller_class, outcome)
    )


def _by_day(ledger: LedgerDays) -> tuple[_ByDay, _ByDay]:
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


def _sum(by_day: _ByDay, level: str, name: str, span: Span) -> int:
    days = by_day.get((level, name), {})
    return sum(count for day, count in days.items() if day in span)
