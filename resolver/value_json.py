"""Handle values as JSON, in the shapes of the Handle.Net 9 HTTP API.

Source: specs §1.3; recorded answers of Handle.Net 9.3.1.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from resolver.errors import InvalidValueError
from resolver.identifier import fold
from resolver.record import (
    ADMIN_READ,
    ADMIN_WRITE,
    PERMISSIONS_DEFAULT,
    TTL_ABSOLUTE,
    TTL_RELATIVE,
    TTL_S_DEFAULT,
    HandleValue,
    Reference,
)
from resolver.wire._records import (
    HASH_BY_ALL,
    INTERFACE_ADMIN,
    INTERFACE_QUERY,
    PERMISSIONS_ALL,
    AdminRecord,
    DsaPublicKey,
    Interface,
    RsaPublicKey,
    Server,
    SiteInfo,
    address_from_text,
    public_key_from_wire,
    references_from_wire,
    references_to_wire,
)

Json = dict[str, Any]

_I4_MIN, _I4_MAX = -(2**31), 2**31 - 1
# Control characters make data binary; 0x09 to 0x13 do not (0x13 as the original has it, where
# 0x0D was surely meant).
_BINARY_BYTES = bytes([*range(0x09), *range(0x14, 0x20), 0x7F])
_PERMISSIONS_TEXT = tuple(f"{bits:04b}" for bits in range(16))
_SECRET_KEY = "HS_SECKEY"
_PROTOCOLS = ("UDP", "TCP", "HTTP", "HTTPS")
# The longest piece of the caller's input that an error message repeats.
_SHOWN_CHARACTERS_MAX = 40
# Records written together share their timestamp; 20 bytes each, so a day of minutes is cheap.
_TIMES_CACHED = 1_440
# Most records of an enterprise name the same administrator in a few dozen bytes.
_ADMINS_CACHED = 1_024
_ADMIN_CACHED_SIZE_BYTES_MAX = 256


# --- out -------------------------------------------------------------------------------------


def values_to_json(values: Iterable[HandleValue]) -> list[Json]:
    """The values in their JSON shape, in the order given."""
    return [value_to_json(value) for value in values]


def value_to_json(value: HandleValue) -> Json:
    """One value: index, type, data, [permissions], ttl, [timestamp], [references]."""
    out: Json = {
        "index": value.index,
        "type": value.type,
        "data": data_to_json(value.type, value.data),
    }
    if value.permissions != PERMISSIONS_DEFAULT:
        out["permissions"] = _PERMISSIONS_TEXT[value.permissions & 0x0F]
    out["ttl"] = value.ttl if value.ttl_type == TTL_RELATIVE else time_to_text(value.ttl)
    if value.timestamp_s:
        out["timestamp"] = time_to_text(value.timestamp_s)
    if value.references:
        out["references"] = _references_to_json(value.references)
    return out


@lru_cache(maxsize=_TIMES_CACHED)
def time_to_text(time_s: int) -> str:
    """`2023-11-14T22:13:20Z` of seconds since 1970."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def data_to_json(type_: str, data: bytes) -> Json:
    """`{"format", "value"}`; a damaged binary record is shown as a string or base64."""
    to_json = _RECORDS_OUT.get(fold(type_))
    if to_json is not None:
        try:
            return to_json(data)
        except InvalidValueError:
            pass
    if len(data.translate(None, _BINARY_BYTES)) == len(data):
        try:
            return {"format": "string", "value": data.decode()}
        except UnicodeDecodeError:
            pass
    return _base64_to_json(data)


def _base64_to_json(data: bytes) -> Json:
    return {"format": "base64", "value": base64.b64encode(data).decode()}


def _admin_to_json(data: bytes) -> Json:
    if len(data) <= _ADMIN_CACHED_SIZE_BYTES_MAX:
        return {"format": "admin", "value": dict(_admin_fields_cached(data))}
    return {"format": "admin", "value": _admin_fields(data)}


def _admin_fields(data: bytes) -> Json:
    admin = AdminRecord.from_wire(data)
    out: Json = {
        "handle": admin.handle,
        "index": admin.index,
        "permissions": f"{admin.permissions:012b}",
    }
    if admin.legacy_length:
        out["legacyByteLength"] = True
    return out


_admin_fields_cached = lru_cache(maxsize=_ADMINS_CACHED)(_admin_fields)


