"""Limits of a node: what is over one is refused in the form of its door, and counted."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from metrics.counting import Counting
from metrics.dimension import CHANNEL_HTTP_JSON, OUTCOME_UNAVAILABLE
from metrics.journal import JournalSize
from metrics.worker_numbers import WorkerNumbers
from node.admission import IN_FLIGHT_MAX, Admission
from node.callers import Callers
from node.http_exchange import Exchange, Reply, send_reply
from node.http_protocol import HEAD_SIZE_BYTES_MAX, BoundedProtocol
from node.rate_limit import Rates
from node.tally import Tally
from registry.database import Database
from tests.conftest import RunningNode, wait_for
from tests.tenant import PATIENCE_S, Tenant, counted, ledger_rows, tenant, text_value

NOW_S = 1_800_000_000.0
RATE = 20
PREFIX = "88.608.5291"
PRODUCT = f"{PREFIX}/P"
_REFUSED = re.compile(r'^idnode_refused_total\{reason="(\w+)"\} (\S+)$', re.MULTILINE)
_PLAIN = re.compile(r"^(idnode_\w+) (\S+)$", re.MULTILINE)


def refused(node: RunningNode) -> dict[str, int]:
    """Refusals by reason, as the metrics page has them; those that happened."""
    page = httpx.get(f"{node.url}/metrics", timeout=30).text
    found = {reason: int(float(number)) for reason, number in _REFUSED.findall(page)}
    return {reason: number for reason, number in found.items() if number}


def from_address(source: str, **headers: str) -> dict[str, str]:
    """The headers of a request that a trusted proxy forwards."""
    return {"X-Forwarded-For": source, **headers}


@pytest.fixture
def small(own_node: RunningNode) -> Tenant:
    """A node with small rates behind a trusted proxy, and an enterprise with one product."""
    own_node.environment = {
        "IDNODE_RATE_PER_SOURCE": str(RATE),
        "IDNODE_RATE_PER_CALLER": str(RATE),
        "IDNODE_TRUSTED_PROXIES": "127.0.0.1",
    }
    own_node.start()
    made = tenant(own_node, PREFIX, 5291)
    put = httpx.put(
        f"{own_node.url}/api/handles/{PRODUCT}",
        json=[text_value(1, "URL", "https://example.com/p")],
        headers={"X-API-Key": own_node.operator_key},
    )
    assert put.status_code == 201
    return made


def until_refused(client: httpx.Client, path: str, **more: Any) -> httpx.Response:
    """Ask until the answer is another one; a machine may be too slow to reach a rate at once."""
    for _ in range(100 * RATE):
        answer = client.request(more.get("method", "GET"), path, headers=more.get("headers"))
        if answer.status_code == 429:
            return answer
    raise AssertionError("never refused")


def test_a_source_over_its_rate_is_told_so_by_each_door_and_others_are_not(small: Tenant) -> None:
    node, path = small.node, f"/api/handles/{PRODUCT}"
    before = counted(node)
    with small.client() as client:
        json_answer = until_refused(client, path, headers=from_address("198.51.100.1"))
        page = until_refused(
            client, f"/{PRODUCT}", headers=from_address("198.51.100.2", **{"Accept-Language": "zh"})
        )
        english = until_refused(client, f"/{PRODUCT}", headers=from_address("198.51.100.3"))
        batch = until_refused(
            client, "/api/resolve", method="POST", headers=from_address("198.51.100.4")
        )
        write = until_refused(client, path, method="PUT", headers=from_address("198.51.100.5"))
        other = client.get(path, headers=from_address("203.0.113.9"))

    for answer in (json_answer, batch, write):
        assert answer.json()["responseCode"] == 3
        assert f"more than {RATE} requests a second" in answer.json()["message"]
    for answer in (json_answer, page, english, batch, write):
        assert int(answer.headers["retry-after"]) >= 1
    assert "请求过于频繁" in page.text
    assert "Too many requests" in english.text
    assert other.status_code == 200
    # Resolutions are in the ledger as refused, the write is not one.
    now = counted(node)
    for channel, number in (("http_json", 1), ("redirect", 2), ("batch", 1)):
        key = ("node", channel, "refused", "anonymous")
        assert now[key] - before[key] == number
    assert refused(node) == {"rate_source": 5}


def test_an_owner_of_keys_over_the_rate_is_told_so_wherever_it_asks_from(small: Tenant) -> None:
    key, application_id = small.application_key("busy")
    other_key, _ = small.application_key("calm")
    path = f"/api/handles/{PRODUCT}"
    with small.client(key) as busy, small.client(other_key) as calm:
        answer = until_refused(busy, path)
        assert calm.get(path).status_code == 200
    with small.client() as nobody:
        assert nobody.get(path).status_code == 200

    assert "owner of this API key" in answer.json()["message"]
    assert int(answer.headers["retry-after"]) >= 1
    assert refused(small.node) == {"rate_caller": 1}
    rows = ledger_rows(small.node, application_id)
    assert rows["node", "", "application", "http_json", "refused"] == 1


def test_an_unknown_key_is_looked_up_at_the_expense_of_its_source(small: Tenant) -> None:
    path = f"/api/handles/{PRODUCT}"
    with small.client() as client:
        for number in range(100 * RATE):
            key = f"idn_{number:016x}_{'x' * 43}"
            headers = from_address("198.51.100.6", Authorization=f"Bearer {key}")
            if client.get(path, headers=headers).status_code == 429:
                break
    assert refused(small.node) == {"rate_source": 1}


def test_a_rate_that_was_set_holds_for_this_machine_too_but_not_for_who_watches(
    small: Tenant,
) -> None:
    with small.client() as client:
        until_refused(client, f"/api/handles/{PRODUCT}")
        until_refused(client, f"/api/handles/{PRODUCT}", headers=from_address("198.51.100.7"))
        for path in ("/health", "/ready"):
            headers = from_address("198.51.100.7")
            assert {client.get(path, headers=headers).status_code for _ in range(3 * RATE)} == {200}


def test_what_is_too_long_is_counted(small: Tenant) -> None:
    node = small.node
    too_long = httpx.get(f"{node.url}/", headers={"X-Long": "x" * HEAD_SIZE_BYTES_MAX})
    too_large = httpx.put(
        f"{node.url}/api/handles/{PRODUCT}",
        content=b" " * 1_100_000,
        headers={"X-API-Key": node.operator_key, "Content-Type": "application/json"},
    )
    too_large_question = httpx.post(f"{node.url}/api/handles/{PRODUCT}", content=b" " * 70_000)

    assert too_long.status_code == 431
    assert (too_large.status_code, too_large_question.status_code) == (413, 413)
    assert refused(node) == {"head_size": 1, "body_size": 2}


# -- requests under way


@pytest.fixture
def numbers(tmp_path: Path) -> Iterator[WorkerNumbers]:
    made = WorkerNumbers(tmp_path / "workers")
    yield made
    made.close()


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    made = Counting(tmp_path / "journals", NOW_S, JournalSize(128, 128, 65_536, 8, 8, 2_048))
    yield made
    made.close()


@pytest.fixture
def admission(database: Database, counting: Counting, numbers: WorkerNumbers) -> Admission:
    return Admission(Rates(0, 0), Callers(database), Tally(counting, ()), numbers)


def exchange(path: str) -> Exchange:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "client": ("192.0.2.1", 40_000), "headers": []}
    return Exchange({**scope, "path": path, "raw_path": path.encode()}, receive)


async def test_more_requests_than_a_worker_can_work_on_are_refused_and_counted(
    admission: Admission, counting: Counting, numbers: WorkerNumbers
) -> None:
    asked = exchange(f"/api/handles/{PRODUCT}")
    with contextlib.ExitStack() as stack:
        for _ in range(IN_FLIGHT_MAX):
            stack.enter_context(admission)
        assert admission.refusal(asked, CHANNEL_HTTP_JSON, NOW_S) is None
        with admission:
            reply = admission.refusal(asked, CHANNEL_HTTP_JSON, NOW_S)
            page = admission.refusal(exchange(f"/{PRODUCT}"), None, NOW_S)
            for path in ("/health", "/ready", "/metrics"):
                assert admission.refusal(exchange(path), None, NOW_S) is None
        assert admission.refusal(asked, CHANNEL_HTTP_JSON, NOW_S) is None

    assert reply is not None
    assert page is not None
    assert (reply.status, page.status) == (503, 503)
    assert (b"retry-after", b"1") in reply.headers
    assert (b"retry-after", b"1") in page.headers
    assert b"The node is busy" in page.body
    assert numbers.totals().refused["in_flight"] == 2
    ((_, meaning, number),) = counting.journals[0].counts()
    # We failed the caller: it is shown as unavailable, not as something the caller did.
    assert (meaning.outcome, number) == (OUTCOME_UNAVAILABLE, 1)


async def test_a_request_whose_body_is_awaited_is_not_worked_on(admission: Admission) -> None:
    arrived = asyncio.Event()

    async def slow() -> Message:
        await arrived.wait()
        return {"type": "http.request"}

    async def read() -> None:
        with admission:
            await admission.waiting(slow)()
            assert admission.refusal(exchange("/x"), None, NOW_S) is None

    readers = [asyncio.create_task(read()) for _ in range(10)]
    await asyncio.sleep(0)
    with contextlib.ExitStack() as stack:
        for _ in range(IN_FLIGHT_MAX):
            stack.enter_context(admission)
        assert admission.refusal(exchange("/x"), None, NOW_S) is None
    arrived.set()
    await asyncio.gather(*readers)


# -- connections


class _Counting:
    """An application that says ok and counts what the protocol refuses."""

    def __init__(self, numbers: WorkerNumbers) -> None:
        self.refused = numbers.add

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_reply(send, Reply(200, b"ok"))


class _FewConnections(BoundedProtocol):
    connections_max = 2
    head_timeout_s = 0.3


@pytest.fixture
async def few(numbers: WorkerNumbers) -> AsyncIterator[str]:
    """A server that serves two connections."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        _Counting(numbers),
        http=_FewConnections,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,  # it would wrap the application
    )
    server = uvicorn.Server(config)
    with listening:
        running = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await running


