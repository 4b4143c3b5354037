"""The HTTP protocol under callers that are slow, long-winded, impatient or broken."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

import uvicorn
import uvloop
from uvicorn.server import ServerState

from node.http_protocol import HEAD_SIZE_BYTES_MAX, BoundedProtocol

PATIENCE_S = 20.0
GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
# More than the buffers of both ends of a connection take.
LARGE_SIZE_BYTES = 40_000_000
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class HastyProtocol(BoundedProtocol):
    """The protocol with waits that a test can wait for."""

    head_timeout_s = 0.3
    body_timeout_s = 0.4
    send_timeout_s = 0.5
    linger_s = 0.6
    made: ClassVar["list[HastyProtocol]"] = []

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.made.append(self)


@dataclass
class Answering:
    """An application that answers with the path, or as the path says."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    began: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.began.append(path)
        body = path.encode()
        if path == "/held":
            await self.gate.wait()
        elif path == "/large":
            body = bytes(LARGE_SIZE_BYTES)
        elif path == "/body":
            whole = await _whole_body(receive)
            if whole is None:
                self.left.append(path)
                return
            body = str(len(whole)).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.answered.append(path)


async def _whole_body(receive: Receive) -> bytes | None:
    whole = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message["body"]
        whole += part
        if not message["more_body"]:
            return whole


@dataclass
class Served:
    """A server with the protocol, and what it serves."""

    port: int
    app: Answering
    state: ServerState

    @property
    def protocol(self) -> HastyProtocol:
        """The server's end of the connection made last."""
        return HastyProtocol.made[-1]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *pieces: bytes, end: bool = False) -> bytes:
        """Everything that is answered until the server closes the connection."""
        reader, writer = await self.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            if end:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            await _hang_up(writer)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # a protocol tells nobody when it changes
                await asyncio.sleep(0.01)

    async def until_all_closed(self) -> None:
        await self.until(lambda: not self.state.connections)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def _serving(keep_alive_s: int) -> AsyncIterator[Served]:
    app, state = Answering(), ServerState()
    config = uvicorn.Config(
        app,
        http=HastyProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive_s,
    )
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HastyProtocol(config, state, {}), "127.0.0.1", 0)
    try:
        yield Served(server.sockets[0].getsockname()[1], app, state)
    finally:
        app.gate.set()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks)


def served(
    keep_alive_s: int = 75,
) -> Callable[[Callable[[Served], Coroutine[None, None, None]]], Callable[[], None]]:
    """Make a test of a story that needs a server, on the event loop that the node runs on."""

    def made(story: Callable[[Served], Coroutine[None, None, None]]) -> Callable[[], None]:
        async def told() -> None:
            HastyProtocol.made.clear()
            async with _serving(keep_alive_s) as server:
                await story(server)

        def test() -> None:
            uvloop.run(told())

        test.__name__, test.__doc__ = story.__name__, story.__doc__
        return test

    return made


def statuses(answered: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answered)]


# --- clocks ---


@served()
async def test_a_caller_that_says_nothing_is_let_go(server: Served) -> None:
    assert await server.say() == b""


@served()
async def test_a_head_that_is_never_finished_is_let_go(server: Served) -> None:
    reader, writer = await server.connect()
    writer.write(GET[:-2])
    async with asyncio.timeout(PATIENCE_S):
        while not reader.at_eof():
            writer.write(b"x: y\r\n")
            with contextlib.suppress(TimeoutError, OSError):
                assert await asyncio.wait_for(reader.read(1), 0.05) == b""
    await _hang_up(writer)
    assert server.app.began == []


@served()
async def test_a_body_that_is_never_finished_is_let_go(server: Served) -> None:
    answered = await server.say(b"POST /body HTTP/1.1\r\ncontent-length: 5\r\n\r\nabc")
    assert answered == b""
    assert server.app.left == ["/body"]


@served()
async def test_a_body_that_comes_after_its_answer_has_its_time_too(server: Served) -> None:
    answered = await server.say(b"POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\nabc")
    assert statuses(answered) == [200]


@served(keep_alive_s=1)
async def test_a_connection_is_idle_after_a_body_that_came_late(server: Served) -> None:
    answered = await server.say(b"POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\nabc", b"de")
    assert statuses(answered) == [200]


@served(keep_alive_s=1)
async def test_an_idle_connection_is_closed(server: Served) -> None:
    assert statuses(await server.say(GET)) == [200]


@served()
async def test_line_ends_between_requests_do_not_hold_a_connection(server: Served) -> None:
    assert statuses(await server.say(GET, b"\r\n")) == [200]


@served()
async def test_no_clock_runs_while_an_answer_is_made(server: Served) -> None:
    reader, writer = await server.connect()
    writer.write(GET.replace(b"/a", b"/held"))
    await server.until(lambda: server.app.began == ["/held"])
    # Longer than any wait for the caller.
    await asyncio.sleep(1.0)
    server.app.gate.set()
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    await _hang_up(writer)


@served()
async def test_a_caller_that_does_not_take_its_answer_is_cut_off(server: Served) -> None:
    _, writer = await server.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(GET.replace(b"/a", b"/large"))
    await server.until(lambda: server.app.answered == ["/large"])
    assert server.state.connections
    await server.until_all_closed()
    await _hang_up(writer)


@served()
async def test_a_closed_connection_does_not_wait_for_its_caller_for_ever(server: Served) -> None:
    _, writer = await server.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /large HTTP/1.0\r\n\r\n")
    await server.until(lambda: server.app.answered == ["/large"])
    assert server.state.connections
    await server.until_all_closed()
    await _hang_up(writer)


