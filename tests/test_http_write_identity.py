"""Writing, listing and homing over HTTPS as an identity: every permission, and who may not."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.prefixes import SELF_RUN
from tests import https_node
from tests.conftest import wait_for
from tests.https_node import (
    KEYS,
    OWNER,
    OWNER_BY_RSA,
    PREFIX,
    READER,
    SERVER_ADMIN,
    STRANGER,
    HttpsNode,
    admin_value,
    basic,
)
from tests.tenant import PATIENCE_S, counted, tenant, text_value, texts

LISTED = "/api/handles"


@pytest.fixture(scope="module")
def made(scratch: Path) -> Iterator[HttpsNode]:
    with https_node.https_node(scratch / "write-identity") as node:
        yield node


@pytest.fixture(scope="module")
def owner(made: HttpsNode) -> Iterator[httpx.Client]:
    with made.client(basic(OWNER)) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(made: HttpsNode) -> Iterator[httpx.Client]:
    with made.client(basic(STRANGER)) as client:
        yield client


@pytest.fixture(scope="module")
def server_admin(made: HttpsNode) -> Iterator[httpx.Client]:
    with made.client(basic(SERVER_ADMIN)) as client:
        yield client


@pytest.fixture
def path() -> str:
    """A name of this test's own."""
    return f"/api/handles/{PREFIX}/{uuid.uuid4()}"


def _name(path: str) -> str:
    return path.removeprefix("/api/handles/")


def _url(text: str = "http://a.example/", index: int = 1) -> dict[str, Any]:
    return text_value(index, "URL", text)


def _is(answer: httpx.Response, status: int, code: int) -> bool:
    assert (answer.status_code, answer.json()["responseCode"]) == (status, code), answer.text
    return True


# Records


def test_a_record_is_created_changed_and_deleted(
    made: HttpsNode, owner: httpx.Client, path: str
) -> None:
    record = [_url(), text_value(2, "DESC", "一"), admin_value(100, OWNER)]
    created = owner.put(path, json=record)
    assert (created.status_code, created.json()) == (
        201,
        {"responseCode": 1, "handle": _name(path)},
    )
    with made.plain() as reader:
        assert texts(reader.get(path))[1] == "http://a.example/"
        assert owner.put(f"{path}?index=2", json=text_value(2, "DESC", "二")).status_code == 200
        assert texts(reader.get(path))[2] == "二"
        assert owner.put(f"{path}?index=various", json=[_url(index=3)]).status_code == 201
        assert owner.delete(f"{path}?index=1&index=3").status_code == 200
        assert texts(reader.get(path)).keys() == {2, 100}
        assert owner.put(path, json=[_url("http://b.example/")]).status_code == 200
        assert texts(reader.get(path)) == {1: "http://b.example/"}
        deleted = owner.delete(path)
        assert (deleted.status_code, deleted.json()) == (
            200,
            {"responseCode": 1, "handle": _name(path)},
        )
        assert reader.get(path).status_code == 404


def test_the_history_names_the_identity(made: HttpsNode, owner: httpx.Client, path: str) -> None:
    owner.put(path, json=[_url()]).raise_for_status()
    (entry,) = made.factory.history(_name(path).upper())
    assert (entry.actor, entry.door) == (f"handle:{OWNER}", "http")


def test_nothing_is_overwritten_against_the_callers_wish(owner: httpx.Client, path: str) -> None:
    owner.put(path, json=[_url()]).raise_for_status()
    again = owner.put(path, params={"overwrite": "false"}, json=[_url("http://b.example/")])
    assert _is(again, 409, 101)
    value = owner.put(f"{path}?index=1&overwrite=false", json=_url("http://b.example/"))
    assert _is(value, 409, 201)
    assert value.json()["message"] == "Index conflict for 1"
    assert texts(owner.get(path)) == {1: "http://a.example/"}


def test_what_is_missing_cannot_be_changed(owner: httpx.Client, path: str) -> None:
    assert _is(owner.put(f"{path}?index=1", json=_url()), 404, 100)
    assert _is(owner.delete(path), 404, 100)
    assert _is(owner.delete(f"{path}?index=1"), 404, 100)
    owner.put(path, json=[_url()]).raise_for_status()
    assert _is(owner.delete(f"{path}?index=1&index=2"), 400, 200)
    assert texts(owner.get(path)) == {1: "http://a.example/"}


