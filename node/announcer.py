"""From the outbox to every worker: the shared cache first, then the bulletin."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from registry.database import Database
from registry.outbox import BATCH_MAX, Announcement, publish_pending
from registry.records import PostgresRecords
from resolver.entry import Entry
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.hot_redis import Announcements, RedisCache
from resolver.resolve import Resolver

# How often the outbox is looked at without being told: a bound for a lost notification.
LOOK_EVERY_S = 0.5


class Announcer:
    """Publishes what was committed, and applies what others published."""

    def __init__(
        self,
        database: Database,
        records: PostgresRecords,
        cache: RedisCache,
        resolver: Resolver,
        now_s: Callable[[], float],
        on_directory: Callable[[], None],
    ) -> None:
        self._database = database
        self._records = records
        self._cache = cache
        self._resolver = resolver
        self._now_s = now_s
        self._on_directory = on_directory
        self._draining = asyncio.Lock()
        self._told = asyncio.Event()

    async def drain(self) -> None:
        """Publish everything that is pending; afterwards every change that was committed before
        the call has reached the shared cache and the bulletin.

        Raises:
            RegistryUnavailableError, CacheUnavailableError: if one of them is away; what is
                left in the outbox is published as soon as both are back.
        """
        async with self._draining:
            while await publish_pending(self._database, self._publish) == BATCH_MAX:
                pass

    async def drain_if_possible(self) -> None:
        """As `drain`; with a store away it is left to the loop that watches the outbox."""
        if self._cache.is_up:
            with contextlib.suppress(RegistryUnavailableError, CacheUnavailableError):
                await self.drain()

    async def settle(self) -> None:
        """Return once nothing is pending: from then on the shared cache can be trusted."""
        while True:
            try:
                await self.drain()
            except RegistryUnavailableError:
                await asyncio.sleep(LOOK_EVERY_S / 2)
            else:
                return

    def apply(self, announcements: Announcements) -> None:
        """Take to heart what the bulletin says; the order does not matter."""
        for topic, key, version, epoch in announcements:
            if topic == "record":
                self._resolver.outdated(key, version)
            elif topic == "registered":
                self._resolver.registered(key, epoch)
            else:
                self._on_directory()

    async def watch(self) -> None:
        """Publish for ever: when PostgreSQL notifies, and every moment in case it did not."""
        while True:
            with contextlib.suppress(RegistryUnavailableError):
                await self._watch_connection()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _watch_connection(self) -> None:
        connection = await self._database.dedicated()
        try:
            await connection.add_listener("idnode_outbox", lambda *_: self._told.set())
            while not connection.is_closed():
                await self.drain_if_possible()
                if not self._cache.is_up:
                    # Nobody will be told: at least this worker looks at prefixes and keys anew.
                    self._on_directory()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._told.wait(), LOOK_EVERY_S)
                self._told.clear()
        finally:
            connection.terminate()

    async def _publish(self, announcements: Sequence[Announcement]) -> None:
        records = await self._records.fetch_many(
            [said.key for said in announcements if said.topic == "record"]
        )
        now_s = self._now_s()
        entries = [(key, Entry(record, now_s)) for key, record in records.items()]
        if entries:
            await self._cache.fill(entries, self._cache.connection_number)
        registered = {said.key for said in announcements if said.topic == "registered"}
        epochs = await self._cache.begin_epochs(sorted(registered))
        await self._cache.announce(
            [
                (said.topic, said.key, said.version, epochs.get(said.key, ""))
                for said in announcements
            ]
        )
