"""Product files as factories have them: encodings, separators, title rows, damage."""

import csv
import io
import json
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import date, datetime, time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from node.sheet import RowProblem, SheetError, open_sheet
from node.sheet_csv import CELL_SIZE_CHARS_MAX, LINE_SIZE_CHARS_MAX
from node.sheet_jsonl import LINE_SIZE_BYTES_MAX

DATA = Path(__file__).parent / "data" / "sheets"
PRODUCTS = Path(__file__).parent.parent / "examples" / "products-cc0.csv"

Read = tuple[tuple[str, ...], list[tuple[int, list[str]]], list[RowProblem]]

# The file under test is given as bytes; its name decides nothing but the ending.
Save = Callable[[str, bytes], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return saved


def read(
    path: Path,
    *,
    rows_max: int = 3,
    wanted: Collection[str] = (),
    header_row: int | None = None,
    sheet_name: str | None = None,
) -> Read:
    """Columns, numbered rows and problems of a whole file, in small chunks."""
    rows: list[tuple[int, list[str]]] = []
    problems: list[RowProblem] = []
    with open_sheet(path, wanted=wanted, header_row=header_row, sheet_name=sheet_name) as sheet:
        for chunk in sheet.chunks(rows_max):
            assert len(chunk.rows) + len(chunk.problems) <= rows_max
            rows += zip(chunk.row_numbers, chunk.rows, strict=True)
            problems += chunk.problems
        return sheet.columns, rows, problems


def csv_bytes(rows: Sequence[Sequence[str]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


# --- CSV ---------------------------------------------------------------------------------------


def test_real_products_read_exactly_as_the_csv_module_reads_them() -> None:
    with PRODUCTS.open(newline="", encoding="utf-8") as file:
        expected = list(csv.reader(file))
        file.seek(0)
        lines = list(file)
    columns, rows, problems = read(PRODUCTS, rows_max=1000)
    assert columns == ("gtin", "brand", "name", "size")
    assert [row for _, row in rows] == expected[1:]
    assert len(rows) == 6561
    assert problems == []
    assert all(lines[number - 1].startswith(row[0]) for number, row in rows)
    assert rows[-1][0] > 6562  # some cells have line breaks


def test_progress_goes_from_nothing_to_the_size_of_the_file() -> None:
    with open_sheet(PRODUCTS) as sheet:
        positions = [sheet.position() for _ in sheet.chunks(500)]
        assert sheet.size_unit == "bytes"
        assert sheet.size_hint == PRODUCTS.stat().st_size
    assert positions == sorted(positions)
    assert positions[0] < positions[-1] == sheet.size_hint


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
tricky = st.text(st.sampled_from('",;\t\r\n ，a商'), max_size=6)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.lists(cells | tricky, min_size=3, max_size=3), max_size=12),
    rows_max=st.integers(1, 6),
    delimiter=st.sampled_from(",;\t，"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_csv_writer_writes_is_read_back_with_its_line_numbers(
    rows: list[list[str]], rows_max: int, delimiter: str, encoding: str
) -> None:
    text = csv_bytes([["gtin", "名称", "brand"], *rows], delimiter).decode()
    numbered: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    next(reader)
    begins = reader.line_num + 1
    for row in reader:
        numbered.append((begins, row))
        begins = reader.line_num + 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "products.csv")
        path.write_bytes(text.encode(encoding))
        columns, found, problems = read(path, rows_max=rows_max)
    assert columns == ("gtin", "名称", "brand")
    assert found == [(number, row) for number, row in numbered if any(row)]
    assert [row for _, row in found] == [row for row in rows if any(row)]
    assert problems == []


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("gbk", "gb18030"),
        ("gb18030", "gb18030"),
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
    ],
)
def test_chinese_text_is_read_in_the_encodings_that_spreadsheets_export(
    save: Save, encoding: str, expected: str
) -> None:
    text = "商品条码,名称　,品牌\r\n06901234567892,青岛啤酒 500毫升,青岛\r\n"
    path = save("产品.csv", text.encode(encoding))
    with open_sheet(path) as sheet:
        assert sheet.encoding == expected
    columns, rows, _ = read(path)
    assert columns == ("商品条码", "名称", "品牌")
    assert rows == [(2, ["06901234567892", "青岛啤酒 500毫升", "青岛"])]


