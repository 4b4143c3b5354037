"""Keys of callers: shown once when created, afterwards only a SHA-256 is kept."""

import hashlib
import hmac
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from registry import applications, enterprises
from registry.database import WRITE_TIMEOUT_S, Connection, Database
from registry.records import Author, add_change
from registry.refusal import ConflictError, InvalidEntryError, UnknownEntryError

OPERATOR: Final = "operator"
ENTERPRISE: Final = "enterprise"
APPLICATION: Final = "application"
ROLES: Final = (OPERATOR, ENTERPRISE, APPLICATION)
PAGE_ROWS: Final = 1_000

# 48 random bits name a key, 256 are its secret: nobody guesses it, so a plain hash is enough.
_ID_SIZE_BYTES: Final = 6
_SECRET_SIZE_BYTES: Final = 32
_FORM: Final = re.compile(r"idn_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")

_SELECT: Final = """
    SELECT k.id, k.role, e.credit_code, k.application_id, k.created_at, k.revoked_at
    FROM api_key k LEFT JOIN enterprise e ON e.id = k.enterprise_id"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret; times are UTC."""

    id: str
    role: str
    credit_code: str | None
    application_id: str | None
    created_at: datetime
    revoked_at: datetime | None

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Who calls with a key, and what the caller may write.

    `prefixes` are the prefix keys of the caller's enterprise, suspended ones included; `sandbox`
    is true for an application whose resolutions are not counted.
    """

    key_id: str
    role: str
    application_id: str | None = None
    sandbox: bool = False
    enterprise_id: int | None = None
    prefixes: tuple[str, ...] = ()


def new_key_text() -> str:
    """A new random key: `idn_<id>_<secret>`."""
    secret = secrets.token_urlsafe(_SECRET_SIZE_BYTES)
    return f"idn_{secrets.token_hex(_ID_SIZE_BYTES)}_{secret}"


def parse_key(text: str) -> tuple[str, bytes] | None:
    """The id and the SHA-256 of the whole text, or None if it has not the form of a key."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return match[1], hashlib.sha256(text.encode("ascii")).digest()


async def create(
    database: Database, role: str, owner: str | None, *, author: Author
) -> tuple[str, ApiKey]:
    """The text of a new key, which is kept nowhere, and its entry.

    `owner` is the credit code of an enterprise, the id of an application, None for the operator.

    Raises:
        InvalidEntryError: if role and owner do not fit.
        UnknownEntryError: if there is no such owner.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    _check_role(role, owner)
    text = new_key_text()
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        enterprise_id = application_id = None
        if role == ENTERPRISE:
            enterprise_id = (await enterprises.require(connection, str(owner))).id
        elif role == APPLICATION:
            application_id = (await applications.require(connection, str(owner))).id
        key_id = await _insert(connection, text, role, enterprise_id, application_id)
        assert key_id is not None, "two keys drew the same 48 random bits"
        detail = f"key create {key_id} {role} {owner or ''}".rstrip()
        await _announce(connection, key_id, replace(author, detail=detail))
        return text, await require(connection, key_id)


async def ensure_operator_key(database: Database, key_text: str, *, author: Author) -> bool:
    """Make `key_text` a valid operator key; returns whether it was entered now.

    Raises:
        InvalidEntryError: if it has not the form of a key.
        ConflictError: if the book holds its id with another secret, another role or as revoked.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    do = "remove the operator key file and start again: a new key is made"
    parsed = parse_key(key_text)
    if parsed is None:
        raise InvalidEntryError("the operator key does not have the form idn_<id>_<secret>", do)
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        key_id = await _insert(connection, key_text, OPERATOR, None, None)
        if key_id is not None:
            detail = f"key create {key_id} {OPERATOR}"
            await _announce(connection, key_id, replace(author, detail=detail))
            return True
        owner = await find(connection, key_text)
    if owner is None or owner.role != OPERATOR:
        raise ConflictError(
            f"the operator key {parsed[0]} is revoked, or another key has its id", do
        )
    return False


