"""Logging in on a connection, as the SDKs of the Chinese field do it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from metrics.dimension import (
    CHANNEL_NATIVE_HTTP,
)
from node.native_challenge import NONCE_SIZE_BYTES
from node.native_peer import LOGINS_PENDING_MAX, Peer
from node.pending_challenges import CHALLENGE_PATIENCE_S
from resolver.response_code import ResponseCode
from resolver.wire import (
    DigestAlgorithm,
    Opcode,
    ResolutionRequest,
)
from tests.conftest import Stores
from tests.native_asking import (
    ITEM,
    OWNER,
    OWNER_BY_KEY,
    STRANGER,
    admin,
    asking,
    code,
    creating,
    indexes_of,
    logged_in,
    login,
    on_handle,
    prepared_node,
    secret,
)
from tests.native_node import (
    KEYS,
    PREFIX,
    NativeNode,
    answer_with_key,
    answer_with_secret,
    challenge_of,
    connection,
    datagram,
    public_key,
    request,
)


@pytest.fixture
async def node(database_url: str, stores: Stores, tmp_path: Path) -> AsyncIterator[NativeNode]:
    async with prepared_node(database_url, stores.redis_url, tmp_path) as running:
        yield running


# Logging in.


@pytest.mark.parametrize("session_id", [0, 10_001])
async def test_a_login_is_challenged_under_the_number_of_the_client(
    node: NativeNode, session_id: int
) -> None:
    peer, asked = connection(), login(session_id=session_id)
    challenge = await node.ask(asked, peer)
    assert (challenge.opcode, code(challenge)) == (
        Opcode.LOGIN_ID_SYSTEM,
        ResponseCode.AUTHENTICATION_NEEDED,
    )
    named = challenge.envelope.session_id
    assert named == session_id if session_id else named > 10_001
    assert len(challenge_of(challenge)) == NONCE_SIZE_BYTES + DigestAlgorithm.SHA256.size_bytes
    reply = await node.ask(answer_with_key(challenge, OWNER_BY_KEY), peer)
    assert (reply.opcode, code(reply)) == (Opcode.LOGIN_ID_SYSTEM, ResponseCode.SUCCESS)
    assert reply.envelope.session_id == named
    assert peer.identity == OWNER_BY_KEY


async def test_the_older_login_names_its_key_as_a_question(node: NativeNode) -> None:
    body = ResolutionRequest(KEYS, indexes=(301,)).to_wire()
    asked, peer = request(Opcode.LOGIN_ID_SYSTEM_OLD, body), connection()
    reply = await node.ask(answer_with_key(await node.ask(asked, peer), OWNER_BY_KEY), peer)
    assert (reply.opcode, code(reply)) == (Opcode.LOGIN_ID_SYSTEM_OLD, ResponseCode.SUCCESS)


async def test_only_the_connection_is_logged_in(node: NativeNode) -> None:
    await node.put(f"0.NA/{PREFIX}", admin(OWNER_BY_KEY))
    peer = await logged_in(node)
    assert code(await node.ask(creating(f"{PREFIX}/NEW"), peer)) == ResponseCode.SUCCESS
    other = await node.ask(creating(f"{PREFIX}/NEW2"))
    assert code(other) == ResponseCode.AUTHENTICATION_NEEDED


async def test_two_connections_may_use_the_same_number(node: NativeNode) -> None:
    peers = connection(), connection()
    challenges = [await node.ask(login(), peer) for peer in peers]
    for peer, challenge in zip(peers, challenges, strict=True):
        reply = await node.ask(answer_with_key(challenge, OWNER_BY_KEY), peer)
        assert code(reply) == ResponseCode.SUCCESS


async def test_a_failed_login_is_told_to_log_in_first(node: NativeNode) -> None:
    peer = connection()
    challenge = await node.ask(login(), peer)
    wrong = await node.ask(answer_with_secret(challenge, OWNER, b"wrong"), peer)
    assert (wrong.opcode, code(wrong)) == (
        Opcode.LOGIN_ID_SYSTEM,
        ResponseCode.AUTHENTICATION_FAILED,
    )
    reply = await node.ask(creating(f"{PREFIX}/NEW"), peer)
    assert code(reply) == ResponseCode.LOGIN_FIRST


async def test_nobody_logs_in_for_another_handle(node: NativeNode) -> None:
    peer = connection()
    challenge = await node.ask(login(OWNER_BY_KEY), peer)
    reply = await node.ask(answer_with_secret(challenge, STRANGER), peer)
    assert code(reply) == ResponseCode.AUTHENTICATION_FAILED
    assert peer.identity is None


async def test_a_login_ends_with_its_key(node: NativeNode) -> None:
    peer = await logged_in(node, OWNER)
    await node.put(KEYS, secret(300, b"another"), public_key(301))
    asked = on_handle(Opcode.DELETE_HANDLE, ITEM)
    assert code(await node.ask(asked, peer)) == ResponseCode.RELOGIN
    assert code(await node.ask(asked, peer)) == ResponseCode.LOGIN_FIRST
    assert await node.records.fetch(ITEM) is not None


async def test_a_login_shows_public_values_where_private_ones_are_not_allowed(
    node: NativeNode,
) -> None:
    peer = await logged_in(node, STRANGER)
    assert indexes_of(await node.ask(asking(flags=0), peer)) == [1, 100, 102]
    only_hidden = await node.ask(asking(flags=0, indexes=(2,)), peer)
    assert code(only_hidden) == ResponseCode.INVALID_ADMIN
    owner = await logged_in(node, OWNER)
    assert indexes_of(await node.ask(asking(flags=0), owner)) == [1, 2, 100, 102]


async def test_a_datagram_cannot_log_in(node: NativeNode) -> None:
    for peer in (datagram(), Peer("192.0.2.7", CHANNEL_NATIVE_HTTP)):
        reply = await node.ask(login(), peer)
        assert code(reply) == ResponseCode.OPERATION_NOT_SUPPORTED


async def test_logins_that_wait_are_few(node: NativeNode) -> None:
    peer = connection()
    challenges = [
        await node.ask(login(session_id=10_000 + number), peer)
        for number in range(LOGINS_PENDING_MAX + 1)
    ]
    assert len(peer.logins) == LOGINS_PENDING_MAX
    first = await node.ask(answer_with_key(challenges[0], OWNER_BY_KEY), peer)
    assert code(first) == ResponseCode.AUTHENTICATION_TIMEOUT
    last = await node.ask(answer_with_key(challenges[-1], OWNER_BY_KEY), peer)
    assert code(last) == ResponseCode.SUCCESS


async def test_an_old_login_is_not_finished(node: NativeNode) -> None:
    peer = connection()
    challenge = await node.ask(login(), peer)
    (waiting,) = peer.logins.values()
    asked_at_s = waiting.asked_at_s - CHALLENGE_PATIENCE_S - 1
    peer.keep_login(10_001, replace(waiting, asked_at_s=asked_at_s))
    reply = await node.ask(answer_with_key(challenge, OWNER_BY_KEY), peer)
    assert code(reply) == ResponseCode.AUTHENTICATION_TIMEOUT
    assert peer.identity is None
