"""The source of records: one suite against PostgreSQL and its twin in memory."""

from collections.abc import AsyncIterator

import pytest

from registry.database import Database
from registry.records import PostgresRecords, Refused, Written
from registry.records_memory import MemoryRecords
from resolver.errors import RegistryUnavailableError
from resolver.identifier import from_text
from resolver.record import VALUE_DATA_SIZE_BYTES_MAX, HandleValue
from resolver.response_code import ResponseCode
from tests.resolving_worker import AUTHOR, PREFIX, add_prefix, name, values

NOW_S = 1_800_000_000.5
A = name("A")

Records = PostgresRecords | MemoryRecords


@pytest.fixture(params=["memory", "postgres"])
async def records(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Records]:
    if request.param == "memory":
        yield MemoryRecords({PREFIX})
        return
    await add_prefix(database)
    yield PostgresRecords(database)


def done(written: Written | Refused) -> Written:
    assert isinstance(written, Written), written
    return written


async def put(records: Records, text: str, suffix: str = "A") -> Written:
    return done(await records.put(name(suffix), values(text), AUTHOR, NOW_S))


async def test_what_never_was_is_none(records: Records) -> None:
    assert await records.fetch(A.key) is None
    assert await records.fetch_many([A.key, "X/Y"]) == {}
    assert await records.fetch_many([]) == {}


async def test_what_was_put_is_fetched_with_its_time_and_version(records: Records) -> None:
    written = await put(records, "one")
    assert (written.created, written.changed) == (True, True)
    found = await records.fetch(A.key)
    assert found == written.record
    assert found is not None
    assert found.version > 0
    assert found.values[0].timestamp_s == int(NOW_S)
    assert found.handle == A.text


async def test_a_version_only_grows(records: Records) -> None:
    versions = [(await put(records, text)).record.version for text in ("one", "two", "three")]
    versions.append(done(await records.delete(A, AUTHOR, NOW_S)).record.version)
    versions.append((await put(records, "four")).record.version)
    added = (HandleValue(2, "T", b"more"),)
    versions.append(done(await records.put_values(A, added, AUTHOR, NOW_S)).record.version)
    versions.append(done(await records.remove_values(A, [2], AUTHOR, NOW_S)).record.version)
    assert versions == sorted(set(versions))
    found = await records.fetch(A.key)
    assert found is not None
    assert found.version == versions[-1]


async def test_a_put_that_changes_nothing_takes_no_version(records: Records) -> None:
    first = await put(records, "one")
    again = done(await records.put(A, values("one"), AUTHOR, NOW_S + 50))
    assert (again.record, again.created, again.changed) == (first.record, False, False)


async def test_another_spelling_is_a_change(records: Records) -> None:
    first = await put(records, "one")
    spelled = from_text(f"{PREFIX}/a")
    again = done(await records.put(spelled, values("one"), AUTHOR, NOW_S))
    assert again.changed
    assert again.record.version > first.record.version
    assert again.record.handle == f"{PREFIX}/a"


async def test_a_deleted_record_is_fetched_as_deleted(records: Records) -> None:
    first = await put(records, "one")
    deleted = done(await records.delete(A, AUTHOR, NOW_S))
    found = await records.fetch(A.key)
    assert found is not None
    assert found == deleted.record
    assert (found.deleted, found.values) == (True, ())
    assert found.version > first.record.version


async def test_a_deleted_record_can_be_created_again(records: Records) -> None:
    await put(records, "one")
    deleted = done(await records.delete(A, AUTHOR, NOW_S))
    again = await put(records, "one")
    assert (again.created, again.changed) == (True, True)
    assert again.record.version > deleted.record.version


async def test_nothing_is_overwritten_if_that_was_asked(records: Records) -> None:
    assert isinstance(await records.put(A, values("one"), AUTHOR, NOW_S, overwrite=False), Written)
    refused = await records.put(A, values("two"), AUTHOR, NOW_S, overwrite=False)
    assert refused == Refused(ResponseCode.HANDLE_ALREADY_EXISTS)


async def test_values_are_added_and_replaced_by_index(records: Records) -> None:
    await put(records, "one")
    two = HandleValue(2, "T", b"two")
    added = done(await records.put_values(A, (two,), AUTHOR, NOW_S + 10))
    assert added.created
    replaced = done(await records.put_values(A, (HandleValue(2, "T", b"2"),), AUTHOR, NOW_S))
    assert not replaced.created
    assert [(value.index, value.data) for value in replaced.record.values] == [
        (1, b"one"),
        (2, b"2"),
    ]
    assert await records.fetch(A.key) == replaced.record


