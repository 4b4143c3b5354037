"""Prefixes that the node answers for itself: homed, written below, unhomed."""

import asyncio

import pytest

from node.prefix_table import PrefixTable, table_from_bytes, table_to_bytes
from registry import enterprises, homed_prefixes, prefixes
from registry.database import Database
from registry.records import Author, PostgresRecords, Refused, Written, prefix_refusal
from registry.refusal import ConflictError, InvalidEntryError
from resolver.errors import RegistryUnavailableError
from resolver.identifier import from_text
from resolver.prefix_directory import PrefixState
from resolver.record import HandleValue
from resolver.response_code import ResponseCode
from tests.tenant import credit_code

AUTHOR = Author("cli:test", "cli")
NOW_S = 1_800_000_000.0
VALUES = (HandleValue(1, "TEXT", b"x"),)
HOME, OTHER = "88.608", "88.609"
HOSTED, SELF_RUN, SUSPENDED = "88.608.5288", "88.608.7", "88.608.9"


async def _allot(database: Database, prefix: str, mode: str = prefixes.HOSTED) -> None:
    await enterprises.add(
        database, name="样品厂", credit_code=credit_code(1), division="450200", author=AUTHOR
    )
    await prefixes.allot(
        database,
        prefix=prefix,
        credit_code=credit_code(1),
        mode=mode,
        node_prefix=None,
        author=AUTHOR,
    )


async def _homed(database: Database) -> list[str]:
    async with database.connection() as connection:
        return await homed_prefixes.load_all(connection)


async def _announced(database: Database) -> list[tuple[str, str]]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT topic, key FROM outbox ORDER BY id")
    return [(row["topic"], row["key"]) for row in rows]


async def _put(database: Database, text: str) -> Written | Refused:
    return await PostgresRecords(database).put(from_text(text), VALUES, AUTHOR, NOW_S)


async def test_a_prefix_is_homed_once_and_announced_once(database: Database) -> None:
    assert await homed_prefixes.home(database, HOME, AUTHOR)
    assert not await homed_prefixes.home(database, HOME, AUTHOR)
    assert await homed_prefixes.home(database, OTHER, AUTHOR)
    assert await _homed(database) == [HOME, OTHER]
    assert await _announced(database) == [("prefixes", HOME), ("prefixes", OTHER)]


async def test_a_prefix_may_be_named_by_its_prefix_handle(database: Database) -> None:
    assert await homed_prefixes.home(database, f"0.NA/{HOME}", AUTHOR)
    assert not await homed_prefixes.home(database, f"0.na/0.NA/{HOME}", AUTHOR)
    assert await homed_prefixes.unhome(database, f"0.NA/{HOME}", AUTHOR)
    assert not await homed_prefixes.unhome(database, f"0.NA/0.NA/{HOME}", AUTHOR)
    assert await _homed(database) == []


@pytest.mark.parametrize("prefix", ["", "0.NA", "0.NA/", "88.608/X", "88..608", "88 608", "8" * 65])
async def test_what_is_no_prefix_is_not_homed(database: Database, prefix: str) -> None:
    with pytest.raises(InvalidEntryError, match="is no prefix"):
        await homed_prefixes.home(database, prefix, AUTHOR)
    with pytest.raises(InvalidEntryError, match="is no prefix"):
        await homed_prefixes.unhome(database, prefix, AUTHOR)


async def test_an_allotted_prefix_stays_what_it_was_allotted_as(database: Database) -> None:
    await _allot(database, HOSTED)
    await _allot(database, SELF_RUN, prefixes.SELF_RUN)
    assert not await homed_prefixes.home(database, HOSTED, AUTHOR)
    with pytest.raises(ConflictError, match="run by its enterprise node"):
        await homed_prefixes.home(database, SELF_RUN, AUTHOR)
    with pytest.raises(ConflictError, match="is allotted to an enterprise"):
        await homed_prefixes.unhome(database, HOSTED, AUTHOR)
    assert await _homed(database) == []


