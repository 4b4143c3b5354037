"""Datagrams in batches and one by one: the same, on real sockets."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from node.datagrams import (
    BATCH_MAX,
    DATAGRAM_SIZE_BYTES_MAX,
    SENT_SIZE_BYTES_MAX,
    Address,
    BatchedDatagrams,
    Datagrams,
    SingleDatagrams,
    datagrams,
)

WAYS = [SingleDatagrams, *([BatchedDatagrams] if sys.platform == "linux" else [])]
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@dataclass
class Pair:
    """A server's socket, used in one way, and a client's."""

    server: Datagrams
    bound: socket.socket
    client: socket.socket

    def sent(self, *contents: bytes) -> list[tuple[bytes, Address]]:
        """What the server receives of what the client sends, all of which waits at once."""
        for content in contents:
            self.client.sendto(content, self.bound.getsockname())
        return list(self.server.receive())

    def one(self) -> Address:
        """The client's address, as the server knows it."""
        ((_, address),) = self.sent(b"?")
        return address

    def answers(self) -> list[bytes]:
        """What has come back."""
        found = []
        while True:
            try:
                found.append(self.client.recv(65_536))
            except BlockingIOError:
                return found


def bound_to(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    # All of a test fits into the buffer.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
    made.bind((HOSTS[socket.AddressFamily(family)], 0))
    return made


@pytest.fixture(params=[(way, family) for way in WAYS for family in HOSTS], ids=str)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    way, family = request.param
    try:
        bound = bound_to(family)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with bound, bound_to(family) as client:
        yield Pair(way(bound), bound, client)


def test_what_was_sent_is_received_with_the_address_of_its_sender(pair: Pair) -> None:
    contents = [b"", b"a", bytes(512), bytes(range(256)) * 16]
    received = pair.sent(*contents)
    assert [data for data, _ in received] == contents
    addresses = {address for _, address in received}
    assert len(addresses) == 1
    assert pair.server.text_of(addresses.pop()) == pair.client.getsockname()[0]


def test_nothing_is_received_where_nothing_waits(pair: Pair) -> None:
    assert pair.sent() == []


def test_an_answer_goes_back_to_who_asked(pair: Pair) -> None:
    with bound_to(pair.client.family) as other:
        other.sendto(b"other", pair.bound.getsockname())
        received = pair.sent(b"client")
        pair.server.send([(data.upper(), address) for data, address in received])
        assert pair.answers() == [b"CLIENT"]
        assert other.recv(100) == b"OTHER"


def test_senders_on_one_machine_have_one_host_and_are_told_apart(pair: Pair) -> None:
    one = pair.one()
    with bound_to(pair.client.family) as other:
        other.sendto(b"?", pair.bound.getsockname())
        ((_, another),) = pair.server.receive()
    assert one != another
    assert one[pair.server.host] == another[pair.server.host]
    assert hash(one[pair.server.host]) == hash(another[pair.server.host])


def test_more_than_a_batch_is_received_in_turns_and_in_order(pair: Pair) -> None:
    contents = [b"%d" % number for number in range(2 * BATCH_MAX + 5)]
    received = pair.sent(*contents)
    assert len(received) == BATCH_MAX
    received += [*pair.server.receive(), *pair.server.receive()]
    assert [data for data, _ in received] == contents


def test_more_than_a_batch_is_sent(pair: Pair) -> None:
    address = pair.one()
    answers = [b"%d" % number for number in range(2 * BATCH_MAX + 5)]
    pair.server.send([(answer, address) for answer in answers])
    assert pair.answers() == answers


def test_answers_of_every_size_up_to_a_packet_come_whole(pair: Pair) -> None:
    address = pair.one()
    answers = [bytes([number % 256]) * number for number in range(SENT_SIZE_BYTES_MAX + 1)]
    for first in range(0, len(answers), BATCH_MAX):
        some = answers[first : first + BATCH_MAX]
        pair.server.send([(answer, address) for answer in some])
        assert pair.answers() == some


def test_a_datagram_that_is_too_long_is_left_out(pair: Pair) -> None:
    received = pair.sent(b"a", bytes(DATAGRAM_SIZE_BYTES_MAX + 1), bytes(20_000), b"b")
    assert [data for data, _ in received] == [b"a", b"b"]
    longest = bytes(DATAGRAM_SIZE_BYTES_MAX)
    assert [data for data, _ in pair.sent(longest)] == [longest]


def test_an_answer_that_cannot_be_sent_holds_up_no_other(pair: Pair) -> None:
    address = pair.one()
    nowhere: Address
    if isinstance(address, bytes):
        nowhere = address[:2] + bytes(2) + address[4:]  # port 0
    else:
        nowhere = (address[0], 0, *address[2:])
    pair.server.send([(b"a", nowhere), (b"b", address), (b"c", nowhere), (b"d", address)])
    assert pair.answers() == [b"b", b"d"]


def test_headers_are_good_as_new_after_every_batch(pair: Pair) -> None:
    for number in range(5):
        content = bytes([number]) * (100 - number)
        assert [data for data, _ in pair.sent(content)] == [content]
        assert [data for data, _ in pair.sent(b"", content, b"x")] == [b"", content, b"x"]


async def test_the_loop_tells_when_something_waits(pair: Pair) -> None:
    loop, received, done = asyncio.get_running_loop(), list[bytes](), asyncio.Event()

    def read() -> None:
        received.extend(data for data, _ in pair.server.receive())
        if len(received) == 2 * BATCH_MAX:
            done.set()

    loop.add_reader(pair.bound, read)
    for number in range(2 * BATCH_MAX):
        pair.client.sendto(b"%d" % number, pair.bound.getsockname())
    async with asyncio.timeout(10):
        await done.wait()
    loop.remove_reader(pair.bound)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such calls")
def test_batches_are_used_where_the_kernel_has_them() -> None:
    with bound_to(socket.AF_INET) as bound:
        made = datagrams(bound)
        assert isinstance(made, BatchedDatagrams)
        assert made.is_allowed()
