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
        await publish([Announcement(row["topic"], row["key"], row["version"]) for row in rows])
        await connection.execute(
            "DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows]
        )
    return len(rows)


async def pending(database: Database) -> int:
    """Announcements not yet published; stops counting at 100,000."""
    async with database.connection() as connection:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT 100000) counted"
            )
        )
