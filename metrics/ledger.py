"""The ledger: counts in PostgreSQL, written as absolute values of journal slots.

The day's number is the sum over journals. Writing a value twice, late, or again after a crash
changes nothing, because the greater value of a slot is kept and slots only grow.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from metrics.journal import CountMeaning, Snapshot, SourceMeaning

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
ClassTotals: TypeAlias = Counter[tuple[str, str, str, str]]
"""Counts by (level, channel, outcome, caller class)."""

FLUSH_TIMEOUT_S = 20.0

_KEEP_GREATER = "DO UPDATE SET value = excluded.value WHERE l.value < excluded.value"
_WRITE_COUNTS = f"""
    INSERT INTO ledger_count AS l (journal_id, slot, day, level, prefix, caller_class, caller,
                                   channel, outcome, value)
    SELECT $1, * FROM unnest($2::int[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[],
                             $8::text[], $9::text[], $10::bigint[])
    ON CONFLICT (journal_id, slot) {_KEEP_GREATER}"""
_WRITE_SOURCES = f"""
    INSERT INTO ledger_source AS l (journal_id, slot, day, prefix, source, value)
    SELECT $1, * FROM unnest($2::int[], $3::int[], $4::text[], $5::text[], $6::bigint[])
    ON CONFLICT (journal_id, slot) {_KEEP_GREATER}"""
# More rows than this go in several statements (a full journal has 163,840 slots): between them
# the loop answers others. 5,000 rows block it for about 10 ms.
_BATCH_ROWS = 5_000


class Connect(Protocol):
    """How the ledger gets a connection for one piece of work that ends in time."""

    def __call__(
        self, timeout_s: float = ..., /
    ) -> AbstractAsyncContextManager["PoolConnectionProxy[asyncpg.Record]"]: ...


Counts = Sequence[tuple[int, CountMeaning, int]]
Sources = Sequence[tuple[int, SourceMeaning, int]]


async def write(
    connection: Connection,
    instance: str,
    identity: uuid.UUID,
    opened_at_s: int,
    counts: Counts,
    sources: Sources,
) -> None:
    """Write absolute values of a journal's slots; runs inside the caller's transaction."""
    await connection.execute(
        "INSERT INTO journal (id, instance, opened_at, state) VALUES ($1, $2, $3, 'open')"
        " ON CONFLICT (id) DO NOTHING",
        identity,
        instance,
        datetime.fromtimestamp(opened_at_s, UTC),
    )
    for start in range(0, len(counts), _BATCH_ROWS):
        await _write_counts(connection, identity, counts[start : start + _BATCH_ROWS])
    for start in range(0, len(sources), _BATCH_ROWS):
        await _write_sources(connection, identity, sources[start : start + _BATCH_ROWS])


async def close(connection: Connection, identity: uuid.UUID) -> None:
    """Mark a journal as complete: its file may be removed once this is committed."""
    await connection.execute(
        "UPDATE journal SET state = 'closed' WHERE id = $1 AND state = 'open'", identity
    )


async def regression(connection: Connection, snapshot: Snapshot) -> str | None:
    """What is greater in the ledger than in the journal, which a whole journal cannot show."""
    values = {slot: value for slot, _, value in (*snapshot.counts, *snapshot.sources)}
    for table in ("ledger_count", "ledger_source"):
        rows = await connection.fetch(
            f"SELECT slot, value FROM {table} WHERE journal_id = $1", snapshot.identity
        )
        for row in rows:
            if values.get(row["slot"], -1) < row["value"]:
                held = values.get(row["slot"], "nothing")
                return f"slot {row['slot']} holds {held}, the ledger {row['value']}"
    return None


async def sums(connection: Connection, identity: uuid.UUID) -> tuple[int, int]:
    """What the ledger holds of a journal in all: counts, sources."""
    row = await connection.fetchrow(
        "SELECT (SELECT sum(value) FROM ledger_count WHERE journal_id = $1) AS counts,"
        " (SELECT sum(value) FROM ledger_source WHERE journal_id = $1) AS sources",
        identity,
    )
    assert row is not None
    return int(row["counts"] or 0), int(row["sources"] or 0)


async def mark_damaged(
    connection: Connection,
    instance: str,
    identity: uuid.UUID,
    opened_at_s: int,
    days: Iterable[int],
    reason: str,
) -> None:
    """Stop the claim for `days`, and say why; what was flushed before stays."""
    await connection.execute(
        "INSERT INTO journal AS j (id, instance, opened_at, state, damage)"
        " VALUES ($1, $2, $3, 'damaged', $4)"
        " ON CONFLICT (id) DO UPDATE SET state = 'damaged', damage = excluded.damage",
        identity,
        instance,
        datetime.fromtimestamp(opened_at_s, UTC),
        reason,
    )
    known = await connection.fetch(
        "SELECT DISTINCT day FROM ledger_count WHERE journal_id = $1", identity
    )
    await connection.executemany(
        "INSERT INTO ledger_damage (journal_id, day, reason) VALUES ($1, $2, $3)"
        " ON CONFLICT DO NOTHING",
        [(identity, day, reason) for day in {*days, *(row["day"] for row in known)}],
    )


async def open_journals(connection: Connection, instance: str) -> list[tuple[uuid.UUID, int]]:
    """Journals of this instance that are not complete: identity and opening time (s)."""
    rows = await connection.fetch(
        "SELECT id, opened_at FROM journal WHERE instance = $1 AND state = 'open'", instance
    )
    return [(row["id"], int(row["opened_at"].timestamp())) for row in rows]


async def is_still_open(connection: Connection, identity: uuid.UUID) -> bool:
    """False if somebody completed the journal meanwhile; holds its row until commit."""
    state = await connection.fetchval(
        "SELECT state FROM journal WHERE id = $1 FOR UPDATE", identity
    )
    return bool(state == "open")


async def closed_number(connection: Connection, instance: str) -> int:
    """How many journals of this instance are done with."""
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM journal WHERE instance = $1 AND state <> 'open'", instance
        )
    )


async def closed_totals(
    connection: Connection, instance: str
) -> tuple[frozenset[uuid.UUID], ClassTotals]:
    """Which journals of this instance are done with, and what they counted, all days together."""
    identities = await connection.fetch(
        "SELECT id FROM journal WHERE instance = $1 AND state <> 'open'", instance
    )
    rows = await connection.fetch(
        "SELECT level, channel, outcome, caller_class, sum(value)::bigint AS value"
        " FROM ledger_count WHERE journal_id = ANY($1::uuid[])"
        " GROUP BY level, channel, outcome, caller_class",
        [row["id"] for row in identities],
    )
    counted: ClassTotals = Counter()
    for row in rows:
        key = (row["level"], row["channel"], row["outcome"], row["caller_class"])
        counted[key] = row["value"]
    return frozenset(row["id"] for row in identities), counted


async def daily(
    connection: Connection, first_day: int, last_day: int
) -> dict[tuple[int, str, str, str], int]:
    """Counts of the days from first to last, by (day, level, caller class, outcome)."""
    rows = await connection.fetch(
        "SELECT day, level, caller_class, outcome, sum(value)::bigint AS value FROM ledger_count"
        " WHERE day BETWEEN $1 AND $2 GROUP BY day, level, caller_class, outcome",
        first_day,
        last_day,
    )
    return {
        (row["day"], row["level"], row["caller_class"], row["outcome"]): row["value"]
        for row in rows
    }


async def application_days(
    connection: Connection, first_day: int, last_day: int, outcomes: Iterable[str]
) -> dict[str, dict[int, int]]:
    """Resolutions with one of `outcomes`, by application and day."""
    rows = await connection.fetch(
        "SELECT caller, day, sum(value)::bigint AS value FROM ledger_count"
        " WHERE day BETWEEN $1 AND $2 AND caller_class = 'application' AND outcome = ANY($3)"
        " GROUP BY caller, day",
        first_day,
        last_day,
        list(outcomes),
    )
    found: dict[str, dict[int, int]] = {}
    for row in rows:
        found.setdefault(row["caller"], {})[row["day"]] = row["value"]
    return found


async def damaged_days(connection: Connection) -> dict[int, str]:
    """Days whose claim is stopped, with the reason."""
    rows = await connection.fetch(
        "SELECT day, string_agg(reason, '; ') AS reason FROM ledger_damage GROUP BY day"
    )
    return {row["day"]: row["reason"] for row in rows}


async def earlier(connection: Connection, day: int) -> dict[tuple[str, str, str], int]:
    """Counts of all days before `day`, damaged ones left out, by (level, caller class, outcome)."""
    rows = await connection.fetch(
        "SELECT level, caller_class, outcome, sum(value)::bigint AS value FROM ledger_count"
        " WHERE day < $1 AND day NOT IN (SELECT day FROM ledger_damage)"
        " GROUP BY level, caller_class, outcome",
        day,
    )
    return {(row["level"], row["caller_class"], row["outcome"]): row["value"] for row in rows}


async def served_prefixes(
    connection: Connection, outcomes: Iterable[str], caller_classes: Iterable[str]
) -> dict[str, int]:
    """The first day on which something below a prefix was resolved, by prefix key.

    Only resolutions for one of `caller_classes`, with one of `outcomes`.
    """
    rows = await connection.fetch(
        "SELECT prefix, min(day) AS day FROM ledger_count"
        " WHERE outcome = ANY($1) AND caller_class = ANY($2) AND prefix <> '' GROUP BY prefix",
        list(outcomes),
        list(caller_classes),
    )
    return {row["prefix"]: row["day"] for row in rows}


async def _write_counts(connection: Connection, identity: uuid.UUID, counts: Counts) -> None:
    await connection.execute(
        _WRITE_COUNTS,
        identity,
        [slot for slot, _, _ in counts],
        [meaning.day for _, meaning, _ in counts],
        [meaning.level for _, meaning, _ in counts],
        [meaning.prefix for _, meaning, _ in counts],
        [meaning.caller_class for _, meaning, _ in counts],
        [meaning.caller for _, meaning, _ in counts],
        [meaning.channel for _, meaning, _ in counts],
        [meaning.outcome for _, meaning, _ in counts],
        [value for _, _, value in counts],
    )


async def _write_sources(connection: Connection, identity: uuid.UUID, sources: Sources) -> None:
    await connection.execute(
        _WRITE_SOURCES,
        identity,
        [slot for slot, _, _ in sources],
        [meaning.day for _, meaning, _ in sources],
        [meaning.prefix for _, meaning, _ in sources],
        [meaning.source for _, meaning, _ in sources],
        [value for _, _, value in sources],
    )
