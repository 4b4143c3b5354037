"""JSON lines: one object a line, as programs export products."""

import codecs
import io
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import orjson

from node.sheet_chunk import (
    CHUNK_ROWS,
    CellError,
    Chunk,
    RowProblem,
    Sheet,
    SheetError,
    named_columns,
)

# A record is at most 245,760 bytes; JSON may write a character in six.
LINE_SIZE_BYTES_MAX = 2_097_152
# Optional keys may be missing from the first object; within so many, every key turns up.
KEY_SEARCH_LINES = 1_000
_KEY_SEARCH_SIZE_BYTES = 4_194_304

_Line = tuple[int, bytes]


class JsonlSheet(Sheet):
    """One object a line; a row's number is the number of its line.

    The columns are the keys of the objects at the top, in the order in which they turn up. Keys
    that are not there give ""; keys that first appear further down are ignored.
    """

    encoding = "utf-8"
    size_unit = "bytes"

    def __init__(self, path: Path, *, wanted: Collection[str] = ()) -> None:
        self._path = path
        self._wanted = frozenset(wanted)
        self._file = path.open("rb")
        try:
            self.size_hint = self._file.seek(0, io.SEEK_END)
            self._file.seek(0)
            self._lines: Iterator[_Line] = self._numbered_lines()
            self._open_columns()
        except BaseException:
            self._file.close()
            raise

    def _numbered_lines(self) -> Iterator[_Line]:
        """Every line that is not blank; one that is too long is cut, still too long, and left."""
        file = self._file
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        row_number = 0
        while line := file.readline(LINE_SIZE_BYTES_MAX + 1):
            row_number += 1
            rest = line
            while len(rest) > LINE_SIZE_BYTES_MAX and not rest.endswith(b"\n"):
                rest = file.readline(LINE_SIZE_BYTES_MAX + 1)
            if not line.isspace():
                yield row_number, line

    def _open_columns(self) -> None:
        looked_at: list[_Line] = []
        keys: dict[str, None] = {}
        size_bytes = 0
        for row_number, line in islice(self._lines, KEY_SEARCH_LINES):
            looked_at.append((row_number, line))
            size_bytes += len(line)
            # What is not an object becomes a problem when the rows are read.
            with suppress(CellError):
                keys.update(dict.fromkeys(_object(line)))
            if size_bytes > _KEY_SEARCH_SIZE_BYTES:
                break
        self._check_keys(looked_at, keys)
        # Keys are exact: a name is found in an object only as it is written there.
        self._keys = tuple(keys)
        self.columns = named_columns(
            self._keys, self._wanted, path=self._path, row_number=looked_at[0][0]
        )
        self._lines = chain(looked_at, self._lines)

    def _check_keys(self, looked_at: list[_Line], keys: Mapping[str, None]) -> None:
        if keys:
            return
        if looked_at and looked_at[0][1].lstrip().startswith(b"["):
            raise SheetError(
                f"{self._path}: line {looked_at[0][0]}: begins a JSON array, expected one object a "
                "line; convert it, for example with: jq -c '.[]'"
            )
        raise SheetError(
            f"{self._path}: no JSON object within the first {len(looked_at)} lines; "
            'expected one object a line, such as {"gtin": "00000000959742", "name": "..."}'
        )

    def position(self) -> int:
        return self._file.tell() if not self._file.closed else self.size_hint or 0

    def chunks(self, rows_max: int = CHUNK_ROWS) -> Iterator[Chunk]:
        while lines := list(islice(self._lines, rows_max)):
            numbers: list[int] = []
            rows: list[list[str]] = []
            problems: list[RowProblem] = []
            for row_number, line in lines:
                try:
                    row = self._row(line)
                except CellError as error:
                    problems.append(error.problem(row_number))
                else:
                    numbers.append(row_number)
                    rows.append(row)
            yield Chunk(numbers, rows, problems)

    def _row(self, line: bytes) -> list[str]:
        found = _object(line)
        values = [found.get(key, "") for key in self._keys]
        if any(type(value) is float for value in values):
            values = [_exact(line).get(key, "") for key in self._keys]
        texts: list[str] = []
        for value, name in zip(values, self.columns, strict=True):
            if type(value) is str:
                texts.append(value)
            else:
                texts.append(self._text(value, name))
        return texts

    def _text(self, value: object, name: str) -> str:
        match value:
            case None:
                return ""
            case bool():
                return "true" if value else "false"
            case int():
                return str(value)
        if not name or (self._wanted and name not in self._wanted):
            return ""
        kind = "object" if isinstance(value, dict) else "list"
        raise CellError(
            f"value is a JSON {kind}, expected text or a number",
            "move what is inside it up to the level of the row",
            field=name,
        )

    def close(self) -> None:
        self._file.close()


def _object(line: bytes) -> dict[str, object]:
    """One line as an object; numbers that are not whole are only near."""
    if len(line) > LINE_SIZE_BYTES_MAX:
        raise CellError(
            f"line has more than {LINE_SIZE_BYTES_MAX} bytes", "write one object a line"
        )
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise CellError(f"line is not JSON: {error}", "write one object a line, in UTF-8") from None
    if not isinstance(found, dict):
        raise CellError("line is not a JSON object", 'write one object a line: {"gtin": "..."}')
    return found


def _exact(line: bytes) -> dict[str, object]:
    """The object of a line that `_object` took, every number as the text it is written in."""
    try:
        found: dict[str, object] = json.loads(line, parse_float=str, parse_int=str)
    except RecursionError:
        raise CellError("line is nested too deeply", "write one flat object a line") from None
    return found
