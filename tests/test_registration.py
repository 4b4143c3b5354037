"""Registering files of products through the command line, as a factory does."""

import asyncio
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import httpx
import openpyxl
import pytest

from loadtest.bulk_registration import gtin, write_products
from node.registration import (
    RegistrationError,
    RegistrationProgress,
    RegistrationSummary,
    register_file,
)
from registry import enterprises, prefixes
from registry.database import Database
from registry.records import Author, PostgresRecords
from tests.conftest import RunningNode

PRODUCTS = Path(__file__).parent.parent / "examples" / "products-cc0.csv"
BAD_GTIN = "00o27000382493"
CODE = "914502000000000E1Y"
PREFIX = "88.608.5288"
AUTHOR = Author("test", "test")


@pytest.fixture
async def allotted(database: Database) -> Database:
    await enterprises.add(
        database, name="柳州样品厂", credit_code=CODE, division="450200", author=AUTHOR
    )
    await prefixes.allot(database, prefix=PREFIX, credit_code=CODE, node_prefix=None, author=AUTHOR)
    return database


async def register(
    database: Database,
    path: Path,
    *,
    suffix: str | None = "gtin",
    values: tuple[str, ...] = ("NAME=name", "BRAND=brand"),
    prefix: str = PREFIX,
    dry_run: bool = False,
    errors: Path | None = None,
    check: str = "auto",
    on_progress: Callable[[RegistrationProgress], None] = lambda _: None,
) -> RegistrationSummary:
    return await register_file(
        database,
        path,
        prefix=prefix,
        suffix=suffix,
        values=values,
        mapping=None,
        check=check,
        dry_run=dry_run,
        errors=errors,
        actor="test",
        now_s=time.time,
        on_progress=on_progress,
    )


async def texts(database: Database, suffix: str) -> dict[str, str] | None:
    record = await PostgresRecords(database).fetch(f"{PREFIX}/{suffix}".upper())
    if record is None:
        return None
    return {value.type: value.data.decode() for value in record.values}


def test_the_example_products_register_in_one_command(node: RunningNode, tmp_path: Path) -> None:
    prefix = "88.608.5201"
    node.cli(
        *("enterprise", "add", "--name", "柳州样品厂", "--credit-code", CODE),
        *("--division", "450200"),
    )
    node.cli("prefix", "allot", prefix, "--enterprise", CODE)
    errors = tmp_path / "errors.csv"
    done = node.cli(
        *("register", str(PRODUCTS), "--prefix", prefix, "--suffix", "gtin"),
        *("--value", "NAME=name", "--value", "BRAND=brand", "--errors", str(errors), "--json"),
        check=False,
    )
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["added"], summary["failed"]) == (6_561, 6_560, 1)
    with errors.open(encoding="utf-8-sig", newline="") as file:
        reported = list(csv.DictReader(file))
    assert len(reported) == 1
    assert reported[0]["field"] == "gtin"
    assert "'o'" in reported[0]["reason"]
    assert_resolves_as_the_file_says(node, prefix)


def assert_resolves_as_the_file_says(node: RunningNode, prefix: str) -> None:
    with PRODUCTS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["gtin"] != BAD_GTIN]
    for start in range(0, len(rows), 1_000):
        part = rows[start : start + 1_000]
        asked = [f"{prefix}/{row['gtin']}" for row in part]
        answer = httpx.post(
            f"{node.url}/api/resolve", json={"identifiers": asked}, timeout=30
        ).json()
        for row, result in zip(part, answer["results"], strict=True):
            found = {v["type"]: v["data"]["value"] for v in result.get("values", [])}
            said = {"NAME": row["name"], "BRAND": row["brand"]}
            assert found == {type_: text for type_, text in said.items() if text}, row


async def test_a_second_run_changes_nothing(allotted: Database) -> None:
    first = await register(allotted, PRODUCTS)
    async with allotted.connection() as connection:
        before = await connection.fetch("SELECT key, version FROM identifier ORDER BY key")
    second = await register(allotted, PRODUCTS)
    async with allotted.connection() as connection:
        after = await connection.fetch("SELECT key, version FROM identifier ORDER BY key")
    assert (first.added, first.failed) == (6_560, 1)
    assert (second.added, second.changed, second.unchanged) == (0, 0, 6_560)
    assert before == after


async def test_a_dry_run_shows_what_would_be_and_registers_nothing(
    allotted: Database, tmp_path: Path
) -> None:
    errors = tmp_path / "errors.csv"
    summary = await register(allotted, PRODUCTS, dry_run=True, errors=errors)
    assert (summary.rows, summary.added, summary.failed) == (6_561, 0, 1)
    assert summary.preview[0][0] == f"{PREFIX}/00000000959742"
    assert await PostgresRecords(allotted).count() == 0


