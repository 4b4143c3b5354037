"""A worker's place: its sockets live as long as the node, and there is always one process on them.

Callers wait in a socket's backlog while a process that died is replaced.
"""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable

from node.worker_process import WorkerProcess

READY_WITHIN_S = 60.0
# A first death is no reason to wait; a process that dies young again and again is not started
# more often than this.
RESTART_PAUSE_S = 0.1
RESTART_PAUSE_MAX_S = 5.0
LIVED_WELL_S = 10.0
# A node starts if its workers do at the third attempt at the latest.
_STARTS_MAX = 3
_LOOK_EVERY_S = 0.02

Start = Callable[[], Awaitable[WorkerProcess]]


class WorkerSlot:
    """Keeps one worker running, and replaces it without a gap."""

    def __init__(self, number: int, start: Start, report: Callable[[str], None]) -> None:
        self._number = number
        self._start = start
        self._report = report
        self._present: WorkerProcess | None = None
        # Also those that are leaving, or not ready yet.
        self._living: set[WorkerProcess] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._pause_s = 0.0
        self._is_stopping = False

    async def open(self) -> None:
        """Start the first worker; it may not answer yet.

        Raises:
            OSError, subprocess.SubprocessError: it cannot be started.
        """
        self._present = await self._begin()

    async def is_ready(self, within_s: float) -> bool:
        """Whether the worker, or one that took its place, answers within `within_s`."""
        try:
            async with asyncio.timeout(within_s):
                for _ in range(_STARTS_MAX):
                    present = self._present
                    if present is not None and await present.is_ready(within_s):
                        return True
                    await self._another_than(present)
        except TimeoutError:
            pass
        return False

    async def _another_than(self, present: WorkerProcess | None) -> None:
        while True:
            if self._present is not present:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def replace(self) -> bool:
        """Put a new worker into the place of the present one; False if that did not work.

        The present one goes on answering until the new one does, then answers what it accepted.
        """
        async with self._changing:
            fresh = await self._ready_one()
            if fresh is None:
                return False
            present, self._present = self._present, fresh
        if present is not None:
            await present.stop()
        return True

    async def stop(self) -> None:
        """Let every worker answer what it accepted and end; safe to call twice."""
        self._is_stopping = True
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._living))

    async def _begin(self) -> WorkerProcess:
        worker = await self._start()
        self._living.add(worker)
        task = asyncio.get_running_loop().create_task(self._watch(worker))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return worker

    async def _ready_one(self) -> WorkerProcess | None:
        try:
            fresh = await self._begin()
        except (OSError, subprocess.SubprocessError) as error:
            self._report(f"worker {self._number} was not replaced: {error}")
            return None
        if await fresh.is_ready(READY_WITHIN_S):
            return fresh
        self._report(
            f"worker {self._number} was not replaced: the new one does not start, see worker.log"
            " in the folder logs; the present one goes on"
        )
        await fresh.stop()
        return None

    async def _watch(self, worker: WorkerProcess) -> None:
        code = await worker.wait()
        self._living.discard(worker)
        async with self._changing:
            if worker is self._present and not self._is_stopping:
                self._report(f"worker {self._number} ended with {code}: it is started again")
                await self._revive(worker)

    async def _revive(self, dead: WorkerProcess) -> None:
        if asyncio.get_running_loop().time() - dead.began_s > LIVED_WELL_S:
            self._pause_s = 0.0
        while True:
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(max(2 * self._pause_s, RESTART_PAUSE_S), RESTART_PAUSE_MAX_S)
            try:
                self._present = await self._begin()
                return
            except (OSError, subprocess.SubprocessError) as error:
                self._report(f"worker {self._number} cannot be started: {error}")
