"""Binary records inside handle values: HS_ADMIN, HS_VLIST, HS_SITE and public keys.

A record is whole or damaged: what is read is written back byte for byte as it was (keys in the
form of Handle.Net), and anything after the record makes it damaged.

Source: specs §3.6; recorded messages of Handle.Net 9.3.1.
"""

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from resolver.errors import InvalidValueError
from resolver.record import Reference
from resolver.wire._fields import counted
from resolver.wire._reader import Reader

# Eight times the longest identifier of this node: a reference may point to a foreign one.
HANDLE_SIZE_BYTES_MAX = 2_048
# As many values as a record may have.
VLIST_MAX = 1_000
# The largest public services run fewer than ten servers, each with one interface a protocol.
SERVERS_MAX = 64
INTERFACES_MAX = 16
ATTRIBUTES_MAX = 64
ATTRIBUTE_SIZE_BYTES_MAX = 4_096
# RSA and DSA of 16,384 bits, with the sign byte; OpenSSL refuses larger ones.
KEY_NUMBER_SIZE_BYTES_MAX = 2_049
# Four numbers of that size, their lengths and the name.
KEY_SIZE_BYTES_MAX = 8_320
KEY_NAME_SIZE_BYTES_MAX = 64

PERMISSIONS_ALL = 0x0FFF
HASH_BY_PREFIX, HASH_BY_SUFFIX, HASH_BY_ALL = 0, 1, 2
INTERFACE_ADMIN, INTERFACE_QUERY = 1, 2
PROTOCOL_UDP, PROTOCOL_TCP, PROTOCOL_HTTP, PROTOCOL_HTTPS = 0, 1, 2, 3

_RSA, _DSA = "RSA_PUB_KEY", "DSA_PUB_KEY"
_SITE_FORMAT_VERSION = 1
_PRIMARY, _MULTI_PRIMARY = 0x80, 0x40
_LEGACY_END = b"\x00\x00"
# Every recorded RSA key of Handle.Net ends so; DSA and DH keys end with their last number.
_RSA_END = bytes(4)
_IPV4_LEAD = bytes(12)

_U2 = struct.Struct(">H")
_I4 = struct.Struct(">i")
_SITE_HEAD = struct.Struct(">HBBHBB")
_INTERFACE = struct.Struct(">BBi")


@dataclass(frozen=True, slots=True)
class AdminRecord:
    """HS_ADMIN: who may change the identifier, and how.

    `permissions` are twelve bits, addHandle lowest and listHandles highest; `index` 0 means any
    index of `handle`; `legacy_length` says that two zero bytes follow, as old software writes.
    """

    handle: str
    index: int
    permissions: int = PERMISSIONS_ALL
    legacy_length: bool = False

    def to_wire(self) -> bytes:
        end = _LEGACY_END if self.legacy_length else b""
        head = _U2.pack(self.permissions)
        return head + counted(self.handle.encode()) + _I4.pack(self.index) + end

    @classmethod
    def from_wire(cls, data: bytes) -> "AdminRecord":
        """Inverse of `to_wire`.

        Raises:
            InvalidValueError: names the byte at which the record is damaged.
        """
        reader = Reader(data, "HS_ADMIN")
        permissions = reader.u2()
        if permissions > PERMISSIONS_ALL:
            raise reader.damaged("twelve permission bits", 0)
        handle = reader.text(HANDLE_SIZE_BYTES_MAX)
        index = _index(reader)
        legacy = data[reader.offset :] == _LEGACY_END
        if not legacy:
            reader.end()
        return cls(handle, index, permissions, legacy)


def references_to_wire(references: Iterable[Reference]) -> bytes:
    """HS_VLIST: the identifiers and indexes of a group."""
    parts = [counted(one.handle.encode()) + _I4.pack(one.index) for one in references]
    return _I4.pack(len(parts)) + b"".join(parts)


