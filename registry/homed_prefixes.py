"""The prefixes that this node answers for itself, without an enterprise to which they belong."""

import re
from dataclasses import replace
from typing import Final

from registry.database import WRITE_TIMEOUT_S, Connection, Database
from registry.prefixes import HOSTED, announce
from registry.records import Author
from registry.refusal import ConflictError, InvalidEntryError
from resolver.identifier import PREFIX_HANDLE_PREFIX, PREFIX_SIZE_BYTES_MAX, fold

# Wider than what is allotted: prefixes of other countries have letters, and the top one has one
# number.
_FORM: Final = re.compile(r"[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*")


async def home(database: Database, prefix: str, author: Author) -> bool:
    """Answer for a prefix from now on; True unless this node did so before.

    `prefix` may be written as its prefix handle, `0.NA/88.102` or, as other servers have it who
    home prefixes and prefix handles apart, `0.NA/0.NA/88.102`.

    Raises:
        InvalidEntryError: if nothing can have this prefix.
        ConflictError: if it is allotted to an enterprise that runs its own node.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    prefix = _checked(prefix)
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        mode = await connection.fetchval("SELECT mode FROM prefix WHERE key = $1", fold(prefix))
        if mode is not None:
            _require_hosted(prefix, mode)
            return False
        new_key = await connection.fetchval(
            "INSERT INTO homed_prefix (key, prefix) VALUES ($1, $2)"
            " ON CONFLICT (key) DO NOTHING RETURNING key",
            fold(prefix),
            prefix,
        )
        if new_key is None:
            return False
        await announce(connection, new_key, replace(author, detail=f"prefix home {prefix}"))
        return True


async def unhome(database: Database, prefix: str, author: Author) -> bool:
    """Answer for a prefix no more; True unless this node did not.

    Raises:
        InvalidEntryError: if nothing can have this prefix.
        ConflictError: while identifiers are registered below it, or if it is allotted.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    prefix = _checked(prefix)
    key = fold(prefix)
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        # Whoever writes below it holds the row: either the identifier is seen here, or refused.
        gone = await connection.fetchval(
            "DELETE FROM homed_prefix WHERE key = $1 RETURNING key", key
        )
        is_allotted = await connection.fetchval("SELECT true FROM prefix WHERE key = $1", key)
        if is_allotted:
            raise ConflictError(
                f"the prefix {prefix} is allotted to an enterprise",
                f"suspend it with `idnode prefix suspend {prefix}`",
            )
        if gone is None:
            return False
        await _require_empty(connection, prefix)
        await announce(connection, key, replace(author, detail=f"prefix unhome {prefix}"))
        return True


async def load_all(connection: Connection) -> list[str]:
    """Every homed prefix as it is written, by key."""
    rows = await connection.fetch("SELECT prefix FROM homed_prefix ORDER BY key")
    return [row["prefix"] for row in rows]


def _checked(prefix: str) -> str:
    while fold(prefix).startswith(f"{PREFIX_HANDLE_PREFIX}/"):
        prefix = prefix.partition("/")[2]
    is_prefix = _FORM.fullmatch(prefix) and len(prefix) <= PREFIX_SIZE_BYTES_MAX
    if not is_prefix or fold(prefix) == PREFIX_HANDLE_PREFIX:
        raise InvalidEntryError(
            f"{prefix!r} is no prefix: expected at most {PREFIX_SIZE_BYTES_MAX} letters and digits"
            " joined by dots",
            "give a prefix such as 88.608",
        )
    return prefix


def _require_hosted(prefix: str, mode: str) -> None:
    if mode != HOSTED:
        raise ConflictError(
            f"the prefix {prefix} is run by its enterprise node",
            "look at `idnode prefix list`",
        )


async def _require_empty(connection: Connection, prefix: str) -> None:
    found = await connection.fetchval(
        "SELECT handle FROM identifier WHERE key >= $1 AND key < $2 AND NOT deleted LIMIT 1",
        f"{fold(prefix)}/",
        f"{fold(prefix)}0",  # the character after "/"
    )
    if found is not None:
        raise ConflictError(
            f"identifiers are registered below {prefix}, such as {found}",
            "delete them first",
        )
