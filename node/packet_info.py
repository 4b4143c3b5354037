"""Which address of this machine a datagram came to, as Linux tells it and wants to be told it.

A socket that is bound to every address sends from the one that the routes prefer, unless it says
otherwise; a client that is connected to another one does not take that for its answer.

Source: ip(7), ipv6(7), cmsg(3), linux/in.h, linux/ipv6.h, RFC 3542 §6.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_EVERY_ADDRESS = ("0.0.0.0", "::")
# Source: linux/in.h; Python 3.11 does not name it. It is the option, and what it brings.
_IP_PKTINFO = 8


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """What is told with the datagrams of one family: `level` and `kind` of the control message.

    `option` asks for it. `returned` makes of what came with a question what goes with its answer:
    the same for every question of one sender to one address.
    """

    level: int
    option: int
    kind: int
    size_bytes: int
    returned: Callable[[bytes], bytes]

    @property
    def space_bytes(self) -> int:
        """A control message with its head, as long as it must be for another to follow."""
        return socket.CMSG_SPACE(self.size_bytes)

    def control(self, told: bytes) -> bytes:
        """The control message of an answer, from that of its question.

        Zeros of the same length, with which nothing can be sent, if there was none or a part.
        """
        # Its length is the first of it: one that was cut off begins otherwise.
        head = struct.pack("@Nii", socket.CMSG_LEN(self.size_bytes), self.level, self.kind)
        if not told.startswith(head):
            return bytes(len(told))
        info = told[len(head) : len(head) + self.size_bytes]
        return (head + self.returned(info)).ljust(len(told), b"\0")

    def data(self, told: Iterable[tuple[int, int, bytes]]) -> bytes:
        """The same without the head; empty if there was none or a part."""
        for level, kind, info in told:
            if (level, kind, len(info)) == (self.level, self.kind, self.size_bytes):
                return self.returned(info)
        return b""


def packet_info(bound: socket.socket) -> PacketInfo | None:
    """What is told with each datagram from now on; None if nothing is.

    Where one address is bound, nothing has to be; systems other than Linux have ways of their own.
    """
    if sys.platform != "linux" or bound.getsockname()[0] not in _EVERY_ADDRESS:
        return None
    info = _info_4() if bound.family == socket.AF_INET else _info_6()
    with contextlib.suppress(OSError):
        bound.setsockopt(info.level, info.option, 1)
        return info
    return None


def _info_4() -> PacketInfo:
    # in_pktinfo: interface, address of ours to send from, address in the header.
    return PacketInfo(socket.IPPROTO_IP, _IP_PKTINFO, _IP_PKTINFO, 12, _returned_4)


def _info_6() -> PacketInfo:
    # in6_pktinfo: address, interface. What comes by IPv4 has an address that begins ::ffff:.
    level, option = socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO
    return PacketInfo(level, option, socket.IPV6_PKTINFO, 20, _returned_6)


def _returned_4(info: bytes) -> bytes:
    # Without the interface: the way back is the routes' to choose.
    return bytes(4) + info[4:8] + bytes(4)


def _returned_6(info: bytes) -> bytes:
    # fe80::/10 is another address on each interface.
    is_link_local = info[0] == 0xFE and info[1] & 0xC0 == 0x80
    return info if is_link_local else info[:16] + bytes(4)
