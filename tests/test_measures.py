"""Verdicts against a policy."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise

import pytest

from metrics import dimension
from metrics.countable import is_countable, uncountable_reason
from metrics.day import number_of
from metrics.facts import Facts, LedgerDays, RegistryNumbers
from metrics.integrations import (
    ApplicationEntry,
    Standing,
    counts_by_state,
)
from metrics.measure_number import MeasureNumber
from metrics.measures import Evaluation, Verdict, evaluate, span_needed
from metrics.place import place_of
from metrics.policy import FromTo, IntegrationMeasure, Policy, Span, Words
from metrics.policy_file import bundled_policies

GUANGXI: Policy = bundled_policies()[0]
TODAY = number_of(date(2022, 8, 5))
YESTERDAY = TODAY - 1
DIGEST = "ab" * 32
FOUND = ("application", "found")

Counts = dict[tuple[int, str, str, str], int]


def _every_day(
    count: int,
    *,
    days: int = 365,
    level: str = "enterprise",
    caller_class: str = "application",
    outcome: str = "found",
) -> Counts:
    return {(TODAY - day, level, caller_class, outcome): count for day in range(1, days + 1)}


def _application(
    number: int,
    place: str,
    *,
    kind: str = "traceability",
    owner: str = "",
    contract_sha256: str | None = DIGEST,
    sandbox: bool = False,
    first_success_day: int | None = None,
) -> ApplicationEntry:
    return ApplicationEntry(
        id=f"app-{number:06d}",
        name=f"app {number}",
        kind=kind,
        type="web",
        owner=owner or f"owner {number}",
        place=place_of(division=place) if place.isdigit() else place_of(country=place),
        contract_sha256=contract_sha256,
        sandbox=sandbox,
        first_success_day=first_success_day,
    )


def _evaluate(
    counts: Mapping[tuple[int, str, str, str], int] | None = None,
    applications: Sequence[ApplicationEntry] = (),
    successes: Mapping[str, Mapping[int, int]] | None = None,
    damaged: Mapping[int, str] | None = None,
    *,
    registry: RegistryNumbers | None = None,
    security_events: int | None = None,
    today: int = TODAY,
) -> Evaluation:
    if successes is None:
        successes = {entry.id: {YESTERDAY: 1} for entry in applications}
    ledger = LedgerDays(counts or {}, successes, damaged or {})
    return evaluate(GUANGXI, Facts(ledger, applications, registry, security_events), today)


def _verdict(
    evaluation: Evaluation,
    window: str = "365d",
    resolutions: str = "external_successes",
    integrations: str = "applications",
) -> Verdict:
    found = [
        verdict
        for verdict in evaluation.verdicts
        if verdict.window == window
        and verdict.resolutions.reading == resolutions
        and verdict.integration_reading == integrations
    ]
    assert len(found) == 1
    return found[0]


def _number(evaluation: Evaluation, measure: str, reading: str) -> MeasureNumber:
    found = [n for n in evaluation.numbers if (n.measure.id, n.reading) == (measure, reading)]
    assert len(found) == 1
    return found[0]


def _standing(evaluation: Evaluation, window: str = "365d") -> Standing:
    (standing,) = evaluation.windows[window].standings
    return standing


# --- which resolutions


@pytest.mark.parametrize(
    ("caller_class", "outcome", "readings"),
    [
        ("application", "found", {"external_successes", "successes", "requests"}),
        ("enterprise", "found", {"external_successes", "successes", "requests"}),
        ("anonymous", "found", {"external_successes", "successes", "requests"}),
        ("anonymous", "found_stale", {"external_successes", "successes", "requests"}),
        ("anonymous", "not_found", {"requests"}),
        ("anonymous", "values_not_found", {"requests"}),
        ("application", "not_responsible", {"requests"}),
        ("application", "unavailable", {"requests"}),
        ("application", "invalid", set()),
        ("application", "refused", set()),
        ("operator", "found", set()),
        ("probe", "found", set()),
        ("sandbox", "found", set()),
        ("sandbox", "not_found", set()),
    ],
)
def test_each_reading_counts_what_it_says(
    caller_class: str, outcome: str, readings: set[str]
) -> None:
    counted = {
        reading.id
        for reading in GUANGXI.resolution_readings
        if is_countable(reading.id, caller_class, outcome)
    }

    assert counted == readings


def test_a_stricter_reading_never_counts_what_a_looser_one_leaves_out() -> None:
    for stricter, looser in pairwise(GUANGXI.resolution_readings):
        for caller_class in dimension.CALLER_CLASSES:
            for outcome in dimension.OUTCOMES:
                if is_countable(stricter.id, caller_class, outcome):
                    assert is_countable(looser.id, caller_class, outcome)


def test_what_is_never_countable_is_shown_with_its_reason() -> None:
    assert uncountable_reason("application", "found") is None
    assert uncountable_reason("sandbox", "invalid") == "sandbox"
    assert uncountable_reason("anonymous", "refused") == "refused"

    evaluation = _evaluate(
        {
            (YESTERDAY, "node", "probe", "found"): 1,
            (YESTERDAY, "node", "operator", "not_found"): 2,
            (YESTERDAY, "enterprise", "sandbox", "found"): 3,
            (YESTERDAY, "enterprise", "anonymous", "invalid"): 4,
            (YESTERDAY, "enterprise", "anonymous", "refused"): 5,
            (TODAY, "node", "probe", "found"): 6,
        }
    )

    none = {"operator": 0, "probe": 0, "sandbox": 0, "invalid": 0, "refused": 0}
    assert evaluation.windows["30d"].uncountable == {
        "node": none | {"probe": 1, "operator": 2},
        "enterprise": none | {"sandbox": 3, "invalid": 4, "refused": 5},
    }
    assert evaluation.today_uncountable["node"]["probe"] == 6
    assert all(t.total == 0 for t in evaluation.windows["30d"].resolutions.values())


@pytest.mark.parametrize(
    ("reading", "total"), [("external_successes", 7), ("successes", 7), ("requests", 17)]
)
def test_the_readings_of_a_day_stand_side_by_side(reading: str, total: int) -> None:
    evaluation = _evaluate(
        {
            (YESTERDAY, "enterprise", "application", "found"): 4,
            (YESTERDAY, "enterprise", "anonymous", "found_stale"): 3,
            (YESTERDAY, "enterprise", "anonymous", "not_found"): 10,
            (YESTERDAY, "enterprise", "sandbox", "found"): 1_000,
            (YESTERDAY, "enterprise", "anonymous", "invalid"): 1_000,
        }
    )

    assert evaluation.windows["30d"].resolutions[reading].total == total


def test_the_levels_are_never_added_and_the_greater_one_speaks() -> None:
    counts = _every_day(80_000, level="node") | _every_day(90_000, level="enterprise")
    total = _evaluate(counts).windows["30d"].resolutions["external_successes"]

    assert total.by_level == {"node": 80_000 * 30, "enterprise": 90_000 * 30}
    assert (total.level, total.average) == ("enterprise", 90_000)


# --- strictly more than 100,000


@pytest.mark.parametrize(
    ("total", "is_met", "missing"),
    [
        (100_000 * 30 - 1, False, 2),
        (100_000 * 30, False, 1),
        (100_000 * 30 + 1, True, 0),
    ],
)
def test_the_average_must_be_strictly_more_than_the_threshold(
    total: int, is_met: bool, missing: int
) -> None:
    counts = {(YESTERDAY, "enterprise", *FOUND): total}
    verdict = _verdict(_evaluate(counts, [_application(1, "VN")]), "30d")

    assert verdict.is_volume_met is is_met
    assert verdict.volume_missing == missing
    assert verdict.is_met is is_met
    assert bool(verdict.missing) is not is_met


def test_the_threshold_comes_from_the_policy() -> None:
    (measure,) = (m for m in GUANGXI.measures if isinstance(m, IntegrationMeasure))
    policy = replace(GUANGXI, measures=(replace(measure, daily_average_more_than=2),))
    facts = Facts(LedgerDays(_every_day(3), {}), [], None)

    (claim,) = evaluate(policy, facts, TODAY).claims

    assert claim.is_volume_met
    assert claim.to_json(TODAY)["volume"] == {
        "met": True,
        "average": 3.0,
        "more_than": 2,
        "total": 3 * 365,
        "days": 365,
        "level": "enterprise",
        "resolutions_missing": 0,
        "projection": {
            "state": "met",
            "day": "2022-04-05",  # with it, 244 days of 3 exceed 365 of 2
            "zh": "自 2022-04-05 起满足",
            "en": "met since 2022-04-05",
        },
    }


# --- which days


def test_a_day_without_data_counts_as_zero() -> None:
    counts = _every_day(120_000)
    del counts[YESTERDAY - 3, "enterprise", *FOUND]
    total = _evaluate(counts).windows["30d"].resolutions["external_successes"]

    assert total.total == 120_000 * 29
    assert total.average == 120_000 * 29 / 30


def test_ten_days_of_traffic_do_not_make_a_year() -> None:
    evaluation = _evaluate(_every_day(500_000, days=10), [_application(1, "VN")])

    assert _verdict(evaluation, "30d").is_met
    assert not _verdict(evaluation, "90d").is_met
    assert not _verdict(evaluation, "365d").is_met
    assert not evaluation.claims[0].is_met


def test_today_is_in_no_window_but_shown_apart() -> None:
    evaluation = _evaluate({(TODAY, "node", *FOUND): 9})

    assert evaluation.today_so_far["external_successes"].total == 9
    assert all(
        total.total == 0
        for window in evaluation.windows.values()
        for total in window.resolutions.values()
    )


def test_a_window_ends_with_its_first_and_last_day() -> None:
    counts = {
        (TODAY - 31, "node", *FOUND): 1_000,
        (TODAY - 30, "node", *FOUND): 1,
        (TODAY - 1, "node", *FOUND): 2,
        (TODAY, "node", *FOUND): 1_000,
    }
    window = _evaluate(counts).windows["30d"]

    assert window.span == Span(TODAY - 30, TODAY - 1)
    assert window.resolutions["external_successes"].total == 3


def test_days_to_come_are_days_without_data() -> None:
    second_of_january = number_of(date(2022, 1, 2))
    counts = {(second_of_january - 1, "node", *FOUND): 200_000}
    year = _evaluate(counts, today=second_of_january).windows["year"]

    assert year.span.days == 365
    assert year.days_to_come == 364
    assert year.resolutions["external_successes"].average == 200_000 / 365


def test_any_days_can_be_asked_for() -> None:
    july = FromTo("july", Words("七月", "July"), date(2022, 7, 1), date(2022, 7, 31))
    facts = Facts(LedgerDays(_every_day(100_001), {}), [], None)

    evaluation = evaluate(GUANGXI, facts, TODAY, extra_windows=[july], claim_window="july")

    assert evaluation.claimed.span.days == 31
    assert evaluation.claimed.days_to_come == 0
    assert evaluation.claims[0].is_volume_met


def test_a_claim_window_that_does_not_exist_is_refused() -> None:
    facts = Facts(LedgerDays({}, {}), [], None)

    with pytest.raises(ValueError, match=r"claim window 'june': expected one of 30d, 90d, 365d"):
        evaluate(GUANGXI, facts, TODAY, claim_window="june")


def test_two_windows_of_one_id_are_refused() -> None:
    twin = FromTo("year", Words("年", "year"), date(2022, 7, 1), date(2022, 7, 31))

    with pytest.raises(ValueError, match="window 'year': expected an id that no other"):
        evaluate(GUANGXI, Facts(LedgerDays({}, {}), [], None), TODAY, extra_windows=[twin])


@pytest.mark.parametrize(
    ("today", "first"),
    [
        (date(2022, 8, 5), date(2021, 8, 5)),
        (date(2020, 12, 31), date(2020, 1, 1)),
        (date(2022, 1, 1), date(2021, 1, 1)),
    ],
)
def test_the_days_needed_reach_back_to_the_longest_window(today: date, first: date) -> None:
    assert span_needed(GUANGXI, number_of(today)) == Span(number_of(first), number_of(today))


def test_a_damaged_day_is_zero_in_every_reading_and_is_listed() -> None:
    vietnamese = _application(1, "VN")
    counts = _every_day(100_001) | _every_day(5, caller_class="probe")
    evaluation = _evaluate(
        counts, [vietnamese], {vietnamese.id: {YESTERDAY: 1}}, {YESTERDAY: "journal 7: bad sum"}
    )
    window = evaluation.windows["30d"]

    assert window.damaged_days == {YESTERDAY: "journal 7: bad sum"}
    assert [total.total for total in window.resolutions.values()] == [100_001 * 29] * 3
    assert window.uncountable["enterprise"]["probe"] == 5 * 30
    assert _standing(evaluation).state == "registered"
    assert not evaluation.claims[0].is_met
    assert _evaluate(counts, [vietnamese]).claims[0].is_met  # it was the damage


def test_damage_of_today_stops_the_number_of_today() -> None:
    evaluation = _evaluate({(TODAY, "node", *FOUND): 9}, damaged={TODAY: "journal 7: bad sum"})

    assert evaluation.today_damaged == "journal 7: bad sum"
    assert evaluation.today_so_far["requests"].total == 0


# --- which integrations


@pytest.mark.parametrize(
    ("places", "provinces", "countries", "is_met"),
    [
        ([], 0, 0, False),
        (["450100", "450200", "450300"], 0, 0, False),
        (["440100"], 1, 0, False),
        (["440100", "430100"], 2, 0, True),
        (["440100", "440300"], 2, 0, True),
        (["VN"], 0, 1, True),
        (["HK"], 0, 1, True),
        (["820000"], 0, 1, True),
        (["TW", "440100"], 1, 1, True),
        (["440100", "430100", "TH"], 2, 1, True),
    ],
)
def test_two_from_other_provinces_or_one_from_another_country(
    places: list[str], provinces: int, countries: int, is_met: bool
) -> None:
    applications = [_application(number, place) for number, place in enumerate(places)]
    (claim,) = _evaluate(_every_day(100_001), applications).claims

    assert (claim.other_provinces, claim.other_countries) == (provinces, countries)
    assert claim.are_integrations_met is is_met
    assert claim.is_met is is_met


def test_hong_kong_macao_and_taiwan_are_shown_apart() -> None:
    applications = [_application(n, p) for n, p in enumerate(["HK", "710000", "VN"])]
    window = _evaluate(applications=applications).claimed

    assert {label: len(keys) for label, keys in window.integrations["applications"].items()} == {
        "guangxi": 0,
        "other_province": 0,
        "hk_mo_tw": 2,
        "foreign": 1,
    }


def test_one_owner_and_one_region_count_once() -> None:
    applications = [
        _application(1, "440100", owner="Lida Co., Ltd"),
        _application(2, "440300", owner="LIDA  Co., Ltd "),
        _application(3, "440300", owner="Other Co., Ltd"),
    ]
    evaluation = _evaluate(applications=applications)

    assert _verdict(evaluation, integrations="applications").other_provinces == 3
    assert _verdict(evaluation, integrations="owners").other_provinces == 2
    assert _verdict(evaluation, integrations="regions").other_provinces == 1
    assert not _verdict(evaluation, integrations="regions").are_integrations_met


def test_only_the_first_reading_asks_for_complete_evidence() -> None:
    evaluation = _evaluate(applications=[_application(1, "VN", contract_sha256=None)])

    assert _verdict(evaluation, integrations="applications").other_countries == 0
    assert _verdict(evaluation, integrations="owners").other_countries == 1
    assert _verdict(evaluation, integrations="regions").other_countries == 1


def test_an_owner_without_a_name_is_no_owner() -> None:
    evaluation = _evaluate(applications=[_application(1, "VN", owner=" ")])

    assert _standing(evaluation).missing == ("owner",)
    assert _verdict(evaluation, integrations="applications").other_countries == 0
    assert _verdict(evaluation, integrations="owners").other_countries == 0
    assert _verdict(evaluation, integrations="regions").other_countries == 1


@pytest.mark.parametrize(
    ("contract", "days", "first_day", "state", "missing"),
    [
        (DIGEST, {}, None, "registered", ("first_resolution", "resolution_in_window")),
        (
            None,
            {},
            None,
            "registered",
            ("contract", "first_resolution", "resolution_in_window"),
        ),
        (None, {YESTERDAY: 1}, None, "resolving", ("contract",)),
        (DIGEST, {YESTERDAY: 1}, None, "completed", ()),
        (DIGEST, {YESTERDAY: 0}, None, "registered", ("first_resolution", "resolution_in_window")),
        (DIGEST, {TODAY: 5}, None, "registered", ("first_resolution", "resolution_in_window")),
        (DIGEST, {TODAY - 31: 5}, None, "dormant", ("resolution_in_window",)),
        (DIGEST, {}, TODAY - 900, "dormant", ("resolution_in_window",)),
        (DIGEST, {}, TODAY, "registered", ("first_resolution", "resolution_in_window")),
    ],
)
def test_the_state_of_an_application_follows_its_evidence(
    contract: str | None,
    days: dict[int, int],
    first_day: int | None,
    state: str,
    missing: tuple[str, ...],
) -> None:
    entry = _application(1, "VN", contract_sha256=contract, first_success_day=first_day)
    standing = _standing(_evaluate(applications=[entry], successes={entry.id: days}), "30d")

    assert (standing.state, standing.missing) == (state, missing)


def test_a_sandbox_application_is_no_integration() -> None:
    sandbox = _application(1, "VN", sandbox=True)
    evaluation = _evaluate(_every_day(100_001), [sandbox], {sandbox.id: {YESTERDAY: 9}})

    assert evaluation.claimed.standings == ()
    assert not evaluation.claims[0].is_met


def test_states_are_counted_by_place_with_zeros() -> None:
    found = _evaluate(applications=[_application(1, "VN"), _application(2, "VN")]).claimed

    counts = counts_by_state(found.standings, GUANGXI.home)
    assert len(counts) == 16
    assert {key: count for key, count in counts.items() if count} == {("completed", "foreign"): 2}


def test_the_share_of_each_place_is_shown() -> None:
    applications = [_application(1, "VN"), _application(2, "440100"), _application(3, "450100")]
    successes = {"app-000001": {YESTERDAY: 7}, "app-000002": {YESTERDAY: 2, TODAY: 50}}

    window = _evaluate(applications=applications, successes=successes).windows["30d"]

    assert window.successes_by_place == {
        "guangxi": 0,
        "other_province": 2,
        "hk_mo_tw": 0,
        "foreign": 7,
    }


# --- the verdict


def test_every_pair_of_readings_is_judged_in_every_window() -> None:
    assert len(_evaluate().verdicts) == 4 * 3 * 3


def test_the_claim_is_the_strictest_reading_over_the_claim_window() -> None:
    (claim,) = _evaluate().claims

    assert claim.window == GUANGXI.claim_window == "365d"
    assert claim.resolutions.reading == "external_successes"
    assert claim.integration_reading == "applications"


def test_a_looser_reading_can_be_met_without_the_claim() -> None:
    counts = _every_day(60_000) | _every_day(60_000, outcome="not_found")
    evaluation = _evaluate(counts, [_application(1, "VN")])

    assert _verdict(evaluation, resolutions="requests").is_met
    assert not evaluation.claims[0].is_met
    assert not evaluation.is_met_by_every_reading("2")


def test_a_claim_that_no_reading_contradicts_says_so() -> None:
    evaluation = _evaluate(_every_day(100_001), [_application(1, "VN")])

    assert evaluation.claims[0].is_met
    assert evaluation.claims[0].missing == ()
    assert evaluation.is_met_by_every_reading("2")


def test_what_is_missing_is_said_in_both_languages() -> None:
    (claim,) = _evaluate(_every_day(99_999), [_application(1, "440100")]).claims
    volume, integrations = claim.missing

    assert volume == Words(
        "日均解析量 99,999 次，须超过 100,000 次：365 天内还差 366 次解析",
        "daily average 99,999, more than 100,000 is needed: 366 resolutions short over 365 days",
    )
    assert integrations == Words(
        "区外接入 1 个，须 2 个及以上，还差 1 个；"
        "或其他国家（地区）接入 0 个，须 1 个以上（含本数），还差 1 个",
        "1 from other provinces, at least 2 needed (1 short); "
        "or 0 from other countries and regions, at least 1 needed (1 short)",
    )


@pytest.mark.parametrize(
    ("today", "is_in_force", "words"),
    [
        (date(2020, 6, 22), False, "comes into force on 2020-06-23"),
        (date(2020, 6, 23), True, "2020-06-23 is within the validity"),
        (date(2022, 12, 31), True, "2022-12-31 is within the validity"),
        (date(2023, 1, 1), False, "was in force until 2022-12-31; 2023-01-01 is outside"),
    ],
)
def test_a_policy_outside_its_validity_is_evaluated_and_says_so(
    today: date, is_in_force: bool, words: str
) -> None:
    day = number_of(today)
    counts = {(day - n, "node", *FOUND): 100_001 for n in range(1, 366)}
    entry = _application(1, "VN")
    evaluation = _evaluate(counts, [entry], {entry.id: {day - 1: 1}}, today=day)

    assert evaluation.is_in_force is is_in_force
    assert words in evaluation.validity.en
    assert today.isoformat() in evaluation.validity.zh
    assert evaluation.claims[0].is_met


def test_a_window_within_the_validity_is_marked() -> None:
    late = _evaluate(today=number_of(date(2023, 1, 1)))
    later = _evaluate(today=number_of(date(2023, 1, 2)))

    assert late.windows["30d"].is_inside_validity
    assert not later.windows["30d"].is_inside_validity


# --- the other measures


@pytest.mark.parametrize(
    ("served", "is_met", "step", "missing"),
    [
        (0, False, None, ["500 short of 500"]),
        (499, False, None, ["1 short of 500"]),
        (500, True, 500, ["500 short of 1,000"]),
        (2_999, True, 1_000, ["1 short of 3,000"]),
        (3_000, True, 3_000, []),
    ],
)
def test_enterprises_served_reach_their_steps(
    served: int, is_met: bool, step: int | None, missing: list[str]
) -> None:
    registry = RegistryNumbers(5_000, served, 0, 0)
    number = _number(_evaluate(registry=registry), "6", "enterprises_served")

    assert (number.value, number.is_met, number.step_reached) == (served, is_met, step)
    assert [words.en for words in number.missing] == missing


def test_registered_enterprises_are_the_looser_reading() -> None:
    evaluation = _evaluate(registry=RegistryNumbers(600, 10, 0, 0))

    assert [n.reading for n in evaluation.numbers if n.measure.id == "6"] == [
        "enterprises_served",
        "enterprises_registered",
    ]
    assert _number(evaluation, "6", "enterprises_registered").is_met is True
    assert _number(evaluation, "6", "enterprises_served").is_met is False


def test_devices_are_capped_for_each_enterprise_and_year() -> None:
    devices = {("a", 2021): 51, ("a", 2022): 50, ("b", 2022): 3}
    number = _number(
        _evaluate(registry=RegistryNumbers(0, 0, 0, 0, devices)), "9", "devices_countable"
    )

    assert number.value == 50 + 50 + 3
    assert number.parts == {"registered": 104, "countable": 103}


def test_applications_are_counted_by_kind() -> None:
    applications = [
        _application(1, "450100"),
        _application(2, "450100", kind="lifecycle"),
        _application(3, "VN"),  # measure 1 is for enterprises of the region
        _application(4, "450100", kind="safety"),
        _application(5, "VN", kind="safety"),
        _application(6, "450100", sandbox=True),
        _application(7, "450100", kind="other"),
    ]
    evaluation = _evaluate(applications=applications)
    innovative = _number(evaluation, "1", "applications")
    integrated = _number(evaluation, "12", "applications")

    assert innovative.value == 2
    assert {kind: n for kind, n in innovative.parts.items() if n} == {
        "traceability": 1,
        "lifecycle": 1,
    }
    assert integrated.value == 2
    assert {kind: n for kind, n in integrated.parts.items() if n} == {"safety": 2}


def test_an_application_that_never_resolved_is_not_counted_by_kind() -> None:
    evaluation = _evaluate(applications=[_application(1, "450100")], successes={})

    assert _number(evaluation, "1", "applications").value == 0


def test_numbers_that_nobody_could_give_are_unknown_and_not_zero() -> None:
    evaluation = _evaluate()

    for measure, reading in (
        ("6", "enterprises_served"),
        ("9", "devices_countable"),
        ("15", "security_events"),
    ):
        number = _number(evaluation, measure, reading)
        assert (number.value, number.is_met) == (None, None)
    assert _number(_evaluate(security_events=3), "15", "security_events").value == 3


# --- JSON


def test_the_evaluation_is_json_with_keys_in_one_order() -> None:
    applications = [_application(1, "VN", contract_sha256=None), _application(2, "440100")]
    registry = RegistryNumbers(1, 1, 1, 1)
    counts = _every_day(5) | _every_day(7, level="node")
    backwards = dict(reversed(counts.items()))
    one = _evaluate(counts, applications, damaged={YESTERDAY: "x"}, registry=registry).to_json()
    two = _evaluate(backwards, applications, damaged={YESTERDAY: "x"}, registry=registry).to_json()

    assert json.dumps(one) == json.dumps(two)
    assert list(one)[:4] == ["policy", "title", "issuer", "document_number"]


def test_the_json_says_what_an_officer_asks() -> None:
    entry = _application(1, "VN", contract_sha256=None)
    found = json.loads(json.dumps(_evaluate(_every_day(100_001), [entry]).to_json()))
    (claim,) = found["claims"]
    window = next(w for w in found["windows"] if w["id"] == "365d")

    assert found["is_in_force"] is True
    assert claim["met"] is False
    assert claim["volume"]["met"] is True
    assert claim["quote"].startswith("鼓励标识解析节点服务能力")
    assert (window["first"], window["last"]) == ("2021-08-05", "2022-08-04")
    assert window["applications"][0]["state"] == "resolving"
    assert window["applications"][0]["missing"][0]["zh"] == "缺合同摘要（SHA-256）"
    assert window["integrations"]["applications"]["foreign"] == []
    assert window["integrations"]["owners"]["foreign"] == ["owner 1"]