async def test_a_connection_too_many_is_told_so_and_closed_and_others_live_on(
    few: str, numbers: WorkerNumbers
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(httpx.AsyncClient()) for _ in range(4)]
        first = [await client.get(few) for client in clients]
        again = await clients[0].get(few)

    assert [answer.status_code for answer in first] == [200, 200, 503, 503]
    assert first[2].json()["responseCode"] == 3
    assert first[2].headers["retry-after"] == "1"
    assert first[2].headers["connection"] == "close"
    assert again.status_code == 200
    assert numbers.totals().refused["connections"] == 2


async def test_a_caller_that_does_not_come_to_the_point_is_counted(
    few: str, numbers: WorkerNumbers
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(few.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()

    assert numbers.totals().refused["slow_client"] == 1


# -- several workers


def plain(node: RunningNode) -> dict[str, int]:
    page = httpx.get(f"{node.url}/metrics", timeout=30).text
    return {name: int(float(number)) for name, number in _PLAIN.findall(page)}


def l1_hits(node: RunningNode) -> int:
    page = httpx.get(f"{node.url}/metrics", timeout=30).text
    (number,) = re.findall(r"^idnode_cache_lookups_total\{.*hit.*l1.*\} (\S+)$", page, re.MULTILINE)
    return int(float(number))


def worker_ids(node: RunningNode) -> set[int]:
    assert node.process is not None
    children = psutil.Process(node.process.pid).children()
    return {child.pid for child in children if "worker" in _command(child)}


def _command(process: psutil.Process) -> list[str]:
    # One that was just killed has no command line any more.
    with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
        return process.cmdline()
    return []


def test_every_worker_tells_of_all_and_no_counter_goes_back_when_one_dies(
    own_node: RunningNode,
) -> None:
    own_node.environment = {"IDNODE_WORKERS": "2"}
    own_node.start()
    made = tenant(own_node, PREFIX, 5291)
    wait_for(lambda: plain(own_node)["idnode_workers"] == 2, PATIENCE_S)
    with made.client() as one, made.client() as other:
        for client in (one, other) * 50:
            client.get("/api/handles/88.608.1001/00041250500735")
        hits = l1_hits(own_node)
        assert hits >= 90
        # A new connection for each page: whichever worker takes it says the same.
        assert {l1_hits(own_node) for _ in range(8)} == {hits}
        wait_for(lambda: plain(own_node)["idnode_connections"] >= 2, PATIENCE_S)

    before = worker_ids(own_node)
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    wait_for(lambda: len(worker_ids(own_node) - before) == 1, PATIENCE_S)
    wait_for(lambda: plain(own_node)["idnode_workers"] == 2, PATIENCE_S)
    assert {l1_hits(own_node) for _ in range(8)} == {hits}
    wait_for(lambda: plain(own_node)["idnode_l1_emptied_total"] >= 3, PATIENCE_S)
