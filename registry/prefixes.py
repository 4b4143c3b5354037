"""The prefixes that were allotted to enterprises: hosted here or run by the enterprise."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from registry import enterprises
from registry.database import WRITE_TIMEOUT_S, Connection, Database
from registry.entry_text import check_text
from registry.records import Author, add_change
from registry.refusal import ConflictError, InvalidEntryError, UnknownEntryError
from resolver.errors import InvalidIdentifierError
from resolver.identifier import PREFIX_SIZE_BYTES_MAX, check_prefix, fold

HOSTED: Final = "hosted"  # identifiers are registered and resolved here
SELF_RUN: Final = "self_run"  # the enterprise runs its own node; here only the way to it
MODES: Final = (HOSTED, SELF_RUN)
PAGE_ROWS: Final = 1_000

_DELEGABLE: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,16}){1,6}")

_SELECT: Final = """
    SELECT p.id, p.prefix, p.key, e.credit_code, e.name AS enterprise_name, p.mode,
           p.suspended_at, p.suspend_reason, p.created_at
    FROM prefix p JOIN enterprise e ON e.id = p.enterprise_id"""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix, the enterprise that holds it, and whether it may be resolved and written.

    `key` is the folded prefix; times are UTC.
    """

    id: int
    prefix: str
    key: str
    credit_code: str
    enterprise_name: str
    mode: str
    suspended_at: datetime | None
    suspend_reason: str | None
    created_at: datetime

    @property
    def is_suspended(self) -> bool:
        return self.suspended_at is not None


async def allot(
    database: Database,
    *,
    prefix: str,
    credit_code: str,
    mode: str = HOSTED,
    node_prefix: str | None,
    author: Author,
) -> tuple[Prefix, bool]:
    """The prefix, and whether it is new; the same allotment twice changes nothing.

    A prefix below or above an allotted one is a prefix of its own.

    An enterprise's prefix has three numbers at least. What a top node leaves to another node may
    have fewer: below its own prefix, and self_run.

    Raises:
        InvalidEntryError: if the prefix or the mode breaks a rule.
        ConflictError: if it is allotted to another enterprise or in another mode.
        UnknownEntryError: if there is no such enterprise.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    _check(prefix, mode, node_prefix)
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        enterprise = await enterprises.require(connection, credit_code)
        new_id = await connection.fetchval(
            "INSERT INTO prefix (prefix, key, enterprise_id, mode) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (key) DO NOTHING RETURNING id",
            prefix,
            fold(prefix),
            enterprise.id,
            mode,
        )
        present = await require(connection, prefix)
        if new_id is None:
            _require_same(present, enterprise.credit_code, mode)
            return present, False
        detail = f"prefix allot {prefix} {mode} to {enterprise.credit_code}"
        await announce(connection, present.key, replace(author, detail=detail))
        return present, True


async def suspend(
    database: Database, prefix: str, *, reason: str, author: Author
) -> tuple[Prefix, bool]:
    """The suspended prefix, and whether anything changed; a new reason keeps the first time.

    Raises:
        InvalidEntryError: for an empty reason.
        UnknownEntryError: if the prefix is not allotted.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    reason = check_text("reason", reason)
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        present = await require(connection, prefix, lock=True)
        if present.is_suspended and present.suspend_reason == reason:
            return present, False
        await connection.execute(
            "UPDATE prefix SET suspended_at = coalesce(suspended_at, now()), suspend_reason = $2"
            " WHERE id = $1",
            present.id,
            reason,
        )
        detail = f"prefix suspend {present.prefix}: {reason}"
        await announce(connection, present.key, replace(author, detail=detail))
        return await require(connection, prefix), True


async def resume(database: Database, prefix: str, *, author: Author) -> tuple[Prefix, bool]:
    """The prefix in service again, and whether it was suspended.

    Raises:
        UnknownEntryError: if the prefix is not allotted.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        present = await require(connection, prefix, lock=True)
        if not present.is_suspended:
            return present, False
        await connection.execute(
            "UPDATE prefix SET suspended_at = NULL, suspend_reason = NULL WHERE id = $1",
            present.id,
        )
        detail = f"prefix resume {present.prefix}"
        await announce(connection, present.key, replace(author, detail=detail))
        return await require(connection, prefix), True


async def require(connection: Connection, prefix: str, *, lock: bool = False) -> Prefix:
    """The allotted prefix; with `lock`, nobody else changes it before the commit.

    Raises:
        UnknownEntryError: if it is not allotted.
    """
    row = await connection.fetchrow(
        f"{_SELECT} WHERE p.key = $1{' FOR UPDATE OF p' if lock else ''}", fold(prefix)
    )
    if row is None:
        raise UnknownEntryError(
            f"the prefix {prefix!r} is not allotted",
            "look at `idnode prefix list`, or allot it with `idnode prefix allot`",
        )
    return Prefix(**row)


async def load_all(connection: Connection) -> list[Prefix]:
    """Every prefix, by key: what a worker must know to answer."""
    return [Prefix(**row) for row in await connection.fetch(f"{_SELECT} ORDER BY p.key")]


async def page(database: Database, *, after_key: str = "", limit: int = PAGE_ROWS) -> list[Prefix]:
    """At most `limit` prefixes by key, those after `after_key`."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"{_SELECT} WHERE p.key > $1 ORDER BY p.key LIMIT $2", after_key, limit
        )
    return [Prefix(**row) for row in rows]


async def stream(database: Database) -> AsyncIterator[Prefix]:
    """All prefixes by key."""
    after_key = ""
    while rows := await page(database, after_key=after_key):
        for row in rows:
            yield row
        after_key = rows[-1].key


def _check(prefix: str, mode: str, node_prefix: str | None) -> None:
    is_below = node_prefix is not None and fold(prefix).startswith(f"{fold(node_prefix)}.")
    if not (is_below and mode == SELF_RUN and _is_delegable(prefix)):
        try:
            check_prefix(prefix)
        except InvalidIdentifierError as error:
            raise InvalidEntryError(str(error), "give a prefix such as 88.608.5288") from None
    if mode not in MODES:
        raise InvalidEntryError(f"mode {mode!r} is not known", f"give {' or '.join(MODES)}")
    if node_prefix is not None and not is_below:
        raise InvalidEntryError(
            f"the prefix {prefix} is not below the prefix of this node, {node_prefix}",
            f"give a prefix that begins with {node_prefix}.",
        )


def _is_delegable(prefix: str) -> bool:
    """True for what a top node delegates: numbers joined by dots, also two of them."""
    return bool(_DELEGABLE.fullmatch(prefix)) and len(prefix) <= PREFIX_SIZE_BYTES_MAX


def _require_same(present: Prefix, credit_code: str, mode: str) -> None:
    if present.credit_code != credit_code:
        raise ConflictError(
            f"the prefix {present.prefix} is allotted to {present.enterprise_name}"
            f" ({present.credit_code})",
            "choose another prefix, or give the code of that enterprise",
        )
    if present.mode != mode:
        raise ConflictError(
            f"the prefix {present.prefix} is allotted as {present.mode}, not {mode}",
            f"give mode {present.mode}, or choose another prefix",
        )


async def announce(connection: Connection, key: str, author: Author) -> None:
    """Have the workers told of a change, in its transaction; and into the log of changes."""
    await add_change(connection, author)
    await connection.execute("INSERT INTO outbox (topic, key) VALUES ('prefixes', $1)", key)
