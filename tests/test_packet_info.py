"""What is told about a datagram, and what of it is said with the answer."""

import socket
import struct
import sys

import pytest

from node.packet_info import PacketInfo, packet_info

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it this way")


def told(bound_at: str) -> PacketInfo | None:
    family = socket.AF_INET6 if ":" in bound_at else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        bound.bind((bound_at, 0))
        return packet_info(bound)


def at_every_address(host: str) -> PacketInfo:
    try:
        found = told(host)
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert found is not None
    return found


def info_4(interface: int, ours: str, asked: str) -> bytes:
    return struct.pack("@i", interface) + socket.inet_aton(ours) + socket.inet_aton(asked)


def info_6(ours: str, interface: int) -> bytes:
    return socket.inet_pton(socket.AF_INET6, ours) + struct.pack("@I", interface)


def test_nothing_is_told_where_one_address_is_bound() -> None:
    assert told("127.0.0.1") is None


def test_the_routes_choose_the_interface_of_an_answer() -> None:
    returned = at_every_address("0.0.0.0").returned
    # What was sent to all is answered by one.
    asked = info_4(3, "192.0.2.1", "192.0.2.255")
    assert returned(asked) == info_4(0, "192.0.2.1", "0.0.0.0")
    returned = at_every_address("::").returned
    for host in ("2001:db8::1", "::1", "::ffff:192.0.2.1", "fec0::1", "fd80::1"):
        assert returned(info_6(host, 3)) == info_6(host, 0)


def test_an_address_that_every_interface_may_have_is_answered_from_its_own() -> None:
    returned = at_every_address("::").returned
    for host in ("fe80::1", "febf::1"):
        assert returned(info_6(host, 3)) == info_6(host, 3)


@pytest.mark.parametrize(
    ("host", "info", "answer"),
    [
        ("0.0.0.0", info_4(3, "192.0.2.1", "192.0.2.1"), info_4(0, "192.0.2.1", "0.0.0.0")),
        ("::", info_6("2001:db8::1", 3), info_6("2001:db8::1", 0)),
    ],
)
def test_a_control_message_is_taken_whole_or_not_at_all(
    host: str, info: bytes, answer: bytes
) -> None:
    wanted = at_every_address(host)
    whole = control_message(wanted, info, len(info))
    assert wanted.control(whole) == control_message(wanted, answer, len(answer))
    assert wanted.data([(0, 99, info), (wanted.level, wanted.kind, info)]) == answer
    for size in range(len(info)):
        # The kernel writes how much of it there is.
        part = control_message(wanted, info[:size].ljust(len(info), b"\0"), size)
        assert wanted.control(part) == bytes(len(whole))
        assert wanted.data([(wanted.level, wanted.kind, info[:size])]) == b""
    assert wanted.control(bytes(len(whole))) == bytes(len(whole))
    assert wanted.data([]) == b""


def control_message(wanted: PacketInfo, info: bytes, size: int) -> bytes:
    head = struct.pack("@Nii", socket.CMSG_LEN(size), wanted.level, wanted.kind)
    return (head + info).ljust(wanted.space_bytes, b"\0")
