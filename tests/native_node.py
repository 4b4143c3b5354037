"""The native door on real stores, without sockets; and what a client needs to ask it."""

import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from redis.asyncio import Redis

from metrics.counting import Counting
from metrics.dimension import CHANNEL_NATIVE_TCP, CHANNEL_NATIVE_UDP
from metrics.journal import JournalSize
from node.administration import Administration
from node.administrators import Administrators
from node.announcer import Announcer
from node.identity import Identity
from node.native_door import NativeDoor, Peer
from node.native_sessions import NativeSessions
from node.node_key import NodeKey
from node.pending_challenges import PendingChallenges
from node.prefix_table import PrefixTable
from node.tally import Tally
from registry import homed_prefixes
from registry.database import Database
from registry.records import Author, PostgresRecords, Written
from resolver.hot import Hot
from resolver.hot_redis import RedisCache
from resolver.identifier import from_text
from resolver.own_site import OwnSite, Reach, site_of
from resolver.prefix_directory import PrefixDirectory
from resolver.record import ADMIN_READ, ADMIN_WRITE, HandleValue, Reference
from resolver.resolve import RecordSource, Resolver
from resolver.session_cipher import decrypted, encrypted
from resolver.wire import (
    ENCRYPTED,
    Challenge,
    ChallengeAnswer,
    DhOffer,
    DhPublicKey,
    Envelope,
    Message,
    Opcode,
    OpFlag,
    Pbkdf2Answer,
    Response,
    RsaPublicKey,
    SessionResponse,
    SessionSetup,
    SignatureAnswer,
    envelope_and_content,
    response_body,
    sealed,
)
from tests.listening_cache import listening_cache

PREFIX = "88.102.5"
OWN_PREFIX = "88.102"
KEYS = f"{PREFIX}/ADMIN"
SECRET = b"secret"
PRIVATE = ADMIN_READ | ADMIN_WRITE
# Bits of a request of Handle.Net's client.
USUAL = OpFlag.RECU | OpFlag.CACR | OpFlag.PUBL
AUTHOR = Author("test", "test")
# RFC 2409 §6.2, the group of 1,024 bits that Handle.Net's client takes.
GROUP_PRIME = int(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e34"
    "04ddef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6"
    "f406b7edee386bfb5a899fa5ae9f24117c4b1fe649286651ece65381ffffffffffffffff",
    16,
)

_SIZE = JournalSize(256, 256, 65_536, 16, 16, 2_048)
_REQUEST_IDS = count(1)


@dataclass
class NativeNode:
    """A native door, what it stands on, and what it counted."""

    door: NativeDoor
    database: Database
    records: PostgresRecords
    cache: RedisCache
    sessions: NativeSessions
    directory: PrefixDirectory
    node_key: NodeKey
    site: OwnSite
    counting: Counting
    refused_costs: set[str] = field(default_factory=set)
    costs: list[float] = field(default_factory=list)

    def admits_cost(self, source: str, cost_ms: float) -> bool:
        self.costs.append(cost_ms)
        return source not in self.refused_costs

    async def put(self, handle: str, *values: HandleValue) -> None:
        """Write a record past all administrators."""
        await put(self.records, handle, *values)

    async def ask(self, request: Message | bytes, peer: Peer | None = None) -> Message:
        """The one message that answers."""
        (answer,) = await self.ask_all(request, peer)
        return answer

    async def ask_all(self, request: Message | bytes, peer: Peer | None = None) -> list[Message]:
        data = request if isinstance(request, bytes) else request.to_wire()
        answers = await self.door.answer(data, peer or connection())
        return [Message.from_wire(answer) for answer in answers]

    async def answered_as(
        self, identity: Identity, request: Message, peer: Peer | None = None
    ) -> Message:
        """The answer to a request that is challenged, and the challenge answered with SECRET."""
        challenge = await self.ask(request, peer)
        return await self.ask(answer_with_secret(challenge, identity), peer)

    def counted(self) -> Counter[tuple[str, str, str]]:
        """How many questions were counted, by channel, outcome and class of the caller."""
        found: Counter[tuple[str, str, str]] = Counter()
        for journal in self.counting.journals:
            for _, meaning, number in journal.counts():
                found[meaning.channel, meaning.outcome, meaning.caller_class] += number
        return found

    def outcomes(self) -> dict[str, int]:
        """How many questions were counted, by outcome."""
        found: Counter[str] = Counter()
        for (_, outcome, _), number in self.counted().items():
            found[outcome] += number
        return dict(found)


