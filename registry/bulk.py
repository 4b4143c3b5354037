"""Bulk registration: chunks of rows by COPY, at the speed of the table they end in."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import asyncpg

from registry.database import WRITE_TIMEOUT_S, Connection, Database, is_away, unreachable
from registry.records import Author, Refused, add_change, prefix_refusal

# One transaction's worth: large enough that a row's share of the commit vanishes, small enough
# that a kill loses little and a waiting writer waits a fraction of a second.
CHUNK_ROWS = 20_000
CHUNK_TIMEOUT_S = 120.0
# Sorted rows meet other writers in one order: more than one deadlock a chunk is bad luck.
_TRIES_MAX = 5

StagedRow: TypeAlias = tuple[str, str, bytes]
"""Key, handle as written, values in canonical encoding with timestamps 0."""

_COLUMNS = ("key", "handle", "change_id", "changed_at", "deleted", "data")
_STAGING = """
    CREATE TEMP TABLE staging (
        key text COLLATE "C", handle text COLLATE "C", change_id bigint,
        changed_at timestamptz, deleted boolean, data bytea
    ) ON COMMIT DELETE ROWS"""
# Sorted, so that two writers lock in one order. An unchanged row is not touched: a second run
# over the same file writes nothing.
_MOVE = """
    WITH written AS (
        INSERT INTO identifier AS i (key, handle, change_id, changed_at, deleted, data)
        SELECT key, handle, change_id, changed_at, deleted, data FROM staging ORDER BY key
        ON CONFLICT (key) DO UPDATE
            SET handle = excluded.handle, change_id = excluded.change_id,
                changed_at = excluded.changed_at, deleted = false, data = excluded.data
            WHERE i.deleted OR i.handle <> excluded.handle OR i.data <> excluded.data
        RETURNING version = first_version AS added
    )
    SELECT count(*) FILTER (WHERE added) AS added, count(*) FILTER (WHERE NOT added) AS changed
    FROM written"""

# The binary format of COPY: PostgreSQL documentation, "COPY", File Formats.
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TAIL = b"\xff\xff"
_FIELDS = struct.pack(">h", len(_COLUMNS))
_PIECE_SIZE_BYTES = 256 * 1024
# Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's timestamps begin.
_EPOCH_US = 946_684_800_000_000


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What a committed chunk did."""

    added: int
    changed: int
    unchanged: int


class RegistrationRefusedError(Exception):
    """Nothing may be written below this prefix now; the message says why."""


class RowFormat:
    """Rows of one change in the binary format of COPY."""

    def __init__(self, change_id: int, now_s: float) -> None:
        changed_at_us = int(now_s) * 1_000_000 - _EPOCH_US
        self._between = struct.pack(">iqiqi?i", 8, change_id, 8, changed_at_us, 1, False, 0)[:-4]

    def row(self, key: bytes, handle: bytes, data: bytes) -> bytes:
        """One row; `key` and `handle` in UTF-8."""
        return b"".join(
            (
                _FIELDS,
                len(key).to_bytes(4, "big"),
                key,
                len(handle).to_bytes(4, "big"),
                handle,
                self._between,
                len(data).to_bytes(4, "big"),
                data,
            )
        )


class BulkRegistration:
    """Chunks of rows into one prefix; each chunk is committed before `write` returns.

    A chunk of new identifiers is copied straight into the book. Where one of them is there
    already the whole chunk goes through a staging table instead, and so do the next ones until
    a chunk is all new again.

    A kill at any moment leaves whole chunks: rows of committed chunks are registered and
    announced through the outbox, the others are not there. Running the same file again adds
    what is missing and leaves the rest untouched.
    """

    def __init__(self, connection: Connection, prefix_key: str, change_id: int) -> None:
        self._connection = connection
        self._prefix_key = prefix_key
        self._all_new = True
        self.change_id = change_id

    async def write(self, rows: Sequence[StagedRow], now_s: float) -> ChunkResult:
        """Register `rows`, whose keys differ. Raises as `write_formatted`."""
        form = RowFormat(self.change_id, now_s)
        formatted = (form.row(key.encode(), handle.encode(), data) for key, handle, data in rows)
        return await self.write_formatted(formatted, len(rows), now_s)

    async def write_formatted(
        self, rows: Iterable[bytes], number: int, now_s: float
    ) -> ChunkResult:
        """Register `number` rows from `RowFormat`, whose keys differ, in one transaction.

        Raises:
            RegistrationRefusedError: if the prefix was suspended or taken away meanwhile.
            RegistryUnavailableError: if PostgreSQL went away; the chunk may or may not be there.
        """
        payload = b"".join((_COPY_HEAD, *rows, _COPY_TAIL))
        # Cut, not waited for: asyncpg would ask a silent server to cancel and to roll back.
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(CHUNK_TIMEOUT_S, self._connection.terminate)
        try:
            return await self._written(payload, number, now_s)
        except Exception as error:
            if is_away(error):
                raise unreachable(error) from error
            raise
        finally:
            deadline.cancel()

    async def _written(self, payload: bytes, number: int, now_s: float) -> ChunkResult:
        for tries_left in reversed(range(_TRIES_MAX)):
            write = self._copied if self._all_new else self._moved
            try:
                result = await write(payload, number, now_s)
                break
            except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
                # One of them is there already, or another writer has them in another order.
                self._all_new = False
                if not tries_left:
                    raise
        self._all_new = result.added == number
        return result

    async def _copied(self, payload: bytes, number: int, now_s: float) -> ChunkResult:
        async with self._connection.transaction():
            await self._begin()
            await self._copy("identifier", payload)
            await self._note_registered(number, now_s)
        return ChunkResult(number, 0, 0)

    async def _moved(self, payload: bytes, number: int, now_s: float) -> ChunkResult:
        async with self._connection.transaction():
            await self._begin()
            await self._copy("staging", payload)
            moved = await self._connection.fetchrow(_MOVE)
            assert moved is not None
            await self._note_registered(moved["added"], now_s)
        written = int(moved["added"]) + int(moved["changed"])
        return ChunkResult(moved["added"], moved["changed"], number - written)

    async def _begin(self) -> None:
        refusal = await prefix_refusal(self._connection, self._prefix_key)
        if refusal is not None:
            raise RegistrationRefusedError(_reason(refusal))

    async def _copy(self, table: str, payload: bytes) -> None:
        await self._connection.copy_to_table(
            table, source=_pieces(payload), columns=_COLUMNS, format="binary"
        )

    async def _note_registered(self, number: int, now_s: float) -> None:
        await self._connection.execute(
            "SELECT note_registered($1, $2, $3)",
            self._prefix_key,
            datetime.fromtimestamp(now_s, UTC),
            number,
        )


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
        yield BulkRegistration(connection, prefix_key, await _begun(connection, author))
    finally:
        connection.terminate()


async def _begun(connection: Connection, author: Author) -> int:
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await connection.execute(_STAGING)
            return await add_change(connection, author)
    except Exception as error:
        if is_away(error):
            raise unreachable(error) from error
        raise


async def _pieces(payload: bytes) -> AsyncIterator[bytes]:
    """In pieces, so that the server inserts the first rows while the last are on their way."""
    for start in range(0, len(payload), _PIECE_SIZE_BYTES):
        yield payload[start : start + _PIECE_SIZE_BYTES]


def _reason(refusal: Refused) -> str:
    return refusal.message or refusal.code.name
