"""The account under which root runs the database servers; PostgreSQL refuses to run as root."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.data_folder_error import DataFolderError

# Present on every Linux and macOS; creating an account of our own would change the machine.
_ACCOUNT_NAME = "nobody"
# A trial is one short program; only a machine in deep trouble takes longer.
_TRIAL_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Account:
    """A user and a group of the operating system."""

    name: str
    uid: int
    gid: int

    def can_run(self, argv: Sequence[str]) -> bool:
        """Whether this account, and not only root, really reaches and runs the program."""
        try:
            trial = subprocess.run(
                argv,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_TRIAL_PATIENCE_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return trial.returncode == 0

    def can_enter(self, folder: Path) -> bool:
        """Whether this account may pass through every folder down to `folder`."""
        return self.can_run(["/bin/sh", "-c", 'test -x "$1"', "sh", str(folder)])

    def make_dir(self, path: Path) -> None:
        """Create a folder that belongs to this account alone."""
        path.mkdir(mode=0o700)
        os.chown(path, self.uid, self.gid)


def server_account(database_dir: Path) -> Account | None:
    """Who runs the servers: None for an ordinary user (himself), otherwise never root.

    A database that is there already keeps its owner.

    Raises:
        DataFolderError: there is no such account, or root may not switch to it.
    """
    if os.geteuid() != 0:
        return None
    account = _owner(database_dir) if database_dir.exists() else _nobody()
    if not account.can_run(["/bin/sh", "-c", ":"]):
        raise DataFolderError(
            f"root may not start programs as the user {account.name} here, and PostgreSQL does "
            "not run as root: start the node as an ordinary user"
        )
    return account


def _owner(database_dir: Path) -> Account:
    status = database_dir.stat()
    if status.st_uid == 0:
        raise DataFolderError(
            f"{database_dir} belongs to root, and PostgreSQL does not run as root: "
            f"give it away with chown -R {_ACCOUNT_NAME} {database_dir}"
        )
    try:
        name = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        name = str(status.st_uid)
    return Account(name, status.st_uid, status.st_gid)


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam(_ACCOUNT_NAME)
    except KeyError:
        raise DataFolderError(
            f"the user {_ACCOUNT_NAME} is missing, and PostgreSQL does not run as root: "
            "create it or start the node as an ordinary user"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
