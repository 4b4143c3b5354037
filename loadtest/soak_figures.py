"""What a soak has shown: one row for each slice, and whether all stayed as it was."""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtest.soak_load import Load
from loadtest.soak_writer import Outcome

# Caches and buffers settle in the first fifth; the last one is compared with the second.
_PARTS = 5
# What the same load differs by from one minute to the next on a machine with other things to do.
_RSS_RATIO_MAX = 1.02
_RSS_GROWTH_BYTES_MAX = 8_000_000
_P99_RATIO_MAX = 1.5
# The wait between requests follows the rate that was reached; below this share of the wanted one
# the load was not what it says.
_RATE_RATIO_MIN = 0.95
_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Slice:
    """One load with writes going on; `sent` and `answered` are of wrk and of the writer."""

    rate_per_s: float
    p50_ms: float
    p99_ms: float
    rss_bytes: int
    sent: int
    answered: int
    writes: int
    errors: dict[str, int]

    @classmethod
    def of(cls, load: Load, outcome: Outcome, rss_bytes: int) -> "Slice":
        """What wrk and the writer have seen, and the memory of the worker after it."""
        return cls(
            round(load.rate_per_s, 1),
            load.p50_ms,
            load.p99_ms,
            rss_bytes,
            load.sent + outcome.reads.sent,
            load.answered + outcome.reads.answered,
            outcome.writes,
            dict(Counter(load.errors) + outcome.errors),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that must hold; None where the run was too short to say."""

    name: str
    is_good: bool | None
    text: str


@dataclass
class Soak:
    """A whole run, at a share of what the node answers at most.

    Of the `trials`, in which nobody waits, the median rate is the top rate; they lie among the
    slices, since the same machine is not as fast in every minute. `counted` is what the ledger
    grew by in slices and trials.
    """

    share: float
    trials: list[Slice] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    counted: int = 0
    texts: list[str] = field(default_factory=list)

    @property
    def top_rate_per_s(self) -> float:
        return statistics.median(map(_rate_of, self.trials)) if self.trials else 0.0

    @property
    def wanted_rate_per_s(self) -> float:
        return self.share * self.top_rate_per_s

    @property
    def verdicts(self) -> list[Verdict]:
        return [
            self._errors(),
            self._ledger(),
            self._rate(),
            _flat_memory(self.slices),
            _flat_p99(self.slices),
        ]

    @property
    def is_good(self) -> bool:
        """True if nothing was missed; what a short run cannot say is not missed."""
        return all(verdict.is_good is not False for verdict in self.verdicts)

    def document(self) -> dict[str, Any]:
        """The run as it is written to a file."""
        return {
            "top_rate_per_s": round(self.top_rate_per_s, 1),
            "wanted_rate_per_s": round(self.wanted_rate_per_s, 1),
            "trials": [asdict(one) for one in self.trials],
            "slices": [asdict(one) for one in self.slices],
            "counted": self.counted,
            "wrong": self.texts,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }

    def _errors(self) -> Verdict:
        loads = (*self.trials, *self.slices)
        errors = sum((Counter(one.errors) for one in loads), Counter())
        kinds = "".join(f", {number} {kind}" for kind, number in sorted(errors.items()))
        writes = sum(one.writes for one in loads)
        answered = sum(one.answered for one in loads)
        text = f"{errors.total()} of {answered:,} answers and {writes:,} writes{kinds}"
        return Verdict("errors", not errors and answered > 0 and writes > 0, text)

    def _ledger(self) -> Verdict:
        loads = (*self.trials, *self.slices)
        answered = sum(one.answered for one in loads)
        sent = sum(one.sent for one in loads)
        text = f"{self.counted:,} counted, {answered:,} answered, {sent:,} asked for"
        return Verdict("ledger", answered <= self.counted <= sent, text)

    def _rate(self) -> Verdict:
        parts = _parts(self.slices, _rate_of)
        rate = statistics.median(map(_rate_of, self.slices)) if self.slices else 0.0
        share = rate / self.top_rate_per_s if self.top_rate_per_s else 0.0
        text = f"{rate:,.0f}/s, {share:.0%} of the top rate, wanted {self.wanted_rate_per_s:,.0f}/s"
        is_reached = rate >= _RATE_RATIO_MIN * self.wanted_rate_per_s
        return Verdict("rate", None if parts is None else is_reached, text)


def _flat_memory(slices: Sequence[Slice]) -> Verdict:
    parts = _parts(slices, lambda one: one.rss_bytes)
    if parts is None:
        return _too_short("memory", slices)
    before, after = parts
    most = max(_RSS_RATIO_MAX * before, before + _RSS_GROWTH_BYTES_MAX)
    text = (
        f"{after / _MEGABYTE:.1f} MB in the last fifth, {before / _MEGABYTE:.1f} MB in the second,"
        f" at most {most / _MEGABYTE:.1f}"
    )
    return Verdict("memory", after <= most, text)


def _flat_p99(slices: Sequence[Slice]) -> Verdict:
    parts = _parts(slices, lambda one: one.p99_ms)
    if parts is None:
        return _too_short("p99", slices)
    before, after = parts
    most = _P99_RATIO_MAX * before
    text = f"{after:.2f} ms in the last fifth, {before:.2f} ms in the second, at most {most:.2f}"
    return Verdict("p99", after <= most, text)


def _too_short(name: str, slices: Sequence[Slice]) -> Verdict:
    return Verdict(name, None, f"not judged: {len(slices)} slices, {_PARTS} are needed")


def _parts(slices: Sequence[Slice], figure: Callable[[Slice], float]) -> tuple[float, float] | None:
    """The median of a figure over the second and over the last fifth; None of too few slices."""
    size = len(slices) // _PARTS
    if size == 0:
        return None
    second, last = slices[size : 2 * size], slices[-size:]
    return statistics.median(map(figure, second)), statistics.median(map(figure, last))


def _rate_of(one: Slice) -> float:
    return one.rate_per_s


HEADING = (
    f"{'slice':>7} {'rate/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'RSS MB':>8} {'errors':>7} writes"
)


def row(number: int, of: int, one: Slice) -> str:
    """A slice below `HEADING`."""
    return (
        f"{f'{number}/{of}':>7} {one.rate_per_s:>9,.0f} {one.p50_ms:>8.2f} {one.p99_ms:>8.2f}"
        f" {one.rss_bytes / _MEGABYTE:>8.1f} {sum(one.errors.values()):>7} {one.writes:>6}"
    )


def summary(soak: Soak) -> str:
    """What a person reads at the end."""
    said = {True: "ok", False: "MISSED", None: "-"}
    lines = [f"wrong: {text}" for text in soak.texts]
    lines += [f"{one.name:<8} {said[one.is_good]:<7} {one.text}" for one in soak.verdicts]
    return "\n".join(lines)
