"""Factories, partners and registrars ask a node for a while, and every answer is checked.

    python -m loadtest.load --time 60s --users 40 --shape day

Without --url the node of the data folder (IDNODE_DATA, ./var) is asked; if none runs there, one of
its own is started in a temporary folder and stopped again. Exit code 1 if a request failed, an
answer was wrong, or the node counted something else than the users got.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.load_node import LoadError, LoadNode, own_node, running_node
from loadtest.load_products import COUNT, PREFIXES, Products, products_of
from loadtest.load_registration import (
    application_key,
    register_by_command,
    register_by_http,
    wait_answered,
)
from loadtest.load_result import LoadResult
from loadtest.load_settings import TIME_S, USERS, seconds

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# What users get to finish what they are doing: the longest wait of one for an answer, and more.
_STOP_WITHIN_S = 30
# Locust starts, writes its report and ends within this, besides the time of the run.
_LOCUST_WITHIN_S = 120.0
# How long after an acknowledgement another worker may answer with the old value.
_GRACE_S = 0.1
# Exit code of a program that Ctrl-C ended.
_INTERRUPTED = 130
# The callers that a load test on a node in use is counted by.
_SANDBOX = "sandbox"


@dataclass(frozen=True)
class Target:
    """A node with everything registered, and how its users prove who they are.

    Attributes:
        is_key_for_all: every reader sends the key.
        counted_class: the callers whose counts are the users' alone; empty means all callers.
        is_alone: nobody else is counted with them.
    """

    node: LoadNode
    key: str | None
    operator_key_file: Path | None
    is_key_for_all: bool
    counted_class: str
    is_alone: bool
    grace_s: float = _GRACE_S


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    result: LoadResult
    counted: int
    problems: list[str]


def run(target: Target, options: argparse.Namespace) -> Finished:
    """Let the users ask for the given time, and compare their sums with the node's count."""
    report: Path = options.report
    report.mkdir(parents=True, exist_ok=True)
    before = target.node.counted(target.counted_class)
    code, result = _locust(target, options)
    counted = target.node.counted(target.counted_class) - before
    problems = result.problems(counted, target.is_alone)
    if code != 0 and not problems:
        problems.append(f"Locust ended with {code}: {report / 'locust.log'}")
    return Finished(result, counted, problems)


def _locust(target: Target, options: argparse.Namespace) -> tuple[int, LoadResult]:
    report: Path = options.report
    file = report / "result.json"
    file.unlink(missing_ok=True)
    words = ["-f", str(_LOCUSTFILE), "--host", target.node.url, "--headless", "--only-summary"]
    words += ["--stop-timeout", str(_STOP_WITHIN_S), "--html", str(report / "report.html")]
    environment = {**os.environ, **_environment(target, options), "LOAD_RESULT": str(file)}
    with (report / "locust.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "locust", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=options.time + _STOP_WITHIN_S + _LOCUST_WITHIN_S,
            check=False,
        )
    if not file.exists():
        raise LoadError(f"Locust ended with {done.returncode}: see {report / 'locust.log'}")
    return done.returncode, LoadResult.load(file)


def _environment(target: Target, options: argparse.Namespace) -> dict[str, str]:
    key_file = target.operator_key_file
    return {
        "LOAD_PREFIXES": ",".join(options.prefix),
        "LOAD_PRODUCTS": str(options.products),
        "LOAD_KEY": target.key or "",
        "LOAD_KEY_FOR_ALL": "on" if target.is_key_for_all else "off",
        "LOAD_OPERATOR_KEY_FILE": str(key_file) if key_file else "",
        "LOAD_SHAPE": options.shape,
        "LOAD_USERS": str(options.users),
        "LOAD_TIME": str(options.time),
        "LOAD_GRACE_S": str(target.grace_s),
    }


