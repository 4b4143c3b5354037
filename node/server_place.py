"""Where the database servers keep their files and their sockets."""

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from node.data_folder_error import DataFolderError, explained
from node.file_lock import FileLock
from node.unprivileged import Account, server_account
from node.whole_file import write_whole

# Open to every account and owned by root: here servers of root live when they cannot reach the
# data folder (typically below /root).
SYSTEM_DIR = Path("/var/lib/idnode")
LOCATION_NAME = "postgres.location"
# The address of a Unix socket has 104 bytes on macOS and 108 on Linux, with the final NUL; the
# longest name in the folder is `.s.PGSQL.5432`.
_SOCKETS_DIR_SIZE_BYTES_MAX = 103 - len("/.s.PGSQL.5432")
# Other characters mean something in PostgreSQL's list of folders or in a URL.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/-]+")


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """The folder of the servers, the account that owns what is in it, and the sockets.

    Attributes:
        account: None when the servers run as the user of this process.
        folder: holds `postgres`, the database.
        sockets_dir: private, made anew at each start; its path is short and plain.
        lock: kept when `folder` is not the data folder, which has its own.
    """

    account: Account | None
    folder: Path
    sockets_dir: Path
    lock: FileLock | None

    @property
    def postgres_dir(self) -> Path:
        return self.folder / "postgres"

    @classmethod
    def open(cls, data_folder: Path) -> "ServerPlace":
        """Find or make the place that belongs to a locked data folder.

        Raises:
            DataFolderError: the servers cannot get there, or may not write.
        """
        with explained(data_folder):
            folder = _noted(data_folder) or data_folder
            account = server_account(folder / "postgres")
            if account is not None and not account.can_enter(folder):
                folder = _moved_out(data_folder, folder, account)
            lock = _locked(folder, data_folder)
            try:
                return cls(account, folder, _made_sockets_dir(folder, account), lock)
            except BaseException:
                if lock is not None:
                    lock.release()
                raise

    def close(self) -> None:
        """Remove the sockets and let go of the place; safe to call twice."""
        _remove_sockets_dir(self.folder / "sockets")
        if self.lock is not None:
            self.lock.release()


def make_system_dir(path: Path) -> None:
    """Make a folder below SYSTEM_DIR that every account can pass and only root can change.

    Raises:
        DataFolderError: SYSTEM_DIR belongs to someone else.
    """
    for folder in (SYSTEM_DIR, *reversed(path.relative_to(SYSTEM_DIR).parents), path):
        folder = SYSTEM_DIR / folder
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
        if folder.stat().st_uid != 0:
            raise DataFolderError(
                f"{folder} belongs to user id {folder.stat().st_uid}, root was expected: "
                "start the node as that user, or choose a data folder that the user nobody reaches"
            )


def _noted(data_folder: Path) -> Path | None:
    """The place that an earlier start chose because the data folder was out of reach."""
    note = data_folder / LOCATION_NAME
    if not note.exists():
        return None
    place = Path(note.read_text().strip())
    if not place.is_dir():
        raise DataFolderError(
            f"the database of {data_folder} was in {place}, which is missing: bring it back, "
            f"or remove {note} to start with an empty one"
        )
    if os.geteuid() != 0:
        raise DataFolderError(
            f"the database of {data_folder} is in {place} and was made by root: start as root"
        )
    return place


def _locked(folder: Path, data_folder: Path) -> FileLock | None:
    """The lock of a place outside of the data folder: two copies of one folder name one place."""
    if folder == data_folder:
        return None
    lock = FileLock.take(folder / "lock")
    if lock is None:
        raise DataFolderError(
            f"{folder}, named in {data_folder / LOCATION_NAME}, is in use by another node: stop it"
        )
    return lock


def _moved_out(data_folder: Path, folder: Path, account: Account) -> Path:
    """A place in SYSTEM_DIR for a data folder that the account cannot reach."""
    if folder != data_folder or (folder / "postgres").exists():
        raise DataFolderError(
            f"the database in {folder} is out of reach for its user {account.name}: "
            "let others pass the folders above it (chmod o+x)"
        )
    name = hashlib.sha256(os.fsencode(data_folder)).hexdigest()[:16]
    place = SYSTEM_DIR / "data" / name
    if (place / "postgres").exists():
        raise DataFolderError(
            f"{place} holds the database of an earlier data folder at {data_folder}: "
            f"bring that folder back, or remove {place} to start with an empty one"
        )
    make_system_dir(place)
    if not account.can_enter(place):
        raise DataFolderError(
            f"neither {data_folder} nor {place} can be reached by the user {account.name}: "
            "choose a data folder that others may pass (chmod o+x)"
        )
    # A crash before this line leaves an empty folder, which the next start takes again.
    write_whole(data_folder / LOCATION_NAME, f"{place}\n")
    return place


def _made_sockets_dir(folder: Path, account: Account | None) -> Path:
    sockets_dir = folder / "sockets"
    _remove_sockets_dir(sockets_dir)
    if _is_short_and_plain(sockets_dir):
        _make_private(sockets_dir, account)
        return sockets_dir
    short = _short_dir(account)
    # The link tells people where to look, and the next start what to remove.
    sockets_dir.symlink_to(short)
    return short


def _short_dir(account: Account | None) -> Path:
    for parent in (tempfile.gettempdir(), "/tmp"):
        if not _is_short_and_plain(Path(parent) / "idnode-12345678"):
            continue
        if account is not None and not account.can_enter(Path(parent)):
            continue
        short = Path(tempfile.mkdtemp(prefix="idnode-", dir=parent))
        if account is not None:
            os.chown(short, account.uid, account.gid)
        return short
    raise DataFolderError(
        f"no temporary folder has a path of at most {_SOCKETS_DIR_SIZE_BYTES_MAX} bytes: set TMPDIR"
    )


def _is_short_and_plain(path: Path) -> bool:
    is_short = len(os.fsencode(path)) <= _SOCKETS_DIR_SIZE_BYTES_MAX
    return is_short and _PLAIN_PATH.fullmatch(str(path)) is not None


def _make_private(path: Path, account: Account | None) -> None:
    if account is None:
        path.mkdir(mode=0o700)
    else:
        account.make_dir(path)


def _remove_sockets_dir(path: Path) -> None:
    if path.is_symlink():
        shutil.rmtree(path.readlink(), ignore_errors=True)
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
