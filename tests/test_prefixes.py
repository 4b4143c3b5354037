"""Prefixes: allotted once, suspended and resumed, and announced to the workers."""

from collections.abc import AsyncIterator

import pytest
from stdnum.cn import uscc

from registry import enterprises, prefixes
from registry.database import Database
from registry.records import Author
from registry.refusal import ConflictError, InvalidEntryError, UnknownEntryError

AUTHOR = Author("cli:test", "cli")
CODE, OTHER_CODE = (
    body + uscc.calc_check_digit(body) for body in ("91450200000000001", "91450200000000002")
)
PREFIX = "88.608.5288"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    for name, code in (("柳州样品厂", CODE), ("南宁样品厂", OTHER_CODE)):
        await enterprises.add(opened, name=name, credit_code=code, division="450200", author=AUTHOR)
    yield opened
    await opened.close()


async def _allot(
    database: Database, prefix: str = PREFIX, code: str = CODE, node_prefix: str | None = None
) -> tuple[prefixes.Prefix, bool]:
    return await prefixes.allot(
        database, prefix=prefix, credit_code=code, node_prefix=node_prefix, author=AUTHOR
    )


async def _announced(database: Database) -> list[tuple[str, str]]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT topic, key FROM outbox ORDER BY id")
    return [(row["topic"], row["key"]) for row in rows]


async def test_a_prefix_is_allotted_once_and_announced_once(database: Database) -> None:
    first, is_new = await _allot(database)
    again, is_new_again = await _allot(database)
    assert (is_new, is_new_again) == (True, False)
    assert first == again
    assert (first.credit_code, first.enterprise_name, first.mode, first.is_suspended) == (
        CODE,
        "柳州样品厂",
        "hosted",
        False,
    )
    assert await _announced(database) == [("prefixes", PREFIX)]


async def test_a_prefix_of_another_enterprise_is_refused_by_name(database: Database) -> None:
    await _allot(database)
    with pytest.raises(ConflictError, match=f"allotted to 柳州样品厂 \\({CODE}\\)"):
        await _allot(database, code=OTHER_CODE)
    assert await _announced(database) == [("prefixes", PREFIX)]


async def test_a_prefix_does_not_change_its_mode_silently(database: Database) -> None:
    await _allot(database)
    with pytest.raises(ConflictError, match="allotted as hosted, not self_run"):
        await prefixes.allot(
            database,
            prefix=PREFIX,
            credit_code=CODE,
            mode="self_run",
            node_prefix=None,
            author=AUTHOR,
        )


async def test_a_prefix_below_an_allotted_one_belongs_to_whom_it_is_allotted(
    database: Database,
) -> None:
    await _allot(database)
    below, is_new = await _allot(database, f"{PREFIX}.1", OTHER_CODE)
    assert is_new
    assert below.credit_code == OTHER_CODE


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("88.608", "not of the form"),
        ("88.608.abc", "not of the form"),
        ("88.608.\uff15288", "not of the form"),
        ("88.6080.1", "not below the prefix of this node, 88.608"),
        ("89.608.1", "not below the prefix of this node, 88.608"),
    ],
)
async def test_a_prefix_that_this_node_cannot_allot_is_refused(
    database: Database, prefix: str, reason: str
) -> None:
    with pytest.raises(InvalidEntryError, match=reason):
        await _allot(database, prefix, node_prefix="88.608")


async def test_an_unknown_mode_is_refused(database: Database) -> None:
    with pytest.raises(InvalidEntryError, match="mode 'rented' is not known"):
        await prefixes.allot(
            database,
            prefix=PREFIX,
            credit_code=CODE,
            mode="rented",
            node_prefix=None,
            author=AUTHOR,
        )


async def test_a_prefix_needs_a_known_enterprise(database: Database) -> None:
    with pytest.raises(UnknownEntryError, match="no enterprise with the code"):
        await _allot(database, code="91450200000000003")
    assert await _announced(database) == []


async def test_suspending_and_resuming_twice_change_once(database: Database) -> None:
    await _allot(database)
    suspended, changed = await prefixes.suspend(database, PREFIX, reason="欠费", author=AUTHOR)
    again, changed_again = await prefixes.suspend(database, PREFIX, reason="欠费", author=AUTHOR)
    assert (changed, changed_again) == (True, False)
    assert suspended.is_suspended
    assert suspended.suspend_reason == "欠费"
    assert again == suspended
    resumed, changed = await prefixes.resume(database, PREFIX, author=AUTHOR)
    _, changed_again = await prefixes.resume(database, PREFIX, author=AUTHOR)
    assert (changed, changed_again) == (True, False)
    assert (resumed.suspended_at, resumed.suspend_reason) == (None, None)
    assert await _announced(database) == [("prefixes", PREFIX)] * 3


async def test_a_new_reason_keeps_the_time_of_the_suspension(database: Database) -> None:
    await _allot(database)
    first, _ = await prefixes.suspend(database, PREFIX, reason="欠费", author=AUTHOR)
    second, changed = await prefixes.suspend(database, PREFIX, reason="注销", author=AUTHOR)
    assert changed
    assert (second.suspend_reason, second.suspended_at) == ("注销", first.suspended_at)


async def test_what_is_not_allotted_cannot_be_suspended(database: Database) -> None:
    with pytest.raises(UnknownEntryError, match="is not allotted"):
        await prefixes.suspend(database, PREFIX, reason="欠费", author=AUTHOR)
    with pytest.raises(UnknownEntryError, match="is not allotted"):
        await prefixes.resume(database, PREFIX, author=AUTHOR)


async def test_workers_load_what_the_operator_sees(database: Database) -> None:
    for number in (3, 1, 2):
        await _allot(database, f"88.608.{number}")
    listed = [prefix async for prefix in prefixes.stream(database)]
    async with database.connection() as connection:
        loaded = await prefixes.load_all(connection)
    assert [prefix.prefix for prefix in listed] == ["88.608.1", "88.608.2", "88.608.3"]
    assert loaded == listed
    assert await prefixes.page(database, after_key="88.608.1", limit=1) == listed[1:2]
