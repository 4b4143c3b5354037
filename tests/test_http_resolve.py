"""The read side of the HTTP JSON API: recorded exchanges, permissions, headers, counting."""

import gzip
import http.client
import json
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import RunningNode
from tests.recorded import Exchange, all_formats, differences, http_exchanges, replayed
from tests.tenant import Tenant, counted, ledger_rows, tenant, text_value

PREFIX = "88.102.5"
EXCHANGES = {exchange.name: exchange for exchange in http_exchanges()}
SECRET = {
    "index": 300,
    "type": "HS_SECKEY",
    "data": {"format": "string", "value": "secret"},
    "permissions": "1100",
}

# What differs from the recorded answers of Handle.Net 9.3.1, and why.
_405 = "a known method that is not served here is 405 (RFC 9110 §15.5.6), not a 501 of the server"
_HTML = "the pages are this node's own, in Chinese and English, and say on what they depend"
DIVERGENCES: dict[str, tuple[set[str], str]] = {
    "head": ({"vary"}, "HEAD has the headers of GET (RFC 9110 §9.3.2); recorded without Vary"),
    "site": ({"body"}, "this node's own site: HTTP alone, no key"),
    "unknown method": (
        {"status", "body", "content-type"},
        "the HTTP parser takes methods of the IANA registry only: 400 of the connection",
    ),
    "PATCH": ({"status", "allow"}, f"{_405}; Allow says which are (RFC 9110 §10.2.1)"),
    "options": ({"allow"}, "TRACE is not served: it echoes headers (RFC 9110 §9.3.8)"),
    "cors preflight": (
        {"access-control-allow-headers", "access-control-expose-headers", "vary"},
        "X-API-Key is allowed, too; every answer that names an origin says that it depends on it",
    ),
    "proxy redirect": ({"transfer-encoding"}, "answers have a length; nothing is chunked"),
    "proxy urlappend": ({"transfer-encoding"}, "answers have a length; nothing is chunked"),
    "proxy alias": ({"transfer-encoding"}, "answers have a length; nothing is chunked"),
    "proxy noredirect": ({"body", "vary"}, _HTML),
    "proxy not found": ({"body", "vary"}, _HTML),
    "proxy type=EMAIL": ({"body", "vary"}, _HTML),
    "proxy index=2": ({"body", "vary"}, _HTML),
    "root": ({"body", "vary"}, _HTML),
}
READS = [
    exchange
    for exchange in EXCHANGES.values()
    if exchange.scheme == "http" and exchange.method not in ("PUT", "DELETE")
]
# Recorded over TLS with the administrator's password, asked here with the operator's key.
WITH_KEY = [
    EXCHANGES["admin handle authenticated https"],
    EXCHANGES["get all formats"],
    EXCHANGES["session use"],
    EXCHANGES["list unserved"],
]


@pytest.fixture(scope="module")
def factory(node: RunningNode) -> Tenant:
    """The enterprise of the recorded prefix, with the records that were read."""
    made = tenant(node, PREFIX, 5)
    with made.operator as operator:
        for name, values in _recorded_records().items():
            operator.put(f"/api/handles/{PREFIX}/{name}", json=values).raise_for_status()
    return made


def _recorded_records() -> dict[str, Any]:
    def values_of(name: str) -> Any:
        return json.loads(EXCHANGES[name].reply.body)["values"]

    return {
        "ITEM1": values_of("get"),
        "ADMIN": values_of("admin handle authenticated https"),
        "ALL": all_formats(EXCHANGES["get all formats anonymous"].reply.body),
    }


@pytest.fixture
def client(factory: Tenant) -> Iterator[httpx.Client]:
    with factory.client() as opened:
        yield opened


def _put(factory: Tenant, suffix: str, *values: dict[str, Any]) -> str:
    path = f"/api/handles/{PREFIX}/{suffix}"
    with factory.operator as operator:
        operator.put(path, json=list(values)).raise_for_status()
    return path


# Recorded exchanges


def test_the_transcript_was_read_whole() -> None:
    assert len(EXCHANGES) == 101
    assert len(READS) == 51
    assert not DIVERGENCES.keys() - {exchange.name for exchange in READS}


