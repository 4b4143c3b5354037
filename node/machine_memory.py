"""How much memory there is to share out, in the machine or in the container."""

import os
from pathlib import Path

# Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux.
_LIMIT_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_mb() -> int:
    """The memory of the machine, or the limit of the container if that is less (MB of 2^20)."""
    size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(size_bytes, *map(_limit_bytes, _LIMIT_FILES)) // 2**20


def share_mb(memory: int, divisor: int, least: int, most: int) -> int:
    """One `divisor`-th of the memory, kept between `least` and `most` (all in MB)."""
    return max(least, min(most, memory // divisor))


def _limit_bytes(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        # No such control group, or the word "max".
        return 2**63
