"""Writing as an identity beside others: no lost right is used, and nobody waits in vain."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from node.administration import DECISIONS_MAX, Administration, Done
from node.administrators import Administrators
from node.identity import Identity
from node.permission import ALL, Permission
from registry.database import Database
from registry.records import PostgresRecords, Refused
from tests.administered import (
    NOW_S,
    OWNER,
    STRANGER,
    add_prefix,
    admin,
    entrust,
    group,
    hosted,
    put,
    url,
)
from tests.conftest import Stores
from tests.office import (
    BUSY,
    EXISTS,
    INSUFFICIENT,
    INVALID_ADMIN,
    A,
    Office,
    done,
    office_on,
)
from tests.resolving_worker import PATIENCE_S, PREFIX, ResolvingWorker, name


@pytest.fixture
async def office(database: Database, stores: Stores) -> AsyncIterator[Office]:
    async with office_on(database, stores.redis_url) as opened:
        yield opened


async def test_who_lost_the_right_while_it_was_looked_up_writes_nothing(office: Office) -> None:
    await put(office.records, A, url(), admin(OWNER))

    async def revoke(_: int) -> None:
        office.administrators.meddle = None
        await put(office.records, A, url(), admin(STRANGER))

    office.administrators.meddle = revoke
    assert await office.modify(OWNER, url("new")) == INVALID_ADMIN
    assert (await office.held())[0].data == url().data
    assert office.administrators.looked_up == 2


async def test_who_lost_the_right_by_the_prefix_handle_creates_nothing(office: Office) -> None:
    await entrust(office.records)

    async def revoke(_: int) -> None:
        office.administrators.meddle = None
        await entrust(office.records, admin(OWNER, ALL & ~Permission.ADD_HANDLE))

    office.administrators.meddle = revoke
    assert await office.create(OWNER, A, url()) == INSUFFICIENT
    assert await office.records.fetch(A.key) is None


async def test_who_was_put_out_of_the_group_changes_nothing(office: Office) -> None:
    await put(office.records, name("G"), group([OWNER]))
    await put(office.records, A, url(), admin(Identity(f"{PREFIX}/G", 200)))

    async def put_out(_: int) -> None:
        office.administrators.meddle = None
        await put(office.records, name("G"), group([STRANGER]))

    office.administrators.meddle = put_out
    assert await office.remove(OWNER, 1) == INVALID_ADMIN
    assert done(await office.remove(STRANGER, 1)).changed


async def test_a_prefix_handle_that_appears_meanwhile_is_looked_at(office: Office) -> None:
    async def appear(_: int) -> None:
        office.administrators.meddle = None
        await entrust(office.records)

    office.administrators.meddle = appear
    assert done(await office.create(OWNER, A, url())).created


async def test_a_record_that_appears_while_it_is_created_is_overwritten_only_with_the_right(
    office: Office,
) -> None:
    await entrust(office.records)

    async def appear(_: int) -> None:
        office.administrators.meddle = None
        await put(office.records, A, admin(STRANGER))

    office.administrators.meddle = appear
    assert await office.create(OWNER, A, url(), overwrite=True) == INVALID_ADMIN
    assert [value.type for value in await office.held()] == ["HS_ADMIN"]


async def test_an_ownerless_record_that_appears_meanwhile_is_not_overwritten_without_the_right(
    office: Office,
) -> None:
    await entrust(office.records, admin(OWNER, Permission.ADD_HANDLE))

    async def appear(_: int) -> None:
        office.administrators.meddle = None
        await put(office.records, A, url("theirs"))

    office.administrators.meddle = appear
    assert await office.create(OWNER, A, url(), overwrite=True) == INSUFFICIENT
    assert [value.data for value in await office.held()] == [b"theirs"]


async def test_what_changes_nothing_about_administrators_is_not_decided_anew(
    office: Office,
) -> None:
    await put(office.records, A, url(), url(index=2), admin(OWNER))

    async def write_beside(_: int) -> None:
        await put(office.records, A, url("beside"), url("more", 2), admin(OWNER))

    office.administrators.meddle = write_beside
    assert done(await office.modify(OWNER, url("new"), url("newer", 2))).changed
    assert office.administrators.looked_up == 1
    assert [value.data for value in await office.held()][:2] == [b"new", b"newer"]


async def test_administrators_that_change_without_end_end_the_write(office: Office) -> None:
    await put(office.records, A, url(), admin(OWNER))

    async def change(times: int) -> None:
        await put(office.records, A, url(), admin(OWNER), admin(STRANGER, times, 101))

    office.administrators.meddle = change
    assert await office.modify(OWNER, url("new")) == BUSY
    assert office.administrators.looked_up == DECISIONS_MAX
    assert (await office.held())[0].data == url().data


async def test_many_writers_of_one_record_all_come_to_their_turn(office: Office) -> None:
    await put(office.records, A, admin(OWNER))
    results = await asyncio.gather(*(office.add(OWNER, url(index=n)) for n in range(1, 41)))
    assert all(isinstance(result, Done) for result in results)
    assert len(await office.held()) == 41


async def test_many_creators_of_one_record_leave_one_winner(office: Office) -> None:
    await entrust(office.records)
    results = await asyncio.gather(*(office.create(OWNER, A, url(str(n))) for n in range(20)))
    assert sum(isinstance(result, Done) for result in results) == 1
    assert {result for result in results if isinstance(result, Refused)} == {EXISTS}


async def until_said(worker: ResolvingWorker, text: str) -> None:
    """Return once a worker answers so: the announcement is on its way when a write returns."""
    until_s = time.monotonic() + PATIENCE_S
    while await worker.say(A) != text:
        assert time.monotonic() < until_s, text
        await asyncio.sleep(0.005)


async def test_a_write_is_announced_to_every_other_worker(
    database: Database, database_url: str, stores: Stores
) -> None:
    await add_prefix(database)
    records = PostgresRecords(database)
    await entrust(records)
    url_ = f"{stores.redis_url}&db=6"
    redis: Redis = Redis.from_url(url_)
    await redis.flushdb()
    await redis.aclose()
    async with (
        ResolvingWorker(database_url, url_, watches=False) as one,
        ResolvingWorker(database_url, url_, watches=False) as other,
    ):
        # Nobody looks at the outbox: whoever writes tells them.
        await one.ready()
        await other.ready()
        administration = Administration(
            one.records,
            Administrators(one.records, hosted(), []),
            one.announcer,
            hosted(),
            one.database,
            door="native",
        )
        assert await other.say(A) == "HANDLE_NOT_FOUND"
        for text in ("one", "two", "three"):
            done(
                await administration.create(
                    OWNER, A, [url(text), admin(OWNER, index=2)], overwrite=True, now_s=NOW_S
                )
            )
            await until_said(other, text)
        done(await administration.delete(OWNER, A, now_s=NOW_S))
        await until_said(other, "HANDLE_NOT_FOUND")
