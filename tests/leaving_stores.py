"""Stores that are away when a test says so: real ones, whose commands are then not even sent."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from registry.database import QUERY_TIMEOUT_S, Database
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.hot_redis import RedisCache

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy


class LeavingDatabase(Database):
    """PostgreSQL, which is away after `left` more connections; None: it stays."""

    left: int | None = None

    @asynccontextmanager
    async def connection(
        self, timeout_s: float = QUERY_TIMEOUT_S
    ) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise RegistryUnavailableError("PostgreSQL is away")
        async with super().connection(timeout_s) as connection:
            yield connection


class LeavingCache(RedisCache):
    """Redis, which is away after `left` more commands; None: it stays."""

    left: int | None = None

    async def _command(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise CacheUnavailableError("Redis is away")
        return await super()._command(ask)
