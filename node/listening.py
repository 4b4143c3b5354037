"""Listening sockets: one for each worker on one address, so that the kernel shares out callers."""

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node.start_error import StartError

# Connections waiting to be accepted, for each worker; the kernel's own limit is 4,096.
BACKLOG = 2_048
# A port that a dying predecessor still holds is waited for.
PORT_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.2

# Only Linux shares callers out among the sockets of one address; elsewhere all share one socket.
_SHARES_OUT = sys.platform == "linux"

# Source: linux/socket.h, linux/filter.h; constants that the library does not name.
_SO_ATTACH_FILTER = 26
# A packet that begins a connection is dropped, all others pass: load the TCP flags; SYN set?
_FILTER = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens, and the setting that says so."""

    host: str
    port: int
    setting: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def listen(
    address: Address, number: int, now_s: Callable[[], float]
) -> tuple[socket.socket, ...]:
    """`number` listening sockets on one address, which nobody else can join.

    Raises:
        StartError: if another program has the port, or the address is not ours.
    """
    until_s = now_s() + PORT_PATIENCE_S
    while True:
        try:
            return _bound(address, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or now_s() > until_s:
                raise StartError(_problem(address, error)) from None
        await asyncio.sleep(_LOOK_EVERY_S)


def refuse_newcomers(listening: socket.socket) -> bool:
    """Let nobody connect any more, without losing who has: for the moments before the end.

    Closing at once would reset who connects between the last accept and the close. Returns
    whether it could be done: some machines forbid it to ordinary accounts.
    """
    if sys.platform != "linux":
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
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, place = found[0]
    with contextlib.ExitStack() as unfinished:
        # The first takes the port for itself alone: two nodes of one user, which the kernel
        # would let share it, never do. Only then it lets the others in.
        first = unfinished.enter_context(_listening(family, place))
        bound = [first]
        if number > 1 and _SHARES_OUT:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(1, number):
            one = _listening(family, first.getsockname(), True) if _SHARES_OUT else first.dup()
            bound.append(unfinished.enter_context(one))
        unfinished.pop_all()
    return tuple(bound)


def _listening(family: int, place: Any, is_shared: bool = False) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(place)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


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
