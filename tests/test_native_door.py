"""The native door: questions, private values, and what is not answered as it was asked."""

import random
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from metrics.dimension import (
    CALLER_ANONYMOUS,
    CALLER_PROBE,
    CHANNEL_NATIVE_HTTP,
    CHANNEL_NATIVE_TCP,
    CHANNEL_NATIVE_UDP,
)
from node.data_folder import DataFolder
from node.embedded_valkey import EmbeddedValkey
from node.identity import Identity
from node.native_peer import Peer
from registry.records_memory import MemoryRecords
from resolver.identifier import from_text
from resolver.prefix_directory import PrefixState
from resolver.record import HandleValue, Reference
from resolver.response_code import ResponseCode
from resolver.wire import (
    COMPRESSED,
    ChallengeAnswer,
    Envelope,
    Message,
    Opcode,
    OpFlag,
    Pbkdf2Answer,
    Referral,
    ResolutionResponse,
    SignatureAnswer,
    VerificationRequest,
    plain_answer,
    plain_resolution,
    public_values,
    sealed,
)
from tests.conftest import Stores
from tests.native_asking import (
    ALL_VALUES,
    HIDDEN,
    ITEM,
    NOBODY,
    OWNER,
    OWNER_BY_KEY,
    READER,
    STRANGER,
    URL,
    admin,
    asking,
    authenticated_session,
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
    AUTHOR,
    KEYS,
    OWN_PREFIX,
    PREFIX,
    SECRET,
    USUAL,
    ClientSession,
    NativeNode,
    answer_with_key,
    answer_with_secret,
    connection,
    datagram,
    native_node,
    opened_session,
    request,
    said,
    session_setup,
)


@pytest.fixture
async def node(database_url: str, stores: Stores, tmp_path: Path) -> AsyncIterator[NativeNode]:
    async with prepared_node(database_url, stores.redis_url, tmp_path) as running:
        yield running


# Resolution.


async def test_a_plain_question_gets_the_answer_of_the_fast_path(node: NativeNode) -> None:
    question = asking().to_wire()
    (answer,) = await node.door.answer(question, connection())
    plain = plain_resolution(question)
    assert plain is not None
    record = await node.records.fetch(ITEM)
    assert record is not None
    values = public_values(record.wire, record.stamp_s)
    assert answer == plain_answer(question, *plain, values, node.site.site.serial)


async def test_filters_select_the_union(node: NativeNode) -> None:
    for indexes, types, found in (
        ((), (), [1, 100, 102]),
        ((1,), (), [1]),
        ((), ("url",), [1]),
        ((100,), ("URL",), [1, 100]),
        ((), ("HS_ADMIN",), [100, 102]),
        ((2,), ("URL",), [1]),  # the public ones of those
    ):
        assert indexes_of(await node.ask(asking(indexes=indexes, types=types))) == found


async def test_a_no_is_an_answer_and_counted_once(node: NativeNode) -> None:
    expected, counted = (
        Counter[str](),
        {
            ResponseCode.HANDLE_NOT_FOUND: "not_found",
            ResponseCode.SERVER_NOT_RESPONSIBLE: "not_responsible",
            ResponseCode.INVALID_HANDLE: "invalid",
        },
    )
    for handle, answer in (
        (f"{PREFIX}/NONE", ResponseCode.HANDLE_NOT_FOUND),
        (f"{PREFIX}/{'x' * 900}", ResponseCode.HANDLE_NOT_FOUND),
        (f"10.1000/{'x' * 900}", ResponseCode.SERVER_NOT_RESPONSIBLE),
        ("x" * 900, ResponseCode.SERVER_NOT_RESPONSIBLE),
        ("10.1000/1", ResponseCode.SERVER_NOT_RESPONSIBLE),
        ("", ResponseCode.INVALID_HANDLE),
        (f"{PREFIX}/a\x00", ResponseCode.INVALID_HANDLE),
        (f"{PREFIX}/\x00{'x' * 900}", ResponseCode.INVALID_HANDLE),
    ):
        assert code(await node.ask(asking(handle))) == answer
        expected[counted[answer]] += 1
        assert node.outcomes() == expected


async def test_values_that_are_not_there_are_a_code_of_their_own(node: NativeNode) -> None:
    for asked in (asking(indexes=(77,)), asking(types=("NOPE",)), asking(indexes=(2,))):
        assert code(await node.ask(asked)) == ResponseCode.VALUES_NOT_FOUND
    assert node.outcomes() == {"values_not_found": 3}


