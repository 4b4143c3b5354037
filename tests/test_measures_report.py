"""Where the node stands, from a real ledger and a real registry."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
from stdnum.cn import uscc

from metrics.counting import Counting
from metrics.day import day_number
from metrics.flushing import Flushing
from metrics.journal import JournalSize
from metrics.policy import PolicyError
from metrics.policy_file import bundled_policies, load_policies
from node.config import Config
from node.measures_report import evaluations, measures_report
from registry import applications, enterprises, prefixes
from registry.database import Database
from registry.records import Author, PostgresRecords
from resolver.errors import RegistryUnavailableError
from resolver.identifier import for_registration
from tests.conftest import free_port

NOON_S = datetime(2022, 8, 5, 4, tzinfo=UTC).timestamp()
TODAY = day_number(NOON_S)
DAY_S = 86_400
AUTHOR = Author("cli:test", "cli")
BUNDLED = ["guangxi-2020-9", "shandong-2024"]
STRICTEST = "external_successes"


def _code(number: int) -> str:
    body = f"91450200{number:09d}"
    return body + str(uscc.calc_check_digit(body))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Three enterprises with a prefix each, three identifiers, of which one is deleted."""
    opened = Database(database_url)
    records = PostgresRecords(opened)
    for n in (1, 2, 3):
        await enterprises.add(
            opened, name=f"工厂 {n}", credit_code=_code(n), division="450200", author=AUTHOR
        )
        await prefixes.allot(
            opened,
            prefix=f"88.608.{n}",
            credit_code=_code(n),
            node_prefix=None,
            author=AUTHOR,
        )
        await records.put(for_registration(f"88.608.{n}/a"), [], AUTHOR, NOON_S)
    await records.delete(for_registration("88.608.3/a"), AUTHOR, NOON_S)
    yield opened
    await opened.close()


@pytest.fixture
def counting(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "journals", NOON_S, JournalSize(256, 256, 131_072, 8, 8, 2_048))


def _count(
    counting: Counting,
    times: int,
    *,
    day: int = -1,
    prefix: str = "88.608.1",
    caller: str = "",
    caller_class: str = "anonymous",
    outcome: str = "found",
) -> None:
    for _ in range(times):
        counting.count(
            NOON_S + day * DAY_S,
            "enterprise",
            prefix,
            "application" if caller else caller_class,
            caller,
            "http_json",
            outcome,
            "192.0.2.1",
        )


async def _flush(counting: Counting, database: Database) -> None:
    folder = counting.journals[0].path.parent
    await Flushing(folder, counting, database.connection).finish()
    counting.close()


def _config(tmp_path: Path, policy: Path | None = None) -> Config:
    return Config(
        data=tmp_path,
        http_host="127.0.0.1",
        http_port=8_000,
        postgres_url=None,
        redis_url=None,
        node_prefix=None,
        policy=policy,
        trusted_proxies=(),
        language="en",
        operator_key_file=tmp_path / "operator.key",
        workers=1,
    )


def _own_policy(folder: Path, name: str) -> Path:
    """A policy file of the operator's own: the bundled one under another id."""
    first = BUNDLED[0]
    text = resources.files("metrics").joinpath(f"policies/{first}.toml").read_text("utf-8")
    path = folder / f"{name}.toml"
    path.write_text(text.replace(f'id = "{first}"', f'id = "{name}"', 1))
    return path


async def test_without_resolutions_the_registry_is_all_there_is(database: Database) -> None:
    found = await evaluations(database, bundled_policies(), NOON_S)
    assert found.damaged_days == 0
    numbers = found.numbers
    assert (numbers.enterprises_registered, numbers.prefixes_allotted) == (3, 3)
    assert (numbers.enterprises_served, numbers.identifiers_registered) == (0, 2)
    assert {evaluation.today for evaluation in found.evaluations} == {TODAY}
    assert found.evaluations[0].claimed.resolutions[STRICTEST].total == 0


