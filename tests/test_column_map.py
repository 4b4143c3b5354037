"""Which column becomes what, and GTINs as people mistype them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import ean
from stdnum.exceptions import ValidationError

from node.column_map import (
    FILE_SIZE_BYTES_MAX,
    ColumnMap,
    ColumnMapError,
    ValueColumn,
    check_columns,
    check_digit,
    column_map_from_columns,
    column_map_from_file,
    column_map_from_options,
    gtin_problem,
)
from node.sheet import open_sheet

PRODUCTS = Path(__file__).parent.parent / "examples" / "products-cc0.csv"

# --- options -----------------------------------------------------------------------------------


def test_options_give_indexes_in_their_order_unless_they_say_otherwise() -> None:
    mapped = column_map_from_options("gtin", ["NAME=name", "20:BRAND= 品牌 ", "URL=a=b"])
    assert mapped == ColumnMap(
        "gtin",
        (
            ValueColumn(1, "NAME", "name", 86_400),
            ValueColumn(20, "BRAND", "品牌", 86_400),
            ValueColumn(3, "URL", "a=b", 86_400),
        ),
        "gtin",
    )


def test_a_type_may_contain_a_colon() -> None:
    assert column_map_from_options("id", ["x:URL=a", "7:8:b=c"]).values == (
        ValueColumn(1, "x:URL", "a"),
        ValueColumn(7, "8:b", "c"),
    )


@pytest.mark.parametrize("suffix", ["gtin", "GTIN14", " Ean13", "upc", "商品条码", "条形码"])
def test_columns_with_the_name_of_a_barcode_are_checked(suffix: str) -> None:
    assert column_map_from_options(suffix, ["A=a"]).check == "gtin"
    assert column_map_from_options(suffix, ["A=a"], "none").check == "none"


def test_other_columns_are_checked_only_when_asked_for() -> None:
    assert column_map_from_options("serial", ["A=a"]).check == "none"
    assert column_map_from_options("serial", ["A=a"], "gtin").check == "gtin"


@pytest.mark.parametrize(
    ("suffix", "values", "check", "message"),
    [
        ("gtin", ["name"], "auto", "value 'name': expected TYPE=COLUMN or INDEX:TYPE=COLUMN"),
        ("gtin", ["=name"], "auto", "expected TYPE=COLUMN"),
        ("gtin", ["NAME="], "auto", "expected TYPE=COLUMN"),
        ("gtin", ["NAME= "], "auto", "no column is named"),
        ("gtin", [" =name"], "auto", "type is '', expected 1 to 128"),
        ("gtin", ["N\tM=name"], "auto", "printable"),
        ("gtin", ["名" * 129 + "=name"], "auto", "1 to 128 printable characters"),
        ("gtin", ["0:A=a"], "auto", "index is 0, expected 1 to 2147483647"),
        ("gtin", ["2147483648:A=a"], "auto", "index is 2147483648"),
        ("gtin", ["A=a", "1:B=b"], "auto", r"index 1 is used 2 times \(A, B\)"),
        ("gtin", [], "auto", "0 value columns, expected 1 to 1000"),
        ("gtin", ["A=a"] * 1001, "auto", "1001 value columns"),
        (" ", ["A=a"], "auto", "suffix: no column is named"),
        ("gtin", ["A=a"], "ean", "check is 'ean', expected gtin, none or auto"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    suffix: str, values: list[str], check: str, message: str
) -> None:
    with pytest.raises(ColumnMapError, match=message):
        column_map_from_options(suffix, values, check)


# --- file --------------------------------------------------------------------------------------

Save = Callable[[str], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(text: str) -> Path:
        path = tmp_path / "map.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return saved


def test_a_file_says_everything_that_options_say_and_the_ttl(save: Save) -> None:
    path = save(
        "\ufeffsuffix = '商品条码'\ncheck = 'none'\n"
        "[[value]]\ntype = 'NAME'\ncolumn = '名称'\n"
        "[[value]]\ntype = 'URL'\ncolumn = 'page'\nindex = 10\nttl_s = 60\n"
    )
    assert column_map_from_file(path) == ColumnMap(
        "商品条码", (ValueColumn(1, "NAME", "名称"), ValueColumn(10, "URL", "page", 60)), "none"
    )


def test_a_file_without_a_check_decides_by_the_name_of_the_column(save: Save) -> None:
    value = "[[value]]\ntype = 'A'\ncolumn = 'a'\n"
    assert column_map_from_file(save("suffix = 'ean'\n" + value)).check == "gtin"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suffix = 'a'\nvalues = 1", r"unknown 'values' \(did you mean 'value'\?\); allowed are"),
        ("suffix = 'a'\n[[value]]\ntipe = 'A'", r"\[\[value\]\] 1: unknown 'tipe'.*type, column"),
        ("suffix = 'a'\n[[value]]\ntype = 'A'", "1: column is missing or not text"),
        ("suffix = 1\n[[value]]\ntype='A'\ncolumn='a'", "suffix is missing or not text"),
        ("[[value]]\ntype='A'\ncolumn='a'", "suffix is missing"),
        ("suffix = 'a'\n[[value]]\ntype='A'\ncolumn='a'\nindex=true", "index is True, expected"),
        ("suffix = 'a'\n[[value]]\ntype='A'\ncolumn='a'\nttl_s=-1", "ttl_s is -1, expected 0"),
        ("suffix = 'a'\ncheck = 3\n[[value]]\ntype='A'\ncolumn='a'", "check is missing or not"),
        ("suffix = 'a'\nvalue = 'x'", "expected tables"),
        ("suffix = 'a'", "0 value columns"),
        ("suffix = 'a'\nx y", r"not TOML in UTF-8: .*line 2"),
        ("x = " + "[" * 5000, "not TOML in UTF-8"),
        ("#" * (FILE_SIZE_BYTES_MAX + 1), "is larger than"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(
    save: Save, text: str, message: str
) -> None:
    with pytest.raises(ColumnMapError, match=r"map\.toml: .*" + message):
        column_map_from_file(save(text))


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ColumnMapError, match="cannot be opened: No such file"):
        column_map_from_file(tmp_path / "map.toml")
    (tmp_path / "map.toml").write_bytes(b"suffix = '\xff'")
    with pytest.raises(ColumnMapError, match="not TOML in UTF-8"):
        column_map_from_file(tmp_path / "map.toml")


# --- columns -----------------------------------------------------------------------------------


def test_without_a_mapping_every_named_column_is_a_value() -> None:
    mapped = column_map_from_columns(["brand", "gtin", "", "名称", "size:cm"], "gtin")
    assert mapped.values == (
        ValueColumn(1, "BRAND", "brand"),
        ValueColumn(2, "名称", "名称"),
        ValueColumn(3, "SIZE:CM", "size:cm"),
    )
    assert mapped.wanted == ("gtin", "brand", "名称", "size:cm")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["gtin"], "0 value columns"),
        (["gtin", "two\nlines"], r"column 'two\\nlines' cannot name its own type"),
        (["gtin", "a=b"], "cannot name its own type"),
        (["gtin", "x" * 129], "cannot name its own type"),
        (["Gtin", "name"], r"no column 'gtin' \(did you mean 'Gtin'\?\)"),
    ],
)
def test_columns_that_cannot_be_values_are_refused(columns: list[str], message: str) -> None:
    with pytest.raises(ColumnMapError, match=message):
        column_map_from_columns(columns, "gtin")


def test_columns_that_the_file_does_not_have_are_named_with_what_it_has() -> None:
    mapped = column_map_from_options("GTIN", ["N=nmae", "B=brand", "Z=zzz"])
    with pytest.raises(ColumnMapError) as caught:
        check_columns(mapped, ["gtin", "", "name", "brand"])
    assert str(caught.value) == (
        "no column 'GTIN' (did you mean 'gtin'?), 'nmae' (did you mean 'name'?), 'zzz'; "
        "the file has 'gtin', 'name', 'brand'"
    )
    check_columns(mapped, ["zzz", "brand", "nmae", "GTIN"])


def test_a_very_wide_file_is_not_listed_whole() -> None:
    with pytest.raises(ColumnMapError, match="'c29' and 470 more"):
        check_columns(column_map_from_options("x", ["A=c0"]), [f"c{n}" for n in range(500)])


# --- GTIN --------------------------------------------------------------------------------------


def is_valid(text: str) -> bool:
    """What another implementation says; it would strip separators, which we do not allow."""
    try:
        return ean.validate(text) == text
    except ValidationError:
        return False


digits = st.text("0123456789", min_size=1, max_size=16)
with_check_digit = st.text("0123456789", min_size=7, max_size=13).map(
    lambda text: text + ean.calc_check_digit(text)
)
any_text = st.text("0123456789oOl -.０³٣", max_size=15) | st.text(max_size=15)


@given(digits | with_check_digit | any_text)
def test_gtins_are_judged_as_by_another_implementation(text: str) -> None:
    assert (gtin_problem(text) is None) == is_valid(text)


@given(st.text("0123456789", min_size=7, max_size=13))
def test_the_check_digit_is_the_one_of_another_implementation(text: str) -> None:
    assert str(check_digit(text)) == ean.calc_check_digit(text)


@given(
    st.sampled_from([7, 11, 12, 13]).flatmap(
        lambda n: st.text("0123456789", min_size=n, max_size=n)
    )
)
def test_a_wrong_check_digit_is_reported_with_the_right_number(text: str) -> None:
    right = check_digit(text)
    problem = gtin_problem(text + str((right + 3) % 10))
    assert problem is not None
    reason, suggestion = problem
    assert reason == f"check digit is {(right + 3) % 10}, expected {right}"
    assert suggestion == f"{text}{right} if the other digits are right"


# Digits as a Chinese input method types them.
FULL_WIDTH = "6901234567892".translate({digit: digit + 0xFEE0 for digit in range(0x30, 0x3A)})


@pytest.mark.parametrize(
    ("text", "reason", "suggestion"),
    [
        ("", "GTIN is empty", "fill it in"),
        ("00o27000382493", "character 'o' at position 3", "probably 00027000382493"),
        ("000270oo382493", "character 'o' at position 7", "probably 00027000382493"),
        ("000270o0382494", "character 'o' at position 7", "give 8, 12, 13 or 14 digits"),
        ("69O1234567892", "character 'O' at position 3", "probably 6901234567892"),
        ("690l234567892", "character 'l' at position 4", "probably 6901234567892"),
        ("690l234567893", "character 'l' at position 4", "give 8"),
        ("6901234567892 ", "character U+0020 at position 14", "probably 6901234567892"),
        ("'6901234567892", 'character "\'" at position 1', "probably 6901234567892"),
        ("690-1234-56789-2", "character '-' at position 4", "probably 6901234567892"),
        (FULL_WIDTH, "character '\uff16' at position 1", "probably 6901234567892"),
        ("6901234567892.0", "character '.' at position 14", "probably 6901234567892"),
        ("6.90123E+12", "a spreadsheet has cut it to 6.90123E+12", "format the column as text"),
        ("x" * 10_000, "character 'x' at position 1", "give 8"),
        ("959742", "GTIN has 6 digits", "00959742 if zeros at the front were lost"),
        ("41250500735", "GTIN has 11 digits", "041250500735 if zeros"),
        ("41250500734", "GTIN has 11 digits", "compare it with the package"),
        ("0" * 15, "GTIN has 15 digits, expected 8, 12, 13 or 14 digits", "compare it"),
    ],
)
def test_a_mistyped_gtin_is_explained(text: str, reason: str, suggestion: str) -> None:
    problem = gtin_problem(text)
    assert problem is not None
    assert reason in problem[0]
    assert problem[1].startswith(suggestion)


def test_the_products_have_one_bad_gtin_which_is_explained() -> None:
    with open_sheet(PRODUCTS, wanted=["gtin"]) as sheet:
        problems = [
            (row_number, *problem)
            for chunk in sheet.chunks()
            for row_number, row in zip(chunk.row_numbers, chunk.rows, strict=True)
            if (problem := gtin_problem(row[0])) is not None
        ]
    assert problems == [
        (
            506,
            "GTIN has the character 'o' at position 3, expected digits",
            "probably 00027000382493",
        )
    ]
