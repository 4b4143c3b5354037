"""`idnode migrate`: bring the database schema up to this program."""

import asyncio
from collections.abc import Callable

import typer

from node.cli.context import Json, desk_of, find_node
from node.cli.output import write_json, write_line
from registry.database import Database
from registry.migrate import Migration, schema_number
from registry.migrate import migrate as apply_migrations


def migrate(context: typer.Context, as_json: Json = False) -> None:
    desk = desk_of(context)
    applied: list[Migration] = []

    def report(migration: Migration) -> None:
        applied.append(migration)
        if not as_json:
            write_line(desk.text("migrate.applied", name=migration.name))

    number = asyncio.run(_migrate(find_node(desk).postgres_url, report))
    if as_json:
        write_json({"schema": number, "applied": [migration.name for migration in applied]})
    elif not applied:
        write_line(desk.text("migrate.nothing", number=f"{number:04d}"))


async def _migrate(url: str, report: Callable[[Migration], None]) -> int:
    database = Database(url)
    # A connection of its own: a migration of a large table may run longer than a query may.
    connection = await database.dedicated()
    try:
        await apply_migrations(connection, report)
        return await schema_number(connection)
    finally:
        await connection.close()
