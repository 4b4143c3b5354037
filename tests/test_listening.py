"""Listening sockets: shared among workers, with nobody else, and let go without losing anybody."""

import select
import socket
import sys
from collections.abc import Iterator
from itertools import count

import pytest

from node.listening import (
    PORT_PATIENCE_S,
    Address,
    PortTakenError,
    Transport,
    listen,
    refuse_newcomers,
)
from node.start_error import StartError
from tests.conftest import free_port

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares callers out")


@pytest.fixture
def address() -> Address:
    return Address("127.0.0.1", free_port(), "IDNODE_HTTP")


async def listening(address: Address, number: int) -> tuple[socket.socket, ...]:
    # A clock on which every look at the port is the last but one.
    return await listen(address, number, count(0.0, PORT_PATIENCE_S).__next__)


@pytest.fixture
def closing() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for one in opened:
        one.close()


def waiting(listening: socket.socket) -> list[socket.socket]:
    """The connections in a backlog, accepted."""
    found = []
    while True:
        try:
            found.append(listening.accept()[0])
        except BlockingIOError:
            return found


def connected(address: Address) -> socket.socket:
    return socket.create_connection((address.host, address.port))


@LINUX
async def test_callers_are_shared_out_among_the_workers(
    address: Address, closing: list[socket.socket]
) -> None:
    sockets = await listening(address, 2)
    closing += sockets
    closing += [connected(address) for _ in range(200)]
    found = [waiting(one) for one in sockets]
    closing += [*found[0], *found[1]]
    # One of 2^199 runs would find them all on one side.
    assert min(len(one) for one in found) > 0
    assert len(found[0]) + len(found[1]) == 200


@pytest.mark.parametrize("number", [1, 2])
async def test_a_port_is_not_shared_with_another_node_of_the_same_user(
    address: Address, closing: list[socket.socket], number: int
) -> None:
    closing += await listening(address, 2)
    with pytest.raises(StartError, match=f"^127.0.0.1:{address.port} is taken by another program"):
        await listening(address, number)


@LINUX
async def test_datagrams_are_shared_out_and_a_sender_stays_with_its_worker(
    closing: list[socket.socket],
) -> None:
    address = Address("127.0.0.1", free_port(), "IDNODE_HANDLE", Transport.UDP)
    sockets = await listening(address, 2)
    closing += sockets
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]
    closing += senders
    for content in (b"first", b"second"):
        for sender in senders:
            sender.sendto(content, (address.host, address.port))
    found = [arrived(one) for one in sockets]
    # One of 2^199 runs would find them all on one side.
    assert min(map(len, found)) > 0
    assert sum(map(len, found)) == 400
    assert {port for _, port in found[0]}.isdisjoint(port for _, port in found[1])


def arrived(bound: socket.socket) -> list[tuple[bytes, int]]:
    """What waits in a socket, and the port it came from."""
    found: list[tuple[bytes, int]] = []
    while True:
        try:
            content, sender = bound.recvfrom(100)
        except BlockingIOError:
            return found
        found.append((content, sender[1]))


@pytest.mark.parametrize("number", [1, 2])
async def test_a_port_of_datagrams_is_not_shared_with_another_node(
    closing: list[socket.socket], number: int
) -> None:
    address = Address("127.0.0.1", free_port(), "IDNODE_HANDLE", Transport.UDP)
    (first, *others) = await listening(address, 2)
    closing += [first, *others]
    assert not refuse_newcomers(first)
    with pytest.raises(PortTakenError, match="is taken by another program: choose another"):
        await listening(address, number)


async def test_a_port_is_waited_for(address: Address, closing: list[socket.socket]) -> None:
    taken = await listening(address, 2)

    def let_go() -> float:
        for one in taken:
            one.close()
        return 0.0

    closing += await listen(address, 2, let_go)


async def test_a_port_that_is_nobodys_is_said_in_one_line() -> None:
    nowhere = Address("192.0.2.1", 8000, "IDNODE_HTTPS")
    with pytest.raises(StartError, match=r"^192.0.2.1:8000 cannot be used: .* IDNODE_HTTPS=192"):
        await listening(nowhere, 1)


def test_an_address_is_written_as_in_a_url() -> None:
    assert str(Address("::1", 8000, "IDNODE_HTTP")) == "[::1]:8000"
    assert str(Address("127.0.0.1", 8000, "IDNODE_HTTP")) == "127.0.0.1:8000"


@LINUX
async def test_who_waits_is_kept_when_newcomers_are_refused(
    address: Address, closing: list[socket.socket]
) -> None:
    (door,) = await listening(address, 1)
    closing.append(door)
    callers = [connected(address) for _ in range(3)]
    closing += callers
    if not refuse_newcomers(door):
        pytest.skip("this machine forbids this account to filter what it listens to")
    for caller in callers:
        caller.sendall(b"asked")
    late = socket.socket()
    late.setblocking(False)
    late.connect_ex((address.host, address.port))
    closing.append(late)
    _, connects, _ = select.select([], [late], [], 0.2)
    assert connects == []
    inside = waiting(door)
    closing += inside
    assert [one.recv(5) for one in inside] == [b"asked"] * 3
