"""The Handle protocol over TCP: connections that stay, with many messages under way on each.

Handle.Net closes after each answer; clients that expect it hang up by themselves, and those of the
Chinese networks keep their connections and log in on them. Answers are matched by the number of
their request, and come as soon as they are there.

Source: specs §3.7 and §4.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, cast

from metrics.dimension import CHANNEL_NATIVE_TCP
from metrics.worker_numbers import (
    REFUSED_CONNECTIONS,
    REFUSED_IN_FLIGHT,
    REFUSED_SLOW_CLIENT,
)
from node.listening import BACKLOG, LAST_CALL_S, accepted
from node.native_answering import NativeAnswering
from node.native_asker import Askers
from node.native_fast_path import NativeFastPath
from node.native_limits import Seats, source_of
from node.native_peer import Peer
from node.native_refusal import replies_to
from resolver.wire import InvalidMessageError, MessageStream

# A message that has begun: the longest takes 2 s on a slow line of 1 Mbit/s.
MESSAGE_TIMEOUT_S: Final = 30.0
# A connection on which nothing is asked: pools of clients keep theirs for minutes, with heartbeats.
IDLE_TIMEOUT_S: Final = 300.0
# For the client to take its answers, as over HTTP.
SEND_TIMEOUT_S: Final = 70.0
# For the client to hang up once it was told the end.
LINGER_S: Final = 5.0
# Messages of one connection that the door works on; further ones wait unread.
UNDER_WAY_MAX: Final = 64
# Without a question for so long a connection may be closed while the node stops.
DRAIN_IDLE_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.02


class NativeConnection(asyncio.Protocol):
    """One connection; the door is what they share."""

    message_timeout_s = MESSAGE_TIMEOUT_S
    idle_timeout_s = IDLE_TIMEOUT_S
    send_timeout_s = SEND_TIMEOUT_S
    linger_s = LINGER_S
    drain_idle_s = DRAIN_IDLE_S
    under_way_max = UNDER_WAY_MAX

    def __init__(self, door: "TcpDoor") -> None:
        self._door = door
        # Looked up once: they are asked for with every message.
        self._fast_answer, self._now_s = door.fast.answer, door.now_s
        self._loop = asyncio.get_running_loop()
        self._stream = MessageStream()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._held_bytes = 0
        self._clocks: dict[Callable[[], None], asyncio.TimerHandle] = {}
        # What was heard so far, and when the idle clock looked last.
        self._heard = self._heard_before = 0
        self._has_seat = self._has_eof = self._is_over = False
        self._waits = False

    @property
    def is_working(self) -> bool:
        """True while something that was asked is not answered."""
        return bool(self._tasks)

    # --- what the transport says ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        peername = transport.get_extra_info("peername")
        address = source_of(peername[0]) if peername else ""
        self._asker = self._door.askers.connected(address, CHANNEL_NATIVE_TCP, self._now_s())
        self._peer = Peer(self._asker.source, CHANNEL_NATIVE_TCP)
        self._has_seat = self._door.seats.take(address)
        self._door.connections.add(self)
        if not self._has_seat:
            self._door.answering.count(REFUSED_CONNECTIONS)
            self.cut()
        elif self._door.is_draining:
            self.drain()
        else:
            self._set_clock(self.idle_timeout_s, self._look_idle)

    def data_received(self, data: bytes) -> None:
        self._heard += 1
        if not (self._held_bytes or self._waits):
            answer = self._fast_answer(data, self._asker, self._now_s(), False)
            if answer is not None:
                self._transport.write(answer)
                return
        if self._is_over:
            return  # only read so that the last answer reaches the client
        self._stream.feed(data)
        self._take()

    def eof_received(self) -> bool:
        """Whether the connection stays open: who has said all still gets its answers."""
        self._has_eof = True
        return bool(self._tasks) and not self._is_over

    def pause_writing(self) -> None:
        self._writable.clear()
        self._set_clock(self.send_timeout_s, self._unread)
        self._wait()

    def resume_writing(self) -> None:
        self._writable.set()
        self._stop_clock(self._unread)
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """What was begun goes on to its end: a write is not broken off because nobody listens."""
        self._is_over = self._waits = True
        self._writable.set()
        for timer in self._clocks.values():
            timer.cancel()
        self._clocks.clear()
        self._hold(0)
        self._door.connections.discard(self)
        if self._has_seat:
            self._has_seat = False
            self._door.seats.give(self._asker.address)

    # --- messages ---

    def _take(self) -> None:
        """Begin what has arrived whole, as far as it is its turn."""
        try:
            while not self._waits:
                message = self._stream.take()
                if message is None:
                    break
                self._stop_clock(self._too_slow)
                self._begin(message)
        except InvalidMessageError as error:
            for reply in replies_to(error, self._door.answering.site_serial()):
                self._transport.write(reply)
            self.end()
        self._mind_rest()

    def _begin(self, message: bytes) -> None:
        now_s = self._now_s()
        answer = self._fast_answer(message, self._asker, now_s, False)
        if answer is not None:
            self._transport.write(answer)
            return
        refusal = self._door.answering.refusal(message, self._asker, now_s)
        if refusal is not None:
            self._transport.write(b"".join(refusal))
            return
        task = self._loop.create_task(self._work(message))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if len(self._tasks) >= self.under_way_max:
            self._wait()

    async def _work(self, message: bytes) -> None:
        answering = self._door.answering
        if not answering.room.take(len(message)):
            self._refuse(REFUSED_IN_FLIGHT)
            return
        try:
            answers = await answering.answer(message, self._peer)
        finally:
            answering.room.give(len(message))
        size_bytes = sum(map(len, answers))
        if not answering.room.take(size_bytes):
            self._refuse(REFUSED_SLOW_CLIENT)
            return
        try:
            await self._give(answers)
        finally:
            answering.room.give(size_bytes)

    async def _give(self, answers: list[bytes]) -> None:
        for answer in answers:
            await self._writable.wait()
            if self._transport.is_closing():
                return
            self._transport.write(answer)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._go_on()
        if not self._tasks and (self._is_over or self._has_eof):
            self._say_end()

    def _mind_rest(self) -> None:
        """Hold what is left, for as long as a message may take."""
        left_bytes = 0 if self._is_over else self._stream.held_bytes
        if not self._hold(left_bytes):
            self._refuse(REFUSED_IN_FLIGHT)
        elif not left_bytes or self._waits:
            self._stop_clock(self._too_slow)
        elif self._too_slow not in self._clocks:
            self._set_clock(self.message_timeout_s, self._too_slow)

    def _hold(self, size_bytes: int) -> bool:
        """Account for the bytes that wait here; False if they are too many for the worker."""
        room = self._door.answering.room
        room.give(self._held_bytes)
        self._held_bytes = size_bytes if room.take(size_bytes) else 0
        return self._held_bytes == size_bytes

    # --- turns ---

    def _wait(self) -> None:
        """Read no more until there is room for more."""
        if not self._waits and not self._transport.is_closing():
            self._waits = True
            self._transport.pause_reading()

    def _go_on(self) -> None:
        is_ready = self._writable.is_set() and len(self._tasks) < self.under_way_max
        if self._waits and is_ready and not self._is_over and not self._transport.is_closing():
            self._waits = False
            self._take()
            if not self._waits and not self._transport.is_closing():
                self._transport.resume_reading()

    # --- clocks ---

    def _look_idle(self) -> None:
        if self._heard == self._heard_before and not self._tasks:
            self.end()
        else:
            self._heard_before = self._heard
            self._set_clock(self.idle_timeout_s, self._look_idle)

    def _look_drained(self) -> None:
        if self._heard == self._heard_before and not self._tasks:
            self.end()
        else:
            self._heard_before = self._heard
            self._set_clock(self.drain_idle_s, self._look_drained)

    def _too_slow(self) -> None:
        self._door.answering.count(REFUSED_SLOW_CLIENT)
        self.end()

    def _unread(self) -> None:
        self._refuse(REFUSED_SLOW_CLIENT)

    def _set_clock(self, after_s: float, act: Callable[[], None]) -> None:
        self._stop_clock(act)
        if not self._transport.is_closing():
            self._clocks[act] = self._loop.call_later(after_s, act)

    def _stop_clock(self, act: Callable[[], None]) -> None:
        timer = self._clocks.pop(act, None)
        if timer is not None:
            timer.cancel()

    # --- ends ---

    def drain(self) -> None:
        """End when nothing was asked for a while: whoever is asking just now is answered."""
        self._heard_before = self._heard
        self._stop_clock(self._look_idle)
        self._set_clock(self.drain_idle_s, self._look_drained)

    def end(self) -> None:
        """Hear nothing more, and close when what was begun is answered; safe to call twice."""
        if self._is_over:
            return
        self._is_over = self._waits = True
        self._stream = MessageStream()
        self._hold(0)
        if not self._tasks:
            self._say_end()

    def cut(self) -> None:
        """Close at once."""
        self._is_over = self._waits = True
        self._transport.abort()

    def _say_end(self) -> None:
        """Tell the client the end, and give it time to hang up.

        Closing while it still sends would reset the connection and could destroy an answer on its
        way.
        """
        self._is_over = self._waits = True
        if self._transport.is_closing():
            return
        if self._has_eof:
            self._close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self._set_clock(self.linger_s, self._close)

    def _close(self) -> None:
        self._set_clock(self.send_timeout_s, self._transport.abort)
        self._transport.close()

    def _refuse(self, reason: int) -> None:
        self._door.answering.count(reason)
        self.cut()


class TcpDoor:
    """One listening socket of a worker, and the connections that came through it."""

    def __init__(
        self,
        listening: socket.socket,
        fast: NativeFastPath,
        answering: NativeAnswering,
        askers: Askers,
        now_s: Callable[[], float],
    ) -> None:
        self.fast = fast
        self.answering = answering
        self.askers = askers
        self.now_s = now_s
        self.seats = Seats()
        self.connections: set[NativeConnection] = set()
        self.is_draining = False
        self._socket = listening
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Accept connections from now on."""
        self._server = await asyncio.get_running_loop().create_server(
            self._connection, sock=self._socket, backlog=BACKLOG
        )

    async def drain(self) -> None:
        """Let in who waits to be, answer who is in, accept nobody else; until all have gone."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.drain()
        await asyncio.sleep(LAST_CALL_S)
        waiting = [] if self._server is None else list(accepted(self._socket))
        self._stop_accepting()
        loop = asyncio.get_running_loop()
        for connected in waiting:
            # Who has left already is no failure of ours.
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._connection, connected)
        while True:
            if not self.connections:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        """End at once."""
        self.is_draining = True
        self._stop_accepting()
        for connection in list(self.connections):
            connection.cut()

    def _stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _connection(self) -> NativeConnection:
        return NativeConnection(self)
