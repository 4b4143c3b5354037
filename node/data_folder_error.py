"""What is wrong with the data folder or with the servers that live in it, in one line."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES_PER_MB = 1_000_000
# Below this a failed write is surely a matter of room: one WAL segment of PostgreSQL is 17 MB.
_NEARLY_FULL_MB = 20

_ADVICE = {
    errno.EROFS: "the file system is read-only: remount it or choose another folder",
    errno.ENOSPC: "no room is left on the disk: free some or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some room or choose another folder",
    errno.ENOTDIR: "a file stands where a folder was expected: choose another folder",
    errno.EEXIST: "a file stands where a folder was expected: choose another folder",
}
_DENIED = (errno.EACCES, errno.EPERM)


class DataFolderError(Exception):
    """The node cannot work with its data folder; one line: what, where, what to do."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the operating system below `path` into one line for the operator."""
    try:
        yield
    except OSError as error:
        raise DataFolderError(f"data folder {path}: {_reason(error)}") from error


def free_mb(path: Path) -> int:
    """Room that this user may still fill on the file system of `path`, in MB of 10^6 bytes."""
    with explained(path):
        size = os.statvfs(path)
        return size.f_bavail * size.f_frsize // _BYTES_PER_MB


def check_free(path: Path, needed_mb: int) -> None:
    """Accept the folder if `needed_mb` are free on its disk.

    Raises:
        DataFolderError: says how much is free, how much is needed, and where.
    """
    if (free := free_mb(path)) < needed_mb:
        raise DataFolderError(
            f"only {free} MB are free on the disk of {path}, {needed_mb} MB are needed: "
            "free some room or choose another folder"
        )


def room_note(path: Path) -> str:
    """A remark for an error line when the disk of `path` is as good as full, else nothing."""
    free = free_mb(path)
    return f"; only {free} MB are free on its disk" if free < _NEARLY_FULL_MB else ""


def _reason(error: OSError) -> str:
    if error.errno in _DENIED:
        return (
            f"user id {os.geteuid()} may not use {error.filename or 'it'}: change its owner "
            "or choose another folder"
        )
    return _ADVICE.get(error.errno or 0, str(error))
