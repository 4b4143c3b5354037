"""When a prepared answer is given, and everything that ends that at once."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from metrics.day import day_number
from metrics.journal import JournalSize
from node import fast_path
from node.callers import REMEMBERED_CONNECTED_S, REMEMBERED_S
from registry import api_keys, enterprises
from registry.database import Database
from resolver.freshness import CONNECTED_S, HEARD_S
from resolver.prefix_directory import PrefixState
from tests.answering import (
    AUTHOR,
    NOON_S,
    OTHER,
    PREFIX,
    PROXY,
    Answering,
    Connection,
    get,
    head_of,
    header_of,
    json_of,
    text,
)
from tests.tenant import credit_code

ITEM, URL = f"{PREFIX}/A", "http://a.example/"
JSON, WEB = json_of(ITEM), get(f"/{ITEM}")
# 00:00 of a day in Shanghai.
MIDNIGHT_S = datetime(2026, 11, 23, 16, tzinfo=UTC).timestamp()
Change = Callable[[Answering], None]


@pytest.fixture
async def answering(tmp_path: Path) -> AsyncIterator[Answering]:
    made = Answering(tmp_path)
    await made.put("A", text(1, "URL", URL))
    yield made
    made.close()


async def is_fast(connection: Connection, request: bytes = JSON) -> bool:
    """Ask; whether the answer came out of what was prepared."""
    early = connection.early_answers
    assert await connection.ask(request)
    return connection.early_answers > early


async def operator_key(database: Database) -> tuple[str, str]:
    text_, key = await api_keys.create(database, api_keys.OPERATOR, None, author=AUTHOR)
    return text_, key.id


# Taken


@pytest.mark.parametrize("request_", [JSON, WEB])
async def test_an_answer_is_prepared_by_the_first_who_asks(
    answering: Answering, request_: bytes
) -> None:
    connection = answering.connect()
    assert not await is_fast(connection, request_)
    assert await is_fast(connection, request_)
    assert await is_fast(answering.connect("198.51.100.9"), request_)
    assert answering.l1_hits == 2


async def test_each_door_prepares_for_itself(answering: Answering) -> None:
    connection = await answering.prepare(JSON)
    assert not await is_fast(connection, WEB)
    assert await is_fast(connection, WEB)
    assert await is_fast(connection, JSON)


async def test_the_date_is_that_of_the_second(answering: Answering) -> None:
    connection = await answering.prepare(JSON, WEB)
    for elapsed_s, second in ((0.999, "00"), (1.0, "01"), (59.999, "59")):
        answering.at(NOON_S + elapsed_s)
        early = connection.early_answers
        for request in (JSON, WEB):
            answer = await connection.ask(request)
            assert header_of(answer, "date") == [f"Mon, 23 Nov 2026 04:00:{second} GMT"]
        assert header_of(answer, "expires") == [f"Tue, 24 Nov 2026 04:00:{second} GMT"]
        assert connection.early_answers == early + 2


async def test_a_key_is_looked_up_once_and_its_own_records_are_read_whole(
    tmp_path: Path, database: Database
) -> None:
    answering = Answering(tmp_path, database=database)
    secret = text(300, "HS_SECKEY", "secret", permissions=0x0C)
    await answering.put("A", text(1, "URL", URL), secret)
    line = f"X-API-Key: {(await operator_key(database))[0]}"
    anonymous = await answering.prepare(JSON)
    assert b"HS_SECKEY" not in await anonymous.ask(JSON)
    connection = answering.connect()
    for _ in range(3):
        assert b"HS_SECKEY" in await connection.ask(json_of(ITEM, line))
    assert connection.early_answers == 0
    answering.close()


async def test_without_counting_answers_are_given_all_the_same(tmp_path: Path) -> None:
    answering = Answering(tmp_path, is_counting=False)
    await answering.put("A", text(1, "URL", URL))
    await answering.prepare(JSON, WEB)
    assert not answering.counts
    assert not answering.sources
    answering.close()


# Not taken any more


def registry_lost(answering: Answering) -> None:
    answering.records.is_up = False
    answering.fast.shut()  # the worker is told by its database


def suspended(answering: Answering) -> None:
    answering.allot(PrefixState(PREFIX, suspended=True))


def given_away(answering: Answering) -> None:
    answering.allot(PrefixState(PREFIX, hosted=False))


def withdrawn(answering: Answering) -> None:
    answering.directory.replace([PrefixState(OTHER)])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda answering: answering.hot.disconnect(), 200),
        (lambda answering: answering.hot.connect(), 200),
        (lambda answering: answering.after(HEARD_S, heard=False), 200),
        (lambda answering: answering.after(CONNECTED_S), 200),
        (lambda answering: answering.after(-CONNECTED_S), 200),
        (registry_lost, 200),
        (suspended, 400),
        (given_away, 400),
        (withdrawn, 400),
    ],
    ids=["disconnected", "connected", "silent", "old", "clock set back", "registry",
         "suspended", "given away", "withdrawn"],
)  # fmt: skip
@pytest.mark.parametrize("request_", [JSON, WEB])
async def test_what_ends_an_answer_ends_it_at_once(
    answering: Answering, change: Change, status: int, request_: bytes
) -> None:
    connection = await answering.prepare(request_)
    change(answering)
    early = connection.early_answers
    answer = await connection.ask(request_)
    assert connection.early_answers == early
    assert head_of(answer)[0] in (status, 302 if status == 200 else status)
    assert answer == await connection.ask_slowly(request_)


async def test_a_silence_ends_answers_in_the_middle_of_a_second(answering: Answering) -> None:
    connection = await answering.prepare(JSON)
    answering.at(NOON_S + 10.6)
    answering.at(NOON_S + 11.1, heard=False)
    assert await is_fast(connection)
    answering.at(NOON_S + 11.7, heard=False)
    assert not await is_fast(connection)


async def test_answers_are_given_at_once_again_when_the_registry_is_back(
    answering: Answering,
) -> None:
    connection = await answering.prepare(JSON)
    registry_lost(answering)
    assert header_of(await connection.ask(JSON), "warning") == ['110 - "Response is Stale"']
    answering.records.is_up = True
    answering.fast.shut()
    assert await is_fast(connection)


async def test_a_table_of_prefixes_that_says_the_same_ends_nothing(answering: Answering) -> None:
    connection = await answering.prepare(JSON)
    answering.allot(PrefixState(OTHER, suspended=True))
    assert await is_fast(connection)
    suspended(answering)
    assert head_of(await connection.ask(JSON))[0] == 400
    answering.allot()
    # What was prepared before is void: the prefix may have been another enterprise's meanwhile.
    assert not await is_fast(connection)
    assert await is_fast(connection)


async def test_a_prefix_that_is_suspended_while_a_record_is_looked_for_is_not_answered_for(
    answering: Answering,
) -> None:
    connection = answering.connect()
    for request in (JSON, WEB):
        answering.allot()
        answering.hot.connect()
        answering.held.hold()
        connection.send(request)
        await answering.until_asked()
        suspended(answering)
        answering.held.let_go()
        await connection.answered()
        for _ in range(2):
            assert not await is_fast(connection, request)
            assert head_of(await connection.ask(request))[0] == 400


async def test_an_announced_change_is_answered_by_the_next_request(answering: Answering) -> None:
    connection = await answering.prepare(JSON, WEB)
    for number in range(3):
        await answering.put("A", text(1, "URL", f"http://a.example/{number}"))
        for request in (JSON, WEB):
            for _ in range(3):
                answer = await connection.ask(request)
                assert b"http://a.example/%d" % number in answer
    assert connection.early_answers > 10


async def test_what_left_the_cache_is_not_answered_though_the_request_is_remembered(
    tmp_path: Path,
) -> None:
    answering = Answering(tmp_path, present_max=8)
    await answering.put("A", text(1, "URL", URL))
    connection = await answering.prepare(JSON, WEB)
    for number in range(30):
        others = answering.connect()
        await others.ask(json_of(await answering.put(f"B{number}", text(1, "DESC", "b"))))
    # Nobody keeps it any more, so that a change of it is not heard of.
    assert answering.hot.last_known(ITEM) is None
    assert JSON in answering.fast.requests
    await answering.put("A", text(1, "URL", "http://new.example/"), is_told=False)
    early = connection.early_answers
    for request in (JSON, WEB):
        assert b"http://new.example/" in await connection.ask(request)
    assert connection.early_answers == early
    answering.close()


async def test_what_is_just_leaving_the_cache_is_still_told_of_changes(tmp_path: Path) -> None:
    answering = Answering(tmp_path, present_max=100)
    await answering.put("A", text(1, "URL", URL))
    connection = await answering.prepare(JSON)
    suffixes = [f"B{number}" for number in range(101)]
    for suffix in suffixes:
        identifier = await answering.put(suffix, text(1, "DESC", "b"))
        await answering.connect().ask(json_of(identifier))
    assert answering.hot.kept(ITEM) is None
    await answering.put("A", text(1, "URL", "http://new.example/"))
    assert b"http://new.example/" in await connection.ask(JSON)
    answering.close()


# Keys


async def test_a_revoked_key_is_refused_by_the_next_request(
    tmp_path: Path, database: Database
) -> None:
    answering = Answering(tmp_path, database=database)
    await answering.put("A", text(1, "URL", URL), prefix=OTHER)
    key, key_id = await _reader(database)
    requests = [json_of(f"{OTHER}/A", line) for line in _lines(key)]
    connection = await answering.prepare(*requests)
    await api_keys.revoke(database, key_id, author=AUTHOR)
    assert await is_fast(connection, requests[0])  # not announced yet
    answering.callers.forget()
    for request in requests:
        for _ in range(2):
            assert head_of(await connection.ask(request))[0] == 403
    answering.close()


async def test_a_key_is_looked_up_again_when_it_was_remembered_long_enough(
    tmp_path: Path, database: Database
) -> None:
    answering = Answering(tmp_path, database=database)
    await answering.put("A", text(1, "URL", URL))
    key, key_id = await _reader(database)
    request = json_of(ITEM, f"X-API-Key: {key}")
    connection = await answering.prepare(request)
    await api_keys.revoke(database, key_id, author=AUTHOR)
    for elapsed_s in range(0, int(REMEMBERED_CONNECTED_S), 10):
        answering.at(NOON_S + elapsed_s)
        # The record is learnt anew, the key is not.
        await answering.put("A", text(1, "URL", f"{URL}{elapsed_s}"))
        await connection.ask(request)
        assert await is_fast(connection, request)
    answering.at(NOON_S + REMEMBERED_CONNECTED_S)
    assert head_of(await connection.ask(request))[0] == 403
    answering.close()


@pytest.mark.parametrize("elapsed_s", [REMEMBERED_S, -3_600.0])
async def test_without_announcements_a_revoked_key_is_not_believed_for_longer_than_a_second(
    tmp_path: Path, database: Database, elapsed_s: float
) -> None:
    answering = Answering(tmp_path, database=database)
    await answering.put("A", text(1, "URL", URL))
    key, key_id = await _reader(database)
    request = json_of(ITEM, f"X-API-Key: {key}")
    connection = await answering.prepare(request)
    answering.hot.disconnect()
    answering.callers.connected = False
    await connection.ask(request)
    assert await is_fast(connection, request)
    await api_keys.revoke(database, key_id, author=AUTHOR)
    answering.after(elapsed_s, heard=False)
    # Others keep the record warm.
    await connection.ask(JSON)
    assert await is_fast(connection)
    assert head_of(await connection.ask(request))[0] == 403
    answering.close()


async def _reader(database: Database) -> tuple[str, str]:
    """The key of an enterprise that owns nothing here, and its id."""
    await enterprises.add(
        database, name="a", credit_code=credit_code(1), division="450200", author=AUTHOR
    )
    made, key = await api_keys.create(database, api_keys.ENTERPRISE, credit_code(1), author=AUTHOR)
    return made, key.id


def _lines(key: str) -> tuple[str, ...]:
    return f"X-API-Key: {key}", f"Authorization: Bearer {key}", f"x-api-key:{key}"


# Counting


def of_day(answering: Answering) -> dict[int, int]:
    """Counts by days since the day of these tests began."""
    found: dict[int, int] = {}
    for meaning, value in answering.counts.items():
        day = meaning.day - day_number(MIDNIGHT_S)
        found[day] = found.get(day, 0) + value
    return found


@pytest.mark.parametrize("request_", [JSON, WEB])
async def test_a_fast_answer_counts_for_the_day_of_its_second(
    answering: Answering, request_: bytes
) -> None:
    answering.at(MIDNIGHT_S - 30)
    connection = await answering.prepare(request_)
    assert of_day(answering) == {-1: 3}
    for moment, expected in (
        (MIDNIGHT_S - 0.001, {-1: 4}),
        (MIDNIGHT_S, {-1: 4, 0: 1}),
        (MIDNIGHT_S + 0.001, {-1: 4, 0: 2}),
        (MIDNIGHT_S - 0.001, {-1: 5, 0: 2}),  # the clock is set back
        (MIDNIGHT_S + 0.5, {-1: 5, 0: 3}),
    ):
        answering.at(moment)
        assert await is_fast(connection, request_)
        assert of_day(answering) == expected


async def test_an_answer_that_took_until_after_midnight_takes_no_day_along(
    answering: Answering,
) -> None:
    answering.at(MIDNIGHT_S - 0.1)
    connection = await answering.prepare(JSON)
    slow = answering.connect()
    answering.held.hold()
    slow.send(get(f"/{PREFIX}/NOPE"))
    await answering.until_asked()
    answering.at(MIDNIGHT_S + 0.1)
    early = connection.early_answers
    connection.send(JSON)
    assert connection.early_answers == early + 1
    answering.held.let_go()
    await slow.answered()  # of the day before: its question came then
    assert await is_fast(connection)
    assert of_day(answering) == {-1: 4, 0: 2}


async def test_a_full_journal_takes_its_cells_along(tmp_path: Path) -> None:
    answering = Answering(tmp_path, size=JournalSize(16, 24, 16_384, 8, 4, 2_048))
    await answering.put("A", text(1, "URL", URL))
    connection = await answering.prepare(JSON, WEB)
    before = answering.counts
    for number in range(30):
        others = answering.connect(f"198.51.100.{number}")
        assert await is_fast(others)
    retired = answering.counting.retired
    assert retired
    values = [journal.values() for journal in retired]
    assert await is_fast(connection, JSON)
    assert await is_fast(connection, WEB)
    assert [journal.values() for journal in retired] == values
    assert sum(answering.counts.values()) == sum(before.values()) + 32
    assert sum(answering.sources.values()) == sum(answering.counts.values())
    answering.close()


async def test_what_is_not_given_is_not_counted(answering: Answering) -> None:
    connection = await answering.prepare(JSON)
    for change in (registry_lost, suspended):
        change(answering)
        before = sum(answering.counts.values())
        await connection.ask(JSON)
        assert sum(answering.counts.values()) == before + 1


# Limits


@pytest.mark.parametrize("request_", [JSON, WEB])
async def test_who_asks_too_often_is_refused_by_the_slow_path(
    tmp_path: Path, request_: bytes
) -> None:
    answering = Answering(tmp_path, rate=40)
    await answering.put("A", text(1, "URL", URL))
    connection = answering.connect()
    statuses = [head_of(await connection.ask(request_))[0] for _ in range(60)]
    assert statuses == [200 if request_ == JSON else 302] * 40 + [429] * 20
    assert connection.early_answers == 39
    assert header_of(await connection.ask(request_), "retry-after") == ["1"]
    refused = [value for meaning, value in answering.counts.items() if meaning.outcome == "refused"]
    assert refused == [21]
    # The next second has room again, and others had it all the time.
    assert await is_fast(answering.connect("198.51.100.9"), request_)
    answering.after(1.0)
    assert await is_fast(connection, request_)
    answering.close()


async def test_two_sources_behind_one_proxy_have_a_rate_each(tmp_path: Path) -> None:
    answering = Answering(tmp_path, rate=40)
    await answering.put("A", text(1, "URL", URL))
    connection = answering.connect(PROXY)
    one, other = (json_of(ITEM, f"X-Forwarded-For: 198.51.100.{n}") for n in (1, 2))
    statuses = [head_of(await connection.ask(one))[0] for _ in range(41)]
    assert statuses == [200] * 40 + [429]
    assert [head_of(await connection.ask(other))[0] for _ in range(41)] == [200] * 40 + [429]
    answering.close()


async def test_the_memos_are_bounded(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path, "REQUESTS_MAX", 8)
    monkeypatch.setattr(fast_path, "HEADS_MAX", 4)
    connection = await answering.prepare(JSON)
    for number in range(100):
        assert await is_fast(connection, json_of(ITEM, f"X-Number: {number}"))
        assert len(answering.fast.requests) <= 8
    # Too long to be remembered as a whole, and answered all the same.
    before = len(answering.fast.requests)
    long = json_of(ITEM, "X-Long: " + "y" * 1_900)
    assert await is_fast(connection, long)
    assert len(answering.fast.requests) == before
    assert not await is_fast(connection, json_of(ITEM, "X-Long: " + "y" * 2_048))


async def test_a_connection_remembers_few_prefixes_and_counts_for_all(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path, "CELLS_MAX", 1)
    await answering.put("A", text(1, "URL", URL), prefix=OTHER)
    asked = [*(json_of(f"{prefix}/A") for prefix in (PREFIX, OTHER)), WEB, get(f"/{OTHER}/A")]
    connection = await answering.prepare(*asked)
    before = answering.counts
    for request in asked * 5:
        assert await is_fast(connection, request)
    grown = {meaning: value - before[meaning] for meaning, value in answering.counts.items()}
    assert list(grown.values()) == [5, 5, 5, 5]


# The life of a connection


async def test_while_the_node_stops_answers_say_that_they_are_the_last(
    answering: Answering,
) -> None:
    connection = await answering.prepare(JSON)
    connection.protocol.shutdown()
    early = connection.early_answers
    assert header_of(await connection.ask(JSON), "connection") == ["close"]
    assert connection.early_answers == early
    assert not connection.is_open


async def test_a_stop_that_begins_while_a_record_is_looked_for_is_said_in_its_answer(
    answering: Answering,
) -> None:
    connection = answering.connect()
    answering.held.hold()
    connection.send(JSON)
    await answering.until_asked()
    connection.protocol.shutdown()
    answering.held.let_go()
    answer = await connection.answered()
    assert head_of(answer)[0] == 200
    assert header_of(answer, "connection") == ["close"]
    assert not connection.is_open


async def test_a_caller_that_does_not_read_is_not_sent_more(answering: Answering) -> None:
    connection = await answering.prepare(JSON)
    answer = await connection.ask(JSON)
    connection.protocol.pause_writing()
    early = connection.early_answers
    connection.send(JSON)
    await answering.turn()
    assert not connection.transport.written
    connection.protocol.resume_writing()
    assert await connection.answered() == answer
    assert connection.early_answers == early
    assert await is_fast(connection)


@pytest.mark.parametrize("line", ["Connection: close", "Connection: upgrade\r\nUpgrade: h2c"])
async def test_nothing_is_answered_after_the_last_answer(answering: Answering, line: str) -> None:
    connection = await answering.prepare(JSON)
    assert header_of(await connection.ask(json_of(ITEM, line)), "connection") == ["close"]
    early = connection.early_answers
    assert await connection.ask(JSON) == b""
    assert connection.early_answers == early
    assert not connection.is_open


async def test_a_caller_that_hangs_up_while_its_record_is_looked_for_leaves_nothing(
    answering: Answering,
) -> None:
    connection = answering.connect()
    answering.held.hold()
    connection.send(JSON)
    await answering.until_asked()
    connection.hang_up()
    answering.held.let_go()
    assert await connection.answered() == b""
    assert sum(answering.counts.values()) == 1


async def test_a_connection_that_is_answered_fast_is_not_idle(answering: Answering) -> None:
    connection = await answering.prepare(JSON)
    protocol = connection.protocol
    for _ in range(3):
        assert await is_fast(connection)
        protocol.timeout_keep_alive_handler()
        assert connection.is_open
    protocol.timeout_keep_alive_handler()
    assert not connection.is_open


@pytest.mark.parametrize("rest", [b"", b"GET /"])
async def test_who_has_said_all_gets_a_fast_answer_and_the_end(
    answering: Answering, rest: bytes
) -> None:
    answer = await (await answering.prepare(JSON)).ask(JSON)
    connection = answering.connect()
    connection.send(JSON, rest)
    assert connection.protocol.eof_received() is False
    assert await connection.answered() == answer


async def test_a_body_that_comes_after_its_answer_is_no_request(answering: Answering) -> None:
    connection = await answering.prepare(JSON)
    with_body = json_of(ITEM, f"Content-Length: {len(JSON)}")
    early = connection.early_answers
    assert head_of(await connection.ask(with_body))[0] == 200
    assert await connection.ask(JSON) == b""
    assert connection.early_answers == early
    assert head_of(await connection.ask(JSON))[0] == 200
    assert connection.early_answers == early


async def test_the_rest_of_a_request_is_no_request_whatever_it_looks_like(
    answering: Answering,
) -> None:
    connection = await answering.prepare(JSON)
    answer = await connection.ask(JSON)
    early = connection.early_answers
    begun = b"GET /robots.txt HTTP/1.1\r\nX-Rest: "
    assert await connection.ask(JSON + begun) == answer
    assert (await connection.ask(JSON)).endswith(b"Request-rate: 1/1\n")
    assert connection.early_answers == early
