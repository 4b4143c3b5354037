"""`idnode measures`: where the node stands against the policy."""

from pathlib import Path
from typing import Annotated

import typer

from metrics.measures import Evaluation, MeasureNumber, Verdict
from metrics.policy import Words
from node.cli.context import Desk, Json, desk_of, with_database
from node.cli.output import cell, write_json, write_line, write_table
from node.clock import now_s
from node.measures_report import measures_report
from registry.database import Database


def measures(
    context: typer.Context,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="opt.measures.policy")] = None,
    as_json: Json = False,
) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> Evaluation:
        return await measures_report(database, desk.config, now_s, policy)

    evaluation = with_database(desk, work)
    if as_json:
        write_json(evaluation.to_json())
        return
    _print_evaluation(desk, evaluation)


def _print_evaluation(desk: Desk, evaluation: Evaluation) -> None:
    policy = evaluation.policy
    write_line(f"{_words(desk, policy.title)}  {policy.document_number}")
    write_line(_words(desk, evaluation.validity))
    for claim in evaluation.claims:
        _print_claim(desk, evaluation, claim)
    _print_readings(desk, evaluation)
    _print_numbers(desk, evaluation.numbers)


def _print_claim(desk: Desk, evaluation: Evaluation, claim: Verdict) -> None:
    measure, volume = claim.measure, claim.resolutions
    window = evaluation.claimed.window.name
    write_line("")
    write_line(
        f"{measure.id}  {_words(desk, measure.title)}: {_met(desk, claim.is_met)}"
        f"  ({_words(desk, window)})"
    )
    write_table(
        [desk.text(f"column.{name}") for name in ("condition", "is", "wanted", "state")],
        [
            (
                desk.text("measures.volume"),
                f"{volume.average:,.1f}",
                f"> {measure.daily_average_more_than:,}",
                _met(desk, claim.is_volume_met),
            ),
            (
                desk.text("measures.integrations"),
                f"{claim.other_provinces} / {claim.other_countries}",
                f"≥ {measure.other_provinces_at_least} / ≥ {measure.other_countries_at_least}",
                _met(desk, claim.are_integrations_met),
            ),
        ],
    )
    for words in claim.missing:
        write_line(f"- {_words(desk, words)}")
    if claim.is_met and not evaluation.is_met_by_every_reading(measure.id):
        write_line(f"- {desk.text('measures.not_every_reading')}")


def _print_readings(desk: Desk, evaluation: Evaluation) -> None:
    """A row a reading of the volume: today so far, then the daily average of each window."""
    windows = list(evaluation.windows.values())
    write_line("")
    write_table(
        [
            *(desk.text("column.reading"), desk.text("column.today")),
            *(_words(desk, numbers.window.name) for numbers in windows),
        ],
        (
            (
                _words(desk, reading.name),
                cell(evaluation.today_so_far[reading.id].total),
                *(f"{numbers.resolutions[reading.id].average:,.1f}" for numbers in windows),
            )
            for reading in evaluation.policy.resolution_readings
        ),
    )


def _print_numbers(desk: Desk, numbers: tuple[MeasureNumber, ...]) -> None:
    write_table(
        [desk.text(f"column.{name}") for name in ("measure", "title", "number", "state")],
        (
            (
                number.measure.id,
                f"{_words(desk, number.measure.title)} ({number.reading})",
                desk.text("word.unknown") if number.value is None else cell(number.value),
                "" if number.is_met is None else _met(desk, number.is_met),
            )
            for number in numbers
        ),
    )


def _met(desk: Desk, is_met: bool) -> str:
    return desk.text("measures.met" if is_met else "measures.not_met")


def _words(desk: Desk, words: Words) -> str:
    return words.zh if desk.language == "zh" else words.en
