"""Registering a file of products: read, check, stage, register, report what could not be."""

import asyncio
import csv
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from node.column_map import (
    ColumnMap,
    ColumnMapError,
    check_columns,
    column_map_from_columns,
    column_map_from_file,
    column_map_from_options,
    gtin_problem,
)
from node.sheet import Chunk, RowProblem, Sheet, SheetError, open_sheet
from registry.bulk import (
    CHUNK_ROWS,
    BulkRegistration,
    RegistrationRefusedError,
    RowFormat,
    bulk_registration,
)
from registry.database import Database
from registry.records import Author, prefix_refusal
from resolver.errors import InvalidIdentifierError
from resolver.identifier import (
    IDENTIFIER_SIZE_BYTES_MAX,
    check_prefix,
    check_suffix,
    fold,
)
from resolver.record import (
    PERMISSIONS_DEFAULT,
    RECORD_SIZE_BYTES_MAX,
    TIMESTAMP_OF_RECORD_S,
    TTL_RELATIVE,
    VALUE_DATA_SIZE_BYTES_MAX,
)

# Ten times more often than by default: measured, 5 % more rows a second.
SWITCH_INTERVAL_S = 0.0005
PROBLEMS_SHOWN_MAX = 20
PREVIEW_ROWS = 5
_REPORT_HEADER = ("row", "field", "reason", "suggestion")
_VALUE_HEAD = struct.Struct(">iIBiB")
_NO_REFERENCES = b"\x00\x00\x00\x00"


