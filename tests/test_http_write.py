"""Writing over HTTP: recorded exchanges, keys, errors, history, and when a write is seen."""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from registry.prefixes import SELF_RUN
from resolver.identifier import fold
from tests.conftest import RunningNode, wait_for
from tests.recorded import Exchange, differences, http_exchanges, replayed
from tests.tenant import PATIENCE_S, Tenant, tenant, text_value, texts

PREFIX = "88.102.6"
EXCHANGES = {exchange.name: exchange for exchange in http_exchanges()}
# The password of the recorded administrator; here, a key of the enterprise stands for it.
BASIC = "Basic MzAwJTNBODguMTAyLjUvQURNSU46c2VjcmV0"
WRITES = [
    exchange.with_prefix(PREFIX)
    for exchange in EXCHANGES.values()
    if exchange.method in ("PUT", "DELETE")
    and exchange.path.startswith("/api/handles/")
    and exchange.headers.get("Authorization", BASIC) == BASIC
    and exchange.name != "put all formats"  # the question was written down in part
]

# What differs from the recorded answers of Handle.Net 9.3.1, and why.
_VARY = "answers to writes are never compressed or kept, so they depend on no header"
_PLAIN = "over plain HTTP a missing key is 403, as the recorded server answers there; no challenge"
DIVERGENCES: dict[str, tuple[set[str], str]] = {
    exchange.name: ({"vary"}, _VARY) for exchange in WRITES if exchange.reply.status in (200, 201)
} | {
    "put no auth https -> 401": ({"status", "www-authenticate"}, _PLAIN),
    "delete anonymous": ({"status", "www-authenticate"}, _PLAIN),
    "put invalid json": ({"body"}, "the message is this node's reader's, not gson's"),
    "put no such prefix": (
        {"status", "body"},
        "a key of another prefix is refused (403, rc 401) before the prefix is looked at; "
        "the operator's key gets the recorded 301",
    ),
}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def factory(node: RunningNode) -> Tenant:
    return tenant(node, PREFIX, 6)


@pytest.fixture(scope="module")
def key(factory: Tenant) -> str:
    return factory.enterprise_key()[0]


@pytest.fixture
def owner(factory: Tenant, key: str) -> Iterator[httpx.Client]:
    with factory.client(key) as client:
        yield client


@pytest.fixture
def path() -> str:
    """A name of this test's own."""
    return f"/api/handles/{PREFIX}/{uuid.uuid4()}"


def _name(path: str) -> str:
    return path.removeprefix("/api/handles/")


def _done(path: str) -> dict[str, object]:
    return {"responseCode": 1, "handle": _name(path)}


# Recorded exchanges


def test_the_recorded_writes_are_answered_as_recorded_except_where_a_reason_is_given(
    factory: Tenant,
) -> None:
    assert len(WRITES) == 28
    assert not DIVERGENCES.keys() - {exchange.name for exchange in WRITES}
    # In their order, because each write stands on those before it.
    made = tenant(factory.node, PREFIX, 6)
    enterprise_key, _ = made.enterprise_key()
    found = {}
    for exchange in WRITES:
        answer = _replay_write(made, exchange, enterprise_key)
        found[exchange.name] = differences(exchange, answer)
    expected = {exchange.name: DIVERGENCES.get(exchange.name, (set(),))[0] for exchange in WRITES}
    assert {name: set(different) for name, different in found.items()} == expected, found


def _replay_write(made: Tenant, exchange: Exchange, enterprise_key: str) -> Any:
    headers = dict(exchange.headers)
    if headers.pop("Authorization", "") == BASIC and exchange.scheme == "https":
        headers["Authorization"] = f"Bearer {enterprise_key}"
    sent = Exchange(**{**vars(exchange), "headers": headers})
    return replayed(made.node.port, sent)


# Who may write


