"""Readers, writers and everything that breaks, interleaved by a seed: no version goes back.

    python -m loadtest.interleaving --operations 1000000 --seed 1

Starts a node of its own with several workers in a temporary folder. Readers ask over JSON, redirect
and batch, writers register, change and delete, each over connections that reach any worker, while
workers are killed and replaced, Valkey is killed, stopped and emptied, announcements are swallowed
and sessions of PostgreSQL are cut. What is promised is written in loadtest/interleaving_book.py.

Prints one line of JSON: operations by kind, answers by outcome, faults, the longest time that an
acknowledged write stayed unseen (ms; on the healthy node, and with Redis lost), and violations.
Exit code 1 after the first violation, which is described.
"""

import argparse
import asyncio
import json
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import orjson
import uvloop

from loadtest.interleaving_book import Book, Bounds, BrokenPromiseError, Found, Story
from loadtest.interleaving_client import Answer, Client
from loadtest.interleaving_node import PREFIX, Faults, Node, NodeError
from loadtest.plain_client import Lost
from loadtest.ports import free_port
from resolver.response_code import ResponseCode

READERS, WRITERS = 32, 6
# Each writer writes to a few identifiers for a while, then leaves them alone for longer than
# anything may stay unseen: the next write would hide what the last one left behind.
_BUSY, _BUSY_S = 2, 0.3
_STORIES_MAX = 3_000
_BATCH_MAX = 20
# A request that reached a worker that was killed then has had its effect by now, or never will.
_DOUBT_S = 2.5
_LEAVE_SHARE = 0.002
_DELETED_SHARE = 0.15
_OPERATIONS_PER_FAULT = 15_000
_CALM_PAUSE_S = 0.05
_AGREEING_MAX = 300

_VALUE = re.compile(rb"interleaving\.example/([A-Z0-9-]+)/(\d+)")
_NOT_FOUND = b'"responseCode":100'
_KINDS = ("json",) * 80 + ("redirect",) * 12 + ("batch",) * 7 + ("authoritative",)


@dataclass
class Report:
    """What was done and what came of it."""

    operations: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    identifiers: int = 0
    seconds: float = 0.0
    longest_unseen_ms: float = 0.0
    longest_unseen_redis_lost_ms: float = 0.0
    violations: int = 0
    violation: str = ""

    @property
    def total(self) -> int:
        return self.operations.total()


