"""A node of its own with several workers, and what may befall its processes."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil

PREFIX = "88.608.1001"
READY_WITHIN_S = 90.0
# The load is one caller that asks more than any other, for many names that do not exist yet.
_LIMITS = {
    "IDNODE_RATE_PER_SOURCE": "0",
    "IDNODE_RATE_PER_CALLER": "0",
    "IDNODE_UNKNOWN_RATE": "0",
}
# An announcement that was given its number and is never published.
_SWALLOW = (
    "EVAL \"for _, key in ipairs(redis.call('KEYS', 'idnode:*:n:*')) do"
    " redis.call('INCR', key) end\" 0"
)


class NodeError(Exception):
    """The node cannot be used as the test needs it."""


@dataclass
class Node:
    """`idnode up` in a folder."""

    data: Path
    port: int
    workers: int
    _process: "subprocess.Popen[bytes] | None" = None

    async def start(self) -> None:
        """Return when it is ready for full service.

        Raises:
            NodeError: if it does not get there.
        """
        environment = {
            **{name: value for name, value in os.environ.items() if name[:7] != "IDNODE_"},
            **_LIMITS,
            "IDNODE_DATA": str(self.data),
            "IDNODE_HTTP": f"127.0.0.1:{self.port}",
            "IDNODE_WORKERS": str(self.workers),
        }
        self._process = self._started(environment)
        await self._wait_ready(self._process)

    def _started(self, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        with self._output.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "node", "up"],
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    async def _wait_ready(self, process: "subprocess.Popen[bytes]") -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                while process.poll() is None:
                    ready = await asyncio.to_thread(self.is_ready)
                    if ready and len(self.pids("worker")) == self.workers:
                        return
                    await asyncio.sleep(0.1)
        raise NodeError(f"the node is not ready: {self._output.read_text()[-2_000:]}")

    def stop(self) -> None:
        """As Ctrl-C; safe to call twice."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)

    def replace_workers(self) -> None:
        """SIGHUP: every worker is replaced, one after the other."""
        assert self._process is not None
        _send(self._process.pid, signal.SIGHUP)

    @property
    def operator_key(self) -> str:
        return (self.data / "operator.key").read_text().strip()

    def is_ready(self) -> bool:
        """True if the worker that is asked misses nothing for full service."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5) as page:
                return bool(page.status == 200)
        except OSError:
            return False

    def pids(self, kind: str) -> list[int]:
        """Processes of this node: `worker`, `valkey` or `session` of PostgreSQL."""
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self._process.pid).children(recursive=True)
            return [child.pid for child in children if _is(child, kind)]
        return []

    async def tell_redis(self, command: str) -> None:
        """Give Valkey one command, in the form in which one types it."""
        url = urlsplit(json.loads((self.data / "run.json").read_text())["redis_url"])
        password = parse_qs(url.query)["password"][0]
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_unix_connection(url.path)
                with contextlib.closing(writer):
                    writer.write(f"AUTH {password}\r\n{command}\r\n".encode())
                    await reader.readuntil(b"\r\n")
                    await reader.readuntil(b"\r\n")

    @property
    def _output(self) -> Path:
        return self.data.with_name(f"{self.data.name}.out")


class Faults:
    """What goes wrong; those that cost the workers their Redis say so."""

    LOSSES = ("kill_valkey", "stop_valkey", "cut_bulletin", "cut_clients")
    HARMLESS = (
        "kill_worker",
        "replace_workers",
        "cut_sessions",
        "flush_valkey",
        "swallow_announcement",
    )

    def __init__(self, node: Node, chooser: random.Random) -> None:
        self._node = node
        self._random = chooser

    def kinds(self) -> Iterator[str]:
        """Every kind in turn, in an order that changes."""
        while True:
            kinds = [*self.LOSSES, *self.HARMLESS, "kill_worker"]
            self._random.shuffle(kinds)
            yield from kinds

    async def kill_worker(self) -> None:
        self._signal("worker", signal.SIGKILL)

    async def replace_workers(self) -> None:
        self._node.replace_workers()

    async def cut_sessions(self) -> None:
        """Some sessions of PostgreSQL end, as the server ends them."""
        for pid in self._node.pids("session"):
            if self._random.random() < 0.7:
                _send(pid, signal.SIGTERM)

    async def kill_valkey(self) -> None:
        self._signal("valkey", signal.SIGKILL)
        # The supervisor starts it again.
        await asyncio.sleep(0.5)

    async def stop_valkey(self) -> None:
        pids = self._node.pids("valkey")
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        await asyncio.sleep(self._random.choice((0.2, 0.4, 0.7, 1.0, 1.5)))
        for pid in pids:
            _send(pid, signal.SIGCONT)

    async def cut_bulletin(self) -> None:
        await self._node.tell_redis("CLIENT KILL TYPE pubsub")

    async def cut_clients(self) -> None:
        await self._node.tell_redis("CLIENT KILL TYPE normal")

    async def flush_valkey(self) -> None:
        await self._node.tell_redis("FLUSHALL")

    async def swallow_announcement(self) -> None:
        await self._node.tell_redis(_SWALLOW)

    def _signal(self, kind: str, number: signal.Signals) -> None:
        pids = self._node.pids(kind)
        if pids:
            _send(self._random.choice(pids), number)


def _send(pid: int, number: signal.Signals) -> None:
    # It may have ended by itself.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is(process: psutil.Process, kind: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    line = f"{' '.join(words)} "
    if kind == "worker":
        return " -m node worker " in line
    if kind == "valkey":
        return "valkey-server" in line
    return line.startswith("postgres:") and "[local]" in line
