"""`idnode doctor`: every dependency, limit and clock, with what to do."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import redis.asyncio
import typer
from redis.exceptions import RedisError

from metrics.day import date_of
from node.cli.context import Desk, NodeAddress, find_node
from node.cli.failure import CommandError, ExitCode, explain
from node.cli.finding import Finding, judged
from node.cli.machine_check import machine_findings
from node.cli.node_http import ask
from node.cli.output import write_json, write_line, write_table
from node.clock import now_s
from node.data_folder import DataFolderError
from registry.database import CONNECTIONS_MAX, Connection, Database
from registry.migrate import migrations, schema_number
from resolver.errors import RegistryUnavailableError

# PostgreSQL 15 is the oldest release that its makers still mend.
_POSTGRES_VERSION_MIN = 150_000
# Counts are cut into days by the clock: a second is the promised exactness.
_CLOCK_DIFFERENCE_S_MAX = 1.0
# Connections that people and other programs keep free.
_CONNECTIONS_SPARE = 20
_STORE_TIMEOUT_S = 2.0
_DAYS_SHOWN = 5


def diagnose(desk: Desk, as_json: bool) -> None:
    """Check everything and print what was found; exit code 1 if anything fails."""
    findings = [*machine_findings(desk), *asyncio.run(_node_findings(desk))]
    is_well = all(finding.state != "fail" for finding in findings)
    if as_json:
        write_json({"ok": is_well, "checks": findings})
    else:
        _print_findings(desk, findings)
    if not is_well:
        raise typer.Exit(ExitCode.FAILED)


def _print_findings(desk: Desk, findings: list[Finding]) -> None:
    write_table(
        [desk.text(f"column.{name}") for name in ("check", "state", "found", "do")],
        (
            (finding.check, desk.text(f"doctor.{finding.state}"), finding.found, finding.do)
            for finding in findings
        ),
    )
    count = sum(finding.state != "ok" for finding in findings)
    write_line(desk.text("doctor.some" if count else "doctor.none", count=count))


async def _node_findings(desk: Desk) -> list[Finding]:
    check = desk.text("doctor.node")
    try:
        address = find_node(desk)
    except CommandError as error:
        return [Finding(check, "warn", str(error), error.do)]
    except DataFolderError as error:
        return [Finding(check, "fail", str(error))]
    findings = [_running(desk, check, address)]
    findings += await _postgres(desk, address.postgres_url)
    findings += [finding async for finding in _redis(desk, address.redis_url)]
    findings += [_http(desk, address.http, path) for path in ("/health", "/ready")]
    return findings


def _running(desk: Desk, check: str, address: NodeAddress) -> Finding:
    if address.run is not None:
        return Finding(check, "ok", f"pid {address.run.pid}, http://{address.http}")
    return Finding(check, "ok", desk.text("doctor.node.configured", http=address.http))


async def _postgres(desk: Desk, url: str) -> list[Finding]:
    findings: list[Finding] = []
    try:
        connection = await Database(url).dedicated()
        try:
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                # What was found before an error is kept.
                await _examine(desk, connection, findings)
        finally:
            connection.terminate()
    except (RegistryUnavailableError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        do = desk.text("doctor.postgres.do")
        findings.append(Finding("PostgreSQL", "fail", explain(error).message, do))
    except (OSError, ValueError, asyncpg.ClientConfigurationError) as error:
        findings.append(
            Finding("PostgreSQL", "fail", explain(error).message, "IDNODE_POSTGRES_URL")
        )
    return findings


async def _examine(desk: Desk, connection: asyncpg.Connection, findings: list[Finding]) -> None:
    findings.append(await _version(desk, connection))
    present, wanted = await schema_number(connection), migrations()[-1].number
    found = f"{present:04d} / {wanted:04d}"
    findings.append(judged(desk.text("doctor.schema"), present >= wanted, found, "idnode migrate"))
    durable = await connection.fetchval("SHOW synchronous_commit")
    do = desk.text("doctor.commit.do")
    findings.append(judged("synchronous_commit", durable != "off", durable, do))
    findings.append(await _connections(desk, connection))
    findings.append(await _clock(desk, connection))
    findings.append(await _time_zone(desk, connection))
    if present:
        findings.append(await _damage(desk, connection))


async def _version(desk: Desk, connection: Connection) -> Finding:
    number = int(await connection.fetchval("SHOW server_version_num"))
    found = str(await connection.fetchval("SHOW server_version"))
    do = desk.text("doctor.postgres.version.do")
    return judged("PostgreSQL", number >= _POSTGRES_VERSION_MIN, found, do)


async def _connections(desk: Desk, connection: Connection) -> Finding:
    allowed = int(await connection.fetchval("SHOW max_connections"))
    wanted = desk.config.workers * CONNECTIONS_MAX + _CONNECTIONS_SPARE
    return judged(
        "max_connections",
        allowed >= wanted,
        f"{allowed:,}",
        desk.text("doctor.connections.do", wanted=wanted),
        "warn",
    )


async def _clock(desk: Desk, connection: Connection) -> Finding:
    """How far the database's clock is from ours, the way to and fro taken off."""
    before_s = now_s()
    theirs_s = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
    after_s = now_s()
    difference_s = max(before_s - theirs_s, theirs_s - after_s, 0.0)
    return judged(
        desk.text("doctor.clock"),
        difference_s <= _CLOCK_DIFFERENCE_S_MAX,
        f"{difference_s:.3f} s",
        desk.text("doctor.clock.do"),
    )