async def test_each_transport_is_counted_as_its_own_channel(node: NativeNode) -> None:
    channels = (CHANNEL_NATIVE_UDP, CHANNEL_NATIVE_TCP, CHANNEL_NATIVE_HTTP)
    for channel in channels:
        await node.ask(asking(), Peer("192.0.2.7", channel))
    expected = {(channel, "found", CALLER_ANONYMOUS): 1 for channel in channels}
    assert node.counted() == expected


async def test_a_heartbeat_is_answered_and_no_question(node: NativeNode) -> None:
    assert code(await node.ask(asking("0"))) == ResponseCode.HANDLE_NOT_FOUND
    assert node.counted() == {(CHANNEL_NATIVE_TCP, "not_found", CALLER_PROBE): 1}


async def test_the_slashless_prefix_says_where_this_node_is(node: NativeNode) -> None:
    for prefix in (PREFIX, f"0.NA/{PREFIX}"):
        body = said(await node.ask(asking(prefix, types=("HS_SITE",))))
        assert isinstance(body, ResolutionResponse)
        assert body.handle == prefix
        assert [value.data for value in body.values] == [node.site.site.to_wire()]


async def test_an_answer_that_may_be_outdated_is_not_said_with_authority(
    database_url: str, stores: Stores, tmp_path: Path
) -> None:
    source = MemoryRecords([PREFIX])
    redis_url = stores.redis_url
    async with native_node(database_url, redis_url, tmp_path, source=source) as node:
        await source.put(from_text(ITEM), (URL,), AUTHOR, time.time())
        sure = await node.ask(asking())
        source.is_up = False
        late = await node.ask(asking())
    assert (sure.flags & OpFlag.AUTH, late.flags & OpFlag.AUTH) == (OpFlag.AUTH, 0)
    assert sure.body == late.body


async def test_a_referral_names_no_handle_and_gives_the_sites(node: NativeNode) -> None:
    site = HandleValue(1, "HS_SITE", node.site.site.to_wire(), timestamp_s=1_700_000_000)
    await node.put(f"0.NA/{PREFIX}", site, replace(site, index=2, type="HS_SITE.PREFIX"))
    node.directory.replace([PrefixState(PREFIX, hosted=False), PrefixState(OWN_PREFIX, homed=True)])
    service, prefix = await node.ask(asking()), await node.ask(asking(f"0.NA/{PREFIX}.7"))
    assert code(service) == ResponseCode.SERVICE_REFERRAL
    assert said(service) == Referral("", (site,))
    assert code(prefix) == ResponseCode.PREFIX_REFERRAL
    assert said(prefix) == Referral("", (replace(site, index=2, type="HS_SITE.PREFIX"),))
    for handle in (ITEM, f"0.NA/{PREFIX}.7"):
        reply = await node.ask(asking(handle, USUAL | OpFlag.DNRF))
        assert code(reply) == ResponseCode.SERVER_NOT_RESPONSIBLE
    assert node.outcomes() == {"referred": 2, "not_responsible": 2}


# Values that not everybody may read.


async def test_private_values_are_shown_to_who_proves_to_be_their_administrator(
    node: NativeNode,
) -> None:
    challenge = await node.ask(asking(flags=ALL_VALUES))
    assert code(challenge) == ResponseCode.AUTHENTICATION_NEEDED
    assert node.outcomes() == {}
    answers = (
        answer_with_secret(challenge, OWNER),
        answer_with_key(await node.ask(asking(flags=ALL_VALUES)), OWNER_BY_KEY),
    )
    assert indexes_of(await node.ask(answers[0], datagram())) == [1, 2, 100, 102]
    # Who has a key of that handle, but not the one that HS_ADMIN names.
    assert code(await node.ask(answers[1])) == ResponseCode.INVALID_ADMIN
    assert node.outcomes() == {"found": 1, "refused": 1}


async def test_what_public_values_answer_is_not_challenged(node: NativeNode) -> None:
    assert indexes_of(await node.ask(asking(flags=ALL_VALUES, types=("URL",)))) == [1]
    assert indexes_of(await node.ask(asking(NOBODY, USUAL))) == []


