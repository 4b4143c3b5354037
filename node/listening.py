"""Listening sockets: one for each worker on one address, so that the kernel shares out callers."""

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from node.start_error import StartError

# Connections waiting to be accepted, for each worker; the kernel's own limit is 4,096.
BACKLOG = 2_048
# Datagrams waiting to be read, for each worker: a burst of some 10,000; systems often give less.
DATAGRAM_BUFFER_SIZE_BYTES = 8 * 1024 * 1024
# A port that a dying predecessor still holds is waited for.
PORT_PATIENCE_S = 5.0
# Who is just connecting when the node stops is still accepted: as long as a round trip takes.
LAST_CALL_S = 0.1
_LOOK_EVERY_S = 0.2

# Only Linux shares callers out among the sockets of one address; elsewhere all share one socket.
_SHARES_OUT = sys.platform == "linux"

# Source: linux/socket.h, linux/filter.h; constants that the library does not name.
_SO_ATTACH_FILTER = 26
# A packet that begins a connection is dropped, all others pass: load the TCP flags; SYN set?
_FILTER = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class Transport(Enum):
    """What a socket carries."""

    TCP = socket.SOCK_STREAM
    UDP = socket.SOCK_DGRAM


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens, and the setting that says so."""

    host: str
    port: int
    setting: str
    transport: Transport = Transport.TCP

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PortTakenError(StartError):
    """Another program has the port."""


async def listen(
    address: Address,
    number: int,
    now_s: Callable[[], float],
    patience_s: float = PORT_PATIENCE_S,
) -> tuple[socket.socket, ...]:
    """`number` listening sockets on one address, which nobody else can join.

    Raises:
        StartError: if another program has the port for longer than `patience_s` (PortTakenError),
            or the address is not ours.
    """
    until_s = now_s() + patience_s
    while True:
        try:
            return _bound(address, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StartError(_problem(address, error)) from None
            if now_s() > until_s:
                raise PortTakenError(_problem(address, error)) from None
        await asyncio.sleep(_LOOK_EVERY_S)


def accepted(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be accepted."""
    listening.setblocking(False)
    while True:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue  # gone while it waited
        connection.setblocking(False)
        yield connection


def refuse_newcomers(listening: socket.socket) -> bool:
    """Let nobody connect any more, without losing who has: for the moments before the end.

    Closing at once would reset who connects between the last accept and the close. Returns
    whether it could be done: some machines forbid it to ordinary accounts, and datagrams do not
    begin anything.
    """
    if sys.platform != "linux" or listening.type != socket.SOCK_STREAM:
        return False
    program = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    kept = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HL", len(_FILTER), ctypes.addressof(kept))
    # Where it is forbidden, the end is as abrupt as it is elsewhere.
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
        return True
    return False


def _bound(address: Address, number: int) -> tuple[socket.socket, ...]:
    kind = address.transport.value
    found = socket.getaddrinfo(address.host, address.port, type=kind, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    with contextlib.ExitStack() as unfinished:
        # The first takes the port for itself alone: two nodes of one user, which the kernel
        # would let share it, never do. Only then it lets the others in.
        first = unfinished.enter_context(_listening(family, kind, place))
        bound = [first]
        if number > 1 and _SHARES_OUT:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(1, number):
            if _SHARES_OUT:
                one = _listening(family, kind, first.getsockname(), is_shared=True)
            else:
                one = first.dup()
            bound.append(unfinished.enter_context(one))
        unfinished.pop_all()
    return tuple(bound)


def _listening(family: int, kind: int, place: Any, is_shared: bool = False) -> socket.socket:
    listening = socket.socket(family, kind)
    try:
        _prepare(listening)
        if is_shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(place)
        if kind == socket.SOCK_STREAM:
            listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _prepare(listening: socket.socket) -> None:
    if listening.type == socket.SOCK_STREAM:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return
    # Not SO_REUSEADDR: with datagrams it lets another program take the port as well.
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        listening.setsockopt(socket.SOL_SOCKET, option, DATAGRAM_BUFFER_SIZE_BYTES)


def _problem(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        reason = "is taken by another program"
    elif error.errno == errno.EACCES:
        reason = "may not be used by this account (ports below 1024 need a privilege)"
    else:
        reason = f"cannot be used: {error.strerror or error}"
    # 65535 has no next port.
    other = Address(address.host, address.port % 65_535 + 1, address.setting)
    return f"{address} {reason}: choose another, such as {address.setting}={other}"