def test_without_a_key_nothing_is_written(factory: Tenant, path: str) -> None:
    with factory.client() as client:
        for answer in (client.put(path, json=[]), client.delete(path)):
            assert answer.status_code == 403
            assert answer.json() == {"responseCode": 402, "handle": _name(path)}
        many = client.post("/api/handles", json={"items": []})
        assert many.status_code == 403
        assert many.json() == {"responseCode": 402}
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("key", ["x", f"idn_{'0' * 12}_{'x' * 43}"])
def test_with_an_unknown_key_nothing_is_written(factory: Tenant, path: str, key: str) -> None:
    refused = {"responseCode": 403, "message": "The API key is unknown or revoked"}
    with factory.client() as client:
        for headers in ({"X-API-Key": key}, {"Authorization": f"BEARER {key}"}):
            for answer in (
                client.put(path, json=[], headers=headers),
                client.delete(path, headers=headers),
            ):
                assert answer.status_code == 403
                assert answer.json() == {**refused, "handle": _name(path)}
            many = client.post("/api/handles", json={"items": []}, headers=headers)
            assert (many.status_code, many.json()) == (403, refused)
        assert client.get(path).status_code == 404


def test_a_key_with_another_secret_is_unknown(factory: Tenant, key: str, path: str) -> None:
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    with factory.client(wrong) as client:
        assert client.put(path, json=[]).json()["responseCode"] == 403


def test_both_headers_carry_a_key(factory: Tenant, key: str, path: str) -> None:
    with factory.client() as client:
        assert client.put(path, json=[], headers={"X-API-Key": key}).status_code == 201
        bearer = {"Authorization": f"bearer  {key}"}
        assert client.delete(path, headers=bearer).status_code == 200


def test_an_application_writes_nothing(factory: Tenant, path: str) -> None:
    application, _ = factory.application_key("writer")
    with factory.client(application) as client:
        for answer in (client.put(path, json=[]), client.delete(path)):
            assert answer.status_code == 403
            assert answer.json() == {
                "responseCode": 401,
                "message": "This API key may not write below this prefix",
                "handle": _name(path),
            }
        items = [{"handle": _name(path), "values": []}]
        (result,) = client.post("/api/handles", json={"items": items}).json()["results"]
        assert result["responseCode"] == 401
        assert client.get(path).status_code == 404


def test_an_enterprise_writes_below_its_own_prefixes_only(
    factory: Tenant, owner: httpx.Client, path: str
) -> None:
    tenant(factory.node, "88.102.61", 61)
    owner.put(path, json=[]).raise_for_status()
    # A prefix below one's own is a prefix of its own, and so is a longer number.
    for other in ("88.102.61/X", "88.102.6.1/X", "88.102/X", "88.608.1001/X", "0.NA/88.102.6"):
        for answer in (
            owner.put(f"/api/handles/{other}", json=[]),
            owner.delete(f"/api/handles/{other}"),
        ):
            assert (answer.status_code, answer.json()["responseCode"]) == (403, 401)


def test_the_operator_writes_below_every_prefix_that_lives_here(factory: Tenant, path: str) -> None:
    with factory.operator as operator:
        assert operator.put(path, json=[]).status_code == 201
        answer = operator.put("/api/handles/10.1000/X", json=[])
    assert answer.status_code == 400
    assert answer.json() == {
        "responseCode": 301,
        "message": "That prefix doesn't live here",
        "handle": "10.1000/X",
    }


