"""What a run of Locust came to, and whether it is as it must be."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

# Different texts that are kept: a node that is all wrong must not fill the memory with proofs.
TEXTS_MAX = 1_000
_SHOWN_MAX = 10


@dataclass(slots=True)
class LoadSums:
    """Resolutions as the users know them.

    Attributes:
        sent: identifiers asked for, in requests that may have left.
        answered: identifiers that were answered.
        wrong: answers that were not right.
        failures: texts of everything that went wrong, and how often.
    """

    sent: int = 0
    answered: int = 0
    wrong: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def failed(self, text: str) -> str:
        """Note a failure; returns its text, or a general one when there are too many."""
        if text not in self.failures and len(self.failures) >= TEXTS_MAX:
            text = f"failures of more than {TEXTS_MAX:,} kinds"
        self.failures[text] += 1
        return text


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The end of a run; times in milliseconds."""

    requests: int
    requests_failed: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    sent: int
    answered: int
    wrong: int
    failures: dict[str, int]

    def write(self, path: Path) -> None:
        """Leave it for the program that started the run."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), "utf-8")

    @classmethod
    def load(cls, path: Path) -> "LoadResult":
        return cls(**json.loads(path.read_text("utf-8")))

    def problems(self, counted: int, is_alone: bool) -> list[str]:
        """What is not as it must be, the most telling first; empty if all is well.

        `counted` is what the node counted meanwhile, for these users alone if `is_alone`.
        """
        found = []
        if not self.answered:
            found.append("no question was answered")
        if self.requests_failed:
            found.append(f"{self.requests_failed:,} of {self.requests:,} requests failed")
        elif self.answered < self.sent:
            found.append(f"{self.sent - self.answered:,} resolutions were not answered in time")
        if counted < self.answered:
            found.append(f"counted {counted:,}, but {self.answered:,} resolutions were answered")
        if is_alone and counted > self.sent:
            found.append(f"counted {counted:,}, but only {self.sent:,} resolutions were asked for")
        return found

    def text(self, counted: int, is_alone: bool, report: Path) -> str:
        """The summary for the terminal."""
        compared = _compared(self, counted, is_alone)
        lines = [
            f"  requests      {self.requests:>12,}   {self.requests_per_s:,.0f} a second",
            f"  failed        {self.requests_failed:>12,}   wrong answers: {self.wrong:,}",
            f"  p50, p99      {f'{self.p50_ms:,.0f}, {self.p99_ms:,.0f}':>12}   milliseconds,"
            " those of Locust itself included",
            f"  resolutions   {self.answered:>12,}   answered, of {self.sent:,} asked for",
            f"  counted       {counted:>12,}   {compared}",
            f"  report        {report}",
        ]
        most = Counter(self.failures).most_common(_SHOWN_MAX)
        lines += [f"  {times:>6,} x {text}" for text, times in most]
        if len(self.failures) > len(most):
            lines.append(f"  and {len(self.failures) - len(most):,} more kinds of failure")
        return "\n".join(lines)


def _compared(result: LoadResult, counted: int, is_alone: bool) -> str:
    if counted == result.answered:
        return "exactly what was answered"
    if not is_alone:
        return "on the whole node; others may have asked, too"
    if result.answered <= counted <= result.sent:
        return "between answered and asked for"
    return "does not agree with the users"
