"""The schema: forward only, once, and with a plan of one index look-up for a resolution."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from registry import migrate as migrate_module
from registry import records
from registry.migrate import (
    Migration,
    SchemaError,
    migrate,
    migrations,
    require_schema,
    schema_number,
)

CURRENT = len(migrations())
_ROWS = 5_000
# As a statement is planned at first, and as it is planned once for all.
_PLANNED = ("force_custom_plan", "force_generic_plan")


@pytest.fixture
async def connection(
    empty_database_url: str,
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    opened = await asyncpg.connect(empty_database_url)
    yield opened
    await opened.close()


async def _names(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    rows = await connection.fetch("SELECT name FROM schema_migration ORDER BY number")
    return [row["name"] for row in rows]


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    found = migrations()
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    assert all(migration.name.startswith(f"{migration.number:04d}_") for migration in found)


async def test_an_empty_database_becomes_current_and_a_second_run_does_nothing(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    assert await schema_number(connection) == 0
    reported: list[Migration] = []
    assert await migrate(connection, reported.append) == CURRENT
    assert reported == migrations()
    assert await schema_number(connection) == CURRENT
    await require_schema(connection)
    assert await migrate(connection, reported.append) == 0
    assert reported == migrations()
    assert await _names(connection) == [migration.name for migration in migrations()]


async def test_two_that_migrate_at_the_same_time_apply_each_once(
    connection: "asyncpg.Connection[asyncpg.Record]", empty_database_url: str
) -> None:
    others = [await asyncpg.connect(empty_database_url) for _ in range(3)]
    applied = await asyncio.gather(*(migrate(one) for one in (connection, *others)))
    assert sorted(applied) == [0, 0, 0, CURRENT]
    for other in others:
        await require_schema(other)
        await other.close()


async def test_a_newer_schema_is_left_alone(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await migrate(connection)
    await connection.execute(
        "INSERT INTO schema_migration (number, name) VALUES (9999, '9999_later.sql')"
    )
    assert await migrate(connection) == 0
    assert await schema_number(connection) == 9_999
    await require_schema(connection)


async def test_an_older_schema_is_refused_with_what_to_do(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    wanted = f"at 0000, this program needs {CURRENT:04d}: run `idnode migrate`"
    with pytest.raises(SchemaError, match=wanted):
        await require_schema(connection)


async def test_a_migration_that_fails_leaves_nothing_and_can_be_tried_again(
    connection: "asyncpg.Connection[asyncpg.Record]",
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = Migration(CURRENT + 1, "bad.sql", "CREATE TABLE half (n int); SELECT 1 / 0")
    good = Migration(CURRENT + 1, "good.sql", "CREATE TABLE whole (n int)")
    known = migrations()
    monkeypatch.setattr(migrate_module, "migrations", lambda: [*known, bad])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection)
    assert await schema_number(connection) == CURRENT
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    monkeypatch.setattr(migrate_module, "migrations", lambda: [*known, good])
    other = await asyncpg.connect(empty_database_url)
    async with asyncio.timeout(20):  # the lock was let go
        assert await migrate(other) == 1
    await other.close()


@pytest.fixture
async def filled(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> "asyncpg.Connection[asyncpg.Record]":
    await migrate(connection)
    await connection.execute(
        "INSERT INTO identifier (key, handle, change_id, changed_at, deleted, data)"
        " SELECT '88.608.5288/' || n, '88.608.5288/' || n, 1, now(), false, repeat('x', 100)::bytea"
        " FROM generate_series(1, $1::int) AS n",
        _ROWS,
    )
    await connection.execute("ANALYZE")
    return connection


def _scans(plan: dict[str, object]) -> list[tuple[str, str]]:
    """Every scan of a table that was carried out: its kind, its table."""
    found = []
    if "Relation Name" in plan and plan["Actual Loops"]:
        found.append((str(plan["Node Type"]), str(plan["Relation Name"])))
    children = plan.get("Plans", [])
    assert isinstance(children, list)
    return found + [scan for child in children for scan in _scans(child)]


async def _executed(
    connection: "asyncpg.Connection[asyncpg.Record]", statement: str, kind: str, argument: str
) -> list[tuple[str, str]]:
    await connection.execute(f"PREPARE asked ({kind}) AS {statement}")
    plan = await connection.fetchval(
        f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON) EXECUTE asked ({argument})"
    )
    await connection.execute("DEALLOCATE asked")
    return _scans(json.loads(plan)[0]["Plan"])


async def test_a_resolution_is_one_index_scan_of_one_partition(
    filled: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    for mode in _PLANNED:
        await filled.execute(f"SET plan_cache_mode = {mode}")
        for statement in (records._FETCH, f"{records._FETCH} FOR UPDATE"):
            ((kind, table),) = await _executed(filled, statement, "text", "'88.608.5288/77'")
            assert kind == "Index Scan"
            assert re.fullmatch(r"identifier_p\d+", table)


async def test_many_keys_are_index_scans_of_their_partitions(
    filled: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    for mode in _PLANNED:
        await filled.execute(f"SET plan_cache_mode = {mode}")
        for number in (3, 1_000):
            keys = ", ".join(f"'88.608.5288/{n}'" for n in range(number))
            scans = await _executed(filled, records._FETCH_MANY, "text[]", f"ARRAY[{keys}]")
            assert {kind for kind, _ in scans} == {"Index Scan"}
            assert len(scans) == len(set(scans)) <= min(number, 16)
