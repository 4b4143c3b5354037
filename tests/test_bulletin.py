"""What travels on the bulletin, and how a hole in its numbers is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.bulletin import Numbering, body_to_bytes, message_from_bytes
from resolver.errors import CacheUnavailableError


def test_a_message_is_its_number_and_its_announcements() -> None:
    said = [("record", "甲", 2**62), ("registered", "88.1.2", 0)]
    assert message_from_bytes(b"7 " + body_to_bytes(said)) == (7, said)


@pytest.mark.parametrize("damaged", [b"", b"7", b"7 ", b"7 {", b"x []", b"[]", b'7 [["a","b"]]'])
def test_a_damaged_message_is_an_error(damaged: bytes) -> None:
    with pytest.raises(CacheUnavailableError, match="the bulletin is damaged"):
        message_from_bytes(damaged)


def test_one_by_one_nothing_is_missed() -> None:
    numbering = Numbering(5)
    assert [numbering.hears(number) for number in (6, 7, 8)] == [True, True, True]
    assert numbering.asks(8)
    assert numbering.confirms(8)


def test_a_hole_is_noticed_once() -> None:
    numbering = Numbering(5)
    assert [numbering.hears(number) for number in (6, 8, 9)] == [True, False, True]


def test_what_was_said_before_the_first_question_may_still_come() -> None:
    numbering = Numbering(5)
    assert [numbering.hears(number) for number in (4, 5, 6)] == [True, True, True]


def test_after_a_confirmation_nothing_comes_again() -> None:
    numbering = Numbering(5)
    assert numbering.confirms(5)
    assert not numbering.hears(5)
    assert numbering.hears(6)


def test_a_missed_last_one_is_noticed_at_the_confirmation() -> None:
    numbering = Numbering(5)
    assert numbering.asks(6)
    assert not numbering.confirms(6)
    assert numbering.confirms(6)
    assert numbering.hears(7)


def test_what_came_after_the_question_is_not_missed() -> None:
    numbering = Numbering(5)
    assert numbering.asks(6)
    assert numbering.hears(6)
    assert numbering.hears(7)
    assert numbering.confirms(6)
    assert numbering.hears(8)


def test_numbers_that_began_anew_are_noticed_wherever_they_begin() -> None:
    below, above = Numbering(5), Numbering(5)
    assert not below.asks(2)
    assert below.hears(3)
    assert above.asks(9)
    assert not above.confirms(9)
    assert above.hears(10)


@given(
    first=st.integers(0, 2**48),
    events=st.lists(st.sampled_from(("said", "swallowed", "confirmed")), max_size=30),
)
def test_exactly_the_swallowed_are_noticed_by_the_next_confirmation(
    first: int, events: list[str]
) -> None:
    numbering, given_number, is_missing = Numbering(first), first, False
    for event in events:
        if event == "confirmed":
            noticed = not (numbering.asks(given_number) and numbering.confirms(given_number))
            assert noticed == is_missing
            is_missing = False
            continue
        given_number += 1
        if event == "swallowed":
            is_missing = True
        elif not numbering.hears(given_number):
            assert is_missing
            is_missing = False
        else:
            assert not is_missing
