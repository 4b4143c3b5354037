"""The process cache: what may be answered from it, and what ends that."""

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.entry import Entry
from resolver.freshness import (
    ABSENT_S,
    CONNECTED_S,
    DISCONNECTED_S,
    HEARD_S,
    RENEWED_FROM_S,
    stale_age_s,
)
from resolver.hot import Hot, Kept
from resolver.record import Record

NOW_S = 1_800_000_000.0
PREFIX = "88.1.2"


def live(version: int, fetched_at_s: float = NOW_S) -> Entry:
    return Entry(Record("88.1.2/A", version), fetched_at_s)


def gone(version: int) -> Entry:
    return Entry(Record("88.1.2/A", version, deleted=True), NOW_S)


def absent() -> Entry:
    return Entry(None, NOW_S)


@pytest.fixture
def hot() -> Hot:
    made = Hot()
    made.connect()
    made.heard(NOW_S)
    return made


def keep(hot: Hot, key: str, entry: Entry) -> None:
    hot.put(key, entry, hot.mark(PREFIX))


def version(hot: Hot, key: str = "A", now_s: float = NOW_S) -> int | None:
    found = hot.fresh(key, PREFIX, now_s)
    return None if found is None else found.version


def listened(hot: Hot, now_s: float) -> float:
    hot.heard(now_s)
    return now_s


def test_what_was_kept_is_answered(hot: Hot) -> None:
    keep(hot, "A", live(3))
    assert version(hot) == 3
    assert version(hot, "B") is None


def test_an_entry_is_believed_for_a_minute_while_invalidations_arrive(hot: Hot) -> None:
    keep(hot, "A", live(3))
    assert version(hot, now_s=listened(hot, NOW_S + CONNECTED_S - 1)) == 3
    assert version(hot, now_s=listened(hot, NOW_S + CONNECTED_S)) is None


def test_entries_that_were_fetched_together_are_not_fetched_again_together(hot: Hot) -> None:
    keys = [f"A{number}" for number in range(60)]
    for number, key in enumerate(keys):
        keep(hot, key, live(3, NOW_S + number / 10))
    left = [
        sum(version(hot, key, listened(hot, NOW_S + after_s)) == 3 for key in keys)
        for after_s in (RENEWED_FROM_S - 1, RENEWED_FROM_S + 5, RENEWED_FROM_S + 10, 70)
    ]
    assert left[0] == 60
    assert 35 < left[1] < 60
    assert 15 < left[2] < 45
    assert left[3] == 0


def test_an_entry_from_the_future_is_not_believed_for_ever(hot: Hot) -> None:
    keep(hot, "A", live(3))
    assert version(hot, now_s=listened(hot, NOW_S - CONNECTED_S)) is None


@pytest.mark.parametrize("entry", [absent(), gone(4)])
def test_an_absence_is_believed_briefly(hot: Hot, entry: Entry) -> None:
    keep(hot, "A", entry)
    assert version(hot, now_s=listened(hot, NOW_S + ABSENT_S - 1)) == entry.version
    assert version(hot, now_s=listened(hot, NOW_S + ABSENT_S)) is None


def test_without_invalidations_nothing_older_than_a_second_is_believed() -> None:
    hot = Hot()
    keep(hot, "A", live(3))
    assert version(hot, now_s=NOW_S + DISCONNECTED_S - 0.1) == 3
    assert version(hot, now_s=NOW_S + DISCONNECTED_S) is None


def test_a_silent_bulletin_is_no_bulletin(hot: Hot) -> None:
    keep(hot, "A", live(3, NOW_S - 20))
    assert version(hot, now_s=NOW_S + HEARD_S - 0.1) == 3
    assert version(hot, now_s=NOW_S + HEARD_S) is None


