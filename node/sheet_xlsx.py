"""Excel workbooks, one sheet of them, read row by row."""

import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime, time
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, cast

from openpyxl import load_workbook
from openpyxl.cell.read_only import EmptyCell, ReadOnlyCell
from openpyxl.workbook.workbook import Workbook

from node.sheet_chunk import (
    CHUNK_ROWS,
    HEADER_SEARCH_ROWS,
    CellError,
    Chunk,
    RowProblem,
    Sheet,
    SheetError,
    check_header_row,
    header_place,
    named_columns,
)

# A full sheet (1,048,576 rows, 20 columns) unpacks to about 1.5 GiB; a zip bomb to far more.
UNPACKED_SIZE_BYTES_MAX = 2 * 1024**3
# Shared strings, styles and the workbook part are taken into memory whole; only sheets stream.
PART_SIZE_BYTES_MAX = 512 * 1024**2
PARTS_MAX = 10_000
# The height of an Excel sheet.
ROWS_MAX = 1_048_576
# Excel keeps 15 significant digits of a number and puts 0 for the rest.
NUMBER_EXACT_BELOW = 10**15

_TEXT_CELLS_OF_A_HEADER = 2
# Excel writes a control character in a string so, most often the carriage return _x000D_.
_ESCAPED_CONTROL = re.compile(r"_x00([01][0-9A-Fa-f])_")

_Cell = ReadOnlyCell | EmptyCell
_Row = tuple[int, Sequence[_Cell]]


class _Worksheet(Protocol):
    """What openpyxl's read-only sheets have; its published types leave the rows out."""

    title: str
    sheet_state: str

    @property
    def max_row(self) -> int | None: ...

    def reset_dimensions(self) -> None: ...

    def iter_rows(self, *, max_row: int) -> Iterator[Sequence[_Cell]]: ...


class XlsxSheet(Sheet):
    """One sheet of a workbook; a row's number is the number that Excel shows.

    Formulas give the value that was stored with them. Cells to the right of the last column name
    are ignored. A cell in a wanted column that has no faithful text makes its row a problem.
    """

    encoding = None
    size_unit = "rows"

    def __init__(
        self,
        path: Path,
        *,
        sheet_name: str | None = None,
        wanted: Collection[str] = (),
        header_row: int | None = None,
    ) -> None:
        check_header_row(header_row, path)
        self._path = path
        self._wanted = frozenset(wanted)
        self._row_number = 0
        self._file = path.open("rb")
        try:
            self._check_parts()
            self._workbook = self._loaded()
            sheet = self._chosen(sheet_name)
            # What the file says of its size serves for progress only: it is often wrong.
            self.size_hint = sheet.max_row
            sheet.reset_dimensions()
            self._rows: Iterator[_Row] = enumerate(sheet.iter_rows(max_row=ROWS_MAX), 1)
            self._open_header(sheet.title, header_row)
        except BaseException:
            self._file.close()
            raise

    def _check_parts(self) -> None:
        """Refuse a zip bomb by its table of contents; zipfile never unpacks more than that says."""
        try:
            with zipfile.ZipFile(self._file) as archive:
                parts = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise self._unreadable(error) from None
        size_bytes = sum(part.file_size for part in parts)
        part_bytes = max((p.file_size for p in parts if not _is_worksheet(p.filename)), default=0)
        if (
            size_bytes > UNPACKED_SIZE_BYTES_MAX
            or part_bytes > PART_SIZE_BYTES_MAX
            or len(parts) > PARTS_MAX
        ):
            packed_bytes = max(1, sum(part.compress_size for part in parts))
            raise SheetError(
                f"{self._path}: unpacks to {size_bytes} bytes in {len(parts)} parts "
                f"({size_bytes // packed_bytes} times its size), at most {UNPACKED_SIZE_BYTES_MAX} "
                f"bytes ({PART_SIZE_BYTES_MAX} outside sheets) and {PARTS_MAX} parts are allowed; "
                "split it or save it as CSV UTF-8"
            )

    def _loaded(self) -> Workbook:
        try:
            with warnings.catch_warnings():
                # openpyxl warns of styles and extensions; only cell values matter here.
                warnings.simplefilter("ignore")
                self._file.seek(0)
                return load_workbook(self._file, read_only=True, data_only=True, keep_links=False)
        except Exception as error:  # openpyxl raises whatever the damage leads it into
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> SheetError:
        # openpyxl wraps the reason in advice that runs over lines.
        reason = error.__cause__ or error
        what = " ".join(str(reason).split())[:200] or type(reason).__name__
        place = f"after row {self._row_number}" if self._row_number else "the workbook"
        return SheetError(
            f"{self._path}: {place} cannot be read: {what}; "
            "open the file in a spreadsheet program and save it as .xlsx or as CSV UTF-8"
        )

    def _chosen(self, sheet_name: str | None) -> _Worksheet:
        sheets = cast(list[_Worksheet], self._workbook.worksheets)
        for sheet in sheets:
            if sheet.title == sheet_name or (sheet_name is None and sheet.sheet_state == "visible"):
                return sheet
        names = ", ".join(repr(sheet.title) for sheet in sheets) or "no sheets"
        asked = "no visible sheet" if sheet_name is None else f"no sheet {sheet_name!r}"
        raise SheetError(f"{self._path}: has {asked}; the workbook has {names}: name one of them")

    def _open_header(self, title: str, header_row: int | None) -> None:
        looked_at = list(self._next_rows(max(HEADER_SEARCH_ROWS, header_row or 0)))
        texts = [(number, _header_texts(cells)) for number, cells in looked_at]
        if not any(any(cells) for _, cells in texts):
            raise SheetError(
                f"{self._path}: sheet {title!r} has no column names within the first "
                f"{max(HEADER_SEARCH_ROWS, header_row or 0)} rows; "
                "give the name of the sheet or the row of the header"
            )
        place = header_place(
            texts,
            wanted=self._wanted,
            header_row=header_row,
            otherwise=_likely_header(looked_at, texts),
            path=self._path,
        )
        row_number, cells = texts[place]
        self.columns = named_columns(cells, self._wanted, path=self._path, row_number=row_number)
        self._row_number = row_number
        self._rows = chain(looked_at[place + 1 :], self._rows)

    def position(self) -> int:
        return self._row_number

    def _next_rows(self, rows_max: int) -> Iterator[_Row]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from islice(self._rows, rows_max)
        except Exception as error:  # openpyxl raises whatever the damage leads it into
            raise self._unreadable(error) from None

    def chunks(self, rows_max: int = CHUNK_ROWS) -> Iterator[Chunk]:
        failure: SheetError | None = None
        ended = False
        while not ended:
            before = self._row_number
            numbers: list[int] = []
            rows: list[list[str]] = []
            problems: list[RowProblem] = []
            try:
                for row_number, cells in self._next_rows(rows_max):
                    self._row_number = row_number
                    row = self._row(cells)
                    if isinstance(row, CellError):
                        problems.append(row.problem(row_number))
                    elif any(row):
                        numbers.append(row_number)
                        rows.append(row)
            except SheetError as error:
                failure = error
            ended = self._row_number - before < rows_max or failure is not None
            if rows or problems:
                yield Chunk(numbers, rows, problems)
        if failure is not None:
            raise failure

    def _row(self, cells: Sequence[_Cell]) -> list[str] | CellError:
        try:
            return self._texts(cells)
        except CellError as error:
            return error

    def _texts(self, cells: Sequence[_Cell]) -> list[str]:
        width = len(self.columns)
        texts: list[str] = []
        for cell in cells[:width]:
            value = cell.value
            if value is None:
                texts.append("")
            elif type(value) is str and "_x00" not in value:
                texts.append(value)
            else:
                texts.append(self._text(cell, len(texts)))
        texts += [""] * (width - len(texts))
        return texts

    def _text(self, cell: _Cell, place: int) -> str:
        name = self.columns[place]
        try:
            return cell_text(cell.value, cell.number_format)
        except CellError as error:
            if not name or (self._wanted and name not in self._wanted):
                return ""
            raise CellError(error.reason, error.suggestion, field=name) from None

    def close(self) -> None:
        self._workbook.close()
        self._file.close()


