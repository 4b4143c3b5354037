"""Many identifiers in one request: answers, limits, round trips and counting."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from redis import Redis

from registry import enterprises, prefixes
from registry.database import Database
from registry.prefixes import SELF_RUN
from registry.records import Author, PostgresRecords
from resolver import identifier
from resolver.hot import Hot
from resolver.hot_redis import RedisCache
from resolver.prefix_directory import PrefixDirectory, PrefixState
from resolver.record import HandleValue, Record
from resolver.resolve import Resolver
from resolver.response_code import ResponseCode
from tests.conftest import RunningNode, Stores
from tests.tenant import Tenant, counted, credit_code, ledger_rows, tenant

PREFIX = "88.102.40"
SECRET = {
    "index": 300,
    "type": "HS_SECKEY",
    "data": {"format": "string", "value": "secret"},
    "permissions": "1100",
}


@pytest.fixture(scope="module")
def factory(node: RunningNode) -> Tenant:
    """An enterprise with 300 products, each with a URL and a secret."""
    made = tenant(node, PREFIX, 40)
    _register(made, "p", 300)
    return made


@pytest.fixture
def client(factory: Tenant) -> Iterator[httpx.Client]:
    with factory.client() as opened:
        yield opened


def _register(made: Tenant, start: str, number: int) -> list[str]:
    names = [f"{PREFIX}/{start}{n}" for n in range(number)]
    items = [{"handle": name, "values": [_url(name), SECRET]} for name in names]
    with made.operator as operator:
        operator.post("/api/handles", json={"items": items}).raise_for_status()
    return names


def _url(name: str) -> dict[str, Any]:
    value = f"http://a.example/{name.lower()}"
    return {"index": 1, "type": "URL", "data": {"format": "string", "value": value}}


def _resolve(client: httpx.Client, names: Sequence[str], **more: object) -> list[dict[str, Any]]:
    answer = client.post("/api/resolve", json={"identifiers": names, **more})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json;charset=utf-8"
    document = answer.json()
    assert list(document) == ["results"]
    results: list[dict[str, Any]] = document["results"]
    return results


# Answers


def _mixture() -> list[tuple[str, int]]:
    """1,000 names of every kind, each with its response code, the kinds taking turns."""
    mixture = []
    for n in range(200):
        mixture += [
            (f"{PREFIX}/p{n}", 1),
            (f"{PREFIX}/P{n}", 1),
            (f"{PREFIX}/nothing-{n % 7}", 100),
            (f"10.1000/{n}", 301),
            ("" if n % 2 else "x" * 256, 102),
        ]
    return mixture


def test_1000_names_are_answered_in_their_order_each_for_itself(client: httpx.Client) -> None:
    asked = _mixture()
    results = _resolve(client, [name for name, _ in asked])
    assert [(one["identifier"], one["responseCode"]) for one in results] == asked
    for (name, code), result in zip(asked, results, strict=True):
        if code == 1:
            (value,) = result["values"]
            assert value.pop("timestamp").endswith("Z")
            assert value == {**_url(name), "ttl": 86_400}
            assert list(result) == ["identifier", "responseCode", "values"]
        elif code == 100:
            assert list(result) == ["identifier", "responseCode"]
    messages = {result.get("message") for result in results if result["responseCode"] > 100}
    assert messages == {
        "That prefix doesn't live here",
        "Empty handle invalid",
        "Handle is 256 bytes long, at most 255 are allowed",
    }


def test_the_same_name_is_answered_as_often_as_it_is_asked(client: httpx.Client) -> None:
    names = [f"{PREFIX}/p1", f"{PREFIX}/P1", f"{PREFIX}/p1", f"{PREFIX}/p2", f"{PREFIX}/p1"]
    results = _resolve(client, names)
    assert [result["identifier"] for result in results] == names
    assert len({str(result["values"]) for result in results}) == 2


def test_prefixes_out_of_service_and_prefix_handles_are_told_apart(factory: Tenant) -> None:
    suspended = tenant(factory.node, "88.102.41", 41)
    self_run = tenant(factory.node, "88.102.42", 42, SELF_RUN)
    suspended.suspend()
    with factory.client() as client:
        results = _resolve(
            client, ["88.102.41/X", "88.102.42/X", "88.102.42", "0.NA/88.102.42", "88.102"]
        )
    assert [(result["responseCode"], result.get("message")) for result in results] == [
        (301, "That prefix is suspended"),
        (301, "That prefix is run by its enterprise node"),
        (100, None),
        (100, None),
        (301, "That prefix doesn't live here"),
    ]
    assert self_run.prefix == "88.102.42"


@pytest.mark.parametrize(
    ("more", "indexes"),
    [
        ({"types": ["url"]}, [1]),
        ({"types": ["URL."]}, [1]),
        ({"indexes": [1]}, [1]),
        ({"indexes": [300], "types": ["URL"]}, [1]),
        ({"indexes": [300]}, []),
        ({"types": ["HS_SECKEY"]}, []),
        ({"types": [], "indexes": []}, [1]),
    ],
)
def test_values_are_chosen_for_all_names_and_secrets_are_shown_to_nobody(
    factory: Tenant, more: dict[str, object], indexes: list[int]
) -> None:
    key, _ = factory.enterprise_key()
    for caller in (None, key, factory.node.operator_key):
        with factory.client(caller) as client:
            (result,) = _resolve(client, [f"{PREFIX}/p1"], **more)
        assert result["responseCode"] == (1 if indexes else 200)
        assert [value["index"] for value in result["values"]] == indexes


def test_no_names_are_no_questions(client: httpx.Client) -> None:
    assert _resolve(client, []) == []


# What cannot be asked


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body is not JSON: "),
        (b"{", "body is not JSON: "),
        (b'{"identifiers": ["\\ud800"]}', "body is not JSON: "),
        (b'["a"]', 'body: expected an object such as {"identifiers": '),
        (b"{}", "identifiers: expected a list"),
        (b'{"identifiers": null}', "identifiers: expected a list"),
        (b'{"identifiers": "a"}', "identifiers: expected a list"),
        (b'{"identifiers": ["a", 1]}', "identifiers[1]: expected text"),
        (b'{"identifiers": [null]}', "identifiers[0]: expected text"),
        (b'{"identifiers": [], "types": "URL"}', "types: expected a list"),
        (b'{"identifiers": [], "types": [1]}', "types[0]: expected text"),
        (b'{"identifiers": [], "indexes": ["1"]}', "indexes[0]: expected a whole number"),
        (b'{"identifiers": [], "indexes": [true]}', "indexes[0]: expected a whole number"),
        (b'{"identifiers": [], "indexes": [1.5]}', "indexes[0]: expected a whole number"),
        (
            b'{"identifiers": [], "type": ["URL"]}',
            "'type': unknown member; expected identifiers, types, indexes",
        ),
        (
            b'{"identifiers": [' + b",".join([b'"a"'] * 1_001) + b"]}",
            "identifiers: 1001 items, at most 1000 are allowed",
        ),
        (
            b'{"identifiers": [], "types": [' + b",".join([b'"a"'] * 101) + b"]}",
            "types: 101 items, at most 100 are allowed",
        ),
        (
            b'{"identifiers": [], "indexes": [' + b",".join([b"1"] * 101) + b"]}",
            "indexes: 101 items, at most 100 are allowed",
        ),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_precisely(
    client: httpx.Client, body: bytes, message: str
) -> None:
    answer = client.post("/api/resolve", content=body)
    assert answer.status_code == 400
    assert answer.json()["responseCode"] == 4
    assert answer.json()["message"].startswith(message)
    assert list(answer.json()) == ["responseCode", "message"]


def test_1000_names_of_255_escaped_bytes_fit_into_a_request(client: httpx.Client) -> None:
    name = ("\\u0001" * 255).encode()
    body = b'{"identifiers": [' + b",".join([b'"' + name + b'"'] * 1_000) + b"]}"
    assert client.post("/api/resolve", content=body).status_code == 200
    answer = client.post("/api/resolve", content=b" " * (2 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert answer.json()["message"] == "body is 2097153 bytes, at most 2097152 are read"


def test_a_key_that_opens_nothing_is_refused(factory: Tenant) -> None:
    with factory.client("idn_x") as client:
        answer = client.post("/api/resolve", json={"identifiers": [f"{PREFIX}/p1"]})
    assert answer.status_code == 403
    assert answer.json() == {
        "responseCode": 403,
        "message": "The API key is unknown or revoked",
    }


def test_only_post_asks_for_many(client: httpx.Client) -> None:
    answer = client.get("/api/resolve")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


# Round trips


def test_names_that_no_cache_knows_cost_redis_one_question_together(factory: Tenant) -> None:
    start = uuid.uuid4().hex
    names = _register(factory, f"{start}-", 500)
    redis = Redis.from_url(factory.node.run_info.redis_url)

    def calls(*commands: str) -> int:
        stats = redis.info("commandstats")
        assert isinstance(stats, dict)
        return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in commands)

    with factory.client() as client:
        before = calls("mget"), calls("evalsha", "eval")
        _resolve(client, [*names, *(f"{name}-absent" for name in names)])
        assert calls("mget") - before[0] == 1
        # A few for all of them, besides what each worker asks four times a second anyway.
        assert calls("evalsha", "eval") - before[1] < 200
    redis.close()


class _Counted(PostgresRecords):
    """The records, and how many statements have read them."""

    statements = 0

    async def fetch(self, key: str) -> Record | None:
        self.statements += 1
        return await super().fetch(key)

    async def fetch_many(self, keys: Sequence[str]) -> dict[str, Record]:
        self.statements += 1
        return await super().fetch_many(keys)


async def test_names_that_no_cache_knows_cost_postgresql_one_statement(
    stores: Stores, database: Database
) -> None:
    author = Author("test", "test")
    code = credit_code(43)
    await enterprises.add(database, name="工厂", credit_code=code, division="450200", author=author)
    await prefixes.allot(
        database, prefix="88.102.43", credit_code=code, node_prefix=None, author=author
    )
    records = _Counted(database)
    there = [identifier.from_text(f"88.102.43/{n}") for n in range(20)]
    for one in there:
        await records.put(one, (HandleValue(1, "DESC", b"x"),), author, 0.0)
    directory = PrefixDirectory()
    directory.replace([PrefixState("88.102.43")])
    cache = RedisCache(stores.redis_url)
    resolver = Resolver(records, cache, directory, Hot())
    absent = [identifier.from_text(f"88.102.43/absent-{n}") for n in range(980)]
    answers = await resolver.resolve_many([*there, *absent, *there], 1.0)
    await cache.close()
    assert records.statements == 1
    codes = [answer.code for answer in answers]
    assert codes[:20] == codes[1_000:] == [ResponseCode.SUCCESS] * 20
    assert codes[20:1_000] == [ResponseCode.HANDLE_NOT_FOUND] * 980


def test_each_name_is_looked_up_once_in_each_tier(factory: Tenant) -> None:
    names = _register(factory, f"{uuid.uuid4().hex}-", 100)
    absent = [f"{name}-absent" for name in names]
    with factory.client() as client:
        before = _lookups(client)
        _resolve(client, [*names, *absent, *names])
        first = _lookups(client)
        _resolve(client, [*names, *absent])
        second = _lookups(client)
    assert {key: first[key] - before[key] for key in first} == {
        ("l1", "hit"): 0,
        ("l1", "miss"): 300,
        ("l2", "hit"): 0,
        ("l2", "miss"): 200,
        ("registry", "hit"): 100,
        ("registry", "miss"): 100,
    }
    changed = {key: second[key] - first[key] for key in second if second[key] != first[key]}
    assert changed == {("l1", "hit"): 200}


def _lookups(client: httpx.Client) -> dict[tuple[str, str], float]:
    found = {(tier, result): 0.0 for tier in ("l1", "l2", "registry") for result in ("hit", "miss")}
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("idnode_cache_lookups_total{"):
            labels, number = line.rsplit(" ", 1)
            _, result, _, tier, _ = labels.split('"')
            found[tier, result] = float(number)
    return found


# Counting


def test_each_name_is_counted_once_by_what_its_answer_was(factory: Tenant) -> None:
    key, application_id = factory.application_key(f"batches {uuid.uuid4()}")
    with factory.client(key) as client:
        _resolve(client, [name for name, _ in _mixture()])
        _resolve(client, [f"{PREFIX}/p1", f"{PREFIX}/p2", f"{PREFIX}/absent"], types=["NOPE"])
        _resolve(client, [PREFIX, f"0.NA/{PREFIX}", f"{PREFIX}.1", "0.NA/10.1000"])
        _resolve(client, [])
    level, caller = "enterprise", ("application", "batch")
    assert ledger_rows(factory.node, application_id) == {
        (level, PREFIX, *caller, "found"): 400,
        (level, PREFIX, *caller, "not_found"): 201,
        (level, PREFIX, *caller, "values_not_found"): 2,
        ("node", "", *caller, "not_responsible"): 201,
        ("node", "", *caller, "invalid"): 200,
        ("node", PREFIX, *caller, "found"): 2,
        ("node", PREFIX, *caller, "not_found"): 1,
    }


def test_a_sandbox_application_counts_as_sandbox(factory: Tenant) -> None:
    key, _ = factory.application_key("batch trial", sandbox=True)
    before = counted(factory.node)
    with factory.client(key) as client:
        _resolve(client, [f"{PREFIX}/p1"] * 3)
    assert counted(factory.node) - before == {("enterprise", "batch", "found", "sandbox"): 3}


def test_a_request_that_is_refused_counts_once(factory: Tenant) -> None:
    before = counted(factory.node)
    with factory.client() as client:
        client.post("/api/resolve", json={"identifiers": ["a"] * 1_001})
        client.post("/api/resolve", content=b"x" * 3_000_000)
        client.post("/api/resolve", json={"identifiers": ["a"]}, headers={"X-API-Key": "x"})
    assert counted(factory.node) - before == {
        ("node", "batch", "invalid", "anonymous"): 2,
        ("node", "batch", "refused", "anonymous"): 1,
    }