def _references_to_json(references: Iterable[Reference]) -> list[Json]:
    return [{"handle": one.handle, "index": one.index} for one in references]


def _vlist_to_json(data: bytes) -> Json:
    return {"format": "vlist", "value": _references_to_json(references_from_wire(data))}


def _site_value_to_json(data: bytes) -> Json:
    return {"format": "site", "value": site_to_json(SiteInfo.from_wire(data))}


def site_to_json(site: SiteInfo) -> Json:
    """A site as `/api/site` and HS_SITE values show it."""
    out: Json = {
        "version": 1,
        "protocolVersion": f"{site.protocol_major}.{site.protocol_minor}",
        "serialNumber": site.serial,
        "primarySite": site.is_primary,
        "multiPrimary": site.is_multi_primary,
    }
    if site.hash_option != HASH_BY_ALL:
        out["hashOption"] = site.hash_option
    if site.hash_filter:
        out["hashFilter"] = site.hash_filter
    out["attributes"] = [{"name": name, "value": text} for name, text in site.attributes]
    out["servers"] = [_server_to_json(server) for server in site.servers]
    return out


def _server_to_json(server: Server) -> Json:
    try:
        public_key = _key_to_json(server.public_key)
    except InvalidValueError:
        public_key = _base64_to_json(server.public_key)
    return {
        "serverId": server.server_id,
        "address": server.address_text,
        "publicKey": public_key,
        "interfaces": [_interface_to_json(one) for one in server.interfaces],
    }


def _interface_to_json(interface: Interface) -> Json:
    number = interface.protocol
    return {
        "query": bool(interface.type & INTERFACE_QUERY),
        "admin": bool(interface.type & INTERFACE_ADMIN),
        "protocol": _PROTOCOLS[number] if number < len(_PROTOCOLS) else number,
        "port": interface.port,
    }


def _key_to_json(data: bytes) -> Json:
    key = public_key_from_wire(data)
    jwk: Json
    if isinstance(key, RsaPublicKey):
        jwk = {"kty": "RSA", "n": _number_to_text(key.modulus), "e": _number_to_text(key.exponent)}
    elif isinstance(key, DsaPublicKey):
        numbers = {"y": key.y, "p": key.p, "q": key.q, "g": key.g}
        jwk = {"kty": "DSA"} | {name: _number_to_text(one) for name, one in numbers.items()}
    else:
        raise InvalidValueError(f"key type {key.name!r} has no JSON form")
    return {"format": "key", "value": jwk}