async def test_the_ledger_decides_what_the_windows_hold(
    database: Database, counting: Counting
) -> None:
    _count(counting, 5, day=0)
    _count(counting, 7, day=-1)
    _count(counting, 3, day=-1, prefix="88.608.2", outcome="found_stale")
    _count(counting, 4, day=-1, outcome="not_found")
    _count(counting, 9, day=-1, caller_class="operator")
    _count(counting, 2, day=-40)
    _count(counting, 11, day=-400)
    await _flush(counting, database)

    evaluation = (await evaluations(database, bundled_policies(), NOON_S)).evaluations[0]
    assert evaluation.today_so_far[STRICTEST].total == 5
    totals = {
        (window_id, reading): window.resolutions[reading].total
        for window_id, window in evaluation.windows.items()
        for reading in (STRICTEST, "requests")
    }
    assert totals == {
        ("30d", STRICTEST): 10,
        ("30d", "requests"): 14,
        ("90d", STRICTEST): 12,
        ("90d", "requests"): 16,
        ("365d", STRICTEST): 12,
        ("365d", "requests"): 16,
        ("year", STRICTEST): 12,
        ("year", "requests"): 16,
    }
    assert evaluation.claimed.uncountable["enterprise"]["operator"] == 9


async def test_an_enterprise_is_served_when_others_have_found_something_of_it(
    database: Database, counting: Counting
) -> None:
    _count(counting, 1, prefix="88.608.1")
    _count(counting, 1, prefix="88.608.2", outcome="not_found")
    _count(counting, 1, prefix="88.608.3", caller_class="operator")
    _count(counting, 1, prefix="88.608.3", caller_class="sandbox")
    await _flush(counting, database)
    assert (await evaluations(database, bundled_policies(), NOON_S)).numbers.enterprises_served == 1


async def test_an_application_stands_by_its_own_successes(
    database: Database, counting: Counting
) -> None:
    ids = []
    for n, contract in enumerate(("ab" * 32, None, "cd" * 32)):
        application, _ = await applications.add(
            database,
            name=f"追溯平台 {n}",
            kind="traceability",
            owner="深圳样品公司",
            division="440300",
            contract_sha256=contract,
            author=AUTHOR,
        )
        ids.append(application.id)
    _count(counting, 6, caller=ids[0])
    _count(counting, 1, caller=ids[1])
    _count(counting, 8, caller=ids[2], outcome="not_found")
    _count(counting, 2, caller="app-999999")  # not in the register any more
    await _flush(counting, database)

    evaluation = (await evaluations(database, bundled_policies(), NOON_S)).evaluations[0]
    assert [(one.entry.id, one.state, one.successes) for one in evaluation.claimed.standings] == [
        (ids[0], "completed", 6),
        (ids[1], "resolving", 1),
        (ids[2], "registered", 0),
    ]
    assert evaluation.claimed.integrations["applications"]["other_province"].keys() == {ids[0]}


async def test_a_damaged_day_counts_as_nothing(database: Database, counting: Counting) -> None:
    _count(counting, 5, day=-2)
    _count(counting, 7, day=-1)
    await _flush(counting, database)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO ledger_damage (journal_id, day, reason)"
            " SELECT id, $1::int, 'lost' FROM journal",
            TODAY - 2,
        )
    found = await evaluations(database, bundled_policies(), NOON_S)
    assert found.damaged_days == 1
    claimed = found.evaluations[0].claimed
    assert claimed.resolutions[STRICTEST].total == 7
    assert claimed.damaged_days == {TODAY - 2: "lost"}


async def test_the_policies_are_those_given_or_the_bundled_ones_and_those_configured(
    database: Database, tmp_path: Path
) -> None:
    given, configured = _own_policy(tmp_path, "given"), tmp_path / "configured"
    configured.mkdir()
    for name in ("second", "first"):
        _own_policy(configured, name)

    async def ids(in_config: Path | None, policy: Path | None = None) -> list[str]:
        config = _config(tmp_path, in_config)
        found = await measures_report(database, config, lambda: NOON_S, policy)
        return [evaluation.policy.id for evaluation in found]

    assert await ids(None) == BUNDLED
    assert await ids(given) == ["given", *BUNDLED]
    assert await ids(configured) == ["first", "second", *BUNDLED]
    assert await ids(configured, given) == ["given"]
    assert await ids(None, configured) == ["first", "second"]
    (tmp_path / "bad.toml").write_text("id = 1")
    with pytest.raises(PolicyError, match="bad"):
        await ids(None, tmp_path / "bad.toml")


