"""Which column of a product file becomes the suffix and which become handle values."""

import difflib
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resolver.identifier import fold
from resolver.record import INDEX_MAX, TTL_S_DEFAULT, TYPE_CHARACTERS_MAX, VALUES_MAX, is_type

Check = Literal["gtin", "none"]

# A suffix column of such a name holds GTINs.
GTIN_COLUMNS = frozenset(
    (
        *("gtin", "gtin14", "gtin13", "gtin8", "ean", "ean13", "upc", "barcode"),
        *("条码", "条形码", "商品条码", "商品条形码"),
    )
)
TTL_S_MAX = 2**31 - 1
# A mapping of 1,000 values takes about 100 KB.
FILE_SIZE_BYTES_MAX = 1_048_576
# So many column names are listed in a message.
_NAMES_LISTED = 30

_OPTION = re.compile(r"(?:(?P<index>[0-9]{1,10}):)?(?P<type>[^=]+)=(?P<column>.+)", re.DOTALL)
_FILE_KEYS = ("suffix", "check", "value")
_VALUE_KEYS = ("type", "column", "index", "ttl_s")


class ColumnMapError(Exception):
    """A mapping that cannot be used; one line: what, what was expected, what to do."""


@dataclass(frozen=True, slots=True)
class ValueColumn:
    """The cells of `column` become the data of the handle value with this index and type."""

    index: int
    type: str
    column: str
    ttl_s: int = TTL_S_DEFAULT


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """`suffix_column` completes the identifier; `check` says what its cells must be."""

    suffix_column: str
    values: tuple[ValueColumn, ...]
    check: Check

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of the columns that are used, each once."""
        return tuple(dict.fromkeys((self.suffix_column, *(v.column for v in self.values))))


def column_map_from_options(suffix: str, values: Sequence[str], check: str = "auto") -> ColumnMap:
    """The mapping of `--suffix COLUMN --value TYPE=COLUMN --value INDEX:TYPE=COLUMN`.

    The n-th value has the index n unless it says otherwise.

    Raises:
        ColumnMapError: names the option and what is wrong with it.
    """
    columns = [_value_from_option(text, place) for place, text in enumerate(values, 1)]
    return _column_map(suffix, columns, check)


def _value_from_option(text: str, place: int) -> ValueColumn:
    where = f"value {text!r}"
    found = _OPTION.fullmatch(text)
    if found is None:
        raise ColumnMapError(f"{where}: expected TYPE=COLUMN or INDEX:TYPE=COLUMN, as NAME=name")
    index = int(found["index"]) if found["index"] else place
    value = ValueColumn(index, found["type"].strip(), found["column"].strip())
    _check_value(value, where)
    return value


def column_map_from_file(path: Path) -> ColumnMap:
    """The mapping in a TOML file: `suffix`, `check` and tables `[[value]]`.

    Raises:
        ColumnMapError: names the file, the key and what was expected.
    """
    table = _load_toml(path)
    _check_keys(table, _FILE_KEYS, str(path))
    entries = table.get("value", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ColumnMapError(f"{path}: value: expected tables, each under a line [[value]]")
    try:
        columns = [
            _value_from_table(entry, place, f"[[value]] {place}")
            for place, entry in enumerate(entries, 1)
        ]
        suffix = _text_of(table, "suffix", "top level")
        check = _text_of(table, "check", "top level") if "check" in table else "auto"
        return _column_map(suffix, columns, check)
    except ColumnMapError as error:
        raise ColumnMapError(f"{path}: {error}") from None


def _load_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise ColumnMapError(f"{path}: cannot be opened: {error.strerror or error}") from None
    if len(content) > FILE_SIZE_BYTES_MAX:
        raise ColumnMapError(f"{path}: is larger than {FILE_SIZE_BYTES_MAX} bytes")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ColumnMapError(f"{path}: is not TOML in UTF-8: {error}") from None


def _value_from_table(table: Mapping[str, object], place: int, where: str) -> ValueColumn:
    _check_keys(table, _VALUE_KEYS, where)
    value = ValueColumn(
        index=_number_of(table, "index", place, where),
        type=_text_of(table, "type", where),
        column=_text_of(table, "column", where),
        ttl_s=_number_of(table, "ttl_s", TTL_S_DEFAULT, where),
    )
    _check_value(value, where)
    return value


def _check_keys(table: Mapping[str, object], allowed: Sequence[str], where: str) -> None:
    unknown = [key for key in table if key not in allowed]
    if unknown:
        raise ColumnMapError(
            f"{where}: unknown {_listed(unknown)}{_near(unknown[0], allowed)}; "
            f"allowed are {', '.join(allowed)}"
        )


def _text_of(table: Mapping[str, object], key: str, where: str) -> str:
    text = table.get(key)
    if not isinstance(text, str):
        raise ColumnMapError(f'{where}: {key} is missing or not text, expected {key} = "..."')
    return text.strip()


def _number_of(table: Mapping[str, object], key: str, default: int, where: str) -> int:
    number = table.get(key, default)
    if not isinstance(number, int) or isinstance(number, bool):
        raise ColumnMapError(f"{where}: {key} is {number!r}, expected a whole number")
    return number


def column_map_from_columns(columns: Sequence[str], suffix: str) -> ColumnMap:
    """Every named column but the suffix becomes a value of the type that its name is.

    Raises:
        ColumnMapError: if the suffix column is missing or a name cannot be a type.
    """
    suffix = suffix.strip()
    _check_present([suffix], columns)
    values = [name for name in columns if name and name != suffix]
    return column_map_from_options(
        suffix, [f"{index}:{_type_of(name)}={name}" for index, name in enumerate(values, 1)]
    )


def _type_of(column: str) -> str:
    value_type = fold(column)
    if "=" in value_type or not is_type(value_type):
        raise ColumnMapError(
            f"column {column!r} cannot name its own type (1 to {TYPE_CHARACTERS_MAX} printable "
            "characters without =); choose the columns with --value TYPE=COLUMN"
        )
    return value_type


def _column_map(suffix: str, values: Sequence[ValueColumn], check: str) -> ColumnMap:
    suffix = suffix.strip()
    if not suffix:
        raise ColumnMapError("suffix: no column is named; give the column that ends the identifier")
    if not 0 < len(values) <= VALUES_MAX:
        raise ColumnMapError(
            f"{len(values)} value columns, expected 1 to {VALUES_MAX}: "
            "an identifier needs at least one value to resolve to"
        )
    index, count = Counter(value.index for value in values).most_common(1)[0]
    if count > 1:
        types = ", ".join(value.type for value in values if value.index == index)
        raise ColumnMapError(
            f"index {index} is used {count} times ({types}); give each value its own, "
            "as in 2:BRAND=brand"
        )
    return ColumnMap(suffix, tuple(values), _check_named(suffix, check))


def _check_named(suffix: str, check: str) -> Check:
    match check:
        case "auto":
            return "gtin" if suffix.casefold() in GTIN_COLUMNS else "none"
        case "gtin" | "none":
            return check
    raise ColumnMapError(f"check is {check!r}, expected gtin, none or auto")


def _check_value(value: ValueColumn, where: str) -> None:
    if not 0 < value.index <= INDEX_MAX:
        raise ColumnMapError(f"{where}: index is {value.index}, expected 1 to {INDEX_MAX}")
    if not is_type(value.type):
        raise ColumnMapError(
            f"{where}: type is {value.type[:40]!r}, expected 1 to {TYPE_CHARACTERS_MAX} "
            "printable characters"
        )
    if not value.column:
        raise ColumnMapError(f"{where}: no column is named")
    if not 0 <= value.ttl_s <= TTL_S_MAX:
        raise ColumnMapError(f"{where}: ttl_s is {value.ttl_s}, expected 0 to {TTL_S_MAX}")


def check_columns(column_map: ColumnMap, columns: Sequence[str]) -> None:
    """Accept a mapping whose columns the file has.

    Raises:
        ColumnMapError: names the missing columns, the nearest names and what the file has.
    """
    _check_present(column_map.wanted, columns)


def _check_present(wanted: Sequence[str], columns: Sequence[str]) -> None:
    named = [name for name in columns if name]
    missing = [name for name in wanted if name not in named]
    if missing:
        parts = [f"{name!r}{_near(name, named)}" for name in missing]
        raise ColumnMapError(f"no column {', '.join(parts)}; the file has {_listed(named)}")


def _near(name: str, names: Sequence[str]) -> str:
    by_key = {other.casefold(): other for other in names}
    near = difflib.get_close_matches(name.casefold(), by_key, n=1)
    return f" (did you mean {by_key[near[0]]!r}?)" if near else ""


def _listed(names: Collection[str]) -> str:
    shown = [repr(name[:60]) for name in list(names)[:_NAMES_LISTED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


# The sum of the check digit rule over ASCII codes instead of digits is larger by 48 for every
# place of weight 1 and by 144 for every place of weight 3: modulo 10 by this, for each length.
_GTIN_REMAINDERS = {8: 8, 12: 2, 13: 0, 14: 4}
_GTIN_LENGTHS = "8, 12, 13 or 14 digits"
_GTIN_SIZE_MAX = 14

_LIKELY_DIGITS = str.maketrans("oOQDlIi|SsBZz", "0000111155822")
_BETWEEN_DIGITS = str.maketrans("", "", " \t\r\n\u00a0\u3000-'\u2019`\ufeff\u200b")
_SCIENTIFIC = re.compile(r"[0-9]+(?:[.,][0-9]+)?[eE]\+?[0-9]+")
_TEXT_COLUMN = "format the column as text in the spreadsheet and export it again"


def gtin_problem(text: str) -> tuple[str, str] | None:
    """None for a valid GTIN-8, -12, -13 or -14, else the reason and a suggestion.

    About 0.5 µs for a valid GTIN-14.
    """
    return None if is_gtin(text) else _gtin_problem(text)


def is_gtin(text: str) -> bool:
    """True for 8, 12, 13 or 14 ASCII digits of which the last is the check digit.

    Source: GS1 General Specifications §7.9 (weights 1, 3, 1, … from the right).
    """
    remainder = _GTIN_REMAINDERS.get(len(text))
    if remainder is None or not (text.isascii() and text.isdigit()):
        return False
    digits = text.encode()
    return (sum(digits[-1::-2]) + 3 * sum(digits[-2::-2])) % 10 == remainder


def _gtin_problem(text: str) -> tuple[str, str]:
    if not text:
        return "GTIN is empty", "fill it in or take the row out"
    if not (text.isascii() and text.isdigit()):
        return _not_digits(text)
    if len(text) in _GTIN_REMAINDERS:
        expected = check_digit(text[:-1])
        return (
            f"check digit is {text[-1]}, expected {expected}",
            f"{text[:-1]}{expected} if the other digits are right",
        )
    reason = f"GTIN has {len(text)} digits, expected {_GTIN_LENGTHS}"
    longer = next((text.zfill(n) for n in _GTIN_REMAINDERS if n > len(text)), text)
    if is_gtin(longer):
        return reason, f"{longer} if zeros at the front were lost; {_TEXT_COLUMN}"
    return reason, "compare it with the package"


def _not_digits(text: str) -> tuple[str, str]:
    place, bad = next((place, one) for place, one in enumerate(text, 1) if not ("0" <= one <= "9"))
    shown = repr(bad) if bad.isprintable() and not bad.isspace() else f"U+{ord(bad):04X}"
    reason = f"GTIN has the character {shown} at position {place}, expected digits"
    if _SCIENTIFIC.fullmatch(text):
        return f"{reason}: a spreadsheet has cut it to {text}", _TEXT_COLUMN
    likely = _likely_gtin(text)
    return reason, f"probably {likely}" if likely else f"give {_GTIN_LENGTHS}"


def _likely_gtin(text: str) -> str | None:
    """What was probably meant, if it is a valid GTIN and so not a mere guess."""
    if len(text) > 4 * _GTIN_SIZE_MAX:
        return None
    plain = unicodedata.normalize("NFKC", text).translate(_BETWEEN_DIGITS)
    for likely in (plain, plain.removesuffix(".0"), plain.translate(_LIKELY_DIGITS)):
        if is_gtin(likely):
            return likely
    return None


def check_digit(digits: str) -> int:
    """The digit that completes a GTIN of which it is the last.

    Source: GS1 General Specifications §7.9: weights 3, 1, 3, … from the right.
    """
    odd = sum(map(int, digits[-1::-2]))
    even = sum(map(int, digits[-2::-2]))
    return -(3 * odd + even) % 10