class Run:
    """One interleaving on a node that is ready.

    `rate` bounds the operations a second (0: as many as go), `faults` is how many things break.
    """

    def __init__(
        self,
        node: Node,
        operations: int,
        seed: int,
        *,
        bounds: Bounds,
        faults: int,
        rate: int = 0,
    ) -> None:
        self.node = node
        self.book = Book(bounds)
        self.report = Report()
        self.stories: list[Story] = []
        self.busy: list[list[Story]] = [[] for _ in range(WRITERS)]
        self.ahead: list[list[Story]] = [[] for _ in range(WRITERS)]
        self.key = node.operator_key
        self._operations = operations
        self._seed = seed
        self._faults = faults
        self._rate = rate
        self._began_s = asyncio.get_running_loop().time()

    @property
    def is_over(self) -> bool:
        return self.report.total >= self._operations

    async def run(self) -> Report:
        """Interleave until the operations are done; the first violation ends it."""
        loop = asyncio.get_running_loop()
        self._began_s = loop.time()
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(WRITERS):
                    tasks.create_task(_Writer(self, number, self._chooser(number)).work())
                for number in range(READERS):
                    tasks.create_task(_Reader(self, self._chooser(WRITERS + number)).work())
                tasks.create_task(self._break())
            await self._agree()
        except* BrokenPromiseError as group:
            self.report.violations = len(group.exceptions)
            self.report.violation = f"seed {self._seed}: {_first(group)}"
        report = self.report
        report.identifiers = len(self.stories)
        report.seconds = round(loop.time() - self._began_s, 1)
        report.longest_unseen_ms = round(1e3 * self.book.longest_calm_s, 1)
        report.longest_unseen_redis_lost_ms = round(1e3 * self.book.longest_lost_s, 1)
        return report

    def story(self, chooser: random.Random) -> Story:
        """One that is written now, is about to be registered, or was left alone."""
        some = chooser.random()
        if some < 0.5:
            stories = chooser.choice(self.busy if some < 0.45 else self.ahead)
            return chooser.choice(stories or self.stories)
        return chooser.choice(self.stories)

    def new_stories(self, writer: int) -> list[Story]:
        """Identifiers that nobody has registered."""
        first = len(self.stories)
        made = [Story(f"I{writer}-{number}") for number in range(first, first + _BUSY)]
        self.stories += made
        return made

    async def pace(self) -> None:
        """Keep to the rate."""
        if self._rate:
            ahead_s = self.report.total / self._rate - (
                asyncio.get_running_loop().time() - self._began_s
            )
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)

    def _chooser(self, number: int) -> random.Random:
        return random.Random(f"{self._seed}:{number}")

    async def _break(self) -> None:
        loop = asyncio.get_running_loop()
        chooser = self._chooser(-1)
        faults = Faults(self.node, chooser)
        kinds = faults.kinds()
        for number in range(1, self._faults + 1):
            due = number * self._operations // (self._faults + 1)
            await self._until(partial(self._is_done, due))
            kind = next(kinds)
            if kind == "cut_sessions":
                # One worker without Redis and another without PostgreSQL is not covered (0012).
                await self._until(self._is_calm)
            if self.is_over:
                return
            self.report.faults[kind] += 1
            if kind in Faults.LOSSES:
                self.book.lose()
            await getattr(faults, kind)()
            if kind in Faults.LOSSES:
                self.book.regain(loop.time())

    def _is_done(self, operations: int) -> bool:
        return self.report.total >= operations

    def _is_calm(self) -> bool:
        return self.book.is_calm(asyncio.get_running_loop().time())

    async def _until(self, condition: Callable[[], bool]) -> None:
        while True:
            if condition():
                return
            await asyncio.sleep(_CALM_PAUSE_S)

    async def _agree(self) -> None:
        """When all is calm, every worker answers what the registry holds."""
        await self._until(self._is_calm)
        await asyncio.sleep(_DOUBT_S)
        asking = _Reader(self, self._chooser(-2))
        readers = [_Reader(self, self._chooser(-2)) for _ in range(4 * self.node.workers)]
        for story in self.stories[-_AGREEING_MAX:]:
            expected = await asking.settled("authoritative", story)
            for reader in readers:
                found = await reader.settled("json", story)
                if found != expected:
                    raise BrokenPromiseError(
                        f"{story.name}: the registry holds {expected}, a worker answers {found}"
                        " although all is calm"
                    )


class _Asker:
    """Sends, counts, and judges what came back."""

    def __init__(self, run: Run, chooser: random.Random) -> None:
        self.run = run
        self.random = chooser
        self.client = Client(run.node.port)
        self._loop = asyncio.get_running_loop()

    async def ask(self, kind: str, request: bytes) -> Answer | None:
        """The answer, or None if there was none, or none that says anything.

        Raises:
            BrokenPromiseError: if a promise of any answer is broken.
        """
        report = self.run.report
        report.operations[kind] += 1
        try:
            answer = await self.client.ask(request)
        except Lost as lost:
            report.unanswered[str(lost)] += 1
            if str(lost) == TimeoutError.__name__:
                raise BrokenPromiseError(f"no answer at all to {request[:200]!r}") from None
            await asyncio.sleep(0.01)
            return None
        report.outcomes[f"{kind} {answer.status}"] += 1
        if answer.status == 503:
            await asyncio.sleep(0.01)
            return None
        return answer

    def judge(self, story: Story, found: Found, sent_s: float, now_s: float) -> None:
        """Raises BrokenPromiseError if the answer may not be."""
        seen = self.client.seen
        number = self.run.book.judge(story, found, sent_s, now_s, seen.get(story.name, 0))
        seen[story.name] = max(seen.get(story.name, 0), number)

    async def read(self, kind: str, story: Story) -> Found | None:
        """One question over JSON or redirect."""
        sent_s = self._loop.time()
        answer = await self.ask(kind, _get(kind, story))
        if answer is None:
            return None
        found = _found(answer, story)
        self.judge(story, found, sent_s, answer.came_s)
        return found


