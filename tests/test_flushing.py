"""From journals to the ledger, which ends with what was counted, whatever breaks in between."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy

from metrics import ledger
from metrics.counting import Counting
from metrics.day import day_number
from metrics.dimension import SUCCESSES
from metrics.flushing import Flushing, instance_of
from metrics.journal import JournalSize, read_snapshot
from registry.database import Database
from resolver.errors import RegistryUnavailableError
from tests.conftest import free_port

NOON_S = datetime(2026, 11, 24, 4, tzinfo=UTC).timestamp()
TODAY = day_number(NOON_S)
DAY_S = 86_400
SMALL = JournalSize(64, 64, 32_768, 8, 8, 2_048)


class Process:
    """What one worker has: counts, and the way to the ledger."""

    def __init__(self, folder: Path, database: Database, now_s: float = NOON_S) -> None:
        self.counting = Counting(folder, now_s, SMALL)
        self.reports: list[str] = []
        self.flushing = Flushing(folder, self.counting, database.connection, self.reports.append)

    @property
    def path(self) -> Path:
        return self.counting.journals[-1].path

    def count(self, times: int = 1, *, now_s: float = NOON_S, source: str = "::1") -> None:
        for _ in range(times):
            self.counting.count(
                now_s, "node", "88.608.1", "anonymous", "", "batch", "found", source
            )

    def die(self) -> None:
        """As after kill -9: the files stay as they are, their locks are free."""
        self.counting.close()


async def _adopted(folder: Path, database: Database, now_s: float = NOON_S) -> Process:
    """A process that starts when another one has died."""
    process = Process(folder, database, now_s)
    await process.flushing.adopt(now_s)
    return process


async def _ledger(database: Database) -> tuple[int, int]:
    """Everything the ledger holds: counts, sources."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT (SELECT coalesce(sum(value), 0) FROM ledger_count) AS counts,"
            " (SELECT coalesce(sum(value), 0) FROM ledger_source) AS sources"
        )
    assert row is not None
    return int(row["counts"]), int(row["sources"])


