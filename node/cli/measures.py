"""`idnode measures`: where the node stands against each policy."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from metrics.day import date_of
from metrics.measure_number import MeasureNumber
from metrics.measures import Evaluation, Verdict
from metrics.policy import Condition, Named, Words
from metrics.projection import PACE_DAYS, Goal, project
from metrics.thresholds import STRICTEST, ThresholdsStanding
from node.cli.context import Desk, Json, desk_of, with_database
from node.cli.output import cell, write_json, write_line, write_table
from node.clock import now_s
from node.measures_report import measures_report
from registry.database import Database


def measures(
    context: typer.Context,
    policy: Annotated[Path | None, typer.Option(metavar="PATH", help="opt.measures.policy")] = None,
    as_json: Json = False,
) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> list[Evaluation]:
        return await measures_report(database, desk.config, now_s, policy)

    evaluations = with_database(desk, work)
    if as_json:
        write_json({"policies": [evaluation.to_json() for evaluation in evaluations]})
        return
    for place, evaluation in enumerate(evaluations):
        if place:
            write_line("")
        _print_evaluation(desk, evaluation)


def _print_evaluation(desk: Desk, evaluation: Evaluation) -> None:
    _print_head(desk, evaluation)
    for claim in evaluation.claims:
        _print_claim(desk, evaluation, claim)
    for standing in evaluation.thresholds:
        _print_thresholds(desk, evaluation, standing)
    _print_readings(desk, evaluation)
    for claim in evaluation.claims:
        _print_outlooks(desk, evaluation, claim)
    if evaluation.numbers:
        _print_numbers(desk, evaluation)


def _print_head(desk: Desk, evaluation: Evaluation) -> None:
    policy = evaluation.policy
    number = policy.document_number or desk.text("measures.no_document_number")
    write_line(f"{_words(desk, policy.title)}  {number}")
    write_line(_words(desk, evaluation.validity))
    if policy.note is not None:
        write_line(_words(desk, policy.note))
    if policy.source is not None:
        write_line(desk.text("measures.source", source=policy.source))
    first, last = date_of(evaluation.today - PACE_DAYS), date_of(evaluation.today - 1)
    write_line(desk.text("measures.pace", days=PACE_DAYS, first=first, last=last))


def _print_claim(desk: Desk, evaluation: Evaluation, claim: Verdict) -> None:
    measure, volume = claim.measure, claim.resolutions
    window = evaluation.claimed.window.name
    write_line("")
    write_line(
        f"{measure.id}  {_words(desk, measure.title)}: {_met(desk, claim.is_met)}"
        f"  ({_words(desk, window)})"
    )
    write_table(
        _columns(desk, "condition", "is", "wanted", "state", "outlook"),
        [
            (
                desk.text("measures.volume"),
                f"{volume.average:,.1f}",
                f"> {measure.daily_average_more_than:,}",
                _met(desk, claim.is_volume_met),
                _outlook(desk, evaluation, claim.volume_goal),
            ),
            (
                desk.text("measures.integrations"),
                f"{claim.other_provinces} / {claim.other_countries}",
                f"≥ {measure.other_provinces_at_least} / ≥ {measure.other_countries_at_least}",
                _met(desk, claim.are_integrations_met),
                _outlook(desk, evaluation, claim.integrations_goal),
            ),
        ],
    )
    _print_list(desk, claim.missing)
    write_line(f"- {_whole_outlook(desk, evaluation, claim.goal)}")
    if claim.is_met and not evaluation.is_met_by_every_reading(measure.id):
        write_line(f"- {desk.text('measures.not_every_reading')}")


def _print_thresholds(desk: Desk, evaluation: Evaluation, standing: ThresholdsStanding) -> None:
    """A row for each condition and reading, strictest first; then what no node can measure."""
    measure = standing.measure
    write_line("")
    write_line(
        f"{measure.id}  {_words(desk, measure.title)}: {_met(desk, standing.is_met(STRICTEST))}"
        f"  ({desk.text('measures.strictest')})"
    )
    write_table(
        _columns(desk, "condition", "by", "is", "wanted", "missing", "state", "a_day", "outlook"),
        [
            (
                _words(desk, condition.condition.name),
                _words(desk, one.reading.name),
                _number(desk, one.value),
                _wanted(condition.condition),
                _number(desk, one.short),
                _met(desk, one.is_met),
                "" if one.pace is None else f"{one.pace:,.1f}",
                _outlook(desk, evaluation, one.goal),
            )
            for condition in standing.conditions
            for one in condition.readings
        ],
    )
    write_line(f"- {_whole_outlook(desk, evaluation, standing.goal(STRICTEST))}")
    if measure.unmeasured:
        write_line(desk.text("measures.unmeasured"))
        _print_list(desk, (named.name for named in measure.unmeasured))


def _print_readings(desk: Desk, evaluation: Evaluation) -> None:
    """A row a reading of the volume: today so far, the pace, the daily average of each window."""
    windows = list(evaluation.windows.values())
    write_line("")
    write_table(
        [
            *_columns(desk, "reading", "today", "a_day"),
            *(_words(desk, numbers.window.name) for numbers in windows),
        ],
        (
            (
                _words(desk, reading.name),
                cell(evaluation.today_so_far[reading.id].total),
                f"{evaluation.pace[reading.id].average:,.1f}",
                *(f"{numbers.resolutions[reading.id].average:,.1f}" for numbers in windows),
            )
            for reading in evaluation.policy.resolution_readings
        ),
    )


def _print_outlooks(desk: Desk, evaluation: Evaluation, claim: Verdict) -> None:
    """A row a pair of readings: since when, or from when on, each window meets the measure."""
    policy, measure_id = evaluation.policy, claim.measure.id
    goals = {
        (verdict.window, verdict.resolutions.reading, verdict.integration_reading): verdict.goal
        for verdict in evaluation.verdicts
        if verdict.measure.id == measure_id
    }
    write_line(desk.text("measures.outlooks", measure=measure_id))
    write_table(
        [
            *_columns(desk, "reading", "integrations"),
            *(_words(desk, numbers.window.name) for numbers in evaluation.windows.values()),
        ],
        (
            (
                _words(desk, volume.name),
                _words(desk, integrations.name),
                *(
                    _outlook(desk, evaluation, goals[window_id, volume.id, integrations.id])
                    for window_id in evaluation.windows
                ),
            )
            for volume, integrations in _pairs(
                policy.resolution_readings, policy.integration_readings
            )
        ),
    )


def _pairs(
    volumes: Sequence[Named], integrations: Sequence[Named]
) -> Iterable[tuple[Named, Named]]:
    return ((volume, integration) for volume in volumes for integration in integrations)


def _print_numbers(desk: Desk, evaluation: Evaluation) -> None:
    write_table(
        _columns(desk, "measure", "title", "number", "state", "missing", "outlook"),
        (
            (
                number.measure.id,
                f"{_words(desk, number.measure.title)} ({number.reading})",
                _number(desk, number.value),
                "" if number.is_met is None else _met(desk, number.is_met),
                "; ".join(_words(desk, words) for words in number.missing),
                _step_outlook(desk, evaluation, number),
            )
            for number in evaluation.numbers
        ),
    )


def _print_list(desk: Desk, entries: Iterable[Words]) -> None:
    for words in entries:
        write_line(f"- {_words(desk, words)}")


def _step_outlook(desk: Desk, evaluation: Evaluation, number: MeasureNumber) -> str:
    step = number.step_ahead
    if step is None:
        return ""
    return f"{step.at_least:,}: {_outlook(desk, evaluation, step.goal)}"


def _whole_outlook(desk: Desk, evaluation: Evaluation, goal: Goal | None) -> str:
    return desk.text("measures.outlook", outlook=_outlook(desk, evaluation, goal))


def _outlook(desk: Desk, evaluation: Evaluation, goal: Goal | None) -> str:
    if goal is None:
        return desk.text("word.unknown")
    return _words(desk, project(goal, evaluation.today).words)


def _wanted(condition: Condition) -> str:
    sign = "≥" if condition.comparison == "at_least" else ">"
    return f"{sign} {condition.threshold:,}"


def _number(desk: Desk, value: int | None) -> str:
    return desk.text("word.unknown") if value is None else cell(value)


def _columns(desk: Desk, *names: str) -> list[str]:
    return [desk.text(f"column.{name}") for name in names]


def _met(desk: Desk, is_met: bool | None) -> str:
    if is_met is None:
        return desk.text("word.unknown")
    return desk.text("measures.met" if is_met else "measures.not_met")


def _words(desk: Desk, words: Words) -> str:
    return words.zh if desk.language == "zh" else words.en
