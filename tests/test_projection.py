"""When a number would be reached at the present pace."""

from collections.abc import Callable, Mapping
from datetime import date
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.day import number_of
from metrics.policy import CalendarYear, Cumulative, FromTo, Period, Trailing, Words
from metrics.projection import (
    HORIZON_DAYS,
    PACE_DAYS,
    AllOf,
    AnyOf,
    Goal,
    Projection,
    Series,
    Target,
    project,
)

TODAY = number_of(date(2022, 8, 5))
NAME = Words("期", "period")
EVER = Cumulative("cumulative", NAME)
YEAR = CalendarYear("year", NAME)
# Far enough for every window below, a leap year's and the turn of two years.
LOOKED_AT_DAYS = 1_000


def _trailing(days: int) -> Trailing:
    return Trailing(f"{days}d", NAME, days)


def _series(
    by_day: Mapping[int, int], *, earlier: int | None = 0, today: int = TODAY, known_days: int = 400
) -> Series:
    """Days are counted back from `today`: 1 is yesterday."""
    days = {today - back: count for back, count in by_day.items()}
    return Series(days, today - known_days, today, earlier=earlier)


def _every_day(count: int, days: int) -> dict[int, int]:
    return dict.fromkeys(range(1, days + 1), count)


def _day(goal: Goal, today: int = TODAY) -> date | None:
    """The projected day, as a date."""
    day = project(goal, today).day
    return None if day is None else date.fromordinal(date(1970, 1, 1).toordinal() + day)


def _state(goal: Goal) -> str:
    return project(goal, TODAY).state


# --- the pace


def test_the_pace_is_the_mean_of_the_last_30_complete_days() -> None:
    series = _series(_every_day(3, PACE_DAYS) | {PACE_DAYS + 1: 1_000, 0: 1_000})

    assert (series.pace, series.last) == (3, TODAY - 1)


def test_a_day_without_a_number_slows_the_pace() -> None:
    assert _series({1: 60}).pace == 2


def test_today_is_no_part_of_the_pace_even_where_it_is_known() -> None:
    series = Series({TODAY: 30, TODAY - 1: 30}, TODAY - 9, TODAY, has_today=True)

    assert (series.pace, series.total(0, TODAY)) == (1, 60)


# --- cumulative


@pytest.mark.parametrize(
    ("at_least", "day"),
    [
        (901, date(2022, 8, 5)),  # today brings it
        (930, date(2022, 8, 5)),
        (931, date(2022, 8, 6)),
        (1_800, date(2022, 9, 3)),
    ],
)
def test_what_is_missing_is_divided_by_the_pace_and_rounded_up(at_least: int, day: date) -> None:
    target = Target(_series(_every_day(30, 30)), EVER, at_least)

    assert (_state(target), _day(target)) == ("expected", day)


def test_a_pace_that_is_no_whole_number_is_not_rounded() -> None:
    series = _series({1: 1})  # a thirtieth a day

    assert _day(Target(series, EVER, 2)) == date(2022, 9, 3)  # the 30th day from today
    assert _day(Target(_series({1: 7}), EVER, 8)) == date(2022, 8, 9)  # 30/7 days: the 5th


def test_without_a_pace_it_is_never() -> None:
    target = Target(_series({31: 99}), EVER, 100)

    assert project(target, TODAY) == Projection(False, None)
    assert project(target, TODAY).words == Words("按目前速度无法满足", "never at this pace")


def test_a_number_that_sinks_is_never_reached() -> None:
    target = Target(_series({40: 99, 1: -60}), EVER, 100)

    assert _state(target) == "never"


def test_what_takes_more_than_a_hundred_years_is_never() -> None:
    series = _series({1: 30})

    assert _state(Target(series, EVER, 30 + HORIZON_DAYS)) == "expected"
    assert _state(Target(series, EVER, 31 + HORIZON_DAYS)) == "never"


def test_the_day_since_which_it_is_met_is_the_one_that_brought_it() -> None:
    target = Target(_series({50: 60, 9: 39, 8: 1, 1: 5}), EVER, 100)

    assert (_state(target), _day(target)) == ("met", date(2022, 7, 28))
    assert project(target, TODAY).words == Words("自 2022-07-28 起满足", "met since 2022-07-28")


