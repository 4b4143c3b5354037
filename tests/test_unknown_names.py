"""Names that do not exist: asked for in a flood, they cost the stores no more than is allowed."""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from registry.records_memory import MemoryRecords
from resolver.errors import RegistryUnavailableError
from resolver.hot import Hot
from resolver.identifier import Identifier
from resolver.record import Record
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode
from resolver.shared_memory import MemoryCache
from resolver.unknown_budget import ANONYMOUS, KNOWN, PENDING_MAX, UnknownBudget
from tests.conftest import RunningNode
from tests.resolving_worker import AUTHOR, PREFIX, HeldRecords, directory, eventually, name, values
from tests.tenant import Tenant, tenant, text_value

NOW_S = 1_800_000_000.0
RATE = 5


def absent(budget: UnknownBudget, number: int, now_s: float, asker: str = ANONYMOUS) -> int:
    """Look-ups of names that do not exist, one after the other: how many were made."""
    made = 0
    for _ in range(number):
        if budget.admits(asker, now_s):
            made += 1
            budget.settle(asker, is_absent=True)
    return made


def test_a_second_s_worth_may_be_spent_at_once_and_the_rate_in_the_long_run() -> None:
    budget = UnknownBudget(RATE)

    assert absent(budget, 100, NOW_S) == RATE
    assert absent(budget, 100, NOW_S + 1) == RATE
    assert absent(budget, 100, NOW_S + 60) == RATE


def test_names_that_exist_cost_nothing() -> None:
    budget = UnknownBudget(RATE)
    for _ in range(100):
        assert budget.admits(ANONYMOUS, NOW_S)
        budget.settle(ANONYMOUS, is_absent=False)

    assert absent(budget, 100, NOW_S) == RATE


def test_what_was_asked_for_at_once_is_paid_back_before_more_is_asked() -> None:
    budget = UnknownBudget(RATE)
    assert all(budget.admits(ANONYMOUS, NOW_S) for _ in range(4 * RATE))
    for _ in range(4 * RATE):
        budget.settle(ANONYMOUS, is_absent=True)

    assert absent(budget, 1, NOW_S + 2.9) == 0
    assert absent(budget, 100, NOW_S + 4) == RATE


def test_look_ups_under_way_are_bounded() -> None:
    budget = UnknownBudget(RATE)
    assert all(budget.admits(ANONYMOUS, NOW_S) for _ in range(PENDING_MAX))

    assert not budget.admits(ANONYMOUS, NOW_S)
    assert budget.admits(KNOWN, NOW_S)
    budget.settle(ANONYMOUS, is_absent=False)
    assert budget.admits(ANONYMOUS, NOW_S)


def test_callers_with_a_key_have_an_account_of_their_own() -> None:
    budget = UnknownBudget(RATE)
    absent(budget, 100, NOW_S)

    assert absent(budget, 100, NOW_S, KNOWN) == RATE


def test_no_rate_is_no_limit_and_refusals_are_told() -> None:
    told: list[None] = []
    limited = UnknownBudget(RATE, lambda: told.append(None))

    assert absent(limited, 8, NOW_S) == RATE
    assert len(told) == 3
    assert absent(UnknownBudget(), 1_000, NOW_S) == 1_000


class Kit:
    """A resolver with a small budget on the twins in memory."""

    def __init__(self, rate: int = RATE) -> None:
        self.truth = MemoryRecords({PREFIX})
        self.held = HeldRecords(self.truth)
        self.cache = MemoryCache()
        self.hot = Hot()
        self.hot.connect()
        budget = UnknownBudget(rate)
        self.resolver = Resolver(self.held, self.cache, directory(), self.hot, budget)

    async def resolve(
        self, *identifiers: Identifier, now_s: float = NOW_S, asker: str = ANONYMOUS
    ) -> list[Resolution]:
        self.hot.heard(now_s)
        found = await self.resolver.resolve_many(identifiers, now_s, asker=asker)
        await asyncio.sleep(0)
        return found

    async def write(self, identifier: Identifier) -> None:
        await self.truth.put(identifier, values("there"), AUTHOR, NOW_S)

    async def flood(self, now_s: float = NOW_S) -> None:
        """Spend all that may be spent without a key."""
        for number in range(RATE):
            (resolution,) = await self.resolve(name(f"RANDOM-{now_s}-{number}"), now_s=now_s)
            assert resolution.code == ResponseCode.HANDLE_NOT_FOUND