def test_a_paused_process_believes_nothing_when_it_goes_on(hot: Hot) -> None:
    keep(hot, "A", live(3))
    assert version(hot, now_s=NOW_S + 10) is None
    hot.heard(NOW_S + 10)
    assert version(hot, now_s=NOW_S + 10) == 3


def test_a_lost_connection_ends_everything_that_was_believed(hot: Hot) -> None:
    keep(hot, "A", live(3))
    keep(hot, "B", absent())
    hot.disconnect()
    assert (version(hot), version(hot, "B")) == (None, None)
    hot.connect()
    assert (version(hot), version(hot, "B")) == (None, None)


def test_what_was_asked_before_a_lost_connection_is_not_believed_after(hot: Hot) -> None:
    before = hot.mark(PREFIX)
    hot.disconnect()
    hot.connect()
    hot.put("A", live(3), before)
    assert version(hot) is None


def test_an_announcement_ends_what_is_older_only(hot: Hot) -> None:
    keep(hot, "A", live(3))
    hot.outdated("A", 3)
    assert version(hot) == 3
    hot.outdated("A", 4)
    assert version(hot) is None


def test_what_was_outdated_cannot_come_back(hot: Hot) -> None:
    keep(hot, "A", live(3))
    hot.outdated("A", 5)
    keep(hot, "A", live(4))
    assert version(hot) is None
    found = hot.last_known("A")
    assert found is not None
    assert (found.version, found.is_present) == (5, False)
    keep(hot, "A", live(5))
    assert version(hot) == 5
    assert len(hot) == 1


def test_announcements_of_what_nobody_asked_for_are_not_kept(hot: Hot) -> None:
    hot.outdated("A", 5)
    assert len(hot) == 0


def test_an_announcement_ends_an_absence(hot: Hot) -> None:
    keep(hot, "A", absent())
    hot.outdated("A", 1)
    assert version(hot) is None


@pytest.mark.parametrize("newer", [live(5), gone(5)])
def test_an_older_version_never_takes_the_place_of_a_newer_one(hot: Hot, newer: Entry) -> None:
    keep(hot, "A", newer)
    keep(hot, "A", live(4))
    keep(hot, "A", absent())
    assert version(hot) == 5


def test_a_newer_version_takes_the_place_of_an_older_one(hot: Hot) -> None:
    for entry in (absent(), live(1), gone(2), live(3)):
        keep(hot, "A", entry)
        assert version(hot) == entry.version
    assert len(hot) == 1


def test_a_registration_ends_the_absences_of_its_prefix(hot: Hot) -> None:
    keep(hot, "A", absent())
    hot.put("B", absent(), hot.mark("88.1.3"))
    hot.registered(PREFIX)
    assert version(hot) is None
    assert hot.fresh("B", "88.1.3", NOW_S) is not None


def test_an_absence_asked_before_a_registration_is_not_believed_after(hot: Hot) -> None:
    before = hot.mark(PREFIX)
    hot.registered(PREFIX)
    hot.put("A", absent(), before)
    assert version(hot) is None
    keep(hot, "A", absent())
    assert version(hot) == 0


def test_registrations_below_many_prefixes_lose_no_end_of_an_absence() -> None:
    hot = Hot(absent_max=3)
    marks = {prefix: hot.mark(prefix) for prefix in "abcdefgh"}
    for prefix in marks:
        hot.registered(prefix)
    assert all(hot.mark(prefix) != mark for prefix, mark in marks.items())


def test_the_least_recently_used_goes_first() -> None:
    hot = Hot(present_max=2)
    for key in "AB":
        keep(hot, key, live(1))
    hot.fresh("A", PREFIX, NOW_S)
    keep(hot, "C", live(1))
    assert [version(hot, key) for key in "ABC"] == [1, None, 1]
    assert len(hot) == 2


def test_a_flood_of_unknown_names_evicts_no_product() -> None:
    hot = Hot(present_max=2, absent_max=3)
    keep(hot, "A", live(1))
    for number in range(100):
        keep(hot, f"X{number}", absent())
    assert version(hot) == 1
    assert len(hot) == 4