async def put(records: PostgresRecords, handle: str, *values: HandleValue) -> None:
    """Write a record past all administrators."""
    written = await records.put(from_text(handle), values, AUTHOR, time.time())
    assert isinstance(written, Written), written


@asynccontextmanager
async def native_node(
    database_url: str,
    redis_url: str,
    folder: Path,
    *,
    server_admins: Sequence[Identity] = (),
    prefixes: Iterable[str] = (PREFIX,),
    source: RecordSource | None = None,
) -> AsyncIterator[NativeNode]:
    """A node that hosts `prefixes` and homes 88.102; `source` is read in place of PostgreSQL."""
    redis_url = f"{redis_url}&db=13"
    await _emptied(redis_url)
    database = Database(database_url)
    counting = Counting(folder, time.time(), _SIZE)
    try:
        async with listening_cache(redis_url) as cache:
            await add_prefixes(database, prefixes)
            node = _wired(database, cache, counting, server_admins, source)
            node.directory.replace(await PrefixTable(database, None).load())
            yield node
    finally:
        counting.close()
        await database.close()


def _wired(
    database: Database,
    cache: RedisCache,
    counting: Counting,
    server_admins: Sequence[Identity],
    source: RecordSource | None,
) -> NativeNode:
    records, directory, node_key = PostgresRecords(database), PrefixDirectory(), _node_key()
    reach = Reach("127.0.0.1", native_port=2641, http_port=8000)
    site = OwnSite(site_of(reach, node_key.public_key, serial=7))
    resolver = Resolver(source or records, cache, directory, Hot(), own=site)
    administrators = Administrators(records, directory, server_admins)
    announcer = Announcer(database, cache, resolver, _nothing)
    sessions = NativeSessions(cache)
    door = NativeDoor(
        resolver,
        directory,
        administrators,
        Administration(records, administrators, announcer, directory, database, door="native"),
        PendingChallenges(cache),
        sessions,
        node_key,
        Tally(counting, ()),
        site=lambda: site.site,
        admits_cost=lambda source, cost_ms: node.admits_cost(source, cost_ms),
        now_s=time.time,
    )
    node = NativeNode(door, database, records, cache, sessions, directory, node_key, site, counting)
    return node


def _nothing() -> None:
    """Nobody waits for a new table."""


async def _emptied(redis_url: str) -> None:
    redis: Redis = Redis.from_url(redis_url)
    await redis.flushdb()
    await redis.aclose()


async def add_prefixes(database: Database, prefixes: Iterable[str]) -> None:
    """Allot `prefixes` to an enterprise, and home 88.102."""
    async with database.connection() as connection:
        enterprise = await connection.fetchval(
            "INSERT INTO enterprise (name, credit_code, division, country)"
            " VALUES ('Test', '91450200MA5TEST001', '450200', 'CN') RETURNING id"
        )
        for prefix in prefixes:
            await connection.execute(
                "INSERT INTO prefix (prefix, key, enterprise_id, mode)"
                " VALUES ($1, $1, $2, 'hosted')",
                prefix,
                enterprise,
            )
    await homed_prefixes.home(database, OWN_PREFIX, AUTHOR)


# Keys.


@cache
def _node_key() -> NodeKey:
    return NodeKey(rsa.generate_private_key(65_537, 2_048))


@cache
def client_key() -> rsa.RSAPrivateKey:
    """The private key of the administrator."""
    return rsa.generate_private_key(65_537, 2_048)


def public_key(index: int, permissions: int = ADMIN_READ | ADMIN_WRITE) -> HandleValue:
    """The administrator's public key, which not everybody may read."""
    numbers = client_key().public_key().public_numbers()
    data = RsaPublicKey(numbers.e, numbers.n).to_wire()
    return HandleValue(index, "HS_PUBKEY", data, permissions=permissions)


# What a client says.


def connection(source: str = "192.0.2.7") -> Peer:
    """A new TCP connection."""
    return Peer(source, CHANNEL_NATIVE_TCP)


