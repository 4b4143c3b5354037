"""The site of this node, HS_SITE, and how prefix handles say it that have none of their own.

Source: specs §3.6 and §5; recorded HS_SITE records of Handle.Net 9.3.1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from resolver.identifier import fold
from resolver.record import HandleValue, Record, values_to_wire
from resolver.wire import (
    INTERFACE_ADMIN,
    INTERFACE_QUERY,
    PROTOCOL_HTTP,
    PROTOCOL_HTTPS,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    Interface,
    Server,
    SiteInfo,
    address_from_text,
)

SITE, SITE_OF_DERIVED, SERVICE = "HS_SITE", "HS_SITE.PREFIX", "HS_SERV"
# Of IPv6 alone: a client asks for both.
SITE_6 = "HS_SITE.6"

_BOTH = INTERFACE_ADMIN | INTERFACE_QUERY
# A prefix handle that was never stored; whatever is stored is newer.
_VERSION_OF_NONE = 0


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the doors of this node are reached: an IPv4 or IPv6 address, and ports.

    None for a door that is not open. `is_certain` is false where the address is a guess that other
    machines should not be told.
    """

    address: str
    native_port: int | None = None
    http_port: int | None = None
    https_port: int | None = None
    is_certain: bool = True

    def interfaces(self) -> tuple[Interface, ...]:
        """The ways in, in the order in which Handle.Net lists its own.

        Administration is offered over TCP, as there, and over HTTPS. Over HTTP only messages of
        the native protocol are, which answer for themselves.
        """
        native, of_http = self.native_port, INTERFACE_QUERY if self.native_port is None else _BOTH
        found: list[tuple[int, int, int | None]] = [
            (_BOTH, PROTOCOL_TCP, native),
            (INTERFACE_QUERY, PROTOCOL_UDP, native),
            (of_http, PROTOCOL_HTTP, self.http_port),
            (_BOTH, PROTOCOL_HTTPS, self.https_port),
        ]
        return tuple(Interface(type_, way, port) for type_, way, port in found if port is not None)


def site_of(reach: Reach, public_key: bytes, serial: int) -> SiteInfo:
    """HS_SITE of one server that is the whole site. `public_key` is an HS_PUBKEY record.

    Raises:
        InvalidValueError: if the address is none.
    """
    server = Server(1, address_from_text(reach.address), public_key, reach.interfaces())
    return SiteInfo((server,), serial=serial)


class OwnSite:
    """The site of this node.

    `is_certain`: prefix handles say it; otherwise it is only given to whoever asks this node for
    its site.
    """

    def __init__(self, site: SiteInfo, *, is_certain: bool = True) -> None:
        self.site = site
        self.is_certain = is_certain
        self._data = site.to_wire()

    def laid_over(self, record: Record | None, handle: str, *, is_homed: bool) -> Record | None:
        """The prefix handle of a prefix that lives here, which says where that is.

        `record` is what is stored, if anything is: its own HS_SITE or HS_SERV goes before ours,
        and so does its HS_SITE.PREFIX, which only a homed prefix gets. The version stays that of
        what is stored.
        """
        is_stored = record is not None and not record.deleted
        stored = record.values if record is not None and is_stored else ()
        if not self.is_certain:
            return record
        added = list(self._missing(stored, is_homed=is_homed))
        if not added and is_stored:
            return record
        version = _VERSION_OF_NONE if record is None else record.version
        if record is None or record.deleted:
            return Record(handle, version, values_to_wire(added))
        wire = values_to_wire(added) + record.wire
        return Record(record.handle, version, wire, record.stamp_s)

    def _missing(self, stored: Iterable[HandleValue], *, is_homed: bool) -> Iterator[HandleValue]:
        stored = tuple(stored)
        types = {fold(value.type) for value in stored}
        taken = {value.index for value in stored}
        free = (index for index in count(1) if index not in taken)
        if not types & {SITE, SITE_6, SERVICE}:
            yield HandleValue(next(free), SITE, self._data)
        if is_homed and SITE_OF_DERIVED not in types:
            yield HandleValue(next(free), SITE_OF_DERIVED, self._data)
