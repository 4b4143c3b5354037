"""Where the node stands: facts from the ledger and the registry, judged by the policies."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metrics import ledger
from metrics.day import day_number
from metrics.dimension import EXTERNAL_CALLERS, SUCCESSES
from metrics.integrations import ApplicationEntry
from metrics.measures import (
    Evaluation,
    Facts,
    LedgerDays,
    RegistryNumbers,
    evaluate,
    span_needed,
)
from metrics.place import place_of
from metrics.policy import Policy, bundled_policies, load_policy
from node.config import Config
from registry import applications
from registry.database import Connection, Database


@dataclass(frozen=True, slots=True)
class Standpoint:
    """One look at the stores: an evaluation for each policy, and what they were made from."""

    evaluations: list[Evaluation]
    numbers: RegistryNumbers
    damaged_days: int


_NUMBERS = """
    SELECT (SELECT count(*) FROM enterprise) AS enterprises,
           (SELECT count(*) FROM prefix) AS prefixes,
           (SELECT coalesce(sum(added - removed), 0)::bigint FROM registration_tally
            WHERE prefix_key <> '0.NA') AS identifiers,  -- prefix handles are of the node
           (SELECT count(DISTINCT enterprise_id) FROM prefix WHERE key = ANY($1)) AS served"""


def policies(path: Path | None) -> tuple[Policy, ...]:
    """The policies to judge by: the one file given, or the bundled ones.

    Raises:
        PolicyError: if the file cannot be used.
    """
    return bundled_policies() if path is None else (load_policy(path),)


async def registry_numbers(connection: Connection) -> RegistryNumbers:
    """What the registry can count, and which enterprises were served at all."""
    served = await ledger.served_prefixes(connection, SUCCESSES, EXTERNAL_CALLERS)
    row = await connection.fetchrow(_NUMBERS, served)
    assert row is not None
    return RegistryNumbers(
        enterprises_registered=row["enterprises"],
        enterprises_served=row["served"],
        identifiers_registered=row["identifiers"],
        prefixes_allotted=row["prefixes"],
    )


async def evaluations(
    database: Database, judged_by: tuple[Policy, ...], now_s: float
) -> Standpoint:
    """One evaluation for each policy, from one look at the stores.

    Raises:
        RegistryUnavailableError: if PostgreSQL is away.
    """
    today = day_number(now_s)
    first = min(span_needed(policy, today).first for policy in judged_by)
    registered = [_entry(application) async for application in applications.stream(database)]
    async with database.connection(ledger.FLUSH_TIMEOUT_S) as connection:
        days = LedgerDays(
            await ledger.daily(connection, first, today),
            await ledger.application_days(connection, first, today, SUCCESSES),
            await ledger.damaged_days(connection),
        )
        numbers = await registry_numbers(connection)
    facts = Facts(days, registered, numbers)
    found = [evaluate(policy, facts, today) for policy in judged_by]
    return Standpoint(found, numbers, len(days.damaged_days))


async def measures_report(
    database: Database, config: Config, now_s: Callable[[], float], policy: Path | None = None
) -> Evaluation:
    """The evaluation of one policy: the file given, the configured one, or the bundled one.

    Raises:
        PolicyError: if the policy file cannot be used.
        RegistryUnavailableError: if PostgreSQL is away.
    """
    judged_by = policies(policy or config.policy)
    return (await evaluations(database, judged_by, now_s())).evaluations[0]


def _entry(application: applications.Application) -> ApplicationEntry:
    return ApplicationEntry(
        id=application.id,
        name=application.name,
        kind=application.kind,
        type=application.type,
        owner=application.owner,
        place=place_of(division=application.division, country=application.country),
        contract_sha256=application.contract_sha256,
        sandbox=application.sandbox,
    )
