"""Kill rounds: any process of a node is killed (SIGKILL) under load, and nothing may be lost.

    python -m loadtest.killing --rounds 20

Starts a node of its own in a temporary folder. Readers resolve known products, a writer registers
new ones; meanwhile a random process is killed: the supervisor (which is then started again, as an
operator would), the worker, PostgreSQL, one of its sessions, or Valkey. Afterwards every
acknowledged registration must resolve to its value, and answers received <= ledger <= requests
sent; in a last part without kills the three are equal.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from loadtest.plain_client import Lost, PlainClient, Sums, get, put
from loadtest.ports import free_port

_PREFIX = "88.608.1001"
_KNOWN = ("00041250500735", "00000000959742", "09780670022151", "00602652170560")
READY_WITHIN_S = 60.0
VICTIMS = ("supervisor", "worker", "postgres", "session", "valkey")


class FailedError(Exception):
    """A promise was broken; says which, with figures."""


@dataclass
class Node:
    """A node that is started as an operator starts it."""

    data: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns at once."""
        environment = {
            **os.environ,
            "IDNODE_DATA": str(self.data),
            "IDNODE_HTTP": f"127.0.0.1:{self.port}",
        }
        with self.data.with_name("node.out").open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node", "up"],
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Return when `/ready` answers 200."""
        async with asyncio.timeout(READY_WITHIN_S):
            await self._until_ready()

    async def _until_ready(self) -> None:
        while True:
            if await asyncio.to_thread(self._is_ready):
                return
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        """As Ctrl-C."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def operator_key(self) -> str:
        return (self.data / "operator.key").read_text().strip()

    def ledger(self) -> int:
        """All resolutions over the JSON door, as the metrics page has them."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=20) as page:
            lines = page.read().decode().splitlines()
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in lines
            if line.startswith("idnode_resolutions_total") and 'channel="http_json"' in line
        )

    def victim(self, name: str) -> int | None:
        """Process id of a process of this node, None if it is just being restarted."""
        assert self.process is not None
        if name == "supervisor":
            return self.process.pid
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            found = [child.pid for child in children if _is(child, name)]
        except psutil.Error:
            return None
        return random.choice(found) if found else None

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _is(process: psutil.Process, name: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    line = " ".join(words)
    if name == "worker":
        return " worker " in f"{line} "
    if name == "valkey":
        return "valkey-server" in line
    if name == "session":
        return line.startswith("postgres:") and "idle" in line
    return "postgres" in words[0] and "-D" in words if words else False


@dataclass
class Load:
    """Readers and a writer, and what they know for sure."""

    node: Node
    sums: Sums = field(default_factory=Sums)
    acknowledged: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _running: bool = False
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _written: int = 0

    def begin(self, readers: int) -> None:
        """Start asking."""
        self._running = True
        self._tasks = [asyncio.create_task(self._read(n)) for n in range(readers)]
        self._tasks.append(asyncio.create_task(self._write()))

    async def end(self) -> None:
        """Let every request under way get its answer, then stop."""
        self._running = False
        await asyncio.gather(*self._tasks)

    async def _read(self, seed: int) -> None:
        chooser = random.Random(seed)
        client = PlainClient("127.0.0.1", self.node.port)
        while self._running:
            suffix = chooser.choice(_KNOWN)
            try:
                path = f"/api/handles/{_PREFIX}/{suffix}"
                status, _, body = await client.ask(get(path), self.sums)
            except Lost:
                await asyncio.sleep(0.02)
                continue
            if status == 200 and json.loads(body)["handle"] != f"{_PREFIX}/{suffix}":
                self.wrong.append(f"{suffix}: {body[:200]!r}")
            if status not in (200, 503):
                self.wrong.append(f"{suffix}: HTTP {status} {body[:200]!r}")
        await client.close()

    async def _write(self) -> None:
        client = PlainClient("127.0.0.1", self.node.port)
        while self._running:
            self._written += 1
            name, value = f"KILL-{self._written}", f"value {self._written}"
            body = json.dumps([{"index": 1, "type": "NAME", "data": value}]).encode()
            request = put(f"/api/handles/{_PREFIX}/{name}", self.node.operator_key(), body)
            try:
                status, _, _ = await client.ask(request)
            except Lost:
                await asyncio.sleep(0.02)
                continue
            if status in (200, 201):
                self.acknowledged[name] = value
            await asyncio.sleep(0.001)
        await client.close()


async def kill_rounds(node: Node, rounds: int, seed: int, load_s: float = 1.0) -> dict[str, int]:
    """Run the rounds on a started node.

    Raises:
        FailedError: if a promise was broken.
    """
    chooser = random.Random(seed)
    await node.ready()
    before = node.ledger()
    load = Load(node)
    for number in range(rounds):
        load.begin(readers=8)
        await asyncio.sleep(load_s * chooser.uniform(0.3, 1.0))
        await _kill_one(node, VICTIMS[number % len(VICTIMS)])
        await asyncio.sleep(load_s * chooser.uniform(0.1, 0.7))
        await node.ready()
        await load.end()
    await node.ready()
    counted = node.ledger() - before
    if not load.sums.answered <= counted <= load.sums.sent:
        raise FailedError(
            f"ledger {counted}, answers {load.sums.answered}, requests {load.sums.sent}"
        )
    await _require_written(load)
    quiet = await _quiet_part(node)
    return {
        "rounds": rounds,
        "sent": load.sums.sent,
        "answered": load.sums.answered,
        "ledger": counted,
        "acknowledged": len(load.acknowledged),
        "quiet_answered_and_ledger": quiet,
    }


async def _kill_one(node: Node, name: str) -> None:
    pid = node.victim(name)
    if pid is None:
        return
    os.kill(pid, signal.SIGKILL)
    if name == "supervisor":
        assert node.process is not None
        node.process.wait()
        node.start()


async def _require_written(load: Load) -> None:
    if load.wrong:
        raise FailedError(f"{len(load.wrong)} wrong answers, the first: {load.wrong[0]}")
    client = PlainClient("127.0.0.1", load.node.port)
    for name, value in load.acknowledged.items():
        status, _, body = await client.ask(get(f"/api/handles/{_PREFIX}/{name}"))
        found = json.loads(body).get("values", [{}]) if status == 200 else [{}]
        if not found or found[0].get("data", {}).get("value") != value:
            raise FailedError(f"acknowledged {name} is lost: HTTP {status} {body[:200]!r}")
    await client.close()


async def _quiet_part(node: Node) -> int:
    """Without kills every request gets its answer, and the ledger is exactly that."""
    before, load = node.ledger(), Load(node)
    load.begin(readers=8)
    await asyncio.sleep(1.0)
    await load.end()
    counted = node.ledger() - before
    if not load.sums.sent == load.sums.answered == counted:
        raise FailedError(
            f"without kills: ledger {counted}, answers {load.sums.answered}, "
            f"requests {load.sums.sent}"
        )
    return counted


def main(words: Sequence[str] | None = None) -> int:
    """Run on a node of its own; exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        node = Node(Path(folder) / "data", free_port())
        node.start()
        try:
            result = asyncio.run(kill_rounds(node, options.rounds, options.seed))
        except FailedError as error:
            sys.stdout.write(f"{error}\n")
            return 1
        finally:
            node.stop()
    sys.stdout.write(f"{json.dumps(result)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
