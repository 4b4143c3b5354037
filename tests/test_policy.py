"""Policy files."""

from datetime import date
from pathlib import Path

import pytest

from metrics.day import number_of
from metrics.dimension import LEVELS
from metrics.place import Home
from metrics.policy import (
    ENTERPRISE_NODE_READINGS,
    INTEGRATION_READINGS,
    REGISTRATION_READINGS,
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
    ThresholdsMeasure,
    Trailing,
    Words,
)
from metrics.policy_file import (
    FILE_SIZE_BYTES_MAX,
    POLICIES_MAX,
    bundled_policies,
    load_policies,
    load_policy,
    policies_beside_bundled,
)

POLICIES = Path(__file__).parents[1] / "metrics" / "policies"
GUANGXI_FILE = POLICIES / "guangxi-2020-9.toml"
SHANDONG_FILE = POLICIES / "shandong-2024.toml"
CLAUSE_2 = (
    "鼓励标识解析节点服务能力向区外、周边国家（地区）延伸拓展，对完成2个及以上区外或1个以上其他国家（地区）"
    "标识解析应用接入的节点，日均解析量超过10万次的企业，一次性奖励50万元。"
)
NAME = Words("窗", "window")


@pytest.fixture(name="guangxi", scope="module")
def _guangxi() -> Policy:
    return load_policy(GUANGXI_FILE)


@pytest.fixture(name="shandong", scope="module")
def _shandong() -> Policy:
    return load_policy(SHANDONG_FILE)


def _changed(tmp_path: Path, old: str, new: str, file: Path = GUANGXI_FILE) -> Path:
    text = file.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "changed.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_bundled_policies_go_by_the_names_of_their_files(
    guangxi: Policy, shandong: Policy
) -> None:
    assert bundled_policies() == (guangxi, shandong)


def test_the_policy_of_guangxi_is_the_published_one(guangxi: Policy) -> None:
    assert not guangxi.is_excerpt
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
        assert all(kind.name.zh in (measure.quote or "") for kind in measure.kinds)
    assert len(innovative.kinds) == 5


def test_readings_come_strictest_first(guangxi: Policy) -> None:
    assert tuple(r.id for r in guangxi.resolution_readings) == RESOLUTION_READINGS
    assert tuple(r.id for r in guangxi.integration_readings) == INTEGRATION_READINGS
    assert tuple(level.id for level in guangxi.levels) == LEVELS


def test_the_policy_of_shandong_says_what_is_known_and_what_is_not(shandong: Policy) -> None:
    assert shandong.id == SHANDONG_FILE.stem
    assert shandong.home == Home("37", "shandong")
    assert shandong.is_excerpt
    assert shandong.source
    assert shandong.note is not None
    unknown = (shandong.issuer, shandong.document_number, shandong.validity_quote)
    assert unknown == (None, None, None)
    assert (shandong.valid_from, shandong.valid_to) == (None, None)
    assert [measure.quote for measure in shandong.measures] == [None]


def test_the_conditions_of_shandong_are_six_and_the_unmeasured_are_listed(
    shandong: Policy,
) -> None:
    (measure,) = shandong.measures

    assert isinstance(measure, ThresholdsMeasure)
    assert [
        (one.counted, one.period.id, one.comparison, one.threshold) for one in measure.conditions
    ] == [
        ("registrations", "cumulative", "at_least", 100_000),
        ("registrations", "calendar_year", "at_least", 100_000),
        ("resolutions", "cumulative", "at_least", 100_000),
        ("resolutions", "calendar_year", "at_least", 100_000),
        ("enterprise_nodes", "cumulative", "at_least", 5),
        ("enterprise_nodes", "calendar_year", "at_least", 5),
    ]
    assert "top-node" in {named.id for named in measure.unmeasured}
    assert tuple(r.id for r in shandong.readings("registrations")) == REGISTRATION_READINGS
    assert tuple(r.id for r in shandong.readings("resolutions")) == RESOLUTION_READINGS
    assert tuple(r.id for r in shandong.readings("enterprise_nodes")) == ENTERPRISE_NODE_READINGS