def test_nothing_is_written_below_a_prefix_that_is_suspended_or_run_by_its_enterprise(
    factory: Tenant,
) -> None:
    suspended = tenant(factory.node, "88.102.62", 62)
    self_run = tenant(factory.node, "88.102.63", 63, SELF_RUN)
    suspended.suspend()
    for made, message in (
        (suspended, "That prefix is suspended"),
        (self_run, "That prefix is run by its enterprise node"),
    ):
        key, _ = made.enterprise_key()
        with made.client(key) as client:
            path = f"/api/handles/{made.prefix}/X"
            refused = {"responseCode": 301, "message": message, "handle": f"{made.prefix}/X"}
            for answer in (client.put(path, json=[]), client.delete(path)):
                assert (answer.status_code, answer.json()) == (400, refused)
            items = [{"handle": f"{made.prefix}/X", "values": []}]
            many = client.post("/api/handles", json={"items": items}).json()
            assert many["results"] == [
                {"handle": f"{made.prefix}/X", "responseCode": 301, "message": message}
            ]
    suspended.resume()
    with suspended.operator as operator:
        assert operator.put(f"/api/handles/{suspended.prefix}/X", json=[]).status_code == 201


def test_a_revoked_key_ends_at_once(factory: Tenant, path: str) -> None:
    key, key_id = factory.enterprise_key()
    with factory.client(key) as client:
        client.put(path, json=[text_value(1, "DESC", "before")]).raise_for_status()
        factory.revoke(key_id)
        wait_for(lambda: client.get(path).status_code == 403, PATIENCE_S)
        answer = client.put(path, json=[text_value(1, "DESC", "after")])
    assert (answer.status_code, answer.json()["responseCode"]) == (403, 403)
    with factory.client() as client:
        assert texts(client.get(path)) == {1: "before"}


def test_a_key_opens_a_prefix_that_was_allotted_after_it_was_used(factory: Tenant) -> None:
    made = tenant(factory.node, "88.102.64", 64)
    key, _ = made.enterprise_key()
    with made.client(key) as client:
        assert client.put("/api/handles/88.102.64/A", json=[]).status_code == 201
        assert client.put("/api/handles/88.102.65/A", json=[]).status_code == 403
        tenant(made.node, "88.102.65", 64)
        put = "/api/handles/88.102.65/A"
        wait_for(lambda: client.put(put, json=[]).status_code in (200, 201), PATIENCE_S)


# Records


def test_a_record_is_created_and_replaced(owner: httpx.Client, path: str) -> None:
    answer = owner.put(path, json=[text_value(1, "DESC", "一"), text_value(2, "DESC", "二")])
    assert (answer.status_code, answer.json()) == (201, _done(path))
    assert answer.headers["content-type"] == "application/json;charset=utf-8"
    answer = owner.put(path, json={"values": [text_value(2, "DESC", "三")], "handle": _name(path)})
    assert (answer.status_code, answer.json()) == (200, _done(path))
    assert texts(owner.get(path)) == {2: "三"}


def test_overwrite_false_replaces_nothing(owner: httpx.Client, path: str) -> None:
    first = [text_value(1, "DESC", "first")]
    assert owner.put(f"{path}?overwrite=false", json=first).status_code == 201
    answer = owner.put(f"{path}?overwrite=false", json=[])
    assert (answer.status_code, answer.json()) == (
        409,
        {"responseCode": 101, "handle": _name(path)},
    )
    answer = owner.put(f"{path}?index=various&overwrite=false", json=text_value(1, "DESC", "x"))
    assert (answer.status_code, answer.json()) == (
        409,
        {"responseCode": 201, "message": "Index conflict for 1", "handle": _name(path)},
    )
    assert texts(owner.get(path)) == {1: "first"}


def test_values_are_added_and_replaced_by_index(owner: httpx.Client, path: str) -> None:
    owner.put(path, json=[text_value(5, "DESC", "five"), text_value(3, "DESC", "three")])
    added = owner.put(f"{path}?index=4", json=text_value(4, "DESC", "four"))
    assert (added.status_code, added.json()) == (201, _done(path))
    both = [text_value(1, "DESC", "one"), text_value(3, "DESC", "3")]
    assert owner.put(f"{path}?index=3&index=1", json=both).status_code == 200
    assert (
        owner.put(f"{path}?index=various", json=[text_value(9, "DESC", "nine")]).status_code == 201
    )
    assert texts(owner.get(path)) == {1: "one", 3: "3", 4: "four", 5: "five", 9: "nine"}


