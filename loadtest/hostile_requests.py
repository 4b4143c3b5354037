"""Requests that nobody should send, each made from a seed and its number alone.

Whatever an operator's key could write begins with `WRITTEN`; everything else with a key must be
refused, and `SMUGGLED` identifiers hide in the bodies of requests that must not be obeyed.
"""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final, TypeVar
from urllib.parse import quote

from loadtest import hostile_parts as parts

_T = TypeVar("_T")

PREFIX: Final = "88.608.1001"
WRITTEN: Final = f"{PREFIX}/HOSTILE-"
SMUGGLED: Final = f"{PREFIX}/SMUGGLED-"
_KNOWN: Final = f"{PREFIX}/00041250500735"

# The longest body; one door takes 16 MB, the others 2 MB and less.
BODY_SIZE_BYTES_MAX: Final = 3_000_000
# A slow sender waits this long after each piece.
SLOW_PAUSE_S: Final = 0.1


class Ending(Enum):
    """What the client does after it has sent everything."""

    ANSWER = "wait for the answers and keep the connection"
    FINISH = "say that nothing follows, and wait for answers or the end"
    CUT = "close at once"
    RESET = "reset the connection"
    UNREAD = "ask, read nothing, and close"


@dataclass(frozen=True, slots=True)
class HostileRequest:
    """What is sent, in pieces, and how it ends.

    `methods` are those of the requests inside, so that answers without a body are known as such.
    """

    kind: str
    pieces: tuple[bytes, ...]
    ending: Ending
    methods: tuple[str, ...]
    pause_s: float = 0.0

    @property
    def shown(self) -> str:
        """The beginning, for a report."""
        return f"{self.kind} ({self.ending.name}): {b''.join(self.pieces)[:300]!r}"


