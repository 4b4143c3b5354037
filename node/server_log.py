"""The logs of the servers: bounded, and read back to say why a server did not start."""

import os
import re
from pathlib import Path

# Two generations of this size hold months of warnings, or the last hours of a storm of them.
LOG_SIZE_BYTES_MAX = 10_000_000
# The reason of a failed start stands near the end.
_TAIL_SIZE_BYTES = 65_536
_COMPLAINT_SIZE_MAX = 300
_SEVERE = re.compile(r"\b(?:FATAL|PANIC|ERROR|error):\s+(.*)")
_STAMP = re.compile(
    r"^(?:\d+:[A-Z] \d+ \w+ \d{4} [\d:.]+ [#*.-] |\d{4}-\d\d-\d\d \S+ \S+ \[\d+\] )"
)


def bound_log(log_file: Path) -> None:
    """Set the log aside as `*.1` when it has grown large.

    It is emptied, not renamed, because a running server keeps writing to it (at its end).
    """
    if not log_file.exists() or log_file.stat().st_size <= LOG_SIZE_BYTES_MAX:
        return
    with log_file.open("rb") as file:
        file.seek(-LOG_SIZE_BYTES_MAX, os.SEEK_END)
        log_file.with_name(log_file.name + ".1").write_bytes(file.read(LOG_SIZE_BYTES_MAX))
    os.truncate(log_file, 0)


def size_bytes(log_file: Path) -> int:
    return log_file.stat().st_size if log_file.exists() else 0


def complaint(log_file: Path, offset_bytes: int) -> str | None:
    """The last error that was logged after `offset_bytes`, or None."""
    found = [match for line in _lines(log_file, offset_bytes) if (match := _SEVERE.search(line))]
    return found[-1][1][:_COMPLAINT_SIZE_MAX].rstrip(" :") if found else None


def last_words(log_file: Path, offset_bytes: int) -> str:
    """The last error after `offset_bytes`, else the last line, without its time stamp."""
    if text := complaint(log_file, offset_bytes):
        return text
    lines = _lines(log_file, offset_bytes)
    return _STAMP.sub("", lines[-1])[:_COMPLAINT_SIZE_MAX] if lines else "it said nothing"


def _lines(log_file: Path, offset_bytes: int) -> list[str]:
    if not log_file.exists():
        return []
    with log_file.open("rb") as file:
        file.seek(max(offset_bytes, size_bytes(log_file) - _TAIL_SIZE_BYTES))
        text = file.read(_TAIL_SIZE_BYTES).decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
