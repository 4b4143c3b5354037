"""Applications: entered once, with a place, a kind and the digest of their contract."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from registry import applications
from registry.database import Database
from registry.records import Author
from registry.refusal import ConflictError, InvalidEntryError, UnknownEntryError

AUTHOR = Author("cli:test", "cli")
DIGEST = "ab" * 32


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


async def _add(database: Database, **changed: Any) -> tuple[applications.Application, bool]:
    entry: dict[str, Any] = {
        "name": "追溯平台",
        "kind": "traceability",
        "owner": "广州样品公司",
        "division": "440100",
    }
    return await applications.add(database, author=AUTHOR, **(entry | changed))


async def test_applications_are_numbered_in_the_order_of_entry(database: Database) -> None:
    first, _ = await _add(database)
    second, _ = await _add(database, owner="Công ty Mẫu", division=None, country="VN")
    assert (first.id, second.id) == ("app-000001", "app-000002")
    assert (first.division, first.country) == ("440100", "CN")
    assert (second.division, second.country) == (None, "VN")
    assert [entry async for entry in applications.stream(database)] == [first, second]


async def test_an_application_entered_twice_counts_once(database: Database) -> None:
    first, is_new = await _add(database)
    again, is_new_again = await _add(database)
    assert (is_new, is_new_again) == (True, False)
    assert first == again
    with pytest.raises(ConflictError, match="already has the application '追溯平台' as app-000001"):
        await _add(database, kind="lifecycle")


async def test_the_millionth_application_comes_after_the_one_before(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT setval('application_number', 999998)")
    for number in range(3):
        await _add(database, name=f"应用{number}")
    listed = [entry.id async for entry in applications.stream(database)]
    assert listed == ["app-999999", "app-1000000", "app-1000001"]
    rest = await applications.page(database, after_id="app-999999")
    assert [entry.id for entry in rest] == listed[1:]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kind": "tracing"}, "application kind 'tracing' is not known"),
        ({"type_": "desktop"}, "application type 'desktop' is not known"),
        ({"name": "\t"}, "invisible character"),
        ({"owner": ""}, "owner is empty"),
        ({"division": None}, "no division is given"),
        ({"country": "VN"}, "together with country VN"),
        ({"contract_sha256": "ab"}, "is not 64 hex digits"),
    ],
)
async def test_an_entry_that_breaks_a_rule_is_refused(
    database: Database, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidEntryError, match=reason):
        await _add(database, **changed)


async def test_the_digest_of_a_contract_is_set_and_its_change_is_kept(database: Database) -> None:
    added, _ = await _add(database)
    assert added.contract_sha256 is None
    set_, changed = await applications.set_contract(
        database, added.id, DIGEST.upper(), author=AUTHOR
    )
    _, changed_again = await applications.set_contract(database, added.id, DIGEST, author=AUTHOR)
    assert (changed, changed_again) == (True, False)
    assert set_.contract_sha256 == DIGEST
    async with database.connection() as connection:
        detail = await connection.fetchval("SELECT detail FROM change ORDER BY id DESC LIMIT 1")
        stored = await applications.require(connection, added.id)
    assert detail == f"application contract app-000001: none -> {DIGEST}"
    assert stored == set_


async def test_a_contract_needs_a_known_application(database: Database) -> None:
    with pytest.raises(UnknownEntryError, match="no application 'app-000009'"):
        await applications.set_contract(database, "app-000009", DIGEST, author=AUTHOR)


def test_every_kind_and_type_has_both_names_and_the_official_codes() -> None:
    assert [type_.code for type_ in applications.TYPES.values()] == [1, 2, 3, 4, 5]
    names = [name for pair in applications.KINDS.values() for name in pair]
    assert all(names)
    assert len(set(names)) == len(names)
