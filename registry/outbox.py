"""The outbox: changes that were committed and must still be told to the workers."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from registry.database import WRITE_TIMEOUT_S, Database

# What one transaction publishes; a backlog of a million is worked off in pieces.
BATCH_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Announcement:
    """One change: topic `record` (key, version), `registered` (prefix key), `prefixes`, `keys`."""

    topic: str
    key: str
    version: int


# A publisher that is stopped in the middle loses its locks: others publish in its place.
_GIVE_UP = "SET LOCAL idle_in_transaction_session_timeout = '5s'"

Publish = Callable[[Sequence[Announcement]], Awaitable[None]]


async def publish_pending(database: Database, publish: Publish) -> int:
    """Hand one batch of pending announcements to `publish`, then forget them; returns how many.

    A crash before the commit leaves the rows: they are published again, and publishing twice is
    harmless because versions only grow. Rows that another worker is publishing are skipped.
    """
    async with database.connection(WRITE_TIMEOUT_S) as connection, connection.transaction():
        rows = await connection.fetch(
            "SELECT id, topic, key, version FROM outbox ORDER BY id LIMIT $1"
            " FOR UPDATE SKIP LOCKED",
            BATCH_MAX,
        )
        if not rows:
            return 0
        await connection.execute(_GIVE_UP)
        await publish([Announcement(row["topic"], row["key"], row["version"]) for row in rows])
        await connection.execute(
            "DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows]
        )
    return len(rows)


async def last_id(database: Database) -> int:
    """Everything committed until now has at most this id."""
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT coalesce(max(id), 0) FROM outbox"))


async def is_pending(database: Database, up_to_id: int) -> bool:
    """True while something up to `up_to_id` is not yet published."""
    async with database.connection() as connection:
        return bool(
            await connection.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE id <= $1)", up_to_id)
        )


async def pending(database: Database) -> int:
    """Announcements not yet published; stops counting at 100,000."""
    async with database.connection() as connection:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT 100000) counted"
            )
        )
