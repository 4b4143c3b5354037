"""Records that change under load, and whether the node answers what was acknowledged."""

import asyncio
import json
import math
import random
import re
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from loadtest.bench_book import product_url
from loadtest.plain_client import Lost, PlainClient, Sums, get, put

# A write and the reads behind it, beside the wait for the write to be seen everywhere (s).
_ONE_CHANGE_S = 0.2
# A run in which everything goes wrong is told by its first answers.
_TEXTS_MAX = 10
_Result = TypeVar("_Result")
_NAME = re.compile(r"Gear \d{10}(?: revision (\d+))?")


def name_of(number: int, revision: int) -> str:
    """The name of a product; revision 0 is as it was registered."""
    return f"Gear {number:010d}" + (f" revision {revision}" if revision else "")


def lanes_for(writes_per_s: float, visible_s: float) -> int:
    """How many changes have to be under way at once for this many a second."""
    return math.ceil(writes_per_s * (visible_s + _ONE_CHANGE_S))


def revision_in(identifier: str, number: int, status: int, body: bytes) -> int:
    """The revision that an answer shows, every other value being right.

    Raises:
        ValueError: says what was answered instead.
    """
    document = json.loads(body) if status == 200 else {}
    shown = [value["data"]["value"] for value in document.get("values", [])]
    found = _NAME.fullmatch(str(shown[0])) if shown else None
    revision = int(found[1] or 0) if found else 0
    right = [name_of(number, revision), product_url(number)]
    if document.get("handle") != identifier or shown != right:
        raise ValueError(f"HTTP {status} {body[:200]!r}")
    return revision


class Revisions:
    """Of each product: the oldest revision that may be answered, and the newest."""

    def __init__(self, count: int) -> None:
        self._oldest = [0] * count
        self._newest = [0] * count

    def oldest(self, number: int) -> int:
        """What a question that is sent now may be answered with, or anything newer."""
        return self._oldest[number]

    def begin(self, number: int) -> int:
        """The revision of a write that is sent now: from now on it may be answered."""
        self._newest[number] += 1
        return self._newest[number]

    def bind(self, number: int, revision: int) -> None:
        """From now on this revision, or a newer one, must be answered."""
        self._oldest[number] = max(self._oldest[number], revision)

    def problem(self, number: int, revision: int, oldest: int) -> str | None:
        """What is wrong with an answer to a question that was sent when `oldest` was bound."""
        if oldest <= revision <= self._newest[number]:
            return None
        return f"revision {revision}, expected {oldest} to {self._newest[number]}"


@dataclass
class Outcome:
    """What came of the writes and reads; errors by kind, the first of them in words."""

    writes: int = 0
    reads: Sums = field(default_factory=Sums)
    errors: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)

    def fail(self, kind: str, text: str) -> None:
        """Note one thing that must not be."""
        self.errors[kind] += 1
        if len(self.texts) < _TEXTS_MAX:
            self.texts.append(text)


@dataclass(frozen=True, slots=True)
class Target:
    """Who is written to, and who is asked: host and port; the products, and a key for writing."""

    write_to: tuple[tuple[str, int], ...]
    read_from: tuple[str, int]
    prefix: str
    count: int
    key: str = field(repr=False)

    def identifier(self, number: int) -> str:
        return f"{self.prefix}/{number:010d}"

    def path(self, number: int) -> str:
        return f"/api/handles/{self.identifier(number)}"


class Writer:
    """Changes records at a rate, in lanes that each have products of their own.

    After each acknowledgement three questions: at once (nothing may go back), `visible_s` later
    (the new value must be there), and one for any other product. The lanes take turns with the
    nodes of `target.write_to`, all of one cluster; the one that is asked has one worker, so that
    what was seen once is never taken back.
    """

    def __init__(self, target: Target, writes_per_s: float, visible_s: float) -> None:
        self._target = target
        self._visible_s = visible_s
        self._count = lanes_for(writes_per_s, visible_s)
        self._period_s = self._count / writes_per_s
        self._revisions = Revisions(target.count)
        self._random = random.Random(target.count)

    async def work(self, load: Awaitable[_Result]) -> tuple[_Result, Outcome]:
        """Write and check while `load` lasts; what is under way is brought to its end."""
        outcome, over = Outcome(), asyncio.Event()
        lanes = [_Lane(self._target, lane) for lane in range(self._count)]
        work = asyncio.gather(*(self._work(lane, outcome, over) for lane in lanes))
        try:
            loaded = await load
        finally:
            over.set()
            await work
            for lane in lanes:
                await lane.close()
        return loaded, outcome

    async def _work(self, lane: "_Lane", outcome: Outcome, over: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._period_s * lane.number / self._count
        while not await _comes_before(over, due_s):
            await self._change(lane, outcome)
            # A lane that is late goes on from now: it does not catch up in a burst.
            due_s = max(due_s + self._period_s, loop.time())

    async def _change(self, lane: "_Lane", outcome: Outcome) -> None:
        number = self._random.randrange(lane.number, self._target.count, self._count)
        revision = self._revisions.begin(number)
        try:
            status, _, body = await lane.writer.ask(self._request(number, revision))
        except Lost as error:
            outcome.fail("write lost", f"write to {self._target.identifier(number)}: {error}")
            return
        if status not in (200, 201):
            said = f"HTTP {status} {body[:200]!r}"
            outcome.fail("write refused", f"write to {self._target.identifier(number)}: {said}")
            return
        outcome.writes += 1
        await self._check(lane, outcome, number, revision)

    async def _check(self, lane: "_Lane", outcome: Outcome, number: int, revision: int) -> None:
        visible_at_s = asyncio.get_running_loop().time() + self._visible_s
        await self._read(lane, outcome, number)
        await self._read(lane, outcome, self._random.randrange(self._target.count))
        await asyncio.sleep(visible_at_s - asyncio.get_running_loop().time())
        self._revisions.bind(number, revision)
        await self._read(lane, outcome, number)

    async def _read(self, lane: "_Lane", outcome: Outcome, number: int) -> None:
        identifier = self._target.identifier(number)
        oldest = self._revisions.oldest(number)
        try:
            request = get(self._target.path(number))
            status, _, body = await lane.reader.ask(request, outcome.reads)
            revision = revision_in(identifier, number, status, body)
        except Lost as error:
            outcome.fail("read lost", f"{identifier}: {error}")
            return
        except ValueError as error:
            outcome.fail("wrong answer", f"{identifier}: {error}")
            return
        problem = self._revisions.problem(number, revision, oldest)
        if problem is not None:
            outcome.fail("stale answer", f"{identifier}: {problem}")
        self._revisions.bind(number, revision)

    def _request(self, number: int, revision: int) -> bytes:
        values = [
            {"index": 1, "type": "NAME", "data": name_of(number, revision)},
            {"index": 2, "type": "URL", "data": product_url(number)},
        ]
        return put(self._target.path(number), self._target.key, json.dumps(values).encode())


class _Lane:
    """One change at a time, over connections of its own."""

    def __init__(self, target: Target, number: int) -> None:
        self.number = number
        self.writer = PlainClient(*target.write_to[number % len(target.write_to)])
        self.reader = PlainClient(*target.read_from)

    async def close(self) -> None:
        await self.writer.close()
        await self.reader.close()


async def _comes_before(over: asyncio.Event, due_s: float) -> bool:
    """Wait until `due_s` of the loop's clock; True at once when it is over before that."""
    try:
        async with asyncio.timeout_at(due_s):
            await over.wait()
    except TimeoutError:
        return over.is_set()
    return True
