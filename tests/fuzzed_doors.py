"""What any bytes may do to the native doors: get answers, or silence, and nothing else.

The doors are those of one worker on real stores; what they hear comes in memory.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
from starlette.types import Message as Event

from metrics.dimension import CHANNEL_NATIVE_HTTP, CHANNEL_NATIVE_TCP, CHANNEL_NATIVE_UDP
from node.announcer import Announcer
from node.datagrams import DATAGRAM_SIZE_BYTES_MAX, Address
from node.http_exchange import Exchange
from node.native_limits import HELD_SIZE_BYTES_MAX, Room
from node.native_peer import Peer
from node.native_sessions import NativeSessions
from node.native_tcp import TcpDoor
from node.native_tunnel import NativeTunnel
from node.native_udp import UdpDoor
from node.prefix_table import PrefixTable
from registry.records import PostgresRecords, Written
from resolver.identifier import from_text
from resolver.prefix_directory import PrefixState
from resolver.record import HandleValue
from resolver.wire import (
    PACKET_SIZE_BYTES_MAX,
    InvalidMessageError,
    Message,
    OpFlag,
    Reassembly,
)
from resolver.wire._fragments import UNFINISHED_SIZE_BYTES_MAX
from tests.answering import Answering
from tests.leaving_stores import LeavingCache, LeavingDatabase
from tests.listening_cache import listening_cache
from tests.native_asking import SERVER_ADMIN, prepared_records
from tests.native_doors import NativeDoors, own_site
from tests.native_node import AUTHOR, PREFIX, add_prefixes
from tests.native_replies import FoundError, Sent
from tests.native_wires import PLAN_SIZE_BYTES, MemoryClient, MemoryDatagrams, ended

# Nothing that a stranger sends may keep a node busy for longer; a busy machine takes its time.
PATIENCE_S = 30.0
HERE, STRANGER, NEIGHBOUR, OTHER = "127.0.0.1", "192.0.2.7", "192.0.2.8", "198.51.100.9"
_SENDERS = (HERE, STRANGER, NEIGHBOUR, OTHER)
_CHANNELS = (CHANNEL_NATIVE_TCP, CHANNEL_NATIVE_UDP, CHANNEL_NATIVE_HTTP)
# A room in which a few messages are too many.
_NARROW_SIZE_BYTES = 1_000
# Before each datagram: its sender, and its size.
_HEAD_SIZE_BYTES = 3
# What a network may draw in a second, in packets, and a source in requests: few enough for one
# input to draw too much.
_PER_NETWORK, _PER_SOURCE = 8, 5
# Prefixes of others: one is suspended, one run by the enterprise's own node.
SUSPENDED, SELF_RUN = "88.102.6", "88.102.7"


class Trouble(logging.Handler):
    """Whatever nobody may cause: errors in the log or of the event loop, and broken limits."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def note_failure(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle exceptions that nobody has caught, as the event loop tells them."""
        self.texts.append(f"{context['message']}: {context.get('exception')!r}")


class _WatchedRoom(Room):
    """Knows when more is held than may be, or more given back than was taken."""

    def __init__(self, size_bytes: int, trouble: Trouble) -> None:
        super().__init__(size_bytes)
        self._most = size_bytes
        self._trouble = trouble

    def take(self, size_bytes: int) -> bool:
        is_taken = super().take(size_bytes)
        self._look()
        return is_taken

    def give(self, size_bytes: int) -> None:
        super().give(size_bytes)
        self._look()

    def _look(self) -> None:
        if not 0 <= self.held_bytes <= self._most:
            self._trouble.texts.append(f"{self.held_bytes} bytes of {self._most} are held")


class _Udp(UdpDoor):
    """The door of datagrams, to which they come in memory."""

    def __init__(self, bound: socket.socket, doors: NativeDoors) -> None:
        super().__init__(bound, doors.fast, doors.native, doors.askers, doors.answering.clock)
        self._datagrams = self.wire = MemoryDatagrams()

    @property
    def held_bytes(self) -> int:
        return self._reassembly.held_bytes

    async def read(self) -> None:
        """Read what waits, and return when all of it is answered."""
        self._read()
        await ended(self._tasks)