async def test_below_a_homed_prefix_identifiers_are_registered(database: Database) -> None:
    refused = await _put(database, f"{HOME}/SVC")
    assert refused == Refused(ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix doesn't live here")
    await homed_prefixes.home(database, HOME, AUTHOR)
    assert isinstance(await _put(database, f"{HOME}/SVC"), Written)


async def test_a_prefix_with_identifiers_is_not_unhomed(database: Database) -> None:
    await homed_prefixes.home(database, HOME, AUTHOR)
    await _put(database, f"{HOME}/svc")
    with pytest.raises(ConflictError, match=f"registered below {HOME}, such as {HOME}/svc"):
        await homed_prefixes.unhome(database, HOME, AUTHOR)
    assert await _homed(database) == [HOME]
    await PostgresRecords(database).delete(from_text(f"{HOME}/SVC"), AUTHOR, NOW_S)
    assert await homed_prefixes.unhome(database, HOME, AUTHOR)
    assert isinstance(await _put(database, f"{HOME}/SVC"), Refused)


async def test_whoever_writes_below_a_prefix_holds_it(database: Database) -> None:
    await homed_prefixes.home(database, HOME, AUTHOR)
    async with database.connection() as connection, connection.transaction():
        assert await prefix_refusal(connection, HOME) is None
        unhoming = asyncio.create_task(homed_prefixes.unhome(database, HOME, AUTHOR))
        done, _ = await asyncio.wait([unhoming], timeout=0.2)
        assert not done
    assert await unhoming


# Prefix handles


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (f"0.NA/{HOME}", None),
        (f"0.NA/{HOSTED}", None),
        (f"0.NA/{SELF_RUN}", None),
        # Derived from a prefix that lives here, and allotted to nobody.
        (f"0.NA/{HOME}.77", None),
        (f"0.NA/{HOSTED}.1.2", None),
        (f"0.NA/{SELF_RUN}.1", "That prefix is run by its enterprise node"),
        (f"0.NA/{SUSPENDED}", "That prefix is suspended"),
        (f"0.NA/{SUSPENDED}.1", "That prefix is suspended"),
        ("0.NA/88.6080", "That prefix doesn't live here"),
        (f"0.NA/0.NA/{HOME}", "That prefix doesn't live here"),
        (f"0.NA/{HOME}/X.1", "That prefix doesn't live here"),
        ("0.NA/0.NA", "That prefix doesn't live here"),
    ],
)
async def test_the_handles_of_prefixes_that_live_here_are_written(
    database: Database, handle: str, message: str | None
) -> None:
    await homed_prefixes.home(database, HOME, AUTHOR)
    await _allot(database, HOSTED)
    await _allot(database, SELF_RUN, prefixes.SELF_RUN)
    await _allot(database, SUSPENDED)
    await prefixes.suspend(database, SUSPENDED, reason="test", author=AUTHOR)
    done = await _put(database, handle)
    assert getattr(done, "message", None) == message
    assert isinstance(done, Written if message is None else Refused)


async def test_an_allotment_goes_before_a_homed_prefix_that_is_derived_from(
    database: Database,
) -> None:
    await homed_prefixes.home(database, HOME, AUTHOR)
    await homed_prefixes.home(database, f"{SELF_RUN}.1", AUTHOR)
    await _allot(database, SELF_RUN, prefixes.SELF_RUN)
    assert isinstance(await _put(database, f"0.NA/{SELF_RUN}.1"), Written)
    assert isinstance(await _put(database, f"0.NA/{SELF_RUN}.1.5"), Written)
    assert isinstance(await _put(database, f"0.NA/{SELF_RUN}.2"), Refused)


# The table of a worker


async def test_the_table_has_allotted_and_homed_prefixes_and_that_of_the_node(
    database: Database,
) -> None:
    await homed_prefixes.home(database, OTHER, AUTHOR)
    await _allot(database, HOSTED)
    await _allot(database, SELF_RUN, prefixes.SELF_RUN)
    states = {state.key: state for state in await PrefixTable(database, HOME).load()}
    assert states == {
        OTHER: PrefixState(OTHER, homed=True),
        HOSTED: PrefixState(HOSTED),
        SELF_RUN: PrefixState(SELF_RUN, hosted=False),
        HOME: PrefixState(HOME, homed=True),
    }
    # Written down, so that identifiers can be registered below it.
    assert await _homed(database) == [HOME, OTHER]
    assert isinstance(await _put(database, f"{HOME}/SVC"), Written)


async def test_a_prefix_that_is_homed_and_allotted_is_what_it_was_allotted_as(
    database: Database,
) -> None:
    await homed_prefixes.home(database, HOSTED, AUTHOR)
    await _allot(database, HOSTED)
    assert await PrefixTable(database, HOSTED).load() == [PrefixState(HOSTED)]
    with pytest.raises(ConflictError, match="is allotted"):
        await homed_prefixes.unhome(database, HOSTED, AUTHOR)


async def test_a_prefix_of_the_node_that_is_none_does_not_stop_it(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    table = PrefixTable(database, "88/608")
    assert await table.load() == []
    assert await table.load() == []
    assert [record.message for record in caplog.records] == [
        "IDNODE_NODE_PREFIX: '88/608' is no prefix: expected at most 64 letters and digits joined"
        " by dots"
    ]


async def test_the_table_is_not_made_up_while_postgres_is_away() -> None:
    nowhere = Database("postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(RegistryUnavailableError):
        await PrefixTable(nowhere, HOME).load()
    await nowhere.close()


def test_a_copy_of_the_table_says_the_same() -> None:
    states = [
        PrefixState(HOME, homed=True),
        PrefixState(HOSTED),
        PrefixState(SELF_RUN, hosted=False),
        PrefixState(SUSPENDED, suspended=True),
    ]
    assert table_from_bytes(table_to_bytes(states)) == states
    assert table_from_bytes(b'[["88.1.2",true,false]]') == [PrefixState("88.1.2")]
