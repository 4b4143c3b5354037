"""Bulk registration: rows staged by COPY, then moved into the book in one statement a chunk."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from registry.database import Database, is_away, unreachable
from registry.records import Author, Refused, add_change, prefix_refusal

# One statement's worth: large enough that a row's share of the round trips vanishes, small
# enough that a kill loses little and a waiting writer waits a fraction of a second.
CHUNK_ROWS = 20_000
CHUNK_TIMEOUT_S = 120.0

StagedRow = tuple[str, str, bytes]
"""Key, handle as written, values in canonical encoding with timestamps 0."""

_STAGING = """
    CREATE TEMP TABLE IF NOT EXISTS staging
        (key text COLLATE "C", handle text COLLATE "C", data bytea) ON COMMIT DELETE ROWS"""
# Sorted, so that neighbours land on the same index pages and two writers lock in one order.
# An unchanged row is not touched: a second run over the same file writes nothing.
_MOVE = """
    WITH written AS (
        INSERT INTO identifier AS i
            (key, handle, version, first_version, change_id, changed_at, deleted, data)
        SELECT key, handle, v, v, $1, $2, false, data
        FROM (SELECT *, nextval('record_version') AS v FROM staging ORDER BY key) staged
        ON CONFLICT (key) DO UPDATE
            SET handle = excluded.handle, change_id = excluded.change_id,
                changed_at = excluded.changed_at, deleted = false, data = excluded.data
            WHERE i.deleted OR i.handle <> excluded.handle OR i.data <> excluded.data
        RETURNING version = first_version AS added
    ), counted AS (
        SELECT count(*) FILTER (WHERE added) AS added,
               count(*) FILTER (WHERE NOT added) AS changed
        FROM written
    )
    SELECT added, changed, note_registered($3, $2, added) FROM counted"""


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What a committed chunk did."""

    added: int
    changed: int
    unchanged: int


class RegistrationRefusedError(Exception):
    """Nothing may be written below this prefix now; the message says why."""


class BulkRegistration:
    """Chunks of rows into one prefix; each chunk is committed before `write` returns.

    A kill at any moment leaves whole chunks: rows of committed chunks are registered and
    announced through the outbox, the others are not there. Running the same file again adds
    what is missing and leaves the rest untouched.
    """

    def __init__(
        self, connection: "asyncpg.Connection[asyncpg.Record]", prefix_key: str, author: Author
    ) -> None:
        self._connection = connection
        self._prefix_key = prefix_key
        self._author = author
        self._change_id: int | None = None

    async def write(self, rows: Sequence[StagedRow], now_s: float) -> ChunkResult:
        """Register `rows`, whose keys differ, in one transaction.

        Raises:
            RegistrationRefusedError: if the prefix was suspended or taken away meanwhile.
            RegistryUnavailableError: if PostgreSQL went away; the chunk may or may not be there.
        """
        try:
            async with self._connection.transaction():
                refusal = await prefix_refusal(self._connection, self._prefix_key)
                if refusal is not None:
                    raise RegistrationRefusedError(_reason(refusal))
                change_id = await self._change()
                await self._connection.copy_records_to_table(
                    "staging", records=rows, timeout=CHUNK_TIMEOUT_S
                )
                moved = await self._connection.fetchrow(
                    _MOVE,
                    change_id,
                    datetime.fromtimestamp(now_s, UTC),
                    self._prefix_key,
                    timeout=CHUNK_TIMEOUT_S,
                )
                assert moved is not None
        except Exception as error:
            if is_away(error):
                raise unreachable(error) from error
            raise
        self._change_id = change_id
        written = int(moved["added"]) + int(moved["changed"])
        return ChunkResult(moved["added"], moved["changed"], len(rows) - written)

    async def _change(self) -> int:
        if self._change_id is None:
            return await add_change(self._connection, self._author)
        return self._change_id


@asynccontextmanager
async def bulk_registration(
    database: Database, prefix_key: str, author: Author
) -> AsyncIterator[BulkRegistration]:
    """A bulk registration on a connection of its own.

    Raises:
        RegistryUnavailableError: if PostgreSQL is away.
    """
    connection = await database.dedicated()
    try:
        await connection.execute(_STAGING)
        yield BulkRegistration(connection, prefix_key, author)
    finally:
        connection.terminate()


def _reason(refusal: Refused) -> str:
    return refusal.message or refusal.code.name