async def test_private_values_are_refused_to_everybody_else(node: NativeNode) -> None:
    for number, (identity, given, refusal) in enumerate(
        (
            (OWNER, b"wrong", ResponseCode.AUTHENTICATION_FAILED),
            (Identity(f"{PREFIX}/NONE", 300), SECRET, ResponseCode.AUTHENTICATION_FAILED),
            (Identity("10.1000/x", 300), SECRET, ResponseCode.AUTHENTICATION_FAILED),
            (Identity(KEYS, 999), SECRET, ResponseCode.AUTHENTICATION_FAILED),
            (Identity(KEYS, -1), SECRET, ResponseCode.AUTHENTICATION_FAILED),
            (STRANGER, SECRET, ResponseCode.INVALID_ADMIN),
            (READER, SECRET, ResponseCode.INSUFFICIENT_PERMISSIONS),
        ),
        start=1,
    ):
        challenge = await node.ask(asking(flags=ALL_VALUES))
        reply = await node.ask(answer_with_secret(challenge, identity, given))
        assert (reply.opcode, code(reply)) == (Opcode.RESOLUTION, refusal)
        assert node.outcomes() == {"refused": number}


async def test_index_0_is_any_key_of_the_handle(node: NativeNode) -> None:
    challenge = await node.ask(asking(flags=ALL_VALUES))
    reply = await node.ask(answer_with_secret(challenge, Identity(KEYS, 0)))
    assert indexes_of(reply) == [1, 2, 100, 102]


# What is not answered, or not as asked.


async def test_what_is_not_served_is_refused_under_its_own_number(node: NativeNode) -> None:
    for opcode in (402, 1000, 1001, 1002, 1003, 3, 999_999, -1):
        reply = await node.ask(request(opcode, bytes(4)))
        assert (reply.opcode, code(reply)) == (opcode, ResponseCode.OPERATION_NOT_SUPPORTED)


async def test_a_damaged_body_is_refused_under_its_own_number(node: NativeNode) -> None:
    for opcode in (2, 100, 101, 102, 103, 104, 105, 200, 201, 300, 400, 401, 2000, 2001, 1):
        assert node.outcomes() == {}
        asked = request(opcode, b"\x00\x00\x00\x09short")
        reply = await node.ask(asked)
        assert (reply.opcode, code(reply)) == (opcode, ResponseCode.PROTOCOL_ERROR)
        assert reply.envelope.request_id == asked.envelope.request_id
    assert node.outcomes() == {"invalid": 1}


async def test_a_message_without_a_whole_header_is_refused(node: NativeNode) -> None:
    (reply,) = await node.ask_all(sealed(Envelope(5), struct.pack(">i", 1)))
    assert (reply.opcode, code(reply)) == (1, ResponseCode.PROTOCOL_ERROR)
    compressed = asking().to_wire()
    compressed = compressed[:2] + bytes((compressed[2] | COMPRESSED,)) + compressed[3:]
    assert code(await node.ask(compressed)) == ResponseCode.OPERATION_NOT_SUPPORTED


async def test_answers_are_not_answered(node: NativeNode) -> None:
    for reply in (
        replace(asking(), response_code=1),
        replace(asking(), response_code=402, opcode=999_999),
        replace(creating(ITEM), response_code=4),
    ):
        assert await node.ask_all(reply) == []
        damaged = replace(reply, body=b"").to_wire()[:-3]
        head = replace(Envelope.from_wire(damaged), message_size_bytes=len(damaged) - 20)
        assert await node.ask_all(head.to_wire() + damaged[20:]) == []
    session = await opened_session(node, OWNER)
    assert await node.ask_all(session.coded(replace(asking(), response_code=1))) == []
    assert node.outcomes() == {}