@pytest.mark.parametrize("stem", [PREFIX, f"{PREFIX}/", f"{PREFIX}/S-"])
def test_a_new_name_is_minted(owner: httpx.Client, stem: str) -> None:
    answer = owner.put(f"/api/handles/{stem}", params={"mintNewSuffix": "true"}, json=[_url()])
    assert answer.status_code == 201
    name = answer.json()["handle"]
    begin = stem if "/" in stem else f"{stem}/"
    assert name.startswith(begin)
    assert str(uuid.UUID(name.removeprefix(begin))) == name.removeprefix(begin)
    assert texts(owner.get(f"/api/handles/{name}")) == {1: "http://a.example/"}


@pytest.mark.parametrize(
    ("query", "body", "message"),
    [
        ("", b"[", None),
        ("", b'{"handle": "88.102.5/OTHER", "values": []}', "Mismatched handle in PUT request"),
        ("?index=7", b'{"index": 2, "type": "X", "data": ""}', "Mismatched indexes in PUT request"),
        ("?index=a", b'{"index": 2, "type": "X", "data": ""}', 'For input string: "a"'),
    ],
)
def test_what_cannot_be_understood_is_refused(
    owner: httpx.Client, path: str, query: str, body: bytes, message: str | None
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = owner.put(f"{path}{query}", content=body, headers=headers)
    assert _is(answer, 400, 4)
    assert message is None or message in answer.json()["message"]


def test_values_break_no_rule(owner: httpx.Client, path: str) -> None:
    assert _is(owner.put(path, json=[_url(index=0)]), 400, 202)
    assert _is(owner.put(path, json=[_url(), _url()]), 409, 201)
    assert _is(owner.put("/api/handles/88.102.5/%20x", json=[]), 400, 102)
    assert owner.get(path).status_code == 404


def test_a_prefix_that_does_not_live_here_is_not_written(
    made: HttpsNode, owner: httpx.Client, server_admin: httpx.Client
) -> None:
    self_run = tenant(made.node, "88.102.8", 8, SELF_RUN)
    for client in (owner, server_admin):
        for prefix in ("10.1000", self_run.prefix):
            answer = client.put(f"/api/handles/{prefix}/X", json=[_url()])
            assert _is(answer, 400, 301)
            assert _is(client.delete(f"/api/handles/{prefix}/X"), 400, 301)


# Who may


def test_a_stranger_changes_nothing(owner: httpx.Client, stranger: httpx.Client, path: str) -> None:
    assert _is(stranger.put(path, json=[_url()]), 403, 400)
    owner.put(path, json=[_url(), admin_value(100, OWNER)]).raise_for_status()
    for answer in (
        stranger.put(path, json=[]),
        stranger.put(f"{path}?index=1", json=_url("http://b.example/")),
        stranger.delete(f"{path}?index=1"),
        stranger.delete(path),
    ):
        assert _is(answer, 403, 400)
        assert answer.json()["handle"] == _name(path)
    assert texts(owner.get(path))[1] == "http://a.example/"


# What each bit alone allows, in the order of the twelve digits.
BITS = {
    "addAdmin": 2,
    "removeAdmin": 3,
    "modifyAdmin": 4,
    "addValue": 5,
    "removeValue": 6,
    "modifyValue": 7,
    "deleteHandle": 10,
}
ACTS = {
    "addAdmin": lambda client, path: client.put(
        f"{path}?index=200", json=admin_value(200, STRANGER)
    ),
    "removeAdmin": lambda client, path: client.delete(f"{path}?index=101"),
    "modifyAdmin": lambda client, path: client.put(
        f"{path}?index=101", json=admin_value(101, STRANGER)
    ),
    "addValue": lambda client, path: client.put(f"{path}?index=2", json=_url(index=2)),
    "removeValue": lambda client, path: client.delete(f"{path}?index=1"),
    "modifyValue": lambda client, path: client.put(f"{path}?index=1", json=_url("http://b.e/")),
    "deleteHandle": lambda client, path: client.delete(path),
}


@pytest.mark.parametrize("permission", ACTS)
def test_each_permission_allows_its_own_change_and_no_other(
    owner: httpx.Client, stranger: httpx.Client, path: str, permission: str
) -> None:
    digits = "".join("1" if place == BITS[permission] else "0" for place in range(12))
    record = [_url(), admin_value(100, STRANGER, digits), admin_value(101, OWNER)]
    for act in sorted(ACTS, key=lambda name: name == permission):
        owner.put(path, json=record).raise_for_status()
        answer = ACTS[act](stranger, path)
        if act == permission:
            assert answer.status_code in (200, 201), (act, answer.text)
        else:
            assert _is(answer, 403, 401), act


def test_a_record_without_administrators_belongs_to_those_of_the_prefix(
    owner: httpx.Client, stranger: httpx.Client, path: str
) -> None:
    owner.put(path, json=[_url()]).raise_for_status()
    assert _is(stranger.delete(path), 403, 400)
    assert owner.delete(path).status_code == 200


def test_members_of_a_group_administer(
    owner: httpx.Client, stranger: httpx.Client, path: str
) -> None:
    members = [{"handle": KEYS, "index": 305}]
    group = {"index": 200, "type": "HS_VLIST", "data": {"format": "vlist", "value": members}}
    record = [_url(), admin_value(100, f"200:{_name(path)}"), group]
    owner.put(path, json=record).raise_for_status()
    assert stranger.put(f"{path}?index=1", json=_url("http://b.example/")).status_code == 200
    assert owner.put(f"{path}?index=1", json=_url()).status_code == 403


def test_who_administers_the_server_does_everything(
    owner: httpx.Client, server_admin: httpx.Client, path: str
) -> None:
    owner.put(path, json=[_url(), admin_value(100, OWNER)]).raise_for_status()
    assert server_admin.put(f"{path}?index=1", json=_url("http://b.example/")).status_code == 200
    assert server_admin.delete(path).status_code == 200


def test_a_key_by_any_form_writes(made: HttpsNode, path: str) -> None:
    with made.client(basic(OWNER_BY_RSA)) as client:
        # The key at this index is public: no secret opens it.
        assert client.put(path, json=[_url()]).status_code == 401
    with made.client({"X-API-Key": made.node.operator_key}) as client:
        assert client.put(path, json=[_url()]).status_code == 201


def test_many_at_once_need_an_api_key(made: HttpsNode, owner: httpx.Client) -> None:
    answer = owner.post("/api/handles", json={"items": []})
    assert _is(answer, 403, 402)
    assert "www-authenticate" not in answer.headers
    with made.client({"X-API-Key": made.node.operator_key}) as client:
        assert client.post("/api/handles", json={"items": []}).status_code == 200


def test_a_prefix_handle_is_written_by_who_administers_the_server(
    owner: httpx.Client, server_admin: httpx.Client
) -> None:
    path = f"/api/handles/0.NA/{PREFIX}"
    assert _is(owner.delete(path), 403, 400)
    before = owner.get(path).json()["values"]
    note = text_value(50, "DESC", "prefix")
    assert server_admin.put(f"{path}?index=50", json=note).status_code == 201
    # Its own administrators change the values of it, as those of any other record.
    assert owner.delete(f"{path}?index=50").status_code == 200
    after = owner.get(path).json()["values"]
    assert [value["index"] for value in after] == [value["index"] for value in before]


def test_a_write_is_no_resolution(made: HttpsNode, owner: httpx.Client, path: str) -> None:
    before = counted(made.node)
    owner.put(path, json=[_url()]).raise_for_status()
    owner.delete(path).raise_for_status()
    owner.get(LISTED, params={"prefix": PREFIX, "pageSize": "0"}).raise_for_status()
    assert counted(made.node) == before


# Lists


def test_who_may_list_lists(made: HttpsNode, owner: httpx.Client, stranger: httpx.Client) -> None:
    owner.put(f"/api/handles/{PREFIX}/LISTED", json=[]).raise_for_status()
    with made.client(basic(READER)) as reader:
        for prefix in (PREFIX, f"0.NA/{PREFIX}", PREFIX.lower()):
            found = reader.get(LISTED, params={"prefix": prefix}).json()
            assert f"{PREFIX}/LISTED" in found["handles"]
            assert found["prefix"] == prefix
            assert found["totalCount"] == str(len(found["handles"]))
        assert reader.put(f"/api/handles/{PREFIX}/LISTED", json=[]).status_code == 403
    refused = stranger.get(LISTED, params={"prefix": PREFIX})
    assert _is(refused, 403, 400)
    assert refused.json()["handle"] == PREFIX


def test_who_lacks_the_permission_to_list_does_not(made: HttpsNode, stranger: httpx.Client) -> None:
    path = f"/api/handles/0.NA/{PREFIX}?index=150"
    with made.factory.operator as operator:
        value = admin_value(150, STRANGER, "011111111111")
        operator.put(path, json=value).raise_for_status()
        assert _is(stranger.get(LISTED, params={"prefix": PREFIX}), 403, 401)
        operator.delete(path).raise_for_status()


def test_who_lists_without_a_word_is_asked_who_it_is(made: HttpsNode) -> None:
    with made.client() as client:
        for path in (f"/api/handles?prefix={PREFIX}", "/api/prefixes"):
            answer = client.get(path)
            assert _is(answer, 401, 402)
            assert answer.headers.get_list("www-authenticate")[0] == 'Basic realm="handle"'


def test_who_administers_the_server_lists_prefixes(
    owner: httpx.Client, server_admin: httpx.Client
) -> None:
    found = server_admin.get("/api/prefixes").json()
    assert f"0.NA/{PREFIX}" in found["prefixes"]
    assert found["totalCount"] == str(len(found["prefixes"]))
    assert _is(owner.get("/api/prefixes"), 403, 400)


# Homed prefixes


def test_a_prefix_is_homed_and_given_up(made: HttpsNode, server_admin: httpx.Client) -> None:
    name = f"/api/handles/20.500.{uuid.uuid4().hex[:8]}"
    prefix = name.removeprefix("/api/handles/")
    assert _is(server_admin.get(f"{name}/X"), 400, 301)
    for written in (prefix, f"0.NA/{prefix}"):
        answer = server_admin.post(f"/api/prefixes/{written}")
        assert (answer.status_code, answer.json()) == (200, {"responseCode": 1, "handle": written})
    wait_for(lambda: server_admin.put(f"{name}/X", json=[]).is_success, PATIENCE_S)
    assert f"0.NA/{prefix}".upper() in server_admin.get("/api/prefixes").text.upper()
    refused = server_admin.delete(f"/api/prefixes/{prefix}")
    assert _is(refused, 409, 2)
    assert f"{prefix}/X" in refused.json()["message"]
    server_admin.delete(f"{name}/X").raise_for_status()
    assert server_admin.delete(f"/api/prefixes/{prefix}").status_code == 200
    wait_for(lambda: server_admin.get(f"{name}/X").status_code == 400, PATIENCE_S)
    assert server_admin.delete(f"/api/prefixes/{prefix}").status_code == 200
    assert made.factory.prefix == PREFIX


def test_the_operator_homes_prefixes_with_its_key(made: HttpsNode) -> None:
    prefix = f"20.501.{uuid.uuid4().hex[:8]}"
    with made.factory.operator as operator:
        assert operator.post(f"/api/prefixes/{prefix}").status_code == 200
        path = f"/api/handles/{prefix}/X"
        wait_for(lambda: operator.put(path, json=[]).is_success, PATIENCE_S)
        assert _is(operator.delete(f"/api/prefixes/{prefix}"), 409, 2)


def test_nobody_else_homes_prefixes(made: HttpsNode, owner: httpx.Client) -> None:
    key, _ = made.factory.enterprise_key()
    with made.plain() as anonymous, made.client() as asked, made.factory.client(key) as enterprise:
        for method in ("POST", "DELETE"):
            for client, status, code in (
                (anonymous, 403, 402),
                (asked, 401, 402),
                (enterprise, 403, 401),
                (owner, 403, 400),
            ):
                answer = client.request(method, "/api/prefixes/20.502")
                assert _is(answer, status, code)


def test_an_enterprises_prefix_is_neither_homed_nor_given_up(
    made: HttpsNode, server_admin: httpx.Client
) -> None:
    self_run = tenant(made.node, "88.102.9", 9, SELF_RUN).prefix
    with made.factory.operator as operator:
        for client in (server_admin, operator):
            assert client.post(f"/api/prefixes/{PREFIX}").status_code == 200  # lives here already
            assert _is(client.delete(f"/api/prefixes/{PREFIX}"), 409, 2)
            assert _is(client.post(f"/api/prefixes/{self_run}"), 409, 2)


def test_what_is_no_prefix_is_refused(made: HttpsNode, server_admin: httpx.Client) -> None:
    with made.factory.operator as operator:
        for client in (server_admin, operator):
            for name in ("", f"{PREFIX}/X", "%00", "x" * 300):
                answer = client.post(f"/api/prefixes/{name}")
                assert _is(answer, 400, 102)


def test_other_methods_of_a_prefix_are_not_served(made: HttpsNode) -> None:
    with made.plain() as client:
        for method in ("GET", "PUT"):
            answer = client.request(method, "/api/prefixes/88.1.1")
            assert answer.status_code == 405
            assert answer.headers["allow"] == "POST, DELETE, OPTIONS"
