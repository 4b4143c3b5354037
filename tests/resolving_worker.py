"""One worker's resolving without its doors: caches, announcer and registry, wired as in a node."""

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

import asyncpg

from node.announcer import Announcer
from registry.database import Database
from registry.records import Author, PostgresRecords, Written
from resolver.entry import Shelf
from resolver.hot import Hot
from resolver.hot_redis import Listener, RedisCache
from resolver.identifier import Identifier, from_text
from resolver.prefix_directory import PrefixDirectory, PrefixState
from resolver.record import HandleValue, Record
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode

PREFIX = "88.100.1"
AUTHOR = Author("test", "test")
# What is awaited comes within milliseconds; a busy machine may take its time.
PATIENCE_S = 20.0


def name(suffix: str) -> Identifier:
    """An identifier below the prefix of these tests."""
    return from_text(f"{PREFIX}/{suffix}")


def values(text: str) -> tuple[HandleValue, ...]:
    """The values of a record that says `text`."""
    return (HandleValue(1, "TEXT", text.encode()),)


def said(resolution: Resolution) -> str:
    """The text of a resolved record, or the name of the response code."""
    if resolution.code != ResponseCode.SUCCESS:
        return resolution.code.name
    return resolution.record.values[0].data.decode()


async def add_prefix(database: Database) -> None:
    """Enter an enterprise with the prefix of these tests."""
    async with database.connection() as connection:
        await connection.execute(
            "WITH e AS (INSERT INTO enterprise (name, credit_code, division, country)"
            " VALUES ('Test', '91450200MA5TEST001', '450200', 'CN') RETURNING id)"
            " INSERT INTO prefix (prefix, key, enterprise_id, mode) SELECT $1, $1, id, 'hosted'"
            " FROM e",
            PREFIX,
        )


async def eventually(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Return once `condition` holds; fail after `patience_s`."""
    until_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until_s, f"not within {patience_s} s"
        await asyncio.sleep(0.005)


class Source(Protocol):
    """What the resolver reads from."""

    @property
    def is_up(self) -> bool: ...

    async def fetch(self, key: str) -> Record | None: ...

    async def fetch_many(self, keys: Sequence[str]) -> dict[str, Record]: ...


class HeldRecords:
    """A source whose answers a test may hold back: what was read, was read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._free = asyncio.Event()
        self._free.set()
        self.asked: list[list[str]] = []
        self.read = 0

    @property
    def is_up(self) -> bool:
        return self._source.is_up

    def hold(self) -> None:
        """Give no answer from now on."""
        self._free.clear()

    def let_go(self) -> None:
        """Give the answers that were held back."""
        self._free.set()

    async def fetch(self, key: str) -> Record | None:
        return (await self.fetch_many([key])).get(key)

    async def fetch_many(self, keys: Sequence[str]) -> dict[str, Record]:
        self.asked.append(list(keys))
        records = await self._source.fetch_many(keys)
        self.read += 1
        await self._free.wait()
        return records


def directory() -> PrefixDirectory:
    """A table with the prefix of these tests."""
    made = PrefixDirectory()
    made.replace([PrefixState(PREFIX)])
    return made


class ResolvingWorker:
    """A worker on real stores; `async with` runs it."""

    def __init__(self, database_url: str, redis_url: str, *, watches: bool = True) -> None:
        self.database_url = database_url
        self._watches = watches
        self.database = Database(database_url)
        self.records = PostgresRecords(self.database)
        self.held = HeldRecords(self.records)
        self.cache = RedisCache(redis_url)
        self.hot = Hot()
        self.resolver = Resolver(self.held, self.cache, directory(), self.hot)
        self.directory_changes = 0
        self.announcer = Announcer(self.database, self.cache, self.resolver, self._on_directory)
        self.disconnects = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "ResolvingWorker":
        listener = Listener(
            time.time,
            self._connected,
            self.hot.heard,
            self.announcer.apply,
            self._disconnected,
            self._missed,
        )
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self.cache.listen(listener)))
        if self._watches:
            self._tasks.append(loop.create_task(self.announcer.watch()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), f"a task died: {ended!r}"
        await self.cache.close()
        await self.database.close()

    async def ready(self) -> None:
        """Return once Redis is trusted."""
        await eventually(lambda: self.cache.is_trusted)

    async def resolve(self, identifier: Identifier) -> Resolution:
        return await self.resolver.resolve(identifier, time.time())

    async def say(self, identifier: Identifier) -> str:
        """The text of the record as this worker answers now, or the name of the code."""
        return said(await self.resolve(identifier))

    async def put(self, identifier: Identifier, text: str) -> int:
        """Write, as the door does; returns the acknowledged version."""
        written = await self.records.put(identifier, values(text), AUTHOR, time.time())
        return await self._acknowledged(identifier, written)

    async def delete(self, identifier: Identifier) -> int:
        """Delete, as the door does; returns the acknowledged version."""
        written = await self.records.delete(identifier, AUTHOR, time.time())
        return await self._acknowledged(identifier, written)

    async def shelf(self, identifier: Identifier) -> Shelf:
        """What the shared cache has."""
        (found,) = await self.cache.get_many([(identifier.key, identifier.prefix_key)])
        return found

    async def _acknowledged(self, identifier: Identifier, written: object) -> int:
        assert isinstance(written, Written), written
        await self.announcer.tell({identifier.key: written.record.version})
        return written.record.version

    async def _connected(self) -> None:
        await self.announcer.settle()
        self.hot.connect()

    def _disconnected(self) -> None:
        self.disconnects += 1
        self.hot.disconnect()

    def _missed(self) -> None:
        if self.hot.connected:
            self.hot.connect()

    def _on_directory(self) -> None:
        self.directory_changes += 1


async def terminate_clients(database_url: str) -> None:
    """Cut every other connection to a database."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
