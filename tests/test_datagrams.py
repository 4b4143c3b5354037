"""Datagrams in batches and one by one: the same, on real sockets, at one address and at all."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from node.datagrams import (
    BATCH_MAX,
    DATAGRAM_SIZE_BYTES_MAX,
    SENT_SIZE_BYTES_MAX,
    Address,
    BatchedAtEveryAddress,
    BatchedDatagrams,
    Datagrams,
    SingleAtEveryAddress,
    SingleDatagrams,
    datagrams,
)
from node.packet_info import packet_info

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such calls")


def single(bound: socket.socket) -> Datagrams:
    info = packet_info(bound)
    return SingleDatagrams(bound) if info is None else SingleAtEveryAddress(bound, info)


def batched(bound: socket.socket) -> Datagrams:
    info = packet_info(bound)
    return BatchedDatagrams(bound) if info is None else BatchedAtEveryAddress(bound, info)


Way = Callable[[socket.socket], Datagrams]
WAYS: list[Way] = [single, *([batched] if sys.platform == "linux" else [])]
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
EVERY = {"127.0.0.1": "0.0.0.0", "::1": "::"}
# Where a socket is bound, and which of its addresses is asked.
ASKED = [
    ("0.0.0.0", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.2"),
    ("::", "::1"),
    ("::", "127.0.0.1"),
    ("::", "127.0.0.2"),
]
# Where answers of this machine to itself come from, if nobody says anything else.
USUAL = HOSTS
# For documents; no machine has them.
GONE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
# Source: linux/in.h, linux/socket.h.
IP_PKTINFO, SO_TIMESTAMP = 8, 29


@dataclass
class Pair:
    """A server's socket, used in one way, and a client's."""

    server: Datagrams
    bound: socket.socket
    client: socket.socket

    def sent(self, *contents: bytes) -> list[tuple[bytes, Address]]:
        """What the server receives of what the client sends, all of which waits at once."""
        for content in contents:
            self.client.sendto(content, self.place())
        return list(self.server.receive())

    def place(self) -> tuple[str, int]:
        """Where the server is asked, of the same machine as the client."""
        return self.client.getsockname()[0], self.bound.getsockname()[1]

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


def bound_to(host: str) -> socket.socket:
    made = socket.socket(family_of(host), socket.SOCK_DGRAM)
    made.setblocking(False)
    # All of a test fits into the buffer.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
    made.bind((host, 0))
    return made


def connected_to(host: str, port: int) -> socket.socket:
    """A client that hears only who has this very address."""
    made = socket.socket(family_of(host), socket.SOCK_DGRAM)
    made.settimeout(10)
    made.connect((host, port))
    return made


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def id_of(parameter: object) -> str:
    return getattr(parameter, "__name__", str(parameter))


@pytest.fixture(params=HOSTS.values())
def host(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    with contextlib.suppress(OSError), bound_to(found):
        return found
    pytest.skip("this machine has no IPv6")


@pytest.fixture(params=[False, True], ids=["one", "every"])
def pair(request: pytest.FixtureRequest, way: Way, host: str) -> Iterator[Pair]:
    with bound_to(EVERY[host] if request.param else host) as bound, bound_to(host) as client:
        yield Pair(way(bound), bound, client)


@pytest.fixture(params=WAYS, ids=id_of)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


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
    with bound_to(pair.place()[0]) as other:
        other.sendto(b"other", pair.place())
        received = pair.sent(b"client")
        pair.server.send([(data.upper(), address) for data, address in received])
        assert pair.answers() == [b"CLIENT"]
        assert other.recv(100) == b"OTHER"


def test_senders_on_one_machine_have_one_host_and_are_told_apart(pair: Pair) -> None:
    one = pair.one()
    with bound_to(pair.place()[0]) as other:
        other.sendto(b"?", pair.place())
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
        pair.client.sendto(b"%d" % number, pair.place())
    async with asyncio.timeout(10):
        await done.wait()
    loop.remove_reader(pair.bound)


@LINUX
def test_batches_are_used_where_the_kernel_has_them() -> None:
    with bound_to("127.0.0.1") as bound:
        made = datagrams(bound)
        # Not more than has to be read: one address is bound.
        assert type(made) is BatchedDatagrams
        assert made.is_allowed()
    with bound_to("0.0.0.0") as bound:
        assert isinstance(datagrams(bound), BatchedAtEveryAddress)


@dataclass
class Everywhere:
    """A server's socket at every address, and one of the addresses."""

    server: Datagrams
    bound: socket.socket
    asked: str

    def client(self, asked: str = "") -> socket.socket:
        """Somebody who asks this address, and hears no other."""
        return connected_to(asked or self.asked, self.bound.getsockname()[1])

    def answer(self, number: int = 1) -> list[Address]:
        """Answer what waits, and what is still on its way; who asked."""
        received = list(self.server.receive())
        assert len(received) == number
        self.server.send([(data.upper(), address) for data, address in received])
        return [address for _, address in received]


