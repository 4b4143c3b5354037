"""When the measures of a policy with windows and steps would be met."""

from collections.abc import Mapping, Sequence
from datetime import date

import pytest

from metrics.day import number_of
from metrics.facts import Facts, LedgerDays, RegistryNumbers
from metrics.integrations import ApplicationEntry
from metrics.measure_number import MeasureNumber
from metrics.measures import Evaluation, Verdict, evaluate
from metrics.place import place_of
from metrics.policy_file import bundled_policies
from metrics.projection import Projection, project

GUANGXI = bundled_policies()[0]
TODAY = number_of(date(2022, 8, 5))
NEVER = Projection(False, None)
MET = Projection(True, None)


def _application(number: int, place: str, contract: str | None = "ab" * 32) -> ApplicationEntry:
    return ApplicationEntry(
        id=f"app-{number}",
        name=f"app {number}",
        kind="traceability",
        type="web",
        owner=f"owner {number}",
        place=place_of(division=place) if place.isdigit() else place_of(country=place),
        contract_sha256=contract,
        sandbox=False,
    )


def _evaluate(
    a_day: Mapping[int, int],
    first_days: Mapping[str, int],
    contracts: Sequence[str | None] = (),
) -> Evaluation:
    """Resolutions by days back from today, and applications by `place` or `place/number`.

    Each application has resolved since so many days back, and every day from then on.
    """
    digests = contracts or ["ab" * 32] * len(first_days)
    places = enumerate(zip(first_days, digests, strict=True))
    applications = [
        _application(number, place.partition("/")[0], digest) for number, (place, digest) in places
    ]
    successes = {
        f"app-{number}": {TODAY - back: 1 for back in range(1, first + 1)}
        for number, first in enumerate(first_days.values())
    }
    counts = {
        (TODAY - back, "enterprise", "anonymous", "found"): count for back, count in a_day.items()
    }
    return evaluate(GUANGXI, Facts(LedgerDays(counts, successes), applications, None), TODAY)


def _verdict(evaluation: Evaluation, window: str, integrations: str = "applications") -> Verdict:
    (found,) = (
        verdict
        for verdict in evaluation.verdicts
        if (verdict.window, verdict.integration_reading) == (window, integrations)
        and verdict.resolutions.reading == "external_successes"
    )
    return found


def _every_day(count: int, days: int) -> dict[int, int]:
    return dict.fromkeys(range(1, days + 1), count)


def _integrations(first_days: Mapping[str, int]) -> Projection:
    return project(_verdict(_evaluate({}, first_days), "365d").integrations_goal, TODAY)


@pytest.mark.parametrize(
    ("first_days", "expected"),
    [
        ({}, NEVER),
        ({"450100": 9}, NEVER),
        ({"440100": 9, "430100": 90}, MET),
        ({"VN": 1}, MET),
        # One in thirty days, and one is missing.
        ({"440100": 9}, Projection(False, TODAY + 29)),
        ({"440100": 30}, Projection(False, TODAY + 29)),
        # None in thirty days.
        ({"440100": 31}, NEVER),
    ],
)
def test_integrations_grow_by_those_that_resolved_for_the_first_time(
    first_days: Mapping[str, int], expected: Projection
) -> None:
    assert _integrations(first_days) == expected


def test_an_application_without_its_contract_is_no_pace_for_the_strictest_reading() -> None:
    evaluation = _evaluate({}, {"440100": 9}, [None])

    assert project(_verdict(evaluation, "365d").integrations_goal, TODAY) == NEVER
    owners = _verdict(evaluation, "365d", "owners").integrations_goal
    assert project(owners, TODAY) == Projection(False, TODAY + 29)


def test_volume_and_integrations_are_met_on_the_day_of_the_later_one() -> None:
    evaluation = _evaluate(_every_day(150_000, 61), {"440100": 9})
    quarter = _verdict(evaluation, "90d")

    assert quarter.is_volume_met
    assert project(quarter.goal, TODAY) == Projection(False, TODAY + 29)
    # 365 times 100,000 take 244 days of 150,000, of which 61 are over.
    assert project(_verdict(evaluation, "365d").goal, TODAY) == Projection(False, TODAY + 182)


def test_a_volume_that_is_lost_before_the_integrations_are_there_is_no_use() -> None:
    a_day = _every_day(90_000, 30) | {back: 900_000 for back in range(60, 91)}
    verdict = _verdict(_evaluate(a_day, {"440100": 9}), "90d")

    assert verdict.is_volume_met
    # By then 30 of the 31 great days have made way for days of 90,000.
    assert project(verdict.goal, TODAY) == NEVER


def test_what_is_met_already_says_since_when_the_volume_is() -> None:
    verdict = _verdict(_evaluate(_every_day(100_001, 365), {"VN": 9}), "30d")

    assert verdict.is_met
    assert project(verdict.volume_goal, TODAY) == Projection(True, TODAY - 365 + 29)
    assert project(verdict.goal, TODAY) == MET


def test_the_levels_are_projected_apart() -> None:
    counts = {
        (TODAY - back, level, "anonymous", "found"): 60_000
        for back in range(1, 31)
        for level in ("node", "enterprise")
    }
    evaluation = evaluate(GUANGXI, Facts(LedgerDays(counts, {}), (), None), TODAY)

    assert project(_verdict(evaluation, "365d").volume_goal, TODAY) == NEVER
    assert {total.average for total in evaluation.pace.values()} == {60_000}


# --- steps


def _steps(served: Mapping[int, int]) -> MeasureNumber:
    """Enterprises served for the first time, by days back from today."""
    growth = {"enterprises_served": {TODAY - back: count for back, count in served.items()}}
    registry = RegistryNumbers(0, sum(served.values()), 0, 0, growth=growth)
    evaluation = evaluate(GUANGXI, Facts(LedgerDays({}, {}), (), registry), TODAY)
    return next(one for one in evaluation.numbers if one.reading == "enterprises_served")


def test_each_step_has_its_day() -> None:
    number = _steps({200: 470, 10: 30, 0: 20})
    found = {
        step.at_least: None if step.goal is None else project(step.goal, TODAY)
        for step in number.steps
    }

    # Today's 20 are there, and no part of the pace of one a day: 480 are missing from tomorrow on.
    assert found == {
        500: Projection(True, TODAY - 10),
        1_000: Projection(False, TODAY + 480),
        3_000: Projection(False, TODAY + 2_480),
    }
    assert number.step_ahead is not None
    assert number.step_ahead.at_least == 1_000
    assert number.to_json(TODAY)["step_reached"] == 500


def test_when_all_steps_are_reached_the_last_one_is_shown() -> None:
    number = _steps({200: 2_999, 3: 1})

    assert number.step_ahead is not None
    assert (number.step_ahead.at_least, number.step_ahead.is_reached) == (3_000, True)


def test_a_number_whose_growth_is_not_known_has_no_projection() -> None:
    facts = Facts(LedgerDays({}, {}), (), RegistryNumbers(600, 600, 0, 0))
    number = next(one for one in evaluate(GUANGXI, facts, TODAY).numbers if one.steps)

    assert number.is_met is True
    assert [step.goal for step in number.steps] == [None, None, None]
