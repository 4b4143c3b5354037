"""The desk at which a command works: what is configured, its language, and where the node is."""

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import typer

from node.cli.failure import CommandError, ExitCode
from node.cli.text import text
from node.config import Config
from node.data_folder import DataFolder, DataFolderError, RunInfo
from registry.database import QUERY_TIMEOUT_S, Database, is_away, unreachable
from registry.migrate import require_schema
from registry.records import Author

_T = TypeVar("_T")

Json = Annotated[bool, typer.Option("--json", help="opt.json")]


@dataclass(frozen=True, slots=True)
class Desk:
    """What every command has at hand."""

    config: Config
    language: str

    def text(self, key: str, **values: object) -> str:
        """A text of the table in the language of this desk."""
        return text(key, self.language, **values)

    @property
    def author(self) -> Author:
        """Who changes the book: the account that runs the command."""
        return Author(f"cli:{_account()}", "cli")


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where the stores and the node answer; `run` is None if the stores were configured."""

    postgres_url: str
    redis_url: str | None
    http: str
    run: RunInfo | None


def desk_of(context: typer.Context) -> Desk:
    """The desk of the command that runs."""
    desk = context.obj
    assert isinstance(desk, Desk)
    return desk


def find_node(desk: Desk) -> NodeAddress:
    """The configured stores, or those of the node that runs on the data folder.

    Raises:
        CommandError: if no store is configured and no node runs.
    """
    config = desk.config
    run = _running(config)
    http = config.http if run is None else run.http
    if config.postgres_url is not None:
        return NodeAddress(config.postgres_url, config.redis_url, http, run)
    if run is None:
        raise CommandError(
            desk.text("error.no_node", data=config.data),
            desk.text("error.no_node.do"),
            ExitCode.UNREACHABLE,
        )
    return NodeAddress(run.postgres_url, config.redis_url or run.redis_url, http, run)


def with_database(desk: Desk, work: Callable[[Database], Awaitable[_T]]) -> _T:
    """Do `work` on the node's database, whose schema is checked first.

    Raises:
        CommandError: if no node runs.
        RegistryUnavailableError: if PostgreSQL is away.
        SchemaError: if the schema is too old.
    """
    return asyncio.run(_with_database(find_node(desk).postgres_url, work))


async def _with_database(url: str, work: Callable[[Database], Awaitable[_T]]) -> _T:
    # One connection for the work, one for what it does meanwhile.
    database = Database(url, connections_max=2)
    try:
        await _check_schema(database)
        return await work(database)
    finally:
        await database.close()


async def _check_schema(database: Database) -> None:
    connection = await database.dedicated()
    try:
        async with asyncio.timeout(QUERY_TIMEOUT_S):
            await require_schema(connection)
        await connection.close(timeout=QUERY_TIMEOUT_S)
    except Exception as error:
        connection.terminate()
        if is_away(error):
            raise unreachable(error) from error
        raise


def _running(config: Config) -> RunInfo | None:
    try:
        return DataFolder.read_run_info(config.data)
    except DataFolderError:
        if config.postgres_url is None:
            raise
        return None  # the stores are known without the folder


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())  # a container may run under a number without a name
