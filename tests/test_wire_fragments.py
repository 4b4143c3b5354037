"""Messages in packets: in any order, twice, without the TC flag, forged and forgotten."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.wire import (
    ENVELOPE_SIZE_BYTES,
    MESSAGE_SIZE_BYTES_MAX,
    PACKET_SIZE_BYTES_MAX,
    TRUNCATED,
    Envelope,
    InvalidMessageError,
    Reassembly,
    envelope_and_content,
    packets,
    sealed,
)
from resolver.wire._fragments import (
    PACKETS_MAX,
    REASSEMBLY_PATIENCE_S,
    UNFINISHED_MAX,
    UNFINISHED_SIZE_BYTES_MAX,
)
from tests.recorded_native import captured

HERE = ("192.0.2.1", 50_000)
(BIG,) = (one for one in captured() if len(one.packets) == 7)


def cut(data: bytes, size_bytes: int, *, flags: int = TRUNCATED) -> list[bytes]:
    """`data` in packets of `size_bytes` of content."""
    envelope, content = envelope_and_content(data)
    places = range(0, len(content), size_bytes)
    heads = [replace(envelope, sequence=n, flags=flags) for n, _ in enumerate(places)]
    parts = [content[place : place + size_bytes] for place in places]
    return [head.to_wire() + part for head, part in zip(heads, parts, strict=True)]


def joined(parts: list[bytes]) -> bytes | None:
    """What the last packet completes; none before may complete anything."""
    reassembly = Reassembly()
    assert [reassembly.add(HERE, part, 0.0) for part in parts[:-1]] == [None] * (len(parts) - 1)
    whole = reassembly.add(HERE, parts[-1], 0.0)
    assert (len(reassembly), reassembly.held_bytes) == ((0, 0) if whole else (1, whole_cost(parts)))
    return whole


def whole_cost(parts: list[bytes]) -> int:
    return 128 + sum(len(part) - ENVELOPE_SIZE_BYTES + 128 for part in set(parts))


def plain(data: bytes | None) -> bytes | None:
    """`data` without the TC flag, which only tells how it came."""
    if data is None:
        return None
    envelope, content = envelope_and_content(data)
    return sealed(replace(envelope, flags=envelope.flags & ~TRUNCATED), content)


def test_a_message_that_fits_is_one_packet_and_stays_as_it_is() -> None:
    (short, *_) = (one.data for one in captured())
    longest = sealed(Envelope(1), bytes(PACKET_SIZE_BYTES_MAX - ENVELOPE_SIZE_BYTES))
    assert packets(short) == [short]
    assert packets(longest) == [longest]
    assert Reassembly().add(HERE, longest, 0.0) == longest


def test_a_longer_message_is_sent_in_packets_of_512_bytes() -> None:
    message = sealed(Envelope(1), bytes(493))
    assert [len(packet) for packet in packets(message)] == [512, 21]
    longest = packets(sealed(Envelope(1), bytes(MESSAGE_SIZE_BYTES_MAX)))
    assert len(longest) == 533
    assert plain(joined(longest)) == sealed(Envelope(1), bytes(MESSAGE_SIZE_BYTES_MAX))


@given(st.permutations(BIG.packets), st.lists(st.integers(0, 5), max_size=4))
def test_packets_come_in_any_order_and_more_than_once(parts: list[bytes], again: list[int]) -> None:
    repeated = [*parts[:-1], *(parts[n] for n in again), parts[-1]]
    assert joined(repeated) == BIG.data


@pytest.mark.parametrize("size_bytes", [1, 3, 100, 1_400])
@pytest.mark.parametrize("flags", [0, TRUNCATED])
def test_packets_of_any_size_are_joined_with_and_without_the_tc_flag(
    size_bytes: int, flags: int
) -> None:
    message = sealed(Envelope(7), bytes(range(256)) * (1 if size_bytes < 100 else 8))
    assert plain(joined(cut(message, size_bytes, flags=flags))) == message


def test_a_whole_message_needs_no_other_packet_whatever_its_flag_says() -> None:
    packet = sealed(Envelope(7, flags=TRUNCATED), b"whole")
    assert Reassembly().add(HERE, packet, 0.0) == packet


def test_an_encrypted_message_stays_so() -> None:
    encrypted = next(one.data for one in captured() if one.is_encrypted)
    envelope, _ = envelope_and_content(encrypted)
    assert plain(joined(cut(encrypted, 50, flags=envelope.flags | TRUNCATED))) == encrypted


def test_senders_and_request_numbers_are_kept_apart() -> None:
    reassembly = Reassembly()
    messages = {
        (sender, number): sealed(Envelope(number), bytes((number,)) + sender.encode() * 300)
        for sender in "ab"
        for number in (1, 2)
    }
    for part in range(2):
        for (sender, number), message in messages.items():
            whole = reassembly.add(sender, cut(message, 200)[part], 0.0)
            assert plain(whole) == (message if part else None), number
    assert (len(reassembly), reassembly.held_bytes) == (0, 0)


def test_a_request_number_used_anew_is_a_new_message() -> None:
    old, new = sealed(Envelope(1), b"a" * 500), sealed(Envelope(1), b"b" * 400)
    reassembly = Reassembly()
    reassembly.add(HERE, cut(old, 300)[0], 0.0)
    assert reassembly.add(HERE, cut(new, 300)[1], 0.0) is None
    assert plain(reassembly.add(HERE, cut(new, 300)[0], 0.0)) == new
    assert (len(reassembly), reassembly.held_bytes) == (0, 0)


def test_packets_that_are_more_than_the_message_are_refused_and_forgotten() -> None:
    message = sealed(Envelope(1), bytes(500))
    first, second = cut(message, 300)
    reassembly = Reassembly()
    reassembly.add(HERE, first, 0.0)
    with pytest.raises(InvalidMessageError, match="packets of 600 bytes: expected 500") as caught:
        reassembly.add(HERE, second + bytes(100), 0.0)
    assert caught.value.request_id == 1
    assert (len(reassembly), reassembly.held_bytes) == (0, 0)


def test_a_gap_at_the_end_is_waited_for() -> None:
    first, second, third = cut(sealed(Envelope(1), bytes(300)), 100)
    reassembly = Reassembly()
    assert reassembly.add(HERE, third, 0.0) is None
    assert reassembly.add(HERE, first, 0.0) is None
    assert reassembly.add(HERE, second, 0.0) is not None


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"\x02\x0b", "expected 20 bytes, found 2"),
        (Envelope(1, 500).to_wire(), "packet with 0 bytes of 500"),
        (Envelope(1, 5).to_wire() + bytes(6), "packet with 6 bytes of 5"),
        (Envelope(1, 9, sequence=PACKETS_MAX).to_wire() + b"x", "packet 1066: expected at most"),
        (Envelope(1, MESSAGE_SIZE_BYTES_MAX + 1).to_wire() + b"x", "expected at most 262144"),
    ],
)
def test_a_packet_that_is_part_of_nothing_is_refused_and_not_kept(
    packet: bytes, message: str
) -> None:
    reassembly = Reassembly()
    with pytest.raises(InvalidMessageError, match=message):
        reassembly.add(HERE, packet, 0.0)
    assert (len(reassembly), reassembly.held_bytes) == (0, 0)


# What strangers can make it hold.


def test_open_messages_are_bounded_in_number_and_the_oldest_goes_first() -> None:
    reassembly = Reassembly()
    message = sealed(Envelope(0), bytes(20))
    for number in range(UNFINISHED_MAX + 1):
        reassembly.add(number, cut(message, 10)[0], 0.0)
    assert len(reassembly) == UNFINISHED_MAX
    assert reassembly.add(0, cut(message, 10)[1], 0.0) is None
    assert reassembly.add(UNFINISHED_MAX, cut(message, 10)[1], 0.0) is not None


def test_open_messages_are_bounded_in_bytes() -> None:
    reassembly = Reassembly()
    first, *_ = cut(sealed(Envelope(0), bytes(MESSAGE_SIZE_BYTES_MAX)), 65_000)
    for number in range(200):
        reassembly.add(number, first, 0.0)
        assert reassembly.held_bytes <= UNFINISHED_SIZE_BYTES_MAX
    assert len(reassembly) == UNFINISHED_SIZE_BYTES_MAX // (65_000 + 256)


def test_packets_of_one_byte_count_with_what_they_cost() -> None:
    reassembly = Reassembly()
    for part in cut(sealed(Envelope(0), bytes(1_000)), 1)[:-1]:
        reassembly.add(HERE, part, 0.0)
    assert reassembly.held_bytes > 999 * 100


def test_what_is_old_is_given_up() -> None:
    first, second = cut(sealed(Envelope(1), bytes(20)), 10)
    for later_s, is_whole in ((REASSEMBLY_PATIENCE_S - 0.1, True), (REASSEMBLY_PATIENCE_S, False)):
        reassembly = Reassembly()
        reassembly.add(HERE, first, 100.0)
        assert (reassembly.add(HERE, second, 100.0 + later_s) is not None) is is_whole


def test_a_message_begun_anew_under_an_old_number_does_not_keep_others_from_being_given_up() -> (
    None
):
    old, new = sealed(Envelope(1), bytes(20)), sealed(Envelope(1), bytes(30))
    reassembly = Reassembly()
    reassembly.add("a", cut(old, 10)[0], 0.0)
    reassembly.add("b", cut(old, 10)[0], 1.0)
    reassembly.add("a", cut(new, 10)[0], 9.0)
    reassembly.add("c", cut(old, 10)[0], 1.0 + REASSEMBLY_PATIENCE_S)
    assert len(reassembly) == 2


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # sender
            st.integers(0, 1),  # request number
            st.integers(0, 40),  # size of the message
            st.integers(0, 4),  # number of the packet
            st.integers(0, 20),  # size of the packet
            st.integers(0, 3),  # seconds since the last
        ),
        max_size=40,
    )
)
def test_whatever_comes_nothing_is_held_that_is_not_counted(
    sent: list[tuple[int, int, int, int, int, int]],
) -> None:
    reassembly, now_s, refused, whole = Reassembly(), 0.0, 0, 0
    for sender, request_id, size_bytes, number, part_bytes, later_s in sent:
        now_s += later_s
        packet = Envelope(request_id, size_bytes, sequence=number).to_wire() + bytes(part_bytes)
        try:
            message = reassembly.add(sender, packet, now_s)
        except InvalidMessageError:
            refused += 1
        else:
            whole += message is not None
            assert message is None or envelope_and_content(message)[0].sequence == 0
    assert len(reassembly) + refused + whole <= len(sent)
    # Long after, one more message finds nothing of all that.
    first, second = cut(sealed(Envelope(9), bytes(2)), 1)
    reassembly.add("x", first, now_s + REASSEMBLY_PATIENCE_S)
    assert reassembly.add("x", second, now_s + REASSEMBLY_PATIENCE_S) is not None
    assert (len(reassembly), reassembly.held_bytes) == (0, 0)
