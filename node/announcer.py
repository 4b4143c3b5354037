"""From a change to every worker: told at once by its writer, and from the outbox in any case."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from registry import outbox
from registry.database import Database, is_away
from registry.outbox import BATCH_MAX, Announcement, publish_pending
from resolver.entry import Announcements
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.hot_redis import RedisCache
from resolver.resolve import Resolver

_log = logging.getLogger("idnode")

# How often the outbox is looked at without being told: a bound for a lost notification.
LOOK_EVERY_S = 0.5
# How often a worker that waits for others to publish looks whether they have.
SETTLE_PAUSE_S = 0.02
# LISTEN is one round trip; a server that was stopped just then never answers it.
LISTEN_TIMEOUT_S = 2.0


class Announcer:
    """Publishes what was committed, and applies what others published."""

    def __init__(
        self,
        database: Database,
        cache: RedisCache,
        resolver: Resolver,
        on_directory: Callable[[], None],
    ) -> None:
        self._database = database
        self._cache = cache
        self._resolver = resolver
        self._on_directory = on_directory
        self._draining = asyncio.Lock()
        self._told = asyncio.Event()

    async def tell(self, versions: Mapping[str, int]) -> None:
        """Tell every worker of committed records, by key; to be awaited before the acknowledgement.

        It waits for nobody's turn at the outbox. With Redis away it returns at once: then no worker
        believes anything older than a second, and the outbox tells it later.
        """
        for key, version in versions.items():
            self._resolver.outdated(key, version)
        if self._cache.is_up and versions:
            with contextlib.suppress(CacheUnavailableError):
                await self._cache.announce(
                    [("record", key, version) for key, version in versions.items()]
                )

    async def drain(self) -> None:
        """Publish everything that is pending and that no other worker is publishing.

        Raises:
            RegistryUnavailableError, CacheUnavailableError: if one of them is away; what is
                left in the outbox is published as soon as both are back.
        """
        async with self._draining:
            while await publish_pending(self._database, self._publish) == BATCH_MAX:
                pass

    async def settle(self) -> None:
        """Return once everything committed before the call was published, by whichever worker:
        from then on the shared cache can be trusted.

        Raises:
            CacheUnavailableError: if it is away again.
        """
        while True:
            try:
                last_id = await outbox.last_id(self._database)
                while await outbox.is_pending(self._database, last_id):
                    await self.drain()
                    await asyncio.sleep(SETTLE_PAUSE_S)
            except RegistryUnavailableError:
                await asyncio.sleep(LOOK_EVERY_S / 2)
            else:
                return

    def apply(self, announcements: Announcements) -> None:
        """Take to heart what the bulletin says; the order does not matter."""
        for topic, key, version in announcements:
            if topic == "record":
                self._resolver.outdated(key, version)
            elif topic == "registered":
                self._resolver.registered(key)
            else:
                self._on_directory()

    async def watch(self) -> None:
        """Publish for ever: when PostgreSQL notifies, and every moment in case it did not."""
        while True:
            try:
                await self._watch_connection()
            except Exception as error:
                # Whatever it was: a worker that stops publishing would be worse.
                if not isinstance(error, RegistryUnavailableError) and not is_away(error):
                    _log.exception("publishing failed; it is tried again")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _watch_connection(self) -> None:
        connection = await self._database.dedicated()
        try:
            async with asyncio.timeout(LISTEN_TIMEOUT_S):
                await connection.add_listener("idnode_outbox", lambda *_: self._told.set())
            while not connection.is_closed():
                await self._look()
                # Not wait_for: until Python 3.12 it forgets a cancellation that meets the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._told.wait()
                self._told.clear()
        finally:
            connection.terminate()

    async def _look(self) -> None:
        if self._cache.is_up:
            with contextlib.suppress(RegistryUnavailableError, CacheUnavailableError):
                await self.drain()
        if not self._cache.is_up:
            # Nobody will be told: at least this worker looks at prefixes and keys anew.
            self._on_directory()

    async def _publish(self, announcements: Sequence[Announcement]) -> None:
        await self._cache.announce([(said.topic, said.key, said.version) for said in announcements])
