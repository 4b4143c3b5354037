"""Policies: the rules of a measure as data. How they are written in a file: `policy_file`."""

from dataclasses import dataclass
from datetime import date
from typing import Final, Literal, TypeAlias

from metrics.day import date_of, number_of
from metrics.place import Home

RESOLUTION_READINGS: Final = ("external_successes", "successes", "requests")
INTEGRATION_READINGS: Final = ("applications", "owners", "regions")
# Identifiers in the registry, less those that were deleted · all that were ever registered.
REGISTRATION_READINGS: Final = ("identifiers_held", "identifiers_registered")
# Enterprises that run their own node · all that have a prefix, hosted ones included.
ENTERPRISE_NODE_READINGS: Final = ("nodes_self_run", "nodes_allotted")
# What a threshold can be set for.
COUNTED: Final = ("registrations", "resolutions", "enterprise_nodes")

# The ledger is asked for at most one leap year at a time.
WINDOW_DAYS_MAX = 366
# 1970-01-01: before anything that could be counted.
_FIRST_DAY: Final = 0


class PolicyError(ValueError):
    """A policy file cannot be used: which file, which key, what was expected."""


@dataclass(frozen=True, slots=True)
class Words:
    """The same words in Chinese and in English."""

    zh: str
    en: str

    def to_json(self) -> dict[str, str]:
        return {"zh": self.zh, "en": self.en}


@dataclass(frozen=True, slots=True)
class Named:
    """An id, and how people call it: a level, a reading, a kind of application."""

    id: str
    name: Words

    def to_json(self) -> dict[str, object]:
        return {"id": self.id, "name": self.name.to_json()}


@dataclass(frozen=True, slots=True)
class Span:
    """Day numbers `first` to `last`, both included."""

    first: int
    last: int

    @property
    def days(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, day: int) -> bool:
        return self.first <= day <= self.last


@dataclass(frozen=True, slots=True)
class Trailing:
    """The last `days` complete days; yesterday is the last of them."""

    id: str
    name: Words
    days: int

    def span(self, today: int) -> Span:
        return Span(today - self.days, today - 1)


@dataclass(frozen=True, slots=True)
class CalendarYear:
    """All days of `year`; without one, of the year that yesterday belongs to.

    Days to come are in the window like any other day without data, so that the first days of
    January cannot pass for a year.
    """

    id: str
    name: Words
    year: int | None = None

    def span(self, today: int) -> Span:
        year = self.year or date_of(today - 1).year
        return Span(number_of(date(year, 1, 1)), number_of(date(year, 12, 31)))


@dataclass(frozen=True, slots=True)
class FromTo:
    """The days from `first` to `last`, both included."""

    id: str
    name: Words
    first: date
    last: date

    def __post_init__(self) -> None:
        """Refuse a window without days, and one longer than the ledger is asked for.

        Raises:
            PolicyError: says which bound is broken.
        """
        days = (self.last - self.first).days + 1
        if not 1 <= days <= WINDOW_DAYS_MAX:
            raise PolicyError(
                f"window {self.id!r}, {self.first} to {self.last}: "
                f"expected 1 to {WINDOW_DAYS_MAX} days, found {days}"
            )

    def span(self, today: int) -> Span:
        return Span(number_of(self.first), number_of(self.last))


@dataclass(frozen=True, slots=True)
class Cumulative:
    """All complete days there ever were."""

    id: str
    name: Words

    def span(self, today: int) -> Span:
        return Span(_FIRST_DAY, today - 1)


Window: TypeAlias = Trailing | CalendarYear | FromTo
Period: TypeAlias = Window | Cumulative

CUMULATIVE: Final = Cumulative("cumulative", Words("累计", "cumulative"))
OF_THE_YEAR: Final = CalendarYear("calendar_year", Words("当年", "calendar year"))
# Over what a threshold can be set.
PERIODS: Final[tuple[Cumulative | CalendarYear, ...]] = (CUMULATIVE, OF_THE_YEAR)