def hostile_request(seed: int, number: int, key: str | None = None) -> HostileRequest:
    """The request `number` of a run; `key` is an operator's key for some of them."""
    random = Random(f"{seed}:{number}")
    make = random.choices(_MAKERS, _WEIGHTS)[0]
    return make(_Draft(random, number, key))


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a request is made from."""

    random: Random
    number: int
    key: str | None

    def one(self, among: Sequence[_T]) -> _T:
        return self.random.choice(among)

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent


# --- targets ---


def _garbage(draft: _Draft, size_bytes_max: int) -> bytes:
    return draft.random.randbytes(draft.random.randrange(size_bytes_max))


def _path(draft: _Draft) -> bytes:
    """A path, mostly one that a parser takes."""
    choice = draft.random.randrange(100)
    if choice < 15:
        return draft.one(parts.TARGETS)
    if choice < 30:
        return draft.one(parts.STARTS) + quote(_garbage(draft, 60)).encode()
    if choice < 33:
        return draft.one(parts.STARTS) + b"a" * draft.one((250, 256, 8_000, 33_000, 40_000))
    if choice < 36:
        return draft.one(parts.STARTS) + b"/" * draft.random.randrange(400)
    if choice < 45:
        known, written = _KNOWN.encode(), f"{WRITTEN}{draft.random.randrange(100)}".encode()
        start = draft.one((b"/", b"/api/handles/"))
        return start + draft.one((known, known.lower(), known[:-1], written, written, written))
    segments = [draft.one(parts.SEGMENTS) for _ in range(draft.random.randrange(1, 6))]
    return draft.one(parts.STARTS) + b"/".join(segments)


def _query(draft: _Draft) -> bytes:
    choice = draft.random.randrange(100)
    if choice < 50:
        return b""
    if choice < 52:
        return b"?" + b"&".join([b"a=b"] * draft.one((1_000, 1_001, 2_500, 10_000)))
    if choice < 54:
        return b"?" + b"&index=1" * draft.one((999, 1_001, 3_000))
    if choice < 58:
        return b"?" + quote(_garbage(draft, 200)).encode()
    return b"?" + b"&".join(
        draft.one(parts.PARAMETERS) for _ in range(draft.random.randrange(1, 5))
    )


# --- heads ---


def _headers(draft: _Draft) -> list[bytes]:
    found = [] if draft.chance(3) else [b"host: a.example"]
    found += [draft.one(parts.HEADERS) for _ in range(draft.random.randrange(4))]
    if draft.chance(15):
        found.append(draft.one(parts.KEYS))
    if draft.chance(2):
        found += [b"x%d: y" % n for n in range(draft.one((200, 5_000)))]
    if draft.chance(1):
        found.append(b"x: " + b"y" * draft.one((8_000, 33_000, 70_000)))
    return found


def _head(method: str, target: bytes, headers: Sequence[bytes], version: bytes = b"1.1") -> bytes:
    line = b"%s %s HTTP/%s" % (method.encode("latin-1"), target, version)
    return b"\r\n".join((line, *headers, b"", b""))


# --- bodies ---

_BOMB: Final = gzip.compress(bytes(10_000_000))
_LONG: Final = bytes(BODY_SIZE_BYTES_MAX)


def _body(draft: _Draft) -> bytes:
    choice = draft.random.randrange(100)
    if choice < 55:
        return draft.one(parts.DOCUMENTS)
    if choice < 75:
        return _garbage(draft, 3_000)
    if choice < 90:
        return _document(draft)
    if choice < 97:
        return b"&".join(draft.one(parts.PARAMETERS) for _ in range(draft.random.randrange(8)))
    if choice < 98:
        return _BOMB
    return _LONG[: draft.one((70_000, 1_048_577, 2_100_000, BODY_SIZE_BYTES_MAX))]


def _value(draft: _Draft) -> object:
    """A handle value with something wrong, more often than not."""
    if draft.chance(5):
        return draft.one(parts.NUMBERS)
    text = draft.one(parts.TEXTS)
    data: object = text
    if draft.chance(60):
        data = {
            "format": draft.one(parts.FORMATS),
            "value": draft.one((text, [], {}, _reference(draft))),
        }
    value = {"index": draft.one(parts.NUMBERS), "type": draft.one(parts.TEXTS), "data": data}
    if draft.chance(40):
        value["index"], value["type"] = draft.random.randrange(1, 9), "URL"
    for name, among in (
        ("ttl", parts.NUMBERS),
        ("permissions", parts.TEXTS),
        ("timestamp", parts.TEXTS),
    ):
        if draft.chance(20):
            value[name] = draft.one(among)
    if draft.chance(10):
        value["references"] = [_reference(draft)] * draft.random.randrange(120)
    return value


def _reference(draft: _Draft) -> object:
    return {
        "handle": draft.one(parts.TEXTS),
        "index": draft.one(parts.NUMBERS),
        "permissions": draft.one(("111111111111", "1", "", None)),
        "servers": [{"address": draft.one(("1.1.1.1", "::", "a", None)), "interfaces": []}],
        "kty": "RSA",
        "n": "AQAB",
        "e": draft.one(("AQAB", "", "!")),
    }


def _document(draft: _Draft) -> bytes:
    """A record as JSON, cut off where it would be too long."""
    return json.dumps(_record(draft)).encode()[:BODY_SIZE_BYTES_MAX]


def _storable_value(draft: _Draft, index: int) -> object:
    """A value that may be stored, with data that is unpleasant to show."""
    data: object = draft.one(parts.DATA)
    if draft.chance(40):
        data = {"format": "hex", "value": _garbage(draft, 300).hex()}
    permissions = draft.one(("1110", "1100", "1111", "11111", "00000", None))
    return {
        "index": index,
        "type": draft.one(parts.TYPES),
        "data": data,
        "ttl": draft.one((0, 1, 86_400, 2**31 - 1, "2030-01-01T00:00:00Z", None)),
        "permissions": permissions,
    }


def _record(draft: _Draft) -> object:
    number = draft.random.randrange(5)
    if draft.chance(50):
        values = [_storable_value(draft, index + 1) for index in range(number)]
    else:
        values = [_value(draft) for _ in range(number)]
    return draft.one(
        (values, {"values": values}, {"values": values, "handle": draft.one(parts.TEXTS)})
    )


# --- whole requests ---


def _framed(
    draft: _Draft, kind: str, method: str, target: bytes, headers: list[bytes]
) -> HostileRequest:
    """A request whose end is known, whatever it says."""
    body = b""
    if method in ("POST", "PUT", "DELETE", "PATCH") or draft.chance(3):
        body = _body(draft)
        if draft.chance(60):
            headers.append(b"content-type: application/json")
    if body and draft.chance(25):
        headers.append(b"transfer-encoding: chunked")
        body = _chunked(draft, body)
    elif body or method in ("POST", "PUT"):
        headers.append(b"content-length: %d" % len(body))
    version = b"1.0" if draft.chance(5) else b"1.1"
    head = _head(method, target, headers, version)
    return HostileRequest(kind, (head, body) if body else (head,), Ending.ANSWER, (method,))


def _chunked(draft: _Draft, body: bytes) -> bytes:
    size_bytes = draft.one((1_000, 65_536, BODY_SIZE_BYTES_MAX)) if len(body) > 5_000 else 7
    parts = [body[start : start + size_bytes] for start in range(0, len(body), size_bytes)]
    extension = draft.one((b"", b";a=b", b";" + b"x" * 100))
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    return chunks + b"0\r\n" + draft.one((b"", b"", b"x: y\r\n")) + b"\r\n"


def _odd_target(draft: _Draft) -> HostileRequest:
    method, target = draft.one(parts.USUAL_METHODS), _path(draft) + _query(draft)
    headers = [b"host: a.example"] + ([draft.one(parts.KEYS)] if draft.chance(10) else [])
    return _framed(draft, "target", method, target, headers)


def _odd_headers(draft: _Draft) -> HostileRequest:
    method = draft.one(parts.METHODS if draft.chance(30) else parts.USUAL_METHODS)
    return _framed(draft, "headers", method, _path(draft), _headers(draft))


def _odd_body(draft: _Draft) -> HostileRequest:
    target = draft.one((b"/api/resolve", b"/api/handles", b"/", b"/api/handles/" + _KNOWN.encode()))
    method = "PUT" if target.endswith(b"5") and draft.chance(50) else "POST"
    return _framed(draft, "body", method, target + _query(draft), _headers(draft))


def _with_key(draft: _Draft) -> HostileRequest:
    """A write with the operator's key, or the same without it."""
    name = f"{WRITTEN}{draft.number % 100}"
    if draft.chance(30):
        name += draft.one(("/", "..", "\x00", "é", "e\u0301", " ", "%", "\u202e", "~")) * 2
    headers = _headers(draft)
    if draft.key is not None:
        key = draft.key.encode()
        headers.append(draft.one((b"authorization: Bearer " + key, b"x-api-key: " + key)))
    if draft.chance(25):
        body = b'{"items":[' + b",".join(_items(draft, name)) + b"]}"
        return _written(headers, "POST", b"/api/handles", body)
    method = draft.one(("PUT", "PUT", "PUT", "DELETE"))
    target = b"/api/handles/" + quote(name, safe="").encode() + _query(draft)
    return _written(headers, method, target, _document(draft))