async def _execute(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        await connection.execute(statement)


async def _damaged(database: Database) -> dict[int, str]:
    async with database.connection() as connection:
        return await ledger.damaged_days(connection)


async def _states(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT state FROM journal ORDER BY state")
    return [row["state"] for row in rows]


def _journals(folder: Path) -> int:
    return len(list(folder.glob("*.journal")))


# Where the work breaks off: in each statement, and at the commit.
_STEPS = {
    "the journal": ("BEFORE INSERT ON journal", ""),
    "the counts": ("BEFORE INSERT OR UPDATE ON ledger_count", ""),
    "the sources": ("BEFORE INSERT OR UPDATE ON ledger_source", ""),
    "the commit": ("AFTER INSERT OR UPDATE ON ledger_count", "DEFERRABLE INITIALLY DEFERRED"),
    "the state": ("BEFORE UPDATE ON journal", ""),
}


@asynccontextmanager
async def _broken_at(database: Database, step: str) -> AsyncIterator[None]:
    """PostgreSQL goes away whenever the ledger is at `step`."""
    event, when = _STEPS[step]
    await _execute(
        database,
        "CREATE OR REPLACE FUNCTION go_away() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION 'away' USING ERRCODE = 'admin_shutdown'; END $$",
    )
    table = event.rpartition(" ")[2]
    kind = "CONSTRAINT TRIGGER" if when else "TRIGGER"
    await _execute(
        database,
        f"CREATE {kind} away {event} {when} FOR EACH ROW EXECUTE FUNCTION go_away()",
    )
    try:
        yield
    finally:
        database.is_up = True
        await _execute(database, f"DROP TRIGGER away ON {table}")


async def test_a_flush_that_breaks_off_is_made_good_by_the_next(
    tmp_path: Path, database: Database
) -> None:
    process = Process(tmp_path, database)
    for n, step in enumerate(_STEPS):
        if step == "the state":
            continue  # a flush does not touch it
        process.count(5)
        async with _broken_at(database, step):
            with pytest.raises(RegistryUnavailableError):
                await process.flushing.flush(NOON_S)
        assert await _ledger(database) == (7 * n, 7 * n), step
        process.count(2)
        await process.flushing.flush(NOON_S)
        assert await _ledger(database) == (7 * (n + 1), 7 * (n + 1)), step
    process.die()


@pytest.mark.parametrize("work", ["flush", "finish", "adopt"])
async def test_a_process_that_dies_at_any_step_is_adopted_with_all_its_counts(
    tmp_path: Path, database: Database, work: str
) -> None:
    for n, step in enumerate(_STEPS, start=1):
        process = Process(tmp_path, database)
        process.count(3)
        await process.flushing.flush(NOON_S)
        for source in range(70):  # one full journal, and a new one
            process.count(source=f"192.0.2.{source}")
        dying = process
        if work == "adopt":
            process.die()
            dying = Process(tmp_path, database)
        async with _broken_at(database, step):
            with pytest.raises(RegistryUnavailableError):
                await _work(dying, work)
        dying.die()
        heir = await _adopted(tmp_path, database)
        assert await _ledger(database) == (73 * n, 73 * n), step
        assert await heir.flushing.totals() == {("node", "batch", "found", "anonymous"): 73 * n}
        assert _journals(tmp_path) == 1, step
        assert await _damaged(database) == {}
        heir.die()


async def _work(process: Process, work: str) -> None:
    if work == "flush":
        await process.flushing.flush(NOON_S)
    elif work == "finish":
        await process.flushing.finish()
    else:
        await process.flushing.adopt(NOON_S)


@pytest.mark.parametrize("work", ["flush", "finish", "adopt"])
async def test_a_commit_that_was_reported_as_failed_counts_nothing_twice(
    tmp_path: Path, database: Database, work: str
) -> None:
    @asynccontextmanager
    async def liar(
        timeout_s: float = 2.0,
    ) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
        async with database.connection(timeout_s) as connection:
            yield connection
        raise RegistryUnavailableError("the answer to the commit was lost")

    process = Process(tmp_path, database)
    process.count(4)
    if work == "adopt":
        process.die()
        process = Process(tmp_path, database)
    truthful, process.flushing._connect = process.flushing._connect, liar
    with pytest.raises(RegistryUnavailableError):
        await _work(process, work)
    assert await _ledger(database) == (4, 4)
    process.flushing._connect = truthful
    await _work(process, work)
    assert await _ledger(database) == (4, 4)
    process.die()
    heir = await _adopted(tmp_path, database)
    assert await _ledger(database) == (4, 4)
    assert await _damaged(database) == {}
    heir.die()


CHILD = """
import asyncio, os, sys
from pathlib import Path
from metrics.counting import Counting
from metrics.flushing import Flushing
from metrics.journal import JournalSize
from registry.database import Database

async def main(folder, url):
    counting = Counting(folder, 1.79e9, JournalSize(64, 64, 32_768, 8, 8, 2_048))
    flushing = Flushing(folder, counting, Database(url).connection)
    async def work():
        while True:
            await flushing.adopt(1.79e9)
            await flushing.flush(1.79e9)
    asyncio.create_task(work())
    for n in range(10**9):
        counting.count(1.79e9, "node", "", "anonymous", "", "batch", "found", f"192.0.2.{n // 9}")
        os.write(1, b".")
        await asyncio.sleep(0.0005)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_killed_processes_that_adopt_each_other_lose_and_invent_nothing(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    chance = random.Random(5)
    children = []
    for _ in range(6):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD, str(tmp_path), database_url),
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        assert child.stdout is not None
        await child.stdout.readexactly(50)
        children.append(child)
        # Mostly two live at the same time.
        await asyncio.sleep(chance.uniform(0, 0.15))
        if len(children) > 1:
            children[-2].kill()
    children[-1].kill()
    received = 50 * len(children)
    for child in children:
        assert child.stdout is not None
        received += len(await child.stdout.read())
        await child.wait()

    heir = await _adopted(tmp_path, database)
    counted, sources = await _ledger(database)
    assert received <= counted <= received + len(children)
    assert counted - len(children) <= sources <= counted
    assert await _damaged(database) == {}
    assert set(await _states(database)) == {"closed"}
    heir.die()


async def test_two_that_adopt_at_the_same_time_share_the_work(
    tmp_path: Path, database: Database
) -> None:
    for _ in range(8):
        dead = Process(tmp_path, database)
        dead.count(10)
        dead.die()
    one, two = Process(tmp_path, database), Process(tmp_path, database)
    adopted = await asyncio.gather(*(p.flushing.adopt(NOON_S) for p in (one, two)))
    assert sum(adopted) == 8
    assert await _ledger(database) == (80, 80)
    assert await _damaged(database) == {}
    for process in (one, two):
        await process.flushing.adopt(NOON_S)
        assert await process.flushing.totals() == {("node", "batch", "found", "anonymous"): 80}
        process.die()


async def test_a_journal_that_comes_back_after_its_adoption_changes_nothing(
    tmp_path: Path, database: Database
) -> None:
    dead = Process(tmp_path, database)
    dead.count(10)
    dead.die()
    kept = tmp_path / "kept"
    shutil.copy2(dead.path, kept)
    heir = await _adopted(tmp_path, database)
    # As if the machine had lost its power between the commit and the removal.
    kept.rename(dead.path)
    assert await heir.flushing.adopt(NOON_S) == 1
    assert await _ledger(database) == (10, 10)
    assert await _damaged(database) == {}
    heir.die()


async def test_the_journal_of_a_living_process_is_not_adopted(
    tmp_path: Path, database: Database
) -> None:
    one, two = Process(tmp_path, database), Process(tmp_path, database)
    one.count(3)
    assert await two.flushing.adopt(NOON_S) == 0
    assert one.path.exists()
    one.die()
    assert await two.flushing.adopt(NOON_S) == 1
    two.die()


async def test_a_damaged_journal_stops_the_claim_for_its_days_and_no_other_journal(
    tmp_path: Path, database: Database
) -> None:
    damaged = Process(tmp_path, database, NOON_S - 2 * DAY_S)
    damaged.count(5, now_s=NOON_S - 2 * DAY_S)
    await damaged.flushing.flush(NOON_S)
    damaged.die()
    with damaged.path.open("r+b") as file:
        file.seek(SMALL.slots_end + 5)
        file.write(b"\xff")
    os.utime(damaged.path, (NOON_S, NOON_S - DAY_S))
    for _ in range(2):
        whole = Process(tmp_path, database, NOON_S - DAY_S)
        whole.count(7)
        whole.die()

    heir = await _adopted(tmp_path, database)
    assert await _ledger(database) == (19, 19)
    assert {
        day: "directory damaged" in reason for day, reason in (await _damaged(database)).items()
    } == {
        TODAY - 2: True,
        TODAY - 1: True,
    }
    assert await _states(database) == ["closed", "closed", "damaged"]
    assert damaged.path.with_suffix(".damaged").exists()
    assert "directory damaged" in heir.reports[0]
    assert await heir.flushing.adopt(NOON_S) == 0
    assert len(heir.reports) == 1
    heir.die()


async def test_a_journal_with_a_damaged_header_is_known_by_its_name(
    tmp_path: Path, database: Database
) -> None:
    damaged = Process(tmp_path, database)
    damaged.count(5)
    await damaged.flushing.flush(NOON_S)
    damaged.die()
    damaged.path.write_bytes(b"")
    os.utime(damaged.path, (NOON_S, NOON_S))
    (tmp_path / "strange.journal").write_bytes(b"nothing")
    os.utime(tmp_path / "strange.journal", (NOON_S, NOON_S - 3 * DAY_S))

    heir = await _adopted(tmp_path, database)
    assert sorted(await _damaged(database)) == [TODAY - 3, TODAY]
    assert await _states(database) == ["damaged", "damaged"]
    assert len(heir.reports) == 2
    heir.die()


async def test_damage_found_by_a_clock_that_went_back_stops_a_day_all_the_same(
    tmp_path: Path, database: Database
) -> None:
    damaged = Process(tmp_path, database)
    damaged.die()
    damaged.path.write_bytes(b"")
    heir = await _adopted(tmp_path, database, NOON_S - 5 * DAY_S)
    assert list(await _damaged(database)) == [TODAY]
    heir.die()


@pytest.mark.parametrize("kind", ["count", "source"])
async def test_a_journal_that_went_backwards_is_noticed(
    tmp_path: Path, database: Database, kind: str
) -> None:
    process = Process(tmp_path, database, NOON_S - DAY_S)
    process.count(5)
    await process.flushing.flush(NOON_S)
    process.die()
    slot = 0 if kind == "count" else SMALL.count_slots
    with process.path.open("r+b") as file:
        file.seek(4_096 + 8 * slot)
        file.write(bytes([5 ^ 1]))  # one bit
    heir = await _adopted(tmp_path, database)
    ((day, reason),) = (await _damaged(database)).items()
    assert day == TODAY
    assert f"slot {slot} holds 4, the ledger 5" in reason
    assert await _ledger(database) == (5, 5)
    assert process.path.with_suffix(".damaged").exists()
    heir.die()


async def test_a_lost_journal_stops_the_claim_for_every_day_it_may_have_counted(
    tmp_path: Path, database: Database
) -> None:
    process = Process(tmp_path, database, NOON_S - 2 * DAY_S)
    process.count(5)
    await process.flushing.flush(NOON_S)
    process.die()
    process.path.unlink()
    heir = await _adopted(tmp_path, database)
    damaged = await _damaged(database)
    assert sorted(damaged) == [TODAY - 2, TODAY - 1, TODAY]
    assert "is gone from" in damaged[TODAY]
    assert await _ledger(database) == (5, 5)
    heir.die()


async def test_a_ledger_that_came_back_older_is_made_whole_again(
    tmp_path: Path, database: Database
) -> None:
    dead, living = Process(tmp_path, database), Process(tmp_path, database)
    for process in (dead, living):
        process.count(5)
        process.count(5, source="192.0.2.1")
        await process.flushing.flush(NOON_S)
    dead.die()
    await _execute(database, "UPDATE ledger_count SET value = 1")
    await _execute(database, "DELETE FROM ledger_source WHERE slot % 2 = 0")
    assert await _ledger(database) == (2, 10)
    await living.flushing.adopt(NOON_S)
    await living.flushing.flush(NOON_S)
    assert await _ledger(database) == (20, 20)
    await _execute(database, "TRUNCATE journal, ledger_count, ledger_source")
    await living.flushing.adopt(NOON_S)
    await living.flushing.flush(NOON_S)
    assert await _ledger(database) == (10, 10)  # what was adopted was not in the backup
    assert await _damaged(database) == {}
    living.die()


async def test_with_postgres_away_nothing_is_lost(tmp_path: Path, database: Database) -> None:
    away = Database(f"postgresql://idnode@127.0.0.1:{free_port()}/idnode")
    process = Process(tmp_path, away)
    process.count(5)
    for work in ("flush", "adopt", "finish"):
        away.is_up = True
        with pytest.raises(RegistryUnavailableError):
            await _work(process, work)
    assert await process.flushing.totals() is None
    assert process.flushing.flushed_at_s is None
    process.die()
    heir = await _adopted(tmp_path, database)
    assert await _ledger(database) == (5, 5)
    heir.die()
    await away.close()


async def test_a_flush_writes_what_has_grown_and_completes_full_journals(
    tmp_path: Path, database: Database
) -> None:
    process = Process(tmp_path, database)
    for n in range(200):
        process.count(source=f"192.0.2.{n}")
    assert _journals(tmp_path) == 4
    await process.flushing.flush(NOON_S)
    assert process.flushing.flushed_at_s == NOON_S
    assert await _ledger(database) == (200, 200)
    assert await _states(database) == ["closed", "closed", "closed", "open"]
    assert _journals(tmp_path) == 1
    process.count(3)
    await process.flushing.flush(NOON_S)
    assert await _ledger(database) == (203, 203)
    await process.flushing.finish()
    assert _journals(tmp_path) == 0
    assert set(await _states(database)) == {"closed"}
    process.die()


async def test_totals_never_go_back_whatever_happens(tmp_path: Path, database: Database) -> None:
    chance = random.Random(7)
    watcher, other = Process(tmp_path, database), Process(tmp_path, database)
    await watcher.flushing.adopt(NOON_S)
    before: Counter[tuple[str, str, str, str]] = Counter()
    counted = 0
    for _ in range(120):
        what = chance.choice(
            ("count", "count", "other counts", "flush", "other flushes", "adopt", "other dies")
        )
        times = chance.randrange(1, 40)
        source = f"192.0.2.{chance.randrange(250)}"
        if what == "count":
            watcher.count(times, source=source)
            counted += times
        elif what == "other counts":
            other.count(times, source=source)
            counted += times
        elif what == "flush":
            await asyncio.gather(watcher.flushing.flush(NOON_S), watcher.flushing.totals())
        elif what == "other flushes":
            await asyncio.gather(other.flushing.flush(NOON_S), watcher.flushing.totals())
        elif what == "adopt":
            await asyncio.gather(watcher.flushing.adopt(NOON_S), watcher.flushing.totals())
        else:
            other.die()
            other = Process(tmp_path, database)
        totals = await watcher.flushing.totals()
        assert totals is not None
        assert before <= totals, what
        assert totals.total() == counted, what
        before = totals
    # A file that is damaged, a ledger that came back older: the page stays where it was.
    await watcher.flushing.flush(NOON_S)
    other.die()
    other.path.write_bytes(b"")
    await _execute(database, "UPDATE ledger_count SET value = value / 2")
    for _ in range(3):
        await watcher.flushing.adopt(NOON_S)
        await watcher.flushing.flush(NOON_S)
        totals = await watcher.flushing.totals()
        assert totals == before
    watcher.die()


async def test_totals_are_shown_while_the_ledger_cannot_be_read(
    tmp_path: Path, database: Database
) -> None:
    watcher, other = Process(tmp_path, database), Process(tmp_path, database)
    await watcher.flushing.adopt(NOON_S)
    other.count(5)
    assert (await watcher.flushing.totals() or Counter()).total() == 5
    await other.flushing.finish()
    other.die()
    away = Database(f"postgresql://idnode@127.0.0.1:{free_port()}/idnode")
    truthful, watcher.flushing._connect = watcher.flushing._connect, away.connection
    watcher.count(2)
    assert (await watcher.flushing.totals() or Counter()).total() == 7
    assert "the ledger cannot be read" in watcher.reports[0]
    watcher.flushing._connect = truthful
    assert (await watcher.flushing.totals() or Counter()).total() == 7
    watcher.die()
    await away.close()


async def test_half_made_journals_are_removed_when_they_are_old(
    tmp_path: Path, database: Database
) -> None:
    for name, age_s in (("old.new", 3_601), ("young.new", 3_599)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (NOON_S, NOON_S - age_s))
    heir = await _adopted(tmp_path, database)
    assert not (tmp_path / "old.new").exists()
    assert (tmp_path / "young.new").exists()
    heir.die()


def test_an_instance_keeps_its_name_and_two_folders_are_two(tmp_path: Path) -> None:
    first = instance_of(tmp_path / "one")
    assert first == instance_of(tmp_path / "one")
    assert first != instance_of(tmp_path / "two")
    assert len(first) == 36
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["instance"]


def test_processes_that_start_at_once_agree_on_the_instance(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from metrics.flushing import instance_of;"
        "sys.stdin.read(1); print(instance_of(Path(sys.argv[1])))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("x")
        child.stdin.flush()
    assert len({child.communicate()[0] for child in children}) == 1


async def test_the_ledger_adds_up_journals_days_and_applications(
    tmp_path: Path, database: Database
) -> None:
    chance = random.Random(11)
    daily: Counter[tuple[int, str, str, str]] = Counter()
    applications: Counter[tuple[str, int]] = Counter()
    served = set()
    for worker in range(6):
        folder = tmp_path / str(worker % 2)
        process = Process(folder, database, NOON_S - 9 * DAY_S)
        for _ in range(150):
            day = chance.randrange(-9, 1)
            caller = chance.choice(("", "", "app-1", "app-2"))
            caller_class = "application" if caller else chance.choice(("anonymous", "operator"))
            level, outcome = (
                chance.choice(("node", "enterprise")),
                chance.choice(("found", "found_stale", "not_found", "refused")),
            )
            prefix = chance.choice(("", "88.608.1", "88.608.2"))
            now_s = NOON_S + day * DAY_S
            process.counting.count(
                now_s, level, prefix, caller_class, caller, "http_json", outcome, "::1"
            )
            daily[TODAY + day, level, caller_class, outcome] += 1
            if outcome in SUCCESSES:
                if caller_class == "application":
                    served.add(prefix)
                if caller:
                    applications[caller, TODAY + day] += 1
        await (process.flushing.finish() if worker % 3 else process.flushing.flush(NOON_S))
        process.die()
    async with database.connection() as connection:
        assert await ledger.daily(connection, TODAY - 9, TODAY) == daily
        assert await ledger.daily(connection, TODAY - 3, TODAY - 2) == {
            key: value for key, value in daily.items() if TODAY - 3 <= key[0] <= TODAY - 2
        }
        assert await ledger.daily(connection, TODAY + 1, TODAY + 9) == {}
        by_application = await ledger.application_days(connection, TODAY - 9, TODAY, SUCCESSES)
        assert {
            (caller, day): value
            for caller, days in by_application.items()
            for day, value in days.items()
        } == applications
        found = await ledger.served_prefixes(connection, SUCCESSES, ["application"])
        assert set(found) == served - {""}


async def test_a_value_in_the_ledger_never_sinks(tmp_path: Path, database: Database) -> None:
    process = Process(tmp_path, database)
    process.count(2)
    early = read_snapshot(process.path)
    process.count(3)
    late = read_snapshot(process.path)
    async with database.connection() as connection:
        for snapshot in (late, early, late, early):
            await ledger.write(
                connection,
                "instance",
                snapshot.identity,
                snapshot.opened_at_s,
                snapshot.counts,
                snapshot.sources,
            )
            assert await ledger.sums(connection, snapshot.identity) == (5, 5)
    process.die()
