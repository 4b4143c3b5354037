"""Records of every kind, and requests after them of every kind that a caller may send."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from resolver.record import TTL_ABSOLUTE, HandleValue

LOCATIONS: Final = (
    '<locations><location id="0" href="http://zero.example/" weight="0"/>'
    '<location id="1" href="http://one.example/" weight="1"/></locations>'
)
_ADMIN_ONLY: Final = 0x0C
# Around the size from which answers are compressed.
_BORDER: Final = range(3_920, 3_960, 2)


def _value(index: int, type_: str, text: str) -> HandleValue:
    return HandleValue(index, type_, text.encode())


def _url(text: str, ttl: int = 86_400, ttl_type: int = 0) -> HandleValue:
    return HandleValue(1, "URL", text.encode(), ttl, ttl_type)


PUBLIC: Final = _value(2, "DESC", "轴承")
SECRET: Final = HandleValue(300, "HS_SECKEY", b"secret", permissions=_ADMIN_ONLY)

RECORDS: Final[Mapping[str, Sequence[HandleValue]]] = {
    "ITEM1": (_url("http://www.example.com/product/1"), PUBLIC),
    "Spelling-aB": (_url("https://a.example/?a=1&b=<2>"),),
    "产品/一": (_url("http://例子.example/路径?q=一"),),
    "with/slash//twice": (_url("http://a.example/"),),
    "a%41b": (_url("http://a.example/%41"),),
    "marks-._~!$&'()*+,;=:@": (_url("http://a.example/"),),
    "more|[]{}^`": (_url("http://a.example/"),),
    "ALIAS": (_value(1, "HS_ALIAS", "88.1.1/X"), _value(2, "URL", "http://a.example/")),
    "alias-lower": (_value(1, "hs_alias", "88.1.1/X"), _value(2, "URL", "http://a.example/")),
    "LOC": (_value(1, "10320/loc", LOCATIONS), _value(2, "URL", "http://a.example/")),
    "LOC-BROKEN": (_value(1, "10320/LOC", "<nonsense"), _value(2, "URL", "http://a.example/")),
    "ABSOLUTE": (_url("http://a.example/", 2_000_000_000, TTL_ABSOLUTE),),
    "TTL-0": (_url("http://a.example/", 0),),
    "TTL-MAX": (_url("http://a.example/", 2**31 - 1),),
    "MULTI": (
        _value(5, "URL", "javascript:alert(1)"),
        _value(3, "URL.SUB", "http://sub.example/"),
        _value(9, "url", "http://lower.example/"),
        HandleValue(11, "URL", b"http://eleven.example/", 60),
    ),
    "PRIVATE": (_url("http://a.example/"), SECRET),
    "PRIVATE-URL": (HandleValue(1, "URL", b"http://a.example/", permissions=_ADMIN_ONLY), PUBLIC),
    "DARK": (SECRET,),
    "EMPTY": (),
    "NOURL": (PUBLIC,),
    "BINARY": (HandleValue(1, "BLOB", bytes(range(256))),),
    "BIG": (_url("http://a.example/"), _value(2, "DESC", "长" * 3_000)),
    "LONG-URL": (_url("http://a.example/" + "x" * 3_000),),
    "LONGEST-URL": (_url("http://a.example/" + "x" * 7_980),),
    "TOO-LONG-URL": (_url("http://a.example/" + "x" * 8_000),),
    '"values":[': (_value(1, "DESC", '"values":['),),
} | {f"BORDER-{size}": (_value(1, "DESC", "x" * size),) for size in _BORDER}
"""What is registered, by suffix."""

# Methods that are registered with IANA, and what is no method.
_METHODS: Final = ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "BREW")
_VERSIONS: Final = ("HTTP/1.0", "http/1.1", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "")
_OTHER_TARGETS: Final = (
    "/", "//", "*", "/api", "/api/", "/api/handles", "/api/handles/", "/api/resolve", "/api/site",
    "/health", "/ready", "/metrics", "/favicon.ico", "/robots.txt", "/help.html", "/openapi.json",
    "/api%2Fhandles/{0}", "/API/handles/{0}", "/api/handles//{0}", "//{0}", "/./{0}", "/x/../{0}",
    "http://node/{0}", "http://node/api/handles/{0}", "https://other:1/{0}", "/hdl:{0}",
    "/doi:{0}", "/URN:hdl:{0}", "/hdl%3A{0}", "/{0} ", "/ {0}", "/{0}\t", "/{0}\x00", "/{0}\x7f",
    "/{0}%00", "/{0}%FF", "/{0}%ED%A0%80", "/{0}\xff", "/{0}\xe4\xb8\xad", "/{0}%", "/{0}%2",
    "/{0}%zz", "/{0}\\", "/{0}\"", "/{0}<>", "/{0}|", "/{0}^`", "/{0}#", "/{0}#x?y", "/{0}?",
    "/{0}?pretty", "/{0}?index=1", "/{0}?type=URL", "/{0}?auth", "/{0}?noredirect", "/{0};x",
    "/{0}?action=showurls", "/{0}/", "/{0}/.", "/{0}//", "/api/handles/{0}/",
    "/api/handles/{0}?pretty", "/api/handles/{0}?callback=f", "/api/handles/{0}?index=x",
    "/api/handles/{0}?publicOnly=false", "/api/handles/{0}#x", "/api/handles/{0}?", "/{0}{1000}",
    "/api/handles/{0}{1000}", "/api/handles/{0}{2}", "x{0}", "{0}", "",
)  # fmt: skip
# Each stands for one header that changes what happens, or must not.
_MARKED: Final = (
    "Connection: close", "Connection: Close", "Connection: upgrade", "Connection: TE",
    "Connection: keep-alive, close", "Connection: keep-alive\r\nConnection: close",
    "Connection: x-api-key", "Connection:",
    "Proxy-Connection: close", "Keep-Alive: timeout=5", "Upgrade: h2c",
    "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ", "Upgrade: websocket",
    "Content-Length: 0", "Content-Length: 5", "Content-Length: x", "Content-Length: -1",
    "Content-Length: 0\r\nContent-Length: 0", "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: +0", "Content-Length: ", "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip", "Transfer-Encoding: identity", "Transfer-Encoding: ",
    "Transfer-Encoding: chunked\r\nContent-Length: 5", "TE: trailers", "Trailer: x",
    "Expect: 100-continue", "Expect: nonsense", "Origin: http://a.example", "Origin: null",
    "Origin: \xe4", "Origin: http://a.example\r\nOrigin: http://b.example",
    "X-API-Key: nonsense", "X-API-Key:", "X-API-Key: \x01", "Authorization: Bearer",
    "Authorization: Bearer nonsense", "X-API-Key: a\r\nAuthorization: Bearer b",
    "X-Folded: a\r\n b", "X-Folded: a\r\n\tb", " X-Led: a", "X Space: a", "X-Space : a",
    "No-Colon", ": empty", "X-Nul: a\x00b", "X-Control: a\x01b", "X-Del: a\x7fb", "X-Tab: a\tb",
    "X-High: \xe4\xb8\xad", "X-\xe4: a", "X-Bare: a\rb", "X-Bare: a\nX-Next: b", "X-Empty:",
    "X-Empty: ", "X-Spaces:   a   ", "X-Long: " + "y" * 3_000, "Host: other", "Host:",
    "Host: node\r\nHost: other", "(X): a", "X[1]: a", "X-Quote: \"a\"",
    "X-Longest: " + "y" * 40_000,
)  # fmt: skip
# Nothing that these say changes how a plain question is answered.
_HARMLESS: Final = (
    "Accept: */*", "Accept: application/json", "Accept: text/html;q=0.1", "Accept-Language: zh-CN",
    "Accept-Language: en", "Accept-Encoding: gzip", "Accept-Encoding: gzip;q=0",
    "Accept-Encoding: br, gzip;q=0.5", "Accept-Encoding: identity", "Accept-Encoding: *",
    "Accept-Encoding: identity\r\nAccept-Encoding: gzip", "accept-encoding: GZIP ; Q=0.0",
    "User-Agent: a/1 (b; c)", "Connection: keep-alive", "Connection: Keep-Alive",
    "connection:keep-alive", "Range: bytes=0-9", "If-None-Match: \"x\"", "If-Match: *",
    "If-Modified-Since: Tue, 24 Nov 2026 00:00:00 GMT", "Cache-Control: no-cache",
    "Pragma: no-cache", "Cookie: a=b", "Referer: http://a.example/", "DNT: 1", "X-Any: :: a :",
    "Authorization: Basic YTpi", "Authorization: Bear er", "X-Forwarded-For: 198.51.100.1",
    "X-Forwarded-For: 198.51.100.1, 10.0.0.1", "X-Forwarded-For: nonsense",
    "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 198.51.100.2", "Forwarded: for=1.2.3.4",
    "X-Forwarded-Proto: https", "Content-Type: application/json", "Sec-Fetch-Mode: cors",
    "Date: nonsense", "Via: 1.1 x", "Max-Forwards: 0", "X!#$%&'*+-.^_`|~0: y",
)  # fmt: skip
_BODY: Final = "index"
CODINGS: Final = ("Accept-Encoding: gzip", "Accept-Encoding: gzip;q=0", "Accept-Encoding: br")
_FRAMING: Final = ("content-length", "transfer-encoding")


@dataclass(frozen=True)
class Callers:
    """The texts of API keys by who has them; asking with any two of them is refused."""

    keys: Mapping[str, str]

    def header(self, chance: random.Random) -> str:
        """A header that carries one, in one of the ways that are understood; or two that do."""
        key, other = (chance.choice(sorted(self.keys.values())) for _ in range(2))
        return chance.choice(
            (
                f"X-API-Key: {key}",
                f"x-api-key:{key}",
                f"Authorization: Bearer {key}",
                f"AUTHORIZATION: bearer  {key}",
                f"X-API-Key: {key}\r\nAuthorization: Bearer {key}",
                f"X-API-Key: {key}\r\nAuthorization: Bearer {other}",
                f"X-API-Key: {key}\r\nX-API-Key: {other}",
            )
        )


class Generator:
    """Requests after `identifiers`, the same ones for the same seed."""

    def __init__(self, seed: int, identifiers: Sequence[str], callers: Callers) -> None:
        self._chance = random.Random(seed)
        self._identifiers = identifiers
        self._callers = callers

    def any(self) -> bytes:
        """A question with oddities of all kinds, one or two of them, or none."""
        chance, identifier = self._chance, self._chance.choice(self._identifiers)
        method, version = "GET", "HTTP/1.1"
        headers, body = self._harmless(), ""
        door = chance.choice(("/api/handles/", "/"))
        target = door + self._spelling()(identifier)
        for _ in range(chance.choice((0, 0, 1, 1, 1, 2))):
            odd = chance.randrange(10)
            if odd == 0:
                method = chance.choice(_METHODS)
            elif odd == 1:
                version = chance.choice(_VERSIONS)
            elif odd in (2, 3):
                target = _filled(chance.choice(_OTHER_TARGETS), encoded(identifier))
            elif odd == 4:
                headers.insert(chance.randrange(len(headers) + 1), self._callers.header(chance))
            elif odd == 5:
                body = _BODY
            else:
                headers.insert(chance.randrange(len(headers) + 1), chance.choice(_MARKED))
        return self._request(method, target, version, headers, body)

    def _harmless(self) -> list[str]:
        chance = self._chance
        found = [_renamed(chance, one) for one in chance.choices(_HARMLESS, k=chance.randrange(5))]
        if chance.randrange(3) == 0:
            found.append(self._callers.header(chance))
        if chance.randrange(20):
            found.insert(chance.randrange(len(found) + 1), _renamed(chance, "Host: node:8000"))
        return found

    def _spelling(self) -> Callable[[str], str]:
        return self._chance.choice(
            (
                encoded,
                encoded,
                encoded,
                _escaped_whole,
                _lower_escapes,
                str.lower,
                str.upper,
                _twice,
            )
        )

    def _request(
        self, method: str, target: str, version: str, headers: list[str], body: str = ""
    ) -> bytes:
        end = "\n" if self._chance.randrange(40) == 0 else "\r\n"
        if method == "POST":
            # A body that never comes would be waited for.
            headers = [one for one in headers if not one.lower().startswith(_FRAMING)]
        first = f"{method} {target} {version}" if version else f"{method} {target}"
        return end.join((first, *headers, "", "")).encode("latin-1", "replace") + body.encode()


def encoded(identifier: str) -> str:
    """An identifier as a client writes it into a path."""
    return quote(identifier, safe="/-._~!$&'()*+,;=:@")


def _escaped_whole(identifier: str) -> str:
    return "".join(f"%{byte:02X}" for byte in identifier.encode())


def _lower_escapes(identifier: str) -> str:
    return quote(identifier, safe="").replace("%2F", "%2f")


def _twice(identifier: str) -> str:
    return quote(encoded(identifier), safe="/")


def _filled(form: str, identifier: str) -> str:
    filled = form.replace("{0}", identifier)
    return filled.replace("{1000}", "z" * 1_000).replace("{2}", "z" * (255 - len(identifier)))


def _renamed(chance: random.Random, header: str) -> str:
    """The same header, its name in another case."""
    name, colon, value = header.partition(":")
    return chance.choice((str, str, str.lower, str.upper, str.swapcase))(name) + colon + value
