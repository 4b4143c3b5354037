"""What recorded clients asked of Handle.Net and of a Chinese node, asked of the native door again.

Nonces, session numbers and keys of sessions are fresh, so answers to challenges, codes and
encrypted messages are made anew; everything else is sent byte for byte.
"""

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest

from node.identity import Identity
from node.native_door import Peer
from registry import homed_prefixes
from registry.database import Database
from registry.records import PostgresRecords
from resolver.record import HandleValue
from resolver.response_code import ResponseCode
from resolver.session_cipher import decrypted
from resolver.signature import is_signature_of
from resolver.wire import (
    SIGNED,
    Challenge,
    ChallengeAnswer,
    CreationResponse,
    HandleList,
    HandleRequest,
    IndexesRequest,
    Message,
    Opcode,
    OpFlag,
    ResolutionRequest,
    ResolutionResponse,
    Response,
    SessionResponse,
    SiteResponse,
    ValuesRequest,
    envelope_and_content,
    request_body,
    response_body,
)
from tests.conftest import RunningNode, Stores, free_port
from tests.native_client import PATIENCE_S, Connection, NativeClient, question
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
    public_key,
    put,
    request,
    said,
    session_of,
)
from tests.recorded_native import (
    IDIS,
    Recorded,
    captured,
    of_sdk,
    private_exponents,
    session_keys,
)
from tests.tenant import tenant

PREFIXES = (PREFIX, "20.500.12345")
EVERY_KEY = Identity(KEYS, 0)
# Of the recorded administrator; ours is at the other index, so that answers show the recorded one.
RECORDED_KEY, OUR_KEY = 301, 302
# Handle.Net says these again in some replies and not in others.
ECHOED_SOMETIMES = ~int(OpFlag.OVRW | OpFlag.MINT)
# Handle.Net homes prefix handles derived from a prefix apart from the prefix.
MARKER = "0.NA/0.NA/88.102"
# Prefixes of the examples that every new node has.
EXAMPLES = "0.NA/88.608"
# Two workers are both among so many connections.
CONNECTIONS_TRIED = 40
# Teleinfo's SDK gives its connections numbers from here on.
FIRST_OWN_NUMBER = 10_000
# Of the records that were there before; what is written gets the time of the server.
LOADED_S = 1_700_000_000
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


@pytest.fixture
async def node(database_url: str, stores: Stores, tmp_path: Path) -> AsyncIterator[NativeNode]:
    """A node with the prefixes of the recordings, and their administrator as that of the server."""
    async with native_node(
        database_url,
        stores.redis_url,
        tmp_path,
        server_admins=[EVERY_KEY],
        prefixes=PREFIXES,
    ) as running:
        yield running


class Door(Protocol):
    """Whatever answers."""

    async def answer(self, recorded: Recorded, data: bytes) -> bytes:
        """The answer to what is sent in place of `recorded`, and as that came."""


class InProcess:
    """The door without sockets; connections of one SDK stay, as in the recording."""

    def __init__(self, node: NativeNode) -> None:
        self._node = node
        self.peers: dict[object, Peer] = {}

    async def answer(self, recorded: Recorded, data: bytes) -> bytes:
        peer = datagram() if recorded.proto == "udp" else connection()
        peer = self.peers.setdefault(_connection_of(recorded), peer)
        (reply,) = await self._node.door.answer(data, peer)
        return reply


class OverSockets:
    """A running node; every request of Handle.Net's client has a connection of its own."""

    def __init__(self, client: NativeClient, stack: AsyncExitStack) -> None:
        self._client = client
        self._stack = stack
        self._connections: dict[object, Connection] = {}

    async def answer(self, recorded: Recorded, data: bytes) -> bytes:
        if recorded.proto == "udp":
            return (await self._client.ask_udp(data)).to_wire()
        if recorded.proto == "http":
            return (await self._client.post(data)).content
        named = _connection_of(recorded)
        if named not in self._connections:
            opened = await self._stack.enter_async_context(self._client.connected())
            self._connections[named] = opened
        await self._connections[named].send(data)
        reply = await self._connections[named].receive()
        assert reply is not None
        return reply


def _connection_of(recorded: Recorded) -> object:
    """What tells the connections of a recording apart."""
    if recorded.label not in IDIS:
        return recorded
    # Teleinfo numbers its connections; of CAICT's, there is one.
    named = recorded.message.envelope.session_id
    return recorded.label, named if recorded.label == "idis-teleinfo.txt" else 0


