"""What the doctor found: one line a check."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, how it stands, what was found, what to do (empty when all is well)."""

    check: str
    state: State
    found: str
    do: str = ""


def judged(check: str, is_well: bool, found: str, do: str, bad: State = "fail") -> Finding:
    """A finding that is `ok`, or else `bad` with its advice."""
    return Finding(check, "ok", found) if is_well else Finding(check, bad, found, do)
