"""What was measured and what was wanted: one load, one line of the table, the whole run."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

RATE: Literal["rate"] = "rate"
P99: Literal["p99"] = "p99"


class BenchError(Exception):
    """A measure that is worth nothing; one line: what, where, what was expected."""


class LeftOutError(Exception):
    """A line that this machine cannot measure; one sentence."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One load of one side: whole answers, answers a second, and the slowest hundredth in ms."""

    requests: int
    rate_per_s: float
    p99_ms: float


def measure_from_wrk(output: str) -> Measure:
    """The figures in the last line of wrk's output, which the load script writes as JSON.

    Raises:
        BenchError: for any answer that was refused or lost, and where there is no such line.
    """
    found = [line for line in output.splitlines() if line.startswith("{")]
    if not found:
        raise BenchError(f"wrk gave no figures: {output.strip()[-300:]!r}")
    figures = json.loads(found[-1])
    errors = {name: number for name, number in figures["errors"].items() if number}
    if errors:
        raise BenchError(f"not every answer was good: {errors} of {figures['requests']} requests")
    if not figures["requests"]:
        raise BenchError("not one answer came")
    rate_per_s = figures["requests"] / (figures["duration_us"] / 1e6)
    return Measure(figures["requests"], rate_per_s, figures["p99_us"] / 1e3)


@dataclass(frozen=True, slots=True)
class Line:
    """One ratio: figure of the side `over` by figure of the side `under`, and what is wanted.

    `aim` is reported and fails nothing. `needs` are the programs without which it is left out.
    """

    name: str
    over: str
    under: str
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    figure: Literal["rate", "p99"] = RATE
    needs: tuple[str, ...] = ("wrk",)

    @property
    def wanted(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else f"aim {self.aim:g}"

    def of(self, measure: Measure) -> float:
        """The figure of one load that this line compares."""
        return measure.p99_ms if self.figure == P99 else measure.rate_per_s


@dataclass(frozen=True, slots=True)
class Result:
    """A line as it was measured: its ratio in each round, and both sides' median figures.

    The line `memory` has differences in bytes in the place of ratios.
    Rates are answers (batch: identifiers) a second, p99 is in ms, memory in bytes.
    """

    line: Line
    rounds: tuple[float, ...]
    over: float
    under: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.rounds)

    @property
    def verdict(self) -> Literal["ok", "short", "below aim"]:
        line = self.line
        if line.aim is not None:
            return "ok" if self.ratio >= line.aim else "below aim"
        is_short = (line.at_least is not None and self.ratio < line.at_least) or (
            line.at_most is not None and self.ratio > line.at_most
        )
        return "short" if is_short else "ok"

    def document(self) -> dict[str, Any]:
        """The line as `bench.json` has it."""
        line = self.line
        wanted = {"at_least": line.at_least, "at_most": line.at_most, "aim": line.aim}
        return {
            "name": line.name,
            "ratio": _rounded(self.ratio),
            **{name: number for name, number in wanted.items() if number is not None},
            "rounds": [_rounded(ratio) for ratio in self.rounds],
            "medians": {line.over: _rounded(self.over), line.under: _rounded(self.under)},
        }


def result_of(line: Line, over: Sequence[float], under: Sequence[float]) -> Result:
    """The result of figures that were measured in turn: each round is compared with itself."""
    rounds = tuple(one / other for one, other in zip(over, under, strict=True))
    return Result(line, rounds, statistics.median(over), statistics.median(under))


def beyond(line: Line, grown: Sequence[float], bodies: Sequence[float]) -> Result:
    """The result of a difference: by what `grown` is more than `bodies`, in each round."""
    rounds = tuple(one - other for one, other in zip(grown, bodies, strict=True))
    return Result(line, rounds, statistics.median(grown), statistics.median(bodies))


@dataclass
class Report:
    """A whole run: what was measured, what was left out and what failed, each with its reason."""

    results: list[Result] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """False when a wanted ratio was missed or a measure failed; left out is not missed."""
        return not self.failed and all(result.verdict != "short" for result in self.results)

    def document(self, machine: dict[str, Any], commit: str) -> dict[str, Any]:
        """`bench.json`."""
        return {
            "machine": machine,
            "commit": commit,
            "ratios": [result.document() for result in self.results],
            "left_out": self.left_out,
            "failed": self.failed,
        }

    def table(self) -> str:
        """The table that a person reads, and below it what is not in it."""
        rows = [("name", "ratio", "wanted", "", "medians"), *map(_row, self.results)]
        widths = [max(len(row[place]) for row in rows) for place in range(5)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]
        lines += [f"FAILED: {name}: {reason}" for name, reason in self.failed.items()]
        return "\n".join(lines)


def _row(result: Result) -> tuple[str, str, str, str, str]:
    line = result.line
    medians = f"{line.over} {_shown(result.over)} | {line.under} {_shown(result.under)}"
    return line.name, _shown(result.ratio), line.wanted, result.verdict, medians


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3f}"


def _rounded(number: float) -> float:
    return round(number, 4)
