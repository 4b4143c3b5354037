"""Records: versions only grow, history has no gap, and exactly one writer wins a race."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise

import asyncpg
import pytest
from stdnum.cn import uscc

from metrics.day import day_number
from registry import enterprises, prefixes
from registry.database import Database
from registry.records import Author, PostgresRecords, Refused, Written
from resolver.identifier import Identifier, for_registration
from resolver.record import HandleValue, Record
from resolver.response_code import ResponseCode

NOW_S = 1_790_000_000.0
AUTHOR = Author("key:test", "http", "a detail")
CODE = "91450200000000001" + uscc.calc_check_digit("91450200000000001")
PREFIX = "88.608.5288"
# Keys that stand next to those of the prefix, before and after.
NEIGHBOURS = ("88.608.52880", "88.608.528", "88.608.5287", "88.608.5289")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    await enterprises.add(
        opened, name="柳州样品厂", credit_code=CODE, division="450200", author=AUTHOR
    )
    for prefix in (PREFIX, *NEIGHBOURS):
        await prefixes.allot(
            opened, prefix=prefix, credit_code=CODE, node_prefix=None, author=AUTHOR
        )
    yield opened
    await opened.close()


@pytest.fixture
def records(database: Database) -> PostgresRecords:
    return PostgresRecords(database)


def _id(suffix: str, prefix: str = PREFIX) -> Identifier:
    return for_registration(f"{prefix}/{suffix}")


def _url(text: str, index: int = 1) -> HandleValue:
    return HandleValue(index, "URL", text.encode())


async def _put(records: PostgresRecords, asked: Identifier, text: str = "x") -> Written:
    written = await records.put(asked, [_url(text)], AUTHOR, NOW_S)
    assert isinstance(written, Written)
    return written


async def _number(database: Database, table: str) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def _announced(database: Database) -> list[tuple[str, str, int]]:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT topic, key, version FROM outbox WHERE topic <> 'prefixes' ORDER BY id"
        )
    return [(row["topic"], row["key"], row["version"]) for row in rows]


async def test_a_record_is_created_changed_deleted_and_created_again(
    database: Database, records: PostgresRecords
) -> None:
    asked = _id("a")
    assert await records.fetch(asked.key) is None
    first = await _put(records, asked, "one")
    second = await _put(records, asked, "two")
    gone = await records.delete(asked, AUTHOR, NOW_S)
    assert isinstance(gone, Written)
    again = await _put(records, asked, "three")

    assert [w.created for w in (first, second, gone, again)] == [True, False, False, True]
    versions = [w.record.version for w in (first, second, gone, again)]
    assert versions == sorted(set(versions))
    assert gone.record == Record(asked.text, versions[2], b"", int(NOW_S), deleted=True)
    assert await records.fetch(asked.key) == again.record
    assert again.record.values == (HandleValue(1, "URL", b"three", timestamp_s=int(NOW_S)),)
    assert await _announced(database) == [
        ("registered", PREFIX, 0),
        *(("record", asked.key, version) for version in versions[1:]),
    ]


async def test_history_has_who_when_before_and_after(
    database: Database, records: PostgresRecords
) -> None:
    asked = _id("a")
    began = datetime.now(UTC)
    for n, actor in enumerate(("key:one", "key:two", "cli:root")):
        await records.put(asked, [_url(str(n))], Author(actor, f"door-{n}"), NOW_S + n)
    await records.delete(asked, Author("key:four", "http"), NOW_S + 3)
    history = await records.history(asked.key)
    assert [(entry.actor, entry.door) for entry in history] == [
        ("key:one", "door-0"),
        ("key:two", "door-1"),
        ("cli:root", "door-2"),
        ("key:four", "http"),
    ]
    assert [[value.data for value in entry.record.values] for entry in history] == [
        [b"0"],
        [b"1"],
        [b"2"],
        [],
    ]
    assert [entry.record.deleted for entry in history] == [False, False, False, True]
    assert all(began <= earlier.at <= later.at for earlier, later in pairwise(history))
    assert history[-1].record == await records.fetch(asked.key)
    assert await records.history(_id("b").key) == []
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM change WHERE actor = 'key:two'") == 1


async def test_the_same_record_again_changes_nothing_but_another_spelling_does(
    database: Database, records: PostgresRecords
) -> None:
    first = await _put(records, _id("Straße-a"))
    announced = await _announced(database)
    again = await _put(records, _id("Straße-a"))
    assert (again.changed, again.created, again.record) == (False, False, first.record)
    assert await _announced(database) == announced
    assert len(await records.history(_id("Straße-a").key)) == 1

    respelled = await _put(records, _id("StRAße-A"))
    assert (respelled.changed, respelled.created) == (True, False)
    found = await records.fetch(_id("Straße-a").key)
    assert found is not None
    assert found.handle == f"{PREFIX}/StRAße-A"


async def test_many_writers_of_one_key_leave_growing_versions_and_no_gap(
    records: PostgresRecords,
) -> None:
    asked = _id("contested")

    async def write(n: int) -> Written | Refused:
        if n % 4 == 0:
            return await records.delete(asked, AUTHOR, NOW_S)
        if n % 4 == 1:
            return await records.put_values(asked, [_url(str(n), 1 + n % 3)], AUTHOR, NOW_S)
        return await records.put(asked, [_url(str(n))], AUTHOR, NOW_S)

    done = await asyncio.gather(*(write(n) for n in range(60)))
    written = sorted(
        (result for result in done if isinstance(result, Written)),
        key=lambda result: result.record.version,
    )
    refused = [result for result in done if isinstance(result, Refused)]
    assert {result.code for result in refused} <= {ResponseCode.HANDLE_NOT_FOUND}
    versions = [result.record.version for result in written if result.changed]
    assert len(set(versions)) == len(versions)
    history = await records.history(asked.key)
    # Every acknowledged write is a version of the history, and there is no other.
    assert [entry.record.version for entry in history] == versions
    assert [entry.record for entry in history] == [result.record for result in written]
    assert await records.count() == (0 if history[-1].record.deleted else 1)


@pytest.mark.parametrize("was_deleted", [False, True])
async def test_exactly_one_of_many_creators_wins(
    database: Database, records: PostgresRecords, was_deleted: bool
) -> None:
    asked = _id("new")
    if was_deleted:
        await _put(records, asked)
        await records.delete(asked, AUTHOR, NOW_S)
    done = await asyncio.gather(
        *(records.put(asked, [_url(str(n))], AUTHOR, NOW_S, overwrite=False) for n in range(20))
    )
    winners = [result for result in done if isinstance(result, Written)]
    assert len(winners) == 1
    assert winners[0].created
    assert set(done) - set(winners) == {Refused(ResponseCode.HANDLE_ALREADY_EXISTS)}
    assert await records.fetch(asked.key) == winners[0].record
    assert await records.count(PREFIX) == 1
    assert await _number(database, "identifier") == 1


async def test_a_creator_that_gives_up_leaves_the_place_to_the_next(
    database: Database, database_url: str, records: PostgresRecords
) -> None:
    asked = _id("new")
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "INSERT INTO identifier (key, handle, change_id, changed_at, deleted, data)"
        " VALUES ($1, $1, 0, now(), false, '')",
        asked.key,
    )
    waiting = asyncio.create_task(
        records.put(asked, [_url("mine")], AUTHOR, NOW_S, overwrite=False)
    )
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await transaction.rollback()
    assert isinstance(await waiting, Written)
    assert await records.count() == 1
    await connection.close()


async def test_values_are_added_put_in_place_and_removed(records: PostgresRecords) -> None:
    asked = _id("Mixed")
    missing = Refused(ResponseCode.HANDLE_NOT_FOUND)
    assert await records.put_values(asked, [_url("x")], AUTHOR, NOW_S) == missing
    assert await records.remove_values(asked, [1], AUTHOR, NOW_S) == missing
    assert await records.delete(asked, AUTHOR, NOW_S) == missing
    await records.put(asked, [_url("one"), _url("three", 3)], AUTHOR, NOW_S)

    lower = _id("mixed")
    added = await records.put_values(lower, [_url("two", 2)], AUTHOR, NOW_S + 60)
    assert isinstance(added, Written)
    assert added.created
    assert added.record.handle == asked.text  # the spelling of the registration stays
    assert [(v.index, v.data, v.timestamp_s - NOW_S) for v in added.record.values] == [
        (1, b"one", 0),
        (2, b"two", 60),
        (3, b"three", 0),
    ]
    conflict = await records.put_values(
        lower, [_url("four", 4), _url("zwei", 2)], AUTHOR, NOW_S, overwrite=False
    )
    assert conflict == Refused(ResponseCode.VALUE_ALREADY_EXISTS, "Index conflict for 2")
    put = await records.put_values(lower, [_url("zwei", 2)], AUTHOR, NOW_S + 90)
    assert isinstance(put, Written)
    assert not put.created
    refused = await records.remove_values(lower, [2, 9], AUTHOR, NOW_S)
    assert refused == Refused(ResponseCode.VALUES_NOT_FOUND)
    assert await records.fetch(asked.key) == put.record
    removed = await records.remove_values(lower, [1, 3], AUTHOR, NOW_S + 120)
    assert isinstance(removed, Written)
    assert [(v.index, v.data, v.timestamp_s - NOW_S) for v in removed.record.values] == [
        (2, b"zwei", 90)
    ]
    assert await records.fetch(asked.key) == removed.record


async def test_a_row_is_never_removed(database: Database, records: PostgresRecords) -> None:
    await _put(records, _id("a"))
    async with database.connection() as connection:
        with pytest.raises(asyncpg.RaiseError, match="never removed"):
            await connection.execute("DELETE FROM identifier")
    assert await _number(database, "identifier") == 1


async def test_nothing_is_written_below_a_prefix_that_is_not_open(
    database: Database, records: PostgresRecords
) -> None:
    asked = _id("a")
    before = await _put(records, asked)
    for statement, message in (
        ("UPDATE prefix SET mode = 'self_run'", "That prefix is run by its enterprise node"),
        ("UPDATE prefix SET suspended_at = now()", "That prefix is suspended"),
        ("DELETE FROM prefix", "That prefix doesn't live here"),
    ):
        async with database.connection() as connection:
            await connection.execute(statement)
        refused = Refused(ResponseCode.SERVER_NOT_RESPONSIBLE, message)
        assert await records.put(asked, [_url("new")], AUTHOR, NOW_S) == refused
        assert await records.put_values(asked, [_url("new")], AUTHOR, NOW_S) == refused
        assert await records.remove_values(asked, [1], AUTHOR, NOW_S) == refused
        assert await records.delete(asked, AUTHOR, NOW_S) == refused
        assert await records.put(_id("b"), [_url("new")], AUTHOR, NOW_S) == refused
    assert await records.fetch(asked.key) == before.record
    assert len(await records.history(asked.key)) == 1


async def test_after_a_suspension_no_writer_that_began_before_it_commits(
    database: Database, records: PostgresRecords
) -> None:
    began = asyncio.Event()

    async def write(writer: int) -> int:
        """Register until it is refused; returns how many were."""
        number = 0
        while isinstance(
            await records.put(_id(f"w{writer}-{number}"), [_url("x")], AUTHOR, NOW_S), Written
        ):
            number += 1
            if number == 5:
                began.set()
        return number

    writing = [asyncio.create_task(write(writer)) for writer in range(5)]
    await began.wait()
    await prefixes.suspend(database, PREFIX, reason="test", author=AUTHOR)
    after_suspension = await records.count(PREFIX)
    written = sum(await asyncio.gather(*writing))
    assert await records.count(PREFIX) == after_suspension == written >= 5


async def test_a_list_and_a_scan_keep_to_their_prefix_and_to_key_order(
    records: PostgresRecords,
) -> None:
    suffixes = ["B", "a", "a/b", "A0", "~", "!", "0", "Zz", "é", "中文", "\U0001f600", "a-b"]
    for suffix in suffixes:
        await _put(records, _id(suffix))
    for prefix in NEIGHBOURS:
        for suffix in ("", "0", "~"):
            await _put(records, _id(f"x{suffix}", prefix))
    await records.delete(_id("~"), AUTHOR, NOW_S)

    expected = sorted((_id(suffix) for suffix in suffixes if suffix != "~"), key=lambda i: i.key)
    texts = [identifier.text for identifier in expected]
    assert await records.list_page(PREFIX, 0, 100) == texts
    assert [text for page in range(5) for text in await records.list_page(PREFIX, page, 3)] == texts
    assert [record.handle async for record in records.scan(PREFIX, page_size=4)] == texts
    assert [record.handle async for record in records.scan(PREFIX, page_size=11)] == texts
    everything = [record.handle async for record in records.scan(page_size=5)]
    assert len(everything) == len(texts) + 3 * len(NEIGHBOURS)
    assert await records.list_page("88.608.52", 0, 100) == []
    assert await records.count(PREFIX) == len(texts)
    assert await records.count("88.608.52880") == 3
    assert await records.count() == len(everything)


async def test_the_number_of_identifiers_follows_every_change(
    database: Database, records: PostgresRecords
) -> None:
    assert await records.count() == 0
    for n in range(3):
        await _put(records, _id(f"n{n}"))
    assert await records.count(PREFIX) == 3
    await _put(records, _id("n0"), "changed")
    assert await records.count(PREFIX) == 3
    await records.delete(_id("n0"), AUTHOR, NOW_S + 86_400)
    await records.delete(_id("n1"), AUTHOR, NOW_S + 86_400)
    assert await records.count(PREFIX) == 1
    await _put(records, _id("n1"), "again")
    assert await records.count(PREFIX) == 2
    assert await records.count("88.608.52880") == 0
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT day, sum(added) AS added, sum(removed) AS removed FROM registration_tally"
            " GROUP BY day ORDER BY day"
        )
    today = day_number(NOW_S)
    assert [tuple(row) for row in rows] == [(today, 4, 0), (today + 1, 0, 2)]


async def test_what_is_rolled_back_was_not_counted_announced_or_kept(
    database: Database, records: PostgresRecords
) -> None:
    first = await _put(records, _id("a"))
    announced = await _announced(database)
    async with database.connection() as connection:
        # The commit fails: the deferred trigger raises.
        await connection.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END $$;"
            " CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON change DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION fail()"
        )
    for work in (
        records.put(_id("b"), [_url("x")], AUTHOR, NOW_S),
        records.put(_id("a"), [_url("y")], AUTHOR, NOW_S),
        records.delete(_id("a"), AUTHOR, NOW_S),
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await work
    assert await records.fetch(_id("a").key) == first.record
    assert await records.fetch(_id("b").key) is None
    assert await records.count() == 1
    assert await _announced(database) == announced
    assert len(await records.history(_id("a").key)) == 1


async def test_many_keys_are_fetched_at_once_and_only_those_that_exist(
    records: PostgresRecords,
) -> None:
    for n in range(5):
        await _put(records, _id(f"n{n}"), str(n))
    await records.delete(_id("n4"), AUTHOR, NOW_S)
    keys = [_id(f"n{n}").key for n in (0, 2, 4, 7)]
    found = await records.fetch_many(keys)
    assert set(found) == set(keys[:3])
    assert found[keys[1]] == await records.fetch(keys[1])
    assert found[keys[2]].deleted
    assert await records.fetch_many([]) == {}
