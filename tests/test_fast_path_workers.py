"""The fast path of several workers: what a ledger says of it, and the end of a revoked key."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import RunningNode, free_port, wait_for
from tests.tenant import PATIENCE_S, Tenant, tenant, text_value

PREFIX = "88.608.5310"
ITEM = f"{PREFIX}/A"
NUMBER = 300
# The kernel shares connections out: nearly always both workers get some.
CONNECTIONS = 12
# After its acknowledgement no revoked key is of any use.
ACKNOWLEDGED_S = 0.1
SOURCES = ("198.51.100.1", "198.51.100.2")
_PAUSE_S = 0.002
COUNTS = (
    "SELECT caller_class, caller, channel, outcome, value FROM ledger_count"
    " WHERE prefix = $1 AND level = 'enterprise'"
)
FORWARDED = (
    "SELECT source, value FROM ledger_source WHERE prefix = $1 AND source LIKE '198.51.100.%'"
)


@pytest.fixture(scope="module")
def factory(scratch: Path) -> Iterator[Tenant]:
    """An enterprise with one product on a node of two workers behind a trusted proxy."""
    node = RunningNode(scratch / "fast-workers", free_port())
    node.environment = {"IDNODE_WORKERS": "2", "IDNODE_TRUSTED_PROXIES": "127.0.0.1"}
    node.start()
    made = tenant(node, PREFIX, 5310)
    with made.operator as operator:
        value = text_value(1, "URL", "http://a.example/")
        operator.put(f"/api/handles/{ITEM}", json=[value]).raise_for_status()
    yield made
    node.stop()


def connections(stack: ExitStack, node: RunningNode) -> list[HTTPConnection]:
    """Connections that are kept."""
    made = [HTTPConnection("127.0.0.1", node.port, timeout=30) for _ in range(CONNECTIONS)]
    for connection in made:
        stack.callback(connection.close)
    return made


def status_of(connection: HTTPConnection, path: str, headers: dict[str, str]) -> int:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def rows(node: RunningNode, query: str) -> Counter[tuple[str, ...]]:
    """What the ledger says of the prefix."""

    async def read() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(node.run_info.postgres_url)
        try:
            return await connection.fetch(query, PREFIX)
        finally:
            await connection.close()

    found: Counter[tuple[str, ...]] = Counter()
    for *labels, value in asyncio.run(read()):
        found[tuple(labels)] += value
    return found


def test_every_answer_of_every_worker_is_in_the_ledger_once(factory: Tenant) -> None:
    node = factory.node
    key, application_id = factory.application_key("counted")
    expected: Counter[tuple[str, ...]] = Counter()
    sources: Counter[tuple[str, ...]] = Counter()
    paths = {"http_json": f"/api/handles/{ITEM}", "redirect": f"/{ITEM}"}
    with ExitStack() as stack:
        made = connections(stack, node)
        for number in range(NUMBER):
            connection, source = made[number % CONNECTIONS], SOURCES[number % 2]
            for channel, path in paths.items():
                for caller, headers in (
                    (("anonymous", ""), {}),
                    (("application", application_id), {"X-API-Key": key}),
                ):
                    headers = {"X-Forwarded-For": source, **headers}
                    assert status_of(connection, path, headers) in (200, 302)
                    expected[*caller, channel, "found"] += 1
                    sources[source,] += 1
    wait_for(
        lambda: (rows(node, COUNTS), rows(node, FORWARDED)) == (expected, sources),
        PATIENCE_S,
        lambda: f"{rows(node, COUNTS)}\n{rows(node, FORWARDED)}",
    )


class Asking(threading.Thread):
    """Asks on one kept connection until it is told to stop; keeps when it asked and what came."""

    def __init__(self, connection: HTTPConnection, key: str, stop: threading.Event) -> None:
        super().__init__()
        self._connection = connection
        self._key = key
        self._stop_asking = stop
        self.answers: list[tuple[float, int]] = []

    def run(self) -> None:
        while not self._stop_asking.is_set():
            asked_at_s = time.monotonic()
            headers = {"X-API-Key": self._key}
            status = status_of(self._connection, f"/api/handles/{ITEM}", headers)
            self.answers.append((asked_at_s, status))
            time.sleep(_PAUSE_S)


def test_a_key_that_was_revoked_is_of_no_use_to_any_worker(factory: Tenant) -> None:
    key, _ = factory.application_key("revoked")
    stop = threading.Event()
    with ExitStack() as stack:
        askers = [Asking(made, key, stop) for made in connections(stack, factory.node)]
        for asker in askers:
            asker.start()
        try:
            wait_for(lambda: all(len(asker.answers) > 20 for asker in askers), PATIENCE_S)
            factory.node.cli("key", "revoke", key.split("_")[1])
            acknowledged_at_s = time.monotonic()
            asked = [len(asker.answers) for asker in askers]
            wait_for(
                lambda: all(
                    len(asker.answers) > before + 100
                    for asker, before in zip(askers, asked, strict=True)
                ),
                PATIENCE_S,
            )
        finally:
            stop.set()
            for asker in askers:
                asker.join()
    answers = [answer for asker in askers for answer in asker.answers]
    before = {status for asker in askers for _, status in asker.answers[:20]}
    after = {status for at_s, status in answers if at_s > acknowledged_at_s + ACKNOWLEDGED_S}
    assert before == {200}
    assert after == {403}
