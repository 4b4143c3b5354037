"""Random and hostile requests against a running node: no 5xx, and nothing hangs.

    python -m loadtest.hostile --url http://127.0.0.1:8000 --requests 100000 --seed 1

With `--key-file` (the node's `operator.key`) writes are among them; they touch nothing but
identifiers that begin with `88.608.1001/HOSTILE-`. Prints one line of JSON: answers by status,
every request that was answered with 5xx or hung, and the memory of the processes that serve the
port before, after and at most. Exit code 1 after any 5xx or hang. `--only N` sends one request of
a run again.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from loadtest.hostile_requests import Ending, HostileRequest, hostile_request

# The node gives a head 10 s; whatever is answered or ended later than this hangs.
PATIENCE_S = 30.0
CONNECTIONS = 16
# How long a client that never reads stays.
_UNREAD_S = 0.2
# Longer than the answers to everything that is sent ahead on one connection.
_ANSWERS_SIZE_BYTES_MAX = 32 * 1024 * 1024
_REPORTED_MAX = 100
_MEMORY_EVERY_S = 0.5
_LINGER_NOT = struct.pack("ii", 1, 0)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Report:
    """What became of the requests; memory in bytes, `None` where no process was found."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory_before_bytes: int | None = None
    memory_after_bytes: int | None = None
    memory_most_bytes: int | None = None

    @property
    def is_good(self) -> bool:
        return not self.failed and not self.hung

    def answered(self, number: int, request: HostileRequest, answers: Sequence["Answer"]) -> None:
        """Count the answers to one request."""
        for answer in answers:
            self.statuses[answer.status] += 1
            if answer.status >= 500 and len(self.failed) < _REPORTED_MAX:
                self.failed.append(
                    f"{number}: {answer.status} {answer.body[:200]!r} {request.shown}"
                )
        if not answers:
            self.unanswered[request.ending.name.lower()] += 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    status: int
    body: bytes
    is_last: bool


async def run(
    url: str,
    numbers: Iterable[int],
    seed: int,
    key: str | None = None,
    *,
    connections: int = CONNECTIONS,
    patience_s: float = PATIENCE_S,
) -> Report:
    """Send the requests of a seed with these numbers over several connections at a time."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    report, queue = Report(), iter(numbers)
    began_s = time.monotonic()
    report.memory_before_bytes = report.memory_most_bytes = memory_bytes(port)
    watching = asyncio.create_task(_watch_memory(report, port))
    clients = [
        _Client(host, port, report, seed, key, patience_s).send_all(queue)
        for _ in range(connections)
    ]
    await asyncio.gather(*clients)
    watching.cancel()
    report.memory_after_bytes = memory_bytes(port)
    report.seconds = round(time.monotonic() - began_s, 1)
    return report


class _Client:
    """One connection at a time, kept where the requests allow it."""

    def __init__(
        self, host: str, port: int, report: Report, seed: int, key: str | None, patience_s: float
    ) -> None:
        self._address = (host, port)
        self._report = report
        self._seed = seed
        self._key = key
        self._patience_s = patience_s
        self._kept: Streams | None = None

    async def send_all(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            request = hostile_request(self._seed, number, self._key)
            self._report.requests += 1
            try:
                async with asyncio.timeout(self._patience_s):
                    answers = await self._exchange(request)
            except TimeoutError:
                self._report.hung.append(f"{number}: {request.shown}")
                self._drop()
                continue
            self._report.answered(number, request, answers)
        self._drop()

    async def _exchange(self, request: HostileRequest) -> Sequence[Answer]:
        if request.ending is not Ending.ANSWER:
            self._drop()
        if self._kept is None:
            self._kept = await asyncio.open_connection(
                *self._address, limit=_ANSWERS_SIZE_BYTES_MAX
            )
        reader, writer = self._kept
        if request.ending in (Ending.ANSWER, Ending.FINISH):
            return await self._conversation(request, reader, writer)
        if request.ending is Ending.UNREAD:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a socket's
        with contextlib.suppress(OSError, TimeoutError):
            # A node that is not read from stops reading, too.
            await asyncio.wait_for(_send(request, writer), _UNREAD_S)
        if request.ending is Ending.UNREAD:
            await asyncio.sleep(_UNREAD_S)
        self._drop(reset=request.ending is Ending.RESET)
        return ()

    async def _conversation(
        self, request: HostileRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Sequence[Answer]:
        sending = asyncio.create_task(_send(request, writer))
        answers: list[Answer] = []
        try:
            for method in request.methods:
                answer = await _read_answer(reader, method)
                answers.append(answer)
                if answer.is_last:
                    break
            if request.ending is Ending.ANSWER and not answers[-1].is_last:
                await sending
                return answers
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # closed: what was answered until then counts
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
        self._drop()
        return answers

    def _drop(self, *, reset: bool = False) -> None:
        if self._kept is None:
            return
        writer, self._kept = self._kept[1], None
        if reset:
            socket_ = writer.get_extra_info("socket")
            socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        writer.transport.abort()


async def _send(request: HostileRequest, writer: asyncio.StreamWriter) -> None:
    for piece in request.pieces:
        writer.write(piece)
        await writer.drain()
        if request.pause_s:
            await asyncio.sleep(request.pause_s)
    if request.ending is Ending.FINISH:
        writer.write_eof()


async def _read_answer(reader: asyncio.StreamReader, method: str) -> Answer:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        if status >= 200:
            break
    headers = head.lower()
    body = b""
    if method != "HEAD" and b"\r\ncontent-length: " in headers:
        length = headers.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
    return Answer(status, body, b"\r\nconnection: close" in headers)


# --- memory ---


def memory_bytes(port: int) -> int | None:
    """Resident memory of the processes that listen on a port, together."""
    found = [process.memory_info().rss for process in _listening(port)]
    return sum(found) if found else None


def _listening(port: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(
                one.status == psutil.CONN_LISTEN and one.laddr.port == port
                for one in process.net_connections("tcp")
            ):
                found.append(process)
    return found


async def _watch_memory(report: Report, port: int) -> None:
    processes = _listening(port)
    while processes:
        with contextlib.suppress(psutil.Error):
            now_bytes = sum(process.memory_info().rss for process in processes)
            report.memory_most_bytes = max(report.memory_most_bytes or 0, now_bytes)
        await asyncio.sleep(_MEMORY_EVERY_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Send and print; exit code 1 after any 5xx or hang."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.hostile", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--key-file", type=Path, help="the node's operator.key")
    parser.add_argument("--only", type=int, help="send the request of this number alone")
    given = parser.parse_args(arguments)
    key = given.key_file.read_text().strip() if given.key_file else None
    numbers = range(given.requests) if given.only is None else [given.only]
    report = asyncio.run(run(given.url, numbers, given.seed, key, connections=given.connections))
    sys.stdout.write(f"{json.dumps(vars(report), ensure_ascii=False)}\n")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
