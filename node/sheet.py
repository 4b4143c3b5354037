"""A factory's product file as rows: CSV, Excel or JSON lines, whatever its name says."""

from collections.abc import Collection
from importlib import import_module
from pathlib import Path

from node.sheet_chunk import CHUNK_ROWS, Chunk, RowProblem, Sheet, SheetError
from node.sheet_csv import CsvSheet
from node.sheet_jsonl import JsonlSheet

__all__ = ["CHUNK_ROWS", "Chunk", "RowProblem", "Sheet", "SheetError", "open_sheet"]

_TEXT_ENDINGS = frozenset({".csv", ".tsv", ".txt"})
_JSON_ENDINGS = frozenset({".jsonl", ".ndjson"})

# Content that is told by its first bytes, whatever the name: ERP systems name anything .xls.
_ZIP = b"PK\x03\x04"
_REFUSED = (
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "is an old Excel file (.xls) or one with a password; save it as .xlsx without a password",
    ),
    (b"\x1f\x8b", "is compressed (gzip); unpack it first"),
    (b"%PDF", "is a PDF document; export the table as .xlsx or CSV UTF-8"),
)
_HEAD_SIZE_BYTES = 512


def open_sheet(
    path: Path,
    *,
    sheet_name: str | None = None,
    header_row: int | None = None,
    wanted: Collection[str] = (),
) -> Sheet:
    """The product file at `path`, open at the first row below its header.

    `sheet_name` picks the sheet of a workbook (else the first visible one); `header_row` counts
    from 1; `wanted` are the column names that the caller will use: they help to find the header,
    and only they can make a cell a problem.

    Raises:
        SheetError: if it is not a product file that can be read, and what to do.
    """
    try:
        return _opened(path, sheet_name, header_row, wanted)
    except OSError as error:
        raise SheetError(
            f"{path}: cannot be opened: {error.strerror or error}; check the name and the rights"
        ) from None


def _workbook(
    path: Path, sheet_name: str | None, header_row: int | None, wanted: Collection[str]
) -> Sheet:
    # Loaded when needed: openpyxl would slow the start of every command by a quarter second.
    sheet: Sheet = import_module("node.sheet_xlsx").XlsxSheet(
        path, sheet_name=sheet_name, header_row=header_row, wanted=wanted
    )
    return sheet


def _opened(
    path: Path, sheet_name: str | None, header_row: int | None, wanted: Collection[str]
) -> Sheet:
    head = _head(path)
    if head.startswith(_ZIP):
        return _workbook(path, sheet_name, header_row, wanted)
    if sheet_name is not None:
        raise SheetError(f"{path}: is not an .xlsx workbook, so it has no sheet {sheet_name!r}")
    if _is_json(path, head):
        if header_row is not None:
            raise SheetError(f"{path}: JSON lines have no header row; leave it out")
        return JsonlSheet(path, wanted=wanted)
    return CsvSheet(path, header_row=header_row, wanted=wanted)


def _head(path: Path) -> bytes:
    """The first bytes of a file that may be a product file.

    Raises:
        SheetError: for what certainly is none.
    """
    if path.exists() and not path.is_file():
        raise SheetError(f"{path}: is not a regular file; expected a .csv, .xlsx or .jsonl file")
    with path.open("rb") as file:
        head = file.read(_HEAD_SIZE_BYTES)
    for mark, message in _REFUSED:
        if head.startswith(mark):
            raise SheetError(f"{path}: {message}")
    if path.suffix.lower() in {".xlsx", ".xlsm"} and not head.startswith(_ZIP):
        raise SheetError(f"{path}: is not an Excel workbook, whatever its name; export it again")
    if head.lstrip().startswith(b"<"):
        raise SheetError(f"{path}: is HTML or XML, not a table; save it as .xlsx or CSV UTF-8")
    return head


def _is_json(path: Path, head: bytes) -> bool:
    ending = path.suffix.lower()
    if ending in _TEXT_ENDINGS:
        return False
    return ending in _JSON_ENDINGS or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (
        b"{",
        b"[",
    )