def references_from_wire(data: bytes) -> tuple[Reference, ...]:
    """Inverse of `references_to_wire`.

    Raises:
        InvalidValueError: names the byte at which the record is damaged.
    """
    reader = Reader(data, "HS_VLIST")
    references = tuple(
        Reference(reader.text(HANDLE_SIZE_BYTES_MAX), _index(reader))
        for _ in range(reader.count(VLIST_MAX, 8))
    )
    reader.end()
    return references


@dataclass(frozen=True, slots=True)
class Interface:
    """One way to reach a server: `type` is INTERFACE_ADMIN and INTERFACE_QUERY, added."""

    type: int
    protocol: int
    port: int

    def to_wire(self) -> bytes:
        return _INTERFACE.pack(self.type, self.protocol, self.port)


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a site; `address` is 16 bytes, an IPv4 address behind twelve zeros."""

    server_id: int
    address: bytes
    public_key: bytes = b""
    interfaces: tuple[Interface, ...] = ()

    @property
    def address_text(self) -> str:
        """`127.0.0.1` or `2001:db8::1`."""
        if self.address.startswith(_IPV4_LEAD):
            return str(ipaddress.IPv4Address(self.address[12:]))
        return str(ipaddress.IPv6Address(self.address))

    def to_wire(self) -> bytes:
        parts = [_I4.pack(self.server_id), self.address, counted(self.public_key)]
        parts.append(_I4.pack(len(self.interfaces)))
        parts += (one.to_wire() for one in self.interfaces)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class SiteInfo:
    """HS_SITE: the servers of one site and how identifiers are spread over them.

    `serial` grows with every change; `attributes` are pairs of name and text.
    """

    servers: tuple[Server, ...]
    serial: int = 1
    is_primary: bool = True
    is_multi_primary: bool = False
    hash_option: int = HASH_BY_ALL
    hash_filter: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    protocol_major: int = 2
    protocol_minor: int = 11

    def to_wire(self) -> bytes:
        mask = _PRIMARY * self.is_primary | _MULTI_PRIMARY * self.is_multi_primary
        version = (_SITE_FORMAT_VERSION, self.protocol_major, self.protocol_minor)
        parts = [_SITE_HEAD.pack(*version, self.serial, mask, self.hash_option)]
        parts += (counted(self.hash_filter.encode()), _I4.pack(len(self.attributes)))
        parts += (counted(text.encode()) for pair in self.attributes for text in pair)
        parts.append(_I4.pack(len(self.servers)))
        parts += (server.to_wire() for server in self.servers)
        return b"".join(parts)

    @classmethod
    def from_wire(cls, data: bytes) -> "SiteInfo":
        """Inverse of `to_wire`.

        Raises:
            InvalidValueError: names the byte at which the record is damaged.
        """
        reader = Reader(data, "HS_SITE")
        major, minor, serial, mask, hash_option = _site_head(reader)
        hash_filter = reader.text(ATTRIBUTE_SIZE_BYTES_MAX)
        attributes = _attributes(reader)
        servers = tuple(_server(reader) for _ in range(reader.count(SERVERS_MAX, 28)))
        reader.end()
        return cls(
            servers=servers,
            serial=serial,
            is_primary=bool(mask & _PRIMARY),
            is_multi_primary=bool(mask & _MULTI_PRIMARY),
            hash_option=hash_option,
            hash_filter=hash_filter,
            attributes=attributes,
            protocol_major=major,
            protocol_minor=minor,
        )


def _site_head(reader: Reader) -> tuple[int, int, int, int, int]:
    if reader.u2() != _SITE_FORMAT_VERSION:
        raise reader.damaged(f"format version {_SITE_FORMAT_VERSION}", 0)
    major, minor, serial = reader.u1(), reader.u1(), reader.u2()
    mask, hash_option = reader.u1(), reader.u1()
    if mask & ~(_PRIMARY | _MULTI_PRIMARY):
        raise reader.damaged("the mask bits 0x80 and 0x40 only", reader.offset - 2)
    if hash_option > HASH_BY_ALL:
        raise reader.damaged("hash option 0, 1 or 2", reader.offset - 1)
    return major, minor, serial, mask, hash_option


def _attributes(reader: Reader) -> tuple[tuple[str, str], ...]:
    return tuple(
        (reader.text(ATTRIBUTE_SIZE_BYTES_MAX), reader.text(ATTRIBUTE_SIZE_BYTES_MAX))
        for _ in range(reader.count(ATTRIBUTES_MAX, 8))
    )


def _server(reader: Reader) -> Server:
    server_id, address = reader.i4(), reader.take(16)
    public_key = reader.counted(KEY_SIZE_BYTES_MAX)
    interfaces = tuple(_interface(reader) for _ in range(reader.count(INTERFACES_MAX, 6)))
    return Server(server_id, address, public_key, interfaces)


def _interface(reader: Reader) -> Interface:
    start = reader.offset
    interface = Interface(reader.u1(), reader.u1(), reader.i4())
    if interface.type > INTERFACE_ADMIN | INTERFACE_QUERY:
        raise reader.damaged("interface type 0 to 3", start)
    if not 0 <= interface.port <= 0xFFFF:
        raise reader.damaged("a port of 0 to 65535", start + 2)
    return interface


def address_from_text(text: str) -> bytes:
    """The 16 bytes of an IPv4 or IPv6 address.

    Raises:
        InvalidValueError: if `text` is neither.
    """
    try:
        packed = ipaddress.ip_address(text).packed
    except ValueError:
        raise InvalidValueError("expected an IPv4 or IPv6 address") from None
    return packed.rjust(16, b"\x00")


@dataclass(frozen=True, slots=True)
class RsaPublicKey:
    """HS_PUBKEY of an RSA key."""

    exponent: int
    modulus: int

    def to_wire(self) -> bytes:
        return _key_to_wire(_RSA, (self.exponent, self.modulus)) + _RSA_END


@dataclass(frozen=True, slots=True)
class DsaPublicKey:
    """HS_PUBKEY of a DSA key."""

    q: int
    p: int
    g: int
    y: int

    def to_wire(self) -> bytes:
        return _key_to_wire(_DSA, (self.q, self.p, self.g, self.y))


@dataclass(frozen=True, slots=True)
class OpaqueKey:
    """HS_PUBKEY of a type we do not read (DH, SM2, SM9 …): its name and the whole record."""

    name: str
    data: bytes

    def to_wire(self) -> bytes:
        return self.data


PublicKey = RsaPublicKey | DsaPublicKey | OpaqueKey


def public_key_from_wire(data: bytes) -> PublicKey:
    """The public key of a HS_PUBKEY value or of a server.

    Raises:
        InvalidValueError: names the byte at which the record is damaged.
    """
    reader = Reader(data, "HS_PUBKEY")
    name = reader.text(KEY_NAME_SIZE_BYTES_MAX)
    if name not in (_RSA, _DSA):
        return OpaqueKey(name, data)
    if reader.u2():
        raise reader.damaged("two zero bytes", reader.offset - 2)
    key: PublicKey
    if name == _RSA:
        key = RsaPublicKey(_number(reader), _number(reader))
        if data[reader.offset :] == _RSA_END:
            return key
    else:
        key = DsaPublicKey(*(_number(reader) for _ in range(4)))
    reader.end()
    return key


def _number(reader: Reader) -> int:
    # The form is two's complement, but a key has no negative numbers: a missing sign byte is
    # forgiven.
    start = reader.offset
    number = int.from_bytes(reader.counted(KEY_NUMBER_SIZE_BYTES_MAX), "big")
    if not number:
        raise reader.damaged("a number above zero", start)
    return number


def _key_to_wire(name: str, numbers: Iterable[int]) -> bytes:
    # One bit more than the number needs keeps the sign bit clear.
    parts = [counted(one.to_bytes(one.bit_length() // 8 + 1, "big")) for one in numbers]
    return counted(name.encode()) + b"\x00\x00" + b"".join(parts)


def _index(reader: Reader) -> int:
    index = reader.i4()
    if index < 0:
        raise reader.damaged("an index of 0 or more", reader.offset - 4)
    return index
