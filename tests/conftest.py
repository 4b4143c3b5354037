"""Real stores and real nodes for the tests: one pair of servers a session, one database a test."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import pytest

from loadtest.ports import free_port as free_port
from node.config import terminal_environment
from node.data_folder import DataFolder, RunInfo
from node.embedded_postgres import EmbeddedPostgres
from node.embedded_valkey import EmbeddedValkey
from registry.database import Database
from registry.migrate import migrate

TEMPLATE = "idnode_template"
START_PATIENCE_S = 90.0


@dataclass(frozen=True)
class Stores:
    """Addresses of the servers of this test session."""

    postgres_url: str
    redis_url: str


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder that the servers' unprivileged account can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="idnode-tests-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running_stores(path: Path) -> Iterator[Stores]:
    """A real PostgreSQL with a migrated template database, and a real Valkey, below `path`."""
    folder = DataFolder.open(path)
    runner = asyncio.Runner()
    postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder)
    try:
        runner.run(postgres.start())
        runner.run(valkey.start())
        runner.run(_make_template(postgres.url))
        yield Stores(postgres.url, valkey.url)
    finally:
        runner.run(valkey.stop())
        runner.run(postgres.stop())
        runner.close()
        folder.close()


@pytest.fixture(scope="session")
def stores(scratch: Path) -> Iterator[Stores]:
    """The servers of this test session."""
    with running_stores(scratch / "stores") as running:
        yield running


async def _make_template(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {TEMPLATE}")
    await connection.close()
    connection = await asyncpg.connect(_of_database(url, TEMPLATE))
    await migrate(connection)
    await connection.close()


def _of_database(url: str, name: str) -> str:
    return url.replace("/idnode?", f"/{name}?", 1)


@contextlib.asynccontextmanager
async def migrated_database(stores: Stores) -> AsyncIterator[str]:
    """The address of an empty, migrated database, which is dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(stores.postgres_url)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield _of_database(stores.postgres_url, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def database_url(stores: Stores) -> AsyncIterator[str]:
    """An empty, migrated database of this test's own."""
    async with migrated_database(stores) as url:
        yield url


@pytest.fixture
async def empty_database_url(stores: Stores) -> AsyncIterator[str]:
    """A database without any schema."""
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(stores.postgres_url)
    await connection.execute(f"CREATE DATABASE {name}")
    yield _of_database(stores.postgres_url, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on an empty, migrated database."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@dataclass
class RunningNode:
    """`idnode up` in a folder, as a user starts it."""

    data: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None
    output: str = ""
    handle_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def operator_key(self) -> str:
        return (self.data / "operator.key").read_text().strip()

    @property
    def run_info(self) -> RunInfo:
        info = DataFolder.read_run_info(self.data)
        assert info is not None, self.output
        return info

    def start(self) -> None:
        """Start, and return when the node is ready for full service."""
        self.output_file = self.data.with_name(f"{self.data.name}.out")
        with self.output_file.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node", "up"],
                env=self.environment_for_test(),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.wait_ready()

    def wait_ready(self, patience_s: float = START_PATIENCE_S) -> None:
        """Return when `/ready` says 200 and the run file is there."""
        wait_for(self._is_ready, patience_s, lambda: self.output_file.read_text())

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output_file.read_text()
        try:
            is_ready = httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False
        return is_ready and DataFolder.read_run_info(self.data) is not None

    def cli(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command of the command line on this node."""
        done = subprocess.run(
            [sys.executable, "-m", "node", *words],
            env=self.environment_for_test(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        self.output = self.output_file.read_text()
        return code

    def kill(self) -> None:
        """kill -9 of the parent process."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def environment_for_test(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in terminal_environment().items()
            if not name.startswith("IDNODE_")
        }
        return {
            **kept,
            "IDNODE_DATA": str(self.data),
            "IDNODE_HTTP": f"127.0.0.1:{self.port}",
            "IDNODE_HANDLE": f"127.0.0.1:{self.handle_port}",
            "IDNODE_LANG": "en",
            **self.environment,
        }


def wait_for(
    condition: Callable[[], bool], patience_s: float, explain: Callable[[], str] = lambda: ""
) -> None:
    """Return once `condition` holds; fail after `patience_s`."""
    until_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until_s, f"not within {patience_s} s\n{explain()}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def node(scratch: Path) -> Iterator[RunningNode]:
    """A node with the example products that many tests share; they add, and do not break it."""
    running = RunningNode(scratch / "node", free_port())
    running.start()
    yield running
    running.stop()


@pytest.fixture
def own_node(scratch: Path) -> Iterator[RunningNode]:
    """A node that a test may kill, starve and restart; not started yet."""
    running = RunningNode(scratch / f"own-{uuid.uuid4().hex[:8]}", free_port())
    yield running
    if running.process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.stop()
        running.process.kill()
        running.process.wait(10)
    shutil.rmtree(running.data, ignore_errors=True)
