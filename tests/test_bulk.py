"""Bulk registration: whole chunks or nothing, and a second run writes nothing."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable

import asyncpg
import pytest
from stdnum.cn import uscc

from registry import bulk as bulk_module
from registry import enterprises, prefixes
from registry.bulk import (
    BulkRegistration,
    ChunkResult,
    RegistrationRefusedError,
    StagedRow,
    bulk_registration,
)
from registry.database import Database
from registry.records import Author, PostgresRecords
from resolver.errors import RegistryUnavailableError
from resolver.identifier import fold, for_registration
from resolver.record import HandleValue, values_to_wire
from tests.conftest import free_port

NOW_S = 1_790_000_000.25
AUTHOR = Author("cli:test", "register", "products.csv")
CODE = "91450200000000001" + uscc.calc_check_digit("91450200000000001")
PREFIX = "88.608.5288"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    await enterprises.add(
        opened, name="柳州样品厂", credit_code=CODE, division="450200", author=AUTHOR
    )
    await prefixes.allot(opened, prefix=PREFIX, credit_code=CODE, node_prefix=None, author=AUTHOR)
    async with opened.connection() as connection:
        await connection.execute("DELETE FROM outbox")
    yield opened
    await opened.close()


@pytest.fixture
async def bulk(database: Database) -> AsyncIterator[BulkRegistration]:
    async with bulk_registration(database, PREFIX, AUTHOR) as opened:
        yield opened


def _row(suffix: str, text: str = "x") -> StagedRow:
    handle = f"{PREFIX}/{suffix}"
    return fold(handle), handle, values_to_wire([HandleValue(1, "NAME", text.encode())])


def _rows(numbers: Iterable[int], text: str = "x") -> list[StagedRow]:
    return [_row(f"n{number:05d}", text) for number in numbers]


async def _book(database: Database) -> tuple[int, int, int, int]:
    """Identifiers not deleted, the newest version, rows of history, announcements."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM identifier WHERE NOT deleted),"
            " (SELECT coalesce(max(version), 0) FROM identifier),"
            " (SELECT count(*) FROM identifier_history), (SELECT count(*) FROM outbox)"
        )
    assert row is not None
    return row[0], row[1], row[2], row[3]


async def _announced(database: Database) -> list[tuple[str, str]]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT topic, key FROM outbox ORDER BY topic, key")
    return [(row["topic"], row["key"]) for row in rows]


async def test_new_rows_are_registered_as_they_are(
    database: Database, bulk: BulkRegistration
) -> None:
    rows = [_row("Mixed-Case"), _row("中文/é", "字" * 20_000), *_rows(range(20))]
    assert await bulk.write(rows, NOW_S) == ChunkResult(22, 0, 0)
    records = PostgresRecords(database)
    assert await records.count(PREFIX) == 22
    for _, handle, data in rows[:3]:
        asked = for_registration(handle)
        found = await records.fetch(asked.key)
        assert found is not None
        assert (found.handle, found.deleted) == (handle, False)
        assert found.values[0].timestamp_s == int(NOW_S)
        assert values_to_wire([HandleValue(1, "NAME", found.values[0].data)]) == data
        ((version, actor, door),) = [
            (entry.record.version, entry.actor, entry.door)
            for entry in await records.history(asked.key)
        ]
        assert (version, actor, door) == (found.version, "cli:test", "register")
    # New identifiers are announced once, for all that is cached as "not found".
    assert await _announced(database) == [("registered", PREFIX)]
    async with database.connection() as connection:
        versions = await connection.fetch("SELECT version, first_version FROM identifier")
    assert all(row["version"] == row["first_version"] for row in versions)
    assert len({row["version"] for row in versions}) == 22


async def test_a_second_run_writes_nothing(database: Database) -> None:
    chunks = [_rows(range(n, n + 50)) for n in (0, 50, 100)]
    async with bulk_registration(database, PREFIX, AUTHOR) as bulk:
        for chunk in chunks:
            assert await bulk.write(chunk, NOW_S) == ChunkResult(50, 0, 0)
    before = await _book(database)
    async with bulk_registration(database, PREFIX, AUTHOR) as bulk:
        for chunk in chunks:
            assert await bulk.write(chunk, NOW_S + 3_600) == ChunkResult(0, 0, 50)
    assert await _book(database) == before
    assert await PostgresRecords(database).count(PREFIX) == 150


