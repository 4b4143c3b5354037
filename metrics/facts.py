"""What an evaluation is made from: the days of the ledger, the registers, and their growth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from metrics.integrations import ApplicationEntry


@dataclass(frozen=True, slots=True)
class LedgerDays:
    """What the ledger holds of the days that are evaluated.

    `counts`: (day number, level, caller class, outcome) -> resolutions; a missing key is 0.
    `application_successes`: application id -> day number -> external successes.
    `damaged_days`: day number -> why nothing is claimed for that day.
    `first_day`: the first day that was asked for; None if the ledger holds nothing older than
    `counts`. `earlier`: (level, caller class, outcome) -> resolutions of all days before
    `first_day` that are not damaged; None if nobody asked.
    """

    counts: Mapping[tuple[int, str, str, str], int]
    application_successes: Mapping[str, Mapping[int, int]]
    damaged_days: Mapping[int, str] = field(default_factory=dict)
    first_day: int | None = None
    earlier: Mapping[tuple[str, str, str], int] | None = None


@dataclass(frozen=True, slots=True)
class RegistryNumbers:
    """What the registry can count.

    `enterprises_served`: with a passed real-name check and at least one resolution. `devices`:
    (enterprise, calendar year) -> identifiers registered that year under a device template.
    `growth`: number -> day number -> by how much it grew that day, since the first day there was;
    the numbers are the readings of registrations and enterprise nodes, and `enterprises_served`
    and `enterprises_registered`. A number that is missing was not asked for.
    """

    enterprises_registered: int
    enterprises_served: int
    identifiers_registered: int
    prefixes_allotted: int
    devices: Mapping[tuple[str, int], int] = field(default_factory=dict)
    growth: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that an evaluation needs; None for a number that nobody could give now."""

    ledger: LedgerDays
    applications: Sequence[ApplicationEntry]
    registry: RegistryNumbers | None
    security_events: int | None = None
