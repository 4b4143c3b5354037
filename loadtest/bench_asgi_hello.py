"""What the node is compared with: a bare ASGI application that answers a constant.

python -m loadtest.bench_asgi_hello --port 8001 --body-file answer.json
"""

import argparse
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[dict[str, Any], Any, Send], Awaitable[None]]

_TYPE = (b"content-type", b"application/json;charset=UTF-8")


async def reply(send: Send, body: bytes, status: int = 200) -> None:
    """Answer with `body`."""
    headers = [_TYPE, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def server(application: Application, port: int) -> uvicorn.Server:
    """uvicorn with its fastest parts, one process, and no log of requests."""
    return uvicorn.Server(
        uvicorn.Config(
            application,
            port=port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
        )
    )


def serve_store(
    description: str | None, url_name: str, serve: Callable[[str, int], Coroutine[Any, Any, None]]
) -> None:
    """Read the command line, and serve until SIGTERM from a store that `run.json` names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--run-file", type=Path, required=True)
    options = parser.parse_args()
    # The address holds a password: it comes from a file, not from the command line.
    url = json.loads(options.run_file.read_text())[url_name]
    uvloop.run(serve(url, options.port))


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--body-file", type=Path, required=True)
    options = parser.parse_args()
    body = options.body_file.read_bytes()

    async def hello(scope: dict[str, Any], receive: Any, send: Send) -> None:
        await reply(send, body)

    server(hello, options.port).run()


if __name__ == "__main__":
    main()
