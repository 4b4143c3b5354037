"""A small HTTP client that knows exactly what it sent and what was answered."""

import asyncio
import contextlib
from dataclasses import dataclass


@dataclass(slots=True)
class Sums:
    """Requests that left this client, and answers that came back whole."""

    sent: int = 0
    answered: int = 0


class Lost(Exception):  # noqa: N818 - an event of the network, not an error of ours
    """The connection ended before the answer was complete."""


class PlainClient:
    """One keep-alive connection, made again after every loss."""

    def __init__(self, host: str, port: int, timeout_s: float = 20.0) -> None:
        self._address = (host, port)
        self._timeout_s = timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, request: bytes, sums: Sums | None = None
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send one request; status, headers (lower case) and body of its answer.

        Raises:
            Lost: if no whole answer came; `sums.sent` counts it all the same once any byte of
                the request may have left.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await self._connected()
                if sums is not None:
                    sums.sent += 1
                writer.write(request)
                await writer.drain()
                answer = await _read_answer(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as e:
            await self.close()
            raise Lost(str(e)) from e
        if sums is not None:
            sums.answered += 1
        if answer[1].get(b"connection", b"").lower() == b"close":
            await self.close()
        return answer

    async def close(self) -> None:
        """Let go of the connection; the next request makes a new one."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None or self._streams[0].at_eof():
            await self.close()
            self._streams = await asyncio.open_connection(*self._address)
        return self._streams


async def _read_answer(
    reader: asyncio.StreamReader,
) -> tuple[int, dict[bytes, bytes], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    size = int(headers.get(b"content-length", b"0"))
    return status, headers, await reader.readexactly(size)


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: idnode\r\n\r\n".encode()


def put(path: str, key: str, body: bytes) -> bytes:
    """A PUT request of JSON with an API key."""
    return (
        f"PUT {path} HTTP/1.1\r\nHost: idnode\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