async def test_several_policies_are_judged_by_one_look(
    database: Database, counting: Counting, tmp_path: Path
) -> None:
    _count(counting, 5)
    await _flush(counting, database)
    judged_by = (bundled_policies()[0], *load_policies(_own_policy(tmp_path, "second")))
    found = await evaluations(database, judged_by, NOON_S)
    assert [evaluation.policy.id for evaluation in found.evaluations] == [BUNDLED[0], "second"]
    assert {e.claimed.resolutions[STRICTEST].total for e in found.evaluations} == {5}


async def test_what_is_cumulative_reaches_back_to_the_first_day(
    database: Database, counting: Counting
) -> None:
    _count(counting, 5, day=0)
    _count(counting, 7, day=-1)
    _count(counting, 2, day=-300)
    _count(counting, 11, day=-1_000)
    _count(counting, 13, day=-1_001, outcome="not_found")
    _count(counting, 17, day=-1_002)
    await _flush(counting, database)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO ledger_damage (journal_id, day, reason)"
            " SELECT id, $1::int, 'lost' FROM journal",
            TODAY - 1_002,
        )

    values = await _values(database)
    assert values["resolutions-cumulative"] == {
        "external_successes": 7 + 2 + 11,
        "successes": 7 + 2 + 11,
        "requests": 7 + 2 + 11 + 13,
    }
    assert set(values["resolutions-year"].values()) == {7}


async def test_registrations_and_enterprise_nodes_are_counted_by_day(database: Database) -> None:
    credit_code = _code(4)
    await enterprises.add(
        database, name="自建", credit_code=credit_code, division="450200", author=AUTHOR
    )
    for n in (4, 5):
        await prefixes.allot(
            database,
            prefix=f"88.608.{n}",
            credit_code=credit_code,
            node_prefix=None,
            author=AUTHOR,
            mode="self_run",
        )
    async with database.connection() as connection:
        at = datetime.fromtimestamp(NOON_S - DAY_S, UTC)
        # As it is said below: the first enterprise, an old one; the second, with no prefix now.
        await connection.execute("UPDATE prefix SET created_at = $1", at)
        await connection.execute(
            "UPDATE prefix SET created_at = created_at - interval '2 years' WHERE key = '88.608.1'"
        )
        await connection.execute("UPDATE prefix SET suspended_at = now() WHERE key = '88.608.2'")
        await connection.execute("UPDATE registration_tally SET day = day - 1")

    values = await _values(database)
    assert values["enterprise-nodes-cumulative"] == {"nodes_self_run": 1, "nodes_allotted": 3}
    assert values["enterprise-nodes-year"] == {"nodes_self_run": 1, "nodes_allotted": 2}
    held = {"identifiers_held": 2, "identifiers_registered": 3}
    assert values["registrations-cumulative"] == values["registrations-year"] == held


async def _values(database: Database) -> dict[str, dict[str, int | None]]:
    """By condition and reading, against the bundled policy of thresholds."""
    found = await evaluations(database, bundled_policies(), NOON_S)
    (standing,) = found.evaluations[1].thresholds
    return {
        one.condition.id: {reading.reading.id: reading.value for reading in one.readings}
        for one in standing.conditions
    }


async def test_with_postgres_away_it_says_so(tmp_path: Path) -> None:
    away = Database(f"postgresql://idnode@127.0.0.1:{free_port()}/idnode")
    with pytest.raises(RegistryUnavailableError):
        await measures_report(away, _config(tmp_path), lambda: NOON_S)
    await away.close()
