"""The data folder: everything that a node keeps between two starts, used by one node at a time."""

import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from node.data_folder_error import DataFolderError, check_free, explained
from node.file_lock import FileLock, is_locked
from node.server_place import ServerPlace
from node.unprivileged import Account
from node.whole_file import write_whole

__all__ = ["DataFolder", "DataFolderError", "RunInfo"]

# Journals of a busy hour and the log; the database asks for its own room when it is made.
_FREE_MB_MIN = 50
# 256 bits: nobody guesses it, and every place that takes a password takes 43 characters.
_SECRET_SIZE_BYTES = 32
_SECRET_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
# A few hundred bytes in fact; anything longer was not written by a node.
_RUN_FILE_SIZE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class RunInfo:
    """How to reach the running node.

    Attributes:
        pid: process id of the supervisor.
        http: `host:port` of the HTTP door.
        postgres_url, redis_url: with passwords; the file is readable for its owner alone.
        started_at_s: seconds since 1970, UTC.
    """

    pid: int
    http: str
    postgres_url: str
    redis_url: str
    started_at_s: float


class DataFolder:
    """An open data folder. Nobody else has it open, and the lock ends with the process."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> "DataFolder":
        """Make the folder if it is missing, and take it for this process.

        Raises:
            DataFolderError: it is in use, cannot be written, or its disk is full.
        """
        path = _checked(path)
        with explained(path):
            _make(path)
            lock = FileLock.take(path / "lock")
        if lock is None:
            raise DataFolderError(_in_use_by(path))
        folder = cls(path, lock)
        try:
            folder._prepare()
        except BaseException:
            lock.release()
            raise
        return folder

    def close(self) -> None:
        """Let go of the folder, after the servers have stopped; safe to call twice."""
        try:
            if place := self.__dict__.pop("place", None):
                place.close()
        finally:
            self._lock.release()

    @cached_property
    def place(self) -> ServerPlace:
        """The place of the embedded servers, made when first asked for."""
        return ServerPlace.open(self.path)

    @property
    def account(self) -> Account | None:
        """Who runs the servers; None means the user of this process."""
        return self.place.account

    @property
    def postgres_dir(self) -> Path:
        return self.place.postgres_dir

    @property
    def sockets_dir(self) -> Path:
        return self.place.sockets_dir

    @property
    def journals_dir(self) -> Path:
        return self.path / "journals"

    @property
    def logs_dir(self) -> Path:
        return self.path / "logs"

    @property
    def operator_key_file(self) -> Path:
        return self.path / "operator.key"

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    def write_run_info(self, info: RunInfo) -> None:
        """Tell other processes how to reach this node.

        Raises:
            DataFolderError: the file cannot be written.
        """
        with explained(self.path):
            write_whole(self.run_file, json.dumps(asdict(info), indent=1))

    def remove_run_info(self) -> None:
        with explained(self.path):
            self.run_file.unlink(missing_ok=True)

    @staticmethod
    def read_run_info(path: Path) -> RunInfo | None:
        """How to reach the node that runs on the folder `path`; None when none is ready.

        The lock decides: a run file that a killed node left behind is not believed.

        Raises:
            DataFolderError: this user may not look into the folder.
        """
        path = _checked(path)
        with explained(path):
            return _run_info(path) if is_locked(path / "lock") else None

    def store_secret(self, name: str) -> str:
        """The random secret of that name, 43 URL-safe characters, made when first asked for.

        Raises:
            DataFolderError: the file cannot be read or written.
        """
        path = self._secret_file(name)
        with explained(self.path):
            if not path.exists():
                write_whole(path, secrets.token_urlsafe(_SECRET_SIZE_BYTES))
            return path.read_text()

    def has_secret(self, name: str) -> bool:
        return self._secret_file(name).exists()

    def _secret_file(self, name: str) -> Path:
        if not _SECRET_NAME.fullmatch(name):
            raise ValueError(f"secret name {name!r}: expected lower-case letters, digits and _")
        return self.path / "secrets" / name

    def _prepare(self) -> None:
        with explained(self.path):
            # A killed node left it; from here on the lock says that we run.
            self.run_file.unlink(missing_ok=True)
            for folder in (self.path / "secrets", self.journals_dir, self.logs_dir):
                folder.mkdir(mode=0o700, exist_ok=True)
        check_free(self.path, _FREE_MB_MIN)
        with explained(self.path):
            write_whole(self.path / "trial", "")
            (self.path / "trial").unlink()


def _checked(path: Path) -> Path:
    if any(ord(character) < 32 for character in str(path)):
        raise DataFolderError(f"data folder {str(path)!r} has a control character in its name")
    with explained(path):
        return path.resolve()


def _make(path: Path) -> None:
    if path.is_dir():
        return
    path.mkdir(parents=True)
    # Servers of root run as another user: they pass through, but cannot look around.
    path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _in_use_by(path: Path) -> str:
    info = _run_info(path)
    holder = f"the node with pid {info.pid} at http://{info.http}" if info else "a starting node"
    return f"data folder {path} is in use by {holder}: stop it or choose another folder"


def _run_info(path: Path) -> RunInfo | None:
    try:
        with (path / "run.json").open("rb") as file:
            return RunInfo(**json.loads(file.read(_RUN_FILE_SIZE_BYTES_MAX)))
    except (FileNotFoundError, ValueError, TypeError):
        return None
