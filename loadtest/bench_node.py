"""The node under test: `idnode serve` with one worker on the stores of a book."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from loadtest.bench_book import Book, environment, product_url
from loadtest.bench_figures import BenchError
from loadtest.bench_programs import Program, answers, ask, on_core
from loadtest.plain_client import Lost, PlainClient, get
from loadtest.ports import free_port

# Enough to keep one worker busy, few enough that a miss is not waited for by many.
_WARMING_CLIENTS = 16
# Limits are kept at work and far away: a benchmark is one caller that asks more than any other.
_RATE = "10000000"
_LOOKUPS = re.compile(r"^idnode_cache_lookups_total\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(\w+)"')


class ServedNode:
    """A node that is started with switches, such as `IDNODE_L2="off"`."""

    def __init__(self, data: Path, book: Book, core: int | None, **switches: str) -> None:
        self.book = book
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        addresses = book.addresses
        settings = {
            "IDNODE_POSTGRES_URL": addresses.postgres_url,
            "IDNODE_REDIS_URL": addresses.redis_url,
            "IDNODE_WORKERS": "1",
            "IDNODE_RATE_PER_SOURCE": _RATE,
            "IDNODE_RATE_PER_CALLER": _RATE,
        }
        self._program = Program(
            [*on_core(core), sys.executable, "-m", "node", "serve"],
            data.with_name(f"{data.name}.out"),
            environment(data, port, **(settings | switches)),
        )

    def wait_ready(self) -> None:
        """Return when it is ready for full service.

        Raises:
            BenchError: if it does not get there.
        """
        self._program.wait_ready(lambda: answers(self.url, "/ready", 200))

    def stop(self) -> None:
        """End it; safe to call twice."""
        self._program.stop()

    @property
    def worker_rss_bytes(self) -> int:
        """Resident memory of the process that answers."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._program.pid).children(recursive=True):
                if "worker" in child.cmdline():
                    return int(child.memory_info().rss)
        raise BenchError(f"{self.url}: there is no worker process below {self._program.pid}")

    def lookups(self) -> dict[tuple[str, str], float]:
        """How often each tier gave an answer ("hit") or none ("miss"), as the metrics page says."""
        page = ask(self.url, "/metrics").body.decode()
        found = {}
        for labels, number in _LOOKUPS.findall(page):
            named = dict(_LABEL.findall(labels))
            found[named["tier"], named["result"]] = float(number)
        if not found:
            raise BenchError(f"{self.url}/metrics does not say which tier answers")
        return found

    def warm(self, numbers: Iterable[int], path: str = "/api/handles/") -> int:
        """Ask for every product once and check every answer; returns the bytes of all bodies.

        Raises:
            BenchError: for the first wrong answer.
        """
        return asyncio.run(self._warm(iter(numbers), path))

    async def _warm(self, numbers: Iterator[int], path: str) -> int:
        host, port = self.url.removeprefix("http://").split(":")
        clients = [PlainClient(host, int(port)) for _ in range(_WARMING_CLIENTS)]
        try:
            sizes = await asyncio.gather(*(self._ask_all(c, numbers, path) for c in clients))
        except Lost as error:
            raise BenchError(f"{self.url}: an answer was lost: {error}") from None
        finally:
            for client in clients:
                await client.close()
        return sum(sizes)

    async def _ask_all(self, client: PlainClient, numbers: Iterator[int], path: str) -> int:
        size_bytes = 0
        for number in numbers:
            request = get(f"{path}{self.book.identifier(number)}")
            status, headers, body = await client.ask(request)
            location = headers.get(b"location", b"").decode()
            check(self.book, path, number, status, location, body)
            size_bytes += len(body)
        return size_bytes


def check(book: Book, path: str, number: int, status: int, location: str, body: bytes) -> None:
    """Nothing, if this is the right answer about one product: JSON, or where it leads.

    Raises:
        BenchError: if it is not.
    """
    if path != "/":
        book.check(number, status, body)
    elif status != 302 or location != product_url(number):
        raise BenchError(f"/{book.identifier(number)}: wrong answer: {status} to {location}")