@pytest.fixture(params=ASKED, ids=" ".join)
def everywhere(request: pytest.FixtureRequest, way: Way) -> Iterator[Everywhere]:
    host, asked = request.param
    try:
        bound = bound_to(host)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with bound:
        yield Everywhere(way(bound), bound, asked)


@LINUX
def test_an_answer_leaves_from_the_address_that_was_asked(everywhere: Everywhere) -> None:
    with everywhere.client() as client:
        for content in (b"a", b"b"):
            client.send(content)
            everywhere.answer()
            assert client.recv(100) == content.upper()


@LINUX
def test_answers_of_one_batch_leave_from_several_addresses(everywhere: Everywhere) -> None:
    hosts = [everywhere.asked] * 20
    if "." in everywhere.asked:
        hosts = [f"127.0.0.{number}" for number in range(1, 21)]
    with contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(everywhere.client(host)) for host in hosts]
        for number, client in enumerate(clients):
            client.send(b"a%d" % number)
        everywhere.answer(20)
        answers = [client.recv(100) for client in clients]
    assert answers == [b"A%d" % number for number in range(20)]


@LINUX
def test_who_asks_one_address_again_is_the_same(everywhere: Everywhere) -> None:
    with everywhere.client() as client:
        for _ in range(3):
            client.send(b"?")
        assert len(set(everywhere.answer(3))) == 1


@LINUX
def test_who_asks_two_addresses_has_one_host_and_is_told_apart(way: Way) -> None:
    with bound_to("0.0.0.0") as bound, bound_to("127.0.0.1") as client:
        server = way(bound)
        for host in ("127.0.0.1", "127.0.0.2"):
            client.sendto(b"?", (host, bound.getsockname()[1]))
        (_, one), (_, other) = server.receive()
        assert one != other
        assert one[server.host] == other[server.host]
        assert server.text_of(one) == server.text_of(other) == "127.0.0.1"
        server.send([(b"other", other), (b"one", one)])
        assert [client.recvfrom(9)[1][0] for _ in range(2)] == ["127.0.0.2", "127.0.0.1"]


@LINUX
def test_an_answer_is_sent_when_nothing_is_told_any_more(everywhere: Everywhere) -> None:
    assert answered_from(everywhere) == everywhere.asked
    if everywhere.bound.family == socket.AF_INET:
        everywhere.bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 0)
    else:
        everywhere.bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 0)
    # What was told before is not taken for it.
    assert answered_from(everywhere) == USUAL[family_of(everywhere.asked)]


@LINUX
def test_an_answer_is_sent_when_what_is_told_was_cut_off(everywhere: Everywhere) -> None:
    # The time comes first, and takes the room.
    everywhere.bound.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    for _ in range(3):
        assert answered_from(everywhere) == USUAL[family_of(everywhere.asked)]
    everywhere.bound.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 0)
    assert answered_from(everywhere) == everywhere.asked


def answered_from(everywhere: Everywhere) -> str:
    """Where the answer comes from, for somebody who hears all."""
    with hearing_all(everywhere) as client:
        everywhere.answer()
        return str(client.recvfrom(100)[1][0])


def hearing_all(everywhere: Everywhere) -> socket.socket:
    """Somebody who has asked, and takes the answer from wherever it comes."""
    made = socket.socket(family_of(everywhere.asked), socket.SOCK_DGRAM)
    made.settimeout(10)
    made.sendto(b"?", (everywhere.asked, everywhere.bound.getsockname()[1]))
    return made


@LINUX
def test_an_answer_is_sent_though_the_address_that_was_asked_has_gone(
    everywhere: Everywhere,
) -> None:
    asked, usual = everywhere.asked, USUAL[family_of(everywhere.asked)]
    with hearing_all(everywhere) as client:
        (address,) = everywhere.answer()
        assert client.recvfrom(100)[1][0] == asked
        gone = asked_at(address, asked, GONE[family_of(asked)])
        for _ in range(2):
            answers = [(b"a", gone), (b"b", address), (b"c", gone), (b"d", gone), (b"e", address)]
            everywhere.server.send(answers)
            heard = [client.recvfrom(100) for _ in answers]
            assert [content for content, _ in heard] == [content for content, _ in answers]
            assert [place[0] for _, place in heard] == [usual, asked, usual, usual, asked]


def asked_at(address: Address, asked: str, other: str) -> Address:
    """As if the question had come to another address."""
    *sender, told = [address[:32], address[32:]] if isinstance(address, bytes) else address
    one, another = (socket.inet_pton(family_of(host), host) for host in (asked, other))
    assert one in told
    told = told.replace(one, another)
    return sender[0] + told if isinstance(address, bytes) else (*sender, told)
