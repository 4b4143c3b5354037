"""Counting on the fast path: every answer once, in its place, from its source."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import pytest

from metrics.day import day_number
from metrics.journal import CountMeaning, SourceMeaning
from registry import api_keys
from registry.database import Database
from tests.answering import (
    AUTHOR,
    NOON_S,
    OTHER,
    PEER,
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
from tests.tenant import application_key

DAY = day_number(NOON_S)
NUMBER = 50
ITEM, OTHER_ITEM = f"{PREFIX}/A", f"{OTHER}/A"


@pytest.fixture
async def answering(tmp_path: Path, database: Database) -> AsyncIterator[Answering]:
    made = Answering(tmp_path, database=database)
    for prefix in (PREFIX, OTHER):
        await made.put("A", text(1, "URL", "http://a.example/"), prefix=prefix)
        await made.put("B", text(1, "DESC", "b"), prefix=prefix)
    yield made
    made.close()


def found(
    prefix: str, caller_class: str = "anonymous", caller: str = "", channel: str = "http_json"
) -> CountMeaning:
    """What a fast answer counts as."""
    return CountMeaning(DAY, "enterprise", prefix, caller_class, caller, channel, "found")


class Grown:
    """What was counted while a test asked."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._before = Counter(answering.counts), Counter(answering.sources)
        self._hits = answering.l1_hits

    def check(self, counts: dict[CountMeaning, int], sources: dict[tuple[str, str], int]) -> None:
        answering = self._answering
        assert Counter(answering.counts) - self._before[0] == counts
        places = {SourceMeaning(DAY, *place): number for place, number in sources.items()}
        assert Counter(answering.sources) - self._before[1] == places
        assert answering.l1_hits - self._hits == sum(counts.values())


async def test_each_answer_counts_once_for_its_prefix_door_and_source(
    answering: Answering,
) -> None:
    asked = [json_of(ITEM), get(f"/{ITEM}"), json_of(OTHER_ITEM), get(f"/{OTHER_ITEM}")]
    connection = await answering.prepare(*asked)
    grown, early = Grown(answering), connection.early_answers
    for number in range(NUMBER):
        for request in asked[: 1 + number % 4]:
            assert head_of(await connection.ask(request))[0] in (200, 302)
    numbers = [sum(number % 4 >= place for number in range(NUMBER)) for place in range(4)]
    assert connection.early_answers == early + sum(numbers)
    kinds = [found(prefix, channel=channel) for prefix in (PREFIX, OTHER) for channel in
             ("http_json", "redirect")]  # fmt: skip
    grown.check(
        dict(zip(kinds, numbers, strict=True)),
        {(PREFIX, PEER): sum(numbers[:2]), (OTHER, PEER): sum(numbers[2:])},
    )


async def test_callers_that_take_turns_on_one_connection_are_told_apart(
    answering: Answering, database: Database
) -> None:
    key, _, application_id = await application_key(database, "reader")
    trial, *_ = await application_key(database, "trial", sandbox=True)
    operator, _ = await api_keys.create(database, api_keys.OPERATOR, None, author=AUTHOR)
    lines = [(), (f"X-API-Key: {key}",), (f"Authorization: Bearer {trial}",)]
    asked = [json_of(ITEM, *line) for line in lines] + [get(f"/{ITEM}", *line) for line in lines]
    connection = await answering.prepare(*asked)
    # The operator may read everything, so the slow path answers; it counts as before.
    slow = json_of(ITEM, f"X-API-Key: {operator}")
    await connection.ask(slow)
    grown, early = Grown(answering), connection.early_answers
    for _ in range(NUMBER):
        for request in (*asked, slow):
            await connection.ask(request)
    assert connection.early_answers == early + 6 * NUMBER
    callers = [("anonymous", ""), ("application", application_id), ("sandbox", "")]
    kinds = [
        found(PREFIX, *caller, channel=channel)
        for caller in callers
        for channel in ("http_json", "redirect")
    ]
    grown.check(
        dict.fromkeys(kinds, NUMBER) | {found(PREFIX, "operator"): NUMBER},
        {(PREFIX, PEER): 7 * NUMBER},
    )


