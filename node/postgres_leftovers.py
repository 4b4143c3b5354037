"""Processes that an earlier PostgreSQL left on a database, and their orderly end.

Call only with the data folder locked: then no process on its database can be anybody's.
Linux alone lists processes in /proc; elsewhere nothing is found and PostgreSQL itself complains.
"""

import asyncio
import hashlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from node.data_folder_error import DataFolderError

# A fast shutdown writes a checkpoint first. What takes longer is left to the next start: an
# immediate shutdown loses nothing that was committed.
_FAST_PATIENCE_S = 30.0
# An immediate shutdown writes nothing.
_IMMEDIATE_PATIENCE_S = 5.0
_PAUSE_S = 0.02


def cluster_name(database_dir: Path) -> str:
    """The name by which every process of this database can be told from others.

    It stands in the title of each backend, where anyone may read it; the working folder, which
    would do as well, is hidden from root in containers.
    """
    return f"idnode-{hashlib.sha256(os.fsencode(database_dir)).hexdigest()[:16]}"


async def end_leftovers(database_dir: Path) -> None:
    """Return once no process is left on the database, and its pid file blocks nobody.

    Raises:
        DataFolderError: a process does not even die by SIGKILL.
    """
    pids = _processes(database_dir)
    postmaster = _postmaster(database_dir)
    if postmaster in pids:
        pids = await _ended(database_dir, [postmaster], signal.SIGINT, _FAST_PATIENCE_S)
    for signal_ in (signal.SIGQUIT, signal.SIGKILL):
        if pids:
            pids = await _ended(database_dir, pids, signal_, _IMMEDIATE_PATIENCE_S)
    if pids:
        raise DataFolderError(
            f"process {pids[0]} of an earlier PostgreSQL on {database_dir} does not end: "
            "restart the machine"
        )
    _forget_stranger(database_dir)


def _forget_stranger(database_dir: Path) -> None:
    """Remove a pid file whose number now belongs to another program.

    PostgreSQL would refuse to start. Numbers of dead processes it handles itself, with a look at
    the shared memory that we do not take.
    """
    postmaster = _postmaster(database_dir)
    if postmaster is not None and Path(f"/proc/{postmaster}").exists():
        (database_dir / "postmaster.pid").unlink(missing_ok=True)


async def _ended(
    database_dir: Path, pids: Iterable[int], signal_: signal.Signals, patience_s: float
) -> list[int]:
    """Send the signal, wait, and return the processes that are still there."""
    for pid in pids:
        _send(pid, signal_)
    for _ in range(int(patience_s / _PAUSE_S)):
        if not _processes(database_dir):
            return []
        await asyncio.sleep(_PAUSE_S)
    return _processes(database_dir)


def _send(pid: int, signal_: signal.Signals) -> None:
    try:
        os.kill(pid, signal_)
    except ProcessLookupError:
        return


def _postmaster(database_dir: Path) -> int | None:
    try:
        return int((database_dir / "postmaster.pid").read_bytes().split(b"\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _processes(database_dir: Path) -> list[int]:
    pids = (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if _is_on(pid, database_dir)]


def _is_on(pid: int, database_dir: Path) -> bool:
    try:
        process = Path(f"/proc/{pid}")
        # Anyone may give himself such a title; only the owner of the files can be meant.
        if process.stat().st_uid != database_dir.stat().st_uid:
            return False
        arguments = (process / "cmdline").read_bytes().rstrip(b"\x00").split(b"\x00")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    title = b"postgres: " + cluster_name(database_dir).encode() + b":"
    if arguments[0].startswith(title):
        return True
    return os.path.basename(arguments[0]) == b"postgres" and os.fsencode(database_dir) in arguments
