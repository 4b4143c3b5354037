"""Counting: every resolution has its place, whatever day it is and whatever is full."""

import contextlib
import resource
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from metrics import counting as counting_module
from metrics.counting import ROTATION_PAUSE_S, SOURCE_OVERFLOW, Counting
from metrics.day import day_number
from metrics.journal import (
    CountMeaning,
    Journal,
    JournalFullError,
    JournalSize,
    SourceMeaning,
    read_snapshot,
)

MIDNIGHT_S = datetime(2026, 11, 23, 16, tzinfo=UTC).timestamp()  # 00:00 of the 24th in Shanghai
TODAY = day_number(MIDNIGHT_S)
NOON_S = MIDNIGHT_S + 43_200
SMALL = JournalSize(16, 24, 16_384, 8, 4, 2_048)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    opened = Counting(tmp_path, NOON_S, SMALL)
    yield opened
    opened.close()


def _count(
    counting: Counting,
    now_s: float = NOON_S,
    *,
    prefix: str = "88.608.1",
    caller: str = "",
    source: str = "192.0.2.1",
) -> None:
    caller_class = "application" if caller else "anonymous"
    counting.count(now_s, "enterprise", prefix, caller_class, caller, "http_json", "found", source)


def _counts(counting: Counting) -> Counter[CountMeaning]:
    """What all journals say, read from their files as another process would."""
    found: Counter[CountMeaning] = Counter()
    for journal in counting.journals:
        for _, meaning, value in read_snapshot(journal.path).counts:
            found[meaning] += value
    return found


def _sources(counting: Counting) -> Counter[SourceMeaning]:
    found: Counter[SourceMeaning] = Counter()
    for journal in counting.journals:
        for _, meaning, value in read_snapshot(journal.path).sources:
            found[meaning] += value
    return found


def _by_day(counting: Counting) -> dict[int, int]:
    found: Counter[int] = Counter()
    for meaning, value in _counts(counting).items():
        found[meaning.day] += value
    return dict(found)