async def test_nothing_is_answered_to_what_is_no_envelope(node: NativeNode) -> None:
    data = asking().to_wire()
    for message in (b"", data[:19], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x07" + data[1:]):
        assert await node.ask_all(message) == []


async def test_any_bytes_behind_a_right_envelope_get_at_most_one_answer(node: NativeNode) -> None:
    chosen = random.Random(1)
    bodies = [asking(), creating(ITEM), login(), session_setup(1 << 100, OWNER)]
    for _ in range(400):
        content = bytearray(chosen.choice(bodies).content)
        for _ in range(chosen.randrange(1, 6)):
            content[chosen.randrange(len(content))] = chosen.randrange(256)
        del content[chosen.randrange(len(content)) :]
        flags = chosen.choice((0, 0, 0x40))
        data = sealed(Envelope(7, 0, chosen.randrange(1 << 32), flags=flags), bytes(content))
        answers = await node.door.answer(data, chosen.choice((connection(), datagram())))
        assert len(answers) <= 1
        for answer in answers:
            assert Message.from_wire(answer).response_code != ResponseCode.ERROR


async def test_who_costs_too_much_gets_no_cryptography(node: NativeNode) -> None:
    challenge = await node.ask(creating(f"{PREFIX}/NEW"))
    node.refused_costs.add("192.0.2.7")
    nonce = bytes(16)
    signed = Pbkdf2Answer.of(SECRET, nonce, b"salt", iterations=10).to_wire()
    verification = VerificationRequest(Reference(KEYS, 300), nonce, b"", signed).to_wire()
    for asked in (
        asking(flags=USUAL | OpFlag.CERT),
        creating(f"{PREFIX}/OTHER"),
        answer_with_secret(challenge, OWNER),
        session_setup(1 << 100, OWNER),
        request(Opcode.SESSION_SETUP, session_setup(1 << 100, OWNER).body),
        request(Opcode.VERIFY_CHALLENGE, verification),
    ):
        reply = await node.ask(asked)
        assert (code(reply), reply.credential) == (ResponseCode.SERVER_TOO_BUSY, None)
        assert not reply.flags & OpFlag.CERT
    assert await node.records.fetch(f"{PREFIX}/NEW") is None
    assert code(await node.ask(asking())) == ResponseCode.SUCCESS
    assert node.outcomes() == {"refused": 1, "found": 1}


async def test_dearer_proofs_are_reckoned_as_dearer(node: NativeNode) -> None:
    async def cost(kind: str, index: int, signed: bytes) -> float:
        body = ChallengeAnswer(kind, Reference(KEYS, index), signed).to_wire()
        challenge = await node.ask(creating(f"{PREFIX}/NEW"))
        session_id = challenge.envelope.session_id
        await node.ask(request(Opcode.RESPONSE_TO_CHALLENGE, body, session_id=session_id))
        return node.costs[-1]

    def stretched(iterations: int) -> bytes:
        return Pbkdf2Answer(b"salt", iterations, 160, bytes(20)).to_wire()

    usual = await cost("HS_SECKEY", 300, stretched(10_000))
    assert await cost("HS_SECKEY", 300, stretched(100_000)) > 5 * usual
    assert await cost("HS_SECKEY", 0, stretched(10_000)) > 2 * usual
    signed = SignatureAnswer("SHA-256", b"x").to_wire()
    sm2 = SignatureAnswer("SM3", b"x").to_wire()
    assert await cost("HS_PUBKEY", 301, sm2) > 10 * await cost("HS_PUBKEY", 301, signed)


# Stores that are away.


async def test_reading_does_not_need_redis_and_administering_says_to_try_again(
    database_url: str, scratch: Path, tmp_path: Path
) -> None:
    folder = DataFolder.open(scratch / "door")
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    try:
        async with native_node(database_url, f"{valkey.url}", tmp_path) as node:
            await node.put(f"0.NA/{PREFIX}", admin(OWNER))
            await node.put(KEYS, secret(300))
            await node.put(ITEM, URL, HIDDEN, admin(OWNER))
            session = await authenticated_session(node)
            challenge = await node.ask(creating(f"{PREFIX}/NEW"))
            await valkey.stop()
            await _without_redis(node, session, challenge)
    finally:
        await valkey.stop()
        folder.close()


async def _without_redis(node: NativeNode, session: ClientSession, challenge: Message) -> None:
    coded = Message.from_wire(session.coded(asking()))
    assert indexes_of(await node.ask(coded)) == [1, 100]
    assert indexes_of(await node.ask(asking())) == [1, 100]
    for asked in (
        session.coded(asking(), encrypts=True),
        session.coded(asking(flags=USUAL | OpFlag.CERT)),
        session.coded(on_handle(Opcode.DELETE_HANDLE, ITEM)),
        creating(f"{PREFIX}/NEW2"),
        answer_with_secret(challenge, OWNER),
        session_setup(1 << 100, OWNER),
    ):
        assert code(await node.ask(asked)) == ResponseCode.SERVER_TOO_BUSY
    peer = await logged_in(node, OWNER)
    assert code(await node.ask(on_handle(Opcode.DELETE_HANDLE, ITEM), peer)) == ResponseCode.SUCCESS


async def test_a_registry_that_takes_nothing_is_said_to_be_a_backup(node: NativeNode) -> None:
    async with node.database.connection() as opened:
        name = await opened.fetchval("SELECT current_database()")
        await opened.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    # Connections that are opened from now on may only read.
    await node.database.close()
    reply = await node.answered_as(OWNER, creating(f"{PREFIX}/NEW"))
    assert (reply.opcode, code(reply)) == (Opcode.CREATE_HANDLE, ResponseCode.SERVER_BACKUP)
    assert code(await node.ask(asking())) == ResponseCode.SUCCESS
