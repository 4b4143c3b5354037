"""Redis, then PostgreSQL, stop and come back under load: answers stay right, by themselves."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loadtest.plain_client import Lost, PlainClient, get, put
from node.config import terminal_environment
from node.data_folder import DataFolder
from node.embedded_postgres import EmbeddedPostgres
from node.embedded_valkey import EmbeddedValkey
from tests.conftest import free_port

PREFIX = "88.608.7001"
CODE = "91450200MA5EXAMPL9"
# The promise is 2 s; the machine of a test run is busy with other things.
RECOVERY_PATIENCE_S = 10.0
AWAY_S = 2.5


@dataclass
class Served:
    """`idnode serve` against stores that the test starts and stops."""

    data: Path
    port: int
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            **terminal_environment(),
            "IDNODE_DATA": str(self.data),
            "IDNODE_HTTP": f"127.0.0.1:{self.port}",
            "IDNODE_POSTGRES_URL": self.postgres.url,
            "IDNODE_REDIS_URL": self.valkey.url,
        }

    def cli(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "node", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def serve(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node", "serve"], env=self.environment
        )

    @property
    def key(self) -> str:
        return (self.data / "operator.key").read_text().strip()


@pytest.fixture
async def served(scratch: Path) -> AsyncIterator[Served]:
    folder = DataFolder.open(scratch / f"loss-stores-{uuid.uuid4().hex[:8]}")
    postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder)
    data = scratch / f"loss-{uuid.uuid4().hex[:8]}"
    node = Served(data, free_port(), postgres, valkey)
    await postgres.start()
    await valkey.start()
    try:
        node.cli("migrate")
        node.cli(
            *("enterprise", "add", "--name", "样品厂", "--credit-code", CODE),
            *("--division", "450200"),
        )
        node.cli("prefix", "allot", PREFIX, "--enterprise", CODE)
        node.serve()
        await until(lambda: is_ready(node), 60)
        yield node
    finally:
        if node.process is not None:
            node.process.send_signal(signal.SIGTERM)
            node.process.wait(60)
        await valkey.stop()
        await postgres.stop()
        folder.close()


async def until(condition: Callable[[], Awaitable[bool]], patience_s: float) -> float:
    began_s = time.monotonic()
    while not await condition():
        assert time.monotonic() - began_s < patience_s, f"not within {patience_s} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


async def is_ready(node: Served) -> bool:
    client = PlainClient("127.0.0.1", node.port)
    try:
        return (await client.ask(get("/ready")))[0] == 200
    except Lost:
        return False
    finally:
        await client.close()


@dataclass
class Seen:
    """What a part of the load was answered, by status."""

    statuses: dict[int, int] = field(default_factory=dict)
    stale: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1


class Load:
    """Readers of cached, uncached and unknown identifiers, and a writer."""

    def __init__(self, node: Served) -> None:
        self.node = node
        self.cached, self.fresh, self.absent, self.writes = Seen(), Seen(), Seen(), Seen()
        self._tasks: list[asyncio.Task[None]] = []
        self._running = False
        self.written: dict[str, str] = {}
        self._number = 0

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        self.cached, self.fresh, self.absent, self.writes = Seen(), Seen(), Seen(), Seen()
        self._running = True
        self._tasks = [
            asyncio.create_task(work())
            for work in (self._cached, self._cached, self._fresh, self._absent, self._write)
        ]
        yield
        self._running = False
        await asyncio.gather(*self._tasks)

    async def _each(self, seen: Seen, request: Callable[[], tuple[bytes, str | None]]) -> None:
        client = PlainClient("127.0.0.1", self.node.port)
        while self._running:
            asked, expected = request()
            status, headers, body = await client.ask(asked)
            seen.add(status)
            if b"warning" in headers:
                assert headers[b"warning"].startswith(b"110")
                seen.stale += 1
            if status == 200 and expected is not None:
                value = json.loads(body)["values"][0]["data"]["value"]
                if value != expected:
                    seen.wrong.append(f"{value} instead of {expected}")
            await asyncio.sleep(0.005)
        await client.close()

    async def _cached(self) -> None:
        await self._each(self.cached, lambda: (self._path("CACHED"), "cached"))

    async def _fresh(self) -> None:
        numbers = iter(range(1_000_000))
        await self._each(self.fresh, lambda: (self._path(f"FRESH-{next(numbers) % 500}"), "fresh"))

    async def _absent(self) -> None:
        await self._each(self.absent, lambda: (self._path(f"NO-{uuid.uuid4().hex}"), None))

    async def _write(self) -> None:
        client = PlainClient("127.0.0.1", self.node.port)
        while self._running:
            self._number += 1
            name, value = f"W-{self._number % 50}", f"value {self._number}"
            status, _, body = await client.ask(self.putting(name, value))
            self.writes.add(status)
            if status in (200, 201):
                self.written[name] = value
                status, _, body = await client.ask(self._path(name))
                found = json.loads(body)["values"][0]["data"]["value"] if status == 200 else status
                if found != value and status != 503:
                    self.writes.wrong.append(f"{name}: {found} instead of {value}")
            else:
                assert json.loads(body)["message"]
            await asyncio.sleep(0.01)
        await client.close()

    def putting(self, name: str, value: str) -> bytes:
        body = json.dumps([{"index": 1, "type": "NAME", "data": value}]).encode()
        return put(f"/api/handles/{PREFIX}/{name}", self.node.key, body)

    @staticmethod
    def _path(name: str) -> bytes:
        return get(f"/api/handles/{PREFIX}/{name}")


async def prepared(node: Served) -> Load:
    """A node whose caches are warm with one identifier, and 500 that were never asked for."""
    load = Load(node)
    client = PlainClient("127.0.0.1", node.port)
    assert (await client.ask(load.putting("CACHED", "cached")))[0] == 201
    for number in range(500):
        assert (await client.ask(load.putting(f"FRESH-{number}", "fresh")))[0] == 201
    assert (await client.ask(get(f"/api/handles/{PREFIX}/CACHED")))[0] == 200
    await client.close()
    return load


def assert_all_well(load: Load) -> None:
    assert set(load.cached.statuses) == {200}
    assert set(load.fresh.statuses) == {200}
    assert set(load.absent.statuses) == {404}
    assert set(load.writes.statuses) <= {200, 201}
    assert_nothing_wrong(load)


def assert_nothing_wrong(load: Load) -> None:
    for seen in (load.cached, load.fresh, load.absent, load.writes):
        assert seen.wrong == []


async def test_without_redis_everything_is_answered_from_postgresql(served: Served) -> None:
    load = await prepared(served)
    async with load():
        await asyncio.sleep(0.5)
        await served.valkey.stop()
        await asyncio.sleep(AWAY_S)
        assert not await is_ready(served)
        await served.valkey.start()
        await until(lambda: is_ready(served), RECOVERY_PATIENCE_S)
        await asyncio.sleep(0.5)
    assert_all_well(load)
    assert load.cached.stale == 0


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_without_postgresql_the_caches_answer_and_writes_say_why_not(
    served: Served, how: str
) -> None:
    load = await prepared(served)
    async with load():
        await asyncio.sleep(0.5)
        pid = served.postgres.pid
        assert pid is not None
        if how == "stopped":
            await served.postgres.stop()
        else:
            freeze(pid, signal.SIGSTOP)
        await asyncio.sleep(1.5)
        assert not await is_ready(served)
        load.absent.statuses.clear()
        load.writes.statuses.clear()
        load.cached.stale = 0
        await asyncio.sleep(AWAY_S)
        # What nobody asked for before cannot be known now: that is not "not found".
        assert set(load.absent.statuses) <= {503}
        assert set(load.writes.statuses) <= {503}
        assert load.cached.stale > 0
        if how == "stopped":
            await served.postgres.start()
        else:
            freeze(pid, signal.SIGCONT)
        await until(lambda: is_ready(served), RECOVERY_PATIENCE_S)
        await asyncio.sleep(0.5)
    assert set(load.cached.statuses) == {200}
    assert_nothing_wrong(load)
    async with load():
        await asyncio.sleep(1.0)
    assert_all_well(load)
    assert load.cached.stale == 0
    client = PlainClient("127.0.0.1", served.port)
    for name, value in load.written.items():
        _, _, body = await client.ask(get(f"/api/handles/{PREFIX}/{name}?auth"))
        assert json.loads(body)["values"][0]["data"]["value"] == value
    await client.close()


def freeze(pid: int, how: signal.Signals) -> None:
    """Stop or continue PostgreSQL with all its sessions."""
    for child in subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), how)
    os.kill(pid, how)


async def test_a_node_that_starts_without_postgresql_serves_what_redis_holds(
    served: Served,
) -> None:
    await prepared(served)
    assert served.process is not None
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0
    await served.postgres.stop()
    served.serve()
    client = PlainClient("127.0.0.1", served.port)

    async def is_served() -> bool:
        try:
            status, headers, _ = await client.ask(get(f"/api/handles/{PREFIX}/CACHED"))
        except Lost:
            return False
        return status == 200 and b"warning" in headers

    await until(is_served, 30)
    assert (await client.ask(get(f"/api/handles/{PREFIX}/UNKNOWN")))[0] == 503
    await served.postgres.start()
    await until(lambda: is_ready(served), RECOVERY_PATIENCE_S)
    assert (await client.ask(get(f"/api/handles/{PREFIX}/UNKNOWN")))[0] == 404
    await client.close()