@dataclass(frozen=True, slots=True)
class IntegrationMeasure:
    """Met when the volume and one of the two numbers of integrations are reached."""

    id: str
    title: Words
    quote: str | None
    daily_average_more_than: int
    other_provinces_at_least: int
    other_countries_at_least: int
    other_provinces: tuple[str, ...]  # place classes
    other_countries: tuple[str, ...]  # place classes
    kind: Literal["resolutions_and_integrations"] = "resolutions_and_integrations"


@dataclass(frozen=True, slots=True)
class KindsMeasure:
    """A number of applications for each kind; `home_only` leaves out owners elsewhere."""

    id: str
    title: Words
    quote: str | None
    kinds: tuple[Named, ...]
    home_only: bool
    kind: Literal["applications_by_kind"] = "applications_by_kind"


@dataclass(frozen=True, slots=True)
class EnterprisesMeasure:
    """Met in steps, by the number of enterprises."""

    id: str
    title: Words
    quote: str | None
    steps_at_least: tuple[int, ...]
    kind: Literal["enterprises_served"] = "enterprises_served"


@dataclass(frozen=True, slots=True)
class DevicesMeasure:
    """A number of devices, capped for each enterprise and calendar year."""

    id: str
    title: Words
    quote: str | None
    per_enterprise_and_year_at_most: int
    kind: Literal["devices_registered"] = "devices_registered"


@dataclass(frozen=True, slots=True)
class EventsMeasure:
    """A number of security events delivered."""

    id: str
    title: Words
    quote: str | None
    kind: Literal["security_events"] = "security_events"


@dataclass(frozen=True, slots=True)
class Condition:
    """One number, over one period, and the threshold it is compared with.

    `counted` is one of `COUNTED`.
    """

    id: str
    name: Words
    counted: str
    period: Cumulative | CalendarYear
    comparison: Literal["at_least", "more_than"]
    threshold: int

    @property
    def least(self) -> int:
        """The least number that suffices."""
        return self.threshold + (self.comparison == "more_than")


@dataclass(frozen=True, slots=True)
class ThresholdsMeasure:
    """Met when every condition is; `unmeasured` is asked for besides, and not known to a node."""

    id: str
    title: Words
    quote: str | None
    conditions: tuple[Condition, ...]
    unmeasured: tuple[Named, ...]
    kind: Literal["thresholds"] = "thresholds"


Measure: TypeAlias = (
    IntegrationMeasure
    | KindsMeasure
    | EnterprisesMeasure
    | DevicesMeasure
    | EventsMeasure
    | ThresholdsMeasure
)
# Measured over the windows of the policy.
WINDOWED_MEASURES: Final = (IntegrationMeasure, KindsMeasure)


@dataclass(frozen=True, slots=True)
class Policy:
    """One published policy; readings are in order, strictest first.

    `is_excerpt`: only a part of its text is known, and what that part leaves open is None;
    `source` then says where the part was read, and `note` what is missing. A policy whose whole
    text is known may have no document number and no last day. `windows` and `claim_window` are
    empty if nothing is measured over a window.
    """

    id: str
    title: Words
    issuer: Words | None
    document_number: str | None
    is_excerpt: bool
    source: str | None
    note: Words | None
    valid_from: date | None
    valid_to: date | None
    validity_quote: str | None
    home: Home
    claim_window: str
    levels: tuple[Named, ...]
    resolution_readings: tuple[Named, ...]
    integration_readings: tuple[Named, ...]
    registration_readings: tuple[Named, ...]
    enterprise_node_readings: tuple[Named, ...]
    windows: tuple[Window, ...]
    measures: tuple[Measure, ...]

    def is_in_force(self, day: int) -> bool | None:
        """Whether the policy is in force on a day (number); None if its text does not tell."""
        if self.valid_from is not None and day < number_of(self.valid_from):
            return False
        if self.valid_to is not None and day > number_of(self.valid_to):
            return False
        is_open = self.valid_from is None or (self.valid_to is None and self.is_excerpt)
        return None if is_open else True

    def readings(self, counted: str) -> tuple[Named, ...]:
        """The readings of one of `COUNTED`, strictest first."""
        return {
            "registrations": self.registration_readings,
            "resolutions": self.resolution_readings,
            "enterprise_nodes": self.enterprise_node_readings,
        }[counted]