@pytest.mark.parametrize(
    ("validity", "day", "is_in_force"),
    [
        ("", date(2024, 5, 1), None),
        ("valid_from = 2024-05-02", date(2024, 5, 1), False),
        ("valid_from = 2024-05-02", date(2024, 5, 2), None),  # how long, nobody knows
        ("valid_to = 2024-05-02", date(2024, 5, 1), None),
        ("valid_to = 2024-05-02", date(2024, 5, 3), False),
        ("valid_from = 2024-05-02\nvalid_to = 2024-05-02", date(2024, 5, 2), True),
    ],
)
def test_an_excerpt_is_in_force_when_what_is_known_says_so(
    tmp_path: Path, validity: str, day: date, is_in_force: bool | None
) -> None:
    excerpt = 'text_known = "excerpt"'
    path = _changed(tmp_path, excerpt, f"{excerpt}\n{validity}", SHANDONG_FILE)

    assert load_policy(path).is_in_force(number_of(day)) is is_in_force


def test_a_whole_text_may_have_no_number_and_no_last_day(tmp_path: Path, guangxi: Policy) -> None:
    text = GUANGXI_FILE.read_text(encoding="utf-8")
    lacking = ("document_number", "valid_to")
    path = tmp_path / "open.toml"
    lines = [line for line in text.splitlines() if not line.startswith(lacking)]
    path.write_text("\n".join(lines), encoding="utf-8")
    policy = load_policy(path)

    assert (policy.document_number, policy.valid_to) == (None, None)
    assert policy.is_in_force(number_of(date(2026, 1, 1))) is True
    assert guangxi.is_in_force(number_of(date(2026, 1, 1))) is False
    assert policy.is_in_force(number_of(date(2020, 6, 22))) is False


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


@pytest.mark.parametrize("key", ["issuer", "valid_from", "validity_quote", "quote"])
def test_a_whole_text_lacks_nothing_else(tmp_path: Path, key: str) -> None:
    path = _changed(tmp_path, f"\n{key} = ", "\n# ")

    with pytest.raises(PolicyError, match=rf"{key}: expected .*, found nothing"):
        load_policy(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"excerpt"', '"half"', "text_known: expected one of whole, excerpt"),
        ('"excerpt"', '"whole"', "valid_from: expected a date such as .*, found nothing"),
        ("source =", "# source =", "source: expected a text .*, found nothing"),
        ("[note]", "[notes]", "note: expected a table, found nothing"),
        ("at_least = 100_000", "", r"conditions\[0\]\.at_least: expected either .*, found nothing"),
        (
            "at_least = 100_000",
            "at_least = 1\nmore_than = 1",
            r"conditions\[0\]\.at_least: expected either this number or more_than, found 'both'",
        ),
        ("at_least = 100_000", "at_least = 0", r"conditions\[0\]\.at_least: .* from 1 to"),
        ("at_least = 100_000", "more_than = -1", r"conditions\[0\]\.more_than: .* from 0 to"),
        ("at_least = 100_000", "at_most = 1", r"measures\[0\]\.conditions\[0\]\.at_least"),
        (
            'counted = "registrations"',
            'counted = "stars"',
            r"conditions\[0\]\.counted: expected one of registrations, resolutions, enterprise_n",
        ),
        (
            'period = "cumulative"',
            'period = "week"',
            r"conditions\[0\]\.period: expected one of cumulative, calendar_year",
        ),
        (
            'id = "registrations-year"',
            'id = "registrations-cumulative"',
            r"conditions\[1\]\.id: expected an id that no other entry has",
        ),
        (
            'id = "clean-record"',
            'id = "top-node"',
            r"unmeasured\[2\]\.id: expected an id that no other entry has",
        ),
        (
            'id = "identifiers_held"',
            'id = "held"',
            r"registration_readings\[0\]\.id: expected one of identifiers_held, ident",
        ),
        ("\n[[measures]]", '\n[[window]]\nid = "x"\n[[measures]]', "window: unknown key"),
        ('"thresholds"', '"applications_by_kind"', "kinds: expected 1 to 100 entries"),
    ],
)
def test_a_mistake_in_a_file_of_thresholds_is_named_with_its_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        load_policy(_changed(tmp_path, old, new, SHANDONG_FILE))


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (SHANDONG_FILE, "registration_readings"),
        (SHANDONG_FILE, "enterprise_node_readings"),
        (GUANGXI_FILE, "integration_readings"),
        (GUANGXI_FILE, "windows"),
    ],
)
def test_what_the_measures_ask_for_cannot_be_missing(tmp_path: Path, file: Path, key: str) -> None:
    text = file.read_text(encoding="utf-8")
    path = tmp_path / "lacking.toml"
    kept = [part for part in text.split("\n\n") if not part.lstrip().startswith(f"[[{key}]]")]
    kept = [part for part in kept if f"\n[[{key}]]" not in part]
    path.write_text("\n\n".join(kept), encoding="utf-8")

    with pytest.raises(PolicyError, match=f"{key}: expected 1 to 100 entries, found nothing"):
        load_policy(path)