def test_values_of_a_record_that_is_not_there_are_not_added(owner: httpx.Client, path: str) -> None:
    answer = owner.put(f"{path}?index=1", json=text_value(1, "DESC", "x"))
    assert (answer.status_code, answer.json()) == (
        404,
        {"responseCode": 100, "handle": _name(path)},
    )
    assert owner.get(path).status_code == 404


def test_a_new_suffix_is_minted(owner: httpx.Client) -> None:
    for start in (f"{PREFIX}/", PREFIX, f"{PREFIX}/X-"):
        answer = owner.put(
            f"/api/handles/{start}?mintNewSuffix",
            json={"handle": "is/ignored", "values": [text_value(1, "DESC", start)]},
        )
        assert answer.status_code == 201
        handle = answer.json()["handle"]
        head = start if "/" in start else f"{start}/"
        assert handle.startswith(head)
        assert _UUID.fullmatch(handle.removeprefix(head))
        assert texts(owner.get(f"/api/handles/{handle}")) == {1: start}


def test_a_record_and_values_are_deleted_once(owner: httpx.Client, path: str) -> None:
    owner.put(path, json=[text_value(n, "DESC", str(n)) for n in (1, 2, 3)])
    missing = {"responseCode": 200, "handle": _name(path)}
    for _ in range(2):
        answer = owner.delete(f"{path}?index=1&index=9")
        assert (answer.status_code, answer.json()) == (400, missing)
    answer = owner.delete(f"{path}?index=1&index=2")
    assert (answer.status_code, answer.json()) == (200, _done(path))
    assert owner.delete(f"{path}?index=1").json() == missing
    assert texts(owner.get(path)) == {3: "3"}
    assert owner.delete(path).json() == _done(path)
    for gone in (owner.delete(path), owner.delete(f"{path}?index=3"), owner.get(path)):
        assert gone.status_code == 404
        assert gone.json() == {"responseCode": 100, "handle": _name(path)}
    assert owner.put(f"{path}?overwrite=false", json=[]).status_code == 201


def test_the_last_value_may_be_deleted_and_the_record_stays(owner: httpx.Client, path: str) -> None:
    owner.put(path, json=text_value(1, "DESC", "x"))
    owner.delete(f"{path}?index=1").raise_for_status()
    assert owner.get(path).json()["values"] == []


def test_a_name_is_one_name_in_every_case_and_keeps_its_first_spelling(
    factory: Tenant, owner: httpx.Client, path: str
) -> None:
    owner.put(path, json=text_value(1, "DESC", "x"))
    upper = f"/api/handles/{_name(path).upper()}"
    assert owner.put(f"{upper}?index=2", json=text_value(2, "DESC", "y")).json() == _done(upper)
    assert texts(owner.get(path)) == {1: "x", 2: "y"}
    records = [entry.record for entry in factory.history(fold(_name(path)))]
    assert {record.handle for record in records} == {_name(path)}


def test_every_form_of_data_comes_back_as_it_was_sent(owner: httpx.Client, path: str) -> None:
    admin = {"handle": f"{PREFIX}/ADMIN", "index": 300, "permissions": "011111110011"}
    values = [
        text_value(1, "DESC", '行1\n"q"\t<&>\u2028 😀'),
        {"index": 2, "type": "BIN", "data": {"format": "base64", "value": "AAEC/w=="}},
        {"index": 3, "type": "HS_ADMIN", "data": {"format": "admin", "value": admin}},
        text_value(4, "EMPTY", ""),
        text_value(5, "REF", "x", references=[{"handle": f"{PREFIX}/ADMIN", "index": 300}]),
        text_value(6, "ABSOLUTE", "x", ttl="2030-01-01T00:00:00Z"),
        text_value(7, "HIDDEN", "x", permissions="1100"),
        text_value(2**31 - 1, "LAST", "x", ttl=0),
    ]
    owner.put(path, json=values).raise_for_status()
    found = owner.get(path).json()["values"]
    for sent, value in zip(values, found, strict=True):
        assert value.pop("timestamp").endswith("Z")
        assert value == {"ttl": 86_400} | sent