class FuzzedDoors:
    """The doors, and three ways for bytes to come in; others are in tests/fuzzed_operations.py."""

    def __init__(
        self,
        doors: NativeDoors,
        database: LeavingDatabase,
        cache: LeavingCache,
        udp: socket.socket,
    ) -> None:
        self.doors = doors
        self._database = database
        self._cache = cache
        self.clock = doors.answering.clock
        self.sessions = NativeSessions(cache)
        self.trouble = Trouble()
        self._records = PostgresRecords(database)
        self._announcer = Announcer(database, cache, doors.answering.resolver, _nothing)
        self._prepared = prepared_records()
        self._written_at = self._leaving = 0
        self._udp = _Udp(udp, doors)
        # It never accepts: its connections are made here.
        self._tcp = TcpDoor(udp, doors.fast, doors.native, doors.askers, self.clock)
        # No datagram of one input is the repetition of another's.
        self._ports = count(1)

    async def open(self) -> None:
        """Register what can be asked for, and answer from now on."""
        logging.getLogger().addHandler(self.trouble)
        asyncio.get_running_loop().set_exception_handler(self.trouble.note_failure)
        self._udp.open()
        await self.put_back()

    async def close(self) -> None:
        await self._udp.close()
        asyncio.get_running_loop().set_exception_handler(None)
        logging.getLogger().removeHandler(self.trouble)

    @asynccontextmanager
    async def trial(self, leaving: int) -> AsyncIterator[None]:
        """One input comes in, a second after the last one; then nothing is left of it.

        Bits of `leaving` say which stores leave, and when: 1 Redis, 2 PostgreSQL, then a number.

        Raises:
            FoundError: if anything happened that nobody may cause.
        """
        self.trouble.texts.clear()
        self.doors.door.asked.clear()
        self.doors.door.peers.clear()
        self.doors.answering.after(1.0)
        self._set_room(HELD_SIZE_BYTES_MAX)
        self._leaving = leaving
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        except TimeoutError as error:
            raise FoundError(f"not done after {PATIENCE_S} s") from error
        self._require_nothing_left()

    async def put_back(self) -> None:
        """Register again what was overwritten or deleted."""
        if await self._last_written() == self._written_at:
            return
        for handle, values in self._prepared.items():
            await self._put(handle, *values)
        self._written_at = await self._last_written()

    async def require_unwritten(self) -> None:
        """Nothing was written, as by somebody who has proven nothing.

        Raises:
            FoundError: if it was.
        """
        if await self._last_written() != self._written_at:
            raise FoundError("somebody has written who may not")

    @contextmanager
    def _without_stores(self) -> Iterator[None]:
        """The stores leave, if they are to, while something is asked."""
        after = self._leaving >> 2
        self._cache.left = after if self._leaving & 1 else None
        self._database.left = after if self._leaving & 2 else None
        try:
            yield
        finally:
            self._cache.left = self._database.left = None

    # --- the ways in ---

    async def ask(
        self,
        message: Message | bytes,
        peer: Peer,
        *,
        plain: Message | None = None,
        key: bytes | None = None,
    ) -> list[Message]:
        """The replies to one message; what it says if it is encrypted, and its session's key."""
        data = message if isinstance(message, bytes) else message.to_wire()
        sent = Sent(key)
        sent.add(data, plain)
        with self._without_stores():
            replies = sent.judge(await self.doors.native.answer(data, peer))
        sent.require_all(replies)
        if not all(reply.flags & OpFlag.CONT for reply in replies[:-1]):
            raise FoundError(f"{len(replies)} replies to one request: {replies}")
        return replies

    async def hear_message(self, options: int, data: bytes) -> None:
        """The input is one message."""
        if _CHANNELS[options % 3] == CHANNEL_NATIVE_HTTP:
            await self._hear_tunnel(data)
        else:
            await self.ask(data, peer_of(options))

    async def hear_stream(self, options: int, data: bytes) -> None:
        """The input is what a TCP connection brings, cut in pieces."""
        plan, data = data[:PLAN_SIZE_BYTES] or b"\x01", data[PLAN_SIZE_BYTES:]
        if options & 1:
            self._set_room(_NARROW_SIZE_BYTES)
        sent = Sent()
        sent.add_stream(data)
        client = MemoryClient(self._tcp, STRANGER, self.doors.answering.after)
        with self._without_stores():
            await client.send(data, plan)
            await client.leave(options >> 1)
        replies = sent.judge_stream(client.written)
        if not options & 1 and not client.gave_up:
            sent.require_all(replies)
        if self._tcp.connections or self._tcp.seats.taken:
            raise FoundError("a connection has gone and keeps its seat")

    async def hear_datagrams(self, options: int, data: bytes) -> None:
        """The input is datagrams, each behind three bytes: who sends it, and how long it is."""
        if options & 1:
            self._set_room(_NARROW_SIZE_BYTES)
        port = next(self._ports)
        whole, sent = Reassembly(), {(sender, port): Sent() for sender in _SENDERS}
        for who, datagram in datagrams_in(data):
            address = (_SENDERS[who & 3], port)
            if who & 4:
                await self._read_datagrams()
            if who & 8:
                self.doors.answering.after(float(who >> 4))
            self._udp.wire.waiting.append((datagram, address))
            message = _completed(whole, address, datagram, self.clock())
            if message is None:
                sent[address].add_part(datagram)
            else:
                sent[address].add(message)
        await self._read_datagrams()
        self._judge_datagrams(sent, is_limited=bool(options & 1))
        if not 0 <= self._udp.held_bytes <= UNFINISHED_SIZE_BYTES_MAX:
            raise FoundError(f"{self._udp.held_bytes} bytes of parts of messages are held")

    async def _read_datagrams(self) -> None:
        with self._without_stores():
            await self._udp.read()

    async def _hear_tunnel(self, data: bytes) -> None:
        async def receive() -> Event:
            return {"type": "http.request", "body": data, "more_body": False}

        scope = {"type": "http", "method": "POST", "path": "/0", "client": (STRANGER, 1)}
        exchange = Exchange({**scope, "headers": []}, receive)
        sent = Sent()
        sent.add(data)
        tunnel = NativeTunnel(self.doors.native, self.doors.answering.tally)
        reply = await tunnel.answer(exchange)
        if reply.status not in (200, 400):
            raise FoundError(f"HTTP says {reply}")
        sent.require_all(sent.judge_stream(reply.body) if reply.status == 200 else [])

    def _judge_datagrams(self, sent: Mapping[Address, Sent], *, is_limited: bool) -> None:
        replies: dict[Address, list[bytes]] = {address: [] for address in sent}
        whole = Reassembly()
        for packet, address in self._udp.wire.sent:
            if len(packet) > PACKET_SIZE_BYTES_MAX:
                raise FoundError(f"a packet of {len(packet)} bytes")
            reply = whole.add(address, packet, 0.0)
            if reply is not None:
                replies[address].append(reply)
        self._udp.wire.sent.clear()
        if len(whole):
            raise FoundError("packets of a reply are missing")
        for address, judge in sent.items():
            found = judge.judge(replies[address])
            if address[0] == HERE and not is_limited:
                judge.require_all(found, once=True)

    # --- limits and what is left ---

    def _set_room(self, size_bytes: int) -> None:
        self.doors.native.room = _WatchedRoom(size_bytes, self.trouble)

    def _require_nothing_left(self) -> None:
        held_bytes = self.doors.native.room.held_bytes
        if held_bytes:
            self.trouble.texts.append(f"{held_bytes} bytes are held for nobody")
        if self.trouble.texts:
            raise FoundError("\n".join(self.trouble.texts))

    async def _last_written(self) -> int:
        async with self._database.connection() as connection:
            return int(await connection.fetchval("SELECT last_value FROM record_version"))

    async def _put(self, handle: str, *values: HandleValue) -> None:
        identifier = from_text(handle)
        written = await self._records.put(identifier, values, AUTHOR, self.clock())
        if not isinstance(written, Written):
            raise FoundError(f"{handle} cannot be registered any more: {written}")
        if written.changed:
            await self._announcer.tell({identifier.key: written.record.version})


