"""The fast path gives the answers of the slow path, byte for byte, and counts them alike."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from registry import api_keys, applications, enterprises, prefixes
from registry.database import Database
from resolver.identifier import PREFIX_HANDLE_PREFIX
from tests.answering import (
    AUTHOR,
    PREFIX,
    PROXY,
    SELF_RUN,
    SUSPENDED,
    Answering,
    head_of,
)
from tests.generated_requests import RECORDS, Callers, Generator
from tests.tenant import credit_code

SEED = 20_261_124
# Enough that every oddity meets every other at least once or twice.
NUMBER = 4_000


async def keys_of(database: Database) -> Callers:
    """An API key of every kind of caller."""

    async def key(role: str, owner: str | None) -> tuple[str, str]:
        made, entry = await api_keys.create(database, role, owner, author=AUTHOR)
        return made, entry.id

    async def enterprise(number: int, prefix: str) -> str:
        await enterprises.add(
            database,
            name=f"工厂 {number}",
            credit_code=credit_code(number),
            division="450200",
            author=AUTHOR,
        )
        await prefixes.allot(
            database,
            prefix=prefix,
            credit_code=credit_code(number),
            mode=prefixes.HOSTED,
            node_prefix=None,
            author=AUTHOR,
        )
        return (await key(api_keys.ENTERPRISE, credit_code(number)))[0]

    async def application(name: str, *, sandbox: bool = False) -> tuple[str, str]:
        added, _ = await applications.add(
            database,
            name=name,
            kind="traceability",
            type_="other",
            owner="柳州样品厂",
            division="450200",
            country=None,
            contract_sha256=None,
            sandbox=sandbox,
            author=AUTHOR,
        )
        return await key(api_keys.APPLICATION, added.id)

    revoked, revoked_id = await application("revoked")
    await api_keys.revoke(database, revoked_id, author=AUTHOR)
    return Callers(
        {
            "application": (await application("reader"))[0],
            "sandbox": (await application("trial", sandbox=True))[0],
            "owner": await enterprise(5300, PREFIX),
            "other": await enterprise(5309, "88.608.5309"),
            "operator": (await key(api_keys.OPERATOR, None))[0],
            "unknown": api_keys.new_key_text(),
            "revoked": revoked,
        }
    )


@pytest.fixture
async def answering(tmp_path: Path, database: Database) -> AsyncIterator[Answering]:
    made = Answering(tmp_path, database=database)
    yield made
    made.close()


async def register(answering: Answering) -> list[str]:
    """The records of these tests; the identifiers of those that are there, and of those not."""
    there = [await answering.put(suffix, *values) for suffix, values in RECORDS.items()]
    item = RECORDS["ITEM1"]
    others = [
        await answering.put("ITEM1", *item, prefix=SUSPENDED),
        await answering.put("ITEM1", *item, prefix=SELF_RUN),
        await answering.put(PREFIX, *item, prefix=PREFIX_HANDLE_PREFIX),
    ]
    return [*there, *others, f"{PREFIX}/NOPE", PREFIX, f"{PREFIX}/", "88.999.1/ITEM1", "10.1000/1"]


class Differential:
    """Sends every request through both paths, and compares what comes and what is counted."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.fast: list[bytes] = []

    async def compare(self, request: bytes, peer: str = PROXY) -> bytes:
        """The answer, the same on both paths."""
        slow, slow_counts = await self._sent(request, peer, is_split=True)
        for _ in range(3):
            whole, counts = await self._sent(request, peer, is_split=False)
            assert whole == slow, request
            assert counts == slow_counts, request
        return slow[0]

    async def _sent(
        self, request: bytes, peer: str, *, is_split: bool
    ) -> tuple[tuple[bytes, bool], tuple[object, object]]:
        answering = self._answering
        connection = answering.connect(peer)
        before = Counter(answering.counts), Counter(answering.sources)
        answer = await (connection.ask_slowly(request) if is_split else connection.ask(request))
        after = Counter(answering.counts), Counter(answering.sources)
        assert not (is_split and connection.early_answers)
        self.fast += [request] * connection.early_answers
        return (answer, connection.is_open), (after[0] - before[0], after[1] - before[1])


@pytest.fixture
def differential(answering: Answering) -> Iterator[Differential]:
    return Differential(answering)


async def test_generated_requests_are_answered_alike_on_both_paths(
    answering: Answering, differential: Differential, database: Database
) -> None:
    identifiers, callers = await register(answering), await keys_of(database)
    generator = Generator(SEED, identifiers, callers)
    statuses: Counter[int] = Counter()
    for _ in range(NUMBER):
        answer = await differential.compare(generator.any())
        statuses[head_of(answer)[0] if answer else 0] += 1
    assert {0, 200, 301, 302, 400, 403, 404, 405, 431} <= statuses.keys()
    assert len(differential.fast) > NUMBER / 4
