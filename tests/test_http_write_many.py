"""Many records in one request: what is written, what is not and why, and when it is seen."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from resolver.identifier import fold
from tests.conftest import RunningNode
from tests.tenant import Tenant, tenant, text_value, texts

PREFIX = "88.102.7"


@pytest.fixture(scope="module")
def factory(node: RunningNode) -> Tenant:
    return tenant(node, PREFIX, 7)


@pytest.fixture(scope="module")
def key(factory: Tenant) -> str:
    return factory.enterprise_key()[0]


@pytest.fixture
def owner(factory: Tenant, key: str) -> Iterator[httpx.Client]:
    with factory.client(key) as client:
        yield client


def _bulk(client: httpx.Client, *items: object) -> dict[str, Any]:
    answer = client.post("/api/handles", json={"items": items})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    assert document.pop("responseCode") == 1
    return document


def test_good_items_are_written_and_bad_ones_say_why(factory: Tenant, owner: httpx.Client) -> None:
    start = uuid.uuid4().hex
    good = [text_value(1, "NAME", "螺栓")]
    names = {
        name: f"{PREFIX}/{start}-{name}"
        for name in ("good", "twice", "zero", "data", "values", "many", "double")
    }
    document = _bulk(
        owner,
        {"handle": names["good"], "values": good},
        {"handle": names["twice"], "values": good},
        {"handle": names["twice"].upper(), "values": []},
        {"handle": names["zero"], "values": [text_value(0, "A", "x")]},
        {"handle": names["data"], "values": [{"index": 1, "type": "A", "data": 5}]},
        {"handle": names["values"]},
        {"handle": names["many"], "values": [text_value(n, "A", "") for n in range(1, 1_003)]},
        {"handle": names["double"], "values": [text_value(1, "A", "x"), text_value(1, "B", "y")]},
        {"handle": "88.608.1001/X", "values": good},
        {"handle": f"{PREFIX}/a b", "values": good},
        {"handle": "no-prefix", "values": good},
        {"handle": 7, "values": good},
        {"values": good},
        "text",
    )
    assert {name: document[name] for name in ("added", "changed", "unchanged")} == {
        "added": 2,
        "changed": 0,
        "unchanged": 0,
    }
    results = document["results"]
    assert [(result["responseCode"], result.get("message")) for result in results] == [
        (1, None),
        (1, None),
        (101, "is twice in this request"),
        (202, "Value indexes must be positive"),
        (202, 'items[4].values[0].data: expected a string or {"format", "value"}, found 5'),
        (202, "items[5].values: expected a list"),
        (202, "items[6].values: 1002 values, at most 1000 allowed"),
        (201, "Index conflict for 1"),
        (401, "This API key may not write below this prefix"),
        (
            102,
            "suffix has the character U+0020 at position 2; "
            "letters, digits and visible marks are allowed",
        ),
        (102, "identifier has no suffix: expected prefix/suffix"),
        (202, "items[11].handle: expected text"),
        (202, "items[12].handle: expected text"),
        (202, "items[13].handle: expected text"),
    ]
    assert [result["handle"] for result in results[:3]] == [
        names["good"],
        names["twice"],
        names["twice"].upper(),
    ]
    with factory.client() as client:
        for name in ("good", "twice"):
            assert texts(client.get(f"/api/handles/{names[name]}")) == {1: "螺栓"}
        for name in ("zero", "data", "values", "many", "double"):
            assert client.get(f"/api/handles/{names[name]}").status_code == 404


def test_2000_items_in_chinese_are_written_and_counted(
    factory: Tenant, owner: httpx.Client
) -> None:
    start = uuid.uuid4().hex[:8]
    items = [
        {
            "handle": f"{PREFIX}/{start}-产品-{number}",
            "values": [
                text_value(1, "名称", f"六角头螺栓 第{number}号"),
                text_value(2, "材质", "不锈钢"),
            ],
        }
        for number in range(2_000)
    ]
    first = _bulk(owner, *items)
    assert (first["added"], first["changed"], first["unchanged"]) == (2_000, 0, 0)
    assert [result["handle"] for result in first["results"]] == [one["handle"] for one in items]
    items[7]["values"] = [text_value(1, "名称", "改名")]
    second = _bulk(owner, *items)
    assert (second["added"], second["changed"], second["unchanged"]) == (0, 1, 1_999)
    with factory.client() as client:
        assert texts(client.get(f"/api/handles/{items[7]['handle']}")) == {1: "改名"}
        last = texts(client.get(f"/api/handles/{items[1999]['handle']}"))
    assert last == {1: "六角头螺栓 第1999号", 2: "不锈钢"}
    (entry,) = factory.history(fold(str(items[0]["handle"])))
    assert (entry.door, entry.actor[:4]) == ("http", "key:")


def test_the_operator_writes_below_several_prefixes_at_once(factory: Tenant) -> None:
    tenant(factory.node, "88.102.66", 66)
    name = uuid.uuid4().hex
    with factory.operator as operator:
        document = _bulk(
            operator,
            {"handle": f"{PREFIX}/{name}", "values": []},
            {"handle": f"10.1000/{name}", "values": []},
            {"handle": f"88.102.66/{name}", "values": []},
        )
    assert document["added"] == 2
    assert [result["responseCode"] for result in document["results"]] == [1, 301, 1]
    assert document["results"][1]["message"] == "That prefix doesn't live here"


def test_a_deleted_name_is_written_anew(owner: httpx.Client) -> None:
    name = f"{PREFIX}/{uuid.uuid4()}"
    path = f"/api/handles/{name}"
    owner.put(path, json=text_value(1, "DESC", "old"))
    owner.delete(path)
    document = _bulk(owner, {"handle": name, "values": [text_value(1, "DESC", "new")]})
    assert (document["added"], document["changed"]) == (0, 1)
    assert texts(owner.get(path)) == {1: "new"}


def test_no_items_are_no_work(owner: httpx.Client) -> None:
    assert _bulk(owner) == {"added": 0, "changed": 0, "unchanged": 0, "results": []}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body is not JSON: "),
        (b"[]", 'body: expected {"items": [{"handle": \u2026, "values": [\u2026]}]}'),
        (b'{"items": {}}', 'body: expected {"items": '),
        (
            b'{"items": [' + b",".join([b"{}"] * 2_001) + b"]}",
            "items: 2001 items, at most 2000 are allowed",
        ),
    ],
)
def test_a_request_for_many_that_cannot_be_read_is_refused(
    owner: httpx.Client, body: bytes, message: str
) -> None:
    answer = owner.post("/api/handles", content=body)
    assert answer.status_code == 400
    assert answer.json()["responseCode"] == 4
    assert answer.json()["message"].startswith(message)


def test_a_request_for_many_may_be_16_mib_long(owner: httpx.Client) -> None:
    answer = owner.post("/api/handles", content=b" " * (16 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert answer.json()["message"] == "body is 16777217 bytes, at most 16777216 are read"


def test_many_writes_are_seen_by_the_very_next_question(
    factory: Tenant, owner: httpx.Client
) -> None:
    names = [f"{PREFIX}/{uuid.uuid4()}" for _ in range(20)]
    with factory.client() as reader:
        for text in ("first", "second"):
            reader.post("/api/resolve", json={"identifiers": names}).raise_for_status()
            items = [{"handle": name, "values": [text_value(1, "DESC", text)]} for name in names]
            owner.post("/api/handles", json={"items": items}).raise_for_status()
            results = reader.post("/api/resolve", json={"identifiers": names}).json()["results"]
            assert [result["values"][0]["data"]["value"] for result in results] == [text] * 20
