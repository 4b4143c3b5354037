"""Policy files."""

from datetime import date
from pathlib import Path

import pytest

from metrics.day import number_of
from metrics.dimension import LEVELS
from metrics.place import Home
from metrics.policy import (
    FILE_SIZE_BYTES_MAX,
    INTEGRATION_READINGS,
    RESOLUTION_READINGS,
    CalendarYear,
    DevicesMeasure,
    EnterprisesMeasure,
    EventsMeasure,
    FromTo,
    IntegrationMeasure,
    KindsMeasure,
    Policy,
    PolicyError,
    Span,
    Trailing,
    Words,
    bundled_policies,
    load_policy,
)

GUANGXI_FILE = Path(__file__).parents[1] / "metrics" / "policies" / "guangxi-2020-9.toml"
CLAUSE_2 = (
    "鼓励标识解析节点服务能力向区外、周边国家（地区）延伸拓展，对完成2个及以上区外或1个以上其他国家（地区）"
    "标识解析应用接入的节点，日均解析量超过10万次的企业，一次性奖励50万元。"
)
NAME = Words("窗", "window")


@pytest.fixture(name="guangxi", scope="module")
def _guangxi() -> Policy:
    return load_policy(GUANGXI_FILE)


def _changed(tmp_path: Path, old: str, new: str) -> Path:
    text = GUANGXI_FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "changed.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_bundled_policy_is_the_published_one(guangxi: Policy) -> None:
    assert bundled_policies() == (guangxi,)
    assert guangxi.id == GUANGXI_FILE.stem
    assert guangxi.document_number == "桂工信规范\u30142020\u30159号"
    assert (guangxi.valid_from, guangxi.valid_to) == (date(2020, 6, 23), date(2022, 12, 31))
    assert guangxi.home == Home("45", "guangxi")


def test_measure_2_has_the_numbers_of_its_clause(guangxi: Policy) -> None:
    measure = next(found for found in guangxi.measures if found.id == "2")

    assert isinstance(measure, IntegrationMeasure)
    assert measure.quote == CLAUSE_2
    assert measure.daily_average_more_than == 100_000
    assert measure.other_provinces_at_least == 2
    assert measure.other_countries_at_least == 1
    assert measure.other_provinces == ("other_province",)
    assert measure.other_countries == ("hk_mo_tw", "foreign")


def test_the_other_measures_have_the_numbers_of_their_clauses(guangxi: Policy) -> None:
    by_id = {measure.id: measure for measure in guangxi.measures}
    innovative, integrated = by_id["1"], by_id["12"]

    assert set(by_id) == {"1", "2", "6", "9", "12", "15"}
    assert isinstance(by_id["6"], EnterprisesMeasure)
    assert by_id["6"].steps_at_least == (500, 1000, 3000)
    assert isinstance(by_id["9"], DevicesMeasure)
    assert by_id["9"].per_enterprise_and_year_at_most == 50
    assert isinstance(by_id["15"], EventsMeasure)
    assert isinstance(innovative, KindsMeasure)
    assert isinstance(integrated, KindsMeasure)
    for measure in (innovative, integrated):
        assert all(kind.name.zh in measure.quote for kind in measure.kinds)
    assert len(innovative.kinds) == 5


def test_readings_come_strictest_first(guangxi: Policy) -> None:
    assert tuple(r.id for r in guangxi.resolution_readings) == RESOLUTION_READINGS
    assert tuple(r.id for r in guangxi.integration_readings) == INTEGRATION_READINGS
    assert tuple(level.id for level in guangxi.levels) == LEVELS


def test_a_trailing_window_ends_yesterday() -> None:
    span = Trailing("30d", NAME, 30).span(1_000)

    assert span == Span(970, 999)
    assert span.days == 30


@pytest.mark.parametrize(
    ("today", "year", "days"),
    [
        (date(2022, 8, 5), 2022, 365),
        (date(2020, 12, 31), 2020, 366),
        (date(2022, 1, 1), 2021, 365),  # yesterday belongs to the year before
        (date(2022, 1, 2), 2022, 365),
    ],
)
def test_a_calendar_year_is_the_year_of_yesterday_with_all_its_days(
    today: date, year: int, days: int
) -> None:
    span = CalendarYear("year", NAME).span(number_of(today))

    assert span == Span(number_of(date(year, 1, 1)), number_of(date(year, 12, 31)))
    assert span.days == days


def test_a_calendar_year_can_be_named() -> None:
    span = CalendarYear("2021", NAME, 2021).span(number_of(date(2026, 3, 1)))

    assert span == Span(number_of(date(2021, 1, 1)), number_of(date(2021, 12, 31)))


def test_a_window_from_to_has_both_ends() -> None:
    window = FromTo("august", NAME, date(2022, 8, 1), date(2022, 8, 31))

    assert window.span(0).days == 31


