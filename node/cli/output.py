"""What people and programs read: lines, tables, JSON; never a crash for want of an encoding."""

import codecs
import dataclasses
import io
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# People read the time of Beijing; no daylight saving time since 1991.
_BEIJING = timezone(timedelta(hours=8))
# Wide enough that nothing that is piped into a file or a program is cut.
_WIDTH_OF_A_PIPE = 10_000


def open_streams() -> None:
    """Make standard output and error write what they cannot encode as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def console(stream: TextIO) -> Console:
    """A console on `stream` that takes text as it is: no markup, no emoji codes."""
    return Console(
        file=stream,
        width=None if stream.isatty() else _WIDTH_OF_A_PIPE,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=not stream.isatty(),
    )


def printable(text: str) -> str:
    """`text` without what would move the cursor or change colours: such characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def write_line(text: str) -> None:
    """A line on standard output."""
    console(sys.stdout).print(Text(printable(text)), soft_wrap=True)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table on standard output; long cells are folded, never cut."""
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell(value))) for value in row))
    console(sys.stdout).print(table)


def write_json(document: object) -> None:
    """A JSON document on standard output."""
    sys.stdout.write(json_text(document, indent=2) + "\n")


def json_text(document: object, *, indent: int | None = None, stream: TextIO | None = None) -> str:
    """`document` as JSON; escaped to ASCII where the stream cannot take all of Unicode."""
    return json.dumps(
        document,
        ensure_ascii=not is_unicode(stream or sys.stdout),
        indent=indent,
        default=_plain,
    )


def is_unicode(stream: TextIO) -> bool:
    try:
        return codecs.lookup(stream.encoding or "ascii").name.startswith("utf")
    except LookupError:
        return False


def cell(value: object) -> str:
    """A value as people read it: times in Beijing, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(_BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def document(entry: object, *left_out: str) -> dict[str, object]:
    """An entry of a book as a JSON object, without the fields `left_out`."""
    assert dataclasses.is_dataclass(entry)
    return {
        field.name: getattr(entry, field.name)
        for field in dataclasses.fields(entry)
        if field.name not in left_out
    }


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if dataclasses.is_dataclass(value):
        return document(value)
    return str(value)