@contextmanager
def _target(options: argparse.Namespace) -> Iterator[Target]:
    """The node to ask, prepared; its key is revoked and what was started is stopped at the end."""
    all_products = products_of(tuple(options.prefix), options.products)
    if options.url:
        yield _by_url(options, all_products)
        return
    data = Path(os.environ.get("IDNODE_DATA") or "var").absolute()
    node = running_node(data)
    if node is not None:
        yield from _by_data_folder(node, data, all_products)
        return
    with tempfile.TemporaryDirectory() as folder, own_node(Path(folder)) as node:
        yield from _own(node, Path(folder) / "data", all_products)


def _by_url(options: argparse.Namespace, all_products: Sequence[Products]) -> Target:
    node = LoadNode(options.url, {})
    file: Path | None = options.operator_key_file
    if file is not None:
        register_by_http(node, file.read_text("utf-8").strip(), all_products)
    else:
        wait_answered(node, all_products)
    is_key_for_all = options.key is not None and not options.anonymous_factories
    return Target(node, options.key, file, is_key_for_all, counted_class="", is_alone=False)


def _by_data_folder(node: LoadNode, data: Path, products: Sequence[Products]) -> Iterator[Target]:
    key_file = Path(os.environ.get("IDNODE_OPERATOR_KEY_FILE") or data / "operator.key")
    register_by_command(node, products)
    with application_key(node) as key:
        yield Target(node, key, key_file, True, counted_class=_SANDBOX, is_alone=True)


def _own(node: LoadNode, data: Path, products: Sequence[Products]) -> Iterator[Target]:
    register_by_command(node, products)
    grace_s = 0.0 if os.environ.get("IDNODE_WORKERS", "1") in ("", "1") else _GRACE_S
    with application_key(node) as key:
        yield Target(node, key, data / "operator.key", False, "", True, grace_s)


def options_of(words: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, told = parser.add_argument, os.environ.get
    time_text, users_text = told("LOAD_TIME") or f"{TIME_S:g}s", told("LOAD_USERS") or str(USERS)
    add("--time", type=_seconds, default=time_text, help="60s, 5m; default LOAD_TIME or 60s")
    add("--users", type=_number, default=users_text, help=f"at the peak; default {USERS}")
    shapes = ("day", "constant")
    shape = told("LOAD_SHAPE") or shapes[0]
    add("--shape", choices=shapes, default=shape, help="a factory's day, or always all users")
    add("--report", type=Path, default=Path("load-report"), help="folder of the report")
    add("--products", type=_number, default=COUNT, help=f"registered in all; default {COUNT:,}")
    add("--prefix", action="append", help=f"repeatable; default {', '.join(PREFIXES)}")
    add("--url", type=_url, help="address of a node that runs, of one machine of it")
    add("--key", default=told("LOAD_KEY") or None, help="with --url: API key of an application")
    add("--operator-key-file", type=Path, help="with --url: registers products, has registrars")
    add("--anonymous-factories", action="store_true", help="with --url: only partners use the key")
    options = parser.parse_args(words)
    options.prefix = options.prefix or list(PREFIXES)
    if options.shape not in shapes:
        parser.error(f"LOAD_SHAPE is {options.shape!r}: expected {' or '.join(shapes)}")
    return options


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected http://host:port")
    return text.rstrip("/")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 10_000_000):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 10000000")
    return int(text)


def main(words: Sequence[str] | None = None) -> int:
    """Run, print the summary on one screen; exit code 1 if anything is not as it must be."""
    options = options_of(words)
    try:
        with _target(options) as target:
            _say(f"{options.users} users, {options.time:g} s, {options.shape}: {target.node.url}")
            finished = run(target, options)
    except (LoadError, OSError, subprocess.SubprocessError) as error:
        _say(f"load: {error}")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    report = options.report / "report.html"
    _say(finished.result.text(finished.counted, target.is_alone, report))
    for problem in finished.problems:
        _say(f"FAILED: {problem}")
    return 1 if finished.problems else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