@pytest.mark.parametrize("last", [date(2022, 7, 31), date(2023, 8, 2)])
def test_a_window_without_days_or_longer_than_the_ledger_is_asked_for_is_refused(
    last: date,
) -> None:
    with pytest.raises(PolicyError, match="expected 1 to 366 days"):
        FromTo("wrong", NAME, date(2022, 8, 1), last)


def test_windows_with_dates_and_years_can_be_written_in_the_file(tmp_path: Path) -> None:
    windows = """
[[windows]]
id = "2021"
kind = "calendar_year"
year = 2021
name = { zh = "2021年", en = "2021" }

[[windows]]
id = "summer"
kind = "from_to"
first = 2022-06-01
last = 2022-08-31
name = { zh = "夏", en = "summer" }

[[measures]]"""
    policy = load_policy(_changed(tmp_path, "[[measures]]", windows.lstrip()))

    assert policy.windows[-2:] == (
        CalendarYear("2021", Words("2021年", "2021"), 2021),
        FromTo("summer", Words("夏", "summer"), date(2022, 6, 1), date(2022, 8, 31)),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "guangxi-2020-9"', "", "id: expected a text .*, found nothing"),
        ('id = "guangxi-2020-9"', 'id = "Guangxi 9"', "id: expected 1 to 64 characters"),
        ("valid_to = 2022-12-31", "valid_to = 2020-01-01", "valid_to: expected a day not before"),
        ("valid_to = 2022-12-31", 'valid_to = "2022-12-31"', "valid_to: expected a date"),
        ("valid_to = 2022-12-31", "valid_to = 2022-12-31T00:00:00", "valid_to: expected a date"),
        ('province = "45"', 'province = "99"', r"home\.province: expected a province"),
        ('province = "45"', "province = 45", r"home\.province: expected a text"),
        ('label = "guangxi"', 'label = "foreign"', r"home\.label: expected a label value of its"),
        ("100_000", "-1", r"measures\[1\]\.daily_average_more_than: expected a whole number"),
        ("100_000", "1e5", r"measures\[1\]\.daily_average_more_than: expected a whole number"),
        ("100_000", "true", r"measures\[1\]\.daily_average_more_than: expected a whole number"),
        ("provinces_at_least = 2", "provinces_at_least = 0", "a whole number from 1"),
        ('"hk_mo_tw", "foreign"', '"hk_mo_tw", "mars"', r"other_countries\[1\]: expected one of"),
        ('"hk_mo_tw", "foreign"', '"foreign", "foreign"', r"other_countries\[1\]: .*, once"),
        ('"hk_mo_tw", "foreign"', "", "other_countries: expected 1 to 100 entries"),
        ("[500, 1000, 3000]", "[500, 3000, 1000]", "steps_at_least: expected numbers that grow"),
        ("[500, 1000, 3000]", '["500"]', r"steps_at_least\[0\]: expected a whole number"),
        ("home_only = true", "home_only = 1", "home_only: expected true or false"),
        ("days = 365", "days = 367", r"windows\[2\]\.days: expected a whole number from 1 to 366"),
        ("days = 365", "days = 365\nyear = 2", r"windows\[2\]\.year: unknown key, remove it"),
        ('id = "90d"', 'id = "30d"', r"windows\[1\]\.id: expected an id that no other entry has"),
        ('claim_window = "365d"', 'claim_window = "1d"', "claim_window: expected the id of one of"),
        ('kind = "trailing"', 'kind = "moon"', r"windows\[0\]\.kind: expected one of trailing, c"),
        ('id = "successes"', 'id = "hits"', r"resolution_readings\[1\]\.id: expected one of ext"),
        ('id = "node"', 'id = "moon"', r"levels\[0\]\.id: expected one of node, enterprise"),
        ('name = { zh = "近30天", en = "last 30 days" }', 'name = "x"', r"name: expected a table"),
        ("\nquote = ", "\nquota = ", r"measures\[0\]\.quote: expected a text"),
        ("document_number", "reward = 1\ndocument_number", "reward: unknown key, remove it"),
        ("[[levels]]", "[[levels", "expected TOML in UTF-8"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = _changed(tmp_path, old, new)

    with pytest.raises(PolicyError, match=message) as raised:
        load_policy(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        load_policy(tmp_path / "none.toml")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (FILE_SIZE_BYTES_MAX + 1))

    with pytest.raises(PolicyError, match=f"at most {FILE_SIZE_BYTES_MAX} bytes"):
        load_policy(path)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gbk.toml"
    path.write_bytes('id = "广西"'.encode("gbk"))

    with pytest.raises(PolicyError, match="expected TOML in UTF-8"):
        load_policy(path)
