"""`idnode measures`: every policy, what is missing, and when it would be met."""

import asyncio
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from metrics.day import day_number
from registry.database import Database
from tests.command_line import Idnode, command_line

# The year of one policy and after the end of the other; 220 days of it are over.
NOON_S = datetime(2024, 8, 8, 4, tzinfo=UTC).timestamp()
TODAY = day_number(NOON_S)
A_DAY = 1_000
DAYS = 30
GUANGXI, SHANDONG = "guangxi-2020-9", "shandong-2024"
POLICIES = Path(__file__).parents[1] / "metrics/policies"


@pytest.fixture
def node(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    database_url: str,
) -> Idnode:
    """A node on which 1,000 resolutions a day have succeeded for thirty days."""
    run_it = command_line(monkeypatch, capsys, tmp_path / "var")
    monkeypatch.setenv("IDNODE_POSTGRES_URL", database_url)
    monkeypatch.setattr("node.cli.measures.now_s", lambda: NOON_S)
    asyncio.run(_resolved(database_url))
    return run_it


async def _resolved(database_url: str) -> None:
    database = Database(database_url)
    journal = uuid.uuid4()
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO journal (id, instance, opened_at, state)"
            " VALUES ($1, 'i', now(), 'closed')",
            journal,
        )
        await connection.execute(
            "INSERT INTO ledger_count (journal_id, slot, day, level, prefix, caller_class, caller,"
            " channel, outcome, value) SELECT $1, slot, $2 - slot, 'enterprise', '88.608.1',"
            " 'anonymous', '', 'http_json', 'found', $3 FROM generate_series(1, $4::int) AS slot",
            journal,
            TODAY,
            A_DAY,
            DAYS,
        )
    await database.close()


def _rows(out: str, start: str) -> list[str]:
    """The rows of tables that begin with a text, without the padding of the columns."""
    lines = (" ".join(line.split()) for line in out.splitlines())
    return [line for line in lines if line.startswith(start)]


def _policies(node: Idnode, *words: str) -> dict[str, Any]:
    found = node("measures", "--json", *words).document["policies"]
    return {policy["policy"]: policy for policy in found}


def test_every_policy_is_shown_in_both_languages(node: Idnode) -> None:
    chinese, english = node("--lang", "zh", "measures"), node("measures")

    assert (chinese.code, english.code) == (0, 0)
    for words in (
        "日均解析量",
        "未满足",
        "桂工信规范",
        "山东 2024",
        "（文号未知）",
        "按目前速度无法满足",
    ):
        assert words in chinese.out
    for words in ("not met", "> 100,000", "(document number not known)", "never at this pace"):
        assert words in english.out
    # Nothing of the one language in the other, but for names that are the same in both.
    assert not re.search(r"\bnever\b|\bmissing\b|\bpace\b", chinese.out)
    assert "目前" not in english.out


def test_the_pace_says_from_which_days_it_is(node: Idnode) -> None:
    said = "2024-07-09 to 2024-08-07"

    assert f"the mean of the 30 complete days {said}" in node("measures").out
    assert "2024-07-09 至 2024-08-07 共 30 个完整日的日均值" in node("--lang", "zh", "measures").out
    for policy in _policies(node).values():
        pace = policy["pace"]
        assert (pace["days"], pace["first"], pace["last"]) == (30, "2024-07-09", "2024-08-07")
        assert {total["average"] for total in pace["resolutions"]} == {A_DAY}


def test_a_threshold_shows_what_is_missing_and_the_day(node: Idnode) -> None:
    english, chinese = node("measures").out, node("--lang", "zh", "measures").out

    # 30,000 are there; 70 days of 1,000 are missing, today is the first of them.
    assert _rows(english, "resolutions of the year successful answers to callers") == [
        "resolutions of the year successful answers to callers outside the operator"
        " 30,000 ≥ 100,000 70,000 not met 1,000.0 expected on 2024-10-16"
    ]
    assert _rows(chinese, "当年新增标识解析量 外部请求成功响应量") == [
        "当年新增标识解析量 外部请求成功响应量 30,000 ≥ 100,000 70,000 未满足 1,000.0"
        " 预计 2024-10-16 满足"
    ]
    # Nobody has registered anything: together they are never met.
    assert "- all conditions together: never at this pace" in english
    assert "- 全部条件：按目前速度无法满足" in chinese
    assert "- joined to the national top node" in english
    assert "- 已接入国家顶级节点" in chinese


def test_every_reading_and_window_has_its_day(node: Idnode, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    text = (POLICIES / f"{GUANGXI}.toml").read_text("utf-8").replace("100_000", "900")
    policy.write_text(text, "utf-8")
    found = _policies(node, "--policy", str(policy))[GUANGXI]
    volume = {
        verdict["window"]: verdict["volume"]["projection"]["day"]
        for verdict in found["verdicts"]
        if verdict["resolution_reading"] == "external_successes"
    }

    assert len(found["verdicts"]) == 4 * 3 * 3
    assert volume == {
        "30d": "2024-08-05",  # since the 28th of 30 days
        "90d": "2024-09-28",  # 82 of 90 days, of which 30 are over
        "365d": "2025-06-02",  # 329 of 365
        "year": "2025-11-25",  # the year 2024 cannot make it
    }
    assert {verdict["projection"]["state"] for verdict in found["verdicts"]} == {"never"}
    english = node("measures", "--policy", str(policy)).out
    assert "Measure 2 at the present pace, by every reading and window:" in english
    (row,) = _rows(english, "all requests received distinct regions")
    assert row.endswith(" ".join(["never at this pace"] * 4))


def test_numbers_of_steps_show_the_next_one(node: Idnode) -> None:
    (row,) = _rows(
        node("measures").out, "6 enterprises served by the platform (enterprises_served)"
    )

    assert row.endswith("0 not met 500 short of 500 500: never at this pace")


def test_the_json_is_that_of_the_interface(node: Idnode) -> None:
    found = _policies(node)

    assert list(found) == [GUANGXI, SHANDONG]
    assert [claim["met"] for claim in found[GUANGXI]["claims"]] == [False]
    assert found[GUANGXI]["claims"][0]["projection"]["state"] == "never"
    (standing,) = found[SHANDONG]["thresholds"]
    assert [reading["met"] for reading in standing["readings"]] == [False, False]


def test_a_folder_of_policies_is_judged_besides_the_bundled_ones(
    node: Idnode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    for name in ("own-2", "own-1"):
        text = (POLICIES / f"{SHANDONG}.toml").read_text("utf-8").replace(SHANDONG, name, 1)
        (folder / f"{name}.toml").write_text(text, "utf-8")

    assert list(_policies(node, "--policy", str(folder))) == ["own-1", "own-2"]
    monkeypatch.setenv("IDNODE_POLICY", str(folder))
    assert list(_policies(node)) == ["own-1", "own-2", GUANGXI, SHANDONG]
    checks = {check["check"]: check for check in node("doctor", "--json").document["checks"]}
    assert checks["policy"]["found"] == f"own-1, own-2, {GUANGXI}, {SHANDONG}"


def test_a_policy_file_that_cannot_be_used_is_named(node: Idnode, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("id = 1")
    for words in (("--policy", str(policy)), ("--policy", str(tmp_path))):
        ended = node("measures", *words)
        assert ended.code == 1
        assert "policy.toml" in "".join(ended.err.split())
