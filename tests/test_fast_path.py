"""The fast path gives the answers of the slow path, byte for byte, and counts them alike."""

from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from registry import api_keys, enterprises, prefixes
from registry.database import Database
from resolver.identifier import PREFIX_HANDLE_PREFIX
from tests.answering import (
    AUTHOR,
    OTHER,
    PREFIX,
    PROXY,
    SELF_RUN,
    SUSPENDED,
    Answering,
    get,
    head_of,
    json_of,
    text,
)
from tests.generated_requests import CODINGS, RECORDS, Callers, Generator, encoded
from tests.tenant import application_key, credit_code

SEED = 20_261_124
# Enough that every oddity meets every other at least once or twice.
NUMBER = 3_000


async def keys_of(database: Database) -> Callers:
    """An API key of every kind of caller."""

    async def key(role: str, owner: str | None) -> str:
        return (await api_keys.create(database, role, owner, author=AUTHOR))[0]

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
        return await key(api_keys.ENTERPRISE, credit_code(number))

    revoked, revoked_id, _ = await application_key(database, "revoked")
    await api_keys.revoke(database, revoked_id, author=AUTHOR)
    return Callers(
        {
            "application": (await application_key(database, "reader"))[0],
            "sandbox": (await application_key(database, "trial", sandbox=True))[0],
            "owner": await enterprise(5300, PREFIX),
            "other": await enterprise(5309, OTHER),
            "operator": await key(api_keys.OPERATOR, None),
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
        # Requests that were answered out of what was prepared, and that were looked for below the
        # framework.
        self.fast: list[bytes] = []
        self.fetched: list[bytes] = []

    async def compare(self, request: bytes, peer: str = PROXY) -> bytes:
        """The answer, the same on both paths, whether it was prepared before or not."""
        first = await self._sent(request, peer, is_split=False)
        slow = await self._sent(request, peer, is_split=True)
        assert first == slow, request
        for _ in range(2):
            assert await self._sent(request, peer, is_split=False) == slow, request
        return slow[0][0]

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
        if answer and connection.protocol.cycle is None and not connection.early_answers:
            self.fetched.append(request)
        return (answer, connection.is_open), (after[0] - before[0], after[1] - before[1])


@pytest.fixture
def differential(answering: Answering) -> Differential:
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
    assert len(differential.fetched) > NUMBER / 20


async def test_every_record_is_answered_alike_to_every_caller(
    answering: Answering, differential: Differential, database: Database
) -> None:
    identifiers, callers = await register(answering), await keys_of(database)
    lines = ["Accept: */*", *CODINGS, *(f"X-API-Key: {key}" for key in callers.keys.values())]
    for identifier in identifiers:
        for line in lines:
            await differential.compare(json_of(encoded(identifier), line))
            await differential.compare(get(f"/{encoded(identifier)}", line))
    # Twice each, but for those who may read more, what is compressed, and what is no plain
    # answer.
    assert len(differential.fast) > len(identifiers) * len(lines)


async def test_requests_in_one_segment_are_answered_in_their_order(
    answering: Answering, differential: Differential
) -> None:
    first = json_of(await answering.put("A", text(1, "DESC", "a")))
    second = get("/" + await answering.put("B", text(1, "URL", "http://b.example/")))
    third = json_of(f"{PREFIX}/NOPE")
    answers = [await differential.compare(request) for request in (first, second, third)]
    assert [head_of(answer)[0] for answer in answers] == [200, 302, 404]
    whole = first + second + third
    for cuts in (
        (),
        (len(first) + 9,),
        (len(first) + len(second),),
        (9, len(first) + 9),
        (1, 2, 3),
    ):
        connection = answering.connect()
        bounds = [0, *cuts, len(whole)]
        segments = [whole[start:end] for start, end in pairwise(bounds)]
        assert await connection.ask(*segments) == b"".join(answers), cuts
        # Nothing of them is left over.
        assert await connection.ask(first) == answers[0]
        assert connection.is_open


async def test_every_cut_of_a_request_gives_the_same_answer(answering: Answering) -> None:
    request = json_of(await answering.put("A", text(1, "DESC", "a")), "Accept: */*")
    connection = await answering.prepare(request)
    answer = await connection.ask(request)
    for cut in range(1, len(request)):
        assert await connection.ask(request[:cut], request[cut:]) == answer, cut
    early = connection.early_answers
    assert await connection.ask(request) == answer
    assert connection.early_answers == early + 1


async def test_what_comes_while_an_answer_is_looked_for_waits_for_its_turn(
    answering: Answering,
) -> None:
    known = json_of(await answering.put("A", text(1, "DESC", "a")))
    connection = await answering.prepare(known)
    # Nothing has to be looked for to answer this.
    ready = get("/robots.txt")
    answers = [await connection.ask(request) for request in (known, ready)]
    for segments in ((known, ready), (known, ready[:9], ready[9:]), (known + ready,)):
        answering.hot.connect()
        answering.held.hold()
        early = connection.early_answers
        connection.send(*segments)
        await answering.until_asked()
        await answering.turn()
        assert not connection.transport.written
        answering.held.let_go()
        assert await connection.answered() == b"".join(answers)
        assert connection.early_answers == early
