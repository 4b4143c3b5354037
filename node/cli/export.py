"""`idnode export`: all identifiers, streamed; memory stays flat however many there are."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from node.cli.context import Json, desk_of, with_database
from node.cli.output import is_unicode, write_json, write_line
from registry import prefixes
from registry.database import Database
from registry.records import PostgresRecords
from resolver.handle_json import value_to_json
from resolver.record import Record

_HEADER = ("handle", "version", "index", "type", "format", "value")

Write = Callable[[Record], object]


def export(
    context: typer.Context,
    prefix: Annotated[str | None, typer.Option(help="opt.export.prefix")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="opt.export.output")] = None,
    format_: Annotated[
        Literal["jsonl", "csv"], typer.Option("--format", help="opt.export.format")
    ] = "jsonl",
    as_json: Json = False,
) -> None:
    desk = desk_of(context)
    if as_json and output is None and format_ == "csv":
        raise typer.BadParameter(desk.text("usage.export"))

    async def work(database: Database) -> int:
        prefix_key = await _prefix_key(database, prefix)
        with _open(output, format_) as stream:
            return await _write_all(database, prefix_key, _writer(stream, format_))

    count = with_database(desk, work)
    if output is None:
        return
    if as_json:
        write_json({"identifiers": count, "file": str(output)})
    else:
        write_line(desk.text("export.done", count=f"{count:,}", file=output))


async def _prefix_key(database: Database, prefix: str | None) -> str | None:
    if prefix is None:
        return None
    async with database.connection() as connection:
        return (await prefixes.require(connection, prefix)).key


async def _write_all(database: Database, prefix_key: str | None, write: Write) -> int:
    count = 0
    async for record in PostgresRecords(database).scan(prefix_key):
        write(record)
        count += 1
    return count


@contextmanager
def _open(path: Path | None, format_: str) -> Iterator[TextIO]:
    """Standard output, or a file that appears under its name when it is whole."""
    if path is None:
        yield sys.stdout
        return
    part = path.with_name(f".{path.name}.part")
    try:
        # Excel reads Chinese in a CSV file only behind a byte order mark.
        encoding = "utf-8-sig" if format_ == "csv" else "utf-8"
        with part.open("w", encoding=encoding, newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _writer(stream: TextIO, format_: str) -> Write:
    if format_ == "csv":
        rows = csv.writer(stream)
        rows.writerow(_HEADER)
        return lambda record: rows.writerows(_rows(record))
    escaped = not is_unicode(stream)
    return lambda record: stream.write(
        json.dumps(_document(record), ensure_ascii=escaped, separators=(",", ":")) + "\n"
    )


def _document(record: Record) -> dict[str, object]:
    values = [value_to_json(value) for value in record.values]
    return {"handle": record.handle, "version": record.version, "values": values}


def _rows(record: Record) -> Iterator[tuple[object, ...]]:
    """A row a value, or one row without a value."""
    if not record.values:
        yield (record.handle, record.version, "", "", "", "")
    for value in record.values:
        data = value_to_json(value)["data"]
        content = data["value"]
        if not isinstance(content, str):
            content = json.dumps(content, ensure_ascii=False)
        yield (record.handle, record.version, value.index, value.type, data["format"], content)
