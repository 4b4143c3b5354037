"""The embedded Valkey: the shared cache on a Unix socket, a child of the supervisor.

It keeps nothing: PostgreSQL has the truth, and an empty cache fills itself.
"""

import asyncio
import signal
import subprocess
from pathlib import Path

from node.child_process import ChildProcess
from node.data_folder import DataFolder, DataFolderError
from node.data_folder_error import explained, room_note
from node.machine_memory import memory_mb, share_mb
from node.server_binary import VALKEY, server_program
from node.server_log import bound_log, last_words, size_bytes

_SECRET = "valkey"
# It loads nothing: half a second at most even on a busy machine.
_READY_PATIENCE_S = 30.0
_PAUSE_S = 0.01
_STOP_PATIENCE_S = 5.0
# A pool of each worker, and the command line; every connection costs some kilobytes.
_CLIENTS_MAX = 1000
_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedValkey:
    """Valkey below an open data folder. `start` after any kind of death begins empty."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._log_file = folder.logs_dir / "valkey.log"
        self._program: Path | None = None
        self._child: ChildProcess | None = None

    @property
    def url(self) -> str:
        """Where to connect, with the password, in the form of redis-py."""
        return f"unix://{self._socket}?password={self._folder.store_secret(_SECRET)}"

    @property
    def pid(self) -> int | None:
        """Process id of the server while it lives."""
        child = self._child
        return child.pid if child is not None and child.returncode is None else None

    async def start(self) -> None:
        """Return when the server answers; at once when it already runs.

        Raises:
            DataFolderError: it cannot start; says why, and where its log is.
        """
        if self.pid is not None:
            return
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """The exit code, once the server process has ended, for whatever reason."""
        if self._child is None:
            raise RuntimeError("Valkey was not started")
        return await self._child.wait()

    async def stop(self) -> None:
        """Exit; safe to call twice."""
        if self._child is not None and self._child.returncode is None:
            await self._child.stop(signal.SIGTERM, _STOP_PATIENCE_S)

    async def _launch(self) -> None:
        with explained(self._folder.path):
            bound_log(self._log_file)
            if self._program is None:
                self._program = server_program(VALKEY, self._folder.account)
            # A killed server leaves its socket behind.
            self._socket.unlink(missing_ok=True)
            offset_bytes = size_bytes(self._log_file)
            self._child = await self._spawn(self._program)
        if not await self._is_ready(self._child):
            raise self._failure(offset_bytes)

    async def _spawn(self, program: Path) -> ChildProcess:
        try:
            return await ChildProcess.spawn(
                [str(program), "-"],
                log_file=self._log_file,
                env=_ENV,
                cwd=Path("/"),
                account=self._folder.account,
                # Nothing to write down, so nothing to wait for.
                death_signal=signal.SIGKILL,
                stdin=self._configuration().encode(),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise DataFolderError(f"Valkey cannot be started: {error}") from error

    def _configuration(self) -> str:
        """Given on standard input, so that the password stands in no file and no process list."""
        lines = (
            "port 0",
            f"unixsocket {self._socket}",
            "unixsocketperm 700",
            f"requirepass {self._folder.store_secret(_SECRET)}",
            "daemonize no",
            f"dir {self._folder.sockets_dir}",
            'save ""',
            "appendonly no",
            f"maxclients {_CLIENTS_MAX}",
            f"maxmemory {share_mb(memory_mb(), 16, 16, 256)}mb",
            "maxmemory-policy volatile-lru",
            "loglevel notice",
        )
        return "\n".join(lines) + "\n"

    async def _is_ready(self, child: ChildProcess) -> bool:
        """Wait for the server to answer; False when it ended or stayed silent."""
        clock = asyncio.get_running_loop()
        end_s = clock.time() + _READY_PATIENCE_S
        while child.returncode is None and clock.time() < end_s:
            if await self._answers():
                return True
            await asyncio.sleep(_PAUSE_S)
        return False

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_READY_PATIENCE_S):
                return await _ping(self._socket, self._folder.store_secret(_SECRET))
        except (OSError, EOFError):
            return False

    def _failure(self, offset_bytes: int) -> DataFolderError:
        reason = last_words(self._log_file, offset_bytes)
        note = room_note(self._folder.place.folder)
        return DataFolderError(f"Valkey did not start: {reason}{note} (log: {self._log_file})")

    @property
    def _socket(self) -> Path:
        return self._folder.sockets_dir / "valkey.sock"


async def _ping(socket: Path, password: str) -> bool:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(f"AUTH {password}\r\nPING\r\n".encode())
        return await reader.readexactly(12) == b"+OK\r\n+PONG\r\n"
    finally:
        writer.close()
        await writer.wait_closed()
