"""One process that serves HTTP: wires everything, then start, serve, drain, stop."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator

import orjson
import uvicorn
import uvloop

from metrics.counting import Counting
from metrics.flushing import Flushing
from node import measures_report
from node.announcer import Announcer
from node.callers import Callers
from node.config import Config
from node.door_batch import BatchDoor
from node.door_json import JsonDoor
from node.door_list import ListDoor
from node.door_redirect import RedirectDoor
from node.door_write import WriteDoor
from node.framework_http import framework
from node.front_http import Doors, Front
from node.http_protocol import BoundedProtocol
from node.operations import Operations
from node.tally import Tally
from registry import prefixes
from registry.database import Database
from registry.records import PostgresRecords
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.hot import Hot
from resolver.hot_redis import Listener, RedisCache
from resolver.prefix_directory import PrefixDirectory, PrefixState
from resolver.resolve import Resolver

_log = logging.getLogger("idnode")

# The ledger is this old at most; a kill loses nothing of it, the journals have it all.
FLUSH_EVERY_S = 0.5
# The map reaches the disk this often: what a power cut can lose.
SYNC_EVERY_S = 1.0
# How soon a silent PostgreSQL is noticed when nobody happens to ask it.
PING_EVERY_S = 0.5
# How soon the journals of a worker that died are taken over by another one.
ADOPT_EVERY_S = 5.0
# Besides announcements: a bound for what they do not tell.
DIRECTORY_EVERY_S = 5.0
# Requests under way and idle connections get this long at a stop.
DRAIN_S = 10
KEEP_ALIVE_S = 75
CONNECTIONS_MAX = 4_000
BACKLOG = 2_048


class Worker:
    """The parts of one process, wired."""

    def __init__(self, config: Config, now_s: Callable[[], float]) -> None:
        assert config.postgres_url is not None
        assert config.redis_url is not None
        self._now_s = now_s
        judged_by = measures_report.policies(config.policy)
        journals = config.data / "journals"
        self._database = Database(config.postgres_url)
        self._cache = RedisCache(config.redis_url)
        self._hot = Hot()
        self._directory = PrefixDirectory()
        self._stale_directory = asyncio.Event()
        self._records = PostgresRecords(self._database)
        self._resolver = Resolver(self._records, self._cache, self._directory, self._hot)
        self._callers = Callers(self._database)
        self._counting = Counting(journals, now_s())
        self._flushing = Flushing(
            journals, self._counting, self._database.connection, report=_log.error
        )
        self._announcer = Announcer(
            self._database, self._cache, self._resolver, self._directory_changed
        )
        self._operations = Operations(
            self._database,
            self._cache,
            self._hot,
            self._directory,
            self._resolver,
            self._flushing,
            judged_by,
            now_s,
        )
        self._front = self._wired_front(config)
        self._tasks: list[asyncio.Task[None]] = []
        self._server: uvicorn.Server | None = None
        self._database.on_change = _said("PostgreSQL")

    async def start(self) -> None:
        """Begin the work behind the doors; the stores may be away."""
        with contextlib.suppress(RegistryUnavailableError):
            await self._load_directory()
        with contextlib.suppress(RegistryUnavailableError):
            await self._flushing.adopt(self._now_s())
        for work in (
            self._cache.listen(self._listener()),
            self._announcer.watch(),
            self._keep_directory(),
            self._every(FLUSH_EVERY_S, self._flush),
            self._every(SYNC_EVERY_S, self._sync),
            self._every(PING_EVERY_S, self._ping),
            self._every(ADOPT_EVERY_S, self._adopt),
        ):
            self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def serve(self, listening: socket.socket) -> None:
        """Answer until `drain`; returns when every answer under way has been given."""
        self._server = _Server(
            uvicorn.Config(
                self._front,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
                limit_concurrency=CONNECTIONS_MAX,
                backlog=BACKLOG,
            )
        )
        if self._operations.is_draining:
            return
        await self._server.serve(sockets=[listening])
        # Whoever is still there now gets no answer any more: from here on nothing is counted.
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    def drain(self) -> None:
        """Accept nothing new and finish what was accepted; safe to call twice."""
        self._operations.is_draining = True
        if self._server is not None:
            self._server.should_exit = True

    async def stop(self) -> None:
        """End the work behind the doors, write the last counts, let go of the stores."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._flushing.finish()
        except RegistryUnavailableError:
            # The journals stay: whoever starts next adopts them.
            await asyncio.to_thread(self._counting.sync)
        self._counting.close()
        await self._cache.close()
        await self._database.close()

    def _wired_front(self, config: Config) -> Front:
        tally = Tally(self._counting, config.trusted_proxies)
        doors = Doors(
            JsonDoor(self._resolver, self._callers, tally),
            RedirectDoor(self._resolver, self._callers, tally),
            BatchDoor(self._resolver, self._callers, tally),
            ListDoor(config, self._records, self._directory, self._callers),
        )
        writing = WriteDoor(
            self._records,
            self._database,
            self._callers,
            self._announcer,
            self._now_s,
        )
        return Front(doors, framework(writing, self._operations, self._directory), self._now_s)

    def _listener(self) -> Listener:
        return Listener(
            self._now_s,
            self._connected,
            self._hot.heard,
            self._announcer.apply,
            self._disconnected,
        )

    async def _connected(self) -> None:
        """Redis is back: nothing it holds is believed before the outbox is empty."""
        _log.info("Redis is connected")
        await self._announcer.settle()
        self._hot.connect()
        self._callers.connected = True
        self._callers.forget()
        self._stale_directory.set()

    def _disconnected(self) -> None:
        _log.warning("Redis is gone: answers come from PostgreSQL, nothing older than a second")
        self._hot.disconnect()
        self._callers.connected = False

    def _directory_changed(self) -> None:
        self._callers.forget()
        self._stale_directory.set()

    async def _keep_directory(self) -> None:
        while True:
            # Not wait_for: until Python 3.12 it forgets a cancellation that meets the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DIRECTORY_EVERY_S):
                    await self._stale_directory.wait()
            self._stale_directory.clear()
            try:
                await self._load_directory()
            except RegistryUnavailableError:
                await self._load_kept_directory()

    async def _load_directory(self) -> None:
        async with self._database.connection() as connection:
            found = await prefixes.load_all(connection)
        states = [
            PrefixState(prefix.key, prefix.mode == "hosted", prefix.is_suspended)
            for prefix in found
        ]
        self._directory.replace(states)
        if self._cache.is_up:
            table = [(state.key, state.hosted, state.suspended) for state in states]
            with contextlib.suppress(CacheUnavailableError):
                await self._cache.keep_prefixes(orjson.dumps(table))

    async def _load_kept_directory(self) -> None:
        """Without PostgreSQL and without a table: the last one that was kept in Redis."""
        if self._directory.is_known or not self._cache.is_up:
            return
        with contextlib.suppress(CacheUnavailableError):
            table = await self._cache.kept_prefixes()
            if table is not None:
                self._directory.replace(PrefixState(*row) for row in orjson.loads(table))

    async def _flush(self) -> None:
        await self._flushing.flush(self._now_s())

    async def _ping(self) -> None:
        await self._database.ping()

    async def _sync(self) -> None:
        await asyncio.to_thread(self._counting.sync)

    async def _adopt(self) -> None:
        await self._flushing.adopt(self._now_s())

    async def _every(self, pause_s: float, act: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            await asyncio.sleep(pause_s)
            try:
                await act()
            except RegistryUnavailableError:
                continue  # nothing is lost; the next turn does it
            except Exception:
                _log.exception("periodic work failed; it is tried again")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the worker has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def _wait_tasks_to_complete(self) -> None:
        # A connection that was accepted just before the port was let go is not among those that
        # were asked to end, and would be answered for ever.
        while self.server_state.connections:
            for connection in list(self.server_state.connections):
                connection.shutdown()
            await asyncio.sleep(0.05)
        await super()._wait_tasks_to_complete()


def run(config: Config, descriptor: int, now_s: Callable[[], float]) -> None:
    """Serve on a listening socket that was inherited, until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, descriptor, now_s))


async def _run(config: Config, descriptor: int, now_s: Callable[[], float]) -> None:
    listening = socket.socket(fileno=descriptor)
    worker = Worker(config, now_s)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.drain)
    try:
        await worker.start()
        await worker.serve(listening)
    finally:
        await worker.stop()


def _said(store: str) -> Callable[[bool], None]:
    def say(is_up: bool) -> None:
        if is_up:
            _log.info("%s is back", store)
        else:
            _log.warning("%s is gone: answers come from the caches, writes are refused", store)

    return say