# --- sizes ---


@served()
async def test_a_long_head_is_refused_however_it_arrives(server: Served) -> None:
    line = b"x: " + b"y" * 2 * HEAD_SIZE_BYTES_MAX + b"\r\n"
    whole = GET[:-2] + line + b"\r\n"
    for pieces in ([whole], [whole[:-10]], [whole[:100], whole[100:]]):
        answered = await server.say(*pieces)
        assert statuses(answered)[-1] == 431, pieces
        assert b"32768 bytes" in answered
    assert server.app.began == []


@served()
async def test_a_head_just_short_enough_is_served(server: Served) -> None:
    room = HEAD_SIZE_BYTES_MAX - len("/a") - len("host") - len("x") - 4 - len("x") - 4
    whole = b"GET /a HTTP/1.0\r\nhost: x\r\nx: " + b"y" * room
    assert statuses(await server.say(whole + b"\r\n\r\n")) == [200]
    assert statuses(await server.say(whole + b"y\r\n\r\n")) == [431]


@served()
async def test_trailers_without_end_are_refused(server: Served) -> None:
    start = b"POST /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    answered = await server.say(start + b"x: y\r\n" * HEAD_SIZE_BYTES_MAX)
    assert statuses(answered) == [431]
    assert server.app.left == ["/body"]


@served()
async def test_many_small_chunks_are_a_body_and_no_head(server: Served) -> None:
    chunks = b"1\r\na\r\n" * HEAD_SIZE_BYTES_MAX
    answered = await server.say(
        b"POST /body HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        chunks + b"0\r\n\r\n",
    )
    assert answered.endswith(b"\r\n\r\n" + str(HEAD_SIZE_BYTES_MAX).encode())


# --- turns ---


@served()
async def test_requests_sent_ahead_are_answered_in_their_order(server: Served) -> None:
    paths = [b"/%d" % number for number in range(2_000)]
    asked = b"".join(b"GET %s HTTP/1.1\r\n\r\n" % path for path in paths)
    answered = await server.say(asked + b"GET /last HTTP/1.0\r\n\r\n")
    assert server.app.answered == [path.decode() for path in (*paths, b"/last")]
    assert answered.count(b"HTTP/1.1 200 OK") == len(paths) + 1


@served()
async def test_requests_sent_ahead_wait_unread(server: Served) -> None:
    _, writer = await server.connect()
    writer.write(GET.replace(b"/a", b"/held") + GET * 200_000)
    await server.until(lambda: server.app.began == ["/held"])
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.5)
    assert 0 < len(server.protocol.pipeline) < 1_000
    server.app.gate.set()
    await _hang_up(writer)


@served()
async def test_a_body_sent_ahead_reaches_its_own_request(server: Served) -> None:
    size_bytes = 300_000
    asked = b"POST /body HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % size_bytes
    answered = await server.say(GET * 3 + asked + b"x" * size_bytes)
    assert statuses(answered) == [200, 200, 200, 200]
    assert answered.endswith(b"\r\n\r\n300000")


@served()
async def test_what_cannot_be_read_does_not_take_an_owed_answer_along(server: Served) -> None:
    answered = await server.say(GET + b"\x00\x01 nonsense\r\n\r\n")
    assert statuses(answered) == [200]


# --- ends ---


@served()
async def test_a_caller_that_has_said_all_gets_its_answers(server: Served) -> None:
    assert statuses(await server.say(GET, end=True)) == [200]
    assert statuses(await server.say(GET * 500, end=True)) == [200] * 500


@served()
async def test_a_request_that_ends_half_way_reaches_nobody(server: Served) -> None:
    assert await server.say(GET[:10], end=True) == b""
    body = b"POST /body HTTP/1.1\r\ncontent-length: 5\r\n\r\nabc"
    assert await server.say(body, end=True) == b""
    await server.until(lambda: server.app.left == ["/body"])


@served()
async def test_nonsense_is_refused(server: Served) -> None:
    for nonsense in (
        b"\x16\x03\x01\x00\xa5 a TLS hello",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ):
        assert statuses(await server.say(nonsense)) == [400], nonsense


@served()
async def test_a_broken_chunk_is_refused_and_its_request_ended(server: Served) -> None:
    asked = b"POST /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    assert statuses(await server.say(asked + b"1\r\na\r\n", b"zz\r\n")) == [400]
    assert server.app.left == ["/body"]


@served()
async def test_another_protocol_is_not_spoken_and_the_request_answered(server: Served) -> None:
    upgrade = GET[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    answered = await server.say(upgrade)
    assert statuses(answered) == [200]
    assert b"connection: close" in answered


@served()
async def test_an_answer_survives_a_body_that_nobody_reads(server: Served) -> None:
    """Closing with unread bytes would reset the connection before the answer is read."""
    reader, writer = await server.connect()
    size_bytes = 8_000_000
    writer.write(
        b"POST /a HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size_bytes
    )
    await server.until(lambda: server.app.answered == ["/a"])
    writer.write(b"x" * size_bytes)
    await writer.drain()
    async with asyncio.timeout(PATIENCE_S):
        assert statuses(await reader.read()) == [200]
    await _hang_up(writer)
    await server.until_all_closed()


@served()
async def test_the_body_is_asked_for_only_if_it_is_wanted(server: Served) -> None:
    head = b" HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 2\r\n\r\n"
    assert statuses(await server.say(b"POST /body" + head, b"ab")) == [100, 200]
    assert statuses(await server.say(b"POST /a" + head)) == [200]
