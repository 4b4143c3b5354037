"""A lock that the operating system gives up when its holder dies, however it dies."""

import errno
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

# A reader that asks "is it running?" holds the lock for microseconds, and a node that was just
# killed needs some milliseconds to be gone: neither may look like a second node.
_PATIENCE_S = 0.5
_PAUSE_S = 0.05


@dataclass(slots=True)
class FileLock:
    """A taken lock; `release` may be called twice."""

    _descriptor: int | None

    @classmethod
    def take(cls, path: Path, patience_s: float = _PATIENCE_S) -> "FileLock | None":
        """The lock of the file, made when it is missing; None when another process keeps it.

        Raises:
            OSError: the file cannot be made or opened.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for attempt in range(1 + int(patience_s / _PAUSE_S)):
            if attempt:
                time.sleep(_PAUSE_S)
            if _is_taken(descriptor, fcntl.LOCK_EX):
                return cls(descriptor)
        os.close(descriptor)
        return None

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a living process has the lock; False when there is no such file.

    Raises:
        OSError: the file may not be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not _is_taken(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _is_taken(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
