"""What the node is compared with: the smallest ASGI application that does one prepared SELECT.

    python -m loadtest.bench_asgi_select --port 8001 --run-file var/run.json

It answers the path of an identifier with the bytes of its record, as the book holds them. The
pool is asyncpg's own, which prepares a statement at its first use and keeps it.
"""

from typing import Any

import asyncpg

from loadtest.bench_asgi_hello import Send, reply, serve_store, server

_PATH = "/api/handles/"
_SELECT = "SELECT data FROM identifier WHERE key = $1"


async def _serve(postgres_url: str, port: int) -> None:
    async with asyncpg.create_pool(postgres_url) as pool:

        async def one_select(scope: dict[str, Any], receive: Any, send: Send) -> None:
            data = await pool.fetchval(_SELECT, scope["path"].removeprefix(_PATH))
            await reply(send, data or b"", 404 if data is None else 200)

        await server(one_select, port).serve()


def main() -> None:
    """Serve until SIGTERM."""
    serve_store(__doc__, "postgres_url", _serve)


if __name__ == "__main__":
    main()
