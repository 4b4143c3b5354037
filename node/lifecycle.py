"""The lives of the program: embedded (`up`), against configured stores (`serve`), one worker."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TextIO

from node import examples
from node import worker as worker_process
from node.clock import now_s
from node.config import Config
from node.data_folder import DataFolder, RunInfo
from node.data_folder_error import explained
from node.inherited import Inherited
from node.start_error import StartError
from node.supervisor import SIGNALS, Supervisor
from registry import api_keys
from registry.database import Database
from registry.migrate import migrate, require_schema
from registry.records import Author
from resolver.errors import RegistryUnavailableError

_TEXTS = {
    "starting": ("正在启动：数据目录 {data}", "Starting: data folder {data}"),
    "examples": ("首次启动：正在登记示例产品…", "First start: registering the example products…"),
    "serving": (
        "节点已启动\n"
        "  地址        http://{http}\n"
        "  Handle      {handle}\n"
        "  数据目录    {data}\n"
        "  数据库      {postgres}\n"
        "  运营者密钥  {key}（仅本账户可读）\n"
        "  日志        {logs}\n"
        "试一试（另开一个终端）：\n"
        "  curl http://{http}/api/handles/{example}\n"
        "  curl -s http://{http}/metrics | grep '^idnode_resolutions_total.*found'\n"
        "  {command} measures\n"
        "按 Ctrl-C 停止。",
        "The node is serving\n"
        "  address         http://{http}\n"
        "  Handle          {handle}\n"
        "  data folder     {data}\n"
        "  database        {postgres}\n"
        "  operator's key  {key} (readable for this account only)\n"
        "  logs            {logs}\n"
        "Try, in another terminal:\n"
        "  curl http://{http}/api/handles/{example}\n"
        "  curl -s http://{http}/metrics | grep '^idnode_resolutions_total.*found'\n"
        "  {command} measures\n"
        "Ctrl-C stops it.",
    ),
    "stopping": ("正在停止…", "Stopping…"),
    "stopped": ("已停止，数据保存在 {data}", "Stopped; the data is kept in {data}"),
    "uncounted": (
        "警告：IDNODE_COUNTING=off，解析量不计数，不能用于申报；只可用于测量。",
        "Warning: IDNODE_COUNTING=off: nothing is counted and nothing can be claimed; for measuring"
        " only.",
    ),
    "open": (
        "注意：{place} 不是本机回环地址，其他人可以访问。",
        "Note: {place} is not loopback; others can reach it.",
    ),
}

_LOOPBACK = ("127.", "::1", "localhost")


def up(config: Config) -> None:
    """Serve with the embedded stores until a signal.

    Raises:
        DataFolderError, StartError, SchemaError: one line each.
    """
    _run(config, _start_embedded)


def serve(config: Config) -> None:
    """Serve against the configured stores until a signal.

    Raises:
        DataFolderError, StartError, SchemaError: one line each.
    """
    _run(config, _start_configured)


def worker(config: Config, inherited: Inherited) -> None:
    """Serve on inherited sockets; started by the supervisor.

    Raises:
        StartError: one line.
    """
    worker_process.run(config, inherited, now_s)


def say(config: Config, name: str, **values: object) -> None:
    """Tell the person at the terminal, in their language."""
    _write(sys.stdout, _TEXTS[name][0 if config.language == "zh" else 1].format(**values))


def _run(
    config: Config, start: Callable[[Config, DataFolder, Supervisor], Awaitable[None]]
) -> None:
    # Until the supervisor listens for them, signals wait instead of breaking in.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    folder = DataFolder.open(config.data)
    try:
        asyncio.run(_live(config, folder, start))
    finally:
        folder.close()


async def _live(
    config: Config,
    folder: DataFolder,
    start: Callable[[Config, DataFolder, Supervisor], Awaitable[None]],
) -> None:
    say(config, "starting", data=folder.path)
    supervisor = Supervisor(config, folder, _report)
    try:
        stopping = asyncio.create_task(supervisor.wait())
        starting = asyncio.ensure_future(start(config, folder, supervisor))
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        else:
            starting.cancel()
        await stopping
        say(config, "stopping")
    finally:
        folder.remove_run_info()
        await supervisor.stop()
    say(config, "stopped", data=folder.path)


async def _start_embedded(config: Config, folder: DataFolder, supervisor: Supervisor) -> None:
    await supervisor.listen(now_s())
    config = await supervisor.start_stores()
    database = Database(_known(config.postgres_url))
    try:
        connection = await database.dedicated()
        try:
            await migrate(connection)
        finally:
            await connection.close()
        await _keep_operator_key(config, database)
        if examples.are_missing(folder.path):
            say(config, "examples")
            await examples.register(database, folder.path, now_s)
    finally:
        await database.close()
    await _open_doors(config, folder, supervisor)
    say(
        config,
        "serving",
        http=config.http,
        handle=config.handle or "-",
        data=folder.path,
        postgres=folder.postgres_dir,
        key=config.operator_key_file,
        logs=folder.logs_dir,
        example=examples.IDENTIFIER,
        command=_command(),
    )


async def _start_configured(config: Config, folder: DataFolder, supervisor: Supervisor) -> None:
    if config.postgres_url is None or config.redis_url is None:
        raise StartError(
            "set IDNODE_POSTGRES_URL and IDNODE_REDIS_URL, or run `idnode up` for embedded stores"
        )
    config = await supervisor.listen(now_s())
    database = Database(_known(config.postgres_url))
    try:
        async with database.connection() as connection:
            await require_schema(connection)
        await _keep_operator_key(config, database)
    except RegistryUnavailableError as error:
        _report(f"{error}; the node starts all the same and answers from its caches")
    finally:
        await database.close()
    await _open_doors(config, folder, supervisor)


async def _open_doors(config: Config, folder: DataFolder, supervisor: Supervisor) -> None:
    await supervisor.start_workers()
    folder.write_run_info(
        RunInfo(
            pid=os.getpid(),
            http=config.http,
            postgres_url=_known(config.postgres_url),
            redis_url=_known(config.redis_url),
            started_at_s=now_s(),
        )
    )
    for host, place in ((config.http_host, config.http), (config.handle_host, config.handle)):
        if host is not None and not host.startswith(_LOOPBACK):
            say(config, "open", place=place)
    if not config.counting:
        say(config, "uncounted")


async def _keep_operator_key(config: Config, database: Database) -> None:
    """The operator's key is made once; the book holds its digest, the file the key itself.

    A crash in between leaves the file, whose key is entered at the next start.
    """
    key_text = _operator_key(config.operator_key_file)
    await api_keys.ensure_operator_key(database, key_text, author=Author("node", "start"))


def _operator_key(path: Path) -> str:
    with explained(path):
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(api_keys.new_key_text() + "\n")
        return path.read_text().strip()


def _known(url: str | None) -> str:
    assert url is not None
    return url


def _report(line: str) -> None:
    _write(sys.stderr, line)


def _write(stream: TextIO, line: str) -> None:
    # A terminal that was closed takes nothing any more; that must not break the stop.
    with contextlib.suppress(OSError):
        stream.write(f"{line}\n")
        stream.flush()


def _command() -> str:
    program = Path(sys.argv[0])
    return "idnode" if program.name != "idnode" else os.path.relpath(program)
