"""The process cache: what may be answered from it, and what ends that."""

import pytest

from resolver.entry import Entry
from resolver.freshness import ABSENT_S, CONNECTED_S, DISCONNECTED_S, HEARD_S, stale_age_s
from resolver.hot import Hot
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