@dataclass
class Client:
    """A recorded client: what it remembers by the numbers of the recording, with ours."""

    door: Door
    challenges: dict[int, Message] = field(default_factory=dict)
    sessions: dict[int, ClientSession] = field(default_factory=dict)

    async def asks(self, recorded: Recorded) -> tuple[Message, Message]:
        """What is sent in place of a recorded request, and the answer."""
        message = _clear(recorded.data)
        session = self.sessions.get(message.envelope.session_id)
        if message.opcode == Opcode.RESPONSE_TO_CHALLENGE:
            message = self._answer(message, recorded.label)
        data = message.to_wire() if session is None else self._in_session(session, message)
        reply = await self.door.answer(recorded, data)
        return message, Message.from_wire(reply) if session is None else session.read(reply)

    def remembers(self, recorded: Message, reply: Message) -> None:
        """Keep what a later request needs."""
        if recorded.response_code == ResponseCode.AUTHENTICATION_NEEDED:
            self.challenges[recorded.envelope.session_id] = reply
        if recorded.opcode == Opcode.SESSION_SETUP:
            x = private_exponents()[len(self.sessions)]
            self.sessions[recorded.envelope.session_id] = session_of(reply, x)

    def _answer(self, message: Message, label: str) -> Message:
        """The recorded answer, to our challenge."""
        challenge, body = self.challenges[message.envelope.session_id], request_body(message)
        assert isinstance(body, ChallengeAnswer)
        secret = b"wrong" if label.endswith("badsecret") else SECRET
        answer = (
            answer_with_key(challenge, Identity(KEYS, OUR_KEY))
            if body.authentication_type == "HS_PUBKEY"
            else answer_with_secret(challenge, Identity(KEYS, 300), secret)
        )
        envelope = replace(message.envelope, session_id=challenge.envelope.session_id)
        return replace(message, envelope=envelope, body=answer.body)

    def _in_session(self, session: ClientSession, message: Message) -> bytes:
        encrypts = message.envelope.is_encrypted
        if message.credential is not None:
            assert message.credential.session_counter == session.counter + 1
            return session.coded(message, encrypts=encrypts)
        envelope = replace(message.envelope, session_id=session.session_id)
        message = replace(message, envelope=envelope)
        return session.sealed(message) if encrypts else message.to_wire()


def _clear(data: bytes) -> Message:
    """A recorded message; of the encrypted session, decrypted."""
    envelope, content = envelope_and_content(data)
    if envelope.is_encrypted:
        content = decrypted(session_keys()[1], content)
    return Message.from_content(envelope, content)


def _exchanges(messages: tuple[Recorded, ...]) -> Iterator[tuple[Recorded, Recorded]]:
    """Requests with their replies."""
    for place in range(0, len(messages), 2):
        asked, replied = messages[place : place + 2]
        assert (asked.from_client, replied.from_client) == (True, False)
        yield asked, replied