def test_a_threshold_can_be_one_that_must_be_exceeded(tmp_path: Path) -> None:
    path = _changed(tmp_path, "at_least = 100_000", "more_than = 7", SHANDONG_FILE)
    (measure,) = load_policy(path).measures

    assert isinstance(measure, ThresholdsMeasure)
    assert (measure.conditions[0].comparison, measure.conditions[0].least) == ("more_than", 8)
    assert measure.conditions[1].least == 100_000


# --- folders


def _own(folder: Path, name: str, policy_id: str = "") -> Path:
    path = folder / name
    text = SHANDONG_FILE.read_text(encoding="utf-8")
    path.write_text(text.replace("shandong-2024", policy_id or path.stem, 1), encoding="utf-8")
    return path


def test_a_folder_means_all_policies_in_it_by_file_name(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml"):
        _own(tmp_path, name)
    (tmp_path / "readme.md").write_text("not a policy")
    (tmp_path / ".a.toml").write_text("half written")

    assert [policy.id for policy in load_policies(tmp_path)] == ["a", "b"]
    assert [policy.id for policy in load_policies(tmp_path / "b.toml")] == ["b"]


def test_a_bad_file_in_a_folder_is_named(tmp_path: Path) -> None:
    _own(tmp_path, "a.toml")
    (tmp_path / "b.toml").write_text("id = 1")

    with pytest.raises(PolicyError, match=r"b\.toml: "):
        load_policies(tmp_path)


def test_a_folder_without_a_policy_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"expected 1 to 20 files \*\.toml, found 0"):
        load_policies(tmp_path)


def test_a_folder_with_too_many_policies_is_refused(tmp_path: Path) -> None:
    for number in range(POLICIES_MAX + 1):
        (tmp_path / f"{number}.toml").touch()

    with pytest.raises(PolicyError, match="found 21"):
        load_policies(tmp_path)


def test_two_policies_of_one_id_are_refused(tmp_path: Path) -> None:
    _own(tmp_path, "a.toml", "same")
    _own(tmp_path, "b.toml", "same")

    with pytest.raises(PolicyError, match="id 'same': expected in one file, found in 2"):
        load_policies(tmp_path)


def test_own_policies_come_before_the_bundled_ones_and_replace_those_of_their_id(
    tmp_path: Path, guangxi: Policy, shandong: Policy
) -> None:
    assert policies_beside_bundled(None) == (guangxi, shandong)
    own = _own(tmp_path, "a.toml")
    assert [policy.id for policy in policies_beside_bundled(own)] == ["a", guangxi.id, shandong.id]
    replacing = _changed(tmp_path, "100_000", "7")
    first, second = policies_beside_bundled(replacing)
    assert (first.id, second) == (guangxi.id, shandong)
    assert first != guangxi


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