def test_what_was_lost_and_won_again_is_met_since_it_was_won_again() -> None:
    assert _day(Target(_series({50: 100, 9: -1, 3: 1}), EVER, 100)) == date(2022, 8, 2)


def test_what_was_reached_before_the_days_at_hand_is_met_since_nobody_knows_when() -> None:
    target = Target(_series({1: 5}, earlier=100), EVER, 100)

    assert project(target, TODAY) == Projection(True, None)
    assert project(target, TODAY).words == Words("已满足", "met")


def test_what_was_just_missed_before_the_days_at_hand_has_its_day() -> None:
    series = _series({400: 1}, earlier=99)

    assert _day(Target(series, EVER, 100)) == date.fromordinal(date(2022, 8, 5).toordinal() - 400)


def test_a_sum_of_days_that_nobody_asked_for_is_not_known() -> None:
    series = _series(_every_day(1, 30), earlier=None)

    assert series.total(0, TODAY - 1) is None
    assert series.total(TODAY - 30, TODAY - 1) == 30
    assert not Target(series, EVER, 1).is_met


# --- averages over a window


def _average(by_day: Mapping[int, int], days: int, more_than: int = 100) -> Target:
    return Target(_series(by_day), _trailing(days), 1, a_day=more_than)


def test_a_pace_of_just_the_threshold_never_exceeds_it() -> None:
    assert _state(_average(_every_day(100, 30), 90)) == "never"


def test_a_pace_of_a_little_more_exceeds_it_when_the_window_is_full_of_it() -> None:
    by_day = _every_day(100, 30) | {1: 101}  # 100 and a thirtieth a day

    assert _state(_average(by_day, 30)) == "met"
    # 3,001 are there: with 29 days of the pace 5,901 and a bit, with 30 days 6,002.
    assert _day(_average(by_day, 60)) == date(2022, 9, 3)


def test_old_days_that_fall_out_can_bring_it() -> None:
    """The old half of the window is empty: each day another 0 makes way for the pace."""
    by_day = _every_day(150, 30)

    # 30 known days and k more of 150 exceed 60 of 100 when k is 11.
    assert _day(_average(by_day, 60)) == date(2022, 8, 15)


def test_old_days_that_fall_out_can_take_it_away() -> None:
    by_day = _every_day(10, 30) | {back: 500 for back in range(31, 41)}
    target = _average(by_day, 40)

    assert _state(target) == "met"
    # Tomorrow the first of the ten great days is gone, and in ten days all of them.
    assert target.first_met(TODAY + 5) is None


def test_it_can_be_met_for_some_days_only() -> None:
    """A window that gains ten days of the pace before its great days fall out."""
    by_day = _every_day(90, 30) | {back: 140 for back in range(31, 41)}
    target = _average(by_day, 50)

    # 30 × 90 + 10 × 140 = 4,100 known; 10 days of 90 make 5,000: one too few, and no more comes.
    assert _state(target) == "never"
    by_day[31] = 141
    assert _day(_average(by_day, 50)) == date(2022, 8, 14)
    assert _average(by_day, 50).first_met(TODAY + 10) is None


def test_a_window_that_is_met_says_since_when() -> None:
    by_day = _every_day(200, 10)

    assert _day(_average(by_day, 15)) == date(2022, 8, 2)  # 8 days of 200 exceed 15 of 100
    # A window of which some days are not at hand: nobody knows.
    short = Series({TODAY - back: 200 for back in range(1, 21)}, TODAY - 20, TODAY, earlier=None)
    assert project(Target(short, _trailing(15), 1, a_day=100), TODAY) == Projection(True, None)


# --- calendar years, and windows from a day to a day


def test_a_year_that_cannot_be_made_is_followed_by_the_next() -> None:
    target = Target(_series(_every_day(10, 30)), YEAR, 3_000)

    # 300 so far, 1,490 more until the end of December; then 300 days of the next year.
    assert _day(target) == date(2023, 10, 27)
    assert _day(Target(_series(_every_day(10, 30)), YEAR, 1_790)) == date(2022, 12, 31)
    assert _day(Target(_series(_every_day(10, 30)), YEAR, 1_791)) == date(2023, 6, 29)