class _Reader(_Asker):
    """Asks for what is written, for what was left alone, and for what does not exist yet."""

    async def work(self) -> None:
        while not self.run.is_over:
            if not self.run.stories:
                await asyncio.sleep(0.01)
                continue
            kind = self.random.choice(_KINDS)
            if kind == "batch":
                await self._read_many()
            else:
                await self.read(kind, self.run.story(self.random))
            if self.random.random() < _LEAVE_SHARE:
                self.client.leave()
            await self.run.pace()
        self.client.leave()

    async def settled(self, kind: str, story: Story) -> Found:
        """The answer, asked for until there is one."""
        while True:
            found = await self.read(kind, story)
            if found is not None and not found.is_stale:
                return found
            await asyncio.sleep(0.1)

    async def _read_many(self) -> None:
        number = self.random.randrange(2, _BATCH_MAX + 1)
        stories = [self.run.story(self.random) for _ in range(number)]
        names = [f"{PREFIX}/{story.name}" for story in stories]
        sent_s = self._loop.time()
        answer = await self.ask("batch", _post("/api/resolve", {"identifiers": names}))
        if answer is None:
            return
        for story, result in zip(stories, orjson.loads(answer.body)["results"], strict=True):
            found = _found_in_batch(result, story)
            if found is not None:
                self.judge(story, found, sent_s, answer.came_s)


class _Writer(_Asker):
    """Registers, changes and deletes identifiers that only it writes, one write at a time each."""

    def __init__(self, run: Run, number: int, chooser: random.Random) -> None:
        super().__init__(run, chooser)
        self._number = number
        self._mine: list[Story] = []
        self._doubts: list[tuple[float, Story]] = []

    async def work(self) -> None:
        self.run.ahead[self._number] = self.run.new_stories(self._number)
        turn_s = 0.0
        while not self.run.is_over:
            if self._loop.time() >= turn_s:
                turn_s = self._loop.time() + _BUSY_S
                self._turn()
            await self._resolve_doubts()
            story = self.random.choice(self.run.busy[self._number])
            if story.is_there is not None:
                await self._write(story)
            if self.random.random() < _LEAVE_SHARE:
                self.client.leave()
            await asyncio.sleep(self.random.random() * 0.01)
        self.client.leave()

    def _turn(self) -> None:
        """Leave the identifiers, and take new ones or some that were left long ago."""
        run, number = self.run, self._number
        is_full = len(run.stories) >= _STORIES_MAX
        if self._mine and (is_full or self.random.random() < 0.5):
            run.busy[number] = [self.random.choice(self._mine) for _ in range(_BUSY)]
        else:
            run.busy[number] = run.ahead[number]
            self._mine += run.ahead[number]
            run.ahead[number] = run.new_stories(number)

    async def _write(self, story: Story) -> None:
        deletes = bool(story.is_there) and self.random.random() < _DELETED_SHARE
        some = self.random.random()
        number = story.begin(deletes=deletes)
        kind = "delete" if deletes else "put" if some < 0.9 else "put many"
        sent_s = self._loop.time()
        answer = await self.ask(kind, _write(kind, story, number, self.run.key))
        if answer is None:
            self._doubts.append((self._loop.time() + _DOUBT_S, story))
            return
        if answer.status not in (200, 201) or b'"responseCode":1' not in answer.body:
            raise BrokenPromiseError(
                f"{story.name}: {kind} {number}, sent at {sent_s:.3f} s, was answered"
                f" {answer.status} {answer.body[:200]!r}; acknowledged before was"
                f" {story.acknowledged.newest}"
            )
        story.acknowledge(number, answer.came_s)
        self.client.seen[story.name] = number
        if some < 0.3:
            await self.read("json", story)

    async def _resolve_doubts(self) -> None:
        """Ask the registry itself what became of writes that nobody confirmed."""
        while self._doubts and self._doubts[0][0] <= self._loop.time():
            _, story = self._doubts[0]
            found = await self.read("authoritative", story)
            if found is None or found.is_stale:
                return
            story.settle(found.number)
            self._doubts.pop(0)


