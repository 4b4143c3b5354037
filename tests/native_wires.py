"""What native messages come and go on, in memory: one TCP connection, and the socket of UDP."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import cycle

from node.datagrams import Address
from node.native_tcp import NativeConnection, TcpDoor
from resolver.wire import ENVELOPE_SIZE_BYTES
from tests.native_replies import FoundError

# How a client sends: each byte says how much, and what happens then.
PLAN_SIZE_BYTES = 4

_PORT = 40_000
# Looks at a connection that is to end: each lets one of its clocks run out.
_LOOKS_MAX = 20


class _Connection(NativeConnection):
    # Few enough for one input to have more under way.
    under_way_max = 3

    @property
    def tasks(self) -> set["asyncio.Task[None]"]:
        return self._tasks

    @property
    def is_writable(self) -> bool:
        return self._writable.is_set()

    def run_out(self) -> float | None:
        """Let the clock run out that is next; how long that takes, None if there is none."""
        running = [one for one in self._clocks.items() if not one[1].cancelled()]
        if not running:
            return None
        act, timer = min(running, key=lambda one: one[1].when())
        elapsed_s = max(0.0, timer.when() - self._loop.time())
        timer.cancel()
        act()
        return elapsed_s


class MemoryTransport(asyncio.Transport):
    """The server's end of a TCP connection, as strict as asyncio's own; keeps what is written."""

    def __init__(self, protocol: NativeConnection, address: str) -> None:
        super().__init__({"peername": (address, _PORT)})
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._is_closing = self._has_written_eof = False
        self.is_paused = self.was_aborted = self.is_lost = False
        self.written = bytearray()
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._has_written_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not self._is_closing:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._has_written_eof = True

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """As asyncio does it: what is told about the end is told in another turn."""
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self.was_aborted = True
        self.close()

    def pause_reading(self) -> None:
        self.is_paused = not self._is_closing

    def resume_reading(self) -> None:
        self.is_paused = False

    def hear_eof(self) -> None:
        """The client has said all."""
        if not self._is_closing and not self._protocol.eof_received():
            self.close()

    def _lose(self) -> None:
        self.is_lost = True
        self._protocol.connection_lost(None)


class MemoryClient:
    """A client on one TCP connection; `after` lets the door's time pass."""

    def __init__(self, door: TcpDoor, address: str, after: Callable[[float], None]) -> None:
        self._after = after
        self._connection = _Connection(door)
        self._transport = MemoryTransport(self._connection, address)
        # From then on nobody need answer it.
        self.gave_up = False

    @property
    def written(self) -> bytes:
        """Everything that was answered."""
        return bytes(self._transport.written)

    async def send(self, data: bytes, plan: bytes) -> None:
        """Send `data` in pieces."""
        for step in cycle(plan):
            size_bytes = _piece_size_bytes(step & 0x3F, data)
            piece, data = data[:size_bytes], data[size_bytes:]
            await self._until_read()
            if not piece or self._transport.is_closing():
                return
            self._connection.data_received(piece)
            await self._step(step)

    async def leave(self, way: int) -> None:
        """Hang up at once, or say that nothing more comes; return when the connection has gone."""
        if way & 3 == 0:
            self.gave_up = True
            self._transport.close()
        elif way & 3 == 1:
            await self._until_read()
            self._transport.hear_eof()
        elif way & 3 == 2:
            await self._settled()
            self._transport.hear_eof()
        else:
            self._connection.drain()
        for _ in range(_LOOKS_MAX):
            await self._settled()
            if self._transport.is_lost:
                return
            self._run_out()
        raise FoundError("a connection does not end")

    async def _step(self, step: int) -> None:
        action = step >> 6
        if action == 1:
            await self._settled()
        if action == 2:
            self._toggle_writing()
        if action == 3 or (action == 2 and step & 1):
            self.gave_up = True
            self._run_out()
        await asyncio.sleep(0)

    async def _until_read(self) -> None:
        if self._transport.is_paused:
            await self._settled()
        if self._transport.is_paused and not self._transport.is_closing():
            raise FoundError("a connection hears nothing more, and nothing is under way on it")

    async def _settled(self) -> None:
        """Read all answers, until nothing is under way."""
        if not self._connection.is_writable:
            self._toggle_writing()
        await ended(self._connection.tasks)
        # The transport tells the end, and tasks theirs, in another turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _toggle_writing(self) -> None:
        if self._transport.is_closing():
            return
        if self._connection.is_writable:
            self._connection.pause_writing()
        else:
            self._connection.resume_writing()

    def _run_out(self) -> None:
        elapsed_s = self._connection.run_out()
        if elapsed_s is not None:
            self._after(elapsed_s)
        elif not self._transport.is_closing():
            raise FoundError("a connection has no clock to end it")


class MemoryDatagrams:
    """Implements Datagrams with what a test puts in; an address is a tuple as of a socket."""

    host = slice(0, 1)

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Address]] = []
        self.sent: list[tuple[bytes, Address]] = []

    def receive(self) -> Sequence[tuple[bytes, Address]]:
        """Everything that waits."""
        received, self.waiting = self.waiting, []
        return received

    def send(self, packets: Sequence[tuple[bytes, Address]]) -> None:
        self.sent += packets

    def text_of(self, address: Address) -> str:
        return str(address[0])


def _piece_size_bytes(chosen: int, data: bytes) -> int:
    """How much is sent at once; with the greatest choice one message."""
    if chosen < 0x3F:
        return 1 + 8 * chosen
    return ENVELOPE_SIZE_BYTES + int.from_bytes(data[ENVELOPE_SIZE_BYTES - 4 : ENVELOPE_SIZE_BYTES])


async def ended(tasks: set["asyncio.Task[None]"]) -> None:
    """Return when all of them are done, and none was added; raise what one has raised."""
    while tasks:
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, BaseException):
                raise FoundError(f"a task failed: {done!r}") from done
        await asyncio.sleep(0)
