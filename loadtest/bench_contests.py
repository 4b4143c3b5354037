"""The lines of `make bench`: which sides each compares, and what is wanted of them.

Lines that share a side are measured in the same rounds, one side after the other.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from loadtest import bench_asgi_redis, bench_native
from loadtest.bench_arena import Arena
from loadtest.bench_book import Book, product_url
from loadtest.bench_figures import P99, BenchError, Line, Measure, Result, beyond, result_of
from loadtest.bench_load import Questions
from loadtest.bench_nginx import Constant
from loadtest.bench_node import ServedNode
from loadtest.bench_programs import Answer, ask, printed
from loadtest.bench_sides import Side, batch_side, node_side, tier_side
from loadtest.ports import free_port

# As many identifiers as a factory's products that are asked for in one hour.
_SMALL = 10_000
_BATCH = 100
_MEMORY_IDENTIFIERS = 110_000
_ROWS = 200_000
# Rounds of lines that take a minute each.
_SLOW_ROUNDS_MAX = 3
# Not measured: connections, caches of the processor and of the database begin cold.
_FIRST_S = 1

_NGINX = ("wrk", "nginx")
_OFF = {"IDNODE_L1_ENTRIES": "0", "IDNODE_L2": "off"}

Sides = dict[str, Side]
Open = Callable[[Arena, ExitStack, set[str]], Sides]
Run = Callable[[Arena, Sequence[Line], int, int], list[Result]]


@dataclass(frozen=True, slots=True)
class Contest:
    """Lines that are measured together; `run` takes those wanted, the rounds and their seconds."""

    lines: tuple[Line, ...]
    run: Run


def _in_turn(
    open_sides: Open, arena: Arena, lines: Sequence[Line], rounds: int, seconds: int
) -> list[Result]:
    """Ask the sides one after the other, round by round (A B A B)."""
    wanted = {name for line in lines for name in (line.over, line.under)}
    measured: dict[str, list[Measure]] = {name: [] for name in wanted}
    with ExitStack() as stack:
        found = open_sides(arena, stack, wanted)
        sides = [side for name, side in found.items() if name in wanted]
        for side in sides:
            _measure(arena, side, _FIRST_S, seed=0)
        for number in range(1, rounds + 1):
            for side in sides:
                measured[side.name].append(_measure(arena, side, seconds, seed=number))
            _say_round(arena, f"round {number} of {rounds}", measured)
    return [
        result_of(line, *([line.of(m) for m in measured[name]] for name in (line.over, line.under)))
        for line in lines
    ]


def _measure(arena: Arena, side: Side, seconds: int, seed: int) -> Measure:
    try:
        side.prepare()
        side.check()
        prefix = side.book.prefix
        measure = arena.wrk.measure(side.url, prefix, side.questions, seconds=seconds, seed=seed)
        side.check_after(measure)
    except BenchError as error:
        raise BenchError(f"{side.name}: {error}") from None
    return side.figure(measure)


def _say_round(arena: Arena, number: str, measured: dict[str, list[Measure]]) -> None:
    figures = (
        f"{name} {rounds[-1].rate_per_s:,.0f}/s p99 {rounds[-1].p99_ms:.2f} ms"
        for name, rounds in sorted(measured.items())
    )
    arena.say(f"{number}: {', '.join(figures)}")


# --- what the node is compared with ---


def _warm_node(
    arena: Arena, stack: ExitStack, book: Book, questions: Questions, **switches: str
) -> ServedNode:
    node = arena.node(stack, book, **switches)
    node.warm(questions.numbers, questions.path)
    return node


def _nginx_side(
    arena: Arena, stack: ExitStack, name: str, book: Book, questions: Questions, constant: Constant
) -> Side:
    nginx = arena.nginx(stack, constant)
    return Side(name, nginx.url, questions, book, nginx.check)


def _constant(answer: Answer) -> Constant:
    """The same body and type from nginx, which adds headers of about the same size."""
    return Constant(200, answer.body, answer.headers.get("content-type", ""))


def _hello_side(arena: Arena, stack: ExitStack, book: Book, questions: Questions) -> Side:
    body_file = arena.place("answer")
    body = book.answer(0).body
    body_file.write_bytes(body)
    url = arena.application(stack, "bench_asgi_hello", "/", "--body-file", str(body_file))
    return Side("ASGI hello", url, questions, book, partial(_check_body, url, "/", body))


def _check_body(url: str, path: str, expected: bytes) -> None:
    answer = ask(url, path)
    if answer.status != 200 or expected not in answer.body:
        raise BenchError(f"{url}{path}: wrong answer: {answer.status} {answer.body[:200]!r}")


# --- the contests ---


def _cached(count: int, arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """Cached answers: the node, nginx with a constant of their size, and a bare application."""
    book = arena.book(_SMALL)
    questions = Questions(min(count, book.count))
    node = _warm_node(arena, stack, book, questions)
    sides = {"node": node_side("node", node, questions)}
    if "nginx" in wanted:
        constant = _constant(book.answer(0))
        sides["nginx"] = _nginx_side(arena, stack, "nginx", book, questions, constant)
    if "ASGI hello" in wanted:
        sides["ASGI hello"] = _hello_side(arena, stack, book, questions)
    return sides


def _redirect(arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """Where a product leads: the node, and nginx with one constant Location."""
    book = arena.book(_SMALL)
    questions = Questions(book.count, path="/")
    node = _warm_node(arena, stack, book, questions)
    constant = Constant(302, location=product_url(0))
    nginx = _nginx_side(arena, stack, "nginx 302", book, questions, constant)
    return {"redirect": node_side("redirect", node, questions), "nginx 302": nginx}


def _one_node(arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """One node in one state, asked in different ways."""
    book = arena.book(_SMALL)
    questions = Questions(book.count)
    node = _warm_node(arena, stack, book, questions)
    sides = {"node": node_side("node", node, questions)}
    if "with key" in wanted:
        with_key = Questions(book.count, key=book.application_key())
        sides["with key"] = node_side("with key", node, with_key)
    if "batch" in wanted:
        batches = Questions(book.count, path="/api/resolve", batch=_BATCH)
        sides["batch"] = batch_side("batch", node, batches)
    return sides


def _counting(arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """The same node twice, one of them without counting."""
    book = arena.book(_SMALL)
    questions = Questions(book.count)
    counting = _warm_node(arena, stack, book, questions)
    silent = _warm_node(arena, stack, book, questions, IDNODE_COUNTING="off")
    return {
        "counting": node_side("counting", counting, questions),
        "not counting": node_side("not counting", silent, questions),
    }


def _redis(arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """Answers from Redis: no cache in the process, every entry in the shared one and young."""
    book = arena.book(_SMALL)
    questions = Questions(book.count)
    node = arena.node(stack, book, IDNODE_L1_ENTRIES="0")
    redis_url = book.addresses.redis_url

    def make_young() -> None:
        bench_asgi_redis.forget(redis_url)
        node.warm(questions.numbers)

    body, paths = book.answer(0).body, [book.path(number) for number in questions.numbers]
    bench_asgi_redis.fill(redis_url, dict.fromkeys(paths, body))
    words = ("--run-file", str(book.addresses.run_file))
    url = arena.application(stack, "bench_asgi_redis", paths[0], *words)
    side = tier_side("node on Redis", node, questions, tier="l2")
    side.prepare = make_young
    check = partial(_check_body, url, paths[-1], body)
    return {
        side.name: side,
        "ASGI Redis GET": Side("ASGI Redis GET", url, questions, book, check),
    }


def _postgres(arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """Answers from PostgreSQL: no caches, one look-up a question."""
    book = arena.book(_SMALL)
    questions = Questions(book.count)
    node = arena.node(stack, book, **_OFF)
    words = ("--run-file", str(book.addresses.run_file))
    url = arena.application(stack, "bench_asgi_select", book.path(0), *words)
    last = questions.numbers[-1]
    check = partial(_check_body, url, book.path(last), product_url(last).encode())
    side = tier_side("node on PostgreSQL", node, questions, tier="registry")
    return {side.name: side, "ASGI SELECT": Side("ASGI SELECT", url, questions, book, check)}


def _large_hot(arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """As many cached answers, spread over the large book and all that the small one has."""
    sides = {}
    small, large = arena.book(_SMALL), arena.book(arena.identifiers)
    for name, book in (("small hot", small), ("large hot", large)):
        questions = Questions(small.count, stride=book.count // small.count)
        node = _warm_node(arena, stack, book, questions)
        sides[name] = node_side(name, node, questions)
    return sides


def _large_cold(arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """Without caches, at random over the whole of either book."""
    sides = {}
    for name, count in (("small cold", _SMALL), ("large cold", arena.identifiers)):
        book = arena.book(count)
        node = arena.node(stack, book, **_OFF)
        sides[name] = tier_side(name, node, Questions(book.count), tier="registry")
    return sides


def _https(arena: Arena, stack: ExitStack, wanted: set[str]) -> Sides:
    """TLS ended by the node and by nginx, with one certificate, on connections that stay."""
    book = arena.book(_SMALL)
    questions = Questions(book.count)
    certificate, port = arena.certificate(), free_port()
    node = _warm_node(
        arena,
        stack,
        book,
        questions,
        IDNODE_HTTPS=f"127.0.0.1:{port}",
        IDNODE_TLS_CERT=str(certificate.certificate),
        IDNODE_TLS_KEY=str(certificate.key),
    )
    nginx = arena.nginx(stack, _constant(book.answer(0)), certificate)
    url = f"https://127.0.0.1:{port}"
    return {
        "node TLS": node_side("node TLS", node, questions, url),
        "nginx TLS": Side("nginx TLS", nginx.url, questions, book, nginx.check),
    }


def _memory(arena: Arena, lines: Sequence[Line], rounds: int, seconds: int) -> list[Result]:
    """Bytes by which the worker grows for each cached answer, less the answer's own."""
    book = arena.book(_MEMORY_IDENTIFIERS)
    first, others = range(book.count // 11), range(book.count // 11, book.count)
    grown, bodies = [], []
    for number in range(1, min(rounds, _SLOW_ROUNDS_MAX) + 1):
        with ExitStack() as stack:
            node = arena.node(stack, book)
            node.warm(first)
            before_bytes = node.worker_rss_bytes
            bodies.append(node.warm(others) / len(others))
            grown.append((node.worker_rss_bytes - before_bytes) / len(others))
        arena.say(f"round {number}: {grown[-1]:.0f} bytes an answer of {bodies[-1]:.0f} bytes")
    return [beyond(line, grown, bodies) for line in lines]


def _registration(arena: Arena, lines: Sequence[Line], rounds: int, seconds: int) -> list[Result]:
    """Rows a second of bulk registration and of a plain COPY of the same rows."""
    rows = min(_ROWS, arena.identifiers)
    registered, copied = [], []
    with ExitStack() as stack:
        book = arena.empty_book(stack)
        for number in range(1, min(rounds, _SLOW_ROUNDS_MAX) + 1):
            # New identifiers each time: those that are there already cost nothing.
            figures = _bulk(book, rows, f"{book.prefix}.{number}")
            registered.append(figures["registered_rows_per_s"])
            copied.append(figures["copied_rows_per_s"])
            arena.say(f"round {number}: {registered[-1]:,} rows/s, COPY {copied[-1]:,} rows/s")
    return [result_of(line, registered, copied) for line in lines]


def _bulk(book: Book, rows: int, prefix: str) -> dict[str, float]:
    words = ["--rows", str(rows), "--prefix", prefix, "--data", str(book.data), "--at-least", "0"]
    out = printed("bulk registration", ["loadtest.bulk_registration", *words], book.environment)
    figures: dict[str, float] = json.loads(out)
    return figures


# --- the lines ---

CONTESTS = (
    Contest(
        (
            Line("cached-one", "node", "nginx", at_least=0.85, needs=_NGINX),
            Line("cached-one-hello", "node", "ASGI hello", at_least=4),
        ),
        partial(_in_turn, partial(_cached, 1)),
    ),
    Contest(
        (
            Line("cached-10000", "node", "nginx", at_least=0.85, needs=_NGINX),
            Line("cached-10000-hello", "node", "ASGI hello", at_least=4),
            Line("p99", "node", "nginx", at_most=2, figure=P99, needs=_NGINX),
        ),
        partial(_in_turn, partial(_cached, _SMALL)),
    ),
    Contest(
        (
            Line("api-key", "with key", "node", at_least=0.95),
            Line("batch-100", "batch", "node", at_least=2),
        ),
        partial(_in_turn, _one_node),
    ),
    Contest(
        (Line("redirect", "redirect", "nginx 302", at_least=0.8, needs=_NGINX),),
        partial(_in_turn, _redirect),
    ),
    Contest(
        (Line("counting", "counting", "not counting", at_least=0.97),),
        partial(_in_turn, _counting),
    ),
    Contest(
        (Line("https", "node TLS", "nginx TLS", aim=0.5, needs=("wrk", "nginx", "openssl")),),
        partial(_in_turn, _https),
    ),
    Contest(
        (Line("redis", "node on Redis", "ASGI Redis GET", at_least=0.8),),
        partial(_in_turn, _redis),
    ),
    Contest(
        (Line("postgres", "node on PostgreSQL", "ASGI SELECT", at_least=0.8),),
        partial(_in_turn, _postgres),
    ),
    Contest(bench_native.LINES, bench_native.measured),
    Contest(bench_native.ADMINISTRATION, bench_native.administered),
    Contest(
        (Line("memory", "growth", "body", at_most=600, needs=()),),
        _memory,
    ),
    Contest(
        (Line("registration", "idnode register", "COPY", at_least=0.5, needs=()),),
        _registration,
    ),
    Contest(
        (Line("large-hot", "large hot", "small hot", at_least=0.95),),
        partial(_in_turn, _large_hot),
    ),
    Contest(
        (Line("large-cold", "large cold", "small cold", at_least=0.8),),
        partial(_in_turn, _large_cold),
    ),
)
LINES = tuple(line for contest in CONTESTS for line in contest.lines)