def _number_to_text(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_RECORDS_OUT: dict[str, Callable[[bytes], Json]] = {
    "HS_ADMIN": _admin_to_json,
    "HS_VLIST": _vlist_to_json,
    "HS_SITE": _site_value_to_json,
    "HS_SITE.PREFIX": _site_value_to_json,
    "HS_NA_DELEGATE": _site_value_to_json,
    "HS_PUBKEY": _key_to_json,
}


# --- in --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JsonPlace:
    """A piece of a JSON document and the path to it, for errors that name the path.

    An absent member is a place that holds None, like an explicit null.
    """

    value: object
    path: str

    def fail(self, expected: str) -> InvalidValueError:
        place = self.path or "value"
        return InvalidValueError(f"{place}: expected {expected}, found {_shown(self.value)}")

    def member(self, name: str) -> "JsonPlace":
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        return JsonPlace(self.value.get(name), f"{self.path}.{name}" if self.path else name)

    @property
    def is_absent(self) -> bool:
        return self.value is None

    def items(self) -> list["JsonPlace"]:
        if not isinstance(self.value, list):
            raise self.fail("an array")
        return [JsonPlace(one, f"{self.path}[{n}]") for n, one in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fail("a string")
        try:
            self.value.encode()
        except UnicodeEncodeError:
            raise InvalidValueError(f"{self.path}: expected valid Unicode text") from None
        return self.value

    def integer(self, low: int, high: int) -> int:
        """An integer, or one in a string, as some clients send it."""
        number = self.value
        if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < 11:
            number = int(number)
        elif isinstance(number, float) and number.is_integer():
            number = int(number)  # 1.0 is a whole number in JSON
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise self.fail(f"an integer from {low} to {high}")
        return number

    def boolean(self, default: bool) -> bool:
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            raise self.fail("true or false")
        return self.value


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS_MAX:
        value = value[:_SHOWN_CHARACTERS_MAX] + "..."
    # ASCII and without line ends, whatever the caller sent.
    return ascii(value)


def value_from_json(value: object, path: str = "") -> HandleValue:
    """Inverse of `value_to_json` for one parsed JSON value; its timestamp is ignored (0).

    `path` names the value in errors, for example `values[3]`.

    Raises:
        InvalidValueError: names the path and what was expected there.
    """
    place = JsonPlace(value, path)
    index = place.member("index").integer(_I4_MIN, _I4_MAX)
    ttl, ttl_type = _ttl_from_json(place.member("ttl"))
    references = place.member("references")
    type_ = place.member("type").text()
    return HandleValue(
        index=index,
        type=type_,
        data=_data_from_json(place.member("data")),
        ttl=ttl,
        ttl_type=ttl_type,
        permissions=_permissions_from_json(place.member("permissions"), type_),
        references=() if references.is_absent else _references_from_json(references),
    )


def _ttl_from_json(place: JsonPlace) -> tuple[int, int]:
    if place.is_absent:
        return TTL_S_DEFAULT, TTL_RELATIVE
    if not isinstance(place.value, str):
        return place.integer(_I4_MIN, _I4_MAX), TTL_RELATIVE
    return _time_from_json(place, place.value), TTL_ABSOLUTE


def _time_from_json(place: JsonPlace, text: str) -> int:
    try:
        # Without a dash it may be seconds in a string, which must not be read as a date.
        moment = datetime.fromisoformat(text if "-" in text else "")
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        time_s = int(moment.timestamp())
    except (ValueError, OverflowError):
        raise place.fail("a number of seconds or a date like 2030-01-01T00:00:00Z") from None
    if not 0 <= time_s <= _I4_MAX:
        raise place.fail("a date from 1970 to 2038-01-19")
    return time_s


def _permissions_from_json(place: JsonPlace, type_: str) -> int:
    """Four bits, read from the right; the first digit of a string shorter than five is not read.

    So "0100" means 1100: a string of four never clears adminRead (recorded), one of five does.
    A secret key of which nothing is said is not public.
    """
    if place.is_absent:
        is_secret = fold(type_) == _SECRET_KEY
        return ADMIN_READ | ADMIN_WRITE if is_secret else PERMISSIONS_DEFAULT
    text = place.text()
    if text == "*":
        return 0x0F
    if not 2 <= len(text) <= 5 or text.strip("01"):
        raise place.fail("four digits 0 or 1")
    width = len(text) - 1
    return (PERMISSIONS_DEFAULT >> width << width) | (int(text, 2) & ((1 << width) - 1))


def _data_from_json(place: JsonPlace) -> bytes:
    if isinstance(place.value, str):
        return place.text().encode()
    if not isinstance(place.value, dict):
        raise place.fail('a string or {"format", "value"}')
    form = place.member("format")
    from_json = _FORMATS_IN.get(fold(form.text()))
    if from_json is None:
        raise form.fail(f"one of {', '.join(_FORMATS_IN).lower()}")
    return from_json(place.member("value"))


def _text_from_json(place: JsonPlace) -> bytes:
    return place.text().encode()


def _base64_from_json(place: JsonPlace) -> bytes:
    """Standard or URL-safe alphabet, with or without padding and line ends."""
    text = "".join(place.text().split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        raise place.fail("base64") from None


def _hex_from_json(place: JsonPlace) -> bytes:
    try:
        return bytes.fromhex(place.text())
    except ValueError:
        raise place.fail("pairs of hexadecimal digits") from None


def _admin_from_json(place: JsonPlace) -> bytes:
    permissions = place.member("permissions")
    text = permissions.text()
    if text != "*" and (not 1 <= len(text) <= 12 or text.strip("01")):
        raise permissions.fail("twelve digits 0 or 1")
    admin = AdminRecord(
        handle=place.member("handle").text(),
        index=place.member("index").integer(0, _I4_MAX),
        permissions=PERMISSIONS_ALL if text == "*" else int(text, 2),
        legacy_length=place.member("legacyByteLength").boolean(default=False),
    )
    return _checked(place, admin.to_wire(), AdminRecord.from_wire)


def _references_from_json(place: JsonPlace) -> tuple[Reference, ...]:
    return tuple(
        Reference(one.member("handle").text(), one.member("index").integer(0, _I4_MAX))
        for one in place.items()
    )


def _vlist_from_json(place: JsonPlace) -> bytes:
    return _checked(place, references_to_wire(_references_from_json(place)), references_from_wire)


def _site_from_json(place: JsonPlace) -> bytes:
    version, serial = place.member("version"), place.member("serialNumber")
    if not version.is_absent:
        version.integer(1, 1)
    major, minor = _protocol_version(place.member("protocolVersion"))
    hash_option, hash_filter = place.member("hashOption"), place.member("hashFilter")
    site = SiteInfo(
        servers=tuple(_server_from_json(one) for one in place.member("servers").items()),
        serial=1 if serial.is_absent else serial.integer(0, 0xFFFF),
        is_primary=place.member("primarySite").boolean(default=False),
        is_multi_primary=place.member("multiPrimary").boolean(default=False),
        hash_option=HASH_BY_ALL if hash_option.is_absent else hash_option.integer(0, 2),
        hash_filter="" if hash_filter.is_absent else hash_filter.text(),
        attributes=_attributes_from_json(place.member("attributes")),
        protocol_major=major,
        protocol_minor=minor,
    )
    return _checked(place, site.to_wire(), SiteInfo.from_wire)


def _protocol_version(place: JsonPlace) -> tuple[int, int]:
    if place.is_absent:
        return 2, 11
    major, _, minor = place.text().partition(".")
    if all(one.isascii() and one.isdigit() and len(one) < 4 for one in (major, minor)):
        numbers = int(major), int(minor)
        if max(numbers) <= 0xFF:
            return numbers
    raise place.fail("a version like 2.11")


def _attributes_from_json(place: JsonPlace) -> tuple[tuple[str, str], ...]:
    if place.is_absent:
        return ()
    return tuple((one.member("name").text(), one.member("value").text()) for one in place.items())


def _server_from_json(place: JsonPlace) -> Server:
    server_id, address = place.member("serverId"), place.member("address")
    public_key, interfaces = place.member("publicKey"), place.member("interfaces")
    try:
        packed = address_from_text(address.text())
    except InvalidValueError:
        raise address.fail("an IPv4 or IPv6 address") from None
    return Server(
        server_id=1 if server_id.is_absent else server_id.integer(_I4_MIN, _I4_MAX),
        address=packed,
        public_key=b"" if public_key.is_absent else _data_from_json(public_key),
        interfaces=tuple(_interface_from_json(one) for one in interfaces.items()),
    )


def _interface_from_json(place: JsonPlace) -> Interface:
    query = place.member("query").boolean(default=False)
    admin = place.member("admin").boolean(default=False)
    protocol = place.member("protocol")
    if isinstance(protocol.value, str) and protocol.value in _PROTOCOLS:
        number = _PROTOCOLS.index(protocol.value)
    else:
        number = protocol.integer(0, 0xFF)
    port = place.member("port").integer(0, 0xFFFF)
    return Interface(INTERFACE_QUERY * query | INTERFACE_ADMIN * admin, number, port)


def _key_from_json(place: JsonPlace) -> bytes:
    kind = place.member("kty")
    name = fold(kind.text())
    if name == "RSA":
        key: RsaPublicKey | DsaPublicKey = RsaPublicKey(
            exponent=_number_from_json(place.member("e")),
            modulus=_number_from_json(place.member("n")),
        )
    elif name == "DSA":
        key = DsaPublicKey(*(_number_from_json(place.member(one)) for one in "qpgy"))
    else:
        raise kind.fail("RSA or DSA")
    return _checked(place, key.to_wire(), public_key_from_wire)


def _number_from_json(place: JsonPlace) -> int:
    return int.from_bytes(_base64_from_json(place), "big")


def _checked(place: JsonPlace, data: bytes, from_wire: Callable[[bytes], object]) -> bytes:
    # The bounds of the binary form are written down once, where it is read.
    try:
        from_wire(data)
    except InvalidValueError as error:
        raise InvalidValueError(f"{place.path}: {error}") from None
    return data


_FORMATS_IN: dict[str, Callable[[JsonPlace], bytes]] = {
    "STRING": _text_from_json,
    "BASE64": _base64_from_json,
    "HEX": _hex_from_json,
    "ADMIN": _admin_from_json,
    "VLIST": _vlist_from_json,
    "SITE": _site_from_json,
    "KEY": _key_from_json,
}
