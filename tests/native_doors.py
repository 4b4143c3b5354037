"""The native doors on sockets of their own, over the parts of one worker that a test may handle."""

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from metrics.journal import CountMeaning
from metrics.worker_numbers import REFUSED_SLOTS
from node.administration import Administration
from node.administrators import Administrators
from node.admission import Admission
from node.announcer import Announcer
from node.identity import Identity
from node.known_addresses import KnownAddresses
from node.listening import Address, Transport, listen
from node.native_answering import Door, NativeAnswering
from node.native_asker import Asker, Askers
from node.native_door import NativeDoor
from node.native_fast_path import NativeFastPath
from node.native_limits import CostBudget, Strangers
from node.native_peer import Peer
from node.native_server import NativeServer, NativeSockets
from node.native_sessions import NativeSessions
from node.node_key import NodeKey
from node.pending_challenges import PendingChallenges
from node.rate_limit import Rates
from registry.records import PostgresRecords
from resolver.hot_redis import RedisCache
from resolver.own_site import OwnSite, Reach, site_of
from tests.answering import Answering
from tests.conftest import free_port
from tests.native_client import PATIENCE_S, NativeClient

SITE_SERIAL = 7


class Counted:
    """A door that remembers what it was asked, and may hold its answers back."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._free = asyncio.Event()
        self._free.set()
        self.asked: list[bytes] = []
        self.peers: list[Peer] = []

    def hold(self) -> None:
        """Give no answer from now on."""
        self._free.clear()

    def let_go(self) -> None:
        """Give the answers that were held back."""
        self._free.set()

    async def answer(self, message: bytes, peer: Peer) -> list[bytes]:
        self.asked.append(message)
        self.peers.append(peer)
        await self._free.wait()
        return await self._door.answer(message, peer)


class NativeDoors:
    """The doors of one worker; `open` before anything is asked over a socket."""

    def __init__(
        self,
        answering: Answering,
        folder: Path,
        *,
        per_network: int = 0,
        per_source: int = 0,
        limits_loopback: bool = False,
        cache: RedisCache | None = None,
        server_admins: Sequence[Identity] = (),
    ) -> None:
        self.answering = answering
        self.known = KnownAddresses(folder / "known")
        rates = Rates(per_source, 0, per_network=per_network, limits_loopback=limits_loopback)
        self.askers = Askers(
            rates,
            self.known,
            Strangers(self.known),
            answering.numbers,
            limits_loopback=limits_loopback,
        )
        self.fast = NativeFastPath(
            answering.fast,
            answering.hot,
            answering.directory,
            self.askers,
            answering.numbers,
            _serial,
        )
        admission = Admission(rates, answering.callers, answering.tally, answering.numbers)
        # Nobody connects to an address that only plain questions are asked from.
        redis = cache or RedisCache("redis://127.0.0.1:1/0")
        budget = CostBudget(self.known, limits_loopback=limits_loopback)
        self.door = Counted(_door(answering, redis, server_admins, budget))
        self.native = NativeAnswering(
            self.door, admission, answering.tally, answering.numbers, _serial
        )
        answering.counting.on_void = self._void_cells
        self._server: NativeServer | None = None
        self.clients: list[NativeClient] = []

    @property
    def server(self) -> NativeServer:
        assert self._server is not None
        return self._server

    async def open(self, host: str = "127.0.0.1") -> NativeClient:
        """Serve on a port of its own; a client of it."""
        port, clock_s = free_port(), asyncio.get_running_loop().time
        (tcp,) = await listen(Address(host, port, "IDNODE_HANDLE"), 1, clock_s)
        (udp,) = await listen(Address(host, port, "IDNODE_HANDLE", Transport.UDP), 1, clock_s)
        self._server = NativeServer(
            NativeSockets(udp, tcp), self.fast, self.native, self.askers, self.answering.clock
        )
        await self._server.open()
        return self.client(port, host)

    def client(self, port: int, host: str = "127.0.0.1") -> NativeClient:
        """A client with an address of its own."""
        made = NativeClient(port, host=host)
        self.clients.append(made)
        return made

    def asker(self, address: str = "192.0.2.7") -> Asker:
        """Who sends datagrams from there."""
        return self.askers.sending(address, self.answering.clock())

    def answer(self, question: bytes, asker: Asker, *, is_again: bool = False) -> bytes | None:
        """What the fast path says."""
        return self.fast.answer(question, asker, self.answering.clock(), is_again)

    def refused(self, reason: str) -> int:
        """How often something was refused for this reason."""
        return int(self.answering.numbers.memory[REFUSED_SLOTS[reason]])

    def counts(self) -> dict[tuple[str, str], int]:
        """What was counted, by channel and outcome."""
        return by_channel(self.answering.counts)

    async def close(self) -> None:
        for client in self.clients:
            client.close()
        if self._server is not None:
            await self._server.cut()
        self.known.close()

    def _void_cells(self) -> None:
        self.answering.fast.void_cells()
        self.askers.void_cells()


def by_channel(counts: dict[CountMeaning, int]) -> dict[tuple[str, str], int]:
    """Counts by channel and outcome."""
    found: dict[tuple[str, str], int] = {}
    for meaning, number in counts.items():
        key = meaning.channel, meaning.outcome
        found[key] = found.get(key, 0) + number
    return found


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def own_site() -> OwnSite:
    """What the node says of itself."""
    reach = Reach("127.0.0.1", native_port=2641, http_port=80)
    return OwnSite(site_of(reach, _node_key().public_key, SITE_SERIAL))


def _door(
    answering: Answering,
    redis: RedisCache,
    server_admins: Sequence[Identity],
    budget: CostBudget,
) -> NativeDoor:
    records = PostgresRecords(answering.database)
    administrators = Administrators(records, answering.directory, server_admins)
    announcer = Announcer(answering.database, redis, answering.resolver, _nothing)
    site = own_site().site
    administration = Administration(
        records, administrators, announcer, answering.directory, answering.database, door="native"
    )
    return NativeDoor(
        answering.resolver,
        answering.directory,
        administrators,
        administration,
        PendingChallenges(redis),
        NativeSessions(redis),
        _node_key(),
        answering.tally,
        site=lambda: site,
        admits_cost=lambda source, cost_ms: budget.admits(source, cost_ms, answering.clock()),
        now_s=answering.clock,
    )


@cache
def _node_key() -> NodeKey:
    return NodeKey(rsa.generate_private_key(65_537, 2_048))


def _serial() -> int:
    return SITE_SERIAL


def _nothing() -> None:
    """Nobody waits for a new table."""