def _is_worksheet(name: str) -> bool:
    return name.lower().startswith("xl/worksheets/")


def _header_texts(cells: Sequence[_Cell]) -> list[str]:
    """The texts of a row that may be the header, without the empty cells at its end."""
    texts = [_header_text(cell.value) for cell in cells]
    while texts and not texts[-1].strip():
        texts.pop()
    return texts


def _header_text(value: object) -> str:
    try:
        return cell_text(value)
    except CellError:
        return ""


def _likely_header(rows: Sequence[_Row], texts: Sequence[tuple[int, Sequence[str]]]) -> int:
    """The first row with two or more texts and something below it; else the first with any."""
    filled = [bool(cells) for _, cells in texts]
    for place, (_, cells) in enumerate(rows):
        strings = sum(type(cell.value) is str and bool(cell.value.strip()) for cell in cells)
        if strings >= _TEXT_CELLS_OF_A_HEADER and any(filled[place + 1 :]):
            return place
    return filled.index(True)


def cell_text(value: object, number_format: str | None = None) -> str:
    """The text of an Excel cell as a person reads it, without loss.

    Whole numbers are digits, padded with zeros if the format is nothing but zeros; other numbers
    are the shortest decimal that is the same number; dates and times are ISO 8601.

    Raises:
        CellError: for a number of which Excel has not kept all digits.
    """
    match value:
        case None:
            return ""
        case str():
            return _ESCAPED_CONTROL.sub(lambda found: chr(int(found[1], 16)), value)
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return _whole_number(value, number_format)
        case float():
            return _number(value, number_format)
        case datetime():
            is_day = value.time() == time.min
            return value.date().isoformat() if is_day else value.isoformat()
        case date() | time():
            return value.isoformat()
    return str(value)


def _number(value: float, number_format: str | None) -> str:
    if not value.is_integer():
        return repr(value)
    if abs(value) >= NUMBER_EXACT_BELOW:
        raise _rounded()
    return _whole_number(int(value), number_format)


def _whole_number(value: int, number_format: str | None) -> str:
    digits = str(value)
    # A program other than Excel may have written all digits; Excel leaves zeros after the 15th.
    if abs(value) >= NUMBER_EXACT_BELOW and not digits.lstrip("-")[15:].strip("0"):
        raise _rounded()
    if number_format and not number_format.strip("0"):
        return digits.zfill(len(number_format))
    return digits


def _rounded() -> CellError:
    return CellError(
        "number has more than 15 digits, of which Excel keeps 15",
        "format the column as text and enter the number again",
    )
