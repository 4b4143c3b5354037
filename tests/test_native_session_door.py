"""Sessions of the native door: who may speak in them, and what nobody can learn of them."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from resolver.record import Reference
from resolver.response_code import ResponseCode
from resolver.wire import (
    ENVELOPE_SIZE_BYTES,
    Envelope,
    HandleRequest,
    Opcode,
    OpFlag,
    SessionSetup,
    SiteResponse,
    envelope_and_content,
)
from tests.conftest import Stores
from tests.native_asking import (
    ALL_VALUES,
    ITEM,
    OWNER,
    asking,
    authenticated_session,
    code,
    creating,
    is_signed,
    on_handle,
    prepared_node,
    text_of,
    within,
)
from tests.native_node import (
    KEYS,
    PREFIX,
    USUAL,
    NativeNode,
    answer_with_secret,
    connection,
    datagram,
    opened_session,
    request,
    said,
    session_of,
    session_setup,
)


@pytest.fixture
async def node(database_url: str, stores: Stores, tmp_path: Path) -> AsyncIterator[NativeNode]:
    async with prepared_node(database_url, stores.redis_url, tmp_path) as running:
        yield running


# Sessions.


async def test_a_session_authenticates_its_first_operation_and_no_other(node: NativeNode) -> None:
    session = await opened_session(node, OWNER)
    first = await within(node, session, creating(f"{PREFIX}/NEW"))
    assert code(first) == ResponseCode.AUTHENTICATION_NEEDED
    answer = answer_with_secret(first, OWNER)
    (reply,) = await node.door.answer(answer.to_wire(), connection())
    assert code(session.read(reply)) == ResponseCode.SUCCESS
    second = await within(node, session, on_handle(Opcode.DELETE_HANDLE, f"{PREFIX}/NEW"))
    assert code(second) == ResponseCode.SUCCESS


async def test_nobody_administers_with_the_number_of_a_session_alone(node: NativeNode) -> None:
    session = await authenticated_session(node)
    asked = on_handle(Opcode.DELETE_HANDLE, ITEM)
    bare = replace(asked, envelope=replace(asked.envelope, session_id=session.session_id))
    forged = bare.authenticated(bytes(32), 1)
    for message in (bare, forged):
        reply = await node.ask(message)
        assert code(reply) == ResponseCode.INVALID_CREDENTIAL
        assert text_of(reply) == "Session request missing MAC code."
    private = asking(flags=ALL_VALUES)
    private = replace(private, envelope=replace(private.envelope, session_id=session.session_id))
    assert code(await node.ask(private)) == ResponseCode.INVALID_CREDENTIAL
    assert code(await within(node, session, asked)) == ResponseCode.SUCCESS


async def test_a_message_of_a_session_is_taken_once(node: NativeNode) -> None:
    session = await authenticated_session(node)
    data = session.coded(on_handle(Opcode.LIST_HANDLES, PREFIX))
    assert code(await node.ask(data)) == ResponseCode.SUCCESS
    assert code(await node.ask(data)) == ResponseCode.SESSION_MESSAGE_REJECTED


async def test_a_session_that_is_unknown_is_said_to_be(node: NativeNode) -> None:
    session = await opened_session(node, OWNER)
    await node.sessions.close(session.session_id)
    for encrypts in (False, True):
        reply = await node.ask(session.coded(asking(), encrypts=encrypts))
        assert code(reply) == ResponseCode.SESSION_TIMEOUT
        assert not reply.envelope.is_encrypted


async def test_a_session_is_ended_by_its_owner_only(node: NativeNode) -> None:
    session = await opened_session(node, OWNER)
    ending = on_handle(Opcode.SESSION_TERMINATE, "/", USUAL | OpFlag.CERT)
    bare = replace(ending, envelope=replace(ending.envelope, session_id=session.session_id))
    (reply,) = await node.door.answer(bare.to_wire(), connection())
    assert code(session.read(reply)) == ResponseCode.INVALID_SESSION_KEY
    ended = await within(node, session, ending)
    assert code(ended) == ResponseCode.SUCCESS
    assert ended.is_authenticated_by(session.key)
    assert await node.sessions.get(session.session_id) is None
    assert code(await node.ask(ending)) == ResponseCode.SESSION_TIMEOUT


async def test_replies_carry_a_code_only_where_it_is_wanted(node: NativeNode) -> None:
    session = await opened_session(node, OWNER)
    assert (await within(node, session, asking())).credential is None
    for counter in (1, 2):
        reply = await within(node, session, asking(flags=USUAL | OpFlag.CERT))
        assert reply.is_authenticated_by(session.key)
        assert reply.credential is not None
        assert reply.credential.session_counter == counter


async def test_a_session_may_be_encrypted_message_by_message(node: NativeNode) -> None:
    session = await authenticated_session(node)
    data = session.coded(asking(flags=ALL_VALUES), encrypts=True)
    wanted = session.coded(asking(flags=USUAL | OpFlag.ENCR))
    private = session.coded(asking(flags=ALL_VALUES))
    plain = session.coded(asking())
    encrypted = []
    for message in (data, wanted, private, plain):
        (reply,) = await node.door.answer(message, datagram())
        encrypted.append(envelope_and_content(reply)[0].is_encrypted)
        assert code(session.read(reply)) == ResponseCode.SUCCESS
    assert encrypted == [True, True, True, False]


async def test_changed_encrypted_messages_tell_nothing_about_what_is_wrong(
    node: NativeNode,
) -> None:
    session = await authenticated_session(node)
    deleting = on_handle(Opcode.DELETE_HANDLE, ITEM)
    data = session.coded(deleting, encrypts=True)
    session_id = session.session_id
    without_code = replace(deleting, envelope=replace(deleting.envelope, session_id=session_id))
    answer = replace(without_code, opcode=Opcode.RESPONSE_TO_CHALLENGE)
    reply_like = replace(without_code, response_code=1)
    seen = set()
    changed = [_flipped(data, place) for place in range(ENVELOPE_SIZE_BYTES, len(data))]
    made = [session.sealed(one) for one in (without_code, answer, reply_like)]
    for message in (*changed, *made, data[:ENVELOPE_SIZE_BYTES] + bytes(7)):
        size_bytes = len(message) - ENVELOPE_SIZE_BYTES
        head = replace(Envelope.from_wire(message), message_size_bytes=size_bytes)
        message = head.to_wire() + message[ENVELOPE_SIZE_BYTES:]
        (reply,) = await node.door.answer(message, datagram())
        seen.add(reply[ENVELOPE_SIZE_BYTES:])
    (only,) = seen
    assert b"Session request missing MAC code." in only
    assert await node.records.fetch(ITEM) is not None
    assert code(await node.ask(asking())) == ResponseCode.SUCCESS


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]


@pytest.mark.parametrize("mode", [1, 3])
async def test_sessions_are_agreed_on_by_diffie_and_hellman_only(
    node: NativeNode, mode: int
) -> None:
    key_at = Reference(KEYS, 301) if mode == 3 else None
    body = SessionSetup(mode, 600, Reference(KEYS, 300), b"" if key_at else b"key", key_at)
    reply = await node.ask(request(Opcode.SESSION_SETUP, body.to_wire()))
    assert code(reply) == ResponseCode.INVALID_SESSION_SETUP


async def test_a_key_that_everybody_knows_is_no_session(node: NativeNode) -> None:
    for x in (0, 1 << 200):
        setup = session_setup(x, OWNER)
        reply = await node.ask(setup)
        expected = ResponseCode.SUCCESS if x else ResponseCode.INVALID_SESSION_SETUP
        assert code(reply) == expected


async def test_the_setup_of_a_session_is_signed_by_the_key_of_the_site(node: NativeNode) -> None:
    x = secrets.randbits(160)
    reply = await node.ask(session_setup(x, OWNER), datagram())
    assert is_signed(node, reply)
    assert reply.envelope.session_id == session_of(reply, x).session_id
    # The client takes the key from the site that it knows.
    site = said(await node.ask(request(Opcode.GET_SITE_INFO, HandleRequest().to_wire())))
    assert isinstance(site, SiteResponse)
    assert site.site.servers[0].public_key == node.node_key.public_key
