"""Sessions over HTTP: known to every worker, proved once, never too many, never too long."""

import base64
import contextlib
import hmac
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from redis.asyncio import Redis

from node.administrators import PUBLIC_KEY, SECRET_KEY
from node.http_sessions import (
    HTTP_CHALLENGE_PATIENCE_S,
    HTTP_SESSION_IDLE_MAX_S,
    HttpSession,
    HttpSessions,
    Proven,
)
from node.identity import Identity
from resolver.errors import CacheUnavailableError
from resolver.hot_redis import RedisCache
from tests import https_node
from tests.conftest import Stores
from tests.https_node import (
    CNONCE,
    OWNER,
    PREFIX,
    SECRET,
    STRANGER,
    HttpsNode,
    basic,
    handle_header,
    text,
)
from tests.listening_cache import emptied_redis, listening_cache, none_left, only_key

ADMIN = Identity("88.102.5/管理:员%3A", 300)
PROVEN = Proven(ADMIN, SECRET_KEY, b"secret")


@pytest.fixture
def url(stores: Stores) -> str:
    return f"{stores.redis_url}&db=13"


@pytest.fixture
async def store(url: str) -> "AsyncIterator[Redis]":
    async with emptied_redis(url) as connection:
        yield connection


@pytest.fixture
async def cache(url: str, store: Redis) -> AsyncIterator[RedisCache]:
    async with listening_cache(url) as opened:
        yield opened


@pytest.fixture
def sessions(cache: RedisCache) -> HttpSessions:
    return HttpSessions(cache)


async def left_ms(store: Redis) -> int:
    """How long the only session there is stays if nothing happens."""
    return int(await store.pttl(await only_key(store, "*:h:*")))


# In Redis


async def test_a_session_is_known_to_every_worker(sessions: HttpSessions, url: str) -> None:
    session = await sessions.open()
    assert (len(session.session_id), len(session.nonce)) == (32, 16)
    assert (session.identity, session.kind) == (None, "")
    async with listening_cache(url) as other:
        assert await HttpSessions(other).get(session.session_id) == session
        proved = await HttpSessions(other).authenticated(session, PROVEN)
    assert proved is not None
    assert (proved.identity, proved.kind, proved.nonce) == (ADMIN, SECRET_KEY, session.nonce)
    assert await sessions.get(session.session_id) == proved


async def test_a_session_knows_the_key_that_proved_it(sessions: HttpSessions) -> None:
    proved = await sessions.authenticated(await sessions.open(), PROVEN)
    assert proved is not None
    assert proved.is_of_key(b"secret")
    assert not proved.is_of_key(b"Secret")
    assert not proved.is_of_key(b"")
    # A session of nobody is of no key.
    assert not (await sessions.open()).is_of_key(b"")


async def test_redis_knows_neither_ids_nor_keys(sessions: HttpSessions, store: Redis) -> None:
    session = await sessions.open()
    await sessions.authenticated(session, Proven(ADMIN, PUBLIC_KEY, b"a-key-of-some-length"))
    key = await only_key(store, "*:h:*")
    kept = repr(await store.hgetall(key)) + key
    for secret in (session.session_id, "a-key-of-some-length"):
        assert secret not in kept
        assert secret not in repr(session)


async def test_ids_and_nonces_are_never_the_same(sessions: HttpSessions) -> None:
    opened = [await sessions.open() for _ in range(100)]
    assert len({one.session_id for one in opened}) == len({one.nonce for one in opened}) == 100


@pytest.mark.parametrize("session_id", ["", "x", "0" * 31, "g" * 32, "0" * 32, "A" * 32, "0" * 999])
async def test_an_id_that_nobody_was_given_opens_nothing(
    sessions: HttpSessions, session_id: str
) -> None:
    assert await sessions.get(session_id) is None
    assert not await sessions.close(session_id)


async def test_a_session_that_nobody_was_given_is_nobodys(sessions: HttpSessions) -> None:
    assert await sessions.authenticated(HttpSession("0" * 32, bytes(16)), PROVEN) is None


async def test_a_closed_session_is_gone(sessions: HttpSessions) -> None:
    session = await sessions.open()
    assert await sessions.close(session.session_id)
    assert await sessions.get(session.session_id) is None
    assert await sessions.authenticated(session, PROVEN) is None
    assert not await sessions.close(session.session_id)


async def test_who_answers_nothing_makes_room(cache: RedisCache) -> None:
    sessions = HttpSessions(cache, sessions_max=1)
    gone = await sessions.open()
    session = await sessions.open()
    assert await sessions.get(gone.session_id) is None
    assert await sessions.authenticated(gone, PROVEN) is None
    assert await sessions.authenticated(session, PROVEN) is not None
    with pytest.raises(CacheUnavailableError, match="no room for another session"):
        await sessions.open()
    assert await sessions.get(session.session_id) is not None