async def test_only_what_differs_is_touched(database: Database, bulk: BulkRegistration) -> None:
    await bulk.write(_rows(range(10)), NOW_S)
    records = PostgresRecords(database)
    await records.delete(for_registration(f"{PREFIX}/n00003"), AUTHOR, NOW_S)
    before = {record.handle: record async for record in records.scan()}
    async with database.connection() as connection:
        await connection.execute("DELETE FROM outbox")

    mixed = [*_rows(range(5)), *_rows(range(5, 7), "new"), _row("N00007"), *_rows(range(10, 14))]
    assert await bulk.write(mixed, NOW_S + 60) == ChunkResult(4, 4, 4)
    after = {record.handle: record async for record in records.scan()}
    assert len(after) == await records.count() == 14
    untouched = [f"{PREFIX}/n{n:05d}" for n in (0, 1, 2, 4, 8, 9)]
    assert all(after[handle] == before[handle] for handle in untouched)
    newest = max(record.version for record in before.values())
    assert {handle for handle, record in after.items() if record.version <= newest} == set(
        untouched
    )
    # Changed ones are announced one by one, with the one that came back.
    assert await _announced(database) == [
        *(("record", f"{PREFIX}/N{n:05d}") for n in (3, 5, 6, 7)),
        ("registered", PREFIX),
    ]
    assert [len(await records.history(f"{PREFIX}/N{n:05d}")) for n in (0, 3, 5, 7, 10)] == [
        *(1, 3, 2, 2, 1)
    ]


async def test_after_known_rows_new_ones_are_copied_again(
    database: Database, bulk: BulkRegistration
) -> None:
    await bulk.write(_rows(range(10)), NOW_S)
    results = [
        await bulk.write(_rows(numbers), NOW_S)
        for numbers in (range(5, 15), range(20, 30), range(30, 40), range(35, 45))
    ]
    assert results == [
        ChunkResult(5, 0, 5),
        ChunkResult(10, 0, 0),
        ChunkResult(10, 0, 0),
        ChunkResult(5, 0, 5),
    ]
    assert await PostgresRecords(database).count() == 40


async def test_a_prefix_that_is_suspended_meanwhile_takes_no_further_chunk(
    database: Database, bulk: BulkRegistration
) -> None:
    await bulk.write(_rows(range(10)), NOW_S)
    await prefixes.suspend(database, PREFIX, reason="test", author=AUTHOR)
    before = await _book(database)
    for rows in (_rows(range(10, 20)), _rows(range(20), "changed")):
        with pytest.raises(RegistrationRefusedError, match="suspended"):
            await bulk.write(rows, NOW_S)
    assert await _book(database) == before
    await prefixes.resume(database, PREFIX, author=AUTHOR)
    assert await bulk.write(_rows(range(20)), NOW_S) == ChunkResult(10, 0, 10)


async def test_a_connection_lost_between_chunks_leaves_whole_chunks(
    database: Database, bulk: BulkRegistration
) -> None:
    await bulk.write(_rows(range(10)), NOW_S)
    await _terminate(database, _pid(bulk))
    with pytest.raises(RegistryUnavailableError):
        await bulk.write(_rows(range(10, 20)), NOW_S)
    assert (await _book(database))[0] == 10
    async with bulk_registration(database, PREFIX, AUTHOR) as second:
        assert await second.write(_rows(range(20)), NOW_S) == ChunkResult(10, 0, 10)


