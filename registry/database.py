"""Connections to PostgreSQL: bounded in number and in time, and never left hanging."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from resolver.errors import RegistryUnavailableError

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

# One worker needs few: reads are collapsed and batched, writes are short.
CONNECTIONS_MAX = 10
# Long enough for a busy disk, short enough that a caller still waits for the answer.
QUERY_TIMEOUT_S = 2.0
WRITE_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 2.0
# How often a node that lost PostgreSQL tries again; recovery is promised within 2 s.
BREAKER_PAUSE_S = 0.2

# What asyncpg and the operating system raise when the server is away or going away. A server that
# shuts down or starts up says so by SQLSTATE class 57P.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,
    asyncpg.PostgresIOError,
)
# PostgreSQL answers, and cannot do it now: that says nothing about what others ask.
_REFUSED = (
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.ReadOnlySQLTransactionError,
)

# asyncpg logs a traceback for every refill of the pool that fails while the server is away; the
# node says once that PostgreSQL is gone.
logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)


class Database:
    """A pool that opens lazily, so that a node can start while PostgreSQL is away."""

    def __init__(self, url: str, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._url = url
        self._connections_max = connections_max
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._closed_until_s = 0.0
        self.is_up = True
        self.on_change: Callable[[bool], None] = lambda _: None

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(2):
                await pool.close()
        except (TimeoutError, *_AWAY):
            pool.terminate()

    @asynccontextmanager
    async def connection(
        self, timeout_s: float = QUERY_TIMEOUT_S
    ) -> AsyncIterator["PoolConnectionProxy[asyncpg.Record]"]:
        """A connection for one piece of work that ends within `timeout_s`.

        Raises:
            RegistryUnavailableError: if PostgreSQL is away or does not answer in time.
        """
        self._pass_breaker()
        try:
            pool = await self._open()
            connection = await pool.acquire(timeout=CONNECT_TIMEOUT_S)
        except _AWAY as error:
            self._note(False)
            raise unreachable(error) from error
        # A connection that does not answer in time is cut, not waited for: asyncpg would first ask
        # the silent server to cancel, and then to roll back.
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(timeout_s, _cut, connection)
        try:
            yield connection
        except BaseException as error:
            _cut(connection, if_in_transaction=not is_away(error))
            if not is_away(error):
                raise
            self._note(isinstance(error, _REFUSED))
            is_late = loop.time() >= deadline.when()
            reason = f"nothing within {timeout_s:g} s" if is_late else _line(error)
            raise RegistryUnavailableError(f"PostgreSQL did not answer: {reason}") from error
        else:
            self._note(True)
        finally:
            deadline.cancel()
            await _release(pool, connection)

    async def ping(self, timeout_s: float = 1.0) -> bool:
        """True if PostgreSQL answers a query within `timeout_s`."""
        try:
            async with self.connection(timeout_s) as connection:
                await connection.fetchval("SELECT 1")
        except RegistryUnavailableError:
            return False
        return True

    async def dedicated(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection of its own, outside the pool, for LISTEN or a long COPY.

        Raises:
            RegistryUnavailableError: if PostgreSQL is away.
        """
        try:
            return await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT_S)
        except _AWAY as error:
            self._note(False)
            raise unreachable(error) from error

    async def _open(self) -> asyncpg.Pool:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self._url,
                        min_size=0,
                        max_size=self._connections_max,
                        timeout=CONNECT_TIMEOUT_S,
                        max_inactive_connection_lifetime=60,
                        server_settings={"application_name": "idnode"},
                    )
        return self._pool

    def _pass_breaker(self) -> None:
        """While PostgreSQL is away, let one caller in every pause try; the others fail at once."""
        if self.is_up:
            return
        loop_s = asyncio.get_running_loop().time()
        if loop_s < self._closed_until_s:
            raise RegistryUnavailableError("PostgreSQL is away")
        self._closed_until_s = loop_s + BREAKER_PAUSE_S

    def _note(self, up: bool) -> None:
        if up != self.is_up:
            self.is_up = up
            self.on_change(up)


async def _release(pool: asyncpg.Pool, connection: "PoolConnectionProxy[asyncpg.Record]") -> None:
    try:
        await pool.release(connection, timeout=CONNECT_TIMEOUT_S)
    except _AWAY:
        _cut(connection)


def _cut(
    connection: "PoolConnectionProxy[asyncpg.Record]", *, if_in_transaction: bool = False
) -> None:
    # A connection that the server has ended is already out of the pool, and says so.
    with contextlib.suppress(asyncpg.InterfaceError):
        if not if_in_transaction or connection.is_in_transaction():
            connection.terminate()


def unreachable(error: BaseException) -> RegistryUnavailableError:
    """The error of the seam for an error of the driver."""
    return RegistryUnavailableError(f"PostgreSQL cannot be reached: {_line(error)}")


def _line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def is_away(error: BaseException) -> bool:
    """True for an error that means that PostgreSQL is away, not that the question was wrong."""
    return isinstance(error, (*_AWAY, *_REFUSED))
