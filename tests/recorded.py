"""Recorded exchanges of a Handle.Net 9.3.1 server, and how a node's answers differ from them."""

import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "data" / "vectors"
# Headers that clients read; the others are the server's own business.
HEADERS = (
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "content-encoding",
    "content-type",
    "expires",
    "location",
    "transfer-encoding",
    "vary",
    "www-authenticate",
)
# Their items have no order, and may stand in one header or in several.
_LISTS = {"allow", "vary", "access-control-allow-methods", "access-control-allow-headers"}
_TIMESTAMP = re.compile(r'("timestamp": ?")[^"]+')
# Of a minted suffix.
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EXPIRES = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
_PROXY_HEADER = re.compile(r" \| (?=[A-Z][A-Za-z-]+: )")


@dataclass(frozen=True)
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    def header(self, name: str) -> str:
        """All headers of this name as one text, fit for comparing; empty if there is none."""
        found = [text for header, text in self.headers if header == name]
        if name in _LISTS:
            return ", ".join(sorted({part.strip() for text in found for part in text.split(",")}))
        return _EXPIRES.sub("DATE", " | ".join(found)) if name == "expires" else " | ".join(found)


@dataclass(frozen=True)
class Exchange:
    """A question as it was sent and the answer as it was recorded."""

    name: str
    scheme: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: str
    reply: Reply
    # Only the beginning of the body was written down: this many characters of it are compared.
    cut_at: int | None = None

    def with_prefix(self, prefix: str) -> "Exchange":
        """The same exchange below another prefix of equal length."""
        assert len(prefix) == len("88.102.5")
        return replace(
            self,
            path=self.path.replace("88.102.5", prefix),
            body=self.body.replace("88.102.5", prefix),
            reply=replace(self.reply, body=self.reply.body.replace("88.102.5", prefix)),
        )


def http_exchanges() -> list[Exchange]:
    """The HTTP JSON API."""
    text = (VECTORS / "http-9.3.1.txt").read_text("utf-8")
    return [_exchange(section) for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]]


def _exchange(section: str) -> Exchange:
    name, first, *lines = section.split("\n")
    scheme, method, path = first.removeprefix("> ").split(" ", 2)
    sent = [line[2:] for line in lines if line.startswith("> ")]
    headers, body = _head_and_body(sent)
    received = lines[len(sent) :]
    end = next(n for n, line in enumerate(received) if line == "< ")
    status, *fields = (line[2:] for line in received[:end])
    answer = "\n".join(received[end + 1 :]).removeprefix("< ").rstrip("\n")
    reply = Reply(int(status[:3]), tuple(_fields(fields)), answer)
    # Longer bodies were written down up to their 3,000th character.
    cut_at = 2_900 if len(answer) == 3_000 else None
    return Exchange(name, scheme, method, path, headers, body, reply, cut_at)


def _head_and_body(sent: list[str]) -> tuple[dict[str, str], str]:
    if "" not in sent:
        return dict(line.split(": ", 1) for line in sent), ""
    end = sent.index("")
    return dict(line.split(": ", 1) for line in sent[:end]), "\n".join(sent[end + 1 :])


def _fields(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, text = line.partition(":")
        yield name.lower(), text.strip()


def proxy_exchanges() -> list[Exchange]:
    """The redirecting proxy; of each body, the first 160 characters without line ends."""
    text = (VECTORS / "proxy-9.3.1.txt").read_bytes().decode("utf-8", "replace")
    found = re.findall(r"^(\S.*)\n  > (.*)\n  < (.*)\n(?:  < (.*))?", text, re.MULTILINE)
    return [_proxy_exchange(*parts) for parts in found]


def _proxy_exchange(name: str, asked: str, head: str, body: str) -> Exchange:
    method, path, *more = asked.split(" ", 2)
    sent = dict(re.findall(r"'([^']+)': '([^']+)'", more[0] if more else ""))
    status, _, fields = head.partition(" ")
    fields = re.sub(r"^[A-Z][A-Za-z ]+? (?=[A-Z][A-Za-z-]+: )", "", fields)
    reply = Reply(int(status), tuple(_fields(_PROXY_HEADER.split(fields))), body.rstrip())
    return Exchange(name, "http", method, path, sent, "", reply, cut_at=150)


def all_formats(body: str) -> list[dict[str, Any]]:
    """The values of the record with all formats, whose writing was written down in part.

    `body` is what everybody was answered, cut off, too; what it does not show comes besides.
    """
    values = []
    start = body.index("[") + 1
    while body.startswith('{"index":', start):
        try:
            value, end = json.JSONDecoder().raw_decode(body, start)
        except json.JSONDecodeError:
            break
        values.append(value)
        start = end + 1
    assert [value["index"] for value in values] == [1, 2, 3, 4, 5, 8, 9, 10, 11, 12]
    shown = {"format": "string", "value": "x"}
    hidden = [
        {"index": 6, "type": "PERM", "data": shown, "permissions": "1100"},
        {"index": 7, "type": "PERM5", "data": shown, "permissions": "0100"},
    ]
    alias = {"index": 13, "type": "HS_ALIAS", "data": "88.102.5/ITEM1"}
    return [*values[:5], *hidden, *values[5:], alias]


def replayed(
    port: int,
    exchange: Exchange,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """What a node on this port answers to the same question, byte for byte; over TLS with a
    `context`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    if context is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        connection.request(
            exchange.method,
            exchange.path,
            exchange.body.encode() or None,
            {**exchange.headers, **(headers or {})},
        )
        answer = connection.getresponse()
        body = answer.read().decode("utf-8", "replace")
    finally:
        connection.close()
    return Reply(answer.status, tuple(_lower(answer.headers)), body)


def _lower(headers: Message) -> Iterator[tuple[str, str]]:
    for name, text in headers.items():
        yield name.lower(), text


def differences(exchange: Exchange, answer: Reply) -> dict[str, tuple[str, str]]:
    """What differs: `status`, `body` or a header, with (recorded, answered).

    Timestamps, dates and minted names differ by nature: only that they are there is compared.
    """
    recorded = exchange.reply
    pairs = {"status": (str(recorded.status), str(answer.status))}
    pairs |= {name: (recorded.header(name), answer.header(name)) for name in HEADERS}
    pairs["body"] = _comparable(exchange, recorded.body), _comparable(exchange, answer.body)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _comparable(exchange: Exchange, body: str) -> str:
    body = _UUID.sub("UUID", _TIMESTAMP.sub(r"\1....-..-..T..:..:..Z", body)).rstrip("\n")
    return body if exchange.cut_at is None else body.replace("\n", " ")[: exchange.cut_at]