@pytest.mark.parametrize("exchange", READS, ids=lambda exchange: exchange.name)
def test_a_read_is_answered_as_recorded_except_where_a_reason_is_given(
    factory: Tenant, exchange: Exchange
) -> None:
    answer = replayed(factory.node.port, exchange)
    expected, _ = DIVERGENCES.get(exchange.name, (set(), ""))
    found = differences(exchange, answer)
    assert found.keys() == expected, found


@pytest.mark.parametrize("exchange", WITH_KEY, ids=lambda exchange: exchange.name)
def test_the_operators_key_reads_what_the_administrator_of_the_recorded_server_read(
    factory: Tenant, exchange: Exchange
) -> None:
    key = {"Authorization": f"Bearer {factory.node.operator_key}"}
    answer = replayed(factory.node.port, exchange, key)
    expected: set[str] = set()
    assert differences(exchange, answer).keys() == expected


@pytest.mark.parametrize("method", ["PATCH", "TRACE"])
def test_a_method_that_is_not_served_is_answered_with_those_that_are(
    factory: Tenant, method: str
) -> None:
    with factory.client() as client:
        answer = client.request(method, f"/api/handles/{PREFIX}/ITEM1")
    assert answer.status_code == 405
    assert answer.json() == {"responseCode": 4, "message": f"Unknown method {method}"}
    assert answer.headers["allow"] == "GET, HEAD, POST, PUT, DELETE, OPTIONS"


def test_a_method_that_http_does_not_know_is_400_and_the_node_lives_on(factory: Tenant) -> None:
    exchange = EXCHANGES["unknown method"]
    assert replayed(factory.node.port, exchange).status == 400
    assert replayed(factory.node.port, EXCHANGES["get"]).status == 200


# What is asked


def test_head_says_the_length_of_the_body_of_get(client: httpx.Client) -> None:
    path = f"/api/handles/{PREFIX}/ITEM1?pretty"
    head, get = client.head(path), client.get(path)
    assert head.content == b""
    assert head.headers["content-length"] == str(len(get.content))
    head.headers.pop("date"), get.headers.pop("date")
    assert head.headers == get.headers


def test_a_long_answer_is_compressed_for_those_who_can_read_it(factory: Tenant) -> None:
    path = _put(factory, "LONG", *(text_value(n, "DESC", "长" * 100) for n in range(1, 40)))

    def body(accept: str) -> tuple[str | None, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", factory.node.port)
        connection.request("GET", path, headers={"Accept-Encoding": accept})
        answer = connection.getresponse()
        found = answer.getheader("content-encoding"), answer.read()
        assert answer.getheader("content-length") == str(len(found[1]))
        connection.close()
        return found

    encoding, plain = body("identity")
    assert encoding is None
    assert body("gzip;q=0, br") == (None, plain)
    encoding, packed = body("br, gzip")
    assert encoding == "gzip"
    assert len(packed) < len(plain) / 10
    assert gzip.decompress(packed) == plain


@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        ("type=URL", [5]),
        ("type=url", [5]),
        ("type=URL.", [5, 3]),
        ("type=URL.&index=9", [5, 3, 9]),
        ("type=URL.SUB", [3]),
        ("index=9&index=5", [5, 9]),
        ("index=%2B9", [9]),
        ("index=-1&index=5", [5]),
        ("type=产品", [7]),
        ("type=%E4%BA%A7%E5%93%81", [7]),
        ("types=URL", [5, 3, 9, 7]),
    ],
)
def test_values_are_chosen_by_the_union_of_types_and_indexes(
    factory: Tenant, client: httpx.Client, query: str, indexes: list[int]
) -> None:
    path = _put(
        factory,
        "CHOICE",
        text_value(5, "URL", "http://five.example/"),
        text_value(3, "URL.SUB", "http://three.example/"),
        text_value(9, "URLX", "no"),
        text_value(7, "产品", "是"),
    )
    answer = client.get(f"{path}?{query}").json()
    assert [value["index"] for value in answer["values"]] == indexes


@pytest.mark.parametrize("text", ["", "1.0", "0x1", "2147483648", "99999999999", "\u0661"])
def test_an_index_that_is_no_32_bit_number_is_refused_in_the_recorded_words(
    client: httpx.Client, text: str
) -> None:
    answer = client.get(f"/api/handles/{PREFIX}/ITEM1", params={"index": text})
    assert answer.status_code == 400
    message = f'java.lang.NumberFormatException: For input string: "{text}"'
    assert answer.json() == {"responseCode": 4, "message": message}


