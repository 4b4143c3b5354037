"""Flushing: from the journals of this instance into the ledger, and adoption of dead ones."""

import asyncio
import contextlib
import fcntl
import os
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from metrics import ledger
from metrics.counting import Counting
from metrics.day import day_number
from metrics.journal import (
    Journal,
    JournalDamagedError,
    Snapshot,
    identity_of,
    read_snapshot,
)
from metrics.ledger import ClassTotals, Connect, Connection

_INSTANCE_FILE = "instance"
# A journal is made within milliseconds; a file that is half made for longer was left by a kill.
_UNFINISHED_S = 3_600


class Flushing:
    """Carries counts of one journal folder (one instance of the node) to the ledger.

    Every worker flushes its own journals and adopts those whose owner died.
    """

    def __init__(
        self,
        folder: Path,
        counting: Counting,
        connect: Connect,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._counting = counting
        self._connect = connect
        self._report = report
        self._instance = instance_of(folder)
        self._written: dict[uuid.UUID, tuple[list[int], list[int]]] = {}
        self._lock = asyncio.Lock()
        self._closed_ids: frozenset[uuid.UUID] | None = None
        self._closed: ClassTotals = Counter()
        self._refreshing = asyncio.Lock()
        self._last_seen: dict[uuid.UUID, ClassTotals] = {}
        self._shown: ClassTotals = Counter()
        self.flushed_at_s: float | None = None

    async def flush(self, now_s: float) -> None:
        """Write what changed since the last flush; a full journal is completed and removed.

        A crash anywhere leaves the files, whose absolute values the next owner writes again.

        Raises:
            RegistryUnavailableError (from `connect`): if PostgreSQL is away; nothing is lost.
        """
        async with self._lock:
            for journal in self._counting.journals:
                await self._flush_one(journal)
            for journal in self._counting.retired:
                await self._complete(journal)
                self._written.pop(journal.identity, None)
                self._counting.forget(journal)
            self.flushed_at_s = now_s

    async def finish(self) -> None:
        """The last flush of a process that counts no more: complete and remove its journals.

        Raises:
            RegistryUnavailableError (from `connect`): if PostgreSQL is away; the files stay,
                and the next start adopts them.
        """
        async with self._lock:
            for journal in self._counting.journals:
                await self._complete(journal)

    async def adopt(self, now_s: float) -> int:
        """Complete the journals of dead owners and name the lost ones; returns how many.

        Raises:
            RegistryUnavailableError (from `connect`): if PostgreSQL is away; nothing is lost.
        """
        adopted = 0
        async with self._lock:
            for path in sorted(self._folder.glob("*.journal")):
                adopted += await self._adopt_one(path, now_s)
            await self._name_lost(now_s)
            await self._doubt_written()
            self._remove_unfinished(now_s)
            if adopted or self._closed_ids is None:
                await self._refresh_closed()
        return adopted

    async def check(self) -> None:
        """What every process does besides `adopt`, which one of an instance does: see that what it
        wrote is still there, and read once what dead owners counted.

        Raises:
            RegistryUnavailableError (from `connect`): if PostgreSQL is away; nothing is lost.
        """
        async with self._lock:
            await self._doubt_written()
            if self._closed_ids is None:
                await self._refresh_closed()

    async def totals(self) -> ClassTotals | None:
        """Everything this instance ever counted, by (level, channel, outcome, caller class).

        Exact for this process's own counts; None until the ledger was read once.
        """
        if self._closed_ids is None:
            return None
        live = await asyncio.to_thread(self._other_totals)
        live |= {
            journal.identity: class_totals(journal.counts()) for journal in self._counting.journals
        }
        # After the files: what is missing there by now was completed before, by whichever worker.
        try:
            await self._refresh_if_grown()
        except Exception as error:
            self._report(f"the ledger cannot be read: {error}")
        self._last_seen.update(live)
        counted = Counter(self._closed)
        for identity, totals in self._last_seen.items():
            if identity not in self._closed_ids:
                counted.update(totals)
        # What a damaged file or an older ledger took away does not make the page go back.
        self._shown |= counted
        return self._shown.copy()

    async def _flush_one(self, journal: Journal) -> None:
        before, now = self._written.get(journal.identity), journal.values()
        if now == before:
            return
        grown = journal.grown(before or ([], []), now)
        # The disk first: after a power cut the ledger must not be ahead of the file.
        await asyncio.to_thread(journal.sync)
        async with self._connect(ledger.FLUSH_TIMEOUT_S) as connection, connection.transaction():
            await self._write(connection, grown)
        self._written[journal.identity] = now

    async def _complete(self, journal: Journal) -> None:
        await asyncio.to_thread(journal.sync)
        async with self._connect(ledger.FLUSH_TIMEOUT_S) as connection, connection.transaction():
            # Crash here: nothing was written, the file is still there.
            await self._write(connection, journal.snapshot())
            await ledger.close(connection, journal.identity)
        # Crash here: the file is adopted, which changes nothing.
        _remove(journal.path)
        await self._refresh_closed()

    async def _write(self, connection: Connection, snapshot: Snapshot) -> None:
        await ledger.write(
            connection,
            self._instance,
            snapshot.identity,
            snapshot.opened_at_s,
            snapshot.counts,
            snapshot.sources,
        )

    async def _adopt_one(self, path: Path, now_s: float) -> int:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return 0
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:
                return 0  # adopted and removed by another worker before we had the lock
            await asyncio.to_thread(os.fsync, descriptor)
            await self._take_over(path, now_s)
            return 1
        except BlockingIOError:
            return 0  # its owner lives, or another worker is adopting it
        finally:
            os.close(descriptor)

    async def _take_over(self, path: Path, now_s: float) -> None:
        try:
            snapshot = await asyncio.to_thread(read_snapshot, path)
        except JournalDamagedError as error:
            await self._set_aside(path, str(error), now_s)
            return
        async with self._connect(ledger.FLUSH_TIMEOUT_S) as connection, connection.transaction():
            problem = await ledger.regression(connection, snapshot)
            if problem is None:
                # Crash here: nothing was written, the file is still there.
                await self._write(connection, snapshot)
                await ledger.close(connection, snapshot.identity)
            else:
                await ledger.mark_damaged(
                    connection,
                    self._instance,
                    snapshot.identity,
                    snapshot.opened_at_s,
                    {meaning.day for _, meaning, _ in snapshot.counts},
                    f"{path.name}: {problem}",
                )
        # Crash here: the file is adopted once more, which changes nothing.
        if problem is None:
            _remove(path)
        else:
            _put_aside(path)
            self._report(f"journal {path.name} went backwards: {problem}")

    async def _set_aside(self, path: Path, reason: str, now_s: float) -> None:
        opened_at_s, changed_at_s = _life_s(path)
        async with self._connect(ledger.FLUSH_TIMEOUT_S) as connection, connection.transaction():
            await ledger.mark_damaged(
                connection,
                self._instance,
                identity_of(path),
                opened_at_s,
                _days(opened_at_s, min(changed_at_s, now_s)),
                reason,
            )
        _put_aside(path)
        self._report(f"journal damaged, the claim for its days is stopped: {reason}")

    async def _name_lost(self, now_s: float) -> None:
        """A journal that the ledger knows as open, and whose file is gone, is damage."""
        async with self._connect(ledger.FLUSH_TIMEOUT_S) as connection, connection.transaction():
            open_journals = await ledger.open_journals(connection, self._instance)
            present = {identity_of(path) for path in self._folder.glob("*.journal")}
            for identity, opened_at_s in open_journals:
                if identity not in present and await ledger.is_still_open(connection, identity):
                    await ledger.mark_damaged(
                        connection,
                        self._instance,
                        identity,
                        opened_at_s,
                        _days(opened_at_s, now_s),
                        f"the journal {identity} is gone from {self._folder}",
                    )
                    self._report(f"journal {identity} is gone: the claim for its days is stopped")

    async def _doubt_written(self) -> None:
        """If PostgreSQL came back in an older state, let the next flush write everything."""
        for identity, values in tuple(self._written.items()):
            async with self._connect(ledger.FLUSH_TIMEOUT_S) as connection:
                held = await ledger.sums(connection, identity)
            if held != (sum(values[0]), sum(values[1])):
                del self._written[identity]

    def _remove_unfinished(self, now_s: float) -> None:
        for path in self._folder.glob("*.new"):
            with contextlib.suppress(FileNotFoundError):
                if now_s - path.stat().st_mtime > _UNFINISHED_S:
                    path.unlink()

    async def _refresh_if_grown(self) -> None:
        async with self._connect(ledger.FLUSH_TIMEOUT_S) as connection:
            number = await ledger.closed_number(connection, self._instance)
        if self._closed_ids is None or number != len(self._closed_ids):
            await self._refresh_closed()

    async def _refresh_closed(self) -> None:
        # One after the other: an older look must not replace a newer one.
        async with (
            self._refreshing,
            self._connect(ledger.FLUSH_TIMEOUT_S) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            self._closed_ids, self._closed = await ledger.closed_totals(connection, self._instance)
        for identity in [key for key in self._last_seen if key in self._closed_ids]:
            del self._last_seen[identity]

    def _other_totals(self) -> dict[uuid.UUID, ClassTotals]:
        own = {journal.identity for journal in self._counting.journals}
        found = {}
        for path in self._folder.glob("*.journal"):
            if identity_of(path) not in own:
                with contextlib.suppress(FileNotFoundError, JournalDamagedError):
                    found[identity_of(path)] = class_totals(read_snapshot(path).counts)
        return found


def class_totals(counts: ledger.Counts) -> ClassTotals:
    """Counts by (level, channel, outcome, caller class), all days together."""
    found: ClassTotals = Counter()
    for _, meaning, value in counts:
        found[meaning.level, meaning.channel, meaning.outcome, meaning.caller_class] += value
    return found


def instance_of(folder: Path) -> str:
    """The name of this instance of the node, made once and kept in its journal folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _INSTANCE_FILE
    if not path.exists():
        fresh = folder / f"{_INSTANCE_FILE}.{os.getpid()}"
        with fresh.open("w") as file:
            file.write(str(uuid.uuid4()))
            file.flush()
            # A power cut that emptied it would make this another instance.
            os.fsync(file.fileno())
        try:
            # Two workers may start at once: the first link wins.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text().strip()


def _days(first_s: float, last_s: float) -> range:
    first = day_number(first_s)
    return range(first, max(first, day_number(last_s)) + 1)


def _life_s(path: Path) -> tuple[int, float]:
    """When a journal was opened (its name says so) and last changed, seconds since 1970."""
    changed_at_s = path.stat().st_mtime
    stamp = path.stem.partition("-")[0]
    return int(stamp if stamp.isdecimal() else changed_at_s), changed_at_s


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _put_aside(path: Path) -> None:
    path.rename(path.with_suffix(".damaged"))