def test_only_a_leap_year_is_long_enough() -> None:
    series = _series(_every_day(10, 30))

    assert _day(Target(series, YEAR, 3_651)) == date(2024, 12, 31)
    assert _state(Target(series, YEAR, 3_661)) == "never"


def test_the_average_of_a_year_counts_all_its_days() -> None:
    series = _series(_every_day(200, 30))

    # 36,501 are wanted; 6,000 are there and 29,800 to come: it takes 183 days of the next year.
    assert _day(Target(series, YEAR, 1, a_day=100)) == date(2023, 7, 2)


def test_on_the_first_of_january_the_year_is_the_one_that_ended() -> None:
    today = number_of(date(2023, 1, 1))
    target = Target(_series({1: 5}, today=today), YEAR, 5)

    assert project(target, today).is_met
    assert not project(Target(_series({2: 5}, today=today + 1), YEAR, 5), today + 1).is_met


def test_a_window_that_is_over_stays_as_it_is() -> None:
    july = FromTo("july", NAME, date(2022, 7, 1), date(2022, 7, 31))
    series = _series(_every_day(10, 35))

    assert _state(Target(series, july, 311)) == "never"
    assert _day(Target(series, july, 300)) == date(2022, 7, 30)
    assert Target(series, july, 300).first_met(TODAY + 99) == TODAY + 99


def test_a_window_to_come_begins_with_its_first_day() -> None:
    september = FromTo("september", NAME, date(2022, 9, 1), date(2022, 9, 30))
    series = _series(_every_day(10, 30))

    assert _day(Target(series, september, 11)) == date(2022, 9, 2)
    assert _day(Target(series, september, 300)) == date(2022, 9, 30)
    assert _state(Target(series, september, 301)) == "never"


# --- several goals


def test_the_earliest_of_several_will_do() -> None:
    series = _series(_every_day(10, 30))
    soon, late, never = (Target(series, EVER, 300 + more) for more in (10, 20, 10**9))

    assert _day(AnyOf((late, never, soon))) == date(2022, 8, 5)
    assert _state(AnyOf((never,))) == "never"
    assert _day(AnyOf((Target(series, EVER, 300), late))) == date(2022, 8, 4)


def test_all_of_several_wait_for_the_latest() -> None:
    series = _series(_every_day(10, 30))
    met, soon, late = (Target(series, EVER, 300 + more) for more in (0, 10, 20))

    assert _day(AllOf((soon, late, met))) == date(2022, 8, 6)
    assert _state(AllOf((soon, Target(series, EVER, 10**9)))) == "never"
    assert _day(AllOf((met, Target(series, EVER, 290)))) == date(2022, 8, 4)


def test_what_is_lost_before_the_rest_is_met_does_not_count() -> None:
    """The year's number is reached in December; the sum of all years only in February."""
    series = _series(_every_day(10, 30))
    year, ever = Target(series, YEAR, 1_700), Target(series, EVER, 2_200)

    assert (_day(year), _day(ever)) == (date(2022, 12, 22), date(2023, 2, 10))
    assert _day(AllOf((year, ever))) == date(2023, 6, 19)


def test_a_goal_without_dates_tells_the_pace_but_not_since_when() -> None:
    series = _series(_every_day(10, 30))

    assert project(Target(series, EVER, 300, is_dated=False), TODAY) == Projection(True, None)
    undated = Target(series, EVER, 1, is_dated=False)
    assert project(AllOf((undated, Target(series, EVER, 1))), TODAY).day is None
    assert project(AnyOf((undated, Target(series, EVER, 1))), TODAY).day is None


def test_the_projection_is_json() -> None:
    assert project(Target(_series({1: 30}), EVER, 31), TODAY).to_json() == {
        "state": "expected",
        "day": "2022-08-05",
        "zh": "预计 2022-08-05 满足",
        "en": "expected on 2022-08-05",
    }
    assert Projection(False, None).to_json()["state"] == "never"


# --- against counting every day


