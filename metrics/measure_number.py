"""The measures that need no window of resolutions: each with its number, and what is missing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from metrics.facts import Facts, RegistryNumbers
from metrics.integrations import Standing
from metrics.policy import (
    CUMULATIVE,
    DevicesMeasure,
    EnterprisesMeasure,
    EventsMeasure,
    KindsMeasure,
    Measure,
    Policy,
    Words,
)
from metrics.projection import Goal, Series, Target, projection_json


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a measure that is met in steps; `goal` is None if its growth is not known."""

    at_least: int
    is_reached: bool
    goal: Goal | None

    def to_json(self, today: int) -> dict[str, object]:
        return {
            "at_least": self.at_least,
            "met": self.is_reached,
            "projection": projection_json(self.goal, today),
        }


@dataclass(frozen=True, slots=True)
class MeasureNumber:
    """The number of a measure that needs no window.

    `value` is None while it is not known; `is_met` is None where the measure sets no threshold
    or the value is not known; `parts` are the numbers behind it.
    """

    measure: Measure
    reading: str
    value: int | None
    parts: Mapping[str, int] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    missing: tuple[Words, ...] = ()

    @property
    def step_reached(self) -> int | None:
        return max((step.at_least for step in self.steps if step.is_reached), default=None)

    @property
    def is_met(self) -> bool | None:
        return self.step_reached is not None if self.steps else None

    @property
    def step_ahead(self) -> Step | None:
        """The next step, or the last one if all are reached."""
        ahead = [step for step in self.steps if not step.is_reached]
        return next(iter(ahead or self.steps[-1:]), None)

    def to_json(self, today: int) -> dict[str, object]:
        return {
            "measure": self.measure.id,
            "kind": self.measure.kind,
            "title": self.measure.title.to_json(),
            "reading": self.reading,
            "value": self.value,
            "parts": dict(self.parts),
            "step_reached": self.step_reached,
            "steps": [step.to_json(today) for step in self.steps],
            "met": self.is_met,
            "missing": [words.to_json() for words in self.missing],
        }


def measure_numbers(
    policy: Policy, facts: Facts, standings: Iterable[Standing], today: int
) -> Iterable[MeasureNumber]:
    """The numbers of such measures, in the policy's order, strictest reading first.

    Args:
        standings: the applications in the claim window.
        today: day number; the registry is asked now, so that its numbers have today in them.
    """
    found = tuple(standings)
    for measure in policy.measures:
        match measure:
            case KindsMeasure():
                yield _applications_by_kind(measure, policy, found)
            case EnterprisesMeasure():
                yield from _enterprises(measure, facts.registry, today)
            case DevicesMeasure():
                yield _devices(measure, facts.registry)
            case EventsMeasure():
                yield MeasureNumber(measure, "security_events", facts.security_events)


def _applications_by_kind(
    measure: KindsMeasure, policy: Policy, standings: Iterable[Standing]
) -> MeasureNumber:
    """Applications that resolved in the claim window; a row in the register alone is no use."""
    parts = {kind.id: 0 for kind in measure.kinds}
    for standing in standings:
        is_at_home = standing.place_class == policy.home.label
        if standing.is_active and standing.entry.kind in parts:
            parts[standing.entry.kind] += is_at_home or not measure.home_only
    return MeasureNumber(measure, "applications", sum(parts.values()), parts)


def _enterprises(
    measure: EnterprisesMeasure, registry: RegistryNumbers | None, today: int
) -> Iterable[MeasureNumber]:
    """Strictest first: enterprises served, then all that are registered."""
    for reading in ("enterprises_served", "enterprises_registered"):
        if registry is None:
            yield MeasureNumber(measure, reading, None)
        else:
            is_served = reading == "enterprises_served"
            value = registry.enterprises_served if is_served else registry.enterprises_registered
            yield _stepped(measure, reading, value, registry.growth.get(reading), today)


def _stepped(
    measure: EnterprisesMeasure,
    reading: str,
    value: int,
    growth: Mapping[int, int] | None,
    today: int,
) -> MeasureNumber:
    steps = tuple(
        Step(at_least, value >= at_least, _goal(growth, at_least, today))
        for at_least in measure.steps_at_least
    )
    missing = tuple(
        Words(
            f"距 {step.at_least:,} 家还差 {step.at_least - value:,} 家",
            f"{step.at_least - value:,} short of {step.at_least:,}",
        )
        for step in [step for step in steps if not step.is_reached][:1]
    )
    return MeasureNumber(measure, reading, value, steps=steps, missing=missing)


def _goal(growth: Mapping[int, int] | None, at_least: int, today: int) -> Goal | None:
    if growth is None:
        return None
    series = Series(growth, min(growth, default=today), today, has_today=True)
    return Target(series, CUMULATIVE, at_least)


def _devices(measure: DevicesMeasure, registry: RegistryNumbers | None) -> MeasureNumber:
    if registry is None:
        return MeasureNumber(measure, "devices_countable", None)
    at_most = measure.per_enterprise_and_year_at_most
    countable = sum(min(count, at_most) for count in registry.devices.values())
    parts = {"registered": sum(registry.devices.values()), "countable": countable}
    return MeasureNumber(measure, "devices_countable", countable, parts)
