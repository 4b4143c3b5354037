"""One connection at a time, as fast as a client in Python can be, and what it has been shown."""

import asyncio
import re
from dataclasses import dataclass
from typing import cast

from loadtest.plain_client import Lost

# Longer than the longest that a node takes to give up on its stores.
PATIENCE_S = 20.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; the head with its line ends."""

    status: int
    head: bytes
    body: bytes
    came_s: float


class _Wire(asyncio.Protocol):
    """Finds the end of one answer at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        if self._transport is None:
            raise Lost("the connection ended")
        self._answer = self._loop.create_future()
        self._transport.write(request)
        return self._answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data
        head_end = received.find(_HEAD_END)
        if head_end < 0:
            return
        length = _LENGTH.search(received, 0, head_end + 2)
        body_at = head_end + len(_HEAD_END)
        if length is None or len(received) < body_at + int(length[1]):
            return
        self._received = b""
        answer = Answer(
            int(received[9:12]), received[: head_end + 2], received[body_at:], self._loop.time()
        )
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Lost("the connection ended before the answer was whole"))


class Client:
    """Asks over one connection until that is lost or left; `seen` begins anew with each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._wire: _Wire | None = None
        self.seen: dict[str, int] = {}

    async def ask(self, request: bytes) -> Answer:
        """Send one request and return its answer.

        Raises:
            Lost: if no whole answer came.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                wire = self._wire
                if wire is None or not wire.is_open:
                    wire = await self._connected()
                answer = await wire.ask(request)
        except (OSError, Lost) as error:
            self.leave()
            raise Lost(str(error) or type(error).__name__) from error
        if b"\r\nconnection: close\r\n" in answer.head.lower():
            self.leave()
        return answer

    def leave(self) -> None:
        """End the connection; the next one may reach another worker."""
        wire, self._wire = self._wire, None
        self.seen.clear()
        if wire is not None:
            wire.abort()

    async def _connected(self) -> _Wire:
        self.leave()
        loop = asyncio.get_running_loop()
        _, self._wire = await loop.create_connection(_Wire, "127.0.0.1", self._port)
        return self._wire