@pytest.mark.parametrize("known", [False, True])
async def test_a_connection_lost_inside_a_chunk_leaves_nothing_of_it(
    database: Database, database_url: str, bulk: BulkRegistration, known: bool
) -> None:
    if known:
        await bulk.write(_rows(range(5)), NOW_S)
        await bulk.write(_rows(range(5)), NOW_S)
    before = await _book(database)
    other = await asyncpg.connect(database_url)
    transaction = other.transaction()
    await transaction.start()
    await _insert(other, "N00015")  # the chunk waits here, half done
    writing = asyncio.create_task(bulk.write(_rows(range(20)), NOW_S))
    await _until_waiting(database, _pid(bulk))
    await _terminate(database, _pid(bulk))
    with pytest.raises(RegistryUnavailableError):
        await writing
    await transaction.rollback()
    await other.close()
    assert await _book(database) == before
    async with bulk_registration(database, PREFIX, AUTHOR) as second:
        result = await second.write(_rows(range(20)), NOW_S)
    assert result.added == 20 - before[0]
    assert await PostgresRecords(database).count() == 20


async def test_a_server_that_stops_inside_a_chunk_is_not_waited_for(
    database: Database, bulk: BulkRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "CHUNK_TIMEOUT_S", 0.2)
    pid = _pid(bulk)
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):  # a fault would wait for ever
            with pytest.raises(RegistryUnavailableError):
                await bulk.write(_rows(range(10)), NOW_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    async with bulk_registration(database, PREFIX, AUTHOR) as second:
        assert await second.write(_rows(range(10)), NOW_S) == ChunkResult(10, 0, 0)


async def test_two_runs_into_one_prefix_at_the_same_time_share_the_rows(
    database: Database,
) -> None:
    await _set_deadlock_timeout(database, "20ms")
    numbers = list(range(3_000))

    async def run(order: list[int], text: str) -> list[ChunkResult]:
        async with bulk_registration(database, PREFIX, AUTHOR) as bulk:
            return [
                await bulk.write(_rows(order[start : start + 1_000], text), NOW_S)
                for start in range(0, len(order), 1_000)
            ]

    # In opposite orders, so that they meet, and wait for each other, in the middle.
    for round_, text in enumerate(("one", "two")):
        done = await asyncio.gather(run(numbers, text), run(numbers[::-1], text))
        results = [result for results in done for result in results]
        assert sum(result.added for result in results) == (3_000, 0)[round_]
        assert sum(result.changed for result in results) == (0, 3_000)[round_]
        assert sum(result.unchanged for result in results) == 3_000
    live, _, history, _ = await _book(database)
    assert (live, history) == (3_000, 3_000)
    assert await PostgresRecords(database).count() == 3_000


async def test_a_chunk_that_ran_into_a_deadlock_is_written_all_the_same(
    database: Database, database_url: str
) -> None:
    await _set_deadlock_timeout(database, "300ms")
    other = await asyncpg.connect(database_url)
    await other.execute("SET deadlock_timeout = '60s'")  # the chunk is the one that gives way
    transaction = other.transaction()
    await transaction.start()
    await _insert(other, "N00005")
    async with bulk_registration(database, PREFIX, AUTHOR) as bulk:
        writing = asyncio.create_task(bulk.write(_rows(range(10)), NOW_S))
        await _until_waiting(database, _pid(bulk))
        await _insert(other, "N00001")
        await transaction.commit()
        assert await writing == ChunkResult(8, 2, 0)
    await other.close()


async def test_with_postgres_away_it_says_so() -> None:
    away = Database(f"postgresql://idnode@127.0.0.1:{free_port()}/idnode")
    with pytest.raises(RegistryUnavailableError):
        async with bulk_registration(away, PREFIX, AUTHOR):
            pass


def _pid(bulk: BulkRegistration) -> int:
    return int(bulk._connection.get_server_pid())


async def _terminate(database: Database, pid: int) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT pg_terminate_backend($1, 5000)", pid)


async def _until_waiting(database: Database, pid: int) -> None:
    async with asyncio.timeout(20):
        while True:
            async with database.connection() as connection:
                if await connection.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid):
                    return
            await asyncio.sleep(0.01)


async def _insert(connection: "asyncpg.Connection[asyncpg.Record]", suffix: str) -> None:
    await connection.execute(
        "INSERT INTO identifier (key, handle, change_id, changed_at, deleted, data)"
        " VALUES ($1, $1, 0, now(), false, '')",
        f"{PREFIX}/{suffix}",
    )


async def _set_deadlock_timeout(database: Database, text: str) -> None:
    async with database.connection() as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '{text}'")
