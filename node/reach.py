"""Where this node is reached from outside, as far as its configuration tells."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import TypeAlias

from resolver.own_site import Reach

Door: TypeAlias = tuple[str, int]
"""The host on which a door listens, and its port."""

_LOOPBACK = "127.0.0.1"


def reach_of(
    *, public_address: str | None, native: Door | None, http: Door | None, https: Door | None
) -> Reach:
    """The address that others are told, and the ports of the open doors.

    That is `public_address` or, if it is None, the first address on which a door listens; a door
    that listens everywhere names none. Where nothing names one it is a guess.
    """
    doors = [door for door in (native, https, http) if door is not None]
    address = public_address or next(_addresses(host for host, _ in doors), None)
    return Reach(
        address or _LOOPBACK,
        native_port=_port(native),
        http_port=_port(http),
        https_port=_port(https),
        is_certain=address is not None,
    )


def _addresses(hosts: Iterable[str]) -> Iterator[str]:
    for host in hosts:
        if host == "localhost":
            yield _LOOPBACK
            continue
        try:
            address = ip_address(host)
        except ValueError:
            continue  # a name: others may find another machine under it
        if not address.is_unspecified:
            yield host


def _port(door: Door | None) -> int | None:
    return None if door is None else door[1]