def test_a_stored_gbk_export_of_a_spreadsheet_is_read() -> None:
    columns, rows, problems = read(DATA / "products-gbk.csv", wanted=["商品条码"])
    assert columns == ("商品条码", "名称", "品牌", "规格")
    assert [number for number, _ in rows] == [3, 4, 5, 8]
    assert rows[1][1] == ["06922266437342", '纸巾"超韧"', "清风", ""]
    assert rows[2][1][1] == "洗衣液\r\n(薰衣草香)"
    assert problems == []


def test_utf16_without_a_mark_is_refused_as_not_text(save: Save) -> None:
    path = save("p.csv", "gtin,name\r\n1,a\r\n".encode("utf-16-le"))
    with pytest.raises(SheetError, match="NUL character"):
        open_sheet(path)


def test_junk_bytes_are_refused_with_both_places(save: Save) -> None:
    path = save("p.csv", b"gtin,name\n1,\xc4\xe3\n2,\xff\xff\n")
    with pytest.raises(SheetError, match=r"UTF-8 \(byte 12\) nor GB18030/GBK \(byte 17\)"):
        open_sheet(path)


@pytest.mark.parametrize("padding", [0, 1_048_576 - 40, 3_000_000])
def test_a_damaged_byte_in_utf8_text_is_not_taken_for_gb18030(save: Save, padding: int) -> None:
    start = ("gtin,名称\n" + "1,青岛啤酒股份有限公司\n").encode()
    start += b"2,x\n" * (padding // 4)
    path = save("p.csv", start + b"3,\xe5\xe5\xe5\xe5\n")
    with pytest.raises(SheetError, match=f"damaged at byte {len(start) + 2}: not UTF-8"):
        open_sheet(path)


def test_a_character_cut_off_at_the_end_is_reported(save: Save) -> None:
    content = "gtin,名称\n1,青岛啤酒股份有限公司".encode()[:-1]
    with pytest.raises(SheetError, match=f"byte {len(content) - 2}"):
        open_sheet(save("p.csv", content))


@pytest.mark.parametrize("content", [b"", b"\n\r\n  \n", b"\xef\xbb\xbf"])
def test_a_file_without_a_header_is_refused(save: Save, content: bytes) -> None:
    with pytest.raises(SheetError, match="expected a header"):
        open_sheet(save("p.csv", content))


@pytest.mark.parametrize("content", [b"gtin,name", b"gtin,name\r\n", b"\n\ngtin,name\n\n"])
def test_a_header_alone_has_columns_and_no_rows(save: Save, content: bytes) -> None:
    assert read(save("p.csv", content)) == (("gtin", "name"), [], [])


def test_empty_rows_are_left_out_and_line_numbers_stay(save: Save) -> None:
    path = save("p.csv", b"gtin,name\n\n1,a\n,\n\n,\n2,b\n\n")
    assert read(path, rows_max=2)[1] == [(3, ["1", "a"]), (7, ["2", "b"])]


def test_cells_keep_their_spaces_and_names_do_not(save: Save) -> None:
    path = save("p.csv", "　gtin , name\n 1 ,　a \n".encode())
    assert read(path) == (("gtin", "name"), [(2, [" 1 ", "　a "])], [])


def test_a_short_row_is_filled_up(save: Save) -> None:
    assert read(save("p.csv", b"a,b,c\n1\n2,x\n"))[1] == [(2, ["1", "", ""]), (3, ["2", "x", ""])]


def test_a_long_row_is_a_problem_unless_the_rest_is_empty(save: Save) -> None:
    _, rows, problems = read(save("p.csv", b"a,b\n1,x,,\n2,12 oz, 24 loads\n3,y\n"))
    assert rows == [(2, ["1", "x"]), (4, ["3", "y"])]
    assert [(p.row_number, p.field, p.reason) for p in problems] == [
        (3, None, "row has 3 cells, the header has 2")
    ]


@pytest.mark.parametrize("end", ["", "\n", "\r\n4,d\r\n", '\n4,""d'])
def test_a_quote_that_never_closes_is_a_problem(save: Save, end: str) -> None:
    path = save("p.csv", ('a,b\n1,x\n2,"y\n3,z' + end).encode())
    for rows_max in (1, 2, 10):
        _, rows, problems = read(path, rows_max=rows_max)
        assert rows == [(2, ["1", "x"])]
        assert [(p.row_number, p.field) for p in problems] == [(3, "b")]
        assert "never closes" in problems[0].reason


def test_an_enormous_cell_stops_reading_after_the_rows_before_it(save: Save) -> None:
    path = save("p.csv", b'a,b\n1,x\n2,"' + b"long line\n" * (CELL_SIZE_CHARS_MAX // 8))
    with open_sheet(path) as sheet:
        chunks = sheet.chunks()
        assert next(chunks).rows == [["1", "x"]]
        with pytest.raises(SheetError, match=r"line \d+: field larger than"):
            next(chunks)


def test_a_file_without_line_ends_is_refused(save: Save) -> None:
    path = save("p.csv", b"a,b\n" + b"x" * (3 * LINE_SIZE_CHARS_MAX))
    with pytest.raises(SheetError, match="one product a line"):
        open_sheet(path)


def test_duplicate_names_are_refused_unless_nobody_wants_them(save: Save) -> None:
    path = save("p.csv", b"gtin,note,name,note\n1,a,b,c\n")
    with pytest.raises(SheetError, match="columns 2, 4 all 'note'"):
        open_sheet(path)
    with pytest.raises(SheetError, match="'note'"):
        open_sheet(path, wanted=["gtin", "note"])
    assert read(path, wanted=["gtin"])[1] == [(2, ["1", "a", "b", "c"])]


def test_a_column_without_a_name_keeps_its_place(save: Save) -> None:
    path = save("p.csv", b"gtin,,name,\n1,x,a,y\n")
    assert read(path) == (("gtin", "", "name", ""), [(2, ["1", "x", "a", "y"])], [])


def test_the_header_is_found_below_title_rows_by_the_wanted_names(save: Save) -> None:
    path = save("p.csv", b"Products of 2024\n\n;exported;by ERP\ngtin;name, full;size\n1;a, b;2\n")
    columns, rows, _ = read(path, wanted=["gtin", "size"])
    assert columns == ("gtin", "name, full", "size")
    assert rows == [(5, ["1", "a, b", "2"])]


def test_the_header_row_that_is_asked_for_is_taken(save: Save) -> None:
    path = save("p.csv", b'x,"line\nbreak"\n\nold,names\ngtin,name\n1,a\n')
    assert read(path, header_row=5) == (("gtin", "name"), [(6, ["1", "a"])], [])
    with pytest.raises(SheetError, match="no row begins at row 2"):
        open_sheet(path, header_row=2)
    with pytest.raises(SheetError, match="row 3 is empty"):
        open_sheet(path, header_row=3)
    with pytest.raises(SheetError, match="from 1 to 1000"):
        open_sheet(path, header_row=0)


def test_a_header_far_down_is_taken_when_asked_for(save: Save) -> None:
    path = save("p.csv", b"about,us\n" * 700 + b"gtin,name\n1,a\n")
    assert read(path, header_row=701)[1] == [(702, ["1", "a"])]


def test_a_single_column_needs_no_separator(save: Save) -> None:
    assert read(save("p.txt", b"gtin\n1\n\n2\n")) == (("gtin",), [(2, ["1"]), (4, ["2"])], [])


# --- XLSX --------------------------------------------------------------------------------------


def xlsx(path: Path, fill: Callable[[Worksheet], None]) -> Path:
    workbook = Workbook()
    sheet = workbook.active
    assert isinstance(sheet, Worksheet)
    fill(sheet)
    workbook.save(path)
    workbook.close()
    return path


def rows_of(*rows: Sequence[object]) -> Callable[[Worksheet], None]:
    def fill(sheet: Worksheet) -> None:
        for row in rows:
            sheet.append(list(row))

    return fill


def test_a_factory_workbook_with_titles_and_numbers_is_read(tmp_path: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet["A1"] = "产品清单"
        sheet.merge_cells("A1:F1")
        sheet["A2"] = datetime.fromisoformat("2024-05-01")
        sheet.append(["商品条码　", "名称", "品牌", "重量", "生产日期", "有效"])
        sheet.append(
            [6901234567892.0, " 啤酒 ", None, 4.5, datetime.fromisoformat("2024-05-01"), True]
        )
        sheet.append([1.23e13, "#N/A", "b", 10, datetime.fromisoformat("2024-05-01T12:30"), False])
        sheet.append([])
        sheet.append([59742, "c", "d", -3.0, date(2024, 5, 2), time(8, 15)])
        sheet["A7"].number_format = "00000000000000"

    columns, rows, problems = read(xlsx(tmp_path / "p.xlsx", fill), rows_max=2)
    assert columns == ("商品条码", "名称", "品牌", "重量", "生产日期", "有效")
    assert rows == [
        (4, ["6901234567892", " 啤酒 ", "", "4.5", "2024-05-01", "TRUE"]),
        (5, ["12300000000000", "#N/A", "b", "10", "2024-05-01T12:30:00", "FALSE"]),
        (7, ["00000000059742", "c", "d", "-3", "2024-05-02", "08:15:00"]),
    ]
    assert problems == []


def test_wanted_names_find_the_header_below_a_row_that_looks_like_one(tmp_path: Path) -> None:
    path = xlsx(
        tmp_path / "p.xlsx", rows_of(["made by", "Li", "on", "Monday"], ["gtin", "name"], ["1", 2])
    )
    assert read(path)[0] == ("made by", "Li", "on", "Monday")
    assert read(path, wanted=["name", "gtin"]) == (("gtin", "name"), [(3, ["1", "2"])], [])
    assert read(path, header_row=2)[0] == ("gtin", "name")


excel_text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="_\ufffe\uffff"), max_size=9
)
numbers = st.integers(-(10**15) + 1, 10**15 - 1)


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.tuples(numbers, excel_text, numbers), max_size=8))
def test_what_openpyxl_writes_is_read_back(rows: list[tuple[int, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p.xlsx")
        # A text that begins with = would be a formula.
        texts = [(number, text.lstrip("="), float(other)) for number, text, other in rows]
        xlsx(path, rows_of(["gtin", "name", "size"], *texts))
        _, found, problems = read(path, rows_max=4)
    assert [row for _, row in found] == [[str(n), t, str(int(o))] for n, t, o in texts]
    assert [number for number, _ in found] == list(range(2, 2 + len(rows)))
    assert problems == []


def test_a_number_whose_digits_excel_has_dropped_is_a_problem(tmp_path: Path) -> None:
    path = xlsx(
        tmp_path / "p.xlsx",
        rows_of(
            ["sscc", "name", "note"],
            [123456789012345000, "a", ""],
            [7, "b", 1e20],
            [1.2345678901234499e17, "c", ""],
        ),
    )
    # As programs other than Excel write it; openpyxl writes 16 digits.
    exact = b"<v>123456789012345678</v>"
    path = edited(path, SHEET_PART, lambda xml: xml.replace(b"<v>7</v>", exact))
    _, rows, problems = read(path, wanted=["sscc", "name"])
    assert rows == [(3, ["123456789012345678", "b", ""])]
    assert [(p.row_number, p.field) for p in problems] == [(2, "sscc"), (4, "sscc")]
    assert len(read(path)[2]) == 3


def test_the_first_visible_sheet_is_read_and_others_by_name(tmp_path: Path) -> None:
    workbook = Workbook()
    for title, state in (("hidden", "hidden"), ("产品", "visible"), ("old", "visible")):
        sheet = workbook.create_sheet(title)
        sheet.append(["gtin", "name"])
        sheet.append([title, "x"])
        sheet.sheet_state = state
    workbook.remove(workbook.worksheets[0])
    path = tmp_path / "p.xlsx"
    workbook.save(path)
    assert read(path)[1] == [(2, ["产品", "x"])]
    assert read(path, sheet_name="hidden")[1] == [(2, ["hidden", "x"])]
    with pytest.raises(
        SheetError, match="no sheet 'new'; the workbook has 'hidden', '产品', 'old'"
    ):
        open_sheet(path, sheet_name="new")


def edited(path: Path, part: str, edit: Callable[[bytes], bytes]) -> Path:
    """A copy of a workbook in which one part is changed."""
    copy = path.with_name("edited.xlsx")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            new.writestr(name, edit(old.read(name)) if name == part else old.read(name))
    return copy


SHEET_PART = "xl/worksheets/sheet1.xml"


def test_a_wrong_dimension_hides_no_cells(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "p.xlsx", rows_of(["gtin", "name"], ["1", "a"], ["2", "b"]))
    path = edited(path, SHEET_PART, lambda xml: xml.replace(b'ref="A1:B3"', b'ref="A1"'))
    with open_sheet(path) as sheet:
        assert (sheet.size_hint, sheet.size_unit) == (1, "rows")
    assert read(path)[1] == [(2, ["1", "a"]), (3, ["2", "b"])]


def test_rows_before_the_damage_in_a_workbook_are_read(tmp_path: Path) -> None:
    rows = [[str(number), "x" * 50] for number in range(3000)]
    path = xlsx(tmp_path / "p.xlsx", rows_of(["gtin", "name"], *rows))
    path = edited(path, SHEET_PART, lambda xml: xml[: len(xml) * 3 // 4])
    found: list[list[str]] = []
    with open_sheet(path) as sheet:
        chunks = (chunk.rows for chunk in sheet.chunks())
        with pytest.raises(SheetError, match=r"after row 2\d+ cannot be read: no element found"):
            deque(map(found.extend, chunks))
    assert len(found) > 2000
    assert found == rows[: len(found)]


def test_a_line_break_that_excel_escaped_is_a_line_break(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "p.xlsx", rows_of(["gtin", "name"], ["1", "a_x000D_\nb_x0041_"]))
    assert read(path)[1] == [(2, ["1", "a\r\nb_x0041_"])]


def test_xml_entities_in_a_workbook_are_refused(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "p.xlsx", rows_of(["gtin", "name"], ["1", "a"]))
    bomb = b'<!DOCTYPE x [<!ENTITY a "lol">]>'
    path = edited(path, SHEET_PART, lambda xml: bomb + xml)
    with pytest.raises(SheetError, match=r"cannot be read: Entities?Forbidden"):
        read(path)


def test_a_zip_bomb_is_refused_by_its_table_of_contents(tmp_path: Path) -> None:
    path = tmp_path / "p.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(SHEET_PART, b"x")
        archive.infolist()[0].file_size = 3 * 1024**3
    with pytest.raises(SheetError, match="unpacks to 3221225472 bytes in 1 parts"):
        open_sheet(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"gtin,name\n1,a\n"])
def test_what_is_no_workbook_is_refused(save: Save, content: bytes) -> None:
    with pytest.raises(SheetError, match=r"p\.xlsx: "):
        open_sheet(save("p.xlsx", content))


def test_a_zip_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a.txt", b"x")
    with pytest.raises(SheetError, match=r"save it as \.xlsx"):
        open_sheet(tmp_path / "p.zip")


def test_an_empty_sheet_and_a_header_alone(tmp_path: Path) -> None:
    with pytest.raises(SheetError, match="sheet 'Sheet' has no column names"):
        open_sheet(xlsx(tmp_path / "empty.xlsx", rows_of()))
    path = xlsx(tmp_path / "header.xlsx", rows_of(["gtin", "name"]))
    assert read(path) == (("gtin", "name"), [], [])


# --- JSON lines --------------------------------------------------------------------------------


def test_json_lines_give_the_text_that_is_written_there(save: Save) -> None:
    path = save(
        "p.jsonl",
        b'\xef\xbb\xbf{"gtin": "1", "name": "\\u5546 ", "size": 4.50}\n'
        b"\n"
        b'{"name": null, "gtin": 6901234567892, "size": 123456789012345678901234}\r\n'
        b'{"gtin": "3", "new": true, "size": 1e3}',
    )
    assert read(path) == (
        ("gtin", "name", "size", "new"),
        [
            (1, ["1", "商 ", "4.50", ""]),
            (3, ["6901234567892", "", "123456789012345678901234", ""]),
            (4, ["3", "", "1e3", "true"]),
        ],
        [],
    )


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"gtin": cells, "n": st.integers() | st.floats(allow_nan=False)}),
        min_size=1,
        max_size=6,
    )
)
def test_json_numbers_lose_nothing(rows: list[dict[str, object]]) -> None:
    rows = [row for row in rows if row["n"] not in (float("inf"), float("-inf"))] or [{"n": 1}]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p.ndjson")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        columns, found, problems = read(path)
    place = columns.index("n")
    assert [row[place] for _, row in found] == [json.dumps(row["n"]) for row in rows]
    assert problems == []


