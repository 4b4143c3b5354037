"""Ways for bytes to get past what keeps strangers out: as the bodies of requests that are
otherwise right, in sessions, behind challenges and logins, and as values that are registered."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from node.identity import Identity
from resolver.record import HandleValue, Reference
from resolver.response_code import ResponseCode
from resolver.wire import (
    ENCRYPTED,
    ChallengeAnswer,
    DhPublicKey,
    Envelope,
    LoginRequest,
    Message,
    Opcode,
    OpFlag,
    ResolutionRequest,
    SessionSetup,
    SignatureAnswer,
    ValuesRequest,
    sealed,
)
from tests.fuzzed_doors import FuzzedDoors, peer_of
from tests.native_asking import (
    OWNER,
    OWNER_BY_KEY,
    READER,
    SERVER_ADMIN,
    STRANGER,
    URL,
    admin,
    asking,
    on_handle,
)
from tests.native_node import (
    GROUP_PRIME,
    KEYS,
    PREFIX,
    USUAL,
    ClientSession,
    answer_with_key,
    answer_with_secret,
    connection,
    request,
)
from tests.native_replies import FoundError

_IDENTITIES = (OWNER, SERVER_ADMIN, READER, STRANGER)
_SESSION_KEY = bytes(range(32))
_SESSION_IDLE_S = 60.0
# The last is served by nobody.
OPCODES = (*Opcode, 3)
# What a first byte says besides its way is a number up to 25; up to this one all stores stay.
STAYING_MAX = 10
# Before a body: its opcode, by its place in OPCODES, and the flags of the request.
_HEAD_SIZE_BYTES = 5
# What node and resolver read when others are asked for, and where it stands.
VALUE_TYPES = (
    "HS_ADMIN",
    "HS_VLIST",
    "HS_PUBKEY",
    "HS_SECKEY",
    "HS_SITE",
    "HS_SITE.PREFIX",
    "HS_SERV",
    "URL",
)
_VALUE_INDEX = 300
_STORED, _DELEGATED = f"{PREFIX}/STORED", f"0.NA/{PREFIX}.9"

Way = Callable[[FuzzedDoors, int, bytes], Awaitable[None]]


async def try_input(fuzzed: FuzzedDoors, data: bytes) -> None:
    """Let one input in: two bytes choose the way and its options, the others come in that way.

    The first byte also says which stores leave: for almost one of two none does.

    Raises:
        FoundError: if anything happened that nobody may cause.
    """
    first, options = (*data[:2], 0, 0)[:2]
    way = first % len(WAYS)
    async with fuzzed.trial(leaving_of(first)):
        await WAYS[way](fuzzed, options, data[2:])
        await (fuzzed.put_back() if way >= _WRITING_FROM else fuzzed.require_unwritten())


def leaving_of(first: int) -> int:
    """What FuzzedDoors.trial is told about the stores."""
    return max(0, first // len(WAYS) - STAYING_MAX)


def operation_of(opcode: int, body: bytes, flags: int = int(USUAL)) -> bytes:
    """The input that is read as this operation."""
    return bytes((OPCODES.index(opcode),)) + flags.to_bytes(4) + body


def _operation(data: bytes) -> Message:
    head, body = data[:_HEAD_SIZE_BYTES].ljust(_HEAD_SIZE_BYTES, b"\x00"), data[_HEAD_SIZE_BYTES:]
    return request(OPCODES[head[0] % len(OPCODES)], body, int.from_bytes(head[1:]))


async def ask_operation(fuzzed: FuzzedDoors, options: int, data: bytes) -> None:
    """Any body under any opcode; who is asked who it is, proves to be an administrator."""
    replies = await fuzzed.ask(_operation(data), peer_of(options))
    if not _is_challenge(replies):
        return
    if options & 4:
        answer = answer_with_key(replies[0], OWNER_BY_KEY)
    else:
        answer = answer_with_secret(replies[0], _IDENTITIES[options >> 4 & 3])
    await fuzzed.ask(answer, peer_of(options))


async def ask_in_session(fuzzed: FuzzedDoors, options: int, data: bytes) -> None:
    """The same in a session: with its code, encrypted, both, or neither; damaged, or again."""
    identity = _IDENTITIES[options >> 4 & 3]
    async with _session(fuzzed, identity, is_encrypted=bool(options & 1)) as session:
        if options & 4:
            await fuzzed.sessions.authenticated(session.session_id, identity)
        asked, encrypts = _operation(data), bool(options & 2)
        asked = replace(asked, envelope=replace(asked.envelope, session_id=session.session_id))
        if options & 8:
            sent = session.sealed(asked) if encrypts else asked.to_wire()
        else:
            sent = session.coded(asked, encrypts=encrypts)
        if options & 128:
            sent = sent[:-1] + bytes((sent[-1] ^ 1,))
        if options & 64:
            await _ask_inside(fuzzed, session, asked, sent, options)
        replies = await _ask_inside(fuzzed, session, asked, sent, options)
        if _is_challenge(replies):
            answer = answer_with_secret(replies[0], identity)
            sent = session.sealed(answer) if encrypts else answer.to_wire()
            await _ask_inside(fuzzed, session, answer, sent, options)


async def answer_challenge(fuzzed: FuzzedDoors, options: int, data: bytes) -> None:
    """Any answer to a challenge, or any proof in an answer that is otherwise right."""
    asked = _listing() if options & 4 else asking(flags=int(USUAL & ~OpFlag.PUBL))
    reply = await _last(fuzzed, asked, options)
    await fuzzed.ask(_answering(reply, options, data), peer_of(options))


async def log_in(fuzzed: FuzzedDoors, options: int, data: bytes) -> None:
    """Any login, any answer to its challenge, or any operation of who has logged in."""
    peer = connection()
    opcode = Opcode.LOGIN_ID_SYSTEM if options & 1 else Opcode.LOGIN_ID_SYSTEM_OLD
    body = data if options & 2 else _login_body(opcode)
    asked = request(opcode, body, int(OpFlag.RECU), session_id=options & 4 and 10_001)
    (reply,) = await fuzzed.ask(asked, peer)
    if reply.response_code != ResponseCode.AUTHENTICATION_NEEDED:
        return
    is_right = options & 8
    answer = answer_with_secret(reply, OWNER) if is_right else _answering(reply, options, data)
    await fuzzed.ask(answer, peer)
    await fuzzed.ask(_operation(data), peer)


async def set_session_up(fuzzed: FuzzedDoors, options: int, data: bytes) -> None:
    """Any body, any key, or any number as a key of a session's setup."""
    claimed = Reference(OWNER.handle, OWNER.index)
    key = data if options & 8 else DhPublicKey(int.from_bytes(data), GROUP_PRIME, 2).to_wire()
    body = data if options & 4 else SessionSetup(4, 60, claimed, key).to_wire()
    flags = int(USUAL | (OpFlag.ENCR if options & 16 else OpFlag.RRDG))
    await fuzzed.ask(request(Opcode.SESSION_SETUP, body, flags), peer_of(options))


