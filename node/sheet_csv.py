"""Comma-separated text as spreadsheets and ERP systems export it."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from node.sheet_chunk import (
    CHUNK_ROWS,
    HEADER_SEARCH_ROWS,
    Chunk,
    RowProblem,
    Sheet,
    SheetError,
    check_header_row,
    header_place,
    named_columns,
    wanted_names,
)

# One value is at most 64 KiB; an unclosed quote must not swallow a file of any size unnoticed.
CELL_SIZE_CHARS_MAX = 1_048_576
# The csv module takes lines whole; a file without line ends must not be taken into memory.
LINE_SIZE_CHARS_MAX = 2_097_152
_BLOCK_SIZE_BYTES = 1_048_576
# Lines held for finding the header: 20 rows with line breaks inside their cells fit well.
_PREVIEW_LINES = 400
# So many proper UTF-8 characters by chance are out of the question in GB18030 text.
_UTF8_CHARACTERS_CERTAIN = 8

_DELIMITERS = (",", ";", "\t", "，")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Fed to the csv reader after the last line. No file has it: NUL is refused beforehand.
_END = "\0"
_LINE_BREAK = re.compile(r"\r\n|\r|\n")

_Rows = list[tuple[int, list[str]]]


class CsvSheet(Sheet):
    """Delimited text; a row's number is the number of the line on which it begins.

    A comma-separated file reads as `csv.reader` reads it, except that empty rows are left out,
    short rows are filled up with "" and rows that are too long become problems.
    """

    size_unit = "bytes"

    def __init__(
        self, path: Path, *, wanted: Collection[str] = (), header_row: int | None = None
    ) -> None:
        check_header_row(header_row, path)
        # The limit belongs to the csv module as a whole.
        csv.field_size_limit(CELL_SIZE_CHARS_MAX)
        self._path = path
        self._file = path.open("rb")
        try:
            self.size_hint = self._file.seek(0, io.SEEK_END)
            self.encoding = text_encoding(self._file, path)
            self._open_reader(wanted, header_row)
        except BaseException:
            self._file.close()
            raise

    def _open_reader(self, wanted: Collection[str], header_row: int | None) -> None:
        self._file.seek(0)
        text = io.TextIOWrapper(self._file, self.encoding, newline="")
        # Held, since the wrapper closes the file when it is let go.
        self._text = text
        lines = _preview_lines(text, max(_PREVIEW_LINES, (header_row or 0) + HEADER_SEARCH_ROWS))
        delimiter = _delimiter(lines, wanted, header_row)
        rows = _preview_rows(lines, delimiter, header_row)
        if not rows:
            raise SheetError(
                f"{self._path}: row 1: no column names within the first {len(lines)} lines; "
                "expected a header such as gtin,name,brand"
            )
        place = header_place(
            rows, wanted=wanted, header_row=header_row, otherwise=0, path=self._path
        )
        row_number, cells = rows[place]
        self.columns = named_columns(cells, wanted, path=self._path, row_number=row_number)
        self._reader = csv.reader(chain(lines, text, (_END,)), delimiter=delimiter)
        while self._reader.line_num < row_number:
            next(self._reader)

    def position(self) -> int:
        return self._file.tell() if not self._file.closed else self.size_hint or 0

    def chunks(self, rows_max: int = CHUNK_ROWS) -> Iterator[Chunk]:
        reader, width = self._reader, len(self.columns)
        blank = [""] * width
        failure: Exception | None = None
        ended = False
        while not ended:
            first = reader.line_num + 1
            rows: list[list[str]] = []
            try:
                # extend() keeps what was read before a failure.
                rows.extend(islice(reader, rows_max))
            except (csv.Error, UnicodeError) as error:
                failure = error
            lines = reader.line_num + 1 - first
            ended = len(rows) < rows_max or failure is not None
            if rows and rows[-1] == [_END]:
                rows.pop()
                lines -= 1
            # All in C: every row is one line, as wide as the header and not empty.
            if lines == len(rows) and set(map(len, rows)) <= {width} and blank not in rows:
                chunk = Chunk(range(first, first + lines), rows)
            else:
                chunk = self._sorted_out(rows, first)
            if chunk.rows or chunk.problems:
                yield chunk
        if failure is not None:
            raise self._failure(failure)

    def _failure(self, error: Exception) -> SheetError:
        line = self._reader.line_num
        if isinstance(error, UnicodeError):
            return SheetError(f"{self._path}: changed while it was read (line {line}); try again")
        return SheetError(
            f"{self._path}: line {line}: {error}; a cell may have at most {CELL_SIZE_CHARS_MAX} "
            "characters: look for a quote that opens here or above and never closes"
        )

    def _sorted_out(self, rows: list[list[str]], first: int) -> Chunk:
        """The slow path: count the lines of every row, take empty and unfit ones out."""
        width = len(self.columns)
        numbers: list[int] = []
        kept: list[list[str]] = []
        problems: list[RowProblem] = []
        row_number = first
        for row in rows:
            begins = row_number
            row_number += 1
            text = "".join(row)
            if "\n" in text or "\r" in text:
                row_number += _line_breaks(row)
            if not text:
                continue
            if len(row) != width or text[-1] == _END:
                problem = self._problem(row, begins)
                if problem is not None:
                    problems.append(problem)
                    continue
                row = row[:width] + [""] * (width - len(row))
            numbers.append(begins)
            kept.append(row)
        return Chunk(numbers, kept, problems)

    def _problem(self, row: list[str], row_number: int) -> RowProblem | None:
        width = len(self.columns)
        if row[-1].endswith(_END):
            field = self.columns[len(row) - 1] if len(row) <= width else None
            return RowProblem(
                row_number,
                field or None,
                "a quote opens in this row and never closes: the rest of the file is in one cell",
                'close the quote, or double it ("") if it belongs to the text',
            )
        if any(row[width:]):
            return RowProblem(
                row_number,
                None,
                f"row has {len(row)} cells, the header has {width}",
                'put cells that contain the separator into quotes: "..."',
            )
        return None

    def close(self) -> None:
        self._text.close()


def _line_breaks(row: Sequence[str]) -> int:
    """How many line breaks of the file are inside the cells of a row."""
    return sum(len(_LINE_BREAK.findall(cell)) for cell in row)


def _preview_lines(text: io.TextIOWrapper, lines_max: int) -> list[str]:
    lines: list[str] = []
    size_chars = 0
    while len(lines) < lines_max and size_chars <= LINE_SIZE_CHARS_MAX:
        line = text.readline()
        if not line:
            break
        lines.append(line)
        size_chars += len(line)
    return lines


def _preview_rows(lines: Sequence[str], delimiter: str, header_row: int | None) -> _Rows:
    """The non-empty rows from the top in which the header is looked for, with their lines."""
    reader = csv.reader(lines, delimiter=delimiter)
    rows: _Rows = []
    begins = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row) or begins == header_row:
                rows.append((begins, row))
            begins = reader.line_num + 1
            if len(rows) >= HEADER_SEARCH_ROWS and begins > (header_row or 0):
                break
    except csv.Error:
        pass  # A cell too large lies below the header; the reader proper will name it.
    return rows


def _delimiter(lines: Sequence[str], wanted: Collection[str], header_row: int | None) -> str:
    """What separates the cells of the header: the wanted names decide, then the most cells."""

    def fit(delimiter: str) -> tuple[int, int]:
        rows = _preview_rows(lines, delimiter, header_row)
        header = [cells for number, cells in rows if number == header_row] or [
            cells for _, cells in rows[:HEADER_SEARCH_ROWS]
        ]
        hits = max((wanted_names(cells, wanted) for cells in header), default=0)
        return hits, len(header[0]) if header else 0

    return max(_DELIMITERS, key=fit)


def text_encoding(file: BinaryIO, path: Path) -> str:
    """The encoding in which the whole file is text: by its mark, else UTF-8, else GB18030.

    Source: GB 18030-2022 contains GBK and GB 2312, in which Chinese spreadsheets export.

    Raises:
        SheetError: names the byte at which the file stops being text.
    """
    file.seek(0)
    head = file.read(4)
    if not head:
        raise SheetError(f"{path}: is empty; expected a header row and rows of products")
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            _check_text(file, encoding, path)
            return encoding
    try:
        _check_text(file, "utf-8", path)
    except _NotTextError as utf8:
        if utf8.characters_beyond_ascii >= _UTF8_CHARACTERS_CERTAIN:
            raise
        try:
            _check_text(file, "gb18030", path)
        except _NotTextError as gb18030:
            raise SheetError(
                f"{path}: is neither UTF-8 (byte {utf8.offset_bytes}) nor GB18030/GBK "
                f"(byte {gb18030.offset_bytes}) text; save it as CSV UTF-8"
            ) from None
        return "gb18030"
    return "utf-8"


class _NotTextError(SheetError):
    """`offset_bytes` counts from 0; what came before had so many characters beyond ASCII."""

    def __init__(
        self, path: Path, encoding: str, offset_bytes: int, characters_beyond_ascii: int
    ) -> None:
        super().__init__(
            f"{path}: is damaged at byte {offset_bytes}: not {encoding.upper()} text there, "
            "though it is before; export the file again"
        )
        self.offset_bytes = offset_bytes
        self.characters_beyond_ascii = characters_beyond_ascii


def _check_text(file: BinaryIO, encoding: str, path: Path) -> None:
    """Read the whole file once, in blocks: it decodes, has no NUL and no endless line."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    offset_bytes = beyond_ascii = run_chars = 0
    while True:
        block = file.read(_BLOCK_SIZE_BYTES)
        offset_bytes += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(encoding, "ignore")
            beyond_ascii += _beyond_ascii(before)
            # The decoder had kept some bytes back, so the block in the error may begin earlier.
            begins = offset_bytes - len(error.object)
            raise _NotTextError(path, encoding, begins + error.start, beyond_ascii) from None
        if not block:
            return
        beyond_ascii += _beyond_ascii(text)
        if "\0" in text:
            raise SheetError(
                f"{path}: has a NUL character near byte {offset_bytes - len(block)}: "
                "not a text file; save it as CSV UTF-8"
            )
        line_end = max(text.rfind("\n"), text.rfind("\r"))
        run_chars = len(text) - line_end - 1 if line_end >= 0 else run_chars + len(text)
        if run_chars > LINE_SIZE_CHARS_MAX:
            raise SheetError(
                f"{path}: the line at byte {offset_bytes} has more than {LINE_SIZE_CHARS_MAX} "
                "characters; expected one product a line"
            )


def _beyond_ascii(text: str) -> int:
    if text.isascii():
        return 0
    return len(text) - len(text.encode("ascii", "ignore"))