def test_a_line_that_is_no_object_is_a_problem_of_its_own(save: Save) -> None:
    long = b'{"gtin": "' + b"5" * (2 * LINE_SIZE_BYTES_MAX) + b'"}\n'
    path = save(
        "p.jsonl",
        b'{"gtin": "1"}\n[1]\n{"gtin": \n{"gtin": "\xff"}\n' + long + b'{"gtin": "6"}\n',
    )
    _, rows, problems = read(path)
    assert rows == [(1, ["1"]), (6, ["6"])]
    assert [(p.row_number, p.field) for p in problems] == [(n, None) for n in (2, 3, 4, 5)]
    assert "not a JSON object" in problems[0].reason
    assert "not JSON" in problems[1].reason
    assert "more than" in problems[3].reason


def test_a_nested_value_is_a_problem_only_where_it_is_wanted(save: Save) -> None:
    path = save("p.jsonl", b'{"gtin": "1", "stock": {"a": 1}}\n{"gtin": ["2"], "stock": null}\n')
    _, rows, problems = read(path, wanted=["gtin"])
    assert rows == [(1, ["1", ""])]
    assert [(p.row_number, p.field) for p in problems] == [(2, "gtin")]
    assert [p.row_number for p in read(path)[2]] == [1, 2]


def test_a_deeply_nested_value_is_a_problem_and_no_crash(save: Save) -> None:
    deep = b"[" * 1000 + b"]" * 1000
    path = save("p.jsonl", b'{"a": 1.5, "b": ' + deep + b'}\n{"a": 1, "b": 2}\n')
    _, rows, problems = read(path)
    assert rows == [(2, ["1", "2"])]
    assert [p.row_number for p in problems] == [1]


