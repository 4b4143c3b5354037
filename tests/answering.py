"""Everything that answers over HTTP, wired as in a worker, in memory and on a clock of the test's.

No socket and no work in the background: what happens between two requests is what a test does.
"""

import asyncio
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.server import ServerState

from metrics.counting import Counting
from metrics.journal import CountMeaning, JournalSize, SourceMeaning
from metrics.worker_numbers import L1_HIT, WorkerNumbers
from node.admission import Admission
from node.cache_lookups import CountedLookups
from node.callers import Callers
from node.config import Config
from node.door_batch import BatchDoor
from node.door_json import JsonDoor
from node.door_list import ListDoor
from node.door_redirect import RedirectDoor
from node.fast_path import FastPath, FastProtocol
from node.front_http import Doors, Front
from node.http_exchange import Reply, send_reply
from node.rate_limit import Rates
from node.tally import Tally
from registry.database import Database
from registry.records import Author, PostgresRecords, Written
from registry.records_memory import MemoryRecords
from resolver.hot import Hot
from resolver.identifier import PREFIX_HANDLE_PREFIX, from_text
from resolver.prefix_directory import PrefixDirectory, PrefixState
from resolver.record import HandleValue
from resolver.resolve import OwnPrefixHandles, Resolver, SharedCache
from resolver.unshared import Unshared
from tests.resolving_worker import HeldRecords, Source

# Noon of a day in Shanghai.
NOON_S: Final = 1_795_406_400.0
PREFIX: Final = "88.608.5300"
OTHER, SUSPENDED, SELF_RUN = "88.608.5309", "88.608.5301", "88.608.5302"
AUTHOR: Final = Author("test", "test")
PEER: Final = "192.0.2.7"
PROXY: Final = "10.0.0.1"
_PORT: Final = 40_000
_SIZE: Final = JournalSize(512, 512, 262_144, 8, 8, 2_048)
# Turns of the event loop that an answer without PostgreSQL takes at most, and some more.
_TURNS: Final = 50
_PATIENCE_S: Final = 20.0


def get(path: str, *headers: str) -> bytes:
    """A plain GET; `headers` come besides Host."""
    lines = "".join(f"{line}\r\n" for line in ("Host: node", *headers))
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def json_of(identifier: str, *headers: str) -> bytes:
    """A plain question to the JSON API."""
    return get(f"/api/handles/{identifier}", *headers)


