"""Callers that keep a node busy, look at every answer, and know what became of each request."""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from typing import Final

# A caller that gets no answer for so long has lost it.
PATIENCE_S: Final = 30.0
_PAUSE_S: Final = 0.02

_NETWORK = (OSError, asyncio.IncompleteReadError, ssl.SSLError)


@dataclass
class BusyCallers:
    """Connections that ask for one thing again and again, and expect the same body each time."""

    port: int
    path: str
    body: bytes
    tls: ssl.SSLContext | None = None
    sent: int = 0
    answered: int = 0
    closes: int = 0
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    wrong: list[bytes] = field(default_factory=list)
    _is_asking: bool = False
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def begin(self, lasting: int, short: int = 0) -> None:
        """Ask on `lasting` connections that are kept, and `short` times on one for each request."""
        self._is_asking = True
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._ask(is_kept=True)) for _ in range(lasting)]
        self._tasks += [loop.create_task(self._ask(is_kept=False)) for _ in range(short)]

    async def end(self) -> None:
        """Ask nothing more, and wait for the answers under way."""
        self._is_asking = False
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._tasks)

    async def answers(self, more: int) -> None:
        """Return when so many more answers have come."""
        wanted = self.answered + more
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if self.answered >= wanted:
                    return
                await asyncio.sleep(_PAUSE_S)

    async def _ask(self, is_kept: bool) -> None:
        while self._is_asking:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
            except _NETWORK as error:
                self.refused.append(repr(error))
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                await self._converse(reader, writer, is_kept)
            except _NETWORK as error:
                self.broken.append(repr(error))
            finally:
                writer.close()
                with contextlib.suppress(*_NETWORK):
                    await writer.wait_closed()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_kept: bool
    ) -> None:
        while self._is_asking:
            self.sent += 1
            writer.write(f"GET {self.path} HTTP/1.1\r\nhost: idnode\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(size))
            self.answered += 1
            if not head.startswith(b"http/1.1 200 ") or body != self.body:
                self.wrong.append(head + body)
            if b"connection: close\r\n" in head:
                self.closes += 1
                return
            if not is_kept:
                return