async def _time_zone(desk: Desk, connection: Connection) -> Finding:
    check = desk.text("doctor.time_zone")
    try:
        offset_s = await connection.fetchval(
            "SELECT extract(epoch FROM t AT TIME ZONE 'Asia/Shanghai' - t AT TIME ZONE 'UTC')::int"
            " FROM (SELECT now() AS t) moment"
        )
    except asyncpg.PostgresError as error:
        return Finding(check, "fail", explain(error).message, desk.text("doctor.time_zone.do"))
    found = f"Asia/Shanghai = UTC{offset_s / 3600:+g}"
    return judged(check, offset_s == 8 * 3600, found, desk.text("doctor.time_zone.do"))


async def _damage(desk: Desk, connection: Connection) -> Finding:
    rows = await connection.fetch("SELECT DISTINCT day FROM ledger_damage ORDER BY day DESC")
    days = [date_of(row["day"]).isoformat() for row in rows]
    more = f" +{len(days) - _DAYS_SHOWN:,}" if len(days) > _DAYS_SHOWN else ""
    found = ", ".join(days[:_DAYS_SHOWN]) + more if days else desk.text("word.none")
    return judged(
        desk.text("doctor.damage"), not days, found, desk.text("doctor.damage.do"), "warn"
    )


async def _redis(desk: Desk, url: str | None) -> AsyncIterator[Finding]:
    if url is None:
        yield Finding(
            "Redis", "warn", desk.text("doctor.redis.unknown"), desk.text("doctor.redis.unknown.do")
        )
        return
    try:
        info = await _redis_info(url)
    except (OSError, RedisError, ValueError) as error:
        yield Finding("Redis", "fail", explain(error).message, desk.text("doctor.redis.do"))
        return
    name, version = "Redis", info.get("redis_version")
    if info.get("valkey_version"):
        name, version = "Valkey", info["valkey_version"]
    yield Finding(name, "ok", str(version))
    memory_bytes, policy = int(str(info.get("maxmemory", 0))), str(info.get("maxmemory_policy"))
    yield judged(
        f"{name} maxmemory",
        memory_bytes > 0 and policy != "noeviction",
        f"{memory_bytes // 1_000_000:,} MB, {policy}",
        desk.text("doctor.redis.memory.do"),
        "warn",
    )


async def _redis_info(url: str) -> dict[str, object]:
    client = redis.asyncio.Redis.from_url(
        url, socket_timeout=_STORE_TIMEOUT_S, socket_connect_timeout=_STORE_TIMEOUT_S
    )
    try:
        return dict(await client.info())
    finally:
        await client.aclose()


def _http(desk: Desk, address: str, path: str) -> Finding:
    check = f"HTTP {path}"
    try:
        answer = ask(address, "GET", path, timeout_s=_STORE_TIMEOUT_S)
    except CommandError as error:
        return Finding(check, "fail", str(error), desk.text("doctor.http.do"))
    return judged(check, answer.status == 200, str(answer.status), desk.text("doctor.http.do"))
