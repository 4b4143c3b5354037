"""A client of the Handle protocol over every transport, for tests; it retries nothing."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count

import httpx

from resolver.wire import (
    Envelope,
    Message,
    MessageStream,
    Opcode,
    OpFlag,
    Reassembly,
    ResolutionRequest,
    ResolutionResponse,
    packets,
    response_body,
)

# Answers come within milliseconds; a busy machine may take its time.
PATIENCE_S = 20.0
# How long nothing has to come for it to count as silence.
SILENCE_S = 0.5
MEDIA_TYPE = "application/x-hdl-message"
# As the clients of Handle.Net ask.
PLAIN_FLAGS = OpFlag.RECU | OpFlag.CACR | OpFlag.PUBL
_READ_SIZE_BYTES = 65_536
# Random ones would sooner or later be the same, which is then taken for the same question.
_NUMBERS = count(secrets.randbits(30))


def question(
    handle: str,
    *,
    flags: int = PLAIN_FLAGS,
    indexes: tuple[int, ...] = (),
    types: tuple[str, ...] = (),
    request_id: int | None = None,
) -> Message:
    """A request for the values of `handle`, with a number of its own."""
    number = next(_NUMBERS) if request_id is None else request_id
    body = ResolutionRequest(handle, indexes, types).to_wire()
    return Message(Envelope(number), Opcode.RESOLUTION, body, flags=int(flags), expiration_s=1)


def wire_of(message: Message | bytes) -> bytes:
    """The bytes of a message."""
    return message if isinstance(message, bytes) else message.to_wire()


def values_of(message: Message) -> list[bytes]:
    """The data of the values in an answer."""
    body, _ = response_body(message)
    assert isinstance(body, ResolutionResponse), body
    return [value.data for value in body.values]


class Connection:
    """One TCP connection that stays; messages are matched by nobody."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._stream = MessageStream()

    async def send(self, *messages: Message | bytes) -> None:
        """Send messages in one piece."""
        self.writer.write(b"".join(map(wire_of, messages)))
        await self.writer.drain()

    async def receive(self) -> bytes | None:
        """The next message that comes; None if the server ends the connection."""
        async with asyncio.timeout(PATIENCE_S):
            while (message := self._stream.take()) is None:
                data = await self._reader.read(_READ_SIZE_BYTES)
                if not data:
                    return None
                self._stream.feed(data)
        return message

    async def ask(self, message: Message | bytes) -> Message:
        """The answer to one message."""
        await self.send(message)
        answer = await self.receive()
        assert answer is not None, "the connection was closed"
        return Message.from_wire(answer)

    async def is_ended(self) -> bool:
        """Return whether the server ends the connection without another word."""
        with contextlib.suppress(ConnectionError):
            return await self.receive() is None
        return True

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class NativeClient:
    """One client; over UDP it has one address for all that it asks. `with` closes it."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", http_port: int | None = None) -> None:
        self.host = host
        self.port = port
        self._http_port = http_port
        self._reassembly = Reassembly()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.udp.setblocking(False)
        self.udp.connect((host, port))

    async def __aenter__(self) -> "NativeClient":
        return self

    async def __aexit__(self, *ended: object) -> None:
        self.close()

    def __enter__(self) -> "NativeClient":
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        self.udp.close()

    async def send_udp(self, *messages: Message | bytes) -> None:
        """Send messages, each in as many packets as it needs."""
        loop = asyncio.get_running_loop()
        for message in messages:
            for packet in packets(wire_of(message)):
                await loop.sock_sendall(self.udp, packet)

    async def receive_udp(self, patience_s: float = PATIENCE_S) -> bytes | None:
        """The next message that comes, put together; None if none does."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while True:
                    packet = await loop.sock_recv(self.udp, _READ_SIZE_BYTES)
                    message = self._reassembly.add("server", packet, loop.time())
                    if message is not None:
                        return message
        return None

    async def ask_udp(self, message: Message | bytes) -> Message:
        """The answer to one message."""
        await self.send_udp(message)
        answer = await self.receive_udp()
        assert answer is not None, "no answer came"
        return Message.from_wire(answer)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """A connection that stays until the end of the block."""
        connection = Connection(*await asyncio.open_connection(self.host, self.port))
        try:
            yield connection
        finally:
            await connection.close()

    async def ask_tcp(self, message: Message | bytes) -> Message:
        """The answer on a connection of its own."""
        async with self.connected() as connection:
            return await connection.ask(message)

    async def ask_tcp_all(self, message: Message | bytes) -> list[Message]:
        """All messages of an answer that comes in several."""
        found: list[Message] = []
        async with self.connected() as connection:
            await connection.send(message)
            while not found or found[-1].flags & OpFlag.CONT:
                answer = await connection.receive()
                assert answer is not None, "the connection was closed"
                found.append(Message.from_wire(answer))
        return found

    async def post(self, body: bytes, path: str = "/0", **headers: str) -> httpx.Response:
        """What HTTP answers to a message inside it."""
        assert self._http_port is not None
        url = f"http://{self.host}:{self._http_port}{path}"
        types = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            return await client.post(url, content=body, headers=types | headers)

    async def ask_tunnel(self, message: Message | bytes) -> Message:
        """The answer inside HTTP."""
        response = await self.post(wire_of(message))
        assert response.status_code == 200, response.text
        return Message.from_wire(response.content)


def renumbered(message: Message, request_id: int) -> Message:
    """The same request under another number."""
    return replace(message, envelope=replace(message.envelope, request_id=request_id))
