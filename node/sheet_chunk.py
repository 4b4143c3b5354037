"""What every product file becomes: named columns, then chunks of rows with their row numbers."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

# The width of an Excel sheet; no other format needs more.
COLUMNS_MAX = 16_384
# Title rows above the header: real files have up to a handful, further down is data.
HEADER_SEARCH_ROWS = 20
# A header that a person points at; everything above it is held in memory.
HEADER_ROW_MAX = 1_000
# Large enough to make the cost of a chunk vanish, small enough for a few MiB of memory.
CHUNK_ROWS = 10_000

# str.strip() takes the full-width space; the mark at the start of a file may be left in a copy.
_HEADER_PADDING = "\ufeff\u200b"


class SheetError(Exception):
    """A file that cannot be read on; one line: file, row, what, what was expected, what to do."""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One row that is not in `Chunk.rows`, and why; `field` is None for the row as a whole."""

    row_number: int
    field: str | None
    reason: str
    suggestion: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows in file order; `row_numbers[i]` is where a person finds `rows[i]`, from 1.

    Every row has exactly one cell for each of `Sheet.columns`. Rows that cannot be read so are in
    `problems` only.
    """

    row_numbers: Sequence[int]
    rows: list[list[str]]
    problems: Sequence[RowProblem] = ()


class CellError(ValueError):
    """A cell, or a whole row if `field` is None, that has no faithful text."""

    def __init__(self, reason: str, suggestion: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.suggestion = suggestion
        self.field = field

    def problem(self, row_number: int) -> RowProblem:
        return RowProblem(row_number, self.field, self.reason, self.suggestion)


class Sheet(ABC):
    """An open product file that is read once, from the top.

    `columns` has one name for every cell of a row; "" marks a column without a name, which is to
    be ignored. `size_hint` and `position()` count in `size_unit`, for showing progress; a size
    of None is unknown.
    """

    columns: tuple[str, ...]
    encoding: str | None
    size_hint: int | None
    size_unit: Literal["bytes", "rows"]

    @abstractmethod
    def position(self) -> int:
        """How much of `size_hint` has been read so far."""

    @abstractmethod
    def chunks(self, rows_max: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """The rows below the header, at most `rows_max` at a time; empty rows are left out.

        Raises:
            SheetError: if the file is damaged further on; what came before has been yielded.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def named_columns(
    cells: Sequence[str], wanted: Collection[str], *, path: Path, row_number: int
) -> tuple[str, ...]:
    """The column names in a header row, without the white space around them.

    Two columns of one name are refused unless it is plain that nobody wants them.

    Raises:
        SheetError: for a header that is empty, too wide or ambiguous.
    """
    columns = tuple(stripped_name(cell) for cell in cells)
    if not any(columns):
        raise SheetError(
            f"{path}: row {row_number} is empty, expected the column names; "
            "give the row of the header"
        )
    if len(columns) > COLUMNS_MAX:
        raise SheetError(
            f"{path}: row {row_number} has {len(columns)} columns, at most {COLUMNS_MAX} are "
            "allowed; give the row of the header"
        )
    check_unique(columns, wanted, path=path, row_number=row_number)
    return columns


def stripped_name(cell: str) -> str:
    """A header cell as a name: ordinary and full-width spaces around it are not part of it."""
    return cell.strip().strip(_HEADER_PADDING).strip()


def check_unique(
    columns: Sequence[str], wanted: Collection[str], *, path: Path, row_number: int
) -> None:
    counts = Counter(name for name in columns if name and (not wanted or name in wanted))
    for name, count in counts.items():
        if count > 1:
            places = [str(place) for place, other in enumerate(columns, 1) if other == name]
            raise SheetError(
                f"{path}: row {row_number} names the columns {', '.join(places)} all {name!r}; "
                "every name may occur once: rename all but one"
            )


def header_place(
    rows: Sequence[tuple[int, Sequence[str]]],
    *,
    wanted: Collection[str],
    header_row: int | None,
    otherwise: int,
    path: Path,
) -> int:
    """The place in `rows`, (row number, cells) from the top, of the header.

    That is the row asked for; else the first that has the most of the wanted names; else the row
    at `otherwise`.

    Raises:
        SheetError: if the row asked for is not there.
    """
    if header_row is not None:
        for place, (row_number, _) in enumerate(rows):
            if row_number == header_row:
                return place
        raise SheetError(f"{path}: no row begins at row {header_row}; give the row of the header")
    hits = [wanted_names(cells, wanted) for _, cells in rows[:HEADER_SEARCH_ROWS]]
    if any(hits):
        return hits.index(max(hits))
    return otherwise


def wanted_names(cells: Sequence[str], wanted: Collection[str]) -> int:
    """How many of the wanted names are among the cells of a row."""
    return len({stripped_name(cell) for cell in cells}.intersection(wanted))


def check_header_row(header_row: int | None, path: Path) -> None:
    if header_row is not None and not 1 <= header_row <= HEADER_ROW_MAX:
        raise SheetError(
            f"{path}: the header cannot be at row {header_row}, "
            f"expected a row number from 1 to {HEADER_ROW_MAX}"
        )
