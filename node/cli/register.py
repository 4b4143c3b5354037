"""`idnode register`: a factory's product file into the book."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from node.cli.context import Desk, Json, desk_of, with_database
from node.cli.failure import ExitCode
from node.cli.output import console, document, printable, write_json, write_line, write_table
from node.clock import now_s
from node.registration import RegistrationProgress, RegistrationSummary, register_file
from registry.database import Database

# How often a log gets a line: a run of an hour leaves 720.
_LINE_PAUSE_S = 5.0

OnProgress = Callable[[RegistrationProgress], None]


def register(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="arg.register.file")],
    prefix: Annotated[str, typer.Option(help="opt.register.prefix")],
    suffix: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="opt.register.suffix")
    ] = None,
    value: Annotated[
        list[str] | None, typer.Option(metavar="[INDEX:]TYPE=COLUMN", help="opt.register.value")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="opt.register.mapping")] = None,
    sheet: Annotated[str | None, typer.Option(metavar="NAME", help="opt.register.sheet")] = None,
    check: Annotated[
        Literal["auto", "gtin", "none"], typer.Option(help="opt.register.check")
    ] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="opt.register.dry_run")] = False,
    errors: Annotated[Path | None, typer.Option(help="opt.register.errors")] = None,
    as_json: Json = False,
) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> RegistrationSummary:
        with _reporter(desk, as_json) as on_progress:
            return await register_file(
                database,
                file,
                prefix=prefix,
                suffix=suffix,
                values=value or [],
                mapping=mapping,
                check=check,
                dry_run=dry_run,
                errors=errors,
                actor=desk.author.actor,
                now_s=now_s,
                on_progress=on_progress,
                sheet_name=sheet,
            )

    summary = with_database(desk, work)
    if as_json:
        write_json(document(summary) | {"dry_run": dry_run})
    else:
        _print_summary(desk, summary, dry_run)
    if summary.failed:
        raise typer.Exit(ExitCode.PARTLY)


def _reporter(desk: Desk, as_json: bool) -> AbstractContextManager[OnProgress]:
    if as_json:
        return nullcontext(lambda progress: None)
    if sys.stderr.isatty():
        return _Bar(desk)
    return nullcontext(ProgressLines(desk, now_s).report)


class _Bar:
    """A bar on the terminal, with the rate and the remaining time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._started_s = now_s()
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console(sys.stderr),
        )
        self._task: TaskID = self._progress.add_task("", total=None)

    def __enter__(self) -> OnProgress:
        self._progress.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _report(self, progress: RegistrationProgress) -> None:
        self._progress.update(
            self._task,
            total=None if progress.fraction is None else 1.0,
            completed=progress.fraction or 0.0,
            description=_progress_text(self._desk, progress, now_s() - self._started_s),
        )


class ProgressLines:
    """A line every few seconds, for a log."""

    def __init__(self, desk: Desk, clock: Callable[[], float]) -> None:
        self._desk = desk
        self._clock = clock
        self._started_s = self._said_s = clock()

    def report(self, progress: RegistrationProgress) -> None:
        time_s = self._clock()
        if time_s - self._said_s < _LINE_PAUSE_S:
            return
        self._said_s = time_s
        elapsed_s = time_s - self._started_s
        line = _progress_text(self._desk, progress, elapsed_s)
        if progress.fraction:
            left_s = elapsed_s * (1 - progress.fraction) / progress.fraction
            line += self._desk.text("register.left", seconds=f"{left_s:,.0f}")
        console(sys.stderr).print(line)


def _progress_text(desk: Desk, progress: RegistrationProgress, elapsed_s: float) -> str:
    return desk.text(
        "register.progress",
        rows=f"{progress.rows:,}",
        failed=f"{progress.failed:,}",
        rate=f"{progress.rows / elapsed_s:,.0f}" if elapsed_s > 0 else "…",
    )


def _print_summary(desk: Desk, summary: RegistrationSummary, dry_run: bool) -> None:
    if dry_run:
        _print_preview(desk, summary)
    if summary.problems:
        write_table(
            [desk.text(f"column.{name}") for name in ("row", "field", "reason", "suggestion")],
            (
                (str(problem.row_number), problem.field, problem.reason, problem.suggestion)
                for problem in summary.problems
            ),
        )
    counts = {
        name: f"{getattr(summary, name):,}"
        for name in ("rows", "added", "changed", "unchanged", "failed")
    }
    write_line(desk.text("register.dry_run" if dry_run else "register.summary", **counts))
    if summary.errors_file is not None:
        write_line(desk.text("register.errors_file", file=summary.errors_file))


def _print_preview(desk: Desk, summary: RegistrationSummary) -> None:
    columns = [desk.text("column.type"), desk.text("column.value")]
    for identifier, values in summary.preview:
        write_table(columns, values, title=printable(identifier))
