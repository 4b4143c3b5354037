"""The shared cache as a worker has it: connected, and following the bulletin."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from resolver.hot_redis import Listener, RedisCache
from tests.resolving_worker import PATIENCE_S, eventually


@asynccontextmanager
async def listening_cache(
    url: str, heard: list[tuple[str, str, int]] | None = None, *, cache: RedisCache | None = None
) -> "AsyncIterator[RedisCache]":
    """One more worker's cache on the server at `url`, trusted by now; it adds to `heard`."""
    cache = cache or RedisCache(url)
    announced = [] if heard is None else heard

    async def connected() -> None:
        return None

    nothing: list[object] = []
    listener = Listener(
        time.time, connected, nothing.append, announced.extend, nothing.clear, nothing.clear
    )
    task = asyncio.create_task(cache.listen(listener))
    try:
        await eventually(lambda: cache.is_trusted)
        yield cache
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cache.close()


@asynccontextmanager
async def emptied_redis(url: str) -> "AsyncIterator[Redis]":
    """A connection to the database at `url`, which is empty now."""
    connection: Redis = Redis.from_url(url)
    await connection.flushdb()
    try:
        yield connection
    finally:
        await connection.aclose()


async def none_left(redis: "Redis", pattern: str) -> None:
    """Return once no key looks like `pattern`; fail if that takes too long."""
    until_s = time.monotonic() + PATIENCE_S
    while await redis.keys(pattern):
        assert time.monotonic() < until_s, f"{pattern} stays"
        await asyncio.sleep(0.01)


async def only_key(redis: "Redis", pattern: str) -> str:
    """The one key that looks like `pattern`."""
    (key,) = await redis.keys(pattern)
    return key.decode() if isinstance(key, bytes) else str(key)