async def test_a_session_ends_some_time_after_its_last_use(
    sessions: HttpSessions, store: Redis
) -> None:
    session = await sessions.open()
    assert 0 < await left_ms(store) <= 1_000 * HTTP_CHALLENGE_PATIENCE_S
    await sessions.authenticated(session, PROVEN)
    assert (
        1_000 * HTTP_CHALLENGE_PATIENCE_S < await left_ms(store) <= 1_000 * HTTP_SESSION_IDLE_MAX_S
    )
    await store.pexpire(await only_key(store, "*:h:*"), 5_000)
    assert await sessions.get(session.session_id) is not None
    assert await left_ms(store) > 5_000


async def test_asking_does_not_make_an_unanswered_challenge_last(
    sessions: HttpSessions, store: Redis
) -> None:
    session = await sessions.open()
    await store.pexpire(await only_key(store, "*:h:*"), 5_000)
    assert await sessions.get(session.session_id) is not None
    assert await left_ms(store) <= 5_000


async def test_however_busy_no_session_lives_for_ever(cache: RedisCache, store: Redis) -> None:
    sessions = HttpSessions(cache, life_s=0.2)
    session = await sessions.open()
    await sessions.authenticated(session, PROVEN)
    await none_left(store, "*:h:*")
    assert await sessions.get(session.session_id) is None


async def test_without_redis_there_are_no_sessions(url: str) -> None:
    async with listening_cache(url) as cache:
        sessions = HttpSessions(cache)
        session = await sessions.open()
    with pytest.raises(CacheUnavailableError):
        await sessions.open()
    with pytest.raises(CacheUnavailableError):
        await sessions.get(session.session_id)


# On a node


@pytest.fixture(scope="module")
def made(scratch: Path) -> Iterator[HttpsNode]:
    with https_node.https_node(scratch / "sessions", IDNODE_WORKERS="2") as node:
        yield node


@pytest.fixture
def client(made: HttpsNode) -> Iterator[httpx.Client]:
    # Each request on a connection of its own: now this worker answers, now that one.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(
        base_url=made.url, verify=made.context(), limits=limits, timeout=60
    ) as opened:
        yield opened


