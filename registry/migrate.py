"""Forward-only schema migrations: numbered SQL files, each applied once in its transaction."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from registry.database import Connection

# Any fixed number: one migration at a time on one database.
_LOCK = 0x69646E6F6465

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class SchemaError(Exception):
    """The database does not have the schema that this program needs; says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file."""

    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """The migrations of this program, in order."""
    found = []
    for entry in resources.files("registry").joinpath("migrations").iterdir():
        match = _NAME.fullmatch(entry.name)
        if match:
            found.append(Migration(int(match[1]), entry.name, entry.read_text("utf-8")))
    return sorted(found, key=lambda migration: migration.number)


async def schema_number(connection: Connection) -> int:
    """Number of the newest migration applied, 0 for an empty database."""
    if await connection.fetchval("SELECT to_regclass('schema_migration')") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(number), 0) FROM schema_migration"))


async def migrate(
    connection: Connection, report: Callable[[Migration], None] = lambda _: None
) -> int:
    """Apply what is missing; returns how many were applied.

    A crash leaves whole migrations only: each commits together with its row. A newer schema is
    left alone: the previous release runs on the next schema.
    """
    applied = 0
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration ("
            " number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        present = await schema_number(connection)
        for migration in migrations():
            if migration.number <= present:
                continue
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migration (number, name) VALUES ($1, $2)",
                    migration.number,
                    migration.name,
                )
            report(migration)
            applied += 1
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    return applied


async def require_schema(connection: Connection) -> None:
    """Make sure that the schema is at least the one that this program was written for.

    Raises:
        SchemaError: if it is older.
    """
    present, wanted = await schema_number(connection), migrations()[-1].number
    if present < wanted:
        raise SchemaError(
            f"the database schema is at {present:04d}, this program needs {wanted:04d}: "
            "run `idnode migrate`"
        )
