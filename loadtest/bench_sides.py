"""The two sides of a line: who is asked, what is asked, and whether the answers are right."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from loadtest.bench_book import Book
from loadtest.bench_figures import BenchError, Measure
from loadtest.bench_load import Questions
from loadtest.bench_node import ServedNode, check
from loadtest.bench_programs import ask

# So much of a load may be answered by another tier than the one that is measured: entries that
# grew too old while it lasted.
_ELSEWHERE_MAX = 0.01


def nothing() -> None:
    """Nothing to prepare."""


@dataclass
class Side:
    """One side: `prepare` and `check` run before each load, `check_after` behind it."""

    name: str
    url: str
    questions: Questions
    book: Book
    check: Callable[[], None]
    prepare: Callable[[], None] = nothing
    check_after: Callable[[Measure], None] = field(default=lambda _: None)

    def figure(self, measure: Measure) -> Measure:
        """The measure in identifiers, of which a batch has many."""
        return replace(measure, rate_per_s=measure.rate_per_s * max(1, self.questions.batch))


def node_side(name: str, node: ServedNode, questions: Questions, url: str | None = None) -> Side:
    """The node; what it is asked is checked for the right answer about three products."""
    where = url or node.url

    def check_answers() -> None:
        numbers = questions.numbers
        for number in {numbers[0], numbers[len(numbers) // 2], numbers[-1]}:
            path = f"{questions.path}{node.book.identifier(number)}"
            answer = ask(where, path, questions.headers)
            location = answer.headers.get("location", "")
            check(node.book, questions.path, number, answer.status, location, answer.body)

    return Side(name, where, questions, node.book, check_answers)


def batch_side(name: str, node: ServedNode, questions: Questions) -> Side:
    """The node, asked for many identifiers in one request."""
    names = [node.book.identifier(number) for number in questions.numbers[: questions.batch]]
    names += names[:1] * (questions.batch - len(names))

    def check_answers() -> None:
        headers = {"Content-Type": "application/json"}
        answer = ask(node.url, questions.path, headers, json.dumps({"identifiers": names}))
        results = json.loads(answer.body)["results"] if answer.status == 200 else []
        found = [result["identifier"] for result in results if result["responseCode"] == 1]
        if found != names:
            raise BenchError(f"batch: wrong answer: {answer.status} {answer.body[:200]!r}")

    return Side(name, node.url, questions, node.book, check_answers)


def tier_side(name: str, node: ServedNode, questions: Questions, *, tier: str) -> Side:
    """The node with caches off: afterwards, `tier` must have given the answers."""
    side = node_side(name, node, questions)
    check_answers, before = side.check, dict[tuple[str, str], float]()

    def check_and_note() -> None:
        check_answers()
        before.update(node.lookups())

    def check_tier(measure: Measure) -> None:
        grown = {key: number - before.get(key, 0) for key, number in node.lookups().items()}
        elsewhere = sum(grown.get((one, "hit"), 0) for one in _OTHERS[tier])
        if elsewhere > _ELSEWHERE_MAX * measure.requests:
            given = {f"{one} {what}": int(number) for (one, what), number in grown.items()}
            raise BenchError(f"not answered by {tier}: {measure.requests} requests, {given}")

    side.check, side.check_after = check_and_note, check_tier
    return side


_OTHERS = {"l2": ("l1", "registry"), "registry": ("l1", "l2")}