def test_the_last_known_entry_is_given_whatever_its_age(hot: Hot) -> None:
    keep(hot, "A", live(3, NOW_S - 1_000_000))
    hot.disconnect()
    found = hot.last_known("A")
    assert found is not None
    assert stale_age_s(found, NOW_S) == 1_000_000
    assert stale_age_s(live(1, NOW_S + 5), NOW_S) == 0


def test_a_known_deletion_is_the_last_that_is_known(hot: Hot) -> None:
    keep(hot, "A", live(3))
    keep(hot, "A", gone(4))
    found = hot.last_known("A")
    assert found is not None
    assert found.version == 4


def test_what_was_used_lately_stays_longest() -> None:
    hot = Hot(present_max=10)
    for number in range(100):
        keep(hot, "used", live(1)) if number == 0 else hot.kept("used")
        keep(hot, f"X{number}", live(1))
    assert version(hot, "used") == 1
    # Half of the room is for what was used last, in the order of use.
    assert [version(hot, f"X{number}") for number in range(99, 95, -1)] == [1] * 4
    assert version(hot, "X50") is None


def test_what_leaves_is_let_go_of_piece_by_piece_and_is_then_nobody_s() -> None:
    hot = Hot(present_max=200)
    held = [put_and_kept(hot, f"X{number}") for number in range(200)]
    assert all(hot.may_answer(kept, NOW_S) for kept in held)
    gone = []
    for number in range(200, 230):
        put_and_kept(hot, f"X{number}")
        gone.append(sum(not hot.may_answer(kept, NOW_S) for kept in held))
    # The first new one makes the older half leave: four of them with every new one.
    assert gone[0] <= 4
    assert gone[-1] == 100
    assert all(0 <= after - before <= 4 for before, after in pairwise(gone))


def put_and_kept(hot: Hot, key: str) -> Kept:
    keep(hot, key, live(1))
    kept = hot.kept(key)
    assert kept is not None
    return kept


def test_what_is_leaving_is_still_told_of_changes_and_still_the_last_known() -> None:
    hot = Hot(present_max=200)
    held = [put_and_kept(hot, f"X{number}") for number in range(200)]
    put_and_kept(hot, "Y")
    assert hot.kept("X0") is None
    assert hot.may_answer(held[0], NOW_S)
    found = hot.last_known("X0")
    assert found is not None
    assert found.version == 1
    hot.outdated("X0", 2)
    assert not hot.may_answer(held[0], NOW_S)
    keep(hot, "X0", live(1))
    assert hot.kept("X0") is None


def test_a_record_that_is_kept_anew_is_not_answered_with_from_before(hot: Hot) -> None:
    for following in (live(3), live(4), gone(5)):
        held = put_and_kept(hot, "A")
        keep(hot, "A", following)
        assert not hot.may_answer(held, NOW_S)
        hot.outdated("A", 100)
        hot = Hot()
        hot.connect()
        hot.heard(NOW_S)


def test_without_room_nothing_is_kept() -> None:
    hot = Hot(present_max=0)
    keep(hot, "A", live(1))
    keep(hot, "B", absent())
    assert len(hot) == 0
    assert hot.last_known("A") is None


KEYS = [f"K{number}" for number in range(12)]
PRESENT_MAX = 6


