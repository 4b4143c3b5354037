"""What bounds strangers at the native doors: each limit at its edge, on a clock of the test's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.known_addresses import KNOWN_MAX, KNOWN_S, KnownAddresses, network_of
from node.native_limits import (
    ACCOUNTS_MAX,
    COST_MS,
    COST_PER_SOURCE_MS,
    CostBudget,
    Room,
    Seats,
    Strangers,
    source_of,
)
from node.native_repeats import ANSWERS_MAX, ANSWERS_SIZE_BYTES_MAX, MARKS_MAX, Repeats
from tests.answering import NOON_S

ONE, TWO = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def known(tmp_path: Path) -> Iterator[KnownAddresses]:
    opened = KnownAddresses(tmp_path)
    yield opened
    opened.close()


def test_an_address_is_known_for_an_hour(known: KnownAddresses) -> None:
    assert not known.knows(ONE, NOON_S)
    known.add(ONE, NOON_S)
    assert known.knows(ONE, NOON_S)
    assert known.knows(ONE, NOON_S + KNOWN_S)
    assert not known.knows(ONE, NOON_S + KNOWN_S + 120)
    assert not known.knows(TWO, NOON_S)


def test_a_clock_that_is_set_back_makes_nobody_known_for_longer(known: KnownAddresses) -> None:
    known.add(ONE, NOON_S)
    assert not known.knows(ONE, NOON_S - 120)


def test_what_one_worker_learns_the_others_know(tmp_path: Path, known: KnownAddresses) -> None:
    other = KnownAddresses(tmp_path)
    known.add("2001:db8::1", NOON_S)
    assert other.knows("2001:db8::1", NOON_S)
    other.close()


def test_an_hour_is_remembered_over_a_restart(tmp_path: Path) -> None:
    for round_ in range(2):
        opened = KnownAddresses(tmp_path)
        assert opened.knows(ONE, NOON_S) is bool(round_)
        opened.add(ONE, NOON_S)
        opened.close()


def test_a_file_of_another_size_is_made_anew(tmp_path: Path, known: KnownAddresses) -> None:
    del known
    path = tmp_path / "other" / "addresses"
    path.parent.mkdir()
    path.write_bytes(b"half a key")
    opened = KnownAddresses(path.parent)
    opened.add(ONE, NOON_S)
    assert opened.knows(ONE, NOON_S)
    opened.close()
    assert path.stat().st_mode & 0o777 == 0o644 & path.stat().st_mode
    assert path.stat().st_size == 16 + 8 * KNOWN_MAX


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2"),
        ("2001:db8:1:2ff::9", "2001:db8:1:200::/56"),
        ("fe80::1%eth0", "fe80::/56"),
        ("", ""),
    ],
)
def test_addresses_near_each_other_are_one_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_address_of_a_socket_for_both_is_the_one_that_is_counted() -> None:
    assert source_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert source_of("2001:db8::1") == "2001:db8::1"


def test_dear_work_of_one_source_is_paid_for_by_waiting(known: KnownAddresses) -> None:
    budget = CostBudget(known)
    assert budget.admits(ONE, COST_PER_SOURCE_MS - 1, NOON_S)
    # There is something left: what costs more than that is a debt.
    assert budget.admits(ONE, 51, NOON_S)
    assert not budget.admits(ONE, 1, NOON_S)
    assert budget.admits(TWO, 1, NOON_S)
    assert not budget.admits(ONE, 1, NOON_S + 0.4)
    assert budget.admits(ONE, 1, NOON_S + 0.6)


def test_strangers_together_do_not_take_what_is_kept_for_who_has_connected(
    known: KnownAddresses,
) -> None:
    budget = CostBudget(known)
    known.add(ONE, NOON_S)
    spent = sum(budget.admits(f"198.51.100.{number}", 50, NOON_S) for number in range(20))
    assert spent == COST_MS // 50
    assert budget.admits(ONE, 50, NOON_S)


def test_dear_work_of_this_machine_is_limited_only_if_that_was_set(known: KnownAddresses) -> None:
    for limits in (False, True):
        budget = CostBudget(known, limits_loopback=limits)
        assert budget.admits("127.0.0.1", 10_000, NOON_S)
        assert budget.admits("127.0.0.1", 1, NOON_S) is not limits


def test_accounts_are_bounded(known: KnownAddresses) -> None:
    budget = CostBudget(known)
    for number in range(ACCOUNTS_MAX + 5):
        budget.admits(f"source {number}", 0, NOON_S)
    assert len(budget._sources) == ACCOUNTS_MAX


def test_strangers_are_told_apart_up_to_a_number_and_a_rate(
    known: KnownAddresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.native_limits.STRANGERS_MAX", 2)
    monkeypatch.setattr("node.native_limits.STRANGERS_PER_S", 1)
    strangers = Strangers(known)
    known.add("198.51.100.9", NOON_S)
    counted = [strangers.counted_as(f"198.51.100.{number}", NOON_S) for number in (1, 2, 3, 9)]
    assert counted == ["198.51.100.1", "198.51.100.2", "overflow", "198.51.100.9"]
    assert strangers.counted_as("127.0.0.1", NOON_S) == "127.0.0.1"
    assert strangers.counted_as("198.51.100.4", NOON_S + 1) == "198.51.100.4"


def test_room_is_what_was_not_taken() -> None:
    room = Room(10)
    assert room.take(6)
    assert not room.take(5)
    assert room.take(4)
    room.give(6)
    assert room.take(6)
    assert room.held_bytes == 10


def test_seats_are_bounded_in_all_and_for_each_source() -> None:
    seats = Seats(3, 2)
    assert [seats.take(source) for source in (ONE, ONE, ONE, TWO, TWO)] == [
        True, True, False, True, False,
    ]  # fmt: skip
    seats.give(ONE)
    assert seats.take(TWO)
    assert seats.taken == 3


def test_a_message_is_begun_once_and_its_answer_is_at_hand_for_a_while() -> None:
    repeats = Repeats()
    assert repeats.begin("a")
    assert not repeats.begin("a")
    assert repeats.answers("a") == ()
    repeats.turn()
    repeats.answered("a", [b"answer"])
    assert not repeats.begin("a")
    assert repeats.answers("a") == [b"answer"]
    repeats.turn()
    assert repeats.begin("a")


def test_an_answer_that_comes_when_all_is_forgotten_is_not_kept() -> None:
    repeats = Repeats()
    assert repeats.begin("a")
    repeats.turn()
    repeats.turn()
    repeats.answered("a", [b"answer"])
    assert repeats.answers("a") == ()
    assert repeats.begin("a")


def test_what_is_remembered_of_datagrams_is_bounded() -> None:
    repeats = Repeats()
    for number in range(3 * MARKS_MAX):
        repeats.mark(number)
    assert len(repeats.marks) + len(repeats.older_marks) <= 2 * MARKS_MAX + 1
    assert 3 * MARKS_MAX - 1 in repeats.marks | repeats.older_marks
    for number in range(3 * ANSWERS_MAX):
        assert repeats.begin(number)
    assert len(repeats._answers) + len(repeats._older) <= 2 * ANSWERS_MAX
    answer = [bytes(ANSWERS_SIZE_BYTES_MAX // 4)]
    for number in range(9):
        repeats.begin(f"large {number}")
        repeats.answered(f"large {number}", answer)
    kept = [number for number in range(9) if repeats.answers(f"large {number}")]
    assert 8 in kept or not repeats._answers
    assert len(kept) <= 9
    assert repeats._size_bytes <= ANSWERS_SIZE_BYTES_MAX