def datagram(source: str = "192.0.2.7") -> Peer:
    return Peer(source, CHANNEL_NATIVE_UDP)


def request(opcode: int, body: bytes, flags: int = USUAL, session_id: int = 0) -> Message:
    """A request as Handle.Net's client sends it."""
    envelope = Envelope(next(_REQUEST_IDS), session_id=session_id)
    expiration_s = int(time.time()) + 43_200
    return Message(envelope, opcode, body, flags=int(flags), expiration_s=expiration_s)


def challenge_of(reply: Message) -> bytes:
    """The nonce and the digest that are to be signed."""
    body, digest = response_body(reply)
    assert isinstance(body, Challenge), body
    assert digest is not None
    return body.nonce + digest.digest


def answer_with_secret(reply: Message, identity: Identity, secret: bytes = SECRET) -> Message:
    """The answer to the challenge in `reply`."""
    challenge, salt = challenge_of(reply), secrets.token_bytes(16)
    signed = Pbkdf2Answer.of(secret, challenge, salt, iterations=100).to_wire()
    return _answer(reply, "HS_SECKEY", identity, signed)


def answer_with_key(reply: Message, identity: Identity) -> Message:
    """The answer to the challenge in `reply`, signed with the administrator's key."""
    signature = client_key().sign(challenge_of(reply), padding.PKCS1v15(), hashes.SHA256())
    signed = SignatureAnswer("SHA-256", signature).to_wire()
    return _answer(reply, "HS_PUBKEY", identity, signed)


def _answer(reply: Message, kind: str, identity: Identity, signed: bytes) -> Message:
    body = ChallengeAnswer(kind, Reference(identity.handle, identity.index), signed)
    flags = reply.flags & ~(OpFlag.AUTH | OpFlag.RRDG | OpFlag.OVRW | OpFlag.MINT)
    session_id = reply.envelope.session_id
    return request(Opcode.RESPONSE_TO_CHALLENGE, body.to_wire(), flags, session_id)


def said(reply: Message) -> Response:
    """The body of a reply."""
    return response_body(reply)[0]


# A client's side of a session.


@dataclass
class ClientSession:
    """What a client knows of its session."""

    session_id: int
    key: bytes = field(repr=False)
    counter: int = 0

    def coded(self, message: Message, *, encrypts: bool = False) -> bytes:
        """A request of this session with its code."""
        self.counter += 1
        envelope = replace(message.envelope, session_id=self.session_id)
        coded = replace(message, envelope=envelope).authenticated(self.key, self.counter)
        return self.sealed(coded) if encrypts else coded.to_wire()

    def sealed(self, message: Message) -> bytes:
        """A request as it is sent encrypted."""
        envelope = replace(message.envelope, session_id=self.session_id, flags=ENCRYPTED)
        return sealed(envelope, encrypted(self.key, message.content))

    def read(self, data: bytes) -> Message:
        """A reply in this session."""
        envelope, content = envelope_and_content(data)
        assert envelope.session_id == self.session_id
        if envelope.is_encrypted:
            content = decrypted(self.key, content)
        return Message.from_content(envelope, content)


def session_setup(x: int, identity: Identity, flags: int = 0) -> Message:
    """SESSION_SETUP with the private exponent `x`."""
    ours = DhPublicKey(pow(2, x, GROUP_PRIME), GROUP_PRIME, 2)
    claimed = Reference(identity.handle, identity.index)
    body = SessionSetup(4, 600, claimed, ours.to_wire(), padding=bytes(2))
    wanted = USUAL | OpFlag.CERT | OpFlag.RRDG | flags
    return request(Opcode.SESSION_SETUP, body.to_wire(), wanted)


def session_of(reply: Message, x: int) -> ClientSession:
    """The session that `reply` to its setup opens."""
    body = said(reply)
    assert isinstance(body, SessionResponse), body
    key = DhOffer.from_wire(body.data).key.session_key(x)
    return ClientSession(reply.envelope.session_id, key)


async def opened_session(node: NativeNode, identity: Identity) -> ClientSession:
    """A session as Handle.Net's client opens it."""
    x = secrets.randbits(160)
    return session_of(await node.ask(session_setup(x, identity), datagram()), x)
