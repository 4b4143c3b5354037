"""What native UDP is compared with: an event loop that sends a constant back for each datagram.

python -m loadtest.bench_echo --port 8001 --answer-file answer
"""

import argparse
import asyncio
import signal
from pathlib import Path
from typing import Any

import uvloop


class Echo(asyncio.DatagramProtocol):
    """Sends `answer` to whoever sends anything."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: Any) -> None:
        # uvloop's transports are of no class of asyncio.
        self._transport: asyncio.DatagramTransport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(self._answer, address)


async def serve(port: int, answer: bytes) -> None:
    """Answer until SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Echo(answer), local_addr=("127.0.0.1", port)
    )
    await ended.wait()
    transport.close()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer-file", type=Path, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.answer_file.read_bytes()))


if __name__ == "__main__":
    main()