def test_more_than_1000_parameters_are_refused(client: httpx.Client) -> None:
    path = f"/api/handles/{PREFIX}/ITEM1?" + "&".join(["index=1"] * 1_001)
    answer = client.get(path)
    assert answer.status_code == 400
    assert answer.json() == {"responseCode": 4, "message": "more than 1000 parameters"}


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        ("88.102.5/%FF", 400, 102, "Handle is not valid UTF-8"),
        ("88.102.5/%00", 400, 102, "Handle contains a NUL character"),
        ("88.102.5/" + "x" * 247, 400, 102, "Handle is 256 bytes long, at most 255 are allowed"),
        ("88.102.5/" + "x" * 246, 404, 100, None),
        ("%2F", 400, 301, "That prefix doesn't live here"),
        # Derived from a prefix that lives here: it would be here, too.
        ("88.102.5.1", 404, 100, None),
        ("0.NA/88.102.5.1", 404, 100, None),
        ("0.na/88.102.5.1", 404, 100, None),
        ("0.NA/88.102", 400, 301, "That prefix doesn't live here"),
    ],
)
def test_a_name_that_cannot_be_or_is_not_there_is_told_apart(
    client: httpx.Client, path: str, status: int, code: int, message: str | None
) -> None:
    answer = client.get(f"/api/handles/{path}")
    assert (answer.status_code, answer.json()["responseCode"]) == (status, code)
    assert answer.json().get("message") == message


