"""The load test: it accepts right answers, and tells wrong ones precisely."""

import json
import os
import random
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from loadtest.load_answers import (
    NotAnsweredError,
    Question,
    WrongAnswerError,
    check_found,
    check_not_found,
    read_many,
    read_one,
)
from loadtest.load_day import share_of_peak
from loadtest.load_products import Products, product_values, products_of
from loadtest.load_result import TEXTS_MAX, LoadResult, LoadSums
from loadtest.load_revisions import ChangingRecords, Revisions
from loadtest.load_settings import seconds
from tests.conftest import RunningNode
from tests.tenant import tenant, text_value

TOP: Final = Path(__file__).resolve().parent.parent
PATIENCE_S: Final = 180
NAME: Final = "88.608.7001/P0000007"
# Enough for one registrar beside factories and partners.
USERS: Final = "10"


# -- whole runs


def load(report: Path, *words: str, data: Path) -> "subprocess.CompletedProcess[str]":
    """`python -m loadtest.load` for three seconds; the node of `data` is asked, if one runs."""
    options = ["--time", "3s", "--users", USERS, "--shape", "constant", "--report", str(report)]
    return python("loadtest.load", *options, *words, IDNODE_DATA=str(data))


def python(module: str, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {
        name: text for name, text in os.environ.items() if not name.startswith(("IDNODE_", "LOAD_"))
    }
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env={**kept, **environment},
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def result_of(report: Path) -> LoadResult:
    return LoadResult.load(report / "result.json")


def test_a_run_without_a_node_starts_one_and_every_answer_is_right_and_counted(
    tmp_path: Path,
) -> None:
    report = tmp_path / "report"
    words = ["--products", "300", "--prefix", "88.608.7001", "--prefix", "88.608.7002"]
    done = load(report, *words, "--shape", "day", data=tmp_path / "no-node")
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(report)
    assert result.requests_failed == result.wrong == 0
    assert result.answered == result.sent > 0
    assert "exactly what was answered" in done.stdout
    page = (report / "report.html").read_text("utf-8")
    assert "factory: one product" in page
    assert "partner: one product" in page
    assert not (tmp_path / "no-node").exists()


def test_a_run_on_a_node_in_use_is_counted_as_a_sandbox(node: RunningNode, tmp_path: Path) -> None:
    done = load(tmp_path, "--products", "40", "--prefix", "88.608.7011", data=node.data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert node.url in done.stdout
    assert "registrar: read back" in (tmp_path / "report.html").read_text("utf-8")
    assert "exactly what was answered" in done.stdout


def test_a_record_that_was_changed_behind_the_users_back_fails_the_run(
    node: RunningNode, tmp_path: Path
) -> None:
    factory = tenant(node, "88.608.7012", 7_012)
    key, _ = factory.application_key("load", sandbox=True)
    words = ["--url", node.url, "--key", key, "--products", "3", "--prefix", factory.prefix]
    key_file = str(node.data / "operator.key")
    done = load(tmp_path, *words, "--operator-key-file", key_file, data=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with factory.operator as client:
        values = [*product_values(1)[1:], text_value(1, "NAME", "something else")]
        path = f"/api/handles/{factory.prefix}/P0000001"
        assert client.put(path, json=values).status_code == 200
    done = load(tmp_path, *words, data=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert (
        f"wrong answer: {factory.prefix}/P0000001: value 1 (NAME) is 'something else',"
        " registered was '轴承 Bearing 1'"
    ) in done.stdout
    assert "FAILED: " in done.stdout


def test_products_of_a_prefix_that_is_not_allotted_are_refused_with_advice(
    node: RunningNode, tmp_path: Path
) -> None:
    key_file = str(node.data / "operator.key")
    words = ["--url", node.url, "--operator-key-file", key_file, "--prefix", "88.608.7013"]
    done = load(tmp_path, *words, data=tmp_path)
    assert done.returncode == 1
    assert "idnode prefix allot 88.608.7013" in done.stdout
    assert not (tmp_path / "result.json").exists()


class Silent(socketserver.BaseRequestHandler):
    """Reads the head of a request, counts it and closes the connection without an answer."""

    requests: Counter[bytes]

    def handle(self) -> None:
        head = self.request.recv(65_536)
        if head:
            self.requests[head.split(b" ")[0]] += 1


@contextmanager
def silent_server() -> Iterator[tuple[str, Counter[bytes]]]:
    """A server that answers nothing: its address, and the requests that it got by method."""
    requests: Counter[bytes] = Counter()
    handler = type("CountingSilent", (Silent,), {"requests": requests})
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
        server.shutdown()


def test_a_lost_answer_is_a_failure_and_is_not_asked_for_again_unnoticed(tmp_path: Path) -> None:
    with silent_server() as (url, requests):
        done = python(
            "locust",
            *("-f", "loadtest/locustfile.py", "--host", url, "--headless", "--only-summary"),
            *("--stop-timeout", "10"),
            LOAD_PRODUCTS="100",
            LOAD_SHAPE="constant",
            LOAD_TIME="1s",
            LOAD_USERS="4",
            LOAD_RESULT=str(tmp_path / "result.json"),
        )
    assert done.returncode == 1, done.stderr
    result = result_of(tmp_path)
    assert result.answered == 0
    assert result.requests_failed == result.requests == requests.total() > 0
    assert all(text.startswith("no answer: ") for text in result.failures)


def test_the_help_names_every_option() -> None:
    done = python("loadtest.load", "--help")
    assert done.returncode == 0
    for option in ("--url", "--time", "--users", "--shape", "--key", "--operator-key-file"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--time", "soon"], "expected a number with s, m or h, such as 60s or 5m"),
        (["--users", "0"], "expected a number from 1 to 10000000"),
        (["--shape", "night"], "invalid choice: 'night'"),
        (["--url", "localhost"], "expected http://host:port"),
    ],
)
def test_a_wrong_option_is_told(words: list[str], message: str) -> None:
    done = python("loadtest.load", *words)
    assert done.returncode == 2
    assert message in done.stderr


# -- answers


def answer(number: int = 7, revision: int = 0, **more: object) -> dict[str, Any]:
    """What the node answers for `NAME`, with timestamps."""
    stamped = {"timestamp": "2026-01-01T00:00:00Z"}
    values = [{**value, **stamped} for value in product_values(number, revision)]
    return {"responseCode": 1, "handle": NAME, "values": values, **more}


@pytest.mark.parametrize("revision", [0, 3])
def test_a_right_answer_shows_its_revision(revision: int) -> None:
    document = read_one(200, json.dumps(answer(revision=revision)).encode())
    assert check_found(Question(NAME, 7, revision, revision), document) == revision


def changed(position: int, **members: object) -> list[dict[str, Any]]:
    values = answer()["values"]
    values[position].update(members)
    return list(values)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (answer(handle="88.608.7001/P0000008"), "the answer is about '88.608.7001/P0000008'"),
        (answer(responseCode=100), "responseCode 100, but it is registered"),
        (answer(number=8), "value 1 (NAME) is '轴承 Bearing 8', registered was '轴承 Bearing 7'"),
        (answer(values=answer()["values"][:2]), "value 3 (URL) is missing"),
        (answer(values=[]), "value 1 (NAME) is missing"),
        (answer(values=changed(1, ttl=5)), "value 2 (SPEC) is {"),
        (answer(values=changed(1, permissions="1100")), "value 2 (SPEC) is {"),
        (
            answer(values=[*answer()["values"], {"index": 9}]),
            "values that were never registered: 9",
        ),
        (answer(values=[*answer()["values"], answer()["values"][0]]), "twice the same"),
        (answer(revision=1), "revision 1, though 0 is the newest that was written"),
    ],
)
def test_a_wrong_answer_is_told_precisely(document: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongAnswerError) as caught:
        check_found(Question(NAME, 7), document)
    assert str(caught.value).startswith(f"{NAME}: ")
    assert message in str(caught.value)


def test_an_older_revision_after_a_newer_one_is_wrong() -> None:
    with pytest.raises(WrongAnswerError, match="revision 3, after revision 5 was acknowledged"):
        check_found(Question(NAME, 7, 5, 6), answer(revision=3))


def test_not_found_is_right_only_for_what_is_not_registered() -> None:
    missing = {"responseCode": 100, "handle": NAME}
    check_not_found(NAME, missing)
    with pytest.raises(WrongAnswerError, match="but it is not registered"):
        check_not_found(NAME, answer())
    with pytest.raises(WrongAnswerError, match="but it is registered"):
        check_found(Question(NAME, 7, 1, 1), missing)
    # Registered a moment ago through another worker.
    assert check_found(Question(NAME, 7, 0, 1), missing) == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [(429, b'{"responseCode":3}'), (503, b'{"responseCode":7}'), (502, b"<html>"), (503, b"")],
)
def test_a_refusal_is_not_taken_for_an_answer(status: int, body: bytes) -> None:
    with pytest.raises(NotAnsweredError, match=f"HTTP {status}"):
        read_one(status, body)
    with pytest.raises(NotAnsweredError, match=f"HTTP {status}"):
        read_many(status, body, 1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"[]"),
        (404, b'{"responseCode":1}'),
        (200, b'{"responseCode":100}'),
        (200, b"not JSON"),
    ],
)
def test_an_answer_that_contradicts_itself_is_wrong(status: int, body: bytes) -> None:
    with pytest.raises(WrongAnswerError, match=f"HTTP {status}"):
        read_one(status, body)