async def test_sources_behind_a_trusted_proxy_are_told_apart_on_one_connection(
    answering: Answering,
) -> None:
    sources = ["198.51.100.1", "198.51.100.2", "2001:db8::1"]
    asked = [json_of(ITEM, f"X-Forwarded-For: {source}") for source in sources]
    asked.append(get(f"/{ITEM}", f"X-Forwarded-For: {sources[0]}, {PROXY}"))
    connection = await answering.prepare(*asked, peer=PROXY)
    grown = Grown(answering)
    for request in asked * NUMBER:
        await connection.ask(request)
    grown.check(
        {found(PREFIX): 3 * NUMBER, found(PREFIX, channel="redirect"): NUMBER},
        {
            (PREFIX, sources[0]): 2 * NUMBER,
            (PREFIX, sources[1]): NUMBER,
            (PREFIX, sources[2]): NUMBER,
        },
    )


async def test_who_is_no_proxy_cannot_choose_its_source(answering: Answering) -> None:
    request = json_of(ITEM, "X-Forwarded-For: 198.51.100.1")
    connection = await answering.prepare(request)
    grown = Grown(answering)
    assert head_of(await connection.ask(request))[0] == 200
    grown.check({found(PREFIX): 1}, {(PREFIX, PEER): 1})


async def test_equal_headers_from_two_sources_count_for_each(answering: Answering) -> None:
    request = json_of(ITEM)
    connections = [await answering.prepare(request, peer=f"192.0.2.{n}") for n in (1, 2)]
    grown = Grown(answering)
    for _ in range(NUMBER):
        for connection in connections:
            await connection.ask(request)
    grown.check(
        {found(PREFIX): 2 * NUMBER},
        {(PREFIX, f"192.0.2.{n}"): NUMBER for n in (1, 2)},
    )


# Batches


def batch(names: Sequence[str], *lines: str) -> bytes:
    """A question after many identifiers."""
    body = orjson.dumps({"identifiers": names})
    head = "".join(f"{line}\r\n" for line in ("Host: node", *lines, f"Content-Length: {len(body)}"))
    return f"POST /api/resolve HTTP/1.1\r\n{head}\r\n".encode() + body


MIXED = (
    ITEM,
    ITEM,
    ITEM.lower(),
    OTHER_ITEM,
    f"{PREFIX}/B",
    f"{PREFIX}/b",
    f"{PREFIX}/NOPE",
    f"{PREFIX}/NOPE",
    PREFIX,
    f"{SUSPENDED}/A",
    f"{SELF_RUN}/A",
    "10.1000/1",
    "",
    "x" * 300,
    "\x00",
    '"values":[',
)


async def test_a_batch_says_the_same_whatever_is_prepared(
    answering: Answering, database: Database
) -> None:
    key, _, application_id = await application_key(database, "reader")
    connection, request = answering.connect(), batch(MIXED, f"X-API-Key: {key}")
    unprepared = await connection.ask(request)
    assert head_of(unprepared)[0] == 200
    await answering.prepare(json_of(ITEM))
    for _ in range(3):
        before = Counter(answering.counts), Counter(answering.sources)
        assert await connection.ask(request) == unprepared
        counts = Counter(answering.counts) - before[0]
        assert {_short(meaning): number for meaning, number in counts.items()} == {
            ("enterprise", PREFIX, "found"): 5,
            ("enterprise", OTHER, "found"): 1,
            ("enterprise", PREFIX, "not_found"): 2,
            ("node", PREFIX, "not_found"): 1,
            ("enterprise", SUSPENDED, "not_responsible"): 1,
            ("node", SELF_RUN, "not_responsible"): 1,
            ("node", "", "not_responsible"): 2,
            ("node", "", "invalid"): 3,
        }
        callers = {(meaning.caller_class, meaning.caller, meaning.channel) for meaning in counts}
        assert callers == {("application", application_id, "batch")}
        sources = Counter(answering.sources) - before[1]
        assert sources.total() == len(MIXED)
        assert {meaning.source for meaning in sources} == {PEER}


def _short(meaning: CountMeaning) -> tuple[str, str, str]:
    return meaning.level, meaning.prefix, meaning.outcome


async def test_a_batch_ends_with_what_ends_a_prepared_answer(answering: Answering) -> None:
    connection, request = await answering.prepare(json_of(ITEM)), batch([ITEM])
    await connection.ask(request)
    await answering.put("A", text(1, "URL", "http://new.example/"))
    assert b"http://new.example/" in await connection.ask(request)
    answering.records.is_up = False
    assert b'"stale":true' in await connection.ask(request)
    answering.records.is_up = True
    assert b'"stale":true' not in await connection.ask(request)
    answering.directory.replace([])
    assert b'"responseCode":301' in await connection.ask(request)
