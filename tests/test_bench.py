"""`make bench`: what it makes of its figures, and that each kind of line can be measured."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest import bench
from loadtest.bench_arena import Arena, missing
from loadtest.bench_asgi_redis import fill, forget
from loadtest.bench_book import needed_bytes
from loadtest.bench_contests import LINES
from loadtest.bench_figures import (
    P99,
    BenchError,
    LeftOutError,
    Line,
    Measure,
    Report,
    beyond,
    measure_from_wrk,
    result_of,
)
from loadtest.bench_load import Questions
from loadtest.bench_nginx import Constant
from loadtest.bench_programs import Program, answers, ask, program
from loadtest.ports import free_port
from tests.conftest import RunningNode

ERRORS = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}
KNOWN = "/api/handles/88.608.1001/00041250500735"


def wrk_output(**changed: Any) -> str:
    figures = {"requests": 3000, "duration_us": 1_500_000, "p99_us": 2100, "errors": ERRORS}
    return (
        "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n"
        f"  3000 requests in 1.50s, 1.00MB read\n{json.dumps(figures | changed)}\n"
    )


def test_the_figures_of_a_load_are_read_from_what_wrk_says() -> None:
    assert measure_from_wrk(wrk_output()) == Measure(3000, 2000.0, 2.1)


@pytest.mark.parametrize("kind", sorted(ERRORS))
def test_a_load_with_one_bad_answer_is_no_measure(kind: str) -> None:
    with pytest.raises(BenchError, match=f"'{kind}': 1"):
        measure_from_wrk(wrk_output(errors=ERRORS | {kind: 1}))


def test_a_load_without_answers_or_figures_is_no_measure() -> None:
    with pytest.raises(BenchError, match="not one answer"):
        measure_from_wrk(wrk_output(requests=0))
    with pytest.raises(BenchError, match="unable to connect"):
        measure_from_wrk("unable to connect to 127.0.0.1:1\n")


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    line = Line("x", "node", "nginx", at_least=0.85)
    result = result_of(line, [90.0, 50.0, 80.0], [100.0, 100.0, 80.0])
    assert (result.rounds, result.ratio) == ((0.9, 0.5, 1.0), 0.9)
    assert (result.over, result.under) == (80.0, 100.0)


@pytest.mark.parametrize(
    ("line", "figure", "verdict"),
    [
        (Line("x", "a", "b", at_least=0.85), 0.85, "ok"),
        (Line("x", "a", "b", at_least=0.85), 0.84, "short"),
        (Line("x", "a", "b", at_most=2), 2.0, "ok"),
        (Line("x", "a", "b", at_most=2), 2.1, "short"),
        (Line("x", "a", "b", aim=0.5), 0.4, "below aim"),
        (Line("x", "a", "b", aim=0.5), 0.5, "ok"),
    ],
)
def test_what_is_wanted_decides_what_is_short(line: Line, figure: float, verdict: str) -> None:
    result = result_of(line, [figure], [1.0])
    assert result.verdict == verdict
    assert Report([result]).is_good is (verdict != "short")


def test_p99_is_compared_in_the_p99_line_and_rates_in_the_others() -> None:
    measure = Measure(10, 5.0, 2.5)
    assert Line("x", "a", "b", at_most=2, figure=P99).of(measure) == 2.5
    assert Line("x", "a", "b", at_least=2).of(measure) == 5.0


def test_memory_is_what_the_worker_grew_by_beyond_the_bodies() -> None:
    result = beyond(Line("memory", "growth", "body", at_most=600), [900.0, 950.0], [300.0, 300.0])
    assert (result.ratio, result.verdict) == (625.0, "short")


def test_bench_json_says_machine_commit_ratios_and_what_is_missing() -> None:
    line = Line("cached-one", "node", "nginx", at_least=0.85)
    report = Report([result_of(line, [9.0], [10.0])], {"https": "why"}, {"redis": "what"})
    document = report.document(bench.machine(), bench.commit())
    assert set(document["machine"]) == {"cores", "memory_gb", "cpu", "python", "kernel"}
    assert document["commit"]
    assert document["ratios"] == [
        {
            "name": "cached-one",
            "ratio": 0.9,
            "at_least": 0.85,
            "rounds": [0.9],
            "medians": {"node": 9.0, "nginx": 10.0},
        }
    ]
    assert (document["left_out"], document["failed"]) == ({"https": "why"}, {"redis": "what"})
    assert not report.is_good


def test_the_table_has_every_line_and_every_reason() -> None:
    line = Line("cached-one", "node", "nginx", at_least=0.85)
    report = Report([result_of(line, [9000.0], [12000.0])], {"https": "why"}, {"redis": "what"})
    table = report.table().splitlines()
    shown = " ".join(table[1].split())
    assert shown == "cached-one 0.750 >= 0.85 short node 9,000 | nginx 12,000"
    assert table[2:] == ["left out: https: why", "FAILED: redis: what"]


def test_every_line_has_a_name_of_its_own_and_one_thing_wanted() -> None:
    assert len({line.name for line in LINES}) == len(LINES)
    for line in LINES:
        assert sum(x is not None for x in (line.at_least, line.at_most, line.aim)) == 1


def test_every_line_is_in_the_document() -> None:
    text = (Path(__file__).parent.parent / "docs/benchmarks.md").read_text("utf-8")
    described = [row.split("`")[1] for row in text.splitlines() if row.startswith("| `")]
    lines = [name for name in described if not name.startswith("--")]
    assert sorted(lines) == sorted(line.name for line in LINES)


def test_a_line_is_left_out_where_its_program_is_missing() -> None:
    assert missing(("no-such-program", "sh")) == "no-such-program not installed"
    assert missing(("sh",)) is None


def test_the_large_book_is_left_out_where_the_disk_has_no_room(tmp_path: Path) -> None:
    with (
        Arena(tmp_path, 10**12, lambda _: None) as arena,
        pytest.raises(LeftOutError, match="GB of disk"),
    ):
        arena.book(10**12)
    assert 5e9 < needed_bytes(10_000_000) < 9e9


def test_an_unknown_line_is_refused() -> None:
    with pytest.raises(SystemExit) as refused:
        bench.main(["--only", "no-such-line"])
    assert refused.value.code == 2


def test_what_nginx_would_take_for_a_variable_is_refused() -> None:
    assert Constant(200, b"it's \\").directives.endswith(r"return 200 'it\'s \\';")
    with pytest.raises(BenchError, match="variable"):
        _ = Constant(200, b'{"price":"$1"}').directives


def test_one_seed_is_one_sequence_of_questions() -> None:
    questions = Questions(10_000)
    assert questions.script("88.1", 7) == questions.script("88.1", 7)
    assert questions.script("88.1", 7) != questions.script("88.1", 8)


@contextmanager
def application(name: str, path: str, log: Path, *words: str) -> Iterator[str]:
    """One of the applications that the node is compared with."""
    port = free_port()
    command = [sys.executable, "-m", f"loadtest.{name}", "--port", str(port), *words]
    started = Program(command, log)
    url = f"http://127.0.0.1:{port}"
    try:
        started.wait_ready(lambda: answers(url, path, 200))
        yield url
    finally:
        started.stop()


def test_the_bare_application_answers_the_constant(tmp_path: Path) -> None:
    body_file = tmp_path / "body"
    body_file.write_bytes(b'{"responseCode":1}')
    words = ("--body-file", str(body_file))
    with application("bench_asgi_hello", "/", tmp_path / "log", *words) as url:
        assert ask(url, "/any").body == b'{"responseCode":1}'


def test_the_redis_application_answers_what_is_in_redis(node: RunningNode, tmp_path: Path) -> None:
    run_file = node.data / "run.json"
    fill(node.run_info.redis_url, {"/a": b"one", "/b": b"two"})
    words = ("--run-file", str(run_file))
    with application("bench_asgi_redis", "/a", tmp_path / "log", *words) as url:
        assert (ask(url, "/b").body, ask(url, "/c").status) == (b"two", 404)


def test_the_select_application_answers_the_record_of_the_book(
    node: RunningNode, tmp_path: Path
) -> None:
    words = ("--run-file", str(node.data / "run.json"))
    with application("bench_asgi_select", KNOWN, tmp_path / "log", *words) as url:
        shown = json.loads(ask(node.url, KNOWN).body)["values"][0]["data"]["value"]
        assert shown.encode() in ask(url, KNOWN).body
        assert ask(url, f"{KNOWN}-unknown").status == 404


def test_a_node_answers_rightly_after_its_entries_left_the_shared_cache(node: RunningNode) -> None:
    before = ask(node.url, KNOWN)
    forget(node.run_info.redis_url)
    after = ask(node.url, KNOWN)
    assert before.status == after.status == 200
    assert before.body == after.body


def test_a_program_that_ends_at_once_says_why(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "raise SystemExit('no room')"]
    with pytest.raises(BenchError, match="no room"):
        Program(words, tmp_path / "log").wait_ready(lambda: False)


def run_bench(tmp_path: Path, *names: str) -> tuple[int, dict[str, Any]]:
    """A quick run of some lines; its exit code and its figures."""
    output = tmp_path / "bench.json"
    words = ["--rounds", "1", "--seconds", "1", "--identifiers", "1000", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.bench", "--only", *names, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert output.exists(), done.stdout + done.stderr
    return done.returncode, json.loads(output.read_text())


def require_measured(run: tuple[int, dict[str, Any]], *names: str) -> None:
    """Every line has a ratio; whether it is short says the machine, and the exit code says it."""
    code, document = run
    assert (document["failed"], document["left_out"]) == ({}, {})
    assert [ratio["name"] for ratio in document["ratios"]] == list(names)
    assert all(ratio["medians"] and len(ratio["rounds"]) == 1 for ratio in document["ratios"])
    is_short = any(
        ratio["ratio"] < ratio.get("at_least", 0)
        or ratio["ratio"] > ratio.get("at_most", float("inf"))
        for ratio in document["ratios"]
    )
    assert code == int(is_short)


def test_memory_and_registration_are_measured_without_other_programs(tmp_path: Path) -> None:
    names = ("memory", "registration")
    require_measured(run_bench(tmp_path, *names), *names)


@pytest.mark.debian
def test_the_programs_that_debian_has_are_found() -> None:
    assert program("nginx")
    assert program("wrk")


@pytest.mark.debian
def test_rates_are_measured_beside_nginx_and_bare_applications(tmp_path: Path) -> None:
    names = ("cached-10000", "cached-10000-hello", "p99", "api-key", "batch-100", "redirect")
    require_measured(run_bench(tmp_path, *names), *names)


@pytest.mark.debian
def test_each_tier_and_tls_are_measured(tmp_path: Path) -> None:
    names = ("https", "redis", "postgres", "large-hot", "large-cold")
    require_measured(run_bench(tmp_path, *names), *names)