async def test_of_two_rows_with_one_code_the_later_counts(
    allotted: Database, tmp_path: Path
) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("code,name\nA-1,first\nB-2,other\na-1,second\n", encoding="utf-8")
    summary = await register(allotted, path, suffix="code", values=("NAME=name",))
    assert (summary.rows, summary.added, summary.failed) == (3, 2, 0)
    assert await texts(allotted, "A-1") == {"NAME": "second"}


async def test_a_gbk_file_with_chinese_names_and_columns(
    allotted: Database, tmp_path: Path
) -> None:
    path = tmp_path / "产品.csv"
    path.write_bytes("编码,名称\nP-1,螺蛳粉 300克\n".encode("gbk"))
    summary = await register(allotted, path, suffix="编码", values=("名称=名称",))
    assert summary.added == 1
    assert await texts(allotted, "P-1") == {"名称": "螺蛳粉 300克"}


async def test_an_excel_file_as_factories_have_it(allotted: Database, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    page.append(["2026年产品目录"])
    page.merge_cells("A1:C1")
    page.append(["商品条码", "名称", "规格"])
    page.append([6901234567892.0, "样品", 4.5])
    path = tmp_path / "产品.xlsx"
    book.save(path)
    summary = await register(allotted, path, suffix="商品条码", values=("NAME=名称", "SIZE=规格"))
    assert (summary.added, summary.failed) == (1, 0), summary.problems
    assert await texts(allotted, "6901234567892") == {"NAME": "样品", "SIZE": "4.5"}


async def test_rows_that_fail_are_reported_and_the_others_registered(
    allotted: Database, tmp_path: Path
) -> None:
    path, errors = tmp_path / "mixed.csv", tmp_path / "errors.csv"
    path.write_text(
        f"code,name\n,no code\nok-1,good\nhas space,bad\n{'x' * 300},long\nok-2,{'y' * 70_000}\n"
        "制品-3,中文\n",
        encoding="utf-8",
    )
    summary = await register(allotted, path, suffix="code", values=("NAME=name",), errors=errors)
    assert (summary.rows, summary.added, summary.failed) == (6, 2, 4)
    with errors.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["2", "4", "5", "6"]
    assert all(row["reason"] and row["suggestion"] for row in rows)
    assert await texts(allotted, "制品-3") == {"NAME": "中文"}


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [("88.608.9999", "doesn't live here"), ("not-a-prefix", "88.<node>.<enterprise>")],
)
async def test_a_prefix_that_is_not_allotted_says_what_to_do(
    allotted: Database, prefix: str, reason: str
) -> None:
    with pytest.raises(RegistrationError, match=reason):
        await register(allotted, PRODUCTS, prefix=prefix)


async def test_a_missing_column_is_named(allotted: Database) -> None:
    with pytest.raises(RegistrationError, match="nmae"):
        await register(allotted, PRODUCTS, values=("NAME=nmae",))


async def test_an_empty_file_and_a_header_alone(allotted: Database, tmp_path: Path) -> None:
    header = tmp_path / "header.csv"
    header.write_text("gtin,name,brand\n")
    assert (await register(allotted, header)).rows == 0
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(RegistrationError, match="empty"):
        await register(allotted, empty)


async def test_progress_grows_to_the_whole(allotted: Database, tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    write_products(path, 65_000)
    seen: list[RegistrationProgress] = []
    await register(allotted, path, on_progress=seen.append)
    assert [progress.rows for progress in seen] == sorted(progress.rows for progress in seen)
    assert seen[-1].rows == 65_000
    assert seen[-1].fraction == 1.0


async def test_a_kill_in_the_middle_and_a_second_run_end_with_the_rows_of_the_file(
    allotted: Database, database_url: str, tmp_path: Path
) -> None:
    rows = 150_000
    path = tmp_path / "killed.csv"
    write_products(path, rows)
    words = [
        *(sys.executable, "-m", "node", "register", str(path), "--prefix", PREFIX),
        *("--suffix", "gtin", "--value", "NAME=name", "--value", "BRAND=brand"),
    ]
    environment = RunningNode(tmp_path / "data", 1).environment_for_test()
    environment["IDNODE_POSTGRES_URL"] = database_url
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        await _until_some(database_url)
    process.kill()
    await process.wait()
    assert 0 < await PostgresRecords(allotted).count() < rows
    second = await asyncio.create_subprocess_exec(
        *words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, said = await second.communicate()
    assert second.returncode == 0, said.decode()
    async with allotted.connection(30) as connection:
        keys = {row["key"] for row in await connection.fetch("SELECT key FROM identifier")}
        changed = await connection.fetchval("SELECT count(*) FROM identifier_history")
    assert keys == {f"{PREFIX}/{gtin(690000000000 + n)}" for n in range(rows)}
    assert changed == 0
    assert await PostgresRecords(allotted).count() == rows
    found = await texts(allotted, gtin(690000000000 + rows - 1))
    assert found is not None
    assert found["NAME"] == f"Product number {rows - 1}"


async def _until_some(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        while True:
            if await connection.fetchval("SELECT count(*) FROM registration_tally"):
                return
            await asyncio.sleep(0.005)
    finally:
        await connection.close()
