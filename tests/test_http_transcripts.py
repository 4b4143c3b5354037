"""Every recorded request to Handle.Net 9.3.1 over HTTP and HTTPS, asked of a node like that server.

One after the other, as they were recorded: sessions, nonces and records build on each other. What
is answered differently stands in the tables, with the section of the divergence list that says why.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import https_node
from tests.https_node import KEYS, OWNER, PREFIX, SECRET, HttpsNode, admin_value
from tests.recorded import (
    Exchange,
    Reply,
    all_formats,
    differences,
    http_exchanges,
    proxy_exchanges,
    replayed,
)
from tests.tenant import text_value
from tests.test_http_redirect import LOCATIONS

HTTP = {exchange.name: exchange for exchange in http_exchanges()}
PROXY = {exchange.name: exchange for exchange in proxy_exchanges()}
ITEMS = 10_000
_ITEMS_AT_ONCE = 2_000
_DIVERGENCES = Path(__file__).parents[1] / "docs" / "protocol.md"

# Sections of the divergence list.
REQUESTS = "HTTP JSON API: requests"
ANSWERS = "HTTP JSON API: answers"
HEADERS = "HTTP JSON API: headers"
REDIRECTS = "Redirects"

_PAGE = {"body", "vary"}
_WRITTEN = (
    "put create (default overwrite=true)",
    "put create overwrite=false new -> 201",
    "put array",
    "put single value object index=2",
    "put index=various",
    "put index overwrite=false new",
    "put charset content type",
    "put no HS_ADMIN",
    "put empty values",
    "put mintNewSuffix",
    "put mintNewSuffix overwrite=false",
    "put all formats",
    "delete",
)
_OPENED = (
    "sessions post",
    "sessions post cnonce",
    "sessions post 2",
    "session auth basic",
    "session auth basic wrong",
)
Divergences = dict[str, tuple[set[str], str]]
# Of what differs: status, body or a header; and the section.
OF_HTTP: Divergences = {
    **{name: ({"vary"}, HEADERS) for name in (*_WRITTEN, *_OPENED)},
    "head": ({"vary"}, HEADERS),
    "site": ({"body"}, ANSWERS),
    "prefixes": ({"body"}, ANSWERS),
    "unknown method": ({"status", "body", "content-type"}, REQUESTS),
    "PATCH": ({"status", "allow"}, REQUESTS),
    "options": ({"allow"}, REQUESTS),
    "cors preflight": (
        {"access-control-allow-headers", "access-control-expose-headers", "vary"},
        HEADERS,
    ),
    "put invalid json": ({"body"}, HEADERS),
    "proxy redirect": ({"transfer-encoding"}, REDIRECTS),
    "proxy urlappend": ({"transfer-encoding"}, REDIRECTS),
    "proxy alias": ({"transfer-encoding"}, REDIRECTS),
    "proxy noredirect": (_PAGE, REDIRECTS),
    "proxy not found": (_PAGE, REDIRECTS),
    "proxy type=EMAIL": (_PAGE, REDIRECTS),
    "proxy index=2": (_PAGE, REDIRECTS),
    "root": (_PAGE, REDIRECTS),
}
OF_PROXY: Divergences = {
    "action=showurls": ({"body"}, REDIRECTS),
    "alias": ({"location", "content-type", "body"}, REDIRECTS),
    "javascript url": ({"status", "location", "expires", *_PAGE}, REDIRECTS),
    "utf8 url": ({"body"}, REDIRECTS),
    "favicon": (_PAGE, REDIRECTS),
    "help": ({"location"}, REDIRECTS),
    **{
        name: (_PAGE, REDIRECTS)
        for name in ("noredirect", "alias ignore", "no url", "prefix not here")
    },
    **{name: (_PAGE, REDIRECTS) for name in ("not found", "hdl form", "trailing slash")},
}


@dataclass
class Replay:
    """The recorded client: what it was told in an earlier answer, it says in a later request."""

    made: HttpsNode
    # Recorded ids of sessions, with ours and our nonce.
    sessions: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def differences(self, exchange: Exchange) -> dict[str, tuple[str, str]]:
        """What is answered differently from what was recorded."""
        sent = self._sent(exchange)
        is_tls = exchange.scheme == "https"
        port = self.made.port if is_tls else self.made.node.port
        answer = replayed(port, sent, context=self.made.context() if is_tls else None)
        self._learn(exchange.reply, answer)
        recorded = replace(exchange, reply=_without_random(exchange.reply))
        return differences(recorded, _without_random(answer))

    def _sent(self, exchange: Exchange) -> Exchange:
        headers = {name: self._told(text) for name, text in exchange.headers.items()}
        body = exchange.body
        if exchange.name == "put all formats":
            body = json.dumps(all_formats(HTTP["get all formats anonymous"].reply.body))
        elif '"signature"' in body:
            body = json.dumps(self._signed(json.loads(body)))
        return replace(exchange, headers=headers, body=body)

    def _told(self, text: str) -> str:
        for recorded, (ours, _) in self.sessions.items():
            text = text.replace(recorded, ours)
        return text

    def _signed(self, fields: dict[str, str]) -> dict[str, str]:
        """The recorded proof, made with our nonce."""
        session_id, nonce = self.sessions[fields["sessionId"]]
        challenge = nonce + base64.b64decode(fields["cnonce"])
        return {
            **fields,
            "sessionId": session_id,
            "signature": base64.b64encode(_mac(fields, challenge)).decode(),
        }

    def _learn(self, recorded: Reply, answer: Reply) -> None:
        theirs, ours = _session(recorded), _session(answer)
        if theirs is not None and ours is not None:
            self.sessions[theirs[0]] = (ours[0], base64.b64decode(ours[1]))


def _mac(fields: Mapping[str, str], challenge: bytes) -> bytes:
    secret = SECRET.encode()
    if fields["alg"] == "SHA1":
        return hashlib.sha1(secret + challenge + secret).digest()
    assert fields["alg"] == "PBKDF2-HMAC-SHA1"
    salt, size_bytes = base64.b64decode(fields["salt"]), int(fields["length"]) // 8
    key = hashlib.pbkdf2_hmac("sha1", secret, salt, int(fields["iterations"]), size_bytes)
    return hmac.digest(key, challenge, "sha1")


_FIELD = re.compile(r'"?(sessionId|nonce|serverSignature)"?([=:])"([^"]*)"')


def _session(reply: Reply) -> tuple[str, str] | None:
    """The id and the nonce that a reply tells."""
    found = {name: text for name, _, text in _FIELD.findall(_told_text(reply))}
    return (found["sessionId"], found["nonce"]) if "nonce" in found else None


def _told_text(reply: Reply) -> str:
    return reply.body + reply.header("www-authenticate")


def _without_random(reply: Reply) -> Reply:
    """Ids, nonces and signatures differ by nature: only that they are there is compared."""
    headers = tuple((name, _masked(text)) for name, text in reply.headers)
    # The recorder's own remark at the end of the last body.
    body, _, _ = reply.body.partition("\n\nWWW-Authenticate seen: ")
    return replace(reply, headers=headers, body=_masked(body))


def _masked(text: str) -> str:
    return _FIELD.sub(r'"\1"\2"…"', text)


# The node


@pytest.fixture(scope="module")
def made(scratch: Path) -> Iterator[HttpsNode]:
    """A node with the records, keys, administrators and prefixes of the recorded server."""
    with https_node.https_node(scratch / "transcripts", IDNODE_SERVER_ADMINS=OWNER) as node:
        with node.factory.operator as operator:
            for suffix, values in _records().items():
                answer = operator.put(f"/api/handles/{PREFIX}/{suffix}", json=values)
                answer.raise_for_status()
            operator.put(f"/api/handles/0.NA/{PREFIX}", json=[admin_value(100, OWNER)])
            operator.post("/api/prefixes/20.500.12345").raise_for_status()
            _register_items(operator)
        yield node


def _records() -> dict[str, Any]:
    def values_of(name: str) -> Any:
        return json.loads(HTTP[name].reply.body)["values"]

    return {"ADMIN": values_of("admin handle authenticated https"), "ITEM1": values_of("get")}


def _register_items(operator: httpx.Client) -> None:
    value = text_value(1, "URL", "http://www.example.com/product/0")
    handles = [f"{PREFIX}/ITEM{number}" for number in range(ITEMS) if number != 1]
    for first in range(0, len(handles), _ITEMS_AT_ONCE):
        some = handles[first : first + _ITEMS_AT_ONCE]
        items = [{"handle": handle, "values": [value]} for handle in some]
        operator.post("/api/handles", json={"items": items}).raise_for_status()


@pytest.fixture(scope="module")
def of_http(made: HttpsNode) -> dict[str, dict[str, tuple[str, str]]]:
    """What differs in each exchange of the JSON API."""
    replay = Replay(made)
    return {name: replay.differences(exchange) for name, exchange in HTTP.items()}


@pytest.fixture(scope="module")
def of_proxy(
    made: HttpsNode, of_http: dict[str, dict[str, tuple[str, str]]]
) -> dict[str, dict[str, tuple[str, str]]]:
    """What differs in each exchange of the proxy, which was recorded afterwards."""
    assert of_http
    with made.factory.operator as operator:
        for suffix, values in _led().items():
            operator.put(f"/api/handles/{PREFIX}/{suffix}", json=values).raise_for_status()
    replay = Replay(made)
    return {name: replay.differences(exchange) for name, exchange in PROXY.items()}


def _led() -> dict[str, list[dict[str, Any]]]:
    urls = [
        text_value(5, "URL", "http://five.example/"),
        text_value(3, "URL", "http://three.example/"),
        text_value(1, "URL.SUB", "http://sub.example/"),
    ]
    return {
        "LOC": [text_value(1, "10320/loc", LOCATIONS)],
        "ALIAS": [text_value(1, "HS_ALIAS", f"{PREFIX}/ITEM7")],
        "MULTI": urls,
        "NOURL": [text_value(1, "EMAIL", "a@b.c")],
        "JSURL": [text_value(1, "URL", "javascript:alert(1)")],
        "UTF": [text_value(1, "URL", "http://例子.example/路径?q=一")],
    }


# The tests


def test_the_transcripts_were_read_whole() -> None:
    assert (len(HTTP), len(PROXY)) == (101, 32)
    assert sum(exchange.scheme == "https" for exchange in HTTP.values()) == 49
    assert not OF_HTTP.keys() - HTTP.keys()
    assert not OF_PROXY.keys() - PROXY.keys()


@pytest.mark.parametrize("section", sorted({s for _, s in (OF_HTTP | OF_PROXY).values()}))
def test_every_difference_is_in_the_list_of_divergences(section: str) -> None:
    assert f"\n### {section}\n" in _DIVERGENCES.read_text("utf-8")


@pytest.mark.parametrize("name", HTTP)
def test_the_json_api_answers_as_recorded_except_where_a_section_says_why(
    of_http: dict[str, dict[str, tuple[str, str]]], name: str
) -> None:
    expected, _ = OF_HTTP.get(name, (set(), ""))
    assert of_http[name].keys() == expected, of_http[name]


@pytest.mark.parametrize("name", PROXY)
def test_the_proxy_answers_as_recorded_except_where_a_section_says_why(
    of_proxy: dict[str, dict[str, tuple[str, str]]], name: str
) -> None:
    expected, _ = OF_PROXY.get(name, (set(), ""))
    assert of_proxy[name].keys() == expected, of_proxy[name]


def test_the_recorded_challenge_is_answered_with_the_recorded_key_alone(made: HttpsNode) -> None:
    """The transcript ends before the answer: nobody here has that private key."""
    jwk = json.loads(HTTP["admin handle anonymous (secret hidden)"].reply.body)["values"][1]
    with made.client() as client:
        shown = client.get(f"/api/handles/{KEYS}", params={"index": "301"}).json()["values"]
    assert shown[0]["data"] == jwk["data"]
