"""The drain: whoever was accepted is answered, told that it was the last time, and let go."""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from node.http_protocol import BoundedProtocol
from node.http_server import HttpServer, Listening
from node.tls import tls_context
from tests.test_tls import made

PATIENCE_S = 20.0
GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n"
HALF = b"GET /half HTTP/1.1\r\nhost: x\r\n\r\n"
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class Application:
    """Answers with the path; `/held` waits before the head of its answer, `/half` after it."""

    began: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    answered: list[str] = field(default_factory=list)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.began.set()
        if path == "/held":
            await self.gate.wait()
        self.answered.append(path)
        headers = [(b"content-length", str(len(path)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path == "/half":
            await self.gate.wait()
        await send({"type": "http.response.body", "body": path.encode()})


class HastyServer(HttpServer):
    """The server with a drain that a test can wait for."""

    drain_s = 2.0


@dataclass
class Serving:
    """A server that runs, and its application."""

    app: Application
    address: tuple[str, int]
    server: HttpServer
    running: "asyncio.Task[None]"

    async def connect(self, *requests: bytes) -> "Caller":
        reader, writer = await asyncio.open_connection(*self.address)
        caller = Caller(reader, writer)
        for request in requests:
            caller.writer.write(request)
        return caller

    async def drain(self) -> None:
        """Return when the server has heard that it is to end."""
        self.server.should_exit = True
        async with asyncio.timeout(PATIENCE_S):
            while not self.server._is_draining:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.01)

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.running


@dataclass
class Caller:
    """The other end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> tuple[bytes, bytes]:
        """Head and body of the next answer."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            size = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            return head, await self.reader.readexactly(int(size))

    async def rest(self) -> bytes:
        """Everything until the connection ends."""
        async with asyncio.timeout(PATIENCE_S):
            found = await self.reader.read()
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
        return found


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test on the loop of the workers, whose sockets and TLS are not those of asyncio."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*arguments, **named))

    return run


def listening() -> socket.socket:
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.listen(64)
    one.setblocking(False)
    return one


def server_on(app: Application, *sockets: Listening) -> HttpServer:
    config = uvicorn.Config(
        app, http=BoundedProtocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=75
    )
    return HastyServer(config, sockets)


@contextlib.asynccontextmanager
async def serving(*contexts: ssl.SSLContext) -> AsyncIterator[Serving]:
    app, one = Application(), listening()
    address = one.getsockname()
    server = server_on(app, Listening(one, *contexts))
    running = asyncio.create_task(server.serve())
    try:
        yield Serving(app, address, server, running)
    finally:
        server.should_exit = True
        app.gate.set()
        await running


@on_uvloop
async def test_a_request_under_way_is_answered_and_told_that_it_was_the_last() -> None:
    async with serving() as served:
        caller = await served.connect(HELD)
        await served.app.began.wait()
        await served.drain()
        served.app.gate.set()
        head, body = await caller.answer()
        assert b"connection: close\r\n" in head
        assert body == b"/held"
        assert await caller.rest() == b""
        await served.ended()


@on_uvloop
async def test_a_caller_that_goes_on_asking_gets_one_more_answer() -> None:
    async with serving() as served:
        caller = await served.connect(GET)
        head, _ = await caller.answer()
        assert b"connection: close" not in head
        await served.drain()
        caller.writer.write(GET)
        head, body = await caller.answer()
        assert b"connection: close\r\n" in head
        assert body == b"/a"
        assert await caller.rest() == b""
        await served.ended()


@on_uvloop
async def test_an_answer_that_had_begun_is_whole_and_the_next_one_is_the_last() -> None:
    async with serving() as served:
        caller = await served.connect(HALF)
        await served.app.began.wait()
        await served.drain()
        served.app.gate.set()
        head, body = await caller.answer()
        assert b"connection: close" not in head
        assert body == b"/half"
        caller.writer.write(GET)
        head, body = await caller.answer()
        assert b"connection: close\r\n" in head
        await caller.rest()
        await served.ended()


@on_uvloop
async def test_requests_sent_ahead_are_answered_before_the_last_word() -> None:
    async with serving() as served:
        caller = await served.connect(HELD + GET)
        await served.app.began.wait()
        await served.drain()
        served.app.gate.set()
        head, _ = await caller.answer()
        assert b"connection: close" not in head
        head, body = await caller.answer()
        assert b"connection: close\r\n" in head
        assert body == b"/a"
        await caller.rest()


@on_uvloop
async def test_a_caller_that_says_nothing_is_let_go() -> None:
    async with serving() as served:
        fresh, idle = await served.connect(), await served.connect(GET)
        await idle.answer()
        await served.drain()
        assert await fresh.rest() == await idle.rest() == b""
        await served.ended()


@on_uvloop
async def test_who_waits_in_the_backlog_is_answered() -> None:
    app, one = Application(), listening()
    callers = []
    for _ in range(8):
        caller = socket.create_connection(one.getsockname())
        caller.sendall(GET)
        callers.append(caller)
    server = server_on(app, Listening(one))
    # It is to end before it has accepted anybody.
    server.should_exit = True
    await server.serve()
    for caller in callers:
        with caller:
            answer = caller.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
            assert b"connection: close\r\n" in answer
            assert answer.endswith(b"/a")
    assert app.answered == ["/a"] * 8


@on_uvloop
async def test_what_takes_too_long_is_given_up_and_nothing_is_answered_any_more() -> None:
    async with serving() as served:
        caller = await served.connect(HELD)
        await served.app.began.wait()
        await served.drain()
        await served.ended()
        served.app.gate.set()
        with contextlib.suppress(ConnectionResetError):
            assert await caller.rest() == b""
        assert served.app.answered == []


@on_uvloop
async def test_who_shakes_hands_too_late_is_not_answered(tmp_path: Path) -> None:
    files = made(tmp_path, "node")
    trust = ssl.create_default_context(cafile=files.certificate)
    trust.check_hostname = False
    async with serving(tls_context(files.certificate, files.key)) as served:
        early = await served.connect()
        await served.drain()
        await served.ended()
        with contextlib.suppress(OSError):
            await early.writer.start_tls(trust)
            early.writer.write(GET)
        with contextlib.suppress(OSError):
            assert await early.rest() == b""
        assert served.app.answered == []


@on_uvloop
async def test_https_is_drained_like_http(tmp_path: Path) -> None:
    files = made(tmp_path, "node")
    trust = ssl.create_default_context(cafile=files.certificate)
    trust.check_hostname = False
    async with serving(tls_context(files.certificate, files.key)) as served:
        reader, writer = await asyncio.open_connection(*served.address, ssl=trust)
        caller = Caller(reader, writer)
        writer.write(HELD)
        await served.app.began.wait()
        await served.drain()
        served.app.gate.set()
        head, body = await caller.answer()
        assert b"connection: close\r\n" in head
        assert body == b"/held"
        assert await caller.rest() == b""
        await served.ended()
