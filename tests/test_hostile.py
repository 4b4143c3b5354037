"""Hostile input over HTTP: no failure of the node, no hang, nothing written that was not meant."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from loadtest.hostile import Report, main, memory_bytes, run
from loadtest.hostile_requests import (
    BODY_SIZE_BYTES_MAX,
    PREFIX,
    SMUGGLED,
    WRITTEN,
    Ending,
    hostile_request,
)
from tests.conftest import RunningNode

SEED = 20_260_101
REQUESTS = 3_000
# A worker takes about 100 MB; bodies and answers of 16 connections are some 60 MB at most.
MEMORY_GROWTH_BYTES_MAX = 150_000_000
CONNECTIONS_SLOW = 200


def test_a_node_survives_hostile_requests(own_node: RunningNode) -> None:
    own_node.start()
    before = _identifiers(own_node)
    report = asyncio.run(run(own_node.url, range(REQUESTS), SEED, own_node.operator_key))
    assert report.failed == []
    assert report.hung == []
    assert report.requests == REQUESTS
    assert httpx.get(f"{own_node.url}/ready").status_code == 200
    _check_what_was_written(before, _identifiers(own_node))
    _check_log(own_node)
    _check_memory(report)


def _identifiers(node: RunningNode) -> set[str]:
    answer = httpx.get(
        f"{node.url}/api/handles",
        params={"prefix": PREFIX},
        headers={"X-API-Key": node.operator_key},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return set(answer.json()["handles"])


def _check_what_was_written(before: set[str], after: set[str]) -> None:
    assert before <= after
    written = after - before
    assert written, "no hostile request was written: the run did not reach the registry"
    assert [text for text in written if not text.startswith(WRITTEN)] == []
    assert [text for text in after if text.startswith(SMUGGLED)] == []


def _check_log(node: RunningNode) -> None:
    log = (node.data / "logs" / "worker.log").read_text(errors="replace")
    assert "Traceback" not in log
    assert "ERROR" not in log


def _check_memory(report: Report) -> None:
    assert report.memory_before_bytes is not None
    assert report.memory_most_bytes is not None
    grown_bytes = report.memory_most_bytes - report.memory_before_bytes
    assert grown_bytes < MEMORY_GROWTH_BYTES_MAX


async def test_slow_callers_do_not_keep_others_from_being_served(node: RunningNode) -> None:
    """Their own end, at the timeout of the head, is tested with the protocol."""
    parts = urlsplit(node.url)
    async with contextlib.AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(_connection(parts.port or 80))
            for _ in range(CONNECTIONS_SLOW)
        ]
        for byte in b"GET /":
            for writer in slow:
                writer.write(bytes([byte]))
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{node.url}/api/handles/{PREFIX}/00041250500735")
            assert answer.status_code == 200


@contextlib.asynccontextmanager
async def _connection(port: int) -> AsyncIterator[asyncio.StreamWriter]:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield writer
    finally:
        writer.transport.abort()


def test_two_keys_that_differ_open_nothing(node: RunningNode) -> None:
    key, other = node.operator_key, f"idn_{'0' * 12}_{'A' * 43}"
    url = f"{node.url}/api/prefixes"
    for bearer, header, status in (
        (key, key, 200),
        (key, other, 403),
        (other, key, 403),
        ("", key, 403),
        (key, "", 403),
    ):
        headers = {"Authorization": f"Bearer {bearer}".strip(), "X-API-Key": header}
        assert httpx.get(url, headers=headers).status_code == status
    assert httpx.get(url, headers={"X-API-Key": key}).status_code == 200


# The client itself


@contextlib.asynccontextmanager
async def _server(answer: bytes) -> AsyncIterator[str]:
    """A server that says `answer` to everything, or nothing at all."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                writer.write(answer)
        writer.transport.abort()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _numbers(ending: Ending, number: int) -> list[int]:
    return [n for n in range(1_000) if hostile_request(SEED, n).ending is ending][:number]


async def test_an_answer_of_5xx_is_reported_with_its_request() -> None:
    numbers = _numbers(Ending.ANSWER, 3)
    async with _server(b"HTTP/1.1 500 No\r\nconnection: close\r\n\r\n") as url:
        report = await run(url, numbers, SEED)
    assert report.statuses == {500: 3}
    assert not report.is_good
    for number in numbers:
        shown = hostile_request(SEED, number).shown
        assert any(line.startswith(f"{number}: 500 ") and shown in line for line in report.failed)


async def test_a_server_that_does_not_answer_is_reported_as_hanging() -> None:
    numbers = _numbers(Ending.ANSWER, 3)
    async with _server(b"") as url:
        report = await run(url, numbers, SEED, patience_s=0.2)
    assert not report.is_good
    assert sorted(line.partition(":")[0] for line in report.hung) == sorted(map(str, numbers))


async def test_callers_that_leave_are_not_taken_for_hanging() -> None:
    numbers = [n for e in (Ending.CUT, Ending.RESET, Ending.UNREAD) for n in _numbers(e, 2)]
    async with _server(b"") as url:
        report = await run(url, numbers, SEED)
    assert report.is_good
    assert report.unanswered == {"cut": 2, "reset": 2, "unread": 2}


def test_a_request_is_made_from_seed_and_number_alone() -> None:
    made = [hostile_request(SEED, number, "key") for number in range(300)]
    assert made == [hostile_request(SEED, number, "key") for number in range(300)]
    assert made != [hostile_request(SEED + 1, number, "key") for number in range(300)]


def test_no_request_is_larger_than_it_says() -> None:
    sizes_bytes = [
        sum(map(len, hostile_request(SEED, number, "key").pieces)) for number in range(5_000)
    ]
    # Chunks, a long head, or two thousand commas come on top of a body.
    assert BODY_SIZE_BYTES_MAX <= max(sizes_bytes) <= BODY_SIZE_BYTES_MAX * 1.5


def test_the_command_reports_and_succeeds(
    node: RunningNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", node.url, "--requests", "50", "--seed", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["requests"] == 50
    assert report["failed"] == report["hung"] == []


def test_memory_is_that_of_the_processes_that_listen(node: RunningNode) -> None:
    found = memory_bytes(node.port)
    assert found is not None
    assert found > psutil.Process(node.run_info.pid).memory_info().rss
    assert memory_bytes(1) is None
