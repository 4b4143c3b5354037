"""Books of made-up products: an embedded node of their own, filled through the command line."""

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import uvloop

from loadtest.bench_figures import BenchError
from loadtest.bench_programs import Answer, Program, answers, ask, on_core, printed
from loadtest.ports import free_port

# One file of this many rows is written, registered and removed before the next one.
_FILE_ROWS = 1_000_000
_CREDIT_CODE = "91450200MA5EXAMPL9"
_NAME = "示例工厂 Example Factory"
_PLACE = "450200"
# A row with its index entry takes some 290 bytes, and vacuuming wants room; the rest is the
# write-ahead log (2 GB) and the file.
_ROW_SIZE_BYTES = 400
_EMPTY_SIZE_BYTES = 3_000_000_000

Say = Callable[[str], None]


def needed_bytes(count: int) -> int:
    """Room on the disk that a book takes while it is written; nearly nothing where it is small."""
    return count * _ROW_SIZE_BYTES + (_EMPTY_SIZE_BYTES if count > _FILE_ROWS else 200_000_000)


def environment(data: Path, port: int, **settings: str) -> dict[str, str]:
    """The environment of a node: nothing of the caller's own settings, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IDNODE_")}
    own = {"IDNODE_DATA": str(data), "IDNODE_HTTP": f"127.0.0.1:{port}", "IDNODE_LANG": "en"}
    return {**kept, **own, **settings}


def product_url(number: int) -> str:
    """Where the record of a product leads; every one has the same length."""
    return f"https://example.com/p/{number:010d}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the stores of a book are, as the node's `run.json` says; passwords are in it."""

    postgres_url: str
    redis_url: str
    run_file: Path


class Book:
    """A running node with `count` products numbered from 0, all answers of one size."""

    prefix = "88.608.9101"

    def __init__(self, data: Path, count: int, core: int | None, say: Say) -> None:
        self.data = data
        self.count = count
        self._say = say
        self._port = free_port()
        self.environment = environment(data, self._port)
        self._program = Program(
            [*on_core(core), sys.executable, "-m", "node", "up"],
            data.with_name(f"{data.name}.out"),
            self.environment,
            signal.SIGINT,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def addresses(self) -> Addresses:
        run_file = self.data / "run.json"
        run = json.loads(run_file.read_text())
        return Addresses(run["postgres_url"], run["redis_url"], run_file)

    def fill(self) -> None:
        """Return when every product is registered; at once where an earlier run left them.

        Raises:
            BenchError: if the node does not start or refuses the products.
        """
        self._program.wait_ready(
            lambda: answers(self.url, "/ready", 200) and (self.data / "run.json").exists()
        )
        if answers(self.url, self.path(self.count - 1), 200):
            return
        who = ("--name", _NAME, "--credit-code", _CREDIT_CODE, "--division", _PLACE)
        self.command("enterprise", "add", *who)
        self.command("prefix", "allot", self.prefix, "--enterprise", _CREDIT_CODE)
        for first in range(0, self.count, _FILE_ROWS):
            self._register(range(first, min(first + _FILE_ROWS, self.count)))
        uvloop.run(_settle(self.addresses.postgres_url))

    def stop(self) -> None:
        """End the node; its data stays."""
        self._program.stop()

    def application_key(self) -> str:
        """A new API key of an application."""
        words = (
            "--name",
            "Bench",
            "--kind",
            "traceability",
            "--owner",
            _NAME,
            "--division",
            _PLACE,
        )
        added = self.command("application", "add", *words, "--json")
        name = json.loads(added)["id"]
        return str(
            json.loads(self.command("key", "create", "--application", name, "--json"))["key"]
        )

    def identifier(self, number: int) -> str:
        return f"{self.prefix}/{number:010d}"

    def path(self, number: int) -> str:
        return f"/api/handles/{self.identifier(number)}"

    def check(self, number: int, status: int, body: bytes) -> None:
        """Nothing, if this is the right JSON answer about a product.

        Raises:
            BenchError: if it is not.
        """
        document = json.loads(body) if status == 200 else {}
        shown = [value["data"]["value"] for value in document.get("values", [])]
        right = document.get("handle") == self.identifier(number)
        if not right or shown != [f"Gear {number:010d}", product_url(number)]:
            raise BenchError(f"{self.identifier(number)}: wrong answer: {status} {body[:200]!r}")

    def answer(self, number: int) -> Answer:
        """The right answer about one product, from the node that keeps the book."""
        answer = ask(self.url, self.path(number))
        self.check(number, answer.status, answer.body)
        return answer

    def _register(self, numbers: range) -> None:
        path = self.data.with_name(f"{self.data.name}.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("number", "name", "url"))
            writer.writerows((f"{n:010d}", f"Gear {n:010d}", product_url(n)) for n in numbers)
        began_s = time.monotonic()
        words = ["--prefix", self.prefix, "--suffix", "number", "--check", "none"]
        words += ["--value", "NAME=name", "--value", "URL=url", "--json"]
        try:
            self.command("register", str(path), *words)
        finally:
            path.unlink()
        rate = len(numbers) / (time.monotonic() - began_s)
        self._say(f"registered {numbers.stop:,} of {self.count:,} ({rate:,.0f}/s)")

    def command(self, *words: str) -> str:
        """What a command of the command line prints.

        Raises:
            BenchError: if it fails.
        """
        return printed(f"idnode {words[0]}", ["node", *words], self.environment)


async def _settle(postgres_url: str) -> None:
    """What PostgreSQL would do in the background after a bulk load, done before measuring."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("VACUUM (ANALYZE) identifier")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