# What cannot be written

JSON = "application/json"


@pytest.mark.parametrize(
    ("query", "body", "kind", "code", "message"),
    [
        ("", "[]", "text/plain", 4, "java.lang.Exception: Unsupported media type text/plain"),
        ("", "[]", "", 4, "java.lang.Exception: Unsupported media type "),
        ("", "", JSON, 4, "body is not valid JSON: "),
        ("", '{"values":[', JSON, 4, "body is not valid JSON: "),
        ("", "[" * 2_000, JSON, 4, "body is not valid JSON: "),
        ("", "\ufeff[]", JSON, 4, "body is not valid JSON: "),
        ("", "1", JSON, 4, "body: expected an array of values or an object, found 1"),
        ("", '{"values": {}}', JSON, 4, "values: expected an array, found an object"),
        ("", "[1]", JSON, 4, "values[0]: expected an object, found 1"),
        ("", '[{"type": "A", "data": "x"}]', JSON, 4, "values[0].index: expected an integer"),
        ("", '[{"index": 1.5, "type": "A", "data": "x"}]', JSON, 4, "values[0].index: expected"),
        ("", '[{"index": 1, "data": "x"}]', JSON, 4, "values[0].type: expected a string"),
        ("", '[{"index": 1, "type": "A"}]', JSON, 4, "values[0].data: expected"),
        (
            "",
            '[{"index": 1, "type": "A", "data": {"format": "base64", "value": "?"}}]',
            JSON,
            4,
            "values[0].data.value: expected base64, found '?'",
        ),
        (
            "",
            '{"handle": "88.102.6/OTHER", "values": []}',
            JSON,
            4,
            "java.lang.Exception: Mismatched handle in PUT request",
        ),
        (
            "?index=1&index=2",
            '[{"index": 1, "type": "A", "data": "x"}]',
            JSON,
            4,
            "java.lang.Exception: Mismatched indexes in PUT request",
        ),
        ("?index=x", "[]", JSON, 4, 'java.lang.NumberFormatException: For input string: "x"'),
        ("", '[{"index": 0, "type": "A", "data": "x"}]', JSON, 202, "Value indexes must be"),
        ("", '[{"index": -1, "type": "A", "data": "x"}]', JSON, 202, "Value indexes must be"),
        ("", '[{"index": 1, "type": "", "data": "x"}]', JSON, 202, "value 1: type must be 1 to"),
        ("", '[{"index": 1, "type": "A\\n", "data": "x"}]', JSON, 202, "value 1: type must be"),
        ("", '[{"index": 1, "type": "A", "data": "x", "ttl": -1}]', JSON, 202, "value 1: ttl"),
        (
            "",
            '[{"index": 1, "type": "A", "data": "x"}, {"index": 1, "type": "B", "data": "y"}]',
            JSON,
            201,
            "Index conflict for 1",
        ),
    ],
)
def test_what_is_not_well_formed_is_refused_precisely_and_writes_nothing(
    owner: httpx.Client, path: str, query: str, body: str, kind: str, code: int, message: str
) -> None:
    answer = owner.put(path + query, content=body.encode(), headers={"Content-Type": kind})
    document = answer.json()
    assert answer.status_code == (409 if code == 201 else 400)
    assert document["responseCode"] == code
    assert document["message"].startswith(message)
    # What could not be understood is answered without the name, as it was recorded.
    assert document.get("handle") == (None if code == 4 else _name(path))
    assert owner.get(path).status_code == 404


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        (
            [text_value(n, "A", "") for n in range(1, 1_002)],
            4,
            "values: 1001 values, at most 1000 allowed",
        ),
        (
            [text_value(1, "A", "x" * 65_537)],
            202,
            "value 1: data is 65537 bytes, at most 65536 are allowed",
        ),
        (
            [text_value(n, "A", "x" * 65_000) for n in range(1, 5)],
            202,
            "record is about 260132 bytes; at most 245760 are allowed",
        ),
        (
            [text_value(1, "类" * 129, "x")],
            202,
            "value 1: type must be 1 to 128 printable characters",
        ),
    ],
)
def test_what_is_too_much_for_a_record_is_refused(
    owner: httpx.Client, path: str, values: list[Any], code: int, message: str
) -> None:
    answer = owner.put(path, json=values)
    assert answer.status_code == 400
    assert (answer.json()["responseCode"], answer.json()["message"]) == (code, message)
    assert owner.get(path).status_code == 404