async def send_content(fuzzed: FuzzedDoors, options: int, data: bytes) -> None:
    """Any bytes behind an envelope that is right, in the clear or encrypted in a session."""
    peer = peer_of(options)
    number = request(Opcode.RESOLUTION, b"").envelope.request_id
    if not options & 4:
        await fuzzed.ask(sealed(Envelope(number), data), peer)
        return
    async with _session(fuzzed, OWNER, is_encrypted=False) as session:
        envelope = Envelope(number, session_id=session.session_id)
        if options & 8:
            await fuzzed.ask(sealed(replace(envelope, flags=ENCRYPTED), data), peer)
        else:
            await _send_sealed(fuzzed, session, envelope, data, options)


async def store_value(fuzzed: FuzzedDoors, options: int, data: bytes) -> None:
    """Any data of a value that decides something: who may, with which key, and whom to ask.

    A signature stands before it, which is one of that key.
    """
    end = 1 + data[0] if data else 0
    signature, data = data[1:end], data[end:]
    kind = VALUE_TYPES[options & 7]
    handle = _DELEGATED if kind in ("HS_SITE", "HS_SITE.PREFIX", "HS_SERV") else _STORED
    who = Identity(_STORED, _VALUE_INDEX) if kind == "HS_VLIST" else OWNER
    others = () if kind == "HS_ADMIN" else (admin(who),)
    values = (URL, HandleValue(_VALUE_INDEX, kind, data), *others)
    flags = int(USUAL | OpFlag.OVRW)
    creation = operation_of(Opcode.CREATE_HANDLE, ValuesRequest(handle, values).to_wire(), flags)
    await ask_in_session(fuzzed, 4 | _IDENTITIES.index(SERVER_ADMIN) << 4, creation)
    for asked in (handle, handle, f"{PREFIX}.9/x", f"{_DELEGATED}.1"):
        await _resolve(fuzzed, asked, options)
    change = operation_of(Opcode.MODIFY_VALUE, ValuesRequest(handle, (URL,)).to_wire())
    await ask_in_session(fuzzed, 4, change)
    await _prove(fuzzed, options, signature)


