"""Half an hour at 80 % of the top rate with writes going on: no error, memory flat, p99 flat.

    python -m loadtest.soak --minutes 30 --share 0.8

Starts a node of its own with one worker in a temporary folder and measures how much it answers at
most, while records are changed. Then wrk asks at a share of that, slice after slice, while records
are changed and each change is looked for. Exit code 1 if anything was not as it must be; 2 where it
cannot be measured.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtest.bench import commit, machine
from loadtest.bench_arena import Arena, missing
from loadtest.bench_book import Book
from loadtest.bench_figures import BenchError, LeftOutError
from loadtest.bench_load import Questions
from loadtest.bench_node import ServedNode
from loadtest.load_node import LoadError, LoadNode
from loadtest.soak_figures import HEADING, Slice, Soak, row, summary
from loadtest.soak_load import NO_PAUSE_PER_S, PacedLoad
from loadtest.soak_writer import Target, Writer, lanes_for

# A worker holds 200,000 answers; more identifiers would measure something else.
_IDENTIFIERS_MAX = 200_000
_WRITES_PER_S_MAX = 500.0
_VISIBLE_MS_MAX = 10_000
_MINUTES_MAX = 7 * 24 * 60.0
_SLICE_SECONDS_MAX = 3_600
# As long as a trial lasts, at the most (s).
_TRIAL_S = 5
# The top rate is looked at so often at the beginning, and once more after so many slices.
_TRIALS = 3
_SLICES_A_TRIAL = 10
_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run, print a line for each slice, judge; see above for the exit code."""
    options = options_of(words)
    if (why := missing(("wrk",))) is not None:
        _say(f"soak: {why}; on Debian: apt-get install wrk")
        return 2
    # Everything that was started is ended, also when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with Arena(None, options.identifiers, _say_when) as arena, ExitStack() as stack:
            soak = _soak(arena, stack, options)
    except LeftOutError as reason:
        _say(f"soak: {reason}")
        return 2
    except (BenchError, LoadError, OSError) as error:
        _say(f"soak: {error}")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    _say(f"\n{summary(soak)}")
    if options.output is not None:
        document = {"machine": machine(), "commit": commit(), **_asked(options), **soak.document()}
        options.output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        _say(f"\nwritten: {options.output}")
    return 0 if soak.is_good else 1


def _soak(arena: Arena, stack: ExitStack, options: argparse.Namespace) -> Soak:
    book = arena.book(options.identifiers)
    node = arena.node(stack, book)
    _say_when(f"asking for all {book.count:,} once")
    node.warm(range(book.count))
    load = PacedLoad(arena.wrk, node.url, book.prefix, Questions(book.count))
    soak = Soak(options.share)
    writer = Writer(_target(book, node), options.writes_per_second, options.visible_ms / 1e3)
    count = max(2, round(options.minutes * 60 / options.slice_seconds))
    asyncio.run(_Run(soak, node, load, writer).slices(count, options.slice_seconds))
    return soak


def _target(book: Book, node: ServedNode) -> Target:
    """Half of the writes go to the other node of the cluster, the one that keeps the stores."""
    asked, other = _place(node.url), _place(book.url)
    key = (book.data / "operator.key").read_text().strip()
    return Target((asked, other), asked, book.prefix, book.count, key)


def _place(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


class _Run:
    """One load after the other, with writes going on."""

    def __init__(self, soak: Soak, node: ServedNode, load: PacedLoad, writer: Writer) -> None:
        self._soak = soak
        self._node = node
        self._load = load
        self._writer = writer

    async def slices(self, count: int, seconds: int) -> None:
        """`count` slices of so many seconds at the wanted rate, and trials among them."""
        page, trial_s = LoadNode(self._node.url, {}), min(_TRIAL_S, seconds)
        before = page.counted()
        for _ in range(_TRIALS):
            await self._try_top(trial_s)
        _say(HEADING)
        for number in range(1, count + 1):
            one = await self._asked(self._soak.wanted_rate_per_s, seconds, number)
            self._soak.slices.append(one)
            _say(row(number, count, one))
            if number % _SLICES_A_TRIAL == 0:
                await self._try_top(trial_s)
        self._soak.counted = page.counted() - before

    async def _try_top(self, seconds: int) -> None:
        trial = await self._asked(NO_PAUSE_PER_S, seconds, 0)
        self._soak.trials.append(trial)
        _say_when(f"without a pause: {trial.rate_per_s:,.0f}/s, p99 {trial.p99_ms:.2f} ms")

    async def _asked(self, rate_per_s: float, seconds: int, seed: int) -> Slice:
        loaded, outcome = await self._writer.work(self._load.run(rate_per_s, seconds, seed))
        self._soak.texts += outcome.texts
        if not loaded.answered:
            errors = dict(loaded.errors)
            raise BenchError(f"{self._load.url}: not one answer came, errors {errors}")
        return Slice.of(loaded, outcome, self._node.worker_rss_bytes)


def options_of(words: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="in all; default 30")
    parser.add_argument("--slice-seconds", type=int, default=30, help="of one line; default 30")
    parser.add_argument("--share", type=float, default=0.8, help="of the top rate; default 0.8")
    parser.add_argument("--identifiers", type=int, default=10_000, help="default 10000")
    parser.add_argument("--writes-per-second", type=float, default=20.0, help="default 20")
    parser.add_argument(
        "--visible-ms",
        type=int,
        default=100,
        help="a question sent so long after an acknowledgement must get the new value; default 100",
    )
    parser.add_argument("--output", type=Path, help="write the figures to this file, as JSON")
    options = parser.parse_args(words)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    lanes = lanes_for(options.writes_per_second, options.visible_ms / 1e3)
    bounds = (
        ("--minutes", options.minutes, 0.01, _MINUTES_MAX),
        ("--slice-seconds", options.slice_seconds, 1, _SLICE_SECONDS_MAX),
        ("--share", options.share, 0.05, 1.0),
        ("--writes-per-second", options.writes_per_second, 0.1, _WRITES_PER_S_MAX),
        ("--visible-ms", options.visible_ms, 0, _VISIBLE_MS_MAX),
        # Each write that is under way has identifiers of its own.
        ("--identifiers", options.identifiers, max(2, lanes), _IDENTIFIERS_MAX),
    )
    for name, number, least, most in bounds:
        if not least <= number <= most:
            parser.error(f"{name} {number:g}: expected {least:g} to {most:g}")


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "output"}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _say_when(line: str) -> None:
    _say(f"{time.strftime('%H:%M:%S')} {line}")


if __name__ == "__main__":
    sys.exit(main())
