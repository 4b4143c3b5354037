"""Files that are whole or not there at all, whatever happens in between."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a private file; after a crash it has its new content, its old one, or is missing.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    new = path.with_name(path.name + ".new")
    # A crash here leaves `*.new`, which the next attempt overwrites.
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_dir(path.parent)


def sync_dir(path: Path) -> None:
    """Make a rename in the folder outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
