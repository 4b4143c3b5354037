"""The parent process: stores (when embedded), workers, and an orderly end.

It holds the data folder and the listening socket; a child that dies is replaced at once, and
callers wait in the socket's backlog meanwhile.
"""

import asyncio
import contextlib
import errno
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace

from node.child_process import ChildProcess
from node.config import Config, terminal_environment
from node.data_folder import DataFolder
from node.embedded_postgres import EmbeddedPostgres
from node.embedded_valkey import EmbeddedValkey
from node.server_log import bound_log
from node.start_error import StartError
from node.worker import BACKLOG, DRAIN_S

# A child that dies at once is not started more often than this.
RESTART_PAUSE_S = 0.1
RESTART_PAUSE_MAX_S = 5.0
LIVED_WELL_S = 10.0
WORKER_PATIENCE_S = DRAIN_S + 5.0
READY_WITHIN_S = 60.0
# A port that a dying predecessor still holds is waited for.
PORT_PATIENCE_S = 5.0

# Logs are looked at this often, and set aside when they have grown large.
BOUND_LOGS_EVERY_S = 60.0

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Report = Callable[[str], None]


class Supervisor:
    """Starts and keeps the children of one node."""

    def __init__(self, config: Config, folder: DataFolder, report: Report) -> None:
        self._config = config
        self._folder = folder
        self._report = report
        self._stores: list[EmbeddedPostgres | EmbeddedValkey] = []
        self._workers: list[ChildProcess | None] = [None] * config.workers
        self._keepers: list[asyncio.Task[None]] = []
        self._listening: socket.socket | None = None
        self._is_stopping = False

    async def start_stores(self) -> Config:
        """Start the embedded stores; returns the configuration with their addresses."""
        postgres, valkey = EmbeddedPostgres(self._folder), EmbeddedValkey(self._folder)
        for store in (postgres, valkey):
            await store.start()
            self._stores.append(store)
            self._keep(self._keep_store(store))
        self._config = replace(self._config, postgres_url=postgres.url, redis_url=valkey.url)
        return self._config

    async def listen(self) -> None:
        """Take the port.

        Raises:
            StartError: if another program has it, or the address is not ours.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PORT_PATIENCE_S
        while self._listening is None:
            try:
                self._listening = _bound(self._config)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or loop.time() > until_s:
                    raise StartError(_port_problem(self._config, error)) from None
                await asyncio.sleep(0.2)

    async def start_workers(self) -> None:
        """Start the workers and return when the first answers.

        Raises:
            StartError: if none does in time.
        """
        self._keep(self._bound_logs())
        for number in range(self._config.workers):
            await self._start_worker(number)
            self._keep(self._keep_worker(number))
        async with asyncio.timeout(READY_WITHIN_S):
            await _until_answers(self._config)

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(BOUND_LOGS_EVERY_S)
            for log_file in self._folder.logs_dir.glob("*.log"):
                await asyncio.to_thread(bound_log, log_file)

    async def wait(self) -> None:
        """Return at the first signal to stop."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stopping.set)
        # One that came before the handlers were there has waited for them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        await stopping.wait()

    async def stop(self) -> None:
        """Workers first (they write their last counts), then the stores; safe to call twice."""
        self._is_stopping = True
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(
            *(w.stop(signal.SIGTERM, WORKER_PATIENCE_S) for w in self._workers if w is not None)
        )
        if self._listening is not None:
            self._listening.close()
        for store in reversed(self._stores):
            await store.stop()

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

    async def _keep_worker(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        pause_s = RESTART_PAUSE_S
        while True:
            worker = self._workers[number]
            began_s = loop.time()
            code = await worker.wait() if worker is not None else 0
            self._workers[number] = None
            self._report(f"worker {number} ended with {code}: it is started again")
            if loop.time() - began_s < LIVED_WELL_S:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RESTART_PAUSE_MAX_S)
            else:
                pause_s = RESTART_PAUSE_S
            await self._start_worker(number)

    async def _start_worker(self, number: int) -> None:
        assert self._listening is not None
        descriptor = self._listening.fileno()
        self._workers[number] = await ChildProcess.spawn(
            [sys.executable, "-m", "node", "worker", str(descriptor)],
            log_file=self._folder.logs_dir / "worker.log",
            env=_worker_environment(self._config),
            pass_fds=[descriptor],
            death_signal=signal.SIGTERM,
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
    }


def _bound(config: Config) -> socket.socket:
    found = socket.getaddrinfo(
        config.http_host, config.http_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _port_problem(config: Config, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        reason = "is taken by another program"
    elif error.errno == errno.EACCES:
        reason = "may not be used by this account (ports below 1024 need a privilege)"
    else:
        reason = f"cannot be used: {error.strerror or error}"
    other = f"IDNODE_HTTP={config.http_host}:{config.http_port + 1}"
    return f"{config.http} {reason}: choose another, such as {other}"


async def _until_answers(config: Config) -> None:
    while True:
        if await _answers(config):
            return
        await asyncio.sleep(0.05)


async def _answers(config: Config) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.http_host, config.http_host)
    try:
        reader, writer = await asyncio.open_connection(host, config.http_port)
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: idnode\r\nConnection: close\r\n\r\n")
        status = await asyncio.wait_for(reader.readline(), 2.0)
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return b" 200 " in status
