"""Questions that tests ask the native door, and a node with an owner to ask them of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from node.identity import Identity
from node.native_peer import Peer
from node.permission import ALL, Permission
from resolver.record import HandleValue, Reference
from resolver.response_code import ResponseCode
from resolver.signature import is_signature_of
from resolver.wire import (
    AdminRecord,
    ErrorResponse,
    HandleRequest,
    LoginRequest,
    Message,
    Opcode,
    OpFlag,
    ResolutionRequest,
    ResolutionResponse,
    ValuesRequest,
)
from tests.native_node import (
    KEYS,
    PREFIX,
    PRIVATE,
    SECRET,
    USUAL,
    ClientSession,
    NativeNode,
    answer_with_key,
    answer_with_secret,
    connection,
    native_node,
    opened_session,
    public_key,
    request,
    said,
)

ITEM = f"{PREFIX}/ITEM"
NOBODY = f"{PREFIX}/NOBODY"
OWNER, OWNER_BY_KEY = Identity(KEYS, 300), Identity(KEYS, 301)
STRANGER, READER = Identity(NOBODY, 300), Identity(NOBODY, 301)
SERVER_ADMIN = Identity(f"{PREFIX}/OPERATOR", 300)
URL = HandleValue(1, "URL", b"http://a.example/", timestamp_s=1_700_000_000)
HIDDEN = HandleValue(2, "NOTE", b"hidden", permissions=PRIVATE, timestamp_s=1_700_000_000)
NOBODYS = HandleValue(3, "NOTE", b"for no one", permissions=0, timestamp_s=1_700_000_000)
# As USUAL, but what is not public is wanted as well.
ALL_VALUES = USUAL & ~OpFlag.PUBL


def admin(identity: Identity, permissions: int = ALL, index: int = 100) -> HandleValue:
    data = AdminRecord(identity.handle, identity.index, int(permissions)).to_wire()
    return HandleValue(index, "HS_ADMIN", data, timestamp_s=1_700_000_000)


def secret(index: int, data: bytes = SECRET) -> HandleValue:
    return HandleValue(index, "HS_SECKEY", data, permissions=PRIVATE)


@asynccontextmanager
async def prepared_node(
    database_url: str, redis_url: str, folder: Path
) -> AsyncIterator[NativeNode]:
    """A node with a prefix, its owner, an item with a private value, and two who own nothing."""
    admins = [SERVER_ADMIN]
    async with native_node(database_url, redis_url, folder, server_admins=admins) as running:
        for handle, values in prepared_records().items():
            await running.put(handle, *values)
        yield running


def prepared_records() -> dict[str, tuple[HandleValue, ...]]:
    """What is registered at such a node."""
    reader = admin(READER, ALL & ~Permission.READ_VALUE, 102)
    return {
        f"0.NA/{PREFIX}": (admin(OWNER), admin(OWNER_BY_KEY, index=101)),
        KEYS: (secret(300), public_key(301)),
        NOBODY: (secret(300), secret(301)),
        SERVER_ADMIN.handle: (secret(300),),
        ITEM: (URL, HIDDEN, NOBODYS, admin(OWNER), reader),
    }


def asking(
    handle: str = ITEM,
    flags: int = USUAL,
    *,
    indexes: tuple[int, ...] = (),
    types: tuple[str, ...] = (),
) -> Message:
    return request(Opcode.RESOLUTION, ResolutionRequest(handle, indexes, types).to_wire(), flags)


def creating(handle: str, *values: HandleValue, flags: int = USUAL) -> Message:
    body = ValuesRequest(handle, values or (URL, admin(OWNER))).to_wire()
    return request(Opcode.CREATE_HANDLE, body, flags)


def on_handle(opcode: int, handle: str, flags: int = USUAL) -> Message:
    return request(opcode, HandleRequest(handle).to_wire(), flags)


def code(reply: Message) -> ResponseCode:
    return ResponseCode(reply.response_code)


def indexes_of(reply: Message) -> list[int]:
    body = said(reply)
    assert isinstance(body, ResolutionResponse), body
    return [value.index for value in body.values]


def text_of(reply: Message) -> str | None:
    body = said(reply)
    assert isinstance(body, ErrorResponse), body
    return body.text


def is_signed(node: NativeNode, reply: Message) -> bool:
    credential, key = reply.credential, node.node_key.public_key
    assert credential is not None
    signed = reply.signed_bytes()
    return is_signature_of(key, credential.algorithm, credential.signature, signed)


async def within(node: NativeNode, session: ClientSession, asked: Message) -> Message:
    (reply,) = await node.door.answer(session.coded(asked), connection())
    return session.read(reply)


async def authenticated_session(node: NativeNode, identity: Identity = OWNER) -> ClientSession:
    session = await opened_session(node, identity)
    await node.sessions.authenticated(session.session_id, identity)
    return session


def login(identity: Identity = OWNER_BY_KEY, session_id: int = 10_001) -> Message:
    body = LoginRequest(Reference(identity.handle, identity.index)).to_wire()
    flags = OpFlag.RECU | OpFlag.RRDG
    return request(Opcode.LOGIN_ID_SYSTEM, body, flags, session_id)


async def logged_in(node: NativeNode, identity: Identity = OWNER_BY_KEY) -> Peer:
    peer = connection()
    answer = answer_with_key if identity == OWNER_BY_KEY else answer_with_secret
    reply = await node.ask(answer(await node.ask(login(identity), peer), identity), peer)
    assert code(reply) == ResponseCode.SUCCESS
    return peer