class RegistrationError(Exception):
    """The file cannot be registered at all; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class RegistrationProgress:
    """How far a registration is; `fraction` from 0 to 1 where the size is known."""

    rows: int
    added: int
    changed: int
    unchanged: int
    failed: int
    fraction: float | None


@dataclass(frozen=True, slots=True)
class RegistrationSummary:
    """What a registration did; with a dry run, what it would have looked at.

    `problems` are the first ones, `errors_file` has them all; `preview` shows the first
    identifiers with their (type, text) values.
    """

    rows: int
    added: int
    changed: int
    unchanged: int
    failed: int
    errors_file: Path | None
    problems: tuple[RowProblem, ...]
    preview: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    encoding: str | None = None


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    failed: int = 0
    problems: list[RowProblem] = field(default_factory=list)
    preview: list[tuple[str, tuple[tuple[str, str], ...]]] = field(default_factory=list)


async def register_file(
    database: Database,
    path: Path,
    *,
    prefix: str,
    suffix: str | None,
    values: Sequence[str],
    mapping: Path | None,
    check: str,
    dry_run: bool,
    errors: Path | None,
    actor: str,
    now_s: Callable[[], float],
    on_progress: Callable[[RegistrationProgress], None],
    sheet_name: str | None = None,
) -> RegistrationSummary:
    """Register every good row of `path` below `prefix`; memory stays flat.

    Chunks are committed one after the other while the next is being read, so a kill leaves
    whole chunks, and a second run over the same file completes it. Where two rows have the same
    suffix the later one counts.

    Raises:
        RegistrationError: if the file, the columns or the prefix cannot be used.
        RegistryUnavailableError: if PostgreSQL goes away; run the same command again.
    """
    try:
        check_prefix(prefix)
        await _require_open(database, prefix)
        columns = _column_map(suffix, values, mapping, check)
        sheet = open_sheet(path, sheet_name=sheet_name, wanted=columns.wanted if columns else ())
        with sheet:
            columns = columns or column_map_from_columns(sheet.columns, suffix or "")
            check_columns(columns, sheet.columns)
            plan = RowPlan(prefix, columns, sheet.columns)
            beside = None if dry_run else path.with_name(f"{path.name}.errors.csv")
            report = _Report(errors or beside)
            with report:
                tally = _Tally()
                job = _Job(sheet, plan, report, tally, on_progress, now_s)
                if dry_run:
                    await job.preview()
                else:
                    author = Author(actor, "register", f"{path.name} -> {prefix}")
                    async with bulk_registration(database, fold(prefix), author) as bulk:
                        with _quick_switching():
                            await job.run(bulk)
    except (
        SheetError,
        ColumnMapError,
        InvalidIdentifierError,
        RegistrationRefusedError,
    ) as error:
        raise RegistrationError(str(error)) from error
    except OSError as error:
        raise RegistrationError(f"{error.filename or path}: {error.strerror or error}") from error
    return RegistrationSummary(
        tally.rows,
        tally.added,
        tally.changed,
        tally.unchanged,
        tally.failed,
        report.written_to,
        tuple(tally.problems),
        tuple(tally.preview),
        sheet.encoding,
    )


class RowPlan:
    """How a row becomes an identifier with its values; made once, applied to every row."""

    def __init__(self, prefix: str, columns: ColumnMap, header: Sequence[str]) -> None:
        self._stem = f"{prefix}/"
        self._suffix_max = IDENTIFIER_SIZE_BYTES_MAX - len(self._stem)
        self._suffix_at = header.index(columns.suffix_column)
        self._suffix_column = columns.suffix_column
        self._is_gtin = columns.check == "gtin"
        self._values = [
            (header.index(value.column), value.type, _value_head(value.index, value.type, value))
            for value in columns.values
        ]

    def stage(
        self, rows: Sequence[list[str]], numbers: Sequence[int], form: RowFormat
    ) -> "_Staged":
        """Rows ready for the database, one a key; and what is wrong with the others."""
        staged: dict[bytes, bytes] = {}
        problems: list[RowProblem] = []
        suffix_at, stem, is_gtin = self._suffix_at, self._stem.encode(), self._is_gtin
        for row, number in zip(rows, numbers, strict=True):
            suffix = row[suffix_at].strip()
            problem = gtin_problem(suffix) if is_gtin else self._suffix_problem(suffix)
            if problem is not None:
                problems.append(RowProblem(number, self._suffix_column, *problem))
                continue
            data = self._data(row)
            if data is None:
                problems.append(self._value_problem(row, number))
                continue
            handle = stem + suffix.encode()
            key = handle.upper()  # of bytes: ASCII letters only, as `fold`
            staged[key] = form.row(key, handle, data)
        return _Staged(list(staged.values()), problems, len(rows) - len(problems) - len(staged))

    def preview(self, row: list[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
        """A row as it would be registered, for people."""
        values = tuple((type_, row[at]) for at, type_, _ in self._values if row[at])
        return self._stem + row[self._suffix_at].strip(), values

    def _data(self, row: list[str]) -> bytes | None:
        """The values in canonical encoding; an empty cell is no value. None if one is too long."""
        parts: list[bytes] = []
        size = 0
        for at, _, head in self._values:
            text = row[at]
            if text:
                content = text.encode()
                size += len(content) + len(head)
                if len(content) > VALUE_DATA_SIZE_BYTES_MAX or size > RECORD_SIZE_BYTES_MAX:
                    return None
                parts += (head, len(content).to_bytes(4, "big"), content, _NO_REFERENCES)
        return b"".join(parts)

    def _suffix_problem(self, suffix: str) -> tuple[str, str] | None:
        try:
            check_suffix(suffix)
        except InvalidIdentifierError as error:
            return str(error), "give every row a code of letters, digits and visible marks"
        size = len(suffix.encode())
        if size > self._suffix_max:
            reason = f"suffix is {size} bytes long, at most {self._suffix_max} fit this prefix"
            return reason, "shorten the code"
        return None

    def _value_problem(self, row: list[str], number: int) -> RowProblem:
        at, type_, _ = max(self._values, key=lambda value: len(row[value[0]]))
        size = len(row[at].encode())
        return RowProblem(
            number,
            type_,
            f"value is {size} bytes long, at most {VALUE_DATA_SIZE_BYTES_MAX} are allowed",
            "shorten the text, or register its web address instead",
        )


@dataclass(frozen=True, slots=True)
class _Staged:
    rows: list[bytes]
    problems: list[RowProblem]
    repeated: int


@dataclass(slots=True)
class _Job:
    """One file on its way into the registry."""

    sheet: Sheet
    plan: RowPlan
    report: "_Report"
    tally: _Tally
    on_progress: Callable[[RegistrationProgress], None]
    now_s: Callable[[], float]

    async def run(self, bulk: BulkRegistration) -> None:
        """Register chunk after chunk; while one is being written, the next is being read."""
        chunks = self.sheet.chunks(CHUNK_ROWS)
        staged = await asyncio.to_thread(self._next, chunks, bulk.change_id)
        while staged is not None:
            writing = asyncio.ensure_future(self._write(bulk, staged))
            try:
                following = await asyncio.to_thread(self._next, chunks, bulk.change_id)
            except BaseException:
                await asyncio.gather(writing, return_exceptions=True)
                raise
            await writing
            staged = following

    async def preview(self) -> None:
        """Look at every row and register nothing."""
        chunks = self.sheet.chunks(CHUNK_ROWS)
        while (staged := await asyncio.to_thread(self._next, chunks, 0)) is not None:
            self._note(staged)

    def _next(self, chunks: Iterator[Chunk], change_id: int) -> "_Staged | None":
        chunk = next(chunks, None)
        if chunk is None:
            return None
        form = RowFormat(change_id, self.now_s())
        staged = self.plan.stage(chunk.rows, chunk.row_numbers, form)
        if len(self.tally.preview) < PREVIEW_ROWS:
            room = PREVIEW_ROWS - len(self.tally.preview)
            self.tally.preview += [self.plan.preview(row) for row in chunk.rows[:room]]
        problems = sorted([*chunk.problems, *staged.problems], key=lambda p: p.row_number)
        return _Staged(staged.rows, problems, staged.repeated)

    async def _write(self, bulk: BulkRegistration, staged: _Staged) -> None:
        if staged.rows:
            result = await bulk.write_formatted(staged.rows, len(staged.rows), self.now_s())
            self.tally.added += result.added
            self.tally.changed += result.changed
            self.tally.unchanged += result.unchanged + staged.repeated
        self._note(staged)

    def _note(self, staged: _Staged) -> None:
        tally = self.tally
        tally.rows += len(staged.rows) + staged.repeated + len(staged.problems)
        tally.failed += len(staged.problems)
        room = PROBLEMS_SHOWN_MAX - len(tally.problems)
        tally.problems += staged.problems[:room] if room > 0 else []
        self.report.add(staged.problems)
        self.on_progress(
            RegistrationProgress(
                tally.rows,
                tally.added,
                tally.changed,
                tally.unchanged,
                tally.failed,
                self._fraction(),
            )
        )

    def _fraction(self) -> float | None:
        size = self.sheet.size_hint
        return min(1.0, self.sheet.position() / size) if size else None


@contextmanager
def _quick_switching() -> Iterator[None]:
    """The reading thread hands over often, so that the database never waits to be fed."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