async def test_a_value_keeps_the_time_at_which_it_was_written(records: Records) -> None:
    await put(records, "one")
    await records.put_values(A, (HandleValue(2, "T", b"two"),), AUTHOR, NOW_S + 10)
    found = await records.fetch(A.key)
    assert found is not None
    assert [value.timestamp_s - int(NOW_S) for value in found.values] == [0, 10]


async def test_a_value_is_not_replaced_if_that_was_asked(records: Records) -> None:
    await put(records, "one")
    refused = await records.put_values(A, values("two"), AUTHOR, NOW_S, overwrite=False)
    assert refused == Refused(ResponseCode.VALUE_ALREADY_EXISTS, "Index conflict for 1")


async def test_values_are_modified_all_or_none(records: Records) -> None:
    await put(records, "one")
    two, changed = HandleValue(2, "T", b"two"), HandleValue(1, "TEXT", b"uno")
    refused = await records.modify_values(A, (changed, two), AUTHOR, NOW_S)
    assert refused == Refused(ResponseCode.VALUES_NOT_FOUND)
    modified = done(await records.modify_values(A, (changed,), AUTHOR, NOW_S + 10))
    assert not modified.created
    assert modified.record == await records.fetch(A.key)
    found = [(value.index, value.data, value.timestamp_s) for value in modified.record.values]
    assert found == [(1, b"uno", int(NOW_S) + 10)]


async def test_a_record_does_not_grow_beyond_its_limit(records: Records) -> None:
    large = [HandleValue(n, "T", bytes(VALUE_DATA_SIZE_BYTES_MAX)) for n in (1, 2, 3)]
    small, fourth = HandleValue(4, "T", b""), HandleValue(4, "T", bytes(VALUE_DATA_SIZE_BYTES_MAX))
    await records.put(A, [*large, small], AUTHOR, NOW_S)
    for refused in (
        await records.put_values(A, [fourth], AUTHOR, NOW_S),
        await records.modify_values(A, [fourth], AUTHOR, NOW_S),
    ):
        assert isinstance(refused, Refused)
        assert refused.code == ResponseCode.INVALID_VALUE
    found = await records.fetch(A.key)
    assert found is not None
    assert found.values[3].data == b""


async def test_values_are_removed_all_or_none(records: Records) -> None:
    await put(records, "one")
    await records.put_values(A, (HandleValue(2, "T", b"two"),), AUTHOR, NOW_S)
    refused = await records.remove_values(A, [2, 3], AUTHOR, NOW_S)
    assert refused == Refused(ResponseCode.VALUES_NOT_FOUND)
    removed = done(await records.remove_values(A, [2], AUTHOR, NOW_S))
    assert [value.index for value in removed.record.values] == [1]


async def test_what_is_not_there_cannot_be_changed(records: Records) -> None:
    missing = Refused(ResponseCode.HANDLE_NOT_FOUND)
    assert await records.delete(A, AUTHOR, NOW_S) == missing
    assert await records.put_values(A, values("x"), AUTHOR, NOW_S) == missing
    assert await records.modify_values(A, values("x"), AUTHOR, NOW_S) == missing
    assert await records.remove_values(A, [1], AUTHOR, NOW_S) == missing
    await put(records, "one")
    await records.delete(A, AUTHOR, NOW_S)
    assert await records.delete(A, AUTHOR, NOW_S) == missing
    assert await records.put_values(A, values("x"), AUTHOR, NOW_S) == missing


async def test_nothing_is_written_below_a_prefix_that_lives_elsewhere(records: Records) -> None:
    other = from_text("88.999.9/A")
    refused = Refused(ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix doesn't live here")
    assert await records.put(other, values("x"), AUTHOR, NOW_S) == refused
    assert await records.delete(other, AUTHOR, NOW_S) == refused
    assert await records.put_values(other, values("x"), AUTHOR, NOW_S) == refused
    assert await records.remove_values(other, [1], AUTHOR, NOW_S) == refused


async def test_many_are_fetched_by_key(records: Records) -> None:
    written = {suffix: await put(records, suffix, suffix) for suffix in "ABC"}
    found = await records.fetch_many([name(suffix).key for suffix in "CABX"])
    assert found == {name(suffix).key: one.record for suffix, one in written.items()}


async def test_versions_order_the_writes_of_all_records(records: Records) -> None:
    writes = (("one", "A"), ("one", "B"), ("two", "A"), ("one", "C"))
    versions = [(await put(records, text, suffix)).record.version for text, suffix in writes]
    assert versions == sorted(set(versions))


async def test_the_memory_that_is_away_says_so() -> None:
    records = MemoryRecords({PREFIX})
    records.is_up = False
    with pytest.raises(RegistryUnavailableError):
        await records.fetch(A.key)


async def test_postgres_that_is_away_says_so() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(RegistryUnavailableError):
        await PostgresRecords(database).fetch(A.key)
    assert not PostgresRecords(database).is_up
