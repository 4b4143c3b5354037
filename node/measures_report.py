"""Where the node stands: facts from the ledger and the registry, judged by the policies."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metrics import ledger
from metrics.day import day_number
from metrics.dimension import EXTERNAL_CALLERS, SUCCESSES
from metrics.facts import Facts, LedgerDays, RegistryNumbers
from metrics.integrations import ApplicationEntry
from metrics.measures import Evaluation, evaluate, needs_earlier, span_needed
from metrics.place import place_of
from metrics.policy import Policy
from metrics.policy_file import load_policies, policies_beside_bundled
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
           (SELECT count(*) FROM prefix) AS prefixes"""
# By day: identifiers registered and deleted. Prefix handles are of the node.
_REGISTRATIONS = """
    SELECT day, sum(added)::bigint AS added, sum(removed)::bigint AS removed
    FROM registration_tally WHERE prefix_key <> '0.NA' GROUP BY day"""
# By enterprise: the day it was registered; the first day of a prefix that is not suspended, of any
# mode and of its own node; the first day on which something below one of its prefixes was resolved.
_ENTERPRISES = """
    SELECT shanghai_day(e.created_at) AS registered,
           shanghai_day(min(p.created_at) FILTER (WHERE p.suspended_at IS NULL)) AS allotted,
           shanghai_day(min(p.created_at) FILTER (WHERE p.suspended_at IS NULL
                                                  AND p.mode = 'self_run')) AS self_run,
           min(s.day) AS served
    FROM enterprise e
    LEFT JOIN prefix p ON p.enterprise_id = e.id
    LEFT JOIN unnest($1::text[], $2::int[]) AS s (key, day) ON s.key = p.key
    GROUP BY e.id"""


async def registry_numbers(connection: Connection) -> RegistryNumbers:
    """What the registry can count, day by day, and which enterprises were served at all."""
    served = await ledger.served_prefixes(connection, SUCCESSES, EXTERNAL_CALLERS)
    row = await connection.fetchrow(_NUMBERS)
    assert row is not None
    tally = await connection.fetch(_REGISTRATIONS)
    first_days = await connection.fetch(_ENTERPRISES, list(served), list(served.values()))

    def grown(column: str) -> Counter[int]:
        return Counter(found[column] for found in first_days if found[column] is not None)

    growth: dict[str, dict[int, int]] = {
        "identifiers_held": {found["day"]: found["added"] - found["removed"] for found in tally},
        "identifiers_registered": {found["day"]: found["added"] for found in tally},
        "nodes_self_run": grown("self_run"),
        "nodes_allotted": grown("allotted"),
        "enterprises_served": grown("served"),
        "enterprises_registered": grown("registered"),
    }
    return RegistryNumbers(
        enterprises_registered=row["enterprises"],
        enterprises_served=sum(growth["enterprises_served"].values()),
        identifiers_registered=sum(growth["identifiers_held"].values()),
        prefixes_allotted=row["prefixes"],
        growth=growth,
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
        wants_earlier = any(needs_earlier(policy) for policy in judged_by)
        days = LedgerDays(
            await ledger.daily(connection, first, today),
            await ledger.application_days(connection, first, today, SUCCESSES),
            await ledger.damaged_days(connection),
            first,
            await ledger.earlier(connection, first) if wants_earlier else None,
        )
        numbers = await registry_numbers(connection)
    facts = Facts(days, registered, numbers)
    found = [evaluate(policy, facts, today) for policy in judged_by]
    return Standpoint(found, numbers, len(days.damaged_days))


async def measures_report(
    database: Database, config: Config, now_s: Callable[[], float], policy: Path | None = None
) -> list[Evaluation]:
    """One evaluation for each policy: those of the file or folder given, or else those that the
    node judges by.

    Raises:
        PolicyError: if a policy file cannot be used.
        RegistryUnavailableError: if PostgreSQL is away.
    """
    judged_by = load_policies(policy) if policy else policies_beside_bundled(config.policy)
    return (await evaluations(database, judged_by, now_s())).evaluations


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
