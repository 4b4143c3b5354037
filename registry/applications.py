"""The applications that resolve through this node: the register behind measures 1, 2 and 12."""

import re
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from registry.database import WRITE_TIMEOUT_S, Connection, Database
from registry.entry_text import check_text
from registry.place_code import check_place
from registry.records import Author, add_change
from registry.refusal import ConflictError, InvalidEntryError, UnknownEntryError

PAGE_ROWS: Final = 1_000

# What an application does, as the measures name it (Chinese, English). The first five are those
# of measure 1, the next seven those of measure 12 of Guangxi's measures of 2020, in its words.
KINDS: Final = {
    "supply-chain": ("供应链管理", "supply chain management"),
    "in-plant-logistics": ("工厂内物流", "in-plant logistics"),
    "traceability": ("关键产品追溯", "key product traceability"),
    "customization": ("个性化定制", "customization"),
    "lifecycle": ("全生命周期管理", "lifecycle management"),
    "research": ("研发设计", "research and design"),
    "manufacturing": ("生产制造", "manufacturing"),
    "management": ("经营管理", "business management"),
    "logistics": ("物流配送", "logistics and distribution"),
    "after-sales": ("售后服务", "after-sales service"),
    "energy-saving": ("节能减排", "energy saving"),
    "safety": ("安全生产", "work safety"),
    "other": ("其他", "other"),
}


@dataclass(frozen=True, slots=True)
class ApplicationType:
    """How an application reaches its users; `code` as tables T5 and T10 want it.

    Source: docking agreement, annex 1, table T5.
    """

    code: int
    chinese: str
    english: str


TYPES: Final = {
    "app": ApplicationType(1, "APP", "app"),
    "mini-program": ApplicationType(2, "小程序", "mini program"),
    "web": ApplicationType(3, "网页", "web page"),
    "pc": ApplicationType(4, "PC客户端", "PC client"),
    "other": ApplicationType(5, "其他", "other"),
}

# Any fixed number: one entry at a time, so that one application cannot be entered twice.
_LOCK: Final = 0x61707069
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COLUMNS: Final = (
    "id, name, kind, type, owner, division, country, contract_sha256, sandbox, created_at"
)


@dataclass(frozen=True, slots=True)
class Application:
    """An application and whose it is.

    `division` is None abroad; `contract_sha256` is the digest of the contract's file in hex;
    resolutions of a sandbox are shown but never counted. `created_at` is UTC.
    """

    id: str
    name: str
    kind: str
    type: str
    owner: str
    division: str | None
    country: str
    contract_sha256: str | None
    sandbox: bool
    created_at: datetime


async def add(
    database: Database,
    *,
    name: str,
    kind: str,
    owner: str,
    type_: str = "other",
    division: str | None = None,
    country: str | None = None,
    contract_sha256: str | None = None,
    sandbox: bool = False,
    author: Author,
) -> tuple[Application, bool]:
    """The application, and whether it is new; the same entry twice changes nothing.

    One owner's application of one name is one row: entered twice it would count twice.

    Raises:
        InvalidEntryError: if an entry breaks a rule.
        ConflictError: if the owner already has an application of this name, entered differently.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    name, owner = check_text("name", name), check_text("owner", owner)
    place = check_place(division, country)
    _check_word("kind", kind, KINDS)
    _check_word("type", type_, TYPES)
    digest = None if contract_sha256 is None else check_sha256(contract_sha256)
    entry = (name, kind, type_, owner, place.division, place.country, digest, sandbox)
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        present = await _find_twin(connection, name, owner)
        if present is not None:
            _require_same(present, entry)
            return present, False
        row = await connection.fetchrow(
            f"INSERT INTO application ({_COLUMNS})"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now())"
            f" RETURNING {_COLUMNS}",
            await _next_id(connection),
            *entry,
        )
        assert row is not None
        await add_change(connection, replace(author, detail=f"application add {row['id']}"))
        return Application(**row), True


async def set_contract(
    database: Database,
    application_id: str,
    contract_sha256: str,
    *,
    author: Author,
) -> tuple[Application, bool]:
    """The application with the digest of its contract, and whether it changed.

    The digest that was there before stays in the log of changes.

    Raises:
        InvalidEntryError: if the digest is not 64 hex digits.
        UnknownEntryError: if there is no such application.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    digest = check_sha256(contract_sha256)
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        present = await require(connection, application_id, lock=True)
        if present.contract_sha256 == digest:
            return present, False
        await connection.execute(
            "UPDATE application SET contract_sha256 = $2 WHERE id = $1", present.id, digest
        )
        detail = (
            f"application contract {present.id}: {present.contract_sha256 or 'none'} -> {digest}"
        )
        await add_change(connection, replace(author, detail=detail))
        return replace(present, contract_sha256=digest), True


async def require(
    connection: Connection, application_id: str, *, lock: bool = False
) -> Application:
    """The application; with `lock`, nobody else changes it before the commit.

    Raises:
        UnknownEntryError: if there is none of this id.
    """
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM application WHERE id = $1{' FOR UPDATE' if lock else ''}",
        application_id.strip().lower(),
    )
    if row is None:
        raise UnknownEntryError(
            f"no application {application_id!r} is registered",
            "look at `idnode application list`, or add it with `idnode application add`",
        )
    return Application(**row)


async def page(
    database: Database, *, after_id: str = "", limit: int = PAGE_ROWS
) -> list[Application]:
    """At most `limit` applications in the order of entry, those after `after_id`."""
    async with database.connection() as connection:
        # Longer ids come later: app-1000000 follows app-999999.
        rows = await connection.fetch(
            f"SELECT {_COLUMNS} FROM application"
            " WHERE (length(id), id) > (length($1::text), $1::text)"
            " ORDER BY length(id), id LIMIT $2",
            after_id,
            limit,
        )
    return [Application(**row) for row in rows]


async def stream(database: Database) -> AsyncIterator[Application]:
    """All applications in the order of entry."""
    after_id = ""
    while rows := await page(database, after_id=after_id):
        for row in rows:
            yield row
        after_id = rows[-1].id


def check_sha256(text: str) -> str:
    """A SHA-256 in lower-case hex.

    Raises:
        InvalidEntryError: if it is not 64 hex digits.
    """
    digest = text.strip().lower()
    if not _SHA256.fullmatch(digest):
        raise InvalidEntryError(
            f"contract digest {text!r} is not 64 hex digits",
            "give the contract's file, or the output of sha256sum",
        )
    return digest


async def _find_twin(connection: Connection, name: str, owner: str) -> Application | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM application WHERE name = $1 AND owner = $2", name, owner
    )
    return None if row is None else Application(**row)


async def _next_id(connection: Connection) -> str:
    number = await connection.fetchval("SELECT nextval('application_number')")
    return f"app-{number:06d}"


def _check_word(what: str, word: str, known: Collection[str]) -> None:
    if word not in known:
        raise InvalidEntryError(
            f"application {what} {word!r} is not known", f"give one of {', '.join(known)}"
        )


def _require_same(present: Application, entry: tuple[object, ...]) -> None:
    p = present
    stored = (p.name, p.kind, p.type, p.owner, p.division, p.country, p.contract_sha256, p.sandbox)
    if stored != entry:
        raise ConflictError(
            f"{p.owner} already has the application {p.name!r} as {p.id}, entered differently",
            "give it another name, or enter it as it is; set a contract with"
            " `idnode application contract`",
        )
