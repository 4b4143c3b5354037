"""One process that serves HTTP: wires everything, then start, serve, drain, stop."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine
from functools import partial

import uvicorn
import uvloop

from metrics.counting import Counting
from metrics.flushing import Flushing
from metrics.policy_file import policies_beside_bundled
from metrics.worker_numbers import (
    CACHE_ENTRIES,
    CONNECTIONS,
    L1_EMPTIED,
    REFUSED_UNKNOWN_NAMES,
    WorkerNumbers,
)
from node import worker_memory
from node.administration import Administration
from node.administrators import Administrators
from node.admission import Admission
from node.announcer import Announcer
from node.cache_lookups import CountedLookups
from node.callers import Callers
from node.config import Config
from node.door_batch import BatchDoor
from node.door_home import HomeDoor
from node.door_json import JsonDoor
from node.door_list import ListDoor
from node.door_redirect import RedirectDoor
from node.door_session import SessionDoor
from node.door_verify import VerifyDoor
from node.door_write import WriteDoor
from node.duty import Duty
from node.fast_path import FastPath, FastProtocol
from node.framework_http import framework
from node.front_http import Doors, Front, IdentityDoors
from node.http_identity import HttpIdentities
from node.http_server import HttpServer, Listening
from node.http_sessions import HttpSessions
from node.inherited import Inherited
from node.known_addresses import KnownAddresses
from node.listening import BACKLOG
from node.native_answering import NativeAnswering
from node.native_asker import Askers
from node.native_door import NativeDoor
from node.native_fast_path import NativeFastPath
from node.native_limits import CostBudget, Strangers
from node.native_server import NativeServer, NativeSockets
from node.native_sessions import NativeSessions
from node.native_tunnel import NativeTunnel
from node.node_key import NodeKey
from node.operations import Operations
from node.pending_challenges import PendingChallenges
from node.prefix_table import PrefixTable, table_from_bytes, table_to_bytes
from node.rate_limit import REPORT_EVERY_S, Rates
from node.reach import Door, reach_of
from node.site_serial import numbered_site
from node.tally import Tally
from registry.database import Database
from registry.records import PostgresRecords
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.hot import Hot
from resolver.hot_redis import Listener, RedisCache
from resolver.own_site import OwnSite
from resolver.prefix_directory import PrefixDirectory
from resolver.renewing import Renewing
from resolver.resolve import Resolver
from resolver.unknown_budget import UnknownBudget
from resolver.unshared import Unshared

_log = logging.getLogger("idnode")

# The ledger is this old at most; a kill loses nothing of it, the journals have it all.
FLUSH_EVERY_S = 0.5
# The map reaches the disk this often: what a power cut can lose.
SYNC_EVERY_S = 1.0
# How soon a silent PostgreSQL is noticed when nobody happens to ask it.
PING_EVERY_S = 0.5
# How often entries of L1 that will soon not be believed any more are renewed.
RENEW_EVERY_S = 0.25
# How soon the journals of a worker that died are taken over by another one.
ADOPT_EVERY_S = 5.0
# Besides announcements: a bound for what they do not tell.
DIRECTORY_EVERY_S = 5.0
# A worker that starts waits this long for Redis before it says that it is ready.
REDIS_PATIENCE_S = 2.0
KEEP_ALIVE_S = 75
_LOOK_EVERY_S = 0.02


class Worker:
    """The parts of one process, wired."""

    def __init__(self, config: Config, now_s: Callable[[], float]) -> None:
        assert config.postgres_url is not None
        assert config.redis_url is not None
        self._now_s = now_s
        judged_by = policies_beside_bundled(config.policy)
        journals = config.data / "journals"
        self._database = Database(config.postgres_url)
        self._cache = RedisCache(config.redis_url)
        self._hot = Hot(config.l1_entries)
        self._directory = PrefixDirectory()
        self._prefixes = PrefixTable(self._database, config.node_prefix)
        self._stale_directory = asyncio.Event()
        self._records = PostgresRecords(self._database)
        self._node_key = NodeKey.kept(config.data)
        self._own_site = _own_site(config, self._node_key)
        self._administrators = Administrators(self._records, self._directory, config.server_admins)
        self._numbers = WorkerNumbers(config.data / "workers")
        self._known = KnownAddresses(config.data / "workers")
        self._costs = CostBudget(self._known, limits_loopback=config.limits_loopback)
        self._rates = Rates(
            config.rate_per_source,
            config.rate_per_caller,
            per_network=config.udp_rate,
            limits_loopback=config.limits_loopback,
        )
        self._resolver = Resolver(
            self._records,
            self._cache if config.shared_cache else Unshared(),
            self._directory,
            self._hot,
            UnknownBudget(config.unknown_rate, partial(self._numbers.add, REFUSED_UNKNOWN_NAMES)),
            CountedLookups(self._numbers),
            self._own_site,
        )
        self._renewing = Renewing(self._records, self._hot, self._resolver.outdated)
        self._callers = Callers(self._database)
        self._counting = Counting(journals, now_s())
        self._duty = Duty(journals / "duty.lock")
        self._flushing = Flushing(
            journals, self._counting, self._database.connection, report=_log.error
        )
        self._announcer = Announcer(
            self._database, self._cache, self._resolver, self._directory_changed
        )
        self._operations = Operations(
            self._database,
            self._cache,
            self._directory,
            self._flushing,
            self._numbers,
            judged_by,
            now_s,
        )
        self._tally = Tally(self._counting, config.trusted_proxies, is_counting=config.counting)
        self._admission = Admission(self._rates, self._callers, self._tally, self._numbers)
        self._askers = Askers(
            self._rates,
            self._known,
            Strangers(self._known),
            self._numbers,
            limits_loopback=config.limits_loopback_udp,
        )
        self._answering = NativeAnswering(
            self._native_door(), self._admission, self._tally, self._numbers, self._site_serial
        )
        self._front = self._wired_front(config)
        self._counting.on_void = self._void_cells
        self._tasks: list[asyncio.Task[None]] = []
        self._server: uvicorn.Server | None = None
        self._native: NativeServer | None = None
        self._database.on_change = self._registry_changed

    async def start(self) -> None:
        """Begin the work behind the doors; the stores may be away."""
        with contextlib.suppress(RegistryUnavailableError):
            await self._load_directory()
        with contextlib.suppress(RegistryUnavailableError):
            await self._adopt()
        for work in (
            self._cache.listen(self._listener()),
            self._announcer.watch(),
            self._keep_directory(),
            self._every(FLUSH_EVERY_S, self._flush),
            self._every(SYNC_EVERY_S, self._sync),
            self._every(PING_EVERY_S, self._ping),
            self._every(RENEW_EVERY_S, self._renew),
            self._every(ADOPT_EVERY_S, self._adopt),
            self._every(worker_memory.FULL_EVERY_S, worker_memory.collect),
            self._every(REPORT_EVERY_S, self._report),
        ):
            self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def serve(
        self,
        listening: tuple[Listening, ...],
        native: NativeSockets | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer until `drain`; returns when every answer under way has been given.

        `on_ready` is called once callers are answered in full service, or as well as can be.
        """
        worker_memory.settle()
        self._server = HttpServer(self._http_config(), listening, partial(self._ready, on_ready))
        self._server.should_exit = self._operations.is_draining
        if native is not None:
            self._native = self._native_server(native)
            await self._native.open()
        # Nobody is answered any more when this returns: from here on nothing is counted.
        await self._server.serve()
        if self._native is not None:
            await self._native.close()

    def _http_config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._front,
            http=FastProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            backlog=BACKLOG,
        )

    def _ready(self, on_ready: Callable[[], None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._say_ready(on_ready)))

    async def _say_ready(self, on_ready: Callable[[], None]) -> None:
        # A worker that takes another's place is as good as that one before it goes.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REDIS_PATIENCE_S):
                await self._redis_is_trusted()
        on_ready()

    async def _redis_is_trusted(self) -> None:
        while True:
            if self._cache.is_trusted:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    def drain(self) -> None:
        """Accept nothing new and finish what was accepted; safe to call twice."""
        self._operations.is_draining = True
        if self._server is not None:
            self._server.should_exit = True
        if self._native is not None:
            self._native.drain()

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
        self._duty.release()
        await self._cache.close()
        await self._database.close()
        self._numbers.close()
        self._known.close()

    def _site_serial(self) -> int:
        return self._own_site.site.serial

    def _admits_cost(self, source: str, cost_ms: float) -> bool:
        return self._costs.admits(source, cost_ms, self._now_s())

    def _admits_cost_over_http(self, source: str, cost_ms: float) -> bool:
        # Who sends a request has completed a connection, to here or to a proxy that is trusted.
        self._known.add(source, self._now_s())
        return self._admits_cost(source, cost_ms)

    def _void_cells(self) -> None:
        self._front.fast.void_cells()
        self._askers.void_cells()

    def _native_server(self, sockets: NativeSockets) -> NativeServer:
        fast = NativeFastPath(
            self._front.fast,
            self._hot,
            self._directory,
            self._askers,
            self._numbers,
            self._site_serial,
        )
        return NativeServer(sockets, fast, self._answering, self._askers, self._now_s)

    def _native_door(self) -> NativeDoor:
        administration = self._administration("native")
        return NativeDoor(
            self._resolver,
            self._directory,
            self._administrators,
            administration,
            PendingChallenges(self._cache),
            NativeSessions(self._cache),
            self._node_key,
            self._tally,
            site=lambda: self._own_site.site,
            admits_cost=self._admits_cost,
            now_s=self._now_s,
        )

    def _administration(self, door: str) -> Administration:
        return Administration(
            self._records,
            self._administrators,
            self._announcer,
            self._directory,
            self._database,
            door=door,
        )

    def _identities(self, config: Config) -> HttpIdentities:
        return HttpIdentities(
            self._administrators,
            HttpSessions(self._cache),
            self._node_key,
            trusted_proxies=config.trusted_proxies,
            source_of=self._tally.source,
            admits_cost=self._admits_cost_over_http,
        )

    def _wired_front(self, config: Config) -> Front:
        tally, admission = self._tally, self._admission
        identities, administration = self._identities(config), self._administration("http")
        doors = Doors(
            JsonDoor(self._resolver, self._callers, tally, identities),
            RedirectDoor(self._resolver, self._callers, tally),
            BatchDoor(self._resolver, self._callers, tally),
            ListDoor(
                config,
                self._records,
                self._directory,
                self._callers,
                self._own_site.site,
                identities,
                administration,
            ),
            NativeTunnel(self._answering, tally),
            IdentityDoors(
                SessionDoor(identities),
                VerifyDoor(identities, self._directory),
                HomeDoor(self._database, self._callers, identities, administration),
            ),
        )
        fast = FastPath(
            self._hot,
            self._records,
            self._callers,
            self._rates,
            tally,
            self._numbers,
            doors.json,
            admission,
            self._now_s,
        )
        writing = WriteDoor(
            self._records,
            self._database,
            self._callers,
            self._announcer,
            self._now_s,
            identities,
            administration,
        )
        people = framework(writing, self._operations, self._directory)
        return Front(doors, people, self._now_s, fast, admission)

    def _listener(self) -> Listener:
        return Listener(
            self._now_s,
            self._connected,
            self._hot.heard,
            self._announcer.apply,
            self._disconnected,
            self._missed,
        )

    async def _connected(self) -> None:
        """Redis is back: nothing it holds is believed before the outbox is empty."""
        _log.info("Redis is connected")
        await self._announcer.settle()
        self._hot.connect()
        self._numbers.add(L1_EMPTIED)
        self._callers.connected = True
        self._callers.forget()
        self._stale_directory.set()

    def _disconnected(self) -> None:
        _log.warning("Redis is gone: answers come from PostgreSQL, nothing older than a second")
        self._hot.disconnect()
        self._numbers.add(L1_EMPTIED)
        self._callers.connected = False

    def _missed(self) -> None:
        """An announcement did not arrive: whatever it was about is asked for anew."""
        _log.warning("an announcement was missed: the process cache is emptied")
        if self._hot.connected:
            self._hot.connect()
        self._numbers.add(L1_EMPTIED)
        self._directory_changed()

    def _registry_changed(self, is_up: bool) -> None:
        self._front.fast.shut()
        if is_up:
            _log.info("PostgreSQL is back")
        else:
            _log.warning("PostgreSQL is gone: answers come from the caches, writes are refused")

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
        states = await self._prefixes.load()
        self._directory.replace(states)
        # Duplicates would do no harm, but the table may be long.
        if self._cache.is_up and self._duty.is_ours():
            with contextlib.suppress(CacheUnavailableError):
                await self._cache.keep_prefixes(table_to_bytes(states))

    async def _load_kept_directory(self) -> None:
        """Without PostgreSQL and without a table: the last one that was kept in Redis."""
        if self._directory.is_known or not self._cache.is_up:
            return
        with contextlib.suppress(CacheUnavailableError):
            table = await self._cache.kept_prefixes()
            if table is not None:
                self._directory.replace(table_from_bytes(table))

    async def _flush(self) -> None:
        await self._flushing.flush(self._now_s())

    async def _ping(self) -> None:
        await self._database.ping()

    async def _renew(self) -> None:
        await self._renewing.renew(self._now_s())

    async def _sync(self) -> None:
        await asyncio.to_thread(self._counting.sync)

    async def _report(self) -> None:
        """Show what goes up and down, and tell the other workers of heavy users."""
        server = self._server
        connections = 0 if server is None else len(server.server_state.connections)
        connections += 0 if self._native is None else self._native.connections
        self._numbers.show(CONNECTIONS, connections)
        self._numbers.show(CACHE_ENTRIES, len(self._hot))
        await self._rates.share(self._cache, self._now_s())

    async def _adopt(self) -> None:
        if self._duty.is_ours():
            await self._flushing.adopt(self._now_s())
        else:
            await self._flushing.check()

    async def _every(self, pause_s: float, act: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            await asyncio.sleep(pause_s)
            try:
                await act()
            except RegistryUnavailableError:
                continue  # nothing is lost; the next turn does it
            except Exception:
                _log.exception("periodic work failed; it is tried again")


def _own_site(config: Config, node_key: NodeKey) -> OwnSite:
    """What this node says of itself: to whoever asks, and in the handles of its prefixes."""
    reach = reach_of(
        public_address=config.public_address,
        native=_door(config.handle_host, config.handle_port),
        http=_door(config.http_host, config.http_port),
        https=_door(config.https_host, config.https_port),
    )
    return numbered_site(config.data, reach, node_key.public_key)


def _door(host: str | None, port: int | None) -> Door | None:
    return None if host is None or port is None else (host, port)


def run(config: Config, inherited: Inherited, now_s: Callable[[], float]) -> None:
    """Serve on sockets that were inherited, until SIGTERM.

    Raises:
        StartError: if the files of HTTPS cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, inherited, now_s))


async def _run(config: Config, inherited: Inherited, now_s: Callable[[], float]) -> None:
    listening = inherited.listening(config, now_s())
    worker = Worker(config, now_s)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.drain)
    try:
        await worker.start()
        await worker.serve(listening, inherited.native(), inherited.say_ready)
    finally:
        await worker.stop()