async def find(connection: Connection, key_text: str) -> KeyOwner | None:
    """Who calls with this key, or None for a key that is malformed, unknown, wrong or revoked."""
    parsed = parse_key(key_text)
    return None if parsed is None else await find_parsed(connection, *parsed)


async def find_parsed(connection: Connection, key_id: str, digest: bytes) -> KeyOwner | None:
    """As `find`, for what `parse_key` returned; the digests are compared in constant time."""
    row = await connection.fetchrow(
        "SELECT k.secret_sha256, k.role, k.application_id, k.enterprise_id,"
        " coalesce(a.sandbox, false) AS sandbox,"
        " ARRAY(SELECT key FROM prefix p WHERE p.enterprise_id = k.enterprise_id ORDER BY key)"
        " AS prefixes"
        " FROM api_key k LEFT JOIN application a ON a.id = k.application_id"
        " WHERE k.id = $1 AND k.revoked_at IS NULL",
        key_id,
    )
    if row is None or not hmac.compare_digest(row["secret_sha256"], digest):
        return None
    return KeyOwner(
        key_id,
        row["role"],
        row["application_id"],
        row["sandbox"],
        row["enterprise_id"],
        tuple(row["prefixes"]),
    )


async def revoke(database: Database, key_id: str, *, author: Author) -> tuple[ApiKey, bool]:
    """The revoked key, and whether it was valid until now.

    Raises:
        UnknownEntryError: if there is no such key.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        changed = await connection.fetchval(
            "UPDATE api_key SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL"
            " RETURNING id",
            key_id,
        )
        if changed is not None:
            await _announce(connection, key_id, replace(author, detail=f"key revoke {key_id}"))
        return await require(connection, key_id), changed is not None


async def require(connection: Connection, key_id: str) -> ApiKey:
    """The key with this id.

    Raises:
        UnknownEntryError: if there is none.
    """
    row = await connection.fetchrow(f"{_SELECT} WHERE k.id = $1", key_id)
    if row is None:
        raise UnknownEntryError(
            "no key with this id is registered",
            "give the id (the 12 characters after idn_), as `idnode key list` shows it",
        )
    return ApiKey(**row)


async def page(database: Database, *, after_id: str = "", limit: int = PAGE_ROWS) -> list[ApiKey]:
    """At most `limit` keys by id, those after `after_id`."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"{_SELECT} WHERE k.id > $1 ORDER BY k.id LIMIT $2", after_id, limit
        )
    return [ApiKey(**row) for row in rows]


async def stream(database: Database) -> AsyncIterator[ApiKey]:
    """All keys by id."""
    after_id = ""
    while rows := await page(database, after_id=after_id):
        for row in rows:
            yield row
        after_id = rows[-1].id


def _check_role(role: str, owner: str | None) -> None:
    if role not in ROLES:
        raise InvalidEntryError(f"role {role!r} is not known", f"give one of {', '.join(ROLES)}")
    if (role == OPERATOR) != (owner is None):
        raise InvalidEntryError(
            f"a key of the role {role} {'has no' if role == OPERATOR else 'needs an'} owner",
            "give a credit code for an enterprise, an id for an application",
        )


async def _insert(
    connection: Connection,
    text: str,
    role: str,
    enterprise_id: int | None,
    application_id: str | None,
) -> str | None:
    parsed = parse_key(text)
    assert parsed is not None
    inserted = await connection.fetchval(
        "INSERT INTO api_key (id, secret_sha256, role, enterprise_id, application_id)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING RETURNING id",
        *parsed,
        role,
        enterprise_id,
        application_id,
    )
    return None if inserted is None else str(inserted)


async def _announce(connection: Connection, key_id: str, author: Author) -> None:
    """Into the log of changes and the outbox, in the transaction of the change."""
    await add_change(connection, author)
    await connection.execute("INSERT INTO outbox (topic, key) VALUES ('keys', $1)", key_id)
