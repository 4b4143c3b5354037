"""Records in PostgreSQL: read one or many, create, change, delete, list, and their history."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

from registry.database import WRITE_TIMEOUT_S, Connection, Database
from resolver.errors import InvalidValueError
from resolver.identifier import PREFIX_HANDLE_PREFIX, Identifier, fold
from resolver.prefix_directory import NOT_HERE, derived_from
from resolver.record import (
    HandleValue,
    Record,
    check_values,
    merge_values,
    values_to_wire,
)
from resolver.response_code import ResponseCode

LIST_PAGE_SIZE_MAX = 10_000
# A writer that loses this many races for one new identifier gives up.
_RACES_MAX = 5

_COLUMNS = "key, handle, version, deleted, data, changed_at"
_FETCH = f"SELECT {_COLUMNS} FROM identifier WHERE key = $1"
# With LIMIT each key is a look-up in the index of its partition. As a join, planned for a thousand
# keys, all partitions were read from end to end: 80 ms instead of 3 ms in a book of 100,000.
_FETCH_MANY = f"""
    SELECT found.* FROM unnest($1::text[]) AS asked (key),
        LATERAL (SELECT {_COLUMNS} FROM identifier WHERE key = asked.key LIMIT 1) found"""
_VERSIONS = """
    SELECT found.* FROM unnest($1::text[]) AS asked (key),
        LATERAL (SELECT key, version FROM identifier WHERE key = asked.key LIMIT 1) found"""


@dataclass(frozen=True, slots=True)
class Written:
    """A write that was done: committed, durable and in the outbox.

    `created` is true where nothing (or only a deleted record) was there before, or where values
    were only added; `changed` is false if the record was already exactly so.
    """

    record: Record
    created: bool
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """A write that was not done, and changed nothing."""

    code: ResponseCode
    message: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One version of a record: who wrote it, when, through which door, and what it then held."""

    record: Record
    actor: str
    door: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes: an actor such as `key:3f…` or `cli:root`, and the door."""

    actor: str
    door: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Permit:
    """What must still hold in the transaction of a write that was found to be allowed.

    `refusal` is asked under the lock of the record, which it is given unless it was deleted, and
    says why it may not be written so; it may raise OvertakenError. `versions` are those of other
    records that the decision rests on, by key, 0 where there was none.
    """

    refusal: Callable[[Record | None], Refused | None]
    versions: Mapping[str, int] = field(default_factory=dict)


class OvertakenError(Exception):
    """What allowed a write was changed before it was done: nothing was written, decide again."""


class _RacedError(Exception):
    """Somebody else created the record in the meantime."""


_Row = asyncpg.Record | None
_Write = Callable[[Connection, _Row], Awaitable[Written | Refused]]


class PostgresRecords:
    """The truth: implements the resolver's RecordSource, and the writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def is_up(self) -> bool:
        """False while PostgreSQL is known to be away."""
        return self._database.is_up

    async def fetch(self, key: str) -> Record | None:
        """The record under `key`, deleted ones included, or None if there never was one.

        Raises:
            RegistryUnavailableError: if PostgreSQL does not answer.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_FETCH, key)
        return None if row is None else _record(row)

    async def fetch_many(self, keys: Sequence[str]) -> dict[str, Record]:
        """The records under `keys` that exist, in one statement.

        Raises:
            RegistryUnavailableError: if PostgreSQL does not answer.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(_FETCH_MANY, keys)
        return {row["key"]: _record(row) for row in rows}

    async def put(
        self,
        identifier: Identifier,
        values: Sequence[HandleValue],
        author: Author,
        now_s: float,
        *,
        overwrite: bool = True,
        permit: Permit | None = None,
    ) -> Written | Refused:
        """Make `values` the whole record of `identifier`.

        A crash before the commit leaves nothing; after it, the record and its outbox row are
        there, so that a worker publishes it even if this one never does.

        Raises:
            OvertakenError: if what `permit` rests on has changed; nothing was written.
            RegistryUnavailableError: if PostgreSQL does not answer.
        """
        data = values_to_wire(values)

        async def write(connection: Connection, old: _Row) -> Written | Refused:
            if old is None:
                version = await _insert(connection, identifier, data, author, now_s)
                return Written(_new(identifier, version, data, now_s), created=True)
            if not old["deleted"] and not overwrite:
                return Refused(ResponseCode.HANDLE_ALREADY_EXISTS)
            is_same = old["data"] == data and old["handle"] == identifier.text
            if not old["deleted"] and is_same:
                return Written(_record(old), created=False, changed=False)
            version = await _update(connection, identifier, data, author, now_s)
            return Written(_new(identifier, version, data, now_s), created=old["deleted"])

        return await self._in_prefix(identifier, permit, write)

    async def put_values(
        self,
        identifier: Identifier,
        values: Sequence[HandleValue],
        author: Author,
        now_s: float,
        *,
        overwrite: bool = True,
        permit: Permit | None = None,
    ) -> Written | Refused:
        """Add `values` to a record, or put them in the place of those with their indexes.

        Raises as `put`.
        """

        async def write(connection: Connection, old: _Row) -> Written | Refused:
            if old is None or old["deleted"]:
                return Refused(ResponseCode.HANDLE_NOT_FOUND)
            present = _record(old)
            taken = {value.index for value in present.values}
            conflicts = [value.index for value in values if value.index in taken]
            if conflicts and not overwrite:
                return Refused(
                    ResponseCode.VALUE_ALREADY_EXISTS, f"Index conflict for {conflicts[0]}"
                )
            merged = await _merge(connection, identifier, present, values, author, now_s)
            if isinstance(merged, Refused):
                return merged
            return Written(merged, created=not conflicts)

        return await self._in_prefix(identifier, permit, write)

    async def modify_values(
        self,
        identifier: Identifier,
        values: Sequence[HandleValue],
        author: Author,
        now_s: float,
        *,
        permit: Permit | None = None,
    ) -> Written | Refused:
        """Put `values` in the place of those with their indexes; if one is missing, none is.

        Raises as `put`.
        """

        async def write(connection: Connection, old: _Row) -> Written | Refused:
            if old is None or old["deleted"]:
                return Refused(ResponseCode.HANDLE_NOT_FOUND)
            present = _record(old)
            if not {one.index for one in values} <= {one.index for one in present.values}:
                return Refused(ResponseCode.VALUES_NOT_FOUND)
            merged = await _merge(connection, identifier, present, values, author, now_s)
            return merged if isinstance(merged, Refused) else Written(merged, created=False)

        return await self._in_prefix(identifier, permit, write)

    async def remove_values(
        self,
        identifier: Identifier,
        indexes: Iterable[int],
        author: Author,
        now_s: float,
        *,
        permit: Permit | None = None,
    ) -> Written | Refused:
        """Remove the values with `indexes`; if one of them is missing, nothing is removed.

        Raises as `put`.
        """
        gone = set(indexes)

        async def write(connection: Connection, old: _Row) -> Written | Refused:
            if old is None or old["deleted"]:
                return Refused(ResponseCode.HANDLE_NOT_FOUND)
            present = _record(old)
            if not gone <= {value.index for value in present.values}:
                return Refused(ResponseCode.VALUES_NOT_FOUND)
            data = values_to_wire(value for value in present.values if value.index not in gone)
            kept = _spelled(identifier, present)
            version = await _update(connection, kept, data, author, now_s)
            return Written(_new(kept, version, data, now_s), created=False)

        return await self._in_prefix(identifier, permit, write)

    async def delete(
        self,
        identifier: Identifier,
        author: Author,
        now_s: float,
        *,
        permit: Permit | None = None,
    ) -> Written | Refused:
        """Delete the record; its version and history stay. Raises as `put`."""

        async def write(connection: Connection, old: _Row) -> Written | Refused:
            if old is None or old["deleted"]:
                return Refused(ResponseCode.HANDLE_NOT_FOUND)
            kept = _spelled(identifier, _record(old))
            version = await _update(connection, kept, b"", author, now_s, deleted=True)
            gone = Record(kept.text, version, b"", int(now_s), deleted=True)
            return Written(gone, created=False)

        return await self._in_prefix(identifier, permit, write)

    async def list_page(self, prefix_key: str, page: int, page_size: int) -> list[str]:
        """Identifiers below a prefix as they are written, in key order; deleted ones left out."""
        async with self._database.connection(WRITE_TIMEOUT_S) as connection:
            rows = await connection.fetch(
                "SELECT handle FROM identifier WHERE key >= $1 AND key < $2 AND NOT deleted"
                " ORDER BY key OFFSET $3 LIMIT $4",
                *_key_range(prefix_key),
                page * page_size,
                page_size,
            )
        return [row["handle"] for row in rows]

    async def list_all(self, prefix_key: str, page_size: int) -> AsyncIterator[list[str]]:
        """Pages of all identifiers below a prefix, as `list_page`; the last one may be empty."""
        after, end = _key_range(prefix_key)
        while True:
            async with self._database.connection(WRITE_TIMEOUT_S) as connection:
                rows = await connection.fetch(
                    "SELECT key, handle FROM identifier"
                    " WHERE key > $1 AND key < $2 AND NOT deleted ORDER BY key LIMIT $3",
                    after,
                    end,
                    page_size,
                )
            yield [row["handle"] for row in rows]
            if len(rows) < page_size:
                return
            after = rows[-1]["key"]

    async def scan(
        self, prefix_key: str | None = None, page_size: int = 2_000
    ) -> AsyncIterator[Record]:
        """Every record that is not deleted, in key order, page by page (memory stays flat)."""
        after, end = _key_range(prefix_key) if prefix_key else ("", "\U0010ffff")
        while True:
            async with self._database.connection(WRITE_TIMEOUT_S) as connection:
                rows = await connection.fetch(
                    f"SELECT {_COLUMNS} FROM identifier"
                    " WHERE key > $1 AND key < $2 AND NOT deleted ORDER BY key LIMIT $3",
                    after,
                    end,
                    page_size,
                )
            for row in rows:
                yield _record(row)
            if len(rows) < page_size:
                return
            after = rows[-1]["key"]

    async def count(self, prefix_key: str | None = None) -> int:
        """Identifiers registered and not deleted, of one prefix or of all."""
        async with self._database.connection() as connection:
            total = await connection.fetchval(
                "SELECT coalesce(sum(added - removed), 0)::bigint FROM registration_tally"
                " WHERE $1::text IS NULL OR prefix_key = $1",
                prefix_key,
            )
        return int(total)

    async def history(self, key: str) -> list[HistoryEntry]:
        """Every version of a record, oldest first; each is the next one's before."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {_COLUMNS}, actor, door, at FROM ("
                f" SELECT {_COLUMNS}, change_id FROM identifier_history WHERE key = $1"
                f" UNION ALL SELECT {_COLUMNS}, change_id FROM identifier WHERE key = $1"
                ") versions JOIN change ON change.id = change_id ORDER BY version",
                key,
            )
        return [HistoryEntry(_record(row), row["actor"], row["door"], row["at"]) for row in rows]

    async def _in_prefix(
        self, identifier: Identifier, permit: Permit | None, write: _Write
    ) -> Written | Refused:
        """Do `write` with the locked row, if the prefix is open and `permit` still holds."""
        async with self._database.connection(WRITE_TIMEOUT_S) as connection:
            for _ in range(_RACES_MAX):
                try:
                    async with connection.transaction():
                        refused = await prefix_refusal(
                            connection, identifier.prefix_key, identifier.suffix
                        )
                        if refused is not None:
                            return refused
                        old = await connection.fetchrow(_FETCH + " FOR UPDATE", identifier.key)
                        if permit is not None:
                            refused = await _refusal_by(connection, permit, old)
                        return refused or await write(connection, old)
                except (asyncpg.DeadlockDetectedError, _RacedError):
                    await asyncio.sleep(0)
        return Refused(ResponseCode.SERVER_TOO_BUSY, "Too many writers of this identifier")


def refusal_of_values(values: Sequence[HandleValue]) -> Refused | None:
    """Why values cannot be of one record, or None: what they hold, or two under one index."""
    try:
        check_values(values)
    except InvalidValueError as error:
        return Refused(ResponseCode.INVALID_VALUE, str(error))
    seen: set[int] = set()
    for value in values:
        if value.index in seen:
            message = f"Index conflict for {value.index}"
            return Refused(ResponseCode.VALUE_ALREADY_EXISTS, message)
        seen.add(value.index)
    return None


async def prefix_refusal(
    connection: Connection, prefix_key: str, suffix: str = ""
) -> Refused | None:
    """Why nothing may be written below a prefix now, or None; holds the prefix until commit.

    `suffix` is needed of a prefix handle alone: it may be written for whatever lives here, and for
    what is derived from a prefix that is hosted or homed here.
    """
    is_handle = prefix_key == PREFIX_HANDLE_PREFIX
    key = fold(suffix) if is_handle else prefix_key
    keys = [key, *derived_from(key)] if is_handle and "/" not in key else [key]
    found = await _nearest(connection, keys)
    if found is None:
        return Refused(ResponseCode.SERVER_NOT_RESPONSIBLE, NOT_HERE)
    if found["suspended_at"] is not None:
        return Refused(ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix is suspended")
    is_own_handle = is_handle and found["key"] == key
    if found["mode"] == "self_run" and not is_own_handle:
        return Refused(
            ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix is run by its enterprise node"
        )
    return None


async def _nearest(connection: Connection, keys: Sequence[str]) -> asyncpg.Record | None:
    """The first of `keys` that is allotted or homed, held until commit."""
    allotted = await connection.fetch(
        "SELECT key, mode, suspended_at FROM prefix WHERE key = ANY($1) ORDER BY key FOR SHARE",
        keys,
    )
    homed: Sequence[asyncpg.Record] = []
    if not allotted or allotted[-1]["key"] != keys[0]:
        homed = await connection.fetch(
            "SELECT key, 'homed' AS mode, NULL AS suspended_at FROM homed_prefix"
            " WHERE key = ANY($1) ORDER BY key FOR SHARE",
            keys,
        )
    # Each is the beginning of the next: the longest is the nearest, and an allotment goes before.
    return max((*allotted, *homed), key=lambda row: len(row["key"]), default=None)


def merged_values(
    present: Record, values: Sequence[HandleValue]
) -> tuple[HandleValue, ...] | Refused:
    """All values of a record after `values` were added or put in place, unless it is too large."""
    merged = merge_values(present.values, values)
    try:
        check_values(merged)
    except InvalidValueError as error:
        return Refused(ResponseCode.INVALID_VALUE, str(error))
    return merged


async def add_change(connection: Connection, author: Author) -> int:
    """Write down who changes the book; returns the number of the change."""
    return int(
        await connection.fetchval(
            "INSERT INTO change (actor, door, detail) VALUES ($1, $2, $3) RETURNING id",
            author.actor,
            author.door,
            author.detail,
        )
    )


async def _refusal_by(connection: Connection, permit: Permit, old: _Row) -> Refused | None:
    """Why `permit` does not hold for the locked row, or None."""
    if permit.versions:
        rows = await connection.fetch(_VERSIONS, list(permit.versions))
        found = {row["key"]: row["version"] for row in rows}
        if any(found.get(key, 0) != version for key, version in permit.versions.items()):
            raise OvertakenError
    return permit.refusal(None if old is None or old["deleted"] else _record(old))


async def _merge(
    connection: Connection,
    identifier: Identifier,
    present: Record,
    values: Sequence[HandleValue],
    author: Author,
    now_s: float,
) -> Record | Refused:
    """The record with `values` added or put in place, as it was written."""
    merged = merged_values(present, values)
    if isinstance(merged, Refused):
        return merged
    data = values_to_wire(merged)
    kept = _spelled(identifier, present)
    version = await _update(connection, kept, data, author, now_s)
    return _new(kept, version, data, now_s)


async def _insert(
    connection: Connection,
    identifier: Identifier,
    data: bytes,
    author: Author,
    now_s: float,
) -> int:
    change_id = await add_change(connection, author)
    version = await connection.fetchval(
        "INSERT INTO identifier"
        " (key, handle, change_id, changed_at, deleted, data)"
        " VALUES ($1, $2, $3, $4, false, $5)"
        " ON CONFLICT (key) DO NOTHING RETURNING version",
        identifier.key,
        identifier.text,
        change_id,
        _at(now_s),
        data,
    )
    if version is None:
        raise _RacedError
    await connection.execute("SELECT note_registered($1, $2, 1)", identifier.prefix_key, _at(now_s))
    return int(version)


async def _update(
    connection: Connection,
    identifier: Identifier,
    data: bytes,
    author: Author,
    now_s: float,
    *,
    deleted: bool = False,
) -> int:
    # The trigger keeps the old row as history, takes the version and writes the outbox row.
    return int(
        await connection.fetchval(
            "UPDATE identifier SET handle = $2, change_id = $3, changed_at = $4, deleted = $5,"
            " data = $6 WHERE key = $1 RETURNING version",
            identifier.key,
            identifier.text,
            await add_change(connection, author),
            _at(now_s),
            deleted,
            data,
        )
    )


def _record(row: asyncpg.Record) -> Record:
    stamp_s = int(row["changed_at"].timestamp())
    return Record(row["handle"], row["version"], row["data"], stamp_s, row["deleted"])


def _new(identifier: Identifier, version: int, data: bytes, now_s: float) -> Record:
    return Record(identifier.text, version, data, int(now_s))


def _spelled(identifier: Identifier, record: Record) -> Identifier:
    """The identifier in the spelling under which it was registered."""
    return Identifier(record.handle, identifier.key, identifier.prefix, identifier.suffix)


def _at(now_s: float) -> datetime:
    return datetime.fromtimestamp(now_s, UTC)


def _key_range(prefix_key: str) -> tuple[str, str]:
    # "0" is the character after "/": every key prefix/… lies between.
    return f"{fold(prefix_key)}/", f"{fold(prefix_key)}0"