def text(index: int, type_: str, data: str, **more: Any) -> HandleValue:
    """A value of a record."""
    return HandleValue(index, type_, data.encode(), **more)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class Transport(asyncio.Transport):
    """The server's end of a connection; keeps what is written."""

    def __init__(self, protocol: asyncio.Protocol, peer: str) -> None:
        super().__init__({"peername": (peer, _PORT), "sockname": ("127.0.0.1", 80)})
        self._protocol = protocol
        self._is_closing = False
        self.written = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """The caller sees the end, whether we go on listening or not."""
        self._is_closing = True

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = True

    def pause_reading(self) -> None:
        """Nothing is read here but what the test sends."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""


class Connection:
    """One connection of a caller."""

    def __init__(self, protocol: FastProtocol, peer: str) -> None:
        self.protocol = protocol
        self.transport = Transport(protocol, peer)
        protocol.connection_made(self.transport)

    @property
    def early_answers(self) -> int:
        """How many answers the fast path gave here."""
        return self.protocol.early_answers

    @property
    def is_open(self) -> bool:
        return not self.transport.is_closing()

    def send(self, *segments: bytes) -> None:
        """Segments that arrive one after the other."""
        self.transport.written.clear()
        for segment in segments:
            self.protocol.data_received(segment)

    async def ask(self, *segments: bytes) -> bytes:
        """Everything that is answered to segments that arrive one after the other."""
        self.send(*segments)
        return await self.answered()

    async def answered(self) -> bytes:
        """Everything that was answered since the last segments were sent, once nothing is under
        way any more."""
        async with asyncio.timeout(_PATIENCE_S):
            while self.protocol.tasks:
                await asyncio.wait(self.protocol.tasks)
        return bytes(self.transport.written)

    async def ask_slowly(self, request: bytes) -> bytes:
        """The answer of the slow path: the request comes in two segments."""
        return await self.ask(request[:1], request[1:])

    def hang_up(self) -> None:
        """End the connection."""
        self.transport.close()
        self.protocol.connection_lost(None)


class Answering:
    """The parts of one worker that answer, each of which a test may handle."""

    def __init__(
        self,
        folder: Path,
        *,
        database: Database | None = None,
        source: Source | None = None,
        cache: SharedCache | None = None,
        own: OwnPrefixHandles | None = None,
        rate: int = 0,
        trusted_proxies: tuple[str, ...] = (PROXY,),
        present_max: int = 1_000,
        size: JournalSize = _SIZE,
        is_counting: bool = True,
    ) -> None:
        """`source` is read in place of `records`, `cache` is shared with other workers, `own` is
        what the node says of its prefixes."""
        self.clock = Clock(NOON_S)
        self.hot = Hot(present_max)
        self.hot.connect()
        self.directory = PrefixDirectory()
        self.allot()
        self.records = MemoryRecords({PREFIX, OTHER, SUSPENDED, SELF_RUN, PREFIX_HANDLE_PREFIX})
        self.held = HeldRecords(source or self.records)
        self.numbers = WorkerNumbers(folder / "workers")
        # Nobody connects to an address that only callers without a key are served from.
        self.database = database or Database("postgresql://127.0.0.1:1/nowhere")
        self.callers = Callers(self.database)
        self.callers.connected = True
        self.rates = Rates(rate, rate)
        self.counting = Counting(folder / "journals", self.clock(), size)
        self.tally = Tally(self.counting, trusted_proxies, is_counting=is_counting)
        self.resolver = Resolver(
            self.held,
            cache or Unshared(),
            self.directory,
            self.hot,
            lookups=CountedLookups(self.numbers),
            own=own,
        )
        admission = Admission(self.rates, self.callers, self.tally, self.numbers)
        door = JsonDoor(self.resolver, self.callers, self.tally)
        self.fast = FastPath(
            self.hot,
            self.held,
            self.callers,
            self.rates,
            self.tally,
            self.numbers,
            door,
            admission,
            self.clock,
        )
        self.counting.on_void = self.fast.void_cells
        self.state = ServerState()
        self._config = _configured(self._front(folder, door, admission))
        self._connections: list[Connection] = []
        self.at(NOON_S)

    def at(self, now_s: float, *, heard: bool = True) -> None:
        """Let it be `now_s`; `heard` says whether the bulletin has been heard just then."""
        self.clock.now_s = now_s
        self.state.default_headers = [(b"date", formatdate(now_s, usegmt=True).encode())]
        if heard:
            self.hot.heard(now_s)

    def after(self, elapsed_s: float, *, heard: bool = True) -> None:
        """Let `elapsed_s` pass."""
        self.at(self.clock.now_s + elapsed_s, heard=heard)

    def allot(self, *more: PrefixState) -> None:
        """Load the table of prefixes: those of these tests, in place of which `more` may come."""
        states = {
            state.key: state
            for state in (
                PrefixState(PREFIX),
                PrefixState(OTHER),
                PrefixState(SUSPENDED, suspended=True),
                PrefixState(SELF_RUN, hosted=False),
                *more,
            )
        }
        self.directory.replace(states.values())

    async def put(
        self, suffix: str, *values: HandleValue, prefix: str = PREFIX, is_told: bool = True
    ) -> str:
        """Register `suffix` below the prefix; the identifier. `is_told`: announced, too."""
        identifier = from_text(f"{prefix}/{suffix}")
        written = await self.records.put(identifier, values, AUTHOR, self.clock())
        assert isinstance(written, Written), written
        if is_told:
            self.resolver.outdated(identifier.key, written.record.version)
        return identifier.text

    def connect(self, peer: str = PEER) -> Connection:
        """A new connection from `peer`."""
        made = Connection(FastProtocol(self._config, self.state, {}), peer)
        self._connections.append(made)
        return made

    async def prepare(self, *requests: bytes, peer: str = PEER) -> Connection:
        """A connection on which `requests` have been answered and are answered fast from now on."""
        connection = self.connect(peer)
        for request in requests:
            await connection.ask_slowly(request)
            # Again, because a key has to be looked up on the slow path first.
            await connection.ask(request)
            before = connection.early_answers
            await connection.ask(request)
            assert connection.early_answers == before + 1, request
        return connection

    async def until_asked(self) -> None:
        """Return once the registry has been asked, whose answer is held back."""
        read = self.held.read
        async with asyncio.timeout(_PATIENCE_S):
            while self.held.read == read:  # noqa: ASYNC110  # a count tells nobody when it grows
                await asyncio.sleep(0)

    async def turn(self) -> None:
        """Let everything happen that is due."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    @property
    def counts(self) -> dict[CountMeaning, int]:
        """What was counted, over all journals."""
        found: dict[CountMeaning, int] = {}
        for journal in self.counting.journals:
            for _, meaning, value in journal.counts():
                if value:
                    found[meaning] = found.get(meaning, 0) + value
        return found

    @property
    def sources(self) -> dict[SourceMeaning, int]:
        """From where, over all journals."""
        found: dict[SourceMeaning, int] = {}
        for journal in self.counting.journals:
            for _, meaning, value in journal.snapshot().sources:
                if value:
                    found[meaning] = found.get(meaning, 0) + value
        return found

    @property
    def l1_hits(self) -> int:
        return int(self.numbers.memory[L1_HIT])

    def close(self) -> None:
        """Hang up every connection and let go of the files."""
        for connection in self._connections:
            connection.hang_up()
        self.counting.close()
        self.numbers.close()

    def _front(self, folder: Path, door: JsonDoor, admission: Admission) -> Front:
        records = PostgresRecords(self.database)
        doors = Doors(
            door,
            RedirectDoor(self.resolver, self.callers, self.tally),
            BatchDoor(self.resolver, self.callers, self.tally),
            ListDoor(_settings(folder), records, self.directory, self.callers),
        )
        return Front(doors, _framework, self.clock, self.fast, admission)


async def _framework(scope: Any, receive: Any, send: Any) -> None:
    """What stands behind the doors, in one answer."""
    await send_reply(send, Reply(200, b"framework", b"text/plain"))


def _configured(front: Front) -> uvicorn.Config:
    config = uvicorn.Config(
        front, http=FastProtocol, ws="none", lifespan="off", access_log=False, log_config=None,
        proxy_headers=False, server_header=False, timeout_keep_alive=75,
    )  # fmt: skip
    config.load()
    return config


def _settings(folder: Path) -> Config:
    return Config(
        data=folder,
        http_host="127.0.0.1",
        http_port=80,
        postgres_url=None,
        redis_url=None,
        node_prefix=None,
        policy=None,
        trusted_proxies=(),
        language="en",
        operator_key_file=folder / "operator.key",
    )


def head_of(answer: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Status, and headers in their order, of one answer."""
    first, *lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return int(first.split()[1]), [_header(line) for line in lines]


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name, value


def header_of(answer: bytes, name: str) -> Sequence[str]:
    """The values of a header."""
    return [value for found, value in head_of(answer)[1] if found == name]