def test_a_batch_must_answer_every_question() -> None:
    assert read_many(200, b'{"results":[{"identifier":"a"},7]}', 2) == [{"identifier": "a"}, {}]
    with pytest.raises(WrongAnswerError, match="batch of 2 identifiers: 1 results"):
        read_many(200, b'{"results":[{}]}', 2)
    with pytest.raises(WrongAnswerError, match="batch of 2 identifiers: no results"):
        read_many(200, b"{}", 2)


# -- what may be answered when


def test_an_acknowledged_revision_binds_other_users_after_the_grace_time() -> None:
    record = Revisions(NAME, 7, newest=2)
    record.known(1, now_s=10.0)
    record.known(2, now_s=20.0)
    assert record.oldest(19.0, grace_s=0.5) == 1
    assert record.oldest(20.4, grace_s=0.5) == 1
    assert record.oldest(20.5, grace_s=0.5) == 2


def test_what_a_user_has_seen_binds_itself_at_once_and_others_in_a_single_worker() -> None:
    chooser = random.Random(1)
    for grace_s, others in ((0.0, 2), (0.1, 1)):
        records, record = ChangingRecords(grace_s), Revisions(NAME, 7, newest=2)
        record.known(1, now_s=10.0)
        records.add(record)
        records.seen(NAME, 2, now_s=20.0)
        assert records.question(chooser, {}, 20.5) == Question(NAME, 7, others, 2)
        assert records.question(chooser, {NAME: 2}, 20.5) == Question(NAME, 7, 2, 2)


