"""The enterprises that the node serves: who they are and what they hold."""

import string
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from stdnum.cn import uscc

from registry.database import WRITE_TIMEOUT_S, Connection, Database
from registry.entry_text import check_text
from registry.place_code import CHINA, Place, check_place
from registry.records import Author, add_change
from registry.refusal import ConflictError, InvalidEntryError, UnknownEntryError

# GB 32100-2015: no I, O, S, V, Z, which are taken for digits and for each other.
_CREDIT_CODE_CHARACTERS: Final = frozenset("0123456789ABCDEFGHJKLMNPQRTUWXY")
_CREDIT_CODE_LENGTH: Final = 18
# Longer than every register number abroad (an LEI has 20 characters).
REGISTRATION_NUMBER_LENGTH_MAX: Final = 64
# Rows fetched at a time when all are listed: memory stays flat.
PAGE_ROWS: Final = 1_000

_COLUMNS: Final = "id, name, credit_code, division, country, created_at"


@dataclass(frozen=True, slots=True)
class Enterprise:
    """An enterprise node of this secondary node.

    `credit_code` is the unified social credit code, abroad the number of the local register;
    `division` is None abroad. `created_at` is UTC.
    """

    id: int
    name: str
    credit_code: str
    division: str | None
    country: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Holding:
    """A prefix of an enterprise and how many identifiers are registered below it."""

    prefix: str
    mode: str
    suspended: bool
    identifiers: int


@dataclass(frozen=True, slots=True)
class EnterpriseAccount:
    """An enterprise and its prefixes."""

    enterprise: Enterprise
    holdings: tuple[Holding, ...]

    @property
    def identifiers(self) -> int:
        return sum(holding.identifiers for holding in self.holdings)


def check_credit_code(text: str) -> str:
    """A unified social credit code as it is stored: 18 characters, upper case.

    Raises:
        InvalidEntryError: says which character is wrong, or which check character was expected.

    Source: GB 32100-2015. The authority letters (such as N for rural collectives) are accepted.
    """
    code = uscc.compact(text)
    do = "copy the code from the business licence"
    if len(code) != _CREDIT_CODE_LENGTH:
        raise InvalidEntryError(
            f"credit code {text!r} has {len(code)} characters, {_CREDIT_CODE_LENGTH} are expected",
            do,
        )
    for position, character in enumerate(code, start=1):
        if character not in _CREDIT_CODE_CHARACTERS:
            expected = "digits and capital letters except I, O, S, V, Z are expected"
        elif 3 <= position <= 8 and character not in string.digits:
            expected = "characters 3 to 8 are the digits of a division"
        else:
            continue
        raise InvalidEntryError(
            f"credit code {code!r} has {character!r} at position {position}: {expected}", do
        )
    wanted = uscc.calc_check_digit(code[:-1])
    if code[-1] != wanted:
        raise InvalidEntryError(
            f"credit code {code!r} ends with {code[-1]!r}, but its check character is {wanted!r}:"
            " one character is wrong",
            do,
        )
    return code


def normal_code(text: str) -> str:
    """The spelling under which a credit code or foreign registration number is looked up."""
    try:
        return check_credit_code(text)
    except InvalidEntryError:
        return text.strip()


async def add(
    database: Database,
    *,
    name: str,
    credit_code: str,
    division: str | None,
    country: str = CHINA,
    author: Author,
) -> tuple[Enterprise, bool]:
    """The enterprise, and whether it is new; the same entry twice changes nothing.

    Raises:
        InvalidEntryError: if an entry breaks a rule.
        ConflictError: if the code belongs to an enterprise that is entered differently.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    name = check_text("name", name)
    place = check_place(division, country)
    code = _check_code(credit_code, place)
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        row = await connection.fetchrow(
            "INSERT INTO enterprise (name, credit_code, division, country)"
            " VALUES ($1, $2, $3, $4) ON CONFLICT (credit_code) DO NOTHING"
            f" RETURNING {_COLUMNS}",
            name,
            code,
            place.division,
            place.country,
        )
        if row is not None:
            await add_change(connection, replace(author, detail=f"enterprise add {code}"))
            return Enterprise(**row), True
        present = await require(connection, code)
        _require_same(present, name, place)
        return present, False


async def find(connection: Connection, credit_code: str) -> Enterprise | None:
    """The enterprise with this credit code or registration number, or None."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM enterprise WHERE credit_code = $1", normal_code(credit_code)
    )
    return None if row is None else Enterprise(**row)


async def require(connection: Connection, credit_code: str) -> Enterprise:
    """The enterprise with this credit code or registration number.

    Raises:
        UnknownEntryError: if there is none.
    """
    found = await find(connection, credit_code)
    if found is None:
        raise UnknownEntryError(
            f"no enterprise with the code {credit_code!r} is registered",
            "add it with `idnode enterprise add`, or look at `idnode enterprise list`",
        )
    return found


async def show(database: Database, credit_code: str) -> EnterpriseAccount:
    """The enterprise, its prefixes and how many identifiers each holds.

    Raises:
        UnknownEntryError: if there is no such enterprise.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    async with database.connection() as connection:
        enterprise = await require(connection, credit_code)
        rows = await connection.fetch(
            "SELECT prefix, mode, suspended_at IS NOT NULL AS suspended,"
            " (SELECT coalesce(sum(added - removed), 0)::bigint FROM registration_tally"
            "  WHERE prefix_key = key) AS identifiers"
            " FROM prefix WHERE enterprise_id = $1 ORDER BY key",
            enterprise.id,
        )
    return EnterpriseAccount(enterprise, tuple(Holding(**row) for row in rows))


async def page(
    database: Database, *, after_id: int = 0, limit: int = PAGE_ROWS
) -> list[Enterprise]:
    """At most `limit` enterprises in the order of entry, those after `after_id`."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {_COLUMNS} FROM enterprise WHERE id > $1 ORDER BY id LIMIT $2",
            after_id,
            limit,
        )
    return [Enterprise(**row) for row in rows]


async def stream(database: Database) -> AsyncIterator[Enterprise]:
    """All enterprises in the order of entry."""
    after_id = 0
    while rows := await page(database, after_id=after_id):
        for row in rows:
            yield row
        after_id = rows[-1].id


def _check_code(credit_code: str, place: Place) -> str:
    if place.country == CHINA:
        return check_credit_code(credit_code)
    number = check_text("registration number", credit_code, REGISTRATION_NUMBER_LENGTH_MAX)
    if not number.isprintable():
        raise InvalidEntryError(
            f"registration number {credit_code!r} has a character that cannot be printed",
            "write it without that character",
        )
    return number


def _require_same(present: Enterprise, name: str, place: Place) -> None:
    stored = (present.name, present.division, present.country)
    if stored == (name, place.division, place.country):
        return
    do = "enter the same name and place, or correct the code"
    if place.country != present.country:
        do = f"write the country before it: {place.country}-{present.credit_code}"
    raise ConflictError(
        f"the code {present.credit_code} already belongs to {present.name}"
        f" ({present.division or present.country})",
        do,
    )
