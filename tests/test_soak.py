"""`make soak`: what it takes for an error, how it keeps a rate, and how it judges."""

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest import soak
from loadtest.bench_arena import missing
from loadtest.bench_book import product_url
from loadtest.bench_figures import BenchError
from loadtest.bench_load import Questions, Wrk
from loadtest.load_node import LoadNode
from loadtest.plain_client import PlainClient, Sums, get
from loadtest.soak_figures import HEADING, Slice, Soak, Verdict, row, summary
from loadtest.soak_load import (
    Load,
    PacedLoad,
    load_from_wrk,
)
from loadtest.soak_writer import (
    Outcome,
    Revisions,
    Target,
    Writer,
    lanes_for,
    name_of,
    revision_in,
)
from tests.conftest import RunningNode
from tests.tenant import tenant, text_value

TOP = Path(__file__).parent.parent
NO_ERRORS = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}


# -- the load


def wrk_output(**changed: Any) -> str:
    figures = {"answered": 3000, "sent": 3002, "p50_us": 700, "p99_us": 2100, "errors": NO_ERRORS}
    return f"Running 3s test @ http://127.0.0.1:1/\n{json.dumps(figures | changed)}\n"


def test_the_rate_of_a_load_is_that_of_the_time_in_which_was_asked() -> None:
    load = load_from_wrk(wrk_output(), seconds=2)
    assert load == Load(2, 3002, 3000, 0.7, 2.1, {})
    assert load.rate_per_s == 1500


def test_errors_of_a_load_are_figures_and_not_its_end() -> None:
    assert load_from_wrk(wrk_output(errors=NO_ERRORS | {"timeout": 2}), 2).errors == {"timeout": 2}


def test_a_load_without_figures_is_refused() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        load_from_wrk("unable to connect to 127.0.0.1:1\n", 2)


def test_the_script_asks_as_the_benchmark_does_and_waits() -> None:
    questions = Questions(10_000)
    load = PacedLoad(Wrk("wrk", (), Path()), "http://127.0.0.1:1", "88.1", questions)
    script = load.script(72_500.0, 30, seed=3)
    assert script.startswith(questions.script("88.1", 3))
    assert "now_s + 30" in script
    assert "due_s + turn / 72500.0" in script


# -- what an answer must be


def body_of(number: int, revision: int, url: str | None = None) -> bytes:
    values = [
        text_value(1, "NAME", name_of(number, revision)),
        text_value(2, "URL", url or product_url(number)),
    ]
    answer = {"responseCode": 1, "handle": f"88.1/{number:010d}", "values": values}
    return json.dumps(answer).encode()


@pytest.mark.parametrize("revision", [0, 1, 12_345])
def test_an_answer_shows_its_revision(revision: int) -> None:
    assert revision_in("88.1/0000000007", 7, 200, body_of(7, revision)) == revision


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b'{"responseCode":2}'),
        (200, b'{"responseCode":100,"handle":"88.1/0000000007"}'),
        (200, body_of(8, 0)),
        (200, body_of(7, 0, "https://example.com/other")),
        (200, body_of(8, 0).replace(b"88.1/0000000008", b"88.1/0000000007")),
        (200, b"{"),
    ],
)
def test_any_other_answer_is_wrong(status: int, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"HTTP|Expecting"):
        revision_in("88.1/0000000007", 7, status, body)


def test_an_answer_may_show_a_write_that_is_under_way_but_not_go_back() -> None:
    revisions = Revisions(2)
    assert revisions.begin(1) == 1
    assert revisions.problem(1, 0, revisions.oldest(1)) is None
    assert revisions.problem(1, 1, revisions.oldest(1)) is None
    revisions.bind(1, 1)
    assert revisions.problem(1, 0, revisions.oldest(1)) == "revision 0, expected 1 to 1"
    assert revisions.problem(1, 2, revisions.oldest(1)) == "revision 2, expected 1 to 1"
    revisions.bind(1, 0)
    assert revisions.oldest(1) == 1