def _differences(
    recorded: Message, sent: Message, reply: Message
) -> dict[str, tuple[object, object]]:
    """What differs between the recorded reply and ours, with both."""
    (body, digest), (our_body, our_digest) = response_body(recorded), response_body(reply)
    pairs: dict[str, tuple[object, object]] = {
        "envelope": (_envelope(recorded), _envelope(reply)),
        "opcode": (recorded.opcode, reply.opcode),
        "code": (recorded.response_code, reply.response_code),
        "flags": (recorded.flags & ECHOED_SOMETIMES, reply.flags & ECHOED_SOMETIMES),
        "credential": (_credential(recorded), _credential(reply)),
        "digest": (None if digest is None else sent.digest(), our_digest),
        "body": (_comparable(body), _comparable(our_body)),
        "request": (sent.envelope.request_id, reply.envelope.request_id),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _envelope(message: Message) -> tuple[object, ...]:
    one = message.envelope
    versions = (one.major, one.minor, one.suggested_major, one.suggested_minor)
    return (*versions, one.is_encrypted, one.sequence)


def _credential(message: Message) -> tuple[object, ...] | None:
    one = message.credential
    return None if one is None else (one.type, one.algorithm, one.session_counter, one.signer)


def _comparable(body: Response) -> object:
    """A body without what is fresh in every answer, or of the server that answers."""
    if isinstance(body, Challenge):
        return len(body.nonce)
    if isinstance(body, ResolutionResponse):
        times = tuple(one.timestamp_s if one.timestamp_s == LOADED_S else 0 for one in body.values)
        return body.handle, times, tuple(replace(one, timestamp_s=0) for one in body.values)
    if isinstance(body, SessionResponse):
        return (body.mode, body.padding)
    if isinstance(body, SiteResponse):
        site = body.site
        return (site.protocol_major, site.protocol_minor, site.is_primary, len(site.servers))
    if isinstance(body, CreationResponse) and body.handle is not None:
        return _UUID.sub("UUID", body.handle)
    if isinstance(body, HandleList):
        return {one for one in body.handles if one != MARKER and not one.startswith(EXAMPLES)}
    return body


# The client of Handle.Net.


async def test_every_recorded_request_of_handle_nets_client_gets_the_recorded_answer(
    node: NativeNode,
) -> None:
    await _prepare(node.records)
    await _replay_handle_net(InProcess(node), node.node_key.public_key)


async def _replay_handle_net(door: Door, public_key: bytes) -> None:
    client, wrong = Client(door), dict[str, object]()
    for asked, replied in _exchanges(captured()):
        recorded = _clear(replied.data)
        sent, reply = await client.asks(asked)
        client.remembers(recorded, reply)
        found = _differences(recorded, sent, reply)
        if found:
            wrong[f"{asked.label} {recorded.opcode} {recorded.response_code}"] = found
        _check_vouched(public_key, client, reply)
    assert wrong == {}
    assert len(client.sessions) == 2


async def _prepare(records: PostgresRecords) -> None:
    """The records that the recordings of Handle.Net begin with."""
    bodies = {one.label: response_body(one.message)[0] for one in _good_replies()}
    item, admin, secret = (
        bodies[label]
        for label in ("udp-resolve-all", "udp-admin-handle-public", "udp-read-secret-authenticated")
    )
    assert isinstance(item, ResolutionResponse)
    assert isinstance(admin, ResolutionResponse)
    assert isinstance(secret, ResolutionResponse)
    await put(records, item.handle, *item.values)
    await put(records, admin.handle, *admin.values, *secret.values, public_key(OUR_KEY))
    await put(records, f"{PREFIX}/BIG", HandleValue(1, "TXT", b"was there before"))


def _good_replies() -> Iterator[Recorded]:
    replies = (one for one in captured() if not one.from_client and not one.is_encrypted)
    return (one for one in replies if one.message.response_code == ResponseCode.SUCCESS)


def _check_vouched(public_key: bytes, client: Client, reply: Message) -> None:
    """The credential of a reply is right."""
    credential = reply.credential
    if credential is None:
        return
    if credential.type == SIGNED:
        signed = reply.signed_bytes()
        assert is_signature_of(public_key, credential.algorithm, credential.signature, signed)
    else:
        (session,) = (
            one for one in client.sessions.values() if one.session_id == reply.envelope.session_id
        )
        assert reply.is_authenticated_by(session.key)


@pytest.mark.parametrize("answered_with", ["HS_SECKEY", "HS_PUBKEY"])
async def test_a_stock_client_administers_in_a_session_that_it_set_up_over_udp(
    node: NativeNode, answered_with: str
) -> None:
    """The steps of stock-trace.txt: setup and reading over UDP, each write on a new connection."""
    await _prepare(node.records)
    handle, session = f"{PREFIX}/STOCK", await opened_session(node, Identity(KEYS, 300))

    async def within(opcode: int, body: bytes, flags: int = USUAL) -> Message:
        data = session.coded(request(opcode, body, flags))
        (reply,) = await node.door.answer(data, connection())
        return session.read(reply)

    url, email = HandleValue(1, "URL", b"http://s/"), HandleValue(2, "EMAIL", b"a@b.c")
    created = ValuesRequest(handle, (url,)).to_wire()
    challenge = await within(Opcode.CREATE_HANDLE, created, USUAL | OpFlag.OVRW)
    assert challenge.response_code == ResponseCode.AUTHENTICATION_NEEDED
    assert challenge.credential is None
    if answered_with == "HS_SECKEY":
        answer = answer_with_secret(challenge, Identity(KEYS, 300))
    else:
        answer = answer_with_key(challenge, Identity(KEYS, OUR_KEY))
    (reply,) = await node.door.answer(answer.to_wire(), connection())
    assert said(session.read(reply)) == CreationResponse(handle)

    asked = request(Opcode.RESOLUTION, ResolutionRequest(handle).to_wire())
    found = said(await node.ask(asked, datagram()))
    assert isinstance(found, ResolutionResponse)
    assert [value.data for value in found.values] == [url.data]

    changed = ValuesRequest(handle, (replace(email, data=b"d@e.f"),)).to_wire()
    for opcode, body in (
        (Opcode.ADD_VALUE, ValuesRequest(handle, (email,)).to_wire()),
        (Opcode.MODIFY_VALUE, changed),
        (Opcode.REMOVE_VALUE, IndexesRequest(handle, (2,)).to_wire()),
    ):
        assert (await within(opcode, body)).response_code == ResponseCode.SUCCESS

    reading = ResolutionRequest(KEYS, indexes=(300,)).to_wire()
    data = session.coded(request(Opcode.RESOLUTION, reading, OpFlag.RECU | OpFlag.CACR))
    (reply,) = await node.door.answer(data, datagram())
    assert envelope_and_content(reply)[0].is_encrypted
    secret = said(session.read(reply))
    assert isinstance(secret, ResolutionResponse)
    assert [value.data for value in secret.values] == [SECRET]

    deleted = await within(Opcode.DELETE_HANDLE, HandleRequest(handle).to_wire())
    assert deleted.response_code == ResponseCode.SUCCESS


# The SDKs of the Chinese field.


@pytest.mark.parametrize("sdk", IDIS)
async def test_every_recorded_request_of_a_chinese_sdk_gets_the_answer_it_needs(
    node: NativeNode, sdk: str
) -> None:
    await _prepare_for(node.records, sdk)
    door = InProcess(node)
    await _replay_sdk(door, sdk)
    assert {peer.identity for peer in door.peers.values()} >= {Identity(KEYS, OUR_KEY)}


async def _replay_sdk(door: Door, sdk: str) -> None:
    client, wrong = Client(door), dict[str, object]()
    for asked, replied in _exchanges(of_sdk(sdk)):
        recorded, named = replied.message, asked.message.envelope.session_id
        sent, reply = await client.asks(asked)
        client.remembers(recorded, reply)
        found = _differences(_as_needed(recorded), sent, _as_needed(reply))
        if found:
            wrong[f"{recorded.envelope.request_id} {recorded.opcode}"] = found
        if named >= FIRST_OWN_NUMBER:
            assert reply.envelope.session_id == named
    assert wrong == {}


async def _prepare_for(records: PostgresRecords, sdk: str) -> None:
    """Register what the recorded node answered of the records that were there before."""
    known: dict[str, dict[int, HandleValue]] = {}
    for one in of_sdk(sdk):
        if not one.from_client:
            body = response_body(one.message)[0]
            if isinstance(body, ResolutionResponse) and "/ITEM" in body.handle:
                known.setdefault(body.handle, {}).update({one.index: one for one in body.values})
    assert known
    await put(records, KEYS, public_key(OUR_KEY))
    for handle, values in known.items():
        await put(records, handle, *values.values())


def _as_needed(reply: Message) -> Message:
    """A reply without what no SDK reads: times that were given to values without one, the site."""
    body, digest = response_body(reply)
    if not isinstance(body, ResolutionResponse):
        return reply
    values = tuple(_without_time(value) for value in body.values)
    head = b"" if digest is None else digest.to_wire()
    return replace(reply, body=head + replace(body, values=values).to_wire())


def _without_time(value: HandleValue) -> HandleValue:
    data = b"" if value.type == "HS_SITE" else value.data
    return replace(value, timestamp_s=0, data=data)


# The same against a running node, with two workers: what one begins the other goes on with.


@pytest.fixture
def running(own_node: RunningNode) -> RunningNode:
    """A node with the prefixes of the recordings and their administrator."""
    own_node.environment = {
        "IDNODE_HANDLE": f"127.0.0.1:{free_port()}",
        "IDNODE_SERVER_ADMINS": str(EVERY_KEY),
        "IDNODE_WORKERS": "2",
    }
    own_node.start()
    for number, prefix in enumerate(PREFIXES, start=700):
        tenant(own_node, prefix, number)
    return own_node


async def test_the_recorded_requests_get_the_same_answers_from_a_running_node(
    running: RunningNode,
) -> None:
    port = int(running.environment["IDNODE_HANDLE"].rpartition(":")[2])
    database = Database(running.run_info.postgres_url)
    try:
        async with (
            NativeClient(port, http_port=running.port) as client,
            AsyncExitStack() as stack,
        ):
            await homed_prefixes.home(database, OWN_PREFIX, AUTHOR)
            await _replay_all(client, OverSockets(client, stack), database)
    finally:
        await database.close()


async def _replay_all(client: NativeClient, door: Door, database: Database) -> None:
    records = PostgresRecords(database)
    await _prepare(records)
    asked = request(Opcode.GET_SITE_INFO, HandleRequest().to_wire())
    site = said(await client.ask_udp(asked))
    assert isinstance(site, SiteResponse)
    await _replay_handle_net(door, site.site.servers[0].public_key)
    for sdk in IDIS:
        await _prepare_for(records, sdk)
        await _told_to_everybody(client, database)
        await _replay_sdk(door, sdk)


async def _told_to_everybody(client: NativeClient, database: Database) -> None:
    """Return when no worker answers with what the recording before needed."""
    record = await PostgresRecords(database).fetch(f"{PREFIX}/ITEM1")
    assert record is not None
    seen, until_s = 0, time.monotonic() + PATIENCE_S
    # Each connection may reach the other worker.
    while seen < CONNECTIONS_TRIED:
        assert time.monotonic() < until_s, f"{record.handle} stays as it was"
        body = said(await client.ask_tcp(question(record.handle)))
        is_new = isinstance(body, ResolutionResponse) and body.values == record.values
        seen = seen + 1 if is_new else 0
