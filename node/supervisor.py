"""The parent process: stores (when embedded), workers, and an orderly end.

It holds the data folder and the listening sockets, one for each worker; a child that dies is
replaced at once, and callers wait in its socket's backlog meanwhile.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial

from node.config import Config, terminal_environment
from node.data_folder import DataFolder
from node.embedded_postgres import EmbeddedPostgres
from node.embedded_valkey import EmbeddedValkey
from node.hangup import Hangup
from node.listening import (
    PORT_PATIENCE_S,
    Address,
    PortTakenError,
    Transport,
    listen,
    refuse_newcomers,
)
from node.server_log import bound_log
from node.start_error import StartError
from node.tls import tls_context
from node.tls_files import tls_files
from node.worker_process import WorkerProcess
from node.worker_slot import READY_WITHIN_S, RESTART_PAUSE_MAX_S, RESTART_PAUSE_S, WorkerSlot

# Logs are looked at this often, and set aside when they have grown large.
BOUND_LOGS_EVERY_S = 60.0
# A terminal that is closed is gone a moment after its SIGHUP at the latest.
_HANGUP_PAUSE_S = 0.1

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)

Report = Callable[[str], None]


class Supervisor:
    """Starts and keeps the children of one node."""

    def __init__(self, config: Config, folder: DataFolder, report: Report) -> None:
        self._config = config
        self._folder = folder
        self._report = report
        self._stores: list[EmbeddedPostgres | EmbeddedValkey] = []
        # By the option that hands them to a worker; one for each worker.
        self._sockets: dict[str, tuple[socket.socket, ...]] = {}
        self._slots: list[WorkerSlot] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._hangup = Hangup()
        self._replacing = asyncio.Event()

    async def start_stores(self) -> Config:
        """Start the embedded stores; returns the configuration with their addresses."""
        postgres, valkey = EmbeddedPostgres(self._folder), EmbeddedValkey(self._folder)
        for store in (postgres, valkey):
            await store.start()
            self._stores.append(store)
            self._keep(self._keep_store(store))
        self._config = replace(self._config, postgres_url=postgres.url, redis_url=valkey.url)
        return self._config

    async def listen(self, now_s: float) -> Config:
        """Take the ports; returns the configuration with the doors that are open.

        Raises:
            StartError: if another program has one, an address is not ours, or the files of HTTPS
                cannot be used.
        """
        await self._take_ports(_addresses(self._config, now_s))
        try:
            # HTTP has waited for a predecessor; who did not ask for the protocol need not wait.
            patience_s = PORT_PATIENCE_S if self._config.handle_is_chosen else 0.0
            await self._take_ports(_handle_addresses(self._config), patience_s)
        except PortTakenError as error:
            if self._config.handle_is_chosen:
                raise
            self._report(f"{error}; the node starts without the Handle protocol")
            self._config = replace(self._config, handle_host=None, handle_port=None)
        return self._config

    async def _take_ports(
        self, addresses: dict[str, Address], patience_s: float = PORT_PATIENCE_S
    ) -> None:
        """Take all of these, or none."""
        clock_s = asyncio.get_running_loop().time
        taken: dict[str, tuple[socket.socket, ...]] = {}
        try:
            for option, address in addresses.items():
                taken[option] = await listen(address, self._config.workers, clock_s, patience_s)
        except BaseException:
            _close(taken)
            raise
        self._sockets |= taken

    async def start_workers(self) -> None:
        """Start the workers and return when all of them answer.

        Raises:
            StartError: if one does not in time.
        """
        self._keep(self._bound_logs())
        for number in range(self._config.workers):
            slot = WorkerSlot(number, partial(self._start_worker, number), self._report)
            self._slots.append(slot)
            await slot.open()
        ready = await asyncio.gather(*(slot.is_ready(READY_WITHIN_S) for slot in self._slots))
        if not all(ready):
            log_file = self._folder.logs_dir / "worker.log"
            raise StartError(f"worker {ready.index(False)} does not start: see {log_file}")
        self._keep(self._replace_workers())

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(BOUND_LOGS_EVERY_S)
            for log_file in self._folder.logs_dir.glob("*.log"):
                await asyncio.to_thread(bound_log, log_file)

    async def wait(self) -> None:
        """Return at the first signal to stop; SIGHUP replaces the workers meanwhile."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(
            signal.SIGHUP, loop.call_later, _HANGUP_PAUSE_S, self._hung_up, stopping
        )
        # One that came before the handlers were there has waited for them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        await stopping.wait()

    async def stop(self) -> None:
        """Workers first (they write their last counts), then the stores; safe to call twice."""
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        # The workers have the sockets, too: what waits there is theirs to answer.
        for listening in (one for found in self._sockets.values() for one in found):
            refuse_newcomers(listening)
        _close(self._sockets)
        self._sockets.clear()
        await asyncio.gather(*(slot.stop() for slot in self._slots))
        for store in reversed(self._stores):
            await store.stop()

    def _hung_up(self, stopping: asyncio.Event) -> None:
        if self._hangup.was_the_terminal():
            stopping.set()
        else:
            self._replacing.set()

    async def _replace_workers(self) -> None:
        """One after the other, as often as asked; what was asked meanwhile is done once more."""
        while True:
            await self._replacing.wait()
            self._replacing.clear()
            self._report("SIGHUP: the workers are replaced one by one")
            for slot in self._slots:
                if not await slot.replace():
                    break  # the next would not start, either
            else:
                self._report("the workers were replaced")

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        self._keepers.append(asyncio.get_running_loop().create_task(work))

    async def _keep_store(self, store: EmbeddedPostgres | EmbeddedValkey) -> None:
        pause_s = RESTART_PAUSE_S
        while True:
            code = await store.wait()
            self._report(f"{type(store).__name__} ended with {code}: it is started again")
            while True:
                try:
                    await store.start()
                    break
                except Exception as error:
                    self._report(str(error))
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, RESTART_PAUSE_MAX_S)
            pause_s = RESTART_PAUSE_S

    async def _start_worker(self, number: int) -> WorkerProcess:
        return await WorkerProcess.start(
            {option: found[number] for option, found in self._sockets.items()},
            _worker_environment(self._config),
            self._folder.logs_dir / "worker.log",
        )


def _worker_environment(config: Config) -> dict[str, str]:
    assert config.postgres_url is not None
    assert config.redis_url is not None
    return {
        **terminal_environment(),
        "IDNODE_DATA": str(config.data),
        "IDNODE_HTTP": config.http,
        "IDNODE_POSTGRES_URL": config.postgres_url,
        "IDNODE_REDIS_URL": config.redis_url,
        "IDNODE_HANDLE": config.handle or "off",
    }


def _addresses(config: Config, now_s: float) -> dict[str, Address]:
    found = {"http": Address(config.http_host, config.http_port, "IDNODE_HTTP")}
    if config.https_host is not None and config.https_port is not None:
        tls_context(*tls_files(config, now_s))
        found["https"] = Address(config.https_host, config.https_port, "IDNODE_HTTPS")
    return found


def _handle_addresses(config: Config) -> dict[str, Address]:
    if config.handle_host is None or config.handle_port is None:
        return {}
    place = (config.handle_host, config.handle_port, "IDNODE_HANDLE")
    return {
        "handle-tcp": Address(*place, Transport.TCP),
        "handle-udp": Address(*place, Transport.UDP),
    }


def _close(sockets: dict[str, tuple[socket.socket, ...]]) -> None:
    for found in sockets.values():
        for one in found:
            one.close()
