"""Connections to PostgreSQL: bounded in number and time, whatever the server does."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from registry import database as database_module
from registry.database import BREAKER_PAUSE_S, Database
from resolver.errors import RegistryUnavailableError
from tests.conftest import Stores, free_port

# Fails a test that would hang; no test waits for it.
HANG_S = 20.0


@pytest.fixture
async def single(stores: Stores) -> AsyncIterator[Database]:
    """A pool of one connection: what is not given back is missed."""
    opened = Database(stores.postgres_url, connections_max=1)
    yield opened
    await opened.close()


async def _one(database: Database, statement: str = "SELECT 1", timeout_s: float = 2.0) -> object:
    async with database.connection(timeout_s) as connection:
        return await connection.fetchval(statement)


async def _breaker_passes(database: Database) -> None:
    """Return when the next caller may try."""
    await asyncio.sleep(BREAKER_PAUSE_S + 0.05)


async def test_a_query_that_takes_too_long_is_cut_and_the_pool_stays_usable(
    single: Database,
) -> None:
    changes: list[bool] = []
    single.on_change = changes.append
    with pytest.raises(RegistryUnavailableError, match=r"nothing within 0\.1 s"):
        await _one(single, "SELECT pg_sleep(60)", 0.1)
    assert not single.is_up
    await _breaker_passes(single)
    assert await _one(single) == 1
    assert single.is_up
    assert changes == [False, True]


async def test_in_a_transaction_too(single: Database) -> None:
    with pytest.raises(RegistryUnavailableError, match=r"nothing within 0\.1 s"):
        async with single.connection(0.1) as connection, connection.transaction():
            await connection.execute("SELECT pg_sleep(60)")
    await _breaker_passes(single)
    assert await _one(single) == 1


@contextmanager
def _stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_server_that_stands_still_is_not_waited_for(
    single: Database, monkeypatch: pytest.MonkeyPatch, in_transaction: bool
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_S", 0.3)

    async def work() -> None:
        async with single.connection(0.2) as connection:
            if in_transaction:
                async with connection.transaction():
                    await connection.execute("SELECT 1")
            else:
                await connection.execute("SELECT 1")

    pid = await _one(single, "SELECT pg_backend_pid()")
    assert isinstance(pid, int)
    with _stopped(pid, _parent(pid)):
        async with asyncio.timeout(HANG_S):
            with pytest.raises(RegistryUnavailableError, match="nothing within"):
                await work()
            await _breaker_passes(single)
            with pytest.raises(RegistryUnavailableError, match="cannot be reached"):
                await work()
            with pytest.raises(RegistryUnavailableError):
                await single.dedicated()
    await _breaker_passes(single)
    await work()


async def test_work_that_is_given_up_while_the_server_stands_still_ends(single: Database) -> None:
    pid = await _one(single, "SELECT pg_backend_pid()")
    assert isinstance(pid, int)

    async def work() -> None:
        async with single.connection(0.3) as connection, connection.transaction():
            await connection.execute("SELECT 1")

    with _stopped(pid):
        working = asyncio.create_task(work())
        await asyncio.sleep(0.05)
        working.cancel()
        async with asyncio.timeout(HANG_S):
            await asyncio.wait([working])
    assert working.cancelled() or isinstance(working.exception(), RegistryUnavailableError)
    await _breaker_passes(single)
    assert await _one(single) == 1


async def test_a_connection_that_the_server_ends_is_replaced(single: Database) -> None:
    with pytest.raises(RegistryUnavailableError):
        await _one(single, "SELECT pg_terminate_backend(pg_backend_pid())")
    await _breaker_passes(single)
    assert await _one(single) == 1


async def test_while_it_is_away_one_caller_a_moment_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", free_port())
    port = server.sockets[0].getsockname()[1]
    database = Database(f"postgresql://a@127.0.0.1:{port}/a?sslmode=disable")
    with pytest.raises(RegistryUnavailableError, match="cannot be reached"):
        await _one(database)
    assert attempts == 1
    for n in (1, 2):
        found = await asyncio.gather(*(_one(database) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(error, RegistryUnavailableError) for error in found)
        assert attempts == n + 1
        # No more of them until the pause is over.
        found = await asyncio.gather(*(_one(database) for _ in range(50)), return_exceptions=True)
        assert {str(error) for error in found} == {"PostgreSQL is away"}
        assert attempts == n + 1
        await _breaker_passes(database)
    assert not await database.ping()
    await database.close()
    server.close()
    await server.wait_closed()


async def test_there_are_never_more_connections_than_allowed(database_url: str) -> None:
    database = Database(database_url, connections_max=3)
    most = 0

    async def work() -> None:
        nonlocal most
        async with database.connection(HANG_S) as connection:
            open_now = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity, pg_sleep(0.005)"
                " WHERE datname = current_database() AND application_name = 'idnode'"
            )
            most = max(most, open_now)

    await asyncio.gather(*(work() for _ in range(40)))
    assert 1 < most <= 3
    await database.close()


async def test_waiting_for_a_free_connection_ends(
    single: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_S", 0.1)
    async with single.connection(HANG_S) as connection, asyncio.timeout(HANG_S):
        with pytest.raises(RegistryUnavailableError, match="cannot be reached"):
            await _one(single)
        assert await connection.fetchval("SELECT 1") == 1
    assert await _one(single) == 1


@pytest.mark.parametrize(
    ("statement", "argument"),
    [("SELECT $1::int", "text"), ("SELECT $1::text", "\x00"), ("SELECT 1 / $1::int", 0)],
)
async def test_a_wrong_question_does_not_mean_that_the_server_is_away(
    single: Database, statement: str, argument: object
) -> None:
    with pytest.raises((asyncpg.PostgresError, ValueError)):
        async with single.connection() as connection:
            await connection.fetchval(statement, argument)
    assert single.is_up
    assert await _one(single) == 1


async def test_a_server_that_takes_no_writes_still_answers_reads(single: Database) -> None:
    with pytest.raises(RegistryUnavailableError, match="read-only"):
        async with single.connection() as connection, connection.transaction(readonly=True):
            await connection.execute("CREATE TABLE refused (n int)")
    assert single.is_up
    assert await _one(single) == 1


async def test_an_error_inside_leaves_no_transaction_open(single: Database) -> None:
    async def fail() -> None:
        async with single.connection() as connection:
            await connection.execute("BEGIN")
            await connection.execute("CREATE TABLE left_open (n int)")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await _one(single, "SELECT to_regclass('left_open') IS NULL") is True
    assert await _one(single, "SELECT pg_current_xact_id_if_assigned() IS NULL") is True


async def test_cancelled_work_gives_its_connection_back(single: Database) -> None:
    working = asyncio.create_task(_one(single, "SELECT pg_sleep(60)", HANG_S))
    await asyncio.sleep(0.1)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert single.is_up
    assert await _one(single) == 1


async def test_a_closed_pool_can_be_closed_again(single: Database) -> None:
    assert await single.ping()
    await single.close()
    await single.close()