class _Counted:
    """The same, by adding up every day: in `PACE_DAYS`ths, so that nothing is rounded."""

    def __init__(self, by_day: Mapping[int, int], period: Period, at_least: int, a_day: int):
        pace = sum(by_day.get(TODAY - back, 0) for back in range(1, PACE_DAYS + 1))
        self._first = TODAY - LOOKED_AT_DAYS
        days = range(self._first, TODAY + LOOKED_AT_DAYS)
        shares = [by_day.get(day, 0) * PACE_DAYS if day < TODAY else pace for day in days]
        self._sums = [0, *accumulate(shares)]
        self._period, self._at_least, self._a_day = period, at_least, a_day

    def is_met(self, day: int) -> bool:
        span = self._period.span(day + 1)
        first, last = max(span.first, self._first), min(span.last, day)
        total = self._sums[last + 1 - self._first] - self._sums[first - self._first]
        wanted = self._at_least + self._a_day * span.days
        return (total if last >= first else 0) >= wanted * PACE_DAYS


_PERIODS: st.SearchStrategy[Period] = st.one_of(
    st.just(EVER),
    st.just(YEAR),
    st.just(CalendarYear("2023", NAME, 2023)),
    st.integers(1, 60).map(_trailing),
    st.integers(-90, 90).map(
        lambda start: FromTo(
            "days",
            NAME,
            date.fromordinal(date(2022, 8, 5).toordinal() + start),
            date.fromordinal(date(2022, 8, 5).toordinal() + start + 30),
        )
    ),
)
_DAYS = st.one_of(
    st.dictionaries(st.integers(1, 100), st.integers(0, 50)),
    st.tuples(st.integers(0, 20), st.integers(1, 100)).map(lambda drawn: _every_day(*drawn)),
)
_WANTED = st.tuples(st.integers(1, 3_000), st.just(0)) | st.tuples(st.just(1), st.integers(0, 25))


def _days_from(start: int, is_met: Callable[[int], bool]) -> int | None:
    looked_at = range(start, TODAY + LOOKED_AT_DAYS - 1)
    return next((day for day in looked_at if is_met(day)), None)


@settings(max_examples=400, deadline=None)
@given(_DAYS, _PERIODS, _WANTED, st.integers(-5, 100))
def test_the_first_day_is_the_one_that_counting_finds(
    back: dict[int, int], period: Period, wanted: tuple[int, int], later: int
) -> None:
    target = Target(_series(back), period, *wanted)
    counted = _Counted({TODAY - n: count for n, count in back.items()}, period, *wanted)

    assert target.is_met == counted.is_met(TODAY - 1)
    found = target.first_met(TODAY + later)
    expected = _days_from(max(TODAY + later, TODAY - 1), counted.is_met)
    if expected is None:
        assert found is None or found >= TODAY + LOOKED_AT_DAYS - 1
    else:
        assert found == expected
    if target.is_met:
        since = target.met_since()
        assert since is not None
        assert all(counted.is_met(day) for day in range(since, TODAY))
        assert not counted.is_met(since - 1)


@settings(max_examples=300, deadline=None)
@given(_DAYS, st.lists(st.tuples(_PERIODS, _WANTED), min_size=2, max_size=3))
def test_all_together_are_met_on_the_first_day_that_counting_finds(
    back: dict[int, int], drawn: list[tuple[Period, tuple[int, int]]]
) -> None:
    series = _series(back)
    by_day = {TODAY - n: count for n, count in back.items()}
    targets = [Target(series, period, *wanted) for period, wanted in drawn]
    counted = [_Counted(by_day, period, *wanted) for period, wanted in drawn]

    def all_met(day: int) -> bool:
        return all(one.is_met(day) for one in counted)

    def any_met(day: int) -> bool:
        return any(one.is_met(day) for one in counted)

    cases: list[tuple[Goal, Callable[[int], bool]]] = [
        (AllOf(targets), all_met),
        (AnyOf(targets), any_met),
    ]
    for goal, is_met in cases:
        found, expected = goal.first_met(TODAY - 1), _days_from(TODAY - 1, is_met)
        if expected is None:
            assert found is None or found >= TODAY + LOOKED_AT_DAYS - 1
        else:
            assert found == expected