WAYS: tuple[Way, ...] = (
    FuzzedDoors.hear_message,
    FuzzedDoors.hear_stream,
    FuzzedDoors.hear_datagrams,
    answer_challenge,
    set_session_up,
    send_content,
    ask_operation,
    ask_in_session,
    log_in,
    store_value,
)
# From here on records may be changed.
_WRITING_FROM = WAYS.index(ask_operation)


@asynccontextmanager
async def _session(
    fuzzed: FuzzedDoors, claimed: Identity, *, is_encrypted: bool
) -> AsyncIterator[ClientSession]:
    """A session whose key both sides know already; it ends, so that others have a place."""
    session_id = await fuzzed.sessions.open(
        _SESSION_KEY, claimed, is_encrypted, _SESSION_IDLE_S, fuzzed.clock()
    )
    try:
        yield ClientSession(session_id, _SESSION_KEY)
    finally:
        await fuzzed.sessions.close(session_id)


def _is_challenge(replies: list[Message]) -> bool:
    return [reply.response_code for reply in replies] == [ResponseCode.AUTHENTICATION_NEEDED]


async def _last(fuzzed: FuzzedDoors, asked: Message, options: int) -> Message:
    return (await fuzzed.ask(asked, peer_of(options)))[-1]


async def _ask_inside(
    fuzzed: FuzzedDoors, session: ClientSession, asked: Message, sent: bytes, options: int
) -> list[Message]:
    plain = asked if Envelope.from_wire(sent).is_encrypted else None
    return await fuzzed.ask(sent, peer_of(options), plain=plain, key=session.key)


async def _send_sealed(
    fuzzed: FuzzedDoors, session: ClientSession, envelope: Envelope, data: bytes, options: int
) -> None:
    """Bytes that are encrypted as if they were a message; if they are one, with its code."""
    try:
        asked = Message.from_content(envelope, data)
    except ValueError:
        asked = Message(envelope, Opcode.RESOLUTION, data)
    await _ask_inside(fuzzed, session, asked, session.coded(asked, encrypts=True), options)


async def _resolve(fuzzed: FuzzedDoors, handle: str, options: int) -> None:
    """Ask for public values as a datagram, which may be answered fast, and for all of them."""
    question, now_s = asking(handle).to_wire(), fuzzed.clock()
    asker = fuzzed.doors.asker("127.0.0.1")
    fast = fuzzed.doors.fast.answer(question, asker, now_s, False)
    slow = await fuzzed.ask(question, peer_of(options))
    if fast is not None and Message.from_wire(fast) != slow[0]:
        raise FoundError(f"fast is answered {Message.from_wire(fast)}, and otherwise {slow}")
    await fuzzed.ask(asking(handle, 0, types=VALUE_TYPES[:2]), peer_of(options))


async def _prove(fuzzed: FuzzedDoors, options: int, signature: bytes) -> None:
    """Prove to be who has the key that was stored."""
    reply = await _last(fuzzed, _listing(), options)
    names = ("SHA-256", "SHA-1", "SM3", "SM3withSM2", "Ed25519")
    signed = SignatureAnswer(names[(options >> 3) % len(names)], signature).to_wire()
    body = ChallengeAnswer("HS_PUBKEY", Reference(_STORED, _VALUE_INDEX), signed)
    await fuzzed.ask(_reaction(reply, body.to_wire()), peer_of(options))


def _listing() -> Message:
    """What is always challenged."""
    return on_handle(Opcode.LIST_HANDLES, PREFIX)


def _answering(reply: Message, options: int, data: bytes) -> Message:
    if options & 16:
        return _reaction(reply, data)
    kind, index = ("HS_SECKEY", 300) if options & 32 else ("HS_PUBKEY", 301)
    key = Reference(KEYS, 0 if options & 64 else index)
    return _reaction(reply, ChallengeAnswer(kind, key, data).to_wire())


def _reaction(reply: Message, body: bytes) -> Message:
    """The answer to the challenge in `reply`, to which that challenge's number belongs."""
    flags = int(reply.flags & ~OpFlag.AUTH)
    session_id = reply.envelope.session_id
    return request(Opcode.RESPONSE_TO_CHALLENGE, body, flags, session_id)


def _login_body(opcode: Opcode) -> bytes:
    if opcode == Opcode.LOGIN_ID_SYSTEM_OLD:
        return ResolutionRequest(OWNER.handle, (OWNER.index,)).to_wire()
    return LoginRequest(Reference(OWNER.handle, OWNER.index)).to_wire()
