"""Duty: what one worker of an instance does for all of them."""

from pathlib import Path

from node.file_lock import FileLock


class Duty:
    """A role that one process holds; the kernel takes it back when that process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: FileLock | None = None

    def is_ours(self) -> bool:
        """Whether this process has the role; it takes the role if nobody else has it.

        Raises:
            OSError: the file cannot be made.
        """
        if self._lock is None:
            self._lock = FileLock.take(self._path, patience_s=0)
        return self._lock is not None

    def release(self) -> None:
        """Leave the role to another process; safe to call twice."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None
