"""What operators watch: the metrics page, health and readiness."""

import asyncio
from collections.abc import Callable

from metrics.exposition import CONTENT_TYPE, PageNumbers, render_page
from metrics.flushing import Flushing
from metrics.policy import Policy
from metrics.worker_numbers import WorkerNumbers
from node.http_exchange import Reply
from node.measures_report import Standpoint, evaluations
from node.version import VERSION
from registry import outbox
from registry.database import Database
from resolver.errors import RegistryUnavailableError
from resolver.handle_json import dump
from resolver.hot_redis import RedisCache
from resolver.prefix_directory import PrefixDirectory

# Scrapes that come together share one evaluation.
EVALUATED_FOR_S = 0.2


class Operations:
    """Reads what the other parts know; changes nothing."""

    def __init__(
        self,
        database: Database,
        cache: RedisCache,
        directory: PrefixDirectory,
        flushing: Flushing,
        numbers: WorkerNumbers,
        judged_by: tuple[Policy, ...],
        now_s: Callable[[], float],
    ) -> None:
        self._database = database
        self._cache = cache
        self._directory = directory
        self._flushing = flushing
        self._numbers = numbers
        self._judged_by = judged_by
        self._now_s = now_s
        self._evaluated: Standpoint | None = None
        self._evaluated_at_s = 0.0
        self._measures: tuple[Standpoint, bytes] | None = None
        self._evaluating = asyncio.Lock()
        self._pinging: asyncio.Task[bool] | None = None
        self.is_draining = False

    def health(self) -> Reply:
        """The process lives; touches no store."""
        return Reply(200, dump({"status": "alive", "version": VERSION}))

    async def ready(self) -> Reply:
        """What is missing for full service; 200 only if nothing is."""
        missing = []
        if self.is_draining:
            missing.append("the node is stopping")
        if not await self._ping():
            missing.append("PostgreSQL does not answer: answers come from the caches, no writes")
        if not self._cache.is_up:
            missing.append("Redis does not answer: every answer comes from PostgreSQL")
        if not self._directory.is_known:
            missing.append("the table of prefixes was not loaded yet")
        status = "ready" if not missing else "not ready"
        return Reply(200 if not missing else 503, dump({"status": status, "missing": missing}))

    async def metrics(self) -> Reply:
        """The page for Prometheus: all workers of this instance together.

        This process's own counts of resolutions are exact, those of the others half a second old;
        what goes up and down is as old as the last `show_gauges` of each.
        """
        evaluated = await self._evaluate()
        counted = await self._flushing.totals()
        totals = await asyncio.to_thread(self._numbers.totals)
        numbers = PageNumbers(
            version=VERSION,
            resolutions=counted,
            evaluations=evaluated.evaluations if evaluated else (),
            registry=evaluated.numbers if evaluated else None,
            store_up={"postgres": self._database.is_up, "redis": self._cache.is_up},
            cache_entries=totals.cache_entries,
            cache_lookups=totals.cache_lookups,
            refused=totals.refused,
            connections=totals.connections,
            workers=totals.workers,
            l1_emptied=totals.l1_emptied,
            ledger_damaged_days=evaluated.damaged_days if evaluated else None,
            journal_flush_lag_s=self._lag_s(),
            outbox_pending=await self._pending(),
        )
        return Reply(200, render_page(numbers), CONTENT_TYPE.encode())

    async def measures(self) -> Reply:
        """Where the node stands against each policy."""
        evaluated = await self._evaluate()
        if evaluated is None:
            document = {"responseCode": 3, "message": "PostgreSQL is away: try again"}
            return Reply(503, dump(document), headers=[(b"retry-after", b"1")])
        if self._measures is None or self._measures[0] is not evaluated:
            # Projections walk through the days of every window: once for each look at the stores.
            found = [evaluation.to_json() for evaluation in evaluated.evaluations]
            self._measures = evaluated, dump({"policies": found})
        return Reply(200, self._measures[1])

    async def _ping(self) -> bool:
        """True if PostgreSQL answers; who asks while a question is under way shares its answer."""
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self._database.ping())
        return await asyncio.shield(self._pinging)

    async def _evaluate(self) -> Standpoint | None:
        async with self._evaluating:
            now_s = self._now_s()
            try:
                await self._flushing.flush(now_s)
                is_old = abs(now_s - self._evaluated_at_s) > EVALUATED_FOR_S
                if is_old or self._evaluated is None:
                    self._evaluated = await evaluations(self._database, self._judged_by, now_s)
                    self._evaluated_at_s = now_s
            except RegistryUnavailableError:
                return None
            return self._evaluated

    async def _pending(self) -> int | None:
        try:
            return await outbox.pending(self._database)
        except RegistryUnavailableError:
            return None

    def _lag_s(self) -> float | None:
        flushed_at_s = self._flushing.flushed_at_s
        return None if flushed_at_s is None else max(0.0, self._now_s() - flushed_at_s)