class Told:
    """What a cache was told and gave, step by step: the model of what it may say."""

    def __init__(self) -> None:
        self.hot = Hot(PRESENT_MAX)
        self.hot.connect()
        self.hot.heard(NOW_S)
        self.versions = dict.fromkeys(KEYS, 1)
        # For each key the versions that the cache was given or told of, in their order.
        self.told: dict[str, list[int]] = {key: [] for key in KEYS}
        self.absences: dict[str, int] = {}
        self.registrations = 0
        self.held: list[tuple[str, Kept]] = []
        # In the order of their last use; and those that were forgotten for cause since.
        self.used: list[str] = []
        self.dropped: set[str] = set()

    def put(self, key: str, age: int, kind: str) -> None:
        """A reader brings what was the newest version `age` versions ago."""
        number = 0 if kind == "absent" else max(1, self.versions[key] - age)
        record = Record(key, number, deleted=kind == "deleted") if number else None
        keep(self.hot, key, Entry(record, NOW_S))
        self.told[key].append(number)
        if not number:
            self.absences[key] = self.registrations
        if self.hot.kept(key) is None:
            self.dropped.add(key)
        self.use(key)

    def write(self, key: str, is_told: bool) -> None:
        """A writer makes a newer version; the cache hears of it, or only ever reads it."""
        self.versions[key] += 1
        if is_told:
            self.hot.outdated(key, self.versions[key])
            self.told[key].append(self.versions[key])
            self.dropped.add(key)

    def register(self) -> None:
        """Something new is registered below the prefix of all keys."""
        self.hot.registered(PREFIX)
        self.registrations += 1

    def begin_generation(self) -> None:
        """Invalidations were missed."""
        self.hot.connect()

    def use(self, key: str) -> None:
        """Somebody asks, and holds what is kept for later."""
        kept = self.hot.kept(key)
        if kept is None:
            lately = self.used[-(PRESENT_MAX // 2) :]
            assert key in self.dropped or key not in lately, "it was used lately"
            return
        self.held.append((key, kept))
        self.dropped.discard(key)
        self.used = [used for used in self.used if used != key] + [key]

    def check(self) -> None:
        """Nothing that is given is older than what was told after it."""
        for key in KEYS:
            known = self.hot.last_known(key)
            assert known is None or not self._is_overtaken(key, known.version)
            # Without asking as a caller does, which would be a use.
            absent = self.hot.fresh(key, PREFIX, NOW_S) if known and not known.is_present else None
            assert absent is None or absent.version or self.absences[key] == self.registrations
        there = {id(kept): (key, kept) for key, kept in self.held if kept.moment.generation >= 0}
        # What is leaving takes half of the room at most, besides what is kept.
        assert len(there) <= PRESENT_MAX * 3 // 2
        assert len({key for key, _ in there.values()}) == len(there)
        assert not [key for key, kept in there.values() if self._is_overtaken(key, kept.version)]
        assert len(self.hot) <= PRESENT_MAX + len(KEYS)

    def _is_overtaken(self, key: str, number: int) -> bool:
        told = self.told[key]
        latest = max(step for step, found in enumerate(told) if found == number)
        return any(found > number for found in told[latest:])


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.sampled_from(KEYS),
            st.integers(0, 2),
            st.sampled_from(("live", "live", "live", "live", "deleted", "absent")),
        ),
        st.tuples(st.just("use"), st.sampled_from(KEYS)),
        st.tuples(st.just("write"), st.sampled_from(KEYS), st.booleans()),
        st.tuples(st.sampled_from(("register", "begin_generation"))),
    ),
    min_size=1,
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_happens_no_version_goes_back(steps: list[tuple[Any, ...]]) -> None:
    told = Told()
    for name, *arguments in steps:
        getattr(told, name)(*arguments)
        told.check()


@pytest.mark.parametrize("seed", range(3))
def test_in_a_long_life_no_version_goes_back(seed: int) -> None:
    chance, told = random.Random(seed), Told()
    for _ in range(3_000):
        key = chance.choice(KEYS)
        kind = chance.choice(("live", "live", "live", "deleted", "absent"))
        step = chance.randrange(100)
        if step < 60:
            told.put(key, chance.randrange(3), kind)
        elif step < 85:
            told.use(key)
        elif step < 97:
            told.write(key, chance.random() < 0.5)
        elif step < 99:
            told.register()
        else:
            told.begin_generation()
        told.check()