def opened(client: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = client.post("/api/sessions", **{"json": {}, **more})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/sessions/this"
    found: dict[str, Any] = answer.json()
    return found


def answered(
    session: dict[str, Any], secret: str = SECRET, identity: str = OWNER
) -> dict[str, str]:
    """The fields that prove who the owner is."""
    challenge = base64.b64decode(session["nonce"]) + CNONCE
    return {
        "sessionId": session["sessionId"],
        "id": identity,
        "type": "HS_SECKEY",
        "cnonce": text(CNONCE),
        "alg": "HMAC-SHA256",
        "signature": text(hmac.digest(secret.encode(), challenge, "sha256")),
    }


def may_write(client: httpx.Client, session: dict[str, Any]) -> bool:
    """True if the owner of the session is believed."""
    header = handle_header(sessionId=session["sessionId"])
    answer = client.put(f"/api/handles/{PREFIX}/SESSION", json=[], headers=header)
    assert answer.status_code in (200, 201, 401), answer.text
    return answer.status_code != 401


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("place", ["json", "data", "header"])
def test_a_session_is_proved_once_and_then_used(
    client: httpx.Client, method: str, place: str
) -> None:
    session = opened(client)
    assert session.keys() == {"sessionId", "nonce"}
    assert not may_write(client, session)
    fields = answered(session)
    sent: dict[str, Any] = {place: fields}
    if place == "header":
        sent = {"headers": handle_header(**fields)}
    answer = client.request(method, "/api/sessions/this", **sent)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {**session, "authenticated": True, "id": OWNER}
    for _ in range(4):
        assert may_write(client, session)


def test_a_session_is_shown_to_who_names_it(client: httpx.Client) -> None:
    session = opened(client)
    header = handle_header(sessionId=session["sessionId"])
    assert client.get("/api/sessions/this", headers=header).json() == session
    client.put("/api/sessions/this", json=answered(session)).raise_for_status()
    shown = client.get("/api/sessions/this", headers=header).json()
    assert shown == {**session, "authenticated": True, "id": OWNER}


def test_a_wrong_answer_leaves_the_session_as_it_was(client: httpx.Client) -> None:
    session = opened(client)
    for wrong in (
        answered(session, "other"),
        answered(session) | {"signature": "%"},
        {"sessionId": session["sessionId"]},
    ):
        answer = client.put("/api/sessions/this", json=wrong)
        assert (answer.status_code, answer.content) == (401, b"")
        challenge = answer.headers.get_list("www-authenticate")[-1]
        assert f'sessionId="{session["sessionId"]}"' in challenge
        assert challenge.endswith('error="Identity not verified"')
    assert not may_write(client, session)
    client.put("/api/sessions/this", json=answered(session)).raise_for_status()
    assert may_write(client, session)


def test_a_session_becomes_anothers_only_by_proof(client: httpx.Client) -> None:
    session = opened(client, headers=basic(OWNER))
    assert (session["authenticated"], session["id"]) == (True, OWNER)
    assert may_write(client, session)
    answer = client.put("/api/sessions/this", json=answered(session, identity=STRANGER))
    assert answer.json()["id"] == STRANGER
    header = handle_header(sessionId=session["sessionId"])
    refused = client.put(f"/api/handles/{PREFIX}/SESSION", json=[], headers=header)
    assert (refused.status_code, refused.json()["responseCode"]) == (403, 400)


def test_a_wrong_password_opens_a_session_of_nobody(client: httpx.Client) -> None:
    session = opened(client, headers=basic(OWNER, "wrong"))
    assert session["error"] == "Identity not verified"
    assert "authenticated" not in session
    assert not may_write(client, session)


def test_an_ended_session_opens_nothing(client: httpx.Client) -> None:
    session = opened(client, headers=basic(OWNER))
    header = handle_header(sessionId=session["sessionId"])
    ended = client.delete("/api/sessions/this", headers=header)
    assert (ended.status_code, ended.content) == (204, b"")
    assert "content-length" not in ended.headers
    for method in ("GET", "DELETE"):
        assert client.request(method, "/api/sessions/this", headers=header).status_code == 401
    assert not may_write(client, session)
    answer = client.put("/api/sessions/this", json=answered(session))
    # Asked anew, with another session; nobody has said anything that could be wrong.
    assert answer.status_code == 401
    assert "error" not in answer.headers["www-authenticate"]
    assert session["sessionId"] not in answer.headers["www-authenticate"]


def test_a_key_that_is_changed_ends_its_sessions(made: HttpsNode, client: httpx.Client) -> None:
    path = f"/api/handles/{PREFIX}/KEYS"
    identity = f"1:{PREFIX}/KEYS"
    record = [https_node.secret_value(1, "old")]
    with made.factory.operator as operator:
        operator.put(path, json=record).raise_for_status()
        session = opened(client, headers=basic(identity, "old"))
        header = handle_header(sessionId=session["sessionId"])
        assert client.get("/api/sessions/this", headers=header).json()["id"] == identity
        operator.put(path, json=[https_node.secret_value(1, "new")]).raise_for_status()
        assert client.get("/api/sessions/this", headers=header).status_code == 401
        operator.put(path, json=record).raise_for_status()
        # It has ended for good.
        assert client.get("/api/sessions/this", headers=header).status_code == 401


def test_a_challenge_is_answered_on_another_connection(client: httpx.Client) -> None:
    for _ in range(4):
        answer = client.put(f"/api/handles/{PREFIX}/SESSION", json=[])
        assert answer.status_code == 401
        fields = https_node.fields_of(answer)
        header = handle_header(**answered(fields))
        assert client.put(f"/api/handles/{PREFIX}/SESSION", json=[], headers=header).is_success


def test_over_plain_http_there_are_no_sessions(made: HttpsNode) -> None:
    with made.plain(basic(OWNER)) as plain:
        for method, path in (
            ("POST", "/api/sessions"),
            ("GET", "/api/sessions"),
            ("GET", "/api/sessions/this"),
            ("PUT", "/api/sessions/this"),
            ("POST", "/api/sessions/this"),
            ("DELETE", "/api/sessions/this"),
        ):
            answer = plain.request(method, path)
            assert (answer.status_code, answer.content) == (403, b"")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b'{"id": {}}', b"\xff"])
def test_a_body_that_cannot_be_read_is_refused(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/api/sessions"), ("PUT", "/api/sessions/this")):
        answer = client.request(method, path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["responseCode"]) == (400, 4)


def test_a_body_that_is_too_long_is_refused(client: httpx.Client) -> None:
    answer = client.post("/api/sessions", json={"cnonce": "A" * 20_000})
    assert answer.status_code == 413


def test_a_session_may_be_asked_for_without_a_body(client: httpx.Client) -> None:
    for method in ("GET", "POST"):
        assert client.request(method, "/api/sessions").json().keys() == {"sessionId", "nonce"}


@contextlib.contextmanager
def frozen_redis(made: HttpsNode) -> Iterator[Callable[[], None]]:
    """What stops the node's Redis; it goes on at the end."""
    with redis.Redis.from_url(made.node.run_info.redis_url) as connection:
        pid = int(connection.info("server")["process_id"])
    try:
        yield lambda: os.kill(pid, signal.SIGSTOP)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_without_redis_passwords_still_prove_who_asks(scratch: Path) -> None:
    with (
        https_node.https_node(scratch / "no-redis") as made,
        made.client() as client,
        frozen_redis(made) as freeze,
    ):
        session = opened(client, headers=basic(OWNER))
        freeze()
        path = f"/api/handles/{PREFIX}/SESSION"
        answer = client.put(path, json=[], headers=handle_header(sessionId=session["sessionId"]))
        assert (answer.status_code, answer.json()["responseCode"]) == (503, 3)
        assert client.post("/api/sessions", json={}).status_code == 503
        asked = client.put(path, json=[])
        assert asked.status_code == 401
        assert asked.headers.get_list("www-authenticate") == ['Basic realm="handle"']
        assert client.put(path, json=[], headers=basic(OWNER)).status_code in (200, 201)
        assert client.get(path).status_code == 200
