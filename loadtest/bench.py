"""How fast the node is beside nginx, bare ASGI applications and itself, in one run.

    python -m loadtest.bench --only cached-one redirect --rounds 3

Every line is a ratio of two sides that are measured in turn (A B A B) on the same cores, each the
median of its rounds. Prints a table and writes `bench.json`. Exit code 1 if a wanted ratio is
missed or a measure failed. What this machine cannot measure is left out, and said so.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from loadtest.bench_arena import Arena, missing
from loadtest.bench_contests import CONTESTS, LINES, Contest
from loadtest.bench_figures import BenchError, LeftOutError, Line, Report

ROUNDS = 5
SECONDS = 5
IDENTIFIERS = 10_000_000
_KEPT = Path("var/bench")


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print and write; exit code 1 if something wanted was missed."""
    options = _options(words)
    # Everything that was started is ended, also when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    report = Report()
    with Arena(_KEPT.absolute() if options.keep else None, options.identifiers, _say) as arena:
        for contest in CONTESTS:
            _measure(arena, contest, options, report)
    document = report.document(machine(), commit())
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"\n{report.table()}\n\nwritten: {options.output}\n")
    return 0 if report.is_good else 1


def _measure(arena: Arena, contest: Contest, options: argparse.Namespace, report: Report) -> None:
    lines = _measurable([line for line in contest.lines if line.name in options.only], report)
    if not lines:
        return
    names = ", ".join(line.name for line in lines)
    _say(f"== {names}")
    try:
        report.results += contest.run(arena, lines, options.rounds, options.seconds)
    except LeftOutError as reason:
        report.left_out.update((line.name, str(reason)) for line in lines)
    except (BenchError, OSError) as error:
        _say(f"FAILED: {error}")
        report.failed.update((line.name, str(error)) for line in lines)


def _measurable(lines: Sequence[Line], report: Report) -> list[Line]:
    """The lines that this machine can measure; the others are noted."""
    reasons = {line.name: missing(line.needs) for line in lines}
    report.left_out.update((name, why) for name, why in reasons.items() if why is not None)
    return [line for line in lines if reasons[line.name] is None]


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def commit() -> str:
    """The commit that is measured, `-dirty` behind it where files differ; or "unknown"."""
    words = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*words, "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    names = [line.name for line in LINES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=names)
    parser.add_argument("--rounds", type=_positive, default=ROUNDS)
    parser.add_argument("--seconds", type=_positive, default=SECONDS, help="of each load")
    parser.add_argument(
        "--identifiers", type=_positive, default=IDENTIFIERS, help="size of the large book"
    )
    parser.add_argument(
        "--keep", action="store_true", help=f"keep the books in {_KEPT} and use them again"
    )
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    return parser.parse_args(words)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1")
    return number


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
