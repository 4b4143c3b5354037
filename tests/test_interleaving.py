"""The interleaving test in its short form, and that what judges it can tell right from wrong."""

from pathlib import Path

import pytest

from loadtest.interleaving import interleave
from loadtest.interleaving_book import SETTLE_S, Book, Bounds, BrokenPromiseError, Found, Story

VISIBLE_S, LOST_S = 0.1, 1.0
# What the short form allows: a machine that is busy with other things is not a broken promise; the
# faults that it is to find leave something unseen for a minute.
BUSY_MACHINE = Bounds(visible_s=1.5, lost_s=3.0)
OPERATIONS, FAULTS, RATE = 20_000, 10, 1_500


async def test_no_version_goes_back_and_what_was_acknowledged_is_seen(scratch: Path) -> None:
    folder = scratch / "interleaving"
    folder.mkdir()
    report = await interleave(
        folder, OPERATIONS, seed=1, workers=2, bounds=BUSY_MACHINE, faults=FAULTS, rate=RATE
    )
    assert report.violations == 0, report
    assert report.total >= OPERATIONS
    assert report.faults.total() == FAULTS
    assert report.faults["kill_worker"] > 0
    for kind in ("json 200", "json 404", "redirect 302", "batch 200", "put 201", "delete 200"):
        assert report.outcomes[kind] > 0, report


@pytest.fixture
def book() -> Book:
    return Book(Bounds(VISIBLE_S, LOST_S))


@pytest.fixture
def story() -> Story:
    """Registered at 1 s, changed at 2 s, deleted at 3 s, registered anew at 4 s."""
    made = Story("I")
    for number, deletes in ((1, False), (2, False), (3, True), (4, False)):
        assert made.begin(deletes=deletes) == number
        made.acknowledge(number, float(number))
    return made


def judge(book: Book, story: Story, found: Found, sent_s: float, seen: int = 0) -> int:
    return book.judge(story, found, sent_s, sent_s + 0.01, seen)


def test_the_newest_write_is_always_right(book: Book, story: Story) -> None:
    assert judge(book, story, Found(4), 4.0) == 4
    assert judge(book, story, Found(4), 60.0) == 4


@pytest.mark.parametrize("found", [Found(2), Found(1), Found(None), Found(3), Found(5)])
def test_what_is_not_the_newest_write_is_wrong_once_that_is_promised(
    book: Book, story: Story, found: Found
) -> None:
    with pytest.raises(BrokenPromiseError, match="I: answered"):
        judge(book, story, found, 4.01 + VISIBLE_S)


def test_an_acknowledged_write_may_stay_unseen_for_a_moment(book: Book, story: Story) -> None:
    assert judge(book, story, Found(None), 4.05) == 3
    assert judge(book, story, Found(2), 3.05) == 2
    assert book.longest_calm_s == pytest.approx(0.05)


def test_a_longer_moment_is_granted_while_redis_is_lost(book: Book, story: Story) -> None:
    book.lose()
    assert judge(book, story, Found(None), 4.9) == 3
    with pytest.raises(BrokenPromiseError, match="Redis lost"):
        judge(book, story, Found(None), 4.0 + LOST_S)
    book.regain(4.0)
    assert not book.is_calm(4.0)
    with pytest.raises(BrokenPromiseError, match="Redis there"):
        judge(book, story, Found(None), 4.0 + SETTLE_S)


def test_nothing_goes_back_on_one_connection(book: Book, story: Story) -> None:
    assert judge(book, story, Found(2), 2.0, seen=2) == 2
    with pytest.raises(BrokenPromiseError, match="this connection showed 2"):
        judge(book, story, Found(1), 2.0, seen=2)
    with pytest.raises(BrokenPromiseError, match="this connection showed 4"):
        judge(book, story, Found(None), 4.0, seen=4)


def test_an_answer_marked_stale_may_be_old_but_does_not_go_back(book: Book, story: Story) -> None:
    assert judge(book, story, Found(2, is_stale=True), 60.0, seen=1) == 2
    with pytest.raises(BrokenPromiseError, match=r"answered write 1 \(stale\)"):
        judge(book, story, Found(1, is_stale=True), 60.0, seen=2)


def test_not_found_is_wrong_before_the_deletion_and_right_after_it(book: Book) -> None:
    story = Story("I")
    assert judge(book, story, Found(None), 0.0) == 0
    story.begin(deletes=False)
    story.acknowledge(1, 1.0)
    with pytest.raises(BrokenPromiseError, match="answered not found"):
        judge(book, story, Found(None), 2.0)
    story.begin(deletes=True)
    assert judge(book, story, Found(None), 2.0) == 2, "it is under way"


def test_a_deletion_does_not_come_back(book: Book) -> None:
    story = Story("I")
    for number, deletes in ((1, False), (2, True)):
        story.begin(deletes=deletes)
        story.acknowledge(number, float(number))
    assert judge(book, story, Found(1), 2.05) == 1
    with pytest.raises(BrokenPromiseError, match="answered write 1"):
        judge(book, story, Found(1), 2.2)


def test_what_was_seen_of_a_write_that_nobody_confirmed_stays(book: Book) -> None:
    story = Story("I")
    story.begin(deletes=False)
    assert judge(book, story, Found(1), 1.0) == 1
    assert judge(book, story, Found(None), 1.5) == 0
    with pytest.raises(BrokenPromiseError, match="answered not found"):
        judge(book, story, Found(None), 1.02 + LOST_S)


def test_a_write_that_was_never_sent_is_never_answered(book: Book) -> None:
    story = Story("I")
    story.begin(deletes=False)
    with pytest.raises(BrokenPromiseError, match="answered write 2"):
        judge(book, story, Found(2), 1.0)


def test_a_deletion_that_never_happened_explains_nothing(book: Book) -> None:
    story = Story("I")
    story.begin(deletes=False)
    story.acknowledge(1, 1.0)
    story.begin(deletes=True)
    story.settle(1)
    assert story.is_there
    with pytest.raises(BrokenPromiseError, match="answered not found"):
        judge(book, story, Found(None), 5.0)
