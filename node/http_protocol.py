"""uvicorn's HTTP protocol with limits: nobody holds a connection by being slow or long."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Request line and headers together. nginx and Jetty take 8 kB a line, 32 kB in all.
HEAD_SIZE_BYTES_MAX = 32 * 1024
# From the first byte (or the connection) to the end of the headers.
HEAD_TIMEOUT_S = 10.0
# From the headers to the end of the body: 16 MB over a slow line of 2 Mbit/s.
BODY_TIMEOUT_S = 70.0

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\n"
    b"content-length: 35\r\nconnection: close\r\n\r\nRequest head is longer than 32768 B\n"[:-1]
)


class BoundedProtocol(HttpToolsProtocol):
    """Counts the bytes of each request's head, and gives head and body their time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head = True
        self._head_size_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._expect(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_size_bytes += len(data)
        super().data_received(data)
        # Checked afterwards: a head that is complete by now was small enough or had a body.
        if self._in_head and self._head_size_bytes > HEAD_SIZE_BYTES_MAX:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._expect(HEAD_TIMEOUT_S)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_size_bytes = 0
        self._expect(BODY_TIMEOUT_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._expect(None)
        super().on_message_complete()

    def _expect(self, within_s: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if within_s is not None and self.transport is not None:
            self._deadline = self.loop.call_later(within_s, self.transport.close)
