"""What lives here: lists of identifiers and prefixes, and the site."""

from collections.abc import Iterator

import httpx
import pytest

from registry.prefixes import SELF_RUN
from tests.conftest import RunningNode
from tests.recorded import differences, http_exchanges, replayed
from tests.tenant import Tenant, counted, tenant

PREFIX = "88.102.30"
ITEMS = [f"{PREFIX}/item-{number:02}" for number in range(11)]


@pytest.fixture(scope="module")
def factory(node: RunningNode) -> Tenant:
    """An enterprise with eleven identifiers and one that was deleted."""
    made = tenant(node, PREFIX, 30)
    items = [{"handle": item, "values": []} for item in (*ITEMS, f"{PREFIX}/item-03x")]
    with made.operator as operator:
        operator.post("/api/handles", json={"items": items}).raise_for_status()
        operator.delete(f"/api/handles/{PREFIX}/item-03x").raise_for_status()
    return made


@pytest.fixture
def owner(factory: Tenant) -> Iterator[httpx.Client]:
    key, _ = factory.enterprise_key()
    with factory.client(key) as client:
        yield client


def _listed(client: httpx.Client, **query: str | int) -> httpx.Response:
    return client.get("/api/handles", params={"prefix": PREFIX, **query})


def test_all_identifiers_of_a_prefix_are_listed_in_order_without_deleted_ones(
    owner: httpx.Client,
) -> None:
    answer = _listed(owner)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json;charset=utf-8"
    assert answer.json() == {
        "responseCode": 1,
        "prefix": PREFIX,
        "totalCount": "11",
        "handles": ITEMS,
    }


@pytest.mark.parametrize(
    ("page", "size", "found"),
    [(0, 3, ITEMS[:3]), (1, 3, ITEMS[3:6]), (3, 3, ITEMS[9:]), (4, 3, []), (0, 10_000, ITEMS)],
)
def test_a_page_is_listed(owner: httpx.Client, page: int, size: int, found: list[str]) -> None:
    assert _listed(owner, page=page, pageSize=size).json() == {
        "responseCode": 1,
        "prefix": PREFIX,
        "totalCount": "11",
        "page": page,
        "pageSize": size,
        "handles": found,
    }


def test_page_size_0_counts(owner: httpx.Client) -> None:
    answer = _listed(owner, page=0, pageSize=0).json()
    assert (answer["totalCount"], answer["handles"]) == ("11", [])


def test_the_members_of_a_list_stand_in_the_recorded_order(owner: httpx.Client) -> None:
    recorded = next(e for e in http_exchanges() if e.name == "list pagesize 0 = count")
    expected = recorded.reply.body.replace("88.102.5", PREFIX).replace("10001", "11")
    assert _listed(owner, page=0, pageSize=0).text == expected


def test_a_prefix_may_be_written_as_its_prefix_handle(owner: httpx.Client) -> None:
    answer = _listed(owner, prefix=f"0.na/{PREFIX}").json()
    assert (answer["prefix"], answer["handles"]) == (f"0.na/{PREFIX}", ITEMS)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"prefix": ""}, "prefix: expected the prefix whose identifiers are listed"),
        ({"page": "x"}, "page: expected a number from 0 to 1000000"),
        ({"page": "-1"}, "page: expected a number from 0 to 1000000"),
        ({"page": "1000001"}, "page: expected a number from 0 to 1000000"),
        ({"pageSize": "\u0663"}, "pageSize: expected a number from 0 to 1000000"),
        ({"pageSize": "10001"}, "pageSize: at most 10000 are allowed"),
    ],
)
def test_a_list_that_is_not_well_asked_for_is_refused(
    owner: httpx.Client, query: dict[str, str], message: str
) -> None:
    answer = _listed(owner, **query)
    assert answer.status_code == 400
    assert answer.json() == {"responseCode": 4, "message": message}