def test_a_revision_written_while_the_question_was_under_way_is_right_too() -> None:
    records, record = ChangingRecords(0.0), Revisions(NAME, 7, newest=1)
    records.add(record)
    asked = Question(NAME, 7, 1, 1)
    record.newest = 2
    assert check_found(records.as_of_now(asked), answer(revision=2)) == 2


def test_a_record_whose_write_was_not_confirmed_is_asked_for_no_more() -> None:
    records, record = ChangingRecords(0.0), Revisions(NAME, 7, newest=1)
    records.add(record)
    records.drop(record)
    records.drop(record)
    assert records.question(random.Random(1), {}, 1.0) is None


# -- what is asked


def test_products_are_shared_among_the_prefixes() -> None:
    assert [one.count for one in products_of(("a", "b", "c"), 10)] == [4, 3, 3]
    assert [one.count for one in products_of(("a", "b", "c"), 1)] == [1, 1, 1]


def test_some_products_are_read_far_more_often_than_others() -> None:
    products, chooser = Products("88.608.7001", 1_000), random.Random(1)
    reads = Counter(products.popular(chooser) for _ in range(10_000))
    assert set(reads) <= set(range(1_000))
    (_, most), *_ = reads.most_common(1)
    assert 1_000 < most < 2_000
    assert len(reads) > 500


def test_a_run_stays_among_the_products() -> None:
    products, chooser = Products("88.608.7001", 5), random.Random(1)
    for length in (1, 3, 5, 10):
        for _ in range(50):
            run = products.run(chooser, length)
            assert len(run) == min(length, 5)
            assert set(run) <= set(range(5))


def test_the_day_has_two_shifts_a_break_and_a_night() -> None:
    shares = [share_of_peak(hour / 4) for hour in range(24 * 4 + 1)]
    assert max(shares) == 1.0
    assert min(shares) > 0
    assert share_of_peak(3) < 0.2 < share_of_peak(12.25) < 0.5 < share_of_peak(9)
    assert share_of_peak(16) > 0.8
    with pytest.raises(ValueError, match="expected 0 to 24"):
        share_of_peak(25)


@pytest.mark.parametrize(("text", "time_s"), [("90", 90), ("60s", 60), ("5m", 300), ("1.5h", 5400)])
def test_a_time_is_read_with_its_unit(text: str, time_s: float) -> None:
    assert seconds(text) == time_s


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "5d", "5 m", "1e3"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 60s or 5m"):
        seconds(text)


# -- the verdict


def result(**changes: Any) -> LoadResult:
    values = {
        **{"requests": 10, "requests_failed": 0, "requests_per_s": 5.0, "p50_ms": 1, "p99_ms": 2},
        **{"sent": 20, "answered": 20, "wrong": 0, "failures": {}},
    }
    return LoadResult(**{**values, **changes})


def test_the_count_must_lie_between_what_was_answered_and_what_was_asked() -> None:
    assert result().problems(20, is_alone=True) == []
    assert result().problems(25, is_alone=False) == []
    assert result().problems(19, is_alone=False) != []
    assert result().problems(21, is_alone=True) != []
    lost = result(answered=18, requests_failed=2)
    for counted, problems in ((17, 2), (18, 1), (20, 1), (21, 2)):
        assert len(lost.problems(counted, is_alone=True)) == problems


def test_a_run_that_asked_or_got_nothing_does_not_pass() -> None:
    assert result(sent=0, answered=0).problems(0, is_alone=True) == ["no question was answered"]
    assert result(answered=19).problems(20, is_alone=True) != []


def test_the_kinds_of_failure_are_bounded() -> None:
    sums = LoadSums()
    for number in range(TEXTS_MAX + 50):
        sums.failed(f"failure {number}")
    assert len(sums.failures) == TEXTS_MAX + 1
    assert sums.failures.total() == TEXTS_MAX + 50
    assert sums.failed("failure 1") == "failure 1"
