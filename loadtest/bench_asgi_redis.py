"""What the node is compared with: the smallest ASGI application that does one Redis GET.

    python -m loadtest.bench_asgi_redis --port 8001 --run-file var/run.json

It answers a path with the value under the key `bench:` and that path.
"""

from collections.abc import Mapping
from typing import Any

import uvloop
from redis.asyncio import Redis

from loadtest.bench_asgi_hello import Send, reply, serve_store, server

_KEY = "bench:"
# Where the node keeps its entries.
_ENTRIES = "idnode:*:r:*"
# One command of this many keys stays well below a second.
_FILL_MAX = 1_000


def fill(redis_url: str, answers: Mapping[str, bytes]) -> None:
    """Put an answer under each path."""
    uvloop.run(_fill(redis_url, list(answers.items())))


async def _fill(redis_url: str, items: list[tuple[str, bytes]]) -> None:
    async with Redis.from_url(redis_url) as redis:
        for first in range(0, len(items), _FILL_MAX):
            some = items[first : first + _FILL_MAX]
            await redis.mset({_KEY + path: body for path, body in some})


def forget(redis_url: str) -> None:
    """Take the node's entries out of the shared cache, as a server short of memory does."""
    uvloop.run(_forget(redis_url))


async def _forget(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        some: list[bytes] = []
        async for key in redis.scan_iter(match=_ENTRIES, count=_FILL_MAX):
            some.append(key)
            if len(some) == _FILL_MAX:
                await redis.unlink(*some)
                some.clear()
        if some:
            await redis.unlink(*some)


async def _serve(redis_url: str, port: int) -> None:
    async with Redis.from_url(redis_url) as redis:

        async def one_get(scope: dict[str, Any], receive: Any, send: Send) -> None:
            body = await redis.get(_KEY + scope["path"])
            await (reply(send, body) if isinstance(body, bytes) else reply(send, b"", 404))

        await server(one_get, port).serve()


def main() -> None:
    """Serve until SIGTERM."""
    serve_store(__doc__, "redis_url", _serve)


if __name__ == "__main__":
    main()