def test_a_json_array_is_refused_with_the_way_out(save: Save) -> None:
    with pytest.raises(SheetError, match="one object a line"):
        open_sheet(save("p.json", b'[{"gtin": "1"}]'))
    with pytest.raises(SheetError, match="no JSON object within the first 0 lines"):
        open_sheet(save("p.jsonl", b""))


# --- any file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.xls", b"gtin\tname\n1\ta\n"),
        ("p.dat", b'{"gtin": "1", "name": "a"}\n'),
        ("p", b"gtin;name\n1;a\n"),
    ],
)
def test_content_decides_where_the_ending_does_not(save: Save, name: str, content: bytes) -> None:
    columns, rows, _ = read(save(name, content))
    assert columns == ("gtin", "name")
    assert [row for _, row in rows] == [["1", "a"]]


def test_a_workbook_is_recognised_under_any_name(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "p.xlsx", rows_of(["gtin", "name"], ["1", "a"]))
    assert read(path.rename(tmp_path / "p.csv"))[1] == [(2, ["1", "a"])]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "old Excel file"),
        ("p.xls", b"<html><table>", "HTML or XML"),
        ("p.csv.gz", b"\x1f\x8b\x08", "unpack it first"),
    ],
)
def test_other_formats_are_refused_with_the_way_out(
    save: Save, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(SheetError, match=message):
        open_sheet(save(name, content))


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SheetError, match="cannot be opened: No such file"):
        open_sheet(tmp_path / "none.csv")
    with pytest.raises(SheetError, match="not a regular file"):
        open_sheet(tmp_path)


def test_options_that_a_format_does_not_have_are_refused(save: Save) -> None:
    with pytest.raises(SheetError, match=r"not an \.xlsx workbook"):
        open_sheet(save("p.csv", b"a,b\n"), sheet_name="one")
    with pytest.raises(SheetError, match="no header row"):
        open_sheet(save("p.jsonl", b'{"a": 1}\n'), header_row=1)


@settings(deadline=None, max_examples=150)
@given(
    content=st.binary(max_size=60) | st.binary(max_size=20).map(lambda junk: b"a,b\n1,2\n" + junk),
    ending=st.sampled_from([".csv", ".jsonl", ".xlsx", ""]),
)
def test_junk_is_read_or_refused_and_never_crashes(content: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"p{ending}")
        path.write_bytes(content)
        outcome = read_or_message(path)
    if isinstance(outcome, str):
        assert outcome.startswith(str(path))
        assert "\n" not in outcome
    else:
        columns, rows, _ = outcome
        assert all(len(row) == len(columns) for _, row in rows)


def read_or_message(path: Path) -> Read | str:
    try:
        return read(path)
    except SheetError as error:
        return str(error)