def _get(kind: str, story: Story) -> bytes:
    path = "/" if kind == "redirect" else "/api/handles/"
    query = "?auth=true" if kind == "authoritative" else ""
    return f"GET {path}{PREFIX}/{story.name}{query} HTTP/1.1\r\nHost: idnode\r\n\r\n".encode()


def _post(path: str, document: object, method: str = "POST", key: str = "") -> bytes:
    body = orjson.dumps(document)
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: idnode\r\n{authorization}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _write(kind: str, story: Story, number: int, key: str) -> bytes:
    path = f"/api/handles/{PREFIX}/{story.name}"
    if kind == "delete":
        head = f"DELETE {path} HTTP/1.1\r\nHost: idnode\r\nAuthorization: Bearer {key}\r\n\r\n"
        return head.encode()
    url = f"https://interleaving.example/{story.name}/{number}"
    values = [{"index": 1, "type": "URL", "data": {"format": "string", "value": url}}]
    if kind == "put":
        return _post(path, values, "PUT", key)
    items = [{"handle": f"{PREFIX}/{story.name}", "values": values}]
    return _post("/api/handles", {"items": items}, key=key)


def _found(answer: Answer, story: Story) -> Found:
    """What an answer over JSON or redirect says.

    Raises:
        BrokenPromiseError: if it says something that must never be said.
    """
    is_stale = b"\r\nwarning: 110 " in answer.head.lower()
    if answer.status in (200, 302):
        return Found(_number(answer.body, story), is_stale)
    is_page = b"\r\ncontent-type: text/html" in answer.head.lower()
    if answer.status == 404 and (is_page or _NOT_FOUND in answer.body):
        return Found(None)
    raise BrokenPromiseError(f"{story.name}: answered {answer.status} {answer.body[:200]!r}")


def _found_in_batch(result: dict[str, object], story: Story) -> Found | None:
    code = result["responseCode"]
    if code == ResponseCode.SUCCESS:
        return Found(_number(orjson.dumps(result), story), bool(result.get("stale")))
    if code == ResponseCode.HANDLE_NOT_FOUND:
        return Found(None)
    if code == ResponseCode.SERVER_TOO_BUSY:
        return None  # not known now
    raise BrokenPromiseError(f"{story.name}: answered {result} in a batch")


def _number(body: bytes, story: Story) -> int:
    value = _VALUE.search(body)
    if value is None or value[1].decode() != story.name:
        raise BrokenPromiseError(f"{story.name}: answered with something else: {body[:300]!r}")
    return int(value[2])


def _first(group: BaseExceptionGroup[BrokenPromiseError]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


async def interleave(
    folder: Path,
    operations: int,
    seed: int,
    *,
    workers: int = 2,
    bounds: Bounds | None = None,
    faults: int | None = None,
    rate: int = 0,
) -> Report:
    """Start a node in `folder`, interleave, and stop it.

    Raises:
        NodeError: if the node does not start.
    """
    node = Node(folder / "node", free_port(), workers)
    this = asyncio.current_task()
    assert this is not None
    # The node is stopped, also when somebody ends this.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    try:
        await node.start()
        number = operations // _OPERATIONS_PER_FAULT if faults is None else faults
        run = Run(node, operations, seed, bounds=bounds or Bounds(), faults=number, rate=rate)
        return await run.run()
    finally:
        node.stop()


def main(words: Sequence[str] | None = None) -> int:
    """Interleave and print; exit code 1 after a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--faults", type=int, help="default: one every 15,000 operations")
    parser.add_argument("--rate", type=int, default=0, help="operations a second at most")
    parser.add_argument("--visible-ms", type=float, default=1e3 * Bounds().visible_s)
    parser.add_argument("--lost-ms", type=float, default=1e3 * Bounds().lost_s)
    options = parser.parse_args(words)
    folder = Path(tempfile.mkdtemp(prefix="idnode-interleaving-"))
    folder.chmod(0o711)
    try:
        report = uvloop.run(
            interleave(
                folder,
                options.operations,
                options.seed,
                workers=options.workers,
                bounds=Bounds(options.visible_ms / 1e3, options.lost_ms / 1e3),
                faults=options.faults,
                rate=options.rate,
            )
        )
    except NodeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"{json.dumps(vars(report) | {'total': report.total})}\n")
    if report.violations:
        sys.stderr.write(f"violation: {report.violation}\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