def test_the_largest_record_is_taken(owner: httpx.Client, path: str) -> None:
    owner.put(path, json=[text_value(n, "A", "") for n in range(1, 1_001)]).raise_for_status()
    values = [text_value(n, "A", "x" * 65_536) for n in (1, 2, 3)]
    owner.put(path, json=values).raise_for_status()
    assert [len(text) for text in texts(owner.get(path)).values()] == [65_536] * 3


def test_a_body_that_is_too_large_is_refused_before_it_is_read_whole(
    owner: httpx.Client, path: str
) -> None:
    headers = {"Content-Type": JSON}
    body = b"[" + b" " * 1_048_576
    answer = owner.put(path, content=body, headers=headers)
    assert answer.status_code == 413
    assert answer.json() == {
        "responseCode": 4,
        "message": "body is 1048577 bytes, at most 1048576 are read",
    }
    chunked = owner.put(path, content=iter([body[:600_000], body[:600_000]]), headers=headers)
    assert chunked.status_code == 413
    assert chunked.json()["message"] == "body is longer than 1048576 bytes, no more is read"
    assert owner.get(path).status_code == 404


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("", "suffix is empty"),
        ("a%20b", "suffix has the character U+0020 at position 2"),
        ("a%0Ab", "suffix has the character U+000A at position 2"),
        ("%E2%80%8B", "suffix has the character U+200B at position 1"),
        ("A%CC%88", "suffix is not in Unicode normal form NFC"),
        ("%00", "Handle contains a NUL character"),
        ("%FF", "Handle is not valid UTF-8"),
        ("x" * 247, "Handle is 256 bytes long, at most 255 are allowed"),
    ],
)
def test_a_name_that_nobody_could_type_again_is_not_registered(
    factory: Tenant, key: str, suffix: str, message: str
) -> None:
    exchange = Exchange(
        "",
        "http",
        "PUT",
        f"/api/handles/{PREFIX}/{suffix}",
        {"Content-Type": JSON, "X-API-Key": key},
        "[]",
        EXCHANGES["get"].reply,
    )
    answer = replayed(factory.node.port, exchange)
    assert answer.status == 400
    document = json.loads(answer.body)
    assert document["responseCode"] == 102
    assert document["message"].startswith(message)


@pytest.mark.parametrize("suffix", ["产品-①", "a+b", "a%2Fb", "%3Cb%3E", "a%3Fb"])
def test_a_name_may_have_any_visible_characters(owner: httpx.Client, suffix: str) -> None:
    path = f"/api/handles/{PREFIX}/{suffix}"
    owner.put(path, json=text_value(1, "DESC", suffix)).raise_for_status()
    assert texts(owner.get(path)) == {1: suffix}


def test_delete_takes_indexes_as_get_does(owner: httpx.Client, path: str) -> None:
    owner.put(path, json=text_value(1, "DESC", "x"))
    answer = owner.delete(f"{path}?index=abc")
    assert answer.status_code == 400
    message = 'java.lang.NumberFormatException: For input string: "abc"'
    assert answer.json() == {"responseCode": 4, "message": message}
    assert owner.delete(f"{path}?index=%2B1").status_code == 200


# History and time


