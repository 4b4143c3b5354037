"""Asking another node for its site: what it may answer, and what else may come."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from node.native_question import ToldSite, UnansweredError, site_of
from node.node_key import NodeKey
from resolver.own_site import Reach
from resolver.own_site import site_of as site_at
from resolver.response_code import ResponseCode
from resolver.wire import Message, MessageStream, Opcode, OpFlag, request_body
from tests.conftest import free_port

NOW_S = 1_800_000_000.0
SITE = site_at(Reach("192.0.2.7", 2641), b"", 5)
# Long enough for any answer of this machine.
PATIENCE_S = 20.0

Answer = Callable[[Message, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def other_node(answer: Answer) -> AsyncIterator[int]:
    """A node that answers one message of each connection; the port where it does."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = MessageStream()
        try:
            while (whole := stream.take()) is None:
                stream.feed(await reader.read(65_536))
            await answer(Message.from_wire(whole), writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.get_running_loop().create_task(serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def ask(port: int, timeout_s: float = PATIENCE_S) -> ToldSite:
    return await site_of("127.0.0.1", port, timeout_s=timeout_s, now_s=NOW_S)


@pytest.fixture(scope="module")
def keys() -> tuple[NodeKey, NodeKey]:
    one, other = (rsa.generate_private_key(65_537, 2_048) for _ in range(2))
    return NodeKey(one), NodeKey(other)


def reply_to(request: Message) -> Message:
    return request.reply(ResponseCode.SUCCESS, SITE.to_wire(), site_serial=SITE.serial)


async def test_a_node_tells_its_site() -> None:
    asked: list[Message] = []

    async def answer(request: Message, writer: asyncio.StreamWriter) -> None:
        asked.append(request)
        writer.write(reply_to(request).to_wire())

    async with other_node(answer) as port:
        assert await ask(port) == ToldSite(SITE, is_signed=False)
    (request,) = asked
    assert (request.opcode, request.expiration_s) == (Opcode.GET_SITE_INFO, NOW_S + 43_200)
    assert request.body == b"\0\0\0\1/"
    assert request_body(request)


@pytest.mark.parametrize("is_own", [True, False])
async def test_who_signs_must_have_a_key_of_the_site(
    keys: tuple[NodeKey, NodeKey], is_own: bool
) -> None:
    own, signing = keys[0], keys[0] if is_own else keys[1]
    site = site_at(Reach("192.0.2.7", 2641), own.public_key, 5)
    asked: list[Message] = []

    async def answer(request: Message, writer: asyncio.StreamWriter) -> None:
        asked.append(request)
        reply = request.reply(ResponseCode.SUCCESS, site.to_wire(), site_serial=5)
        writer.write(signing.signed(reply).to_wire())

    async with other_node(answer) as port:
        if is_own:
            assert await ask(port) == ToldSite(site, is_signed=True)
        else:
            with pytest.raises(UnansweredError, match="another key than its site names"):
                await ask(port)
    assert asked[0].flags & OpFlag.CERT


async def test_an_answer_may_come_in_pieces_and_behind_another_one() -> None:
    async def answer(request: Message, writer: asyncio.StreamWriter) -> None:
        other = replace(request.envelope, request_id=request.envelope.request_id ^ 1)
        late = replace(reply_to(request), envelope=other).to_wire()
        for byte in late + reply_to(request).to_wire():
            writer.write(bytes((byte,)))
            await writer.drain()

    async with other_node(answer) as port:
        assert await ask(port) == ToldSite(SITE, is_signed=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: replace(one, response_code=301, body=b""), "response code 301"),
        (
            lambda one: replace(one, opcode=int(Opcode.LIST_HOMED_NAS), body=bytes(4)),
            "answered to operation 302",
        ),
        (lambda one: replace(one, body=b"\0\1\2"), "its answer is no message"),
        (lambda one: replace(one, body=one.body[:-1]), "its answer is no message"),
    ],
)
async def test_an_answer_that_names_no_site_is_none(
    change: Callable[[Message], Message], reason: str
) -> None:
    async def answer(request: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(change(reply_to(request)).to_wire())

    async with other_node(answer) as port:
        with pytest.raises(UnansweredError, match=reason):
            await ask(port)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "its answer is no message: major version"),
        (b"\2\13\2\13" + bytes(12) + b"\x7f\xff\xff\xff", "its answer is no message"),
        (b"\2\13\2\13" + bytes(12) + b"\0\0\0\x40", "closed the connection without an answer"),
    ],
)
async def test_bytes_that_are_no_message_are_no_answer(said: bytes, reason: str) -> None:
    async def answer(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with other_node(answer) as port:
        with pytest.raises(UnansweredError, match=reason):
            await ask(port)


async def test_a_node_that_says_nothing_is_not_waited_for_for_ever() -> None:
    asked = asyncio.Event()

    async def answer(_: Message, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(PATIENCE_S)

    async with other_node(answer) as port:
        with pytest.raises(UnansweredError, match=r"no answer within 0\.5 s"):
            await ask(port, 0.5)
    assert asked.is_set()


async def test_a_port_where_nobody_is_says_so() -> None:
    with pytest.raises(UnansweredError, match=r"(?i)connect"):
        await ask(free_port())