def test_a_list_without_a_prefix_is_refused(owner: httpx.Client) -> None:
    assert owner.get("/api/handles").json()["responseCode"] == 4


@pytest.mark.parametrize("prefix", ["10.1000", "0.NA/10.1000", f"{PREFIX}/item-01", "x/y"])
def test_a_prefix_that_does_not_live_here_is_not_listed(owner: httpx.Client, prefix: str) -> None:
    answer = _listed(owner, prefix=prefix)
    assert answer.status_code == 400
    assert answer.json() == {
        "responseCode": 301,
        "message": "That prefix doesn't live here",
        "handle": prefix,
    }


def test_only_those_who_may_write_below_a_prefix_list_it(factory: Tenant) -> None:
    application, _ = factory.application_key("lister")
    other, _ = tenant(factory.node, "88.102.31", 31).enterprise_key()
    expected = {None: 402, "idn_x": 403, application: 401, other: 401}
    for key, code in expected.items():
        with factory.client(key) as client:
            answer = _listed(client)
        assert (answer.status_code, answer.json()["responseCode"]) == (403, code)
        assert answer.json()["handle"] == PREFIX
    with factory.operator as operator:
        assert _listed(operator).json()["handles"] == ITEMS


def test_a_prefix_that_its_enterprise_runs_has_no_identifiers_here(factory: Tenant) -> None:
    self_run = tenant(factory.node, "88.102.32", 32, SELF_RUN)
    with factory.operator as operator:
        answer = _listed(operator, prefix=self_run.prefix).json()
    assert (answer.get("totalCount"), answer.get("handles")) == ("0", [])


# Prefixes


def test_the_operator_lists_the_prefixes(factory: Tenant) -> None:
    with factory.operator as operator:
        answer = operator.get("/api/prefixes")
    assert answer.status_code == 200
    document = answer.json()
    assert list(document) == ["responseCode", "totalCount", "prefixes"]
    assert document["totalCount"] == str(len(document["prefixes"]))
    assert f"0.NA/{PREFIX}" in document["prefixes"]
    assert document["prefixes"] == sorted(document["prefixes"])


def test_nobody_else_lists_the_prefixes(factory: Tenant, owner: httpx.Client) -> None:
    refused = owner.get("/api/prefixes")
    assert refused.status_code == 403
    assert refused.json() == {"responseCode": 401, "message": "Only the operator lists prefixes"}
    with factory.client("idn_x") as client:
        assert client.get("/api/prefixes").json()["responseCode"] == 403
    recorded = next(e for e in http_exchanges() if e.name == "prefixes anonymous")
    assert differences(recorded, replayed(factory.node.port, recorded)) == {}


# The site


def test_the_site_says_where_the_node_is_reached(factory: Tenant) -> None:
    with factory.client() as client:
        document = client.get("/api/site").json()
    assert document["responseCode"] == 1
    site = document["site"]
    assert (site["version"], site["protocolVersion"], site["primarySite"]) == (1, "2.11", True)
    (server,) = site["servers"]
    assert server["address"] == "127.0.0.1"
    (http,) = (one for one in server["interfaces"] if one["protocol"] == "HTTP")
    assert (http["query"], http["port"]) == (True, factory.node.port)
    assert server["publicKey"]["value"]["kty"] == "RSA"
    assert 0 < site["serialNumber"] < 65_535


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/site/", "/api/sessions/x"])
def test_other_paths_of_the_interface_are_unknown(factory: Tenant, path: str) -> None:
    with factory.client() as client:
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = client.request(method, path)
            assert answer.status_code == 404
            assert answer.json() == {
                "responseCode": 4,
                "message": f"Unknown HTTP API endpoint {method} {path}",
            }


def test_a_list_is_no_resolution(factory: Tenant, owner: httpx.Client) -> None:
    before = counted(factory.node)
    _listed(owner)
    owner.get("/api/prefixes")
    owner.get("/api/site")
    assert counted(factory.node) == before