@asynccontextmanager
async def fuzzed_doors(
    database_url: str, redis_url: str, folder: Path
) -> AsyncIterator[FuzzedDoors]:
    """The doors on an empty, migrated database; nothing else may use it."""
    await _hurry(database_url)
    database = LeavingDatabase(database_url)
    records = PostgresRecords(database)
    redis_url = f"{redis_url}&db=12"
    cache = LeavingCache(redis_url)
    async with listening_cache(redis_url, cache=cache):
        answering = Answering(
            folder, database=database, source=records, cache=cache, own=own_site()
        )
        doors = NativeDoors(
            answering,
            folder,
            per_network=_PER_NETWORK,
            per_source=_PER_SOURCE,
            cache=cache,
            server_admins=[SERVER_ADMIN],
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((HERE, 0))
            await add_prefixes(database, [PREFIX])
            others = PrefixState(SUSPENDED, suspended=True), PrefixState(SELF_RUN, hosted=False)
            allotted = await PrefixTable(database, None).load()
            answering.directory.replace((*allotted, *others))
            fuzzed = FuzzedDoors(doors, database, cache, udp)
            try:
                await fuzzed.open()
                yield fuzzed
            finally:
                await fuzzed.close()
                await doors.close()
                answering.close()
                await database.close()


async def _hurry(database_url: str) -> None:
    """Let writes be acknowledged before they are on the disk: nobody turns this power off."""
    connection = await asyncpg.connect(database_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    await connection.close()


def peer_of(options: int) -> Peer:
    """The sender of messages that these options choose."""
    return Peer(STRANGER, _CHANNELS[options % 3])


def datagrams_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Who sends, and what, as `hear_datagrams` reads its input."""
    while len(data) > _HEAD_SIZE_BYTES:
        end = _HEAD_SIZE_BYTES + int.from_bytes(data[1:_HEAD_SIZE_BYTES]) % (
            DATAGRAM_SIZE_BYTES_MAX + 1
        )
        yield data[0], data[_HEAD_SIZE_BYTES:end]
        data = data[end:]


def datagrams_of(*datagrams: tuple[int, bytes]) -> bytes:
    """Inverse of `datagrams_in`."""
    return b"".join(bytes((who,)) + len(data).to_bytes(2) + data for who, data in datagrams)


def _completed(whole: Reassembly, address: Address, packet: bytes, now_s: float) -> bytes | None:
    try:
        return whole.add(address, packet, now_s)
    except InvalidMessageError:
        return None


def _nothing() -> None:
    """Nobody waits for a new table."""