def test_enough_writes_are_under_way_for_the_rate() -> None:
    assert lanes_for(20, 0.05) == 5
    assert lanes_for(0.1, 0.1) == 1


# -- the writer


class Answering:
    """A server that takes writes and answers reads in one way; `written` after the first write."""

    def __init__(self, put_status: int, read: Callable[[str], tuple[int, bytes]] | None) -> None:
        self.written = asyncio.Event()
        self._put_status = put_status
        self._read = read

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                method, path = await self._request(reader)
                if method == "GET" and self._read is None:
                    return
                status, body = self._answer(method, path.rpartition("/")[2])
                head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[str, str]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"Content-Length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        method, path, _ = head.split(" ", 2)
        return method, path

    def _answer(self, method: str, suffix: str) -> tuple[int, bytes]:
        if method == "PUT":
            self.written.set()
            return self._put_status, b"{}"
        assert self._read is not None
        return self._read(suffix)


@asynccontextmanager
async def served(answering: Answering) -> AsyncIterator[Target]:
    server = await asyncio.start_server(answering.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield Target(((host, port),), (host, port), "88.1", 10, "key")


async def outcome_of(answering: Answering) -> Outcome:
    """What the writer says after one write; its checks still follow when the load is over."""
    async with served(answering) as target:
        _, outcome = await Writer(target, 5, 0.01).work(answering.written.wait())
    return outcome


def right(suffix: str) -> tuple[int, bytes]:
    return 200, body_of(int(suffix), 0)


async def test_an_answer_from_before_an_acknowledged_write_is_an_error() -> None:
    outcome = await outcome_of(Answering(200, right))
    assert set(outcome.errors) == {"stale answer"}
    assert re.match(r"88\.1/000000000\d: revision 0, expected 1 to \d", outcome.texts[0])
    assert outcome.reads.sent == outcome.reads.answered == 3 * outcome.writes


async def test_a_refused_read_is_an_error() -> None:
    outcome = await outcome_of(Answering(200, lambda _: (503, b'{"responseCode":2}')))
    assert set(outcome.errors) == {"wrong answer"}
    assert "HTTP 503" in outcome.texts[0]


async def test_a_lost_answer_is_an_error_and_not_an_answer() -> None:
    outcome = await outcome_of(Answering(200, None))
    assert set(outcome.errors) == {"read lost"}
    assert (outcome.reads.sent, outcome.reads.answered) == (3 * outcome.writes, 0)


async def test_a_refused_write_is_an_error_and_not_a_write() -> None:
    outcome = await outcome_of(Answering(403, right))
    assert set(outcome.errors) == {"write refused"}
    assert (outcome.writes, outcome.reads.sent) == (0, 0)


async def test_a_load_that_fails_ends_the_writer() -> None:
    async def failing() -> None:
        raise BenchError("wrk ended with 1")

    async with served(Answering(200, right)) as target:
        with pytest.raises(BenchError, match="wrk ended"):
            await Writer(target, 5, 0.01).work(failing())


async def until_changed(place: tuple[str, int], target: Target, sums: Sums) -> None:
    """Return when the node answers with a product that was changed."""
    client = PlainClient(*place)
    while True:
        for number in range(target.count):
            status, _, body = await client.ask(get(target.path(number)), sums)
            if revision_in(target.identifier(number), number, status, body):
                await client.close()
                return


async def test_on_a_node_every_change_is_seen_and_every_read_is_counted(node: RunningNode) -> None:
    factory = await asyncio.to_thread(tenant, node, "88.608.7081", 7_081)
    with factory.operator as client:
        for number in range(4):
            path = f"/api/handles/{factory.prefix}/{number:010d}"
            name, url = name_of(number, 0), product_url(number)
            values = [text_value(1, "NAME", name), text_value(2, "URL", url)]
            assert client.put(path, json=values).status_code in (200, 201)
    place = ("127.0.0.1", node.port)
    target = Target((place,), place, factory.prefix, 4, node.operator_key)
    page, sums = LoadNode(node.url, {}), Sums()
    before = await asyncio.to_thread(page.counted)
    _, outcome = await Writer(target, 10, 0.1).work(until_changed(place, target, sums))
    assert (outcome.errors, outcome.texts) == (Counter(), [])
    assert outcome.writes > 0
    counted = await asyncio.to_thread(page.counted) - before
    assert counted == outcome.reads.answered + sums.answered


# -- the verdicts


def slice_of(**changed: Any) -> Slice:
    figures: dict[str, Any] = {
        "rate_per_s": 8_000.0,
        "p50_ms": 0.5,
        "p99_ms": 2.0,
        "rss_bytes": 100_000_000,
        "sent": 110,
        "answered": 100,
        "writes": 7,
        "errors": {},
    }
    return Slice(**(figures | changed))


def ten(**changed: Any) -> list[Slice]:
    """Ten slices, the last fifth of which is different."""
    return [slice_of()] * 8 + [slice_of(**changed)] * 2


def verdict(soaked: Soak, name: str) -> Verdict:
    return next(one for one in soaked.verdicts if one.name == name)


def soaked(slices: list[Slice], counted: int | None = None) -> Soak:
    answered = sum(one.answered for one in slices)
    trial = slice_of(rate_per_s=10_000.0, sent=0, answered=0, writes=0)
    return Soak(0.8, [trial], slices, answered if counted is None else counted)


def test_a_run_in_which_nothing_changed_is_good() -> None:
    assert soaked(ten()).is_good
    assert [one.is_good for one in soaked(ten()).verdicts] == [True] * 5


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"errors": {"status": 1}}, "errors"),
        ({"rss_bytes": 108_000_001}, "memory"),
        ({"p99_ms": 3.01}, "p99"),
    ],
)
def test_what_changed_in_the_last_fifth_is_missed(changed: dict[str, Any], missed: str) -> None:
    said = [one.name for one in soaked(ten(**changed)).verdicts if one.is_good is False]
    assert said == [missed]
    assert not soaked(ten(**changed)).is_good


