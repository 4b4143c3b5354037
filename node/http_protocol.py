"""uvicorn's HTTP protocol with limits: nobody holds a connection by being slow or long.

Three clocks bound every wait for a caller: for a head, for a body, and for the caller to take its
answer. While an answer is being made no clock runs. Requests that are sent ahead (pipelined) wait
unread: no more of them are parsed before the earlier ones are answered.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from metrics.worker_numbers import REFUSED_CONNECTIONS, REFUSED_HEAD_SIZE, REFUSED_SLOW_CLIENT
from node.http_exchange import Reply, send_reply
from resolver.handle_json import error_answer
from resolver.response_code import ResponseCode

# Request line and headers together. nginx and Jetty take 8 kB a line, 32 kB in all.
HEAD_SIZE_BYTES_MAX: Final = 32 * 1024
# From the first byte (or the connection) to the end of the headers.
HEAD_TIMEOUT_S: Final = 10.0
# From the headers to the end of the body: 16 MB over a slow line of 2 Mbit/s.
BODY_TIMEOUT_S: Final = 70.0
# For the caller to take an answer; the longest are about as long as the longest body.
SEND_TIMEOUT_S: Final = 70.0
# For the caller to stop sending and read what it was answered (nginx: lingering_timeout 5 s).
LINGER_S: Final = 5.0
# Connections of one worker that are served: some 60 MB, and far below what the system lets one
# process have open. Beyond it a new connection's first request is answered 503 and the connection
# closed;
CONNECTIONS_MAX: Final = 4_000
# so many at a time are told why, further ones are closed without a word.
SURPLUS_MAX: Final = 500
# For the next request while the node stops: long enough for a caller that is busy asking.
DRAIN_IDLE_S: Final = 1
# Requests of one piece are parsed together: 8 kB of the shortest ones are some 450.
_PIECE_SIZE_BYTES: Final = 8 * 1024

_TEXTS: Final = {
    HTTPStatus.BAD_REQUEST: "This is not an HTTP/1.1 request\n",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        f"Request line and headers, or trailers, are longer than {HEAD_SIZE_BYTES_MAX} bytes\n"
    ),
}


class _Part(Enum):
    """The part of a request that comes next."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


class _TooLongError(Exception):
    """The head is complete and too long; the parser stops there."""