async def test_without_budget_no_store_is_asked_and_nothing_is_said_of_the_name() -> None:
    kit = Kit()
    await kit.flood()
    asked, shelves = len(kit.held.asked), kit.resolver.lookups.counts["l2", "miss"]

    (resolution,) = await kit.resolve(name("RANDOM"))

    assert resolution.code == ResponseCode.SERVER_TOO_BUSY
    assert resolution.is_refused
    assert resolution.message is not None
    assert len(kit.held.asked) == asked
    assert kit.resolver.lookups.counts["l2", "miss"] == shelves
    (later,) = await kit.resolve(name("RANDOM"), now_s=NOW_S + 1)
    assert later.code == ResponseCode.HANDLE_NOT_FOUND


async def test_a_name_that_the_process_knows_is_answered_in_a_flood() -> None:
    kit = Kit()
    await kit.write(name("A"))
    await kit.resolve(name("A"))
    await kit.flood()

    # Past its time, it is looked up again, without budget: it is no random name.
    for now_s in (NOW_S, NOW_S + 3_600):
        if now_s > NOW_S:
            await kit.flood(now_s)
        (resolution,) = await kit.resolve(name("A"), now_s=now_s)
        assert resolution.code == ResponseCode.SUCCESS
    assert kit.held.asked.count([name("A").key]) >= 1


async def test_an_absence_that_is_remembered_costs_nothing() -> None:
    kit = Kit()
    for _ in range(10 * RATE):
        (resolution,) = await kit.resolve(name("NEVER"))
        assert resolution.code == ResponseCode.HANDLE_NOT_FOUND


async def test_callers_with_a_key_are_not_held_up_by_a_flood_without() -> None:
    kit = Kit()
    await kit.write(name("A"))
    await kit.flood()

    (anonymous,) = await kit.resolve(name("A"))
    (known,) = await kit.resolve(name("A"), asker=KNOWN)

    assert anonymous.is_refused
    assert known.code == ResponseCode.SUCCESS


async def test_each_identifier_of_a_batch_counts() -> None:
    kit = Kit()
    await kit.write(name("A"))

    first = await kit.resolve(name("A"), *(name(f"X{number}") for number in range(3 * RATE)))
    again = await kit.resolve(name("A"), name("Y"), now_s=NOW_S + 1.5)

    assert [one.code for one in first[1:]] == [ResponseCode.HANDLE_NOT_FOUND] * 3 * RATE
    assert first[0].code == again[0].code == ResponseCode.SUCCESS
    assert again[1].is_refused


async def test_what_could_not_be_known_costs_nothing() -> None:
    kit = Kit()
    kit.resolver = Resolver(Away(), kit.cache, directory(), kit.hot, UnknownBudget(RATE))
    for number in range(10 * RATE):
        (resolution,) = await kit.resolve(name(f"X{number}"))
        assert resolution.code == ResponseCode.SERVER_TOO_BUSY
        assert not resolution.is_refused


class Away:
    """A registry that is away."""

    is_up = False

    async def fetch(self, key: str) -> Record | None:
        raise RegistryUnavailableError("away")

    async def fetch_many(self, keys: object) -> dict[str, Record]:
        raise RegistryUnavailableError("away")


async def test_a_question_that_joins_another_costs_nothing() -> None:
    kit = Kit(rate=1)
    kit.held.hold()
    tasks = [asyncio.create_task(kit.resolve(name("SAME"))) for _ in range(10)]
    await eventually(lambda: bool(kit.held.asked))
    kit.held.let_go()

    for (resolution,) in await asyncio.gather(*tasks):
        assert resolution.code == ResponseCode.HANDLE_NOT_FOUND
    assert len(kit.held.asked) == 1


# -- a real node

FLOOD_RATE = 50
FLOODERS = 12
PRODUCTS = 60
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def sample(node: RunningNode, metric: str, **labels: str) -> int:
    """The value of one line of the metrics page."""
    wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    page = httpx.get(f"{node.url}/metrics", timeout=30).text
    found = {(one[1], one[2] or ""): one[3] for one in _SAMPLE.finditer(page)}
    return int(float(found[metric, wanted]))