@pytest.mark.parametrize("changed", [{"rss_bytes": 108_000_000}, {"p99_ms": 3.0}])
def test_what_a_machine_differs_by_is_not_missed(changed: dict[str, Any]) -> None:
    assert soaked(ten(**changed)).is_good


def test_of_much_memory_two_percent_are_allowed() -> None:
    slices = [slice_of(rss_bytes=1_000_000_000)] * 8
    assert soaked([*slices, *[slice_of(rss_bytes=1_019_000_000)] * 2]).is_good
    assert not soaked([*slices, *[slice_of(rss_bytes=1_021_000_000)] * 2]).is_good


@pytest.mark.parametrize(
    ("counted", "is_good"), [(999, False), (1000, True), (1100, True), (1101, False)]
)
def test_the_ledger_lies_between_answers_and_requests(counted: int, is_good: bool) -> None:
    assert verdict(soaked(ten(), counted), "ledger").is_good is is_good


def test_a_load_far_below_the_wanted_rate_shows_nothing() -> None:
    slices = [slice_of(rate_per_s=7_500.0)] * 10
    assert verdict(soaked(slices), "rate") == Verdict(
        "rate", False, "7,500/s, 75% of the top rate, wanted 8,000/s"
    )


def test_the_top_rate_is_the_median_of_trials_among_the_slices() -> None:
    trials = [slice_of(rate_per_s=rate, sent=10, answered=10) for rate in (9e3, 12e3, 10e3)]
    soaked = Soak(0.8, trials, ten(), 1_030)
    assert (soaked.top_rate_per_s, soaked.wanted_rate_per_s) == (10_000, 8_000)
    assert soaked.is_good
    trials[0].errors["status"] = 1
    assert not verdict(soaked, "errors").is_good


