"""Measures of several thresholds: Shandong's, as far as they are known."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date

import pytest

from metrics.day import number_of
from metrics.facts import Facts, LedgerDays, RegistryNumbers
from metrics.measures import Evaluation, evaluate, needs_earlier, span_needed
from metrics.policy import CalendarYear, Condition, Policy, Span, ThresholdsMeasure
from metrics.policy_file import bundled_policies
from metrics.projection import Projection, project
from metrics.thresholds import LOOSEST, STRICTEST, ConditionReading, ThresholdsStanding

GUANGXI, SHANDONG = bundled_policies()
TODAY = number_of(date(2024, 8, 5))
NEW_YEAR = number_of(date(2024, 1, 1))
LAST_YEAR = NEW_YEAR - 1

# What meets every condition by the strictest reading, to the last one: number -> day -> growth.
ENOUGH: Mapping[str, Mapping[int, int]] = {
    "identifiers_held": {NEW_YEAR: 100_000},
    "identifiers_registered": {NEW_YEAR: 100_000},
    "nodes_self_run": {NEW_YEAR: 5},
    "nodes_allotted": {NEW_YEAR: 5},
}
RESOLUTIONS = {(NEW_YEAR, "enterprise", "application", "found"): 100_000}


def _evaluate(
    growth: Mapping[str, Mapping[int, int]] | None = ENOUGH,
    counts: Mapping[tuple[int, str, str, str], int] = RESOLUTIONS,
    *,
    policy: Policy = SHANDONG,
    earlier: int = 0,
    today: int = TODAY,
) -> Evaluation:
    registry = None if growth is None else RegistryNumbers(0, 0, 0, 0, growth=growth)
    before = {("enterprise", "application", "found"): earlier}
    days = LedgerDays(counts, {}, {}, span_needed(policy, today).first, before)
    return evaluate(policy, Facts(days, (), registry), today)


def _standing(evaluation: Evaluation) -> ThresholdsStanding:
    (standing,) = evaluation.thresholds
    return standing


def _reading(
    evaluation: Evaluation, condition: str, reading: str | None = None
) -> ConditionReading:
    (found,) = (one for one in _standing(evaluation).conditions if one.condition.id == condition)
    return next(one for one in found.readings if reading in (None, one.reading.id))


def _projection(evaluation: Evaluation, condition: str) -> Projection:
    goal = _reading(evaluation, condition).goal
    assert goal is not None
    return project(goal, TODAY)


# --- at, below and above


def test_exactly_the_thresholds_are_enough() -> None:
    standing = _standing(_evaluate())

    assert [one.by(STRICTEST).value for one in standing.conditions] == [100_000] * 4 + [5] * 2
    assert all(one.by(STRICTEST).is_met for one in standing.conditions)
    assert standing.is_met(STRICTEST) is True
    assert standing.missing(STRICTEST) == ()


@pytest.mark.parametrize("number", sorted(ENOUGH))
@pytest.mark.parametrize(("more", "is_met"), [(-1, False), (0, True), (1, True)])
def test_a_register_is_compared_with_its_threshold(number: str, more: int, is_met: bool) -> None:
    ((day, enough),) = ENOUGH[number].items()
    standing = _standing(_evaluate({**ENOUGH, number: {day: enough + more}}))

    is_strictest = number in ("identifiers_held", "nodes_self_run")
    assert standing.is_met(STRICTEST) is (is_met or not is_strictest)
    assert standing.is_met(LOOSEST) is (is_met or is_strictest)


@pytest.mark.parametrize(("more", "is_met"), [(-1, False), (0, True), (1, True)])
def test_resolutions_are_compared_with_their_threshold(more: int, is_met: bool) -> None:
    counts = {key: count + more for key, count in RESOLUTIONS.items()}

    assert _standing(_evaluate(counts=counts)).is_met(STRICTEST) is is_met


@pytest.mark.parametrize(
    ("condition", "short"),
    [
        ("registrations-year", 1),
        ("resolutions-year", 1),
        ("enterprise-nodes-year", 1),
    ],
)
def test_what_came_last_year_is_in_the_sum_but_not_in_the_year(condition: str, short: int) -> None:
    growth = {
        number: {LAST_YEAR: 1, NEW_YEAR: count - 1}
        for number, days in ENOUGH.items()
        for count in days.values()
    }
    counts = {(NEW_YEAR, "enterprise", "application", "found"): 99_999}
    evaluation = _evaluate(growth, counts, earlier=1)

    assert _reading(evaluation, condition).short == short
    assert _reading(evaluation, condition.replace("year", "cumulative")).is_met
    assert _standing(evaluation).is_met(LOOSEST) is False


def test_today_is_not_over_and_counts_for_nothing() -> None:
    growth = {number: {TODAY: sum(days.values())} for number, days in ENOUGH.items()}
    evaluation = _evaluate(growth, {(TODAY, "enterprise", "application", "found"): 100_000})

    assert {
        one.value for all_of in _standing(evaluation).conditions for one in all_of.readings
    } == {0}


def test_on_new_years_day_the_year_that_ended_is_judged() -> None:
    growth = {number: {TODAY: sum(days.values())} for number, days in ENOUGH.items()}
    counts = {(TODAY, "enterprise", "application", "found"): 100_000}
    next_year = number_of(date(2025, 1, 1))

    assert _standing(_evaluate(growth, counts, today=next_year)).is_met(STRICTEST) is True
    assert _standing(_evaluate(growth, counts, today=next_year + 1)).is_met(STRICTEST) is False


# --- readings


def test_every_number_is_shown_by_each_of_its_readings() -> None:
    growth = {
        "identifiers_held": {NEW_YEAR: 70, NEW_YEAR + 1: -20},
        "identifiers_registered": {NEW_YEAR: 70},
        "nodes_self_run": {NEW_YEAR: 2},
        "nodes_allotted": {NEW_YEAR: 3},
    }
    counts = {
        (NEW_YEAR, "enterprise", "application", "found"): 4,
        (NEW_YEAR, "enterprise", "application", "not_found"): 8,
        (NEW_YEAR, "enterprise", "probe", "found"): 16,
        (NEW_YEAR, "node", "anonymous", "found"): 3,
    }
    evaluation = _evaluate(growth, counts, earlier=32)
    found = {
        one.condition.id: [reading.value for reading in one.readings]
        for one in _standing(evaluation).conditions
    }

    assert found == {
        "registrations-cumulative": [50, 70],
        "registrations-year": [50, 70],
        "resolutions-cumulative": [36, 36, 44],
        "resolutions-year": [4, 4, 12],
        "enterprise-nodes-cumulative": [2, 3],
        "enterprise-nodes-year": [2, 3],
    }


def test_the_levels_are_never_added() -> None:
    counts = {(NEW_YEAR, level, "application", "found"): 60_000 for level in ("node", "enterprise")}
    evaluation = _evaluate(counts=counts)

    assert _reading(evaluation, "resolutions-year").value == 60_000
    assert _standing(evaluation).is_met(LOOSEST) is False


def test_a_number_that_nobody_could_give_is_unknown_and_not_zero() -> None:
    standing = _standing(_evaluate(None))

    assert standing.is_met(STRICTEST) is None
    assert standing.goal(STRICTEST) is None
    assert _reading(_evaluate(None), "registrations-year").value is None
    # What is known to be too little decides all the same.
    assert _standing(_evaluate(None, {})).is_met(STRICTEST) is False


def test_a_ledger_that_was_not_asked_for_all_days_knows_no_sum_of_them() -> None:
    first = span_needed(SHANDONG, TODAY).first
    facts = Facts(LedgerDays(RESOLUTIONS, {}, {}, first), (), None)
    evaluation = evaluate(SHANDONG, facts, TODAY)

    assert _reading(evaluation, "resolutions-cumulative").value is None
    assert _reading(evaluation, "resolutions-year").value == 100_000


def test_the_days_asked_for_are_those_of_the_year_and_of_the_pace() -> None:
    assert span_needed(SHANDONG, TODAY) == Span(NEW_YEAR, TODAY)
    third = number_of(date(2024, 1, 3))
    assert span_needed(SHANDONG, third) == Span(third - 30, third)
    assert (needs_earlier(SHANDONG), needs_earlier(GUANGXI)) == (True, False)


# --- what is missing, and when


def test_what_is_missing_is_said_in_both_languages() -> None:
    counts = {(NEW_YEAR, "enterprise", "application", "found"): 99_999}
    missing = _standing(_evaluate(counts=counts)).missing(STRICTEST)

    assert [words.zh for words in missing] == [
        "累计标识解析量 99,999，须不少于 100,000：还差 1",
        "当年新增标识解析量 99,999，须不少于 100,000：还差 1",
    ]
    assert missing[0].en == ("resolutions in all: 99,999, at least 100,000 needed: 1 short")


def test_the_day_is_the_one_on_which_all_conditions_are_met_together() -> None:
    counts = {(TODAY - back, "enterprise", "application", "found"): 1_000 for back in range(1, 31)}
    growth = {**ENOUGH, "nodes_self_run": {TODAY - 40: 3, TODAY - 20: 1}}
    evaluation = _evaluate(growth, counts, earlier=60_000)

    ten_days = Projection(False, TODAY + 9)
    assert _projection(evaluation, "resolutions-cumulative") == ten_days
    assert _projection(evaluation, "resolutions-year") == Projection(False, TODAY + 69)
    assert _projection(evaluation, "enterprise-nodes-year") == Projection(False, TODAY + 29)
    assert _projection(evaluation, "registrations-year") == Projection(True, NEW_YEAR)
    goal = _standing(evaluation).goal(STRICTEST)
    assert goal is not None
    assert project(goal, TODAY) == Projection(False, TODAY + 69)


def test_a_condition_whose_number_stands_still_is_never_met() -> None:
    growth = {**ENOUGH, "nodes_self_run": {NEW_YEAR: 4}}
    evaluation = _evaluate(growth)
    goal = _standing(evaluation).goal(STRICTEST)

    assert goal is not None
    assert project(goal, TODAY) == Projection(False, None)
    assert _projection(evaluation, "resolutions-year") == Projection(True, NEW_YEAR)


def test_the_sum_of_all_years_reached_before_this_one_is_met_since_nobody_knows_when() -> None:
    evaluation = _evaluate(earlier=100_000)

    assert _projection(evaluation, "resolutions-cumulative") == Projection(True, None)


# --- the rules are in the file


def _with(changed: Condition) -> Policy:
    """The policy with `changed` in the place of the condition that has its id."""
    (measure,) = SHANDONG.measures
    assert isinstance(measure, ThresholdsMeasure)
    conditions = tuple(changed if one.id == changed.id else one for one in measure.conditions)
    return replace(SHANDONG, measures=(replace(measure, conditions=conditions),))


def _conditions() -> tuple[Condition, ...]:
    (measure,) = SHANDONG.measures
    assert isinstance(measure, ThresholdsMeasure)
    return measure.conditions


@pytest.mark.parametrize("condition", _conditions(), ids=lambda one: one.id)
def test_another_threshold_or_comparison_gives_another_verdict(condition: Condition) -> None:
    higher = _with(replace(condition, threshold=condition.threshold + 1))
    strict = _with(replace(condition, comparison="more_than"))
    lower = _with(replace(condition, comparison="more_than", threshold=condition.threshold - 1))

    assert _standing(_evaluate(policy=higher)).is_met(STRICTEST) is False
    assert _standing(_evaluate(policy=strict)).is_met(STRICTEST) is False
    assert _standing(_evaluate(policy=lower)).is_met(STRICTEST) is True
    (missing,) = _standing(_evaluate(policy=strict)).missing(STRICTEST)
    assert f"more than {condition.threshold:,} needed: 1 short" in missing.en


def test_another_number_or_period_is_counted_if_the_file_says_so() -> None:
    in_all = next(one for one in _conditions() if one.id == "registrations-cumulative")
    policy = _with(
        replace(in_all, counted="enterprise_nodes", period=CalendarYear("y", in_all.name))
    )
    growth = {**ENOUGH, "nodes_self_run": {LAST_YEAR: 7, NEW_YEAR: 2}}

    assert _reading(_evaluate(growth, policy=policy), in_all.id).value == 2


# --- what is not known


def test_a_policy_of_which_only_an_excerpt_is_known_says_so() -> None:
    evaluation = _evaluate()
    document = evaluation.to_json()

    assert evaluation.is_in_force is None
    assert "not known" in evaluation.validity.en
    assert "未知" in evaluation.validity.zh
    unknown = ("issuer", "document_number", "valid_from", "valid_to", "is_in_force")
    assert {document[key] for key in unknown} == {None}
    assert document["is_excerpt"] is True
    assert "excerpt" in str(document["note"])


def test_the_json_has_every_condition_by_every_reading() -> None:
    found = json.loads(json.dumps(_evaluate().to_json()))
    (standing,) = found["thresholds"]

    assert (found["claims"], found["windows"], found["claim_window"]) == ([], [], None)
    assert [reading["reading"] for reading in standing["readings"]] == ["strictest", "loosest"]
    assert [reading["met"] for reading in standing["readings"]] == [True, True]
    assert standing["readings"][0]["projection"]["day"] == "2024-01-01"
    assert standing["quote"] is None
    assert len(standing["unmeasured"]) == 5
    cumulative, of_year = standing["conditions"][:2]
    assert (cumulative["first"], cumulative["last"]) == (None, "2024-08-04")
    assert (of_year["first"], of_year["last"]) == ("2024-01-01", "2024-12-31")
    assert of_year["at_least"] == 100_000
    assert [reading["value"] for reading in of_year["readings"]] == [100_000, 100_000]
