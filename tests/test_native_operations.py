"""Challenges, and the operations of administrators, at the native door."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from metrics.dimension import (
    CHANNEL_NATIVE_HTTP,
)
from node.native_administration import LIST_MESSAGE_SIZE_BYTES_MAX
from node.native_peer import Peer
from resolver.record import HandleValue, Reference
from resolver.response_code import ResponseCode
from resolver.wire import (
    ChallengeAnswer,
    CreationResponse,
    HandleList,
    IndexesRequest,
    Message,
    Opcode,
    OpFlag,
    Pbkdf2Answer,
    SignatureAnswer,
    ValuesRequest,
    Verification,
    VerificationRequest,
    response_body,
)
from tests.conftest import Stores
from tests.native_asking import (
    ITEM,
    NOBODY,
    OWNER,
    SERVER_ADMIN,
    STRANGER,
    URL,
    admin,
    asking,
    code,
    creating,
    indexes_of,
    is_signed,
    on_handle,
    prepared_node,
)
from tests.native_node import (
    KEYS,
    OWN_PREFIX,
    PREFIX,
    SECRET,
    USUAL,
    NativeNode,
    answer_with_secret,
    client_key,
    datagram,
    request,
    said,
)


@pytest.fixture
async def node(database_url: str, stores: Stores, tmp_path: Path) -> AsyncIterator[NativeNode]:
    async with prepared_node(database_url, stores.redis_url, tmp_path) as running:
        yield running


# Challenges.


async def test_a_challenge_is_answered_once(node: NativeNode) -> None:
    answer = answer_with_secret(await node.ask(creating(f"{PREFIX}/NEW")), OWNER)
    assert said(await node.ask(answer)) == CreationResponse(f"{PREFIX}/NEW")
    again = await node.ask(answer)
    assert (again.opcode, code(again)) == (
        Opcode.RESPONSE_TO_CHALLENGE,
        ResponseCode.AUTHENTICATION_TIMEOUT,
    )


async def test_a_wrong_answer_ends_its_challenge(node: NativeNode) -> None:
    challenge = await node.ask(creating(f"{PREFIX}/NEW"))
    wrong = await node.ask(answer_with_secret(challenge, OWNER, b"wrong"))
    assert (wrong.opcode, code(wrong)) == (
        Opcode.CREATE_HANDLE,
        ResponseCode.AUTHENTICATION_FAILED,
    )
    late = await node.ask(answer_with_secret(challenge, OWNER))
    assert code(late) == ResponseCode.AUTHENTICATION_TIMEOUT
    assert await node.records.fetch(f"{PREFIX}/NEW") is None


async def test_an_answer_of_an_unknown_kind_is_an_error_of_authentication(
    node: NativeNode,
) -> None:
    challenge = await node.ask(creating(f"{PREFIX}/NEW"))
    body = ChallengeAnswer("HS_CERT", Reference(KEYS, 300), b"").to_wire()
    session_id = challenge.envelope.session_id
    reply = await node.ask(request(Opcode.RESPONSE_TO_CHALLENGE, body, session_id=session_id))
    assert code(reply) == ResponseCode.AUTHENTICATION_ERROR


async def test_the_digest_comes_with_the_answer_where_it_is_wanted(node: NativeNode) -> None:
    asked = asking(flags=USUAL | OpFlag.RRDG)
    assert response_body(await node.ask(asked))[1] == asked.digest()
    missing = asking(f"{PREFIX}/NONE", USUAL | OpFlag.RRDG)
    assert response_body(await node.ask(missing))[1] == missing.digest()
    challenged = creating(f"{PREFIX}/NEW", flags=USUAL | OpFlag.RRDG)
    answer = answer_with_secret(await node.ask(challenged), OWNER)
    assert response_body(await node.ask(answer))[1] == answer.digest()


async def test_anybody_may_ask_whether_an_answer_is_right(node: NativeNode) -> None:
    nonce, digest = secrets.token_bytes(16), secrets.token_bytes(32)
    for given, is_valid in ((SECRET, True), (b"wrong", False)):
        signed = Pbkdf2Answer.of(given, nonce + digest, b"salt", iterations=10).to_wire()
        # With the byte that names the algorithm, as specified, and without, as recorded.
        for tag in (b"\x03", b""):
            body = VerificationRequest(Reference(KEYS, 300), nonce, tag + digest, signed)
            reply = await node.ask(request(Opcode.VERIFY_CHALLENGE, body.to_wire()))
            assert said(reply) == Verification(is_valid)


async def test_an_answer_with_a_public_key_is_verified_too(node: NativeNode) -> None:
    nonce, digest = secrets.token_bytes(16), secrets.token_bytes(20)
    signature = client_key().sign(nonce + digest, padding.PKCS1v15(), hashes.SHA256())
    signed = SignatureAnswer("SHA-256", signature).to_wire()
    for index, is_valid in ((301, True), (300, False)):
        body = VerificationRequest(Reference(KEYS, index), nonce, digest, signed).to_wire()
        reply = await node.ask(request(Opcode.VERIFY_CHALLENGE, body))
        assert said(reply) == Verification(is_valid)


# Operations of administrators.


async def test_what_is_there_or_missing_is_said_before_a_challenge(node: NativeNode) -> None:
    modified = ValuesRequest(ITEM, (replace(URL, index=77),)).to_wire()
    assert code(await node.ask(creating(ITEM))) == ResponseCode.HANDLE_ALREADY_EXISTS
    reply = await node.ask(request(Opcode.MODIFY_VALUE, modified))
    assert code(reply) == ResponseCode.VALUES_NOT_FOUND
    elsewhere = await node.ask(creating("10.1000/NEW"))
    assert code(elsewhere) == ResponseCode.SERVER_NOT_RESPONSIBLE


async def test_an_overwriting_creation_is_challenged_and_replaces_the_record(
    node: NativeNode,
) -> None:
    values = (replace(URL, data=b"http://b.example/"), admin(OWNER))
    asked = creating(ITEM, *values, flags=USUAL | OpFlag.OVRW)
    assert code(await node.answered_as(OWNER, asked)) == ResponseCode.SUCCESS
    record = await node.records.fetch(ITEM)
    assert record is not None
    assert next(value.data for value in record.values) == b"http://b.example/"


async def test_values_are_added_changed_and_removed(node: NativeNode) -> None:
    def of_values(opcode: int, value: HandleValue, flags: int = USUAL) -> Message:
        return request(opcode, ValuesRequest(ITEM, (value,)).to_wire(), flags)

    new = replace(URL, index=9)
    for asked, expected in (
        (of_values(Opcode.ADD_VALUE, new), ResponseCode.SUCCESS),
        (of_values(Opcode.ADD_VALUE, new), ResponseCode.VALUE_ALREADY_EXISTS),
        (of_values(Opcode.ADD_VALUE, new, USUAL | OpFlag.OVRW), ResponseCode.SUCCESS),
        (of_values(Opcode.MODIFY_VALUE, replace(new, data=b"z")), ResponseCode.SUCCESS),
    ):
        assert code(await node.answered_as(OWNER, asked)) == expected
    record = await node.records.fetch(ITEM)
    assert record is not None
    (changed,) = (value for value in record.values if value.index == 9)
    assert changed.data == b"z"
    # The time is that of the server, whatever the client says.
    assert changed.timestamp_s > URL.timestamp_s
    removed = request(Opcode.REMOVE_VALUE, IndexesRequest(ITEM, (9,)).to_wire())
    assert code(await node.answered_as(OWNER, removed)) == ResponseCode.SUCCESS
    assert code(await node.answered_as(OWNER, removed)) == ResponseCode.VALUES_NOT_FOUND


async def test_who_may_not_is_told_why(node: NativeNode) -> None:
    asked = on_handle(Opcode.DELETE_HANDLE, ITEM)
    assert code(await node.answered_as(STRANGER, asked)) == ResponseCode.INVALID_ADMIN
    listing = on_handle(Opcode.LIST_HANDLES, f"0.NA/{PREFIX}")
    assert code(await node.answered_as(STRANGER, listing)) == ResponseCode.INVALID_ADMIN
    home = on_handle(Opcode.HOME_NA, f"0.NA/{PREFIX}.7")
    assert code(await node.answered_as(OWNER, home)) == ResponseCode.INVALID_ADMIN
    assert code(await node.answered_as(OWNER, asked)) == ResponseCode.SUCCESS
    assert code(await node.answered_as(OWNER, asked)) == ResponseCode.HANDLE_NOT_FOUND


async def test_a_written_record_is_answered_at_once(node: NativeNode) -> None:
    assert code(await node.ask(asking(f"{PREFIX}/NEW"))) == ResponseCode.HANDLE_NOT_FOUND
    await node.answered_as(OWNER, creating(f"{PREFIX}/NEW"))
    assert indexes_of(await node.ask(asking(f"{PREFIX}/NEW"))) == [1, 100]
    await node.answered_as(OWNER, on_handle(Opcode.DELETE_HANDLE, f"{PREFIX}/NEW"))
    assert code(await node.ask(asking(f"{PREFIX}/NEW"))) == ResponseCode.HANDLE_NOT_FOUND


async def test_old_clients_read_the_name_of_what_was_created_only_if_it_was_minted(
    node: NativeNode,
) -> None:
    for minor, flags, is_named in (
        (11, USUAL, True),
        (10, USUAL | OpFlag.OVRW, False),
        (10, USUAL | OpFlag.MINT, True),
    ):
        asked = _in_version(creating(f"{PREFIX}/NEW-", flags=flags), minor)
        answer = _in_version(answer_with_secret(await node.ask(asked), OWNER), minor)
        body = said(await node.ask(answer))
        assert isinstance(body, CreationResponse)
        assert (body.handle is not None) is is_named
        if is_named:
            assert str(body.handle).startswith(f"{PREFIX}/NEW-")


def _in_version(message: Message, minor: int) -> Message:
    envelope = replace(message.envelope, minor=minor, suggested_minor=minor)
    return replace(message, envelope=envelope)


async def _long_list(node: NativeNode) -> list[str]:
    """Identifiers that fill more than two messages; their names."""
    stem = "x" * 200
    names = [f"{PREFIX}/LIST-{stem}-{number:04d}" for number in range(700)]
    for place in range(0, len(names), 50):
        await asyncio.gather(*(node.put(name, URL) for name in names[place : place + 50]))
    assert sum(map(len, names)) > 2 * LIST_MESSAGE_SIZE_BYTES_MAX
    return names


async def test_a_long_list_comes_in_several_messages_on_a_connection_and_only_there(
    node: NativeNode,
) -> None:
    names = await _long_list(node)
    asked = on_handle(Opcode.LIST_HANDLES, f"0.NA/{PREFIX}", USUAL | OpFlag.CERT)
    replies = await node.ask_all(answer_with_secret(await node.ask(asked), OWNER))
    assert [bool(reply.flags & OpFlag.CONT) for reply in replies] == [True, True, False]
    found: list[str] = []
    for reply in replies:
        body = said(reply)
        assert isinstance(body, HandleList)
        assert reply.opcode == Opcode.LIST_HANDLES
        assert is_signed(node, reply)
        found += body.handles
    assert found == sorted([*names, KEYS, NOBODY, ITEM, SERVER_ADMIN.handle], key=str.upper)
    for peer in (datagram(), Peer("192.0.2.7", CHANNEL_NATIVE_HTTP)):
        answer = answer_with_secret(await node.ask(asked, peer), OWNER)
        reply = await node.ask(answer, peer)
        assert code(reply) == ResponseCode.OPERATION_NOT_SUPPORTED


async def test_prefixes_are_listed_and_homed_by_the_administrator_of_the_server(
    node: NativeNode,
) -> None:
    new = f"0.NA/{PREFIX}.7"
    home = await node.answered_as(SERVER_ADMIN, on_handle(Opcode.HOME_NA, new))
    assert code(home) == ResponseCode.SUCCESS
    listing = on_handle(Opcode.LIST_HOMED_NAS, "/")
    body = said(await node.answered_as(SERVER_ADMIN, listing))
    assert body == HandleList((f"0.NA/{OWN_PREFIX}", f"0.NA/{PREFIX}", new))
    derived = on_handle(Opcode.LIST_DERIVED_PREFIXES, f"0.NA/{OWN_PREFIX}")
    found = await node.answered_as(SERVER_ADMIN, derived)
    # Of DO-IRP 3.0: read as a list by whoever knows the operation.
    assert said(found) == HandleList((f"0.NA/{PREFIX}",))
    gone = await node.answered_as(SERVER_ADMIN, on_handle(Opcode.UNHOME_NA, new))
    assert code(gone) == ResponseCode.SUCCESS