class BoundedProtocol(HttpToolsProtocol):
    """Counts the bytes of each request's head, and gives the caller its time for each part."""

    head_timeout_s = HEAD_TIMEOUT_S
    body_timeout_s = BODY_TIMEOUT_S
    send_timeout_s = SEND_TIMEOUT_S
    linger_s = LINGER_S
    drain_idle_s = DRAIN_IDLE_S
    connections_max = CONNECTIONS_MAX

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # The application may count what is refused before it hears of it.
        self._refused: Callable[[int], None] = getattr(self.app, "refused", _nobody)
        self._part = _Part.HEAD
        # Nothing of a request waits or is under way, and the caller takes what it is sent.
        self.is_between_requests = True
        self.is_draining = False
        self.early_answers = self._early_answers_seen = 0
        self._tls: object = None
        # A request that the parser never saw is being answered: what comes next waits for it.
        self._is_answering = False
        self._is_over = False
        self._has_eof = False
        self._is_too_long = False
        self._arrived = bytearray()
        # Bytes since the parser last finished something: of a head, of trailers.
        self._unfinished_size_bytes = 0
        self._advanced = False
        self._clock: asyncio.TimerHandle | None = None
        self._clock_s: float | None = None
        self._send_clock: asyncio.TimerHandle | None = None

    # --- what the transport says ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Knows the caller's certificate, if it has shown one. Not the transport: that knows us.
        self._tls = transport.get_extra_info("ssl_object")
        self.flow = _InTurn(transport, self.pipeline)
        self._answers = _AnswerTransport(self)
        if self._is_over:
            self.transport.abort()  # cut while it shook hands
        elif self.is_draining:
            self.shutdown()
        else:
            self._watch()
        surplus = len(self.connections) - self.connections_max
        if surplus > 0:
            self._turn_away(surplus)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self.is_between_requests = False
        self._set_clock(None)
        self._stop_send_clock()
        self._arrived.clear()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._let_go()

    def _let_go(self) -> None:
        """Leave nothing of a connection that has ended for the collector, which comes rarely.

        A request that is still worked on keeps what it needs; so few are left to the collector.
        """
        if self.cycle is None or self.cycle.response_complete:
            self.cycle = None  # type: ignore[assignment]  # as uvicorn begins
            self._answers.forget()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return  # only read so that the refusal reaches the caller
        self.is_between_requests = False
        if self._is_answering:
            self._arrived += data
            self.flow.pause_reading()
            return
        if self._part is _Part.NOTHING:
            self._part = _Part.HEAD
        if self._arrived or self.pipeline or len(data) > _PIECE_SIZE_BYTES:
            self._arrived += data
            self._parse()
        else:
            self._parse_piece(data)
            self._watch()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn never keeps it open
        """Whether the connection stays open: a caller that has said all still gets its answers."""
        self._has_eof = True
        self.is_between_requests = False
        # TLS of asyncio has no half-closed connections.
        return self._owes_answers() and self.transport.can_write_eof()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_between_requests = False
        self._send_clock = self.loop.call_later(self.send_timeout_s, self._unread)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_send_clock()
        self._look_between_requests()

    # --- what the parser says ---

    def on_message_begin(self) -> None:
        self._part = _Part.HEAD
        self._advanced = True
        super().on_message_begin()
        if self._tls is not None:
            self.scope["extensions"] = {"tls": {"ssl_object": self._tls}}

    def on_headers_complete(self) -> None:
        # The first piece of a head is not counted, and this one not yet: nearly all are short.
        if self._unfinished_size_bytes + 2 * _PIECE_SIZE_BYTES > HEAD_SIZE_BYTES_MAX:
            self._check_head()
        super().on_headers_complete()  # still the head's: it reads the URL
        self._part = _Part.BODY
        self._advanced = True
        self._set_clock(None)
        self.cycle.transport = self._answers
        if self.is_draining:
            self.cycle.keep_alive = False
        if self.parser.should_upgrade():
            # No other protocol is spoken here, and the parser reads nothing after such a request.
            self.cycle.keep_alive = False

    def _check_head(self) -> None:
        size_bytes = len(self.url) + sum([len(name) + len(text) + 4 for name, text in self.headers])
        if size_bytes > HEAD_SIZE_BYTES_MAX:
            self._is_too_long = True
            raise _TooLongError

    def on_chunk_header(self) -> None:
        self._advanced = True

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._part = _Part.NOTHING
        self._advanced = True
        super().on_message_complete()

    # --- what uvicorn says ---

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._parse()
        self._look_between_requests()

    def shutdown(self) -> None:
        """Answer what is under way and one more request, and say that it is the last; safe twice.

        A connection on which nothing comes for a while is closed.
        """
        self.is_draining = True
        self.is_between_requests = False
        if self.transport is None:
            return  # it shakes hands, and comes here again when it has
        self.timeout_keep_alive = self.drain_idle_s
        self._unset_keepalive_if_required()
        # The last of those that were sent ahead. If its answer's head has left, the next says so.
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle all the time, with regard to early answers, too."""
        if self.early_answers == self._early_answers_seen:
            self.close()
        else:
            self._early_answers_seen = self.early_answers
            self._watch_idleness()

    def answered_early(self) -> None:
        """A whole request was answered before the parser saw it: the connection is idle again."""
        self._part = _Part.NOTHING
        self._watch_idleness()
        self._watch()

    def begin_answering(self) -> None:
        """A whole request was taken that the parser does not see; `finish_answering` follows."""
        self.is_between_requests = False
        self._is_answering = True
        self._part = _Part.NOTHING
        self._unset_keepalive_if_required()
        self._watch()

    def finish_answering(self, answer: bytes) -> None:
        """Send the answer; while the node stops it has said that it is the last."""
        self._is_answering = False
        if self._is_finished():
            return
        self.transport.write(answer)
        if self.is_draining:
            self.end()
            return
        self._watch_idleness()
        self.flow.resume_reading()
        self._parse()
        self._look_between_requests()

    def _watch_idleness(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read; if answers are owed for what came before, they come first."""
        if self._owes_answers():
            self.cycle.keep_alive = False
            return
        if self._part is _Part.BODY:
            if self.cycle.response_started or self.pipeline:
                self.close()
                return
            # Nothing else is said to this request any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refuse()

    # --- ends ---

    def end(self) -> None:
        """Close after the last answer.

        Closing while the caller still sends would reset the connection and could destroy the
        answer on its way: what comes is thrown away for a while (RFC 9112 §9.6).
        """
        if self._is_over:
            return
        self.is_between_requests = False
        # While the node stops, callers that have not heard of it yet go on asking.
        has_more = self._part is not _Part.NOTHING or self.is_draining
        # TLS lingers by itself: it waits for the caller's last word.
        if not has_more or self.transport.is_closing() or not self.transport.can_write_eof():
            self.close()
            return
        self._is_over = True
        self._arrived.clear()
        self.pipeline.clear()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_clock(self.linger_s, self.close)

    def close(self) -> None:
        """Close, and cut the connection if the caller does not take what was written."""
        self._is_over = True
        self.is_between_requests = False
        self.transport.close()
        self._set_clock(self.send_timeout_s, self.transport.abort)

    def _turn_away(self, surplus: int) -> None:
        self._refused(REFUSED_CONNECTIONS)
        if surplus > SURPLUS_MAX:
            self.transport.abort()
            return
        self.is_between_requests = False
        self.app = _too_many_connections

    def _too_slow(self) -> None:
        if self._part is not _Part.NOTHING and not self.is_draining:
            self._refused(REFUSED_SLOW_CLIENT)
        self.close()

    def _unread(self) -> None:
        self._refused(REFUSED_SLOW_CLIENT)
        self.transport.abort()

    def cut(self) -> None:
        """End at once, also what is not connected yet: nothing is answered any more."""
        self._is_over = True
        self.is_between_requests = False
        if self.transport is not None:
            self.transport.abort()

    def _refuse(self) -> None:
        if self._is_too_long:
            self._refused(REFUSED_HEAD_SIZE)
        status = (
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            if self._is_too_long
            else HTTPStatus.BAD_REQUEST
        )
        body = _TEXTS[status].encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain;charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, status.phrase.encode(), head, body)
        )
        self._part = _Part.HEAD
        self.end()

    # --- reading ---

    def _parse(self) -> None:
        """Parse what has arrived, as far as it is its turn."""
        while self._arrived and not self.pipeline and not self._is_finished():
            piece = bytes(self._arrived[:_PIECE_SIZE_BYTES])
            del self._arrived[:_PIECE_SIZE_BYTES]
            self._parse_piece(piece)
        self._watch()

    def _parse_piece(self, piece: bytes) -> None:
        self._advanced = False
        super().data_received(piece)
        self._unfinished_size_bytes += len(piece)
        if self._advanced:
            self._unfinished_size_bytes = 0
        elif self._unfinished_size_bytes > HEAD_SIZE_BYTES_MAX and not self._is_finished():
            self._is_too_long = True
            self.send_400_response("")

    def _look_between_requests(self) -> None:
        self.is_between_requests = (
            self._part is _Part.NOTHING
            and not (self._arrived or self.pipeline or self._has_eof or self.is_draining)
            and not self.flow.write_paused
            and not self._owes_answers()
            and not self._is_finished()
        )

    def _is_finished(self) -> bool:
        return self._is_over or self.transport.is_closing()

    def _owes_answers(self) -> bool:
        """True if a request that was read to its end is not answered yet."""
        is_read = self._part is not _Part.BODY
        is_owed = is_read and self.cycle is not None and not self.cycle.response_complete
        return is_owed or self._is_answering

    # --- clocks ---

    def _watch(self) -> None:
        """Let the clock run that fits what is waited for."""
        if self._is_over:
            return
        if self._has_eof and not self._owes_answers():
            self.close()
            return
        patience_s = self._patience_s()
        if patience_s != self._clock_s:
            self._set_clock(patience_s, self._too_slow)

    def _patience_s(self) -> float | None:
        """How long we wait for the caller now; None while the caller waits for us."""
        if self.pipeline:
            return None
        if self._part is _Part.BODY:
            return self.body_timeout_s
        if self._owes_answers():
            return None
        if self._part is _Part.HEAD:
            is_idle = self.is_draining and self.scope is None
            return self.timeout_keep_alive if is_idle else self.head_timeout_s
        # uvicorn watches idle connections, but not after a body that came later than its answer.
        return None if self.timeout_keep_alive_task is not None else self.timeout_keep_alive

    def _set_clock(self, within_s: float | None, act: Callable[[], None] | None = None) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock, self._clock_s = None, within_s
        if within_s is not None and act is not None:
            self._clock = self.loop.call_later(within_s, act)

    def _stop_send_clock(self) -> None:
        if self._send_clock is not None:
            self._send_clock.cancel()
        self._send_clock = None


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of a connection that is one too many."""
    message = "The node has as many connections as it serves: try again in a second"
    headers = [(b"retry-after", b"1"), (b"connection", b"close")]
    body = error_answer(ResponseCode.SERVER_TOO_BUSY, message)
    reply = Reply(503, body, headers=headers)
    await send_reply(send, reply, with_body=scope["method"] != "HEAD")


def _nobody(_: int) -> None:
    """Nobody counts."""


class _InTurn(FlowControl):
    """Reads nothing more while requests that were read already wait for their turn."""

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class _AnswerTransport(asyncio.Transport):
    """The transport as an answer sees it: closing lets the caller finish."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        super().__init__()
        self._protocol: BoundedProtocol | None = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._protocol is not None:
            self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol is None or self._protocol.transport.is_closing()

    def close(self) -> None:
        if self._protocol is not None:
            self._protocol.end()

    def forget(self) -> None:
        """The connection has ended."""
        self._protocol = None