def test_an_answer_echoes_the_spelling_of_the_question(
    factory: Tenant, client: httpx.Client
) -> None:
    path = _put(factory, "Spelling-äÄ", text_value(1, "DESC", "x"))
    for spelling in ("Spelling-äÄ", "SPELLING-äÄ", "spelling-äÄ"):
        answer = client.get(f"/api/handles/{PREFIX}/{spelling}").json()
        assert (answer["responseCode"], answer["handle"]) == (1, f"{PREFIX}/{spelling}")
    # Only ASCII letters are folded.
    assert client.get(path.replace("äÄ", "ää")).status_code == 404


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("application/json", b"[1]", "body: expected a JSON object of parameters"),
        ("application/json", b'{"index": null}', "index: expected text, a number, true or false"),
        ("application/json", b'{"index": [[1]]}', "index: expected text, a number, true or false"),
        ("application/json", b"{", "body is not JSON: "),
        ("text/plain", b"index=x", "java.lang.NumberFormatException"),
    ],
)
def test_a_posted_question_that_cannot_be_read_is_refused(
    client: httpx.Client, kind: str, body: bytes, message: str
) -> None:
    path = f"/api/handles/{PREFIX}/ITEM1"
    answer = client.post(path, content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["responseCode"] == 4
    assert answer.json()["message"].startswith(message)


def test_a_posted_question_may_be_64_kb_long(client: httpx.Client) -> None:
    path = f"/api/handles/{PREFIX}/ITEM1"
    most, more = ({"ignored": "x" * (size - 8), "index": "1"} for size in (60_000, 70_000))
    assert len(client.post(path, data=most).json()["values"]) == 1
    answer = client.post(path, data=more)
    assert answer.status_code == 413
    assert answer.json() == {
        "responseCode": 4,
        "message": "body is 70008 bytes, at most 65536 are read",
    }


def test_a_body_of_unsaid_length_is_read_up_to_its_bound(client: httpx.Client) -> None:
    path = f"/api/handles/{PREFIX}/ITEM1"
    answer = client.post(path, content=iter([b"index=1&x="] + [b"y" * 1_000] * 70))
    assert answer.status_code == 413
    assert "longer than 65536 bytes" in answer.json()["message"]


def test_parameters_of_the_body_come_before_those_of_the_address(client: httpx.Client) -> None:
    path = f"/api/handles/{PREFIX}/ITEM1?index=1&pretty"
    answer = client.post(path, json={"index": 2})
    assert [value["index"] for value in answer.json()["values"]] == [2]
    assert answer.text.startswith("{\n  ")


def test_a_caller_that_hangs_up_in_the_middle_of_a_body_leaves_no_trace(factory: Tenant) -> None:
    for method, path in (("POST", "/api/resolve"), ("PUT", f"/api/handles/{PREFIX}/GONE")):
        connection = socket.create_connection(("127.0.0.1", factory.node.port))
        key = factory.node.operator_key
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        connection.sendall(head.encode())
        connection.close()
    with factory.client() as client:
        assert client.get("/health").status_code == 200
    assert "Traceback" not in factory.node.output_file.read_text()


@pytest.mark.parametrize(
    ("callback", "name"),
    [("a.b$_1", "a.b$_1"), ("alert(1)//", "alert1"), ("<script>", "script"), ("", "callback")],
)
def test_the_name_of_a_jsonp_callback_is_reduced_to_what_a_name_can_hold(
    client: httpx.Client, callback: str, name: str
) -> None:
    answer = client.get(f"/api/handles/{PREFIX}/ITEM1", params={"callback": callback})
    assert answer.headers["content-type"] == "application/javascript;charset=utf-8"
    assert answer.text.startswith(f'{name}({{"responseCode":1,')
    assert answer.text.endswith("});")


def test_another_sites_script_may_read_and_its_preflight_is_answered(client: httpx.Client) -> None:
    origin = {"Origin": "http://a.example"}
    answer = client.get(f"/api/handles/{PREFIX}/NOPE", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "http://a.example"
    assert "access-control-allow-credentials" not in answer.headers
    asked = {**origin, "Access-Control-Request-Method": "PUT"}
    preflight = client.options(f"/api/handles/{PREFIX}/NOPE", headers=asked)
    allowed = preflight.headers["access-control-allow-headers"].split(",")
    assert {"Authorization", "X-API-Key", "Content-Type"} <= set(allowed)


# Who may read what

Read = Callable[[str | None, str], tuple[int, list[int]]]


@pytest.fixture
def read(factory: Tenant) -> Read:
    """The response code and the indexes that a key reads of a record with a secret."""
    _put(factory, "SECRET", text_value(1, "DESC", "x"), SECRET)

    def read_with(key: str | None, query: str) -> tuple[int, list[int]]:
        with factory.client(key) as client:
            answer = client.get(f"/api/handles/{PREFIX}/SECRET?{query}").json()
        return answer["responseCode"], [value["index"] for value in answer.get("values", [])]

    return read_with


def test_a_secret_is_read_by_those_alone_who_may_write_it(factory: Tenant, read: Read) -> None:
    enterprise, _ = factory.enterprise_key()
    for key in (enterprise, factory.node.operator_key):
        assert read(key, "") == (1, [1, 300])
        assert read(key, "publicOnly=false") == (1, [1, 300])
        assert read(key, "publicOnly") == (1, [1])
        assert read(key, "publicOnly=true&index=300") == (200, [])
        assert read(key, "index=300") == (1, [300])


def test_nobody_else_reads_a_secret(factory: Tenant, read: Read) -> None:
    application, _ = factory.application_key("reader")
    other, _ = tenant(factory.node, "88.102.51", 51).enterprise_key()
    for key, lacking in ((None, 402), (application, 401), (other, 401)):
        assert read(key, "") == (1, [1])
        assert read(key, "index=300") == (200, [])
        assert read(key, "type=HS_SECKEY") == (200, [])
        assert read(key, "publicOnly=false") == (lacking, [])


def test_a_value_that_nobody_may_read_is_shown_to_nobody(factory: Tenant, read: Read) -> None:
    _put(
        factory,
        "SECRET",
        text_value(1, "DESC", "x"),
        text_value(2, "DARK", "y", permissions="00101"),
    )
    assert read(factory.node.operator_key, "") == (1, [1])
    assert read(factory.node.operator_key, "index=2") == (200, [])


def test_a_record_without_public_values_is_there_and_shows_none(factory: Tenant) -> None:
    path = _put(factory, "DARK", SECRET)
    with factory.client() as client:
        assert client.get(path).json() == {
            "responseCode": 1,
            "handle": f"{PREFIX}/DARK",
            "values": [],
        }


@pytest.mark.parametrize("key", ["x", "nonsense nonsense", f"idn_{'0' * 12}_{'x' * 43}"])
def test_a_key_that_opens_nothing_is_refused_even_where_none_is_needed(
    factory: Tenant, key: str
) -> None:
    with factory.client() as client:
        path = f"/api/handles/{PREFIX}/ITEM1"
        for headers in ({"X-API-Key": key}, {"Authorization": f"bearer {key}"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 403
            assert answer.json() == {
                "responseCode": 403,
                "message": "The API key is unknown or revoked",
                "handle": f"{PREFIX}/ITEM1",
            }


# Counting


def test_every_answer_is_counted_once_by_what_it_was(factory: Tenant) -> None:
    key, application_id = factory.application_key(f"counts {uuid.uuid4()}")
    _put(factory, "SECRET", text_value(1, "DESC", "x"), SECRET)
    asked = {
        f"{PREFIX}/ITEM1": ("enterprise", PREFIX, "found"),
        f"{PREFIX}/item1?pretty": ("enterprise", PREFIX, "found"),
        f"{PREFIX}/ITEM1?auth": ("enterprise", PREFIX, "found"),
        f"{PREFIX}/NOPE": ("enterprise", PREFIX, "not_found"),
        f"{PREFIX}/ITEM1?type=NOPE": ("enterprise", PREFIX, "values_not_found"),
        f"{PREFIX}/SECRET?index=300": ("enterprise", PREFIX, "values_not_found"),
        f"{PREFIX}/SECRET?publicOnly=false": ("enterprise", PREFIX, "refused"),
        PREFIX: ("node", PREFIX, "found"),
        f"0.NA/{PREFIX}": ("node", PREFIX, "found"),
        f"{PREFIX}.1": ("node", PREFIX, "not_found"),
        "10.1000/1": ("node", "", "not_responsible"),
    }
    expected: dict[tuple[str, ...], int] = {}
    with factory.client(key) as client:
        for path, (level, prefix, outcome) in asked.items():
            for method in ("GET", "HEAD", "POST"):
                client.request(method, f"/api/handles/{path}")
                row = (level, prefix, "application", "http_json", outcome)
                expected[row] = expected.get(row, 0) + 1
    assert ledger_rows(factory.node, application_id) == expected


def test_callers_without_an_application_count_by_their_class(factory: Tenant) -> None:
    enterprise, _ = factory.enterprise_key()
    trial, _ = factory.application_key("trial", sandbox=True)
    keys = {
        "anonymous": None,
        "enterprise": enterprise,
        "operator": factory.node.operator_key,
        "sandbox": trial,
    }
    for caller_class, key in keys.items():
        before = counted(factory.node)
        with factory.client(key) as client:
            client.get(f"/api/handles/{PREFIX}/ITEM1")
        assert counted(factory.node) - before == {
            ("enterprise", "http_json", "found", caller_class): 1
        }


def test_a_question_that_cannot_be_answered_for_its_form_or_key_counts_too(
    factory: Tenant,
) -> None:
    before = counted(factory.node)
    with factory.client() as client:
        client.get("/api/handles/")
        client.get(f"/api/handles/{PREFIX}/ITEM1?index=x")
        client.post(f"/api/handles/{PREFIX}/ITEM1", content=b"x" * 70_000)
        client.get(f"/api/handles/{PREFIX}/ITEM1", headers={"X-API-Key": "nonsense"})
    assert counted(factory.node) - before == {
        ("node", "http_json", "invalid", "anonymous"): 3,
        ("node", "http_json", "refused", "anonymous"): 1,
    }


def test_what_is_no_resolution_is_not_counted(factory: Tenant) -> None:
    before = counted(factory.node)
    with factory.client() as client:
        for path in ("/", "/health", "/ready", "/api/site", "/api/foo", "/favicon.ico"):
            client.get(path)
        client.options(f"/api/handles/{PREFIX}/ITEM1")
        client.patch(f"/api/handles/{PREFIX}/ITEM1")
    with factory.operator as operator:
        operator.put(f"/api/handles/{PREFIX}/UNCOUNTED", json=[])
        operator.delete(f"/api/handles/{PREFIX}/UNCOUNTED")
    assert counted(factory.node) == before