@contextlib.contextmanager
def _no_new_file() -> Iterator[None]:
    """No file can grow beyond 4 KB, as on a full disk; what was allocated stays usable."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_each_resolution_is_counted_once_with_its_source(counting: Counting) -> None:
    for _ in range(3):
        _count(counting)
    _count(counting, caller="app-7", source="2001:db8::1")
    anonymous = CountMeaning(TODAY, "enterprise", "88.608.1", "anonymous", "", "http_json", "found")
    application = CountMeaning(
        TODAY, "enterprise", "88.608.1", "application", "app-7", "http_json", "found"
    )
    assert _counts(counting) == {anonymous: 3, application: 1}
    assert _sources(counting) == {
        SourceMeaning(TODAY, "88.608.1", "192.0.2.1"): 3,
        SourceMeaning(TODAY, "88.608.1", "2001:db8::1"): 1,
    }


def test_a_full_journal_gives_way_to_a_new_one_and_nothing_is_lost(counting: Counting) -> None:
    for round_ in range(3):
        for n in range(100):
            _count(counting, source=f"192.0.2.{n}", prefix=f"88.608.{n % 3}")
        assert len(counting.journals) >= 4 * (round_ + 1)
    counted, sources = _counts(counting), _sources(counting)
    assert counted.total() == sources.total() == 300
    assert len(sources) == 100
    assert {meaning.prefix for meaning in counted} == {"88.608.0", "88.608.1", "88.608.2"}
    assert SOURCE_OVERFLOW not in {meaning.source for meaning in sources}


def test_a_retired_journal_is_no_longer_written(counting: Counting) -> None:
    for n in range(25):
        _count(counting, source=f"192.0.2.{n}")
    (retired,) = counting.retired
    before = retired.values()
    for n in range(15):
        _count(counting, source=f"192.0.2.{n}")
    assert retired.values() == before
    counting.forget(retired)
    assert counting.retired == ()
    assert retired.path.exists()  # removed by whoever flushed it
    assert len(counting.journals) == 1


def test_on_a_full_disk_the_count_goes_on_coarser(counting: Counting) -> None:
    _count(counting, caller="app-1")
    with _no_new_file():
        for n in range(100):
            _count(counting, caller=f"app-{n}", source=f"198.51.100.{n}")
    assert len(counting.journals) == 1
    counted, sources = _counts(counting), _sources(counting)
    assert counted.total() == sources.total() == 101
    # What had a slot keeps it; the others are counted by class.
    coarse = CountMeaning(TODAY, "enterprise", "", "application", "", "http_json", "found")
    assert counted[coarse] == 92
    assert {meaning.caller for meaning in counted} == {"", *(f"app-{n}" for n in range(8))}
    assert sources[SourceMeaning(TODAY, "", SOURCE_OVERFLOW)] == 81


def test_without_room_for_sources_the_callers_are_still_told_apart(counting: Counting) -> None:
    with _no_new_file():
        for n in range(100):
            _count(counting, caller=f"app-{n % 4}", source=f"198.51.100.{n}")
    by_caller = {meaning.caller: value for meaning, value in _counts(counting).items()}
    assert by_caller == {f"app-{n}": 25 for n in range(4)}


def test_when_the_disk_has_room_again_the_count_is_fine_again(counting: Counting) -> None:
    with _no_new_file():
        for n in range(50):
            _count(counting, source=f"192.0.2.{n}")
    _count(counting, NOON_S + ROTATION_PAUSE_S - 0.1, source="192.0.2.50")
    assert len(counting.journals) == 1
    _count(counting, NOON_S + ROTATION_PAUSE_S, source="192.0.2.51")
    _count(counting, NOON_S + ROTATION_PAUSE_S, source="192.0.2.49")
    assert len(counting.journals) == 2
    sources = _sources(counting)
    assert sources.total() == 53
    assert sources[SourceMeaning(TODAY, "88.608.1", "192.0.2.51")] == 1
    assert sources[SourceMeaning(TODAY, "88.608.1", "192.0.2.49")] == 1


def test_a_disk_that_stays_full_for_days_is_counted_for_days(counting: Counting) -> None:
    with _no_new_file():
        for day in range(4):
            for n in range(40):
                _count(counting, NOON_S + 86_400 * day, caller=f"app-{n}", source=f"192.0.2.{n}")
    assert _by_day(counting) == {TODAY + day: 40 for day in range(4)}
    # The reserve of this small journal is used up; an answer that cannot be counted is not given.
    with _no_new_file(), pytest.raises(JournalFullError):
        _count(counting, NOON_S + 86_400 * 4)


@pytest.mark.parametrize(
    ("moments", "days"),
    [
        ((-0.001, 0.0), {-1: 1, 0: 1}),
        ((-60.0, 60.0, -60.0, 60.0, 60.0), {-1: 2, 0: 3}),  # the clock steps back and forward
        ((0.0, 86_399.999, 86_400.0), {0: 2, 1: 1}),
        ((0.0, 10 * 86_400.0, -10 * 86_400.0, 1.0), {0: 2, 10: 1, -10: 1}),
    ],
)
def test_a_count_belongs_to_the_day_of_its_moment_in_shanghai(
    counting: Counting, moments: tuple[float, ...], days: dict[int, int]
) -> None:
    for moment in moments:
        _count(counting, MIDNIGHT_S + moment)
    assert _by_day(counting) == {TODAY + day: value for day, value in days.items()}


def test_beyond_the_limit_of_a_day_sources_are_counted_as_one(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting_module, "SOURCES_A_DAY_MAX", 5)
    for n in range(9):
        _count(counting, source=f"192.0.2.{n}")
    _count(counting, source="192.0.2.0")
    assert _sources(counting)[SourceMeaning(TODAY, "88.608.1", SOURCE_OVERFLOW)] == 4
    assert _sources(counting)[SourceMeaning(TODAY, "88.608.1", "192.0.2.0")] == 2
    for n in range(9):
        _count(counting, NOON_S + 86_400, source=f"192.0.2.{n}")
    assert _sources(counting)[SourceMeaning(TODAY + 1, "88.608.1", SOURCE_OVERFLOW)] == 4


def test_the_memo_is_bounded_and_forgetting_loses_no_count(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting_module, "MEMO_MAX", 4)
    for _ in range(5):
        for n in range(10):
            _count(counting, source=f"192.0.2.{n}")
        assert len(counting._hot) <= 4
    assert _counts(counting).total() == _sources(counting).total() == 50
    assert set(_sources(counting).values()) == {5}


def test_journals_begun_in_the_same_moment_are_two_files(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, NOON_S, SMALL), Journal(tmp_path, NOON_S, SMALL)
    assert first.path != second.path
    first.close()
    second.close()