class _Report:
    """The file of rows that could not be registered; made when there is the first one.

    Without a path (a dry run that was not told where) nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._writer: Any = None
        self.written_to: Path | None = None

    def __enter__(self) -> "_Report":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, problems: Sequence[RowProblem]) -> None:
        """Append rows; the file opens in Excel as it is (UTF-8 with a byte order mark)."""
        if not problems or self._path is None:
            return
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8-sig", newline="")
            self._writer = csv.writer(self._file)
            self._writer.writerow(_REPORT_HEADER)
            self.written_to = self._path
        for problem in problems:
            self._writer.writerow(
                (problem.row_number, problem.field or "", problem.reason, problem.suggestion)
            )
        self._file.flush()


def _column_map(
    suffix: str | None, values: Sequence[str], mapping: Path | None, check: str
) -> ColumnMap | None:
    if mapping is not None:
        if suffix is not None or values:
            raise RegistrationError("give either --mapping, or --suffix and --value")
        return column_map_from_file(mapping)
    if suffix is None:
        raise RegistrationError(
            "name the column that becomes the suffix: --suffix COLUMN, or give --mapping FILE"
        )
    return column_map_from_options(suffix, values, check) if values else None


def _value_head(index: int, type_: str, value: Any) -> bytes:
    type_bytes = type_.encode()
    head = _VALUE_HEAD.pack(
        index, TIMESTAMP_OF_RECORD_S, TTL_RELATIVE, value.ttl_s, PERMISSIONS_DEFAULT
    )
    return head + len(type_bytes).to_bytes(4, "big") + type_bytes


async def _require_open(database: Database, prefix: str) -> None:
    async with database.connection() as connection, connection.transaction():
        refusal = await prefix_refusal(connection, fold(prefix))
    if refusal is not None:
        raise RegistrationError(
            f"{refusal.message} ({prefix}): allot it with "
            f"`idnode prefix allot {prefix} --enterprise CODE`, or see `idnode prefix list`"
        )
