"""An enterprise on a running node: its prefix, its keys, and what the node counts of it."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
import httpx
from stdnum.cn import uscc

from registry import api_keys, applications, enterprises, prefixes
from registry.database import Database
from registry.records import Author, HistoryEntry, PostgresRecords
from tests.conftest import RunningNode, wait_for

_AUTHOR = Author("test", "test")
_Result = TypeVar("_Result")
_COUNT = re.compile(r"^idnode_resolutions_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
# Long enough for any change to reach a worker of a busy machine.
PATIENCE_S = 15.0

Labels = tuple[str, str, str, str]
"""Level, channel, outcome, caller class."""


def credit_code(number: int) -> str:
    """A unified social credit code with a right check character."""
    body = f"91450200{number:09d}"
    return body + str(uscc.calc_check_digit(body))


async def application_key(
    database: Database, name: str, *, sandbox: bool = False
) -> tuple[str, str, str]:
    """A new key of a new application: its text, its id, and the id of the application."""
    made, _ = await applications.add(
        database,
        name=name,
        kind="traceability",
        type_="other",
        owner="柳州样品厂",
        division="450200",
        country=None,
        contract_sha256=None,
        sandbox=sandbox,
        author=_AUTHOR,
    )
    text, key = await api_keys.create(database, api_keys.APPLICATION, made.id, author=_AUTHOR)
    return text, key.id, made.id


@dataclass(frozen=True)
class Tenant:
    """An enterprise with one prefix on a running node."""

    node: RunningNode
    prefix: str
    code: str

    def client(self, key: str | None = None) -> httpx.Client:
        """An HTTP client of the node that sends this key."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.node.url, headers=headers, timeout=60)

    @property
    def operator(self) -> httpx.Client:
        return self.client(self.node.operator_key)

    def enterprise_key(self) -> tuple[str, str]:
        """A new key of the enterprise: its text and its id."""
        return self._key(api_keys.ENTERPRISE, self.code)

    def application_key(self, name: str, *, sandbox: bool = False) -> tuple[str, str]:
        """A new key of a new application: its text, and the id of the application."""
        text, _, application_id = self.with_database(
            lambda database: application_key(database, f"{name} {self.prefix}", sandbox=sandbox)
        )
        return text, application_id

    def revoke(self, key_id: str) -> None:
        """Revoke a key as the command line does."""
        self.with_database(lambda database: api_keys.revoke(database, key_id, author=_AUTHOR))

    def suspend(self) -> None:
        """Suspend the prefix, and wait until the node says so."""
        self.with_database(
            lambda database: prefixes.suspend(database, self.prefix, reason="test", author=_AUTHOR)
        )
        self._wait_for_code(301)

    def resume(self) -> None:
        """Put the prefix into service again, and wait until the node answers for it."""
        self.with_database(lambda database: prefixes.resume(database, self.prefix, author=_AUTHOR))
        self._wait_for_code(1, 100)

    def history(self, key: str) -> list[HistoryEntry]:
        """Every version of a record, oldest first."""
        return self.with_database(lambda database: PostgresRecords(database).history(key))

    def with_database(self, work: Callable[[Database], Awaitable[_Result]]) -> _Result:
        """Do some work on the node's own database."""
        return asyncio.run(_on_database(self.node.run_info.postgres_url, work))

    def _key(self, role: str, owner: str) -> tuple[str, str]:
        text, key = self.with_database(
            lambda database: api_keys.create(database, role, owner, author=_AUTHOR)
        )
        return text, key.id

    def _wait_for_code(self, *codes: int) -> None:
        with self.client() as client:
            # The prefix itself is a question that is answered for every mode: with the site of
            # the node, if that is certain.
            path = f"/api/handles/{self.prefix}"
            wait_for(lambda: client.get(path).json()["responseCode"] in codes, PATIENCE_S)


async def _on_database(url: str, work: Callable[[Database], Awaitable[_Result]]) -> _Result:
    database = Database(url)
    try:
        return await work(database)
    finally:
        await database.close()


def tenant(node: RunningNode, prefix: str, number: int, mode: str = prefixes.HOSTED) -> Tenant:
    """Enter an enterprise and allot it a prefix; returns when the node answers for it."""
    made = Tenant(node, prefix, credit_code(number))

    async def allot(database: Database) -> None:
        await enterprises.add(
            database,
            name=f"工厂 {number}",
            credit_code=made.code,
            division="450200",
            author=_AUTHOR,
        )
        await prefixes.allot(
            database,
            prefix=prefix,
            credit_code=made.code,
            mode=mode,
            node_prefix=None,
            author=_AUTHOR,
        )

    made.with_database(allot)
    made._wait_for_code(1, 100)
    return made


def text_value(index: int, type_: str, text: str, **more: object) -> dict[str, Any]:
    """A value of a record as it is sent."""
    return {"index": index, "type": type_, "data": {"format": "string", "value": text}, **more}


def texts(answer: httpx.Response) -> dict[int, str]:
    """The values of an answer, by index."""
    return {value["index"]: value["data"]["value"] for value in answer.json()["values"]}


def counted(node: RunningNode) -> Counter[Labels]:
    """What the metrics page says of resolutions; exact for a node with one worker."""
    page = httpx.get(f"{node.url}/metrics", timeout=30).text
    counts: Counter[Labels] = Counter()
    for labels_text, number in _COUNT.findall(page):
        labels = dict(_LABEL.findall(labels_text))
        key = (labels["level"], labels["channel"], labels["outcome"], labels["caller_class"])
        counts[key] += int(float(number))
    return counts


def ledger_rows(node: RunningNode, caller: str) -> Counter[tuple[str, ...]]:
    """The ledger of one application: (level, prefix, caller class, channel, outcome) -> count.

    The metrics page is read first, because it brings every count of its process to the ledger.
    """
    counted(node)

    async def read() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(node.run_info.postgres_url)
        try:
            return await connection.fetch(
                "SELECT level, prefix, caller_class, channel, outcome, value"
                " FROM ledger_count WHERE caller = $1",
                caller,
            )
        finally:
            await connection.close()

    rows: Counter[tuple[str, ...]] = Counter()
    for *labels, value in asyncio.run(read()):
        rows[tuple(labels)] += value
    return rows
