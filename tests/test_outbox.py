"""The outbox: what was committed is told, at least once, by whoever lives."""

import asyncio
from collections.abc import Sequence

import pytest

from registry import outbox
from registry.database import Database
from registry.outbox import BATCH_MAX, Announcement, publish_pending
from resolver.errors import RegistryUnavailableError


class Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Announcement] = []

    async def publish(self, announcements: Sequence[Announcement]) -> None:
        self.told += announcements

    @property
    def versions(self) -> list[int]:
        return [said.version for said in self.told]


async def _fill(database: Database, number: int) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO outbox (topic, key, version)"
            " SELECT 'record', '88.608.1/' || n, n FROM generate_series(1, $1::int) AS n",
            number,
        )


async def test_what_is_pending_is_told_in_order_and_forgotten(database: Database) -> None:
    listener = Listener()
    assert await publish_pending(database, listener.publish) == 0
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO outbox (topic, key, version) VALUES"
            " ('registered', '88.608.1', 0), ('record', '88.608.1/A', 7), ('keys', '3f', 0)"
        )
    assert await outbox.pending(database) == 3
    assert await publish_pending(database, listener.publish) == 3
    assert listener.told == [
        Announcement("registered", "88.608.1", 0),
        Announcement("record", "88.608.1/A", 7),
        Announcement("keys", "3f", 0),
    ]
    assert await outbox.pending(database) == 0
    assert await publish_pending(database, listener.publish) == 0


async def test_what_could_not_be_told_is_told_again(database: Database) -> None:
    await _fill(database, 3)

    async def fail(_: Sequence[Announcement]) -> None:
        raise ConnectionResetError("the cache is away")

    with pytest.raises(RegistryUnavailableError):
        await publish_pending(database, fail)
    database.is_up = True
    assert await outbox.pending(database) == 3
    listener = Listener()
    assert await publish_pending(database, listener.publish) == 3


async def test_a_publisher_that_dies_before_its_commit_leaves_the_rows(database: Database) -> None:
    await _fill(database, 3)
    dying = Listener()

    async def publish(announcements: Sequence[Announcement]) -> None:
        await dying.publish(announcements)
        async with database.connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    with pytest.raises(RegistryUnavailableError):
        await publish_pending(database, publish)
    database.is_up = True
    listener = Listener()
    assert await publish_pending(database, listener.publish) == 3
    assert listener.told == dying.told


async def test_two_publishers_never_wait_for_each_other_and_tell_each_row_once(
    database: Database,
) -> None:
    await _fill(database, BATCH_MAX + 500)
    first, second = Listener(), Listener()
    has_begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def slowly(announcements: Sequence[Announcement]) -> None:
        has_begun.set()
        await may_go_on.wait()
        await first.publish(announcements)

    slow = asyncio.create_task(publish_pending(database, slowly))
    await has_begun.wait()
    assert await publish_pending(database, second.publish) == 500
    assert await publish_pending(database, second.publish) == 0
    may_go_on.set()
    assert await slow == BATCH_MAX
    assert first.versions == list(range(1, BATCH_MAX + 1))
    assert second.versions == list(range(BATCH_MAX + 1, BATCH_MAX + 501))
    assert await outbox.pending(database) == 0


async def test_a_backlog_is_worked_off_in_pieces(database: Database) -> None:
    await _fill(database, 5_000)
    listener = Listener()
    pieces = []
    while piece := await publish_pending(database, listener.publish):
        pieces.append(piece)
    assert pieces == [BATCH_MAX] * (5_000 // BATCH_MAX)
    assert listener.versions == list(range(1, 5_001))
    assert await outbox.pending(database) == 0


async def test_what_others_are_publishing_is_still_pending(database: Database) -> None:
    assert await outbox.last_id(database) == 0
    assert not await outbox.is_pending(database, 0)
    await _fill(database, 2)
    last_id = await outbox.last_id(database)
    while_publishing: list[bool] = []

    async def publish(_: Sequence[Announcement]) -> None:
        while_publishing.append(await outbox.is_pending(database, last_id))

    assert await publish_pending(database, publish) == 2
    assert while_publishing == [True]
    assert not await outbox.is_pending(database, last_id)
    await _fill(database, 1)
    assert not await outbox.is_pending(database, last_id)