@dataclass
class Flood:
    """Random names from many sources, as fast as they are answered, until stopped."""

    node: RunningNode
    statuses: Counter[int] = field(default_factory=Counter)
    is_over: bool = False

    async def run(self, number: int) -> None:
        headers = {"X-Forwarded-For": f"198.51.100.{number}"}
        async with httpx.AsyncClient(base_url=self.node.url, headers=headers, timeout=60) as client:
            while not self.is_over:
                asked = f"/api/handles/88.608.5290/R-{number}-{time.time_ns()}"
                self.statuses[(await client.get(asked)).status_code] += 1


@pytest.fixture
def factory(own_node: RunningNode) -> Tenant:
    own_node.environment = {
        "IDNODE_UNKNOWN_RATE": str(FLOOD_RATE),
        "IDNODE_TRUSTED_PROXIES": "127.0.0.1",
    }
    own_node.start()
    made = tenant(own_node, "88.608.5290", 5290)
    items = [
        {"handle": f"88.608.5290/P{number}", "values": [text_value(1, "NAME", f"产品 {number}")]}
        for number in range(2 * PRODUCTS)
    ]
    with made.operator as operator:
        assert operator.post("/api/handles", json={"items": items}).status_code == 200
    return made


@contextlib.asynccontextmanager
async def flooding(node: RunningNode) -> AsyncIterator[Flood]:
    flood = Flood(node)
    tasks = [asyncio.create_task(flood.run(number)) for number in range(FLOODERS)]
    try:
        yield flood
    finally:
        flood.is_over = True
        await asyncio.gather(*tasks)


async def read_products(factory: Tenant, numbers: range) -> None:
    """A factory reads; every answer must be right."""
    key, _ = await asyncio.to_thread(factory.enterprise_key)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=factory.node.url, headers=headers, timeout=60) as client:
        for number in numbers:
            answer = await client.get(f"/api/handles/88.608.5290/P{number}")
            assert answer.status_code == 200, answer.text
            assert answer.json()["values"][0]["data"]["value"] == f"产品 {number}"


async def test_a_flood_of_random_names_neither_reaches_the_registry_nor_holds_up_a_factory(
    factory: Tenant,
) -> None:
    node = factory.node
    await read_products(factory, range(PRODUCTS))
    before = sample(node, "idnode_cache_lookups_total", tier="registry", result="miss")
    began_s = time.monotonic()
    async with flooding(node) as flood:
        await eventually(lambda: flood.statuses[429] >= 300)
        # Cached ones, and ones that nobody asked for before.
        await read_products(factory, range(2 * PRODUCTS))
    took_s = time.monotonic() - began_s
    asked = sample(node, "idnode_cache_lookups_total", tier="registry", result="miss") - before
    # The second before, the seconds of the flood, and what was under way at once.
    assert asked <= FLOOD_RATE * (took_s + 2) + FLOODERS
    assert set(flood.statuses) == {404, 429}
    assert flood.statuses[429] == sample(node, "idnode_refused_total", reason="unknown_names")
    # What the factory uses was not driven out of the process.
    known = sample(node, "idnode_cache_lookups_total", tier="registry", result="hit")
    await read_products(factory, range(2 * PRODUCTS))
    assert sample(node, "idnode_cache_lookups_total", tier="registry", result="hit") == known


async def test_a_refused_question_is_told_so_in_the_form_of_its_door(factory: Tenant) -> None:
    with factory.client() as client:
        # Twenty seconds' worth.
        wanted = [f"88.608.5290/N{number}" for number in range(20 * FLOOD_RATE)]
        client.post("/api/resolve", json={"identifiers": wanted})

        json_answer = client.get("/api/handles/88.608.5290/NOBODY-1")
        page = client.get("/88.608.5290/NOBODY-2", headers={"Accept-Language": "zh"})
        batch = client.post("/api/resolve", json={"identifiers": ["88.608.5290/NOBODY-3"]})

    assert (json_answer.status_code, json_answer.json()["responseCode"]) == (429, 3)
    assert json_answer.headers["retry-after"] == "1"
    assert (page.status_code, page.headers["retry-after"]) == (429, "1")
    assert "请求过于频繁" in page.text
    (result,) = batch.json()["results"]
    assert result["responseCode"] == 3