def test_the_history_has_every_version_and_who_wrote_it(factory: Tenant, path: str) -> None:
    key, key_id = factory.enterprise_key()
    with factory.client(key) as client:
        client.put(path, json=[text_value(1, "DESC", "a")])
        client.put(path, json=[text_value(1, "DESC", "a")])  # changes nothing: no version
        client.put(path, json=[text_value(1, "DESC", "b")])
        client.put(f"{path}?index=2", json=text_value(2, "DESC", "c"))
        client.put(f"{path}?index=2&overwrite=false", json=text_value(2, "DESC", "refused"))
        client.delete(f"{path}?index=1")
        client.delete(path)
    with factory.operator as operator:
        operator.put(path, json=[text_value(7, "DESC", "again")])
    entries = factory.history(fold(_name(path)))
    found = [
        (entry.record.deleted, {value.index: value.data for value in entry.record.values})
        for entry in entries
    ]
    assert found == [
        (False, {1: b"a"}),
        (False, {1: b"b"}),
        (False, {1: b"b", 2: b"c"}),
        (False, {2: b"c"}),
        (True, {}),
        (False, {7: b"again"}),
    ]
    versions = [entry.record.version for entry in entries]
    assert versions == sorted(set(versions))
    assert [entry.actor for entry in entries[:5]] == [f"key:{key_id}"] * 5
    operator_id = factory.node.operator_key.split("_")[1]
    assert entries[5].actor == f"key:{operator_id}"
    assert {entry.door for entry in entries} == {"http"}


def test_a_value_keeps_its_time_when_another_one_changes(owner: httpx.Client, path: str) -> None:
    def times() -> dict[int, str]:
        return {value["index"]: value["timestamp"] for value in owner.get(path).json()["values"]}

    owner.put(
        path, json=[text_value(n, "DESC", "x", timestamp="1999-01-01T00:00:00Z") for n in (1, 2)]
    )
    first = times()
    assert first[1] > "2024"
    _wait_for_next_second()
    owner.put(f"{path}?index=2", json=text_value(2, "DESC", "y"))
    second = times()
    assert second[1] == first[1]
    assert second[2] > first[2]
    _wait_for_next_second()
    owner.put(f"{path}?index=3", json=text_value(3, "DESC", "z"))
    owner.delete(f"{path}?index=3")
    assert times() == second


def _wait_for_next_second() -> None:
    until_s = int(time.time()) + 1
    while time.time() < until_s:
        time.sleep(0.02)


# When a write is seen


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda client, path: None, id="not asked before"),
        pytest.param(lambda client, path: [client.get(path) for _ in range(3)], id="asked before"),
        pytest.param(lambda client, path: client.get(f"{path}?auth"), id="asked past the caches"),
    ],
)
def test_a_write_is_seen_by_the_very_next_question(
    factory: Tenant,
    owner: httpx.Client,
    path: str,
    prepare: Callable[[httpx.Client, str], object],
) -> None:
    web, batch = f"/{_name(path)}", {"identifiers": [_name(path)]}

    def seen(client: httpx.Client) -> tuple[object, ...]:
        (result,) = client.post("/api/resolve", json=batch).json()["results"]
        return (
            client.get(path).json().get("values", [{}])[0].get("data", {}).get("value"),
            client.get(web).headers.get("location"),
            result.get("values", [{}])[0].get("data", {}).get("value"),
        )

    with factory.client() as reader:
        for number in range(10):
            prepare(reader, path)
            url = f"http://a.example/{number}"
            owner.put(path, json=text_value(1, "URL", url)).raise_for_status()
            assert seen(reader) == (url, url, url)
            url = f"http://b.example/{number}"
            owner.put(f"{path}?index=1", json=text_value(1, "URL", url)).raise_for_status()
            assert seen(reader) == (url, url, url)
            prepare(reader, path)
            owner.delete(path).raise_for_status()
            assert seen(reader) == (None, None, None)