def test_a_short_run_is_judged_by_its_errors_and_the_ledger_alone() -> None:
    short = soaked([slice_of(rate_per_s=1.0), slice_of(p99_ms=50.0, rss_bytes=900_000_000)])
    assert [one.is_good for one in short.verdicts] == [True, True, None, None, None]
    assert short.is_good
    assert verdict(short, "memory").text == "not judged: 2 slices, 5 are needed"


def test_a_run_without_answers_or_writes_is_not_without_errors() -> None:
    assert not verdict(soaked([slice_of(writes=0)] * 2), "errors").is_good
    assert not verdict(soaked([slice_of(answered=0)] * 2), "errors").is_good
    assert not soaked([]).is_good


def test_a_slice_adds_up_what_wrk_and_the_writer_have_seen() -> None:
    outcome = Outcome(5, Sums(sent=16, answered=15), Counter({"stale answer": 1}))
    one = Slice.of(Load(2, 1001, 1000, 0.5, 2.0, {"timeout": 1}), outcome, 90_000_000)
    assert (one.rate_per_s, one.sent, one.answered, one.writes) == (500.0, 1017, 1015, 5)
    assert one.errors == {"timeout": 1, "stale answer": 1}


def test_a_slice_is_one_line_below_its_heading() -> None:
    shown = row(3, 60, slice_of(errors={"status": 2}))
    assert shown.split() == ["3/60", "8,000", "0.50", "2.00", "100.0", "2", "7"]
    heads = ("slice", "rate/s", "p50 ms", "p99 ms", "RSS MB", "errors", "writes")
    ends = [HEADING.index(head) + len(head) for head in heads]
    assert [match.end() for match in re.finditer(r"\S+", shown)] == ends


def test_the_summary_has_every_verdict_and_the_first_wrong_answers() -> None:
    one = soaked(ten(p99_ms=9.0))
    one.texts = ["88.1/1: revision 0, expected 1 to 1"]
    said = summary(one).splitlines()
    assert said[0] == "wrong: 88.1/1: revision 0, expected 1 to 1"
    assert [line.split()[:2] for line in said[1:]] == [
        ["errors", "ok"],
        ["ledger", "ok"],
        ["rate", "ok"],
        ["memory", "ok"],
        ["p99", "MISSED"],
    ]


# -- the command


@pytest.mark.parametrize(
    "words",
    [
        ["--share", "1.1"],
        ["--minutes", "0"],
        ["--slice-seconds", "0"],
        ["--identifiers", "200001"],
        ["--identifiers", "5"],
        ["--writes-per-second", "0"],
        ["--visible-ms", "-1"],
        ["--minutes", "nan"],
    ],
)
def test_an_option_out_of_its_bounds_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        soak.main(words)
    assert refused.value.code == 2
    assert f"{words[0]} {words[1]}: expected" in capsys.readouterr().err


def test_without_wrk_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if missing(("wrk",)) is None:
        pytest.skip("wrk is in a folder that is always looked in")
    assert soak.main([]) == 2
    assert capsys.readouterr().out == "soak: wrk not installed; on Debian: apt-get install wrk\n"


def test_every_option_is_in_the_document() -> None:
    text = (TOP / "docs/benchmarks.md").read_text("utf-8").partition("## Soak")[2]
    options = vars(soak.options_of([]))
    assert [name for name in options if f"`--{name.replace('_', '-')} " not in text] == []


@pytest.mark.debian
def test_a_short_soak_has_no_error_and_counts_every_answer(tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    words = ["--minutes", "0.07", "--slice-seconds", "2", "--share", "0.3", "--identifiers", "300"]
    # The bound is the benchmark's to show; here it must not depend on how busy the machine is.
    words += ["--writes-per-second", "10", "--visible-ms", "2000", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.soak", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(output.read_text("utf-8"))
    assert len(document["slices"]) == 2
    said = {one["name"]: one["is_good"] for one in document["verdicts"]}
    assert said == {"errors": True, "ledger": True, "rate": None, "memory": None, "p99": None}
    assert document["counted"] >= sum(one["answered"] for one in document["slices"]) > 0
    assert "2/2" in done.stdout