def _items(draft: _Draft, name: str) -> list[bytes]:
    """Items of one request, as many as there is room for."""
    handle, values = draft.one((name, "a/b", "", None)), draft.one((_record(draft), 1))
    item = json.dumps({"handle": handle, "values": values}).encode()
    return [item] * min(draft.one((0, 1, 1, 3, 2_001)), BODY_SIZE_BYTES_MAX // len(item))


def _written(headers: list[bytes], method: str, target: bytes, body: bytes) -> HostileRequest:
    headers += [b"content-type: application/json", b"content-length: %d" % len(body)]
    pieces = (_head(method, target, headers), body)
    return HostileRequest("write", pieces, Ending.FINISH, (method,))


def _smuggled_put(draft: _Draft) -> bytes:
    """A request that must never be obeyed, because it is the body of another one."""
    body = b'[{"index":1,"type":"A","data":"x"}]'
    headers = [b"host: a", b"content-type: application/json", b"content-length: %d" % len(body)]
    headers.append(b"x-api-key: " + (draft.key or "none").encode())
    target = f"/api/handles/{SMUGGLED}{draft.number}".encode()
    return _head("PUT", target, headers) + body


def _ambiguous(draft: _Draft) -> HostileRequest:
    """A body whose end can be read in two ways."""
    inner = _smuggled_put(draft)
    framing = draft.one(parts.FRAMINGS)
    body = draft.one((b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n")) + inner
    request = _head("POST", b"/api/resolve", [b"host: a.example", *framing]) + body
    return HostileRequest("ambiguous", (request,), Ending.FINISH, ("POST",))


def _broken_chunks(draft: _Draft) -> HostileRequest:
    body = _garbage(draft, 200) if draft.chance(10) else draft.one(parts.CHUNKS)
    target = draft.one((b"/api/resolve", b"/api/handles/" + _KNOWN.encode(), b"/", b"/health"))
    headers = [b"host: a.example", b"transfer-encoding: chunked"]
    request = _head("POST", target, headers) + body
    return HostileRequest("chunks", (request,), Ending.FINISH, ("POST",))


def _nonsense(draft: _Draft) -> HostileRequest:
    """Bytes that are hardly HTTP."""
    noise = _garbage(draft, 5_000) if draft.chance(10) else draft.one(parts.NOISE)
    return HostileRequest("nonsense", (noise,), Ending.FINISH, ("GET",))


def _cut(draft: _Draft) -> HostileRequest:
    """A request that ends in the middle."""
    whole = b"".join(draft.one((_odd_body, _odd_target, _with_key))(draft).pieces)[:400_000]
    pieces = (whole[: draft.random.randrange(len(whole) + 1)],)
    return HostileRequest(
        "cut", pieces, draft.one((Ending.CUT, Ending.RESET, Ending.FINISH)), ("PUT",)
    )


def _pipelined(draft: _Draft) -> HostileRequest:
    number = draft.one((2, 10, 100, 2_000))
    method = draft.one(("GET", "GET", "HEAD", "OPTIONS"))
    target = draft.one((b"/health", b"/api/site", b"/" + _KNOWN.encode(), b"/api/handles/a", b"//"))
    requests = _head(method, target, [b"host: a.example"]) * number
    if draft.chance(30):
        return HostileRequest("pipelined", (requests,), Ending.UNREAD, (method,) * number)
    if draft.chance(30):
        broken = (requests + b"\x00\x01\r\n\r\n",)
        return HostileRequest("pipelined", broken, Ending.FINISH, (method,) * (number + 1))
    return HostileRequest("pipelined", (requests,), Ending.FINISH, (method,) * number)


def _unread(draft: _Draft) -> HostileRequest:
    """Large answers that nobody takes."""
    target = draft.one((b"/metrics", b"/openapi.json", b"/api/measures"))
    requests = _head("GET", target, [b"host: a.example"]) * draft.one((1, 20))
    return HostileRequest("unread", (requests,), Ending.UNREAD, ("GET",))


def _slow(draft: _Draft) -> HostileRequest:
    """A few bytes now and then."""
    whole = b"".join(draft.one((_odd_target, _with_key, _broken_chunks))(draft).pieces)[:2_000]
    places = sorted(draft.random.randrange(len(whole)) for _ in range(draft.random.randrange(2, 8)))
    starts, ends = [0, *places], [*places, len(whole)]
    pieces = tuple(whole[start:end] for start, end in zip(starts, ends, strict=True))
    return HostileRequest("slow", pieces, Ending.FINISH, ("GET",), SLOW_PAUSE_S)


_MAKERS: Final[tuple[Callable[[_Draft], HostileRequest], ...]] = (
    _odd_target,
    _odd_headers,
    _odd_body,
    _with_key,
    _ambiguous,
    _broken_chunks,
    _nonsense,
    _cut,
    _pipelined,
    _unread,
    _slow,
)
_WEIGHTS: Final = (400, 180, 140, 100, 40, 30, 40, 40, 12, 8, 10)
