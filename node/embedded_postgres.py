"""The embedded PostgreSQL: one server on a Unix socket, a child of the supervisor."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from node.child_process import ChildProcess
from node.data_folder import DataFolder, DataFolderError
from node.data_folder_error import check_free, explained, free_mb, room_note
from node.machine_memory import memory_mb
from node.postgres_leftovers import cluster_name, end_leftovers
from node.postgres_settings import POSTGRES_PORT, WARMING_LIBRARY, postgres_settings
from node.server_binary import POSTGRES, server_program
from node.server_log import bound_log, complaint, last_words, size_bytes
from node.whole_file import sync_dir

_LOG = logging.getLogger(__name__)

_USER = "idnode"
_DATABASE = "idnode"
_SECRET = "postgres"
# A new database takes 48 MB with its first WAL (measured); the rest is room for data and WAL.
_FREE_MB_NEW = 300
# Building takes 1 to 3 s; a slow disk may take a hundred times as long.
_BUILD_PATIENCE_S = 300.0
# At most about 2 GB of WAL are replayed: at 2 MB/s, slower than any disk worth using, 17 minutes.
_RECOVERY_PATIENCE_S = 1800.0
_PAUSE_S = 0.01
_NEWS_EVERY_S = 10.0
# A fast shutdown writes a checkpoint; an immediate one writes nothing and is repaired at start.
_FAST_PATIENCE_S = 30.0
_IMMEDIATE_PATIENCE_S = 5.0
# Dead backends let go of the shared memory within milliseconds.
_SHARED_MEMORY_TRIES = 10
_SHARED_MEMORY_PAUSE_S = 0.3
# The helpers of a killed initdb end as soon as they read the end of their input.
_REMOVE_TRIES = 50
_REMOVE_PAUSE_S = 0.1
# Nothing of our own environment: PGPORT and its like would change the server.
_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedPostgres:
    """PostgreSQL below an open data folder. `start` after any kind of death repairs and goes on.

    Attributes:
        is_first_start: whether the last `start` made the database.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._log_file = folder.logs_dir / "postgres.log"
        self._program: Path | None = None
        self._child: ChildProcess | None = None
        self.is_first_start = False

    @property
    def url(self) -> str:
        """Where to connect, with the password; for asyncpg and every libpq client."""
        password = self._folder.store_secret(_SECRET)
        sockets_dir = self._folder.sockets_dir
        return (
            f"postgresql://{_USER}:{password}@/{_DATABASE}?host={sockets_dir}&port={POSTGRES_PORT}"
        )

    @property
    def pid(self) -> int | None:
        """Process id of the server while it lives."""
        child = self._child
        return child.pid if child is not None and child.returncode is None else None

    async def start(self) -> None:
        """Return when the server accepts connections; at once when it already runs.

        Raises:
            DataFolderError: it cannot start; says why, and where its log is.
        """
        if self.pid is not None:
            return
        try:
            await self._begin()
            await self._launch()
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """The exit code, once the server process has ended, for whatever reason."""
        if self._child is None:
            raise RuntimeError("PostgreSQL was not started")
        return await self._child.wait()

    async def stop(self) -> None:
        """End sessions, write everything down and exit; safe to call twice."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        child.send(signal.SIGINT)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), _FAST_PATIENCE_S)
        await child.stop(signal.SIGQUIT, _IMMEDIATE_PATIENCE_S)

    async def _begin(self) -> None:
        """A database without leftovers, and a password that fits it."""
        with explained(self._folder.path):
            bound_log(self._log_file)
            if self._program is None:
                self._program = server_program(POSTGRES, self._folder.account)
            self.is_first_start = not self._folder.postgres_dir.exists()
            if self.is_first_start:
                await self._build()
            await end_leftovers(self._folder.postgres_dir)
            if not self._folder.has_secret(_SECRET):
                await self._single(self._folder.postgres_dir, self._password_statement())

    async def _build(self) -> None:
        """Make the database aside, and put it in place when it is complete.

        A crash before the rename leaves `postgres.new`, which the next start removes.
        """
        new = self._folder.postgres_dir.with_name("postgres.new")
        check_free(new.parent, _FREE_MB_NEW)
        password_file = new.with_name("postgres.password")
        await _remove(new)
        try:
            self._make_private(new, password_file)
            await self._run(self._initdb_arguments(new, password_file))
        finally:
            password_file.unlink(missing_ok=True)
        await self._single(new, f"CREATE DATABASE {_DATABASE} TEMPLATE template0\n")
        new.rename(self._folder.postgres_dir)
        sync_dir(new.parent)

    def _make_private(self, new: Path, password_file: Path) -> None:
        account = self._folder.account
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(self._folder.store_secret(_SECRET))
        if account is None:
            new.mkdir(mode=0o700)
        else:
            account.make_dir(new)
            os.chown(password_file, account.uid, account.gid)

    def _initdb_arguments(self, new: Path, password_file: Path) -> list[str]:
        return [
            str(self._bin / "initdb"),
            f"--pgdata={new}",
            f"--username={_USER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # Byte order, the same on every machine: a copied folder keeps valid indexes.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]

    def _password_statement(self) -> str:
        """For a folder that came back from a backup without its secrets."""
        return f"ALTER ROLE {_USER} PASSWORD '{self._folder.store_secret(_SECRET)}'\n"

    async def _single(self, database_dir: Path, statement: str) -> None:
        """Run one statement without a server."""
        argv = [str(self._bin / "postgres"), "--single", "-D", str(database_dir), "postgres"]
        await self._run(argv, statement.encode())

    async def _run(self, argv: Sequence[str], stdin: bytes = b"") -> None:
        offset_bytes = size_bytes(self._log_file)
        # Not SIGTERM: a dying initdb tidies up, perhaps when its successor has begun.
        child = await self._spawn(argv, signal.SIGKILL, stdin)
        code = await _ended(child)
        # The single-user server exits with 0 after a failed statement.
        if code != 0 or complaint(self._log_file, offset_bytes):
            raise self._failure(offset_bytes)

    async def _launch(self) -> None:
        for _ in range(_SHARED_MEMORY_TRIES):
            offset_bytes = size_bytes(self._log_file)
            argv = [str(self._bin / "postgres"), *self._server_arguments()]
            # SIGINT is the fast shutdown: sessions end, everything is written.
            self._child = await self._spawn(argv, signal.SIGINT)
            if await self._is_ready(self._child):
                return
            error = self._failure(offset_bytes)
            if "shared memory block" not in str(error):
                raise error
            await asyncio.sleep(_SHARED_MEMORY_PAUSE_S)
        raise error

    async def _is_ready(self, child: ChildProcess) -> bool:
        """Wait for the server to accept connections; False when it ended instead."""
        clock = asyncio.get_running_loop()
        begin_s = news_s = clock.time()
        while child.returncode is None:
            if _status(self._folder.postgres_dir, child.pid) == b"ready":
                return True
            if clock.time() - begin_s > _RECOVERY_PATIENCE_S:
                return False
            if clock.time() - news_s > _NEWS_EVERY_S:
                news_s = clock.time()
                _LOG.warning("PostgreSQL repairs itself since %.0f s", news_s - begin_s)
            await asyncio.sleep(_PAUSE_S)
        return False

    async def _spawn(
        self, argv: Sequence[str], death_signal: signal.Signals, stdin: bytes = b""
    ) -> ChildProcess:
        try:
            return await ChildProcess.spawn(
                argv,
                log_file=self._log_file,
                env=_ENV,
                cwd=Path("/"),
                account=self._folder.account,
                death_signal=death_signal,
                stdin=stdin,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise DataFolderError(f"PostgreSQL cannot be started: {error}") from error

    def _server_arguments(self) -> list[str]:
        place = self._folder.postgres_dir
        warms = any(self._bin.parent.glob(f"lib/**/{WARMING_LIBRARY}.*"))
        settings = postgres_settings(
            self._folder.sockets_dir, memory_mb(), free_mb(place), warms=warms
        )
        settings["cluster_name"] = cluster_name(place)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return ["-D", str(place), *options]

    def _failure(self, offset_bytes: int) -> DataFolderError:
        reason = last_words(self._log_file, offset_bytes)
        note = room_note(self._folder.place.folder)
        return DataFolderError(
            f"PostgreSQL did not start in {self._folder.place.folder}: {reason}{note} "
            f"(log: {self._log_file})"
        )

    @property
    def _bin(self) -> Path:
        assert self._program is not None
        return self._program.parent


def _status(database_dir: Path, pid: int) -> bytes | None:
    """What the server says about itself in its pid file, where pg_ctl looks as well.

    Source: src/include/utils/pidfile.h of PostgreSQL, line 1 and line 8.
    """
    try:
        lines = (database_dir / "postmaster.pid").read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    return lines[7].strip() if len(lines) > 7 and lines[0] == b"%d" % pid else None


async def _ended(child: ChildProcess) -> int:
    try:
        return await asyncio.wait_for(child.wait(), _BUILD_PATIENCE_S)
    except TimeoutError:
        raise DataFolderError(
            f"building the database took more than {_BUILD_PATIENCE_S:.0f} s: choose a data "
            "folder on a faster disk"
        ) from None
    finally:
        await child.stop(signal.SIGTERM, _IMMEDIATE_PATIENCE_S)


async def _remove(folder: Path) -> None:
    """Remove what a killed `initdb` left, whose helper may still write for a moment."""
    for _ in range(_REMOVE_TRIES):
        if _is_removed(folder):
            return
        await asyncio.sleep(_REMOVE_PAUSE_S)
    shutil.rmtree(folder)


def _is_removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
