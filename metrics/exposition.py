"""The Prometheus page, made from plain numbers; its names and labels are a contract."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from metrics.dimension import (
    CALLER_CLASSES,
    CHANNELS,
    EXTERNAL_CALLERS,
    LEVELS,
    OUTCOME_FOUND,
    OUTCOME_UNAVAILABLE,
    OUTCOMES,
)
from metrics.facts import RegistryNumbers
from metrics.integrations import Standing, counts_by_state
from metrics.measures import Evaluation
from metrics.place import FOREIGN, HK_MO_TW, OTHER_PROVINCE
from metrics.policy import IntegrationMeasure
from metrics.thresholds import READINGS
from metrics.worker_numbers import CACHE_RESULTS, CACHE_TIERS, REFUSED_REASONS

# What generate_latest writes when nothing else is negotiated.
CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

STORES: Final = ("postgres", "redis")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric of the page: its labels, and what it tells."""

    labels: tuple[str, ...]
    help_text: str


# Every metric that the page can show. A name that ends in _total is a counter, the others gauges.
FAMILIES: Final[Mapping[str, Family]] = {
    "idnode_resolutions_total": Family(
        ("level", "channel", "outcome", "caller_class"), "Every resolution, countable or not."
    ),
    "idnode_daily_resolutions": Family(
        ("reading",), "Resolutions of today so far (Asia/Shanghai), the greater of the two levels."
    ),
    "idnode_daily_resolutions_average": Family(
        ("reading", "window"),
        "Mean of the calendar days of the window, the greater of the two levels.",
    ),
    "idnode_daily_resolutions_threshold": Family(
        (), "The daily average that the policy wants exceeded."
    ),
    "idnode_integrations": Family(
        ("state", "place"), "Applications by state in the claim window and by place of the owner."
    ),
    "idnode_external_regions": Family(
        (), "Distinct other provinces whose applications resolved in the claim window."
    ),
    "idnode_external_countries": Family(
        (), "Distinct other countries and regions whose applications resolved in the claim window."
    ),
    "idnode_measure_met": Family(
        ("policy", "measure", "reading"),
        "1 if the measure is met under the reading (integrations by the strictest; thresholds each"
        " by its strictest or its loosest), else 0.",
    ),
    "idnode_enterprises_served": Family(
        (), "Enterprises with a passed real-name check and at least one resolution."
    ),
    "idnode_identifiers_registered": Family((), "Identifiers in the registry."),
    "idnode_prefixes_allocated": Family((), "Enterprise prefixes allotted."),
    "idnode_build_info": Family(("version",), "Version of the node; always 1."),
    "idnode_store_up": Family(("store",), "1 if the store answered last, else 0."),
    "idnode_cache_entries": Family((), "Answers held in the caches of the processes."),
    "idnode_cache_lookups_total": Family(("tier", "result"), "Look-ups by tier and result."),
    "idnode_refused_total": Family(
        ("reason",), "Requests and connections turned away because of a limit."
    ),
    "idnode_connections": Family((), "HTTP connections open."),
    "idnode_workers": Family((), "Worker processes that live."),
    "idnode_l1_emptied_total": Family(
        (), "Times that a process stopped believing its cache, because messages may be missing."
    ),
    # Not "days" in the name: promtool takes that word for a unit other than seconds.
    "idnode_ledger_damaged_dates": Family(
        (), "Days for which nothing is claimed, because a journal is damaged."
    ),
    "idnode_journal_flush_lag_seconds": Family(
        (), "Age of the oldest count that is not in the ledger yet."
    ),
    "idnode_outbox_pending": Family((), "Changes written but not announced yet."),
}

_Rows: TypeAlias = Iterable[tuple[Sequence[str], float]]
_RESOLUTION_SETS: Final = (LEVELS, CHANNELS, OUTCOMES, CALLER_CLASSES)
# Present with 0 from the start, so that rates and alerts on them work before the first one.
_RESOLUTIONS_FROM_START: Final = tuple(
    product(
        LEVELS,
        CHANNELS,
        (OUTCOME_FOUND, OUTCOME_UNAVAILABLE),
        (caller for caller in CALLER_CLASSES if caller in EXTERNAL_CALLERS),
    )
)


@dataclass(frozen=True, slots=True)
class PageNumbers:
    """What the page shows; None for what is not known now, which is then left out.

    `resolutions`: (level, channel, outcome, caller class) -> count since the journals began.
    `evaluations`: one for each policy; the first that has windows is the one whose numbers fill
    the gauges that carry no policy label. `store_up`: by store. `cache_lookups`: (tier, result) ->
    count. `refused`: by reason.
    """

    version: str
    resolutions: Mapping[tuple[str, str, str, str], int] | None
    evaluations: Sequence[Evaluation] = ()
    registry: RegistryNumbers | None = None
    store_up: Mapping[str, bool] = field(default_factory=dict)
    cache_entries: int | None = None
    cache_lookups: Mapping[tuple[str, str], int] | None = None
    refused: Mapping[str, int] | None = None
    connections: int | None = None
    workers: int | None = None
    l1_emptied: int | None = None
    ledger_damaged_days: int | None = None
    journal_flush_lag_s: float | None = None
    outbox_pending: int | None = None


def render_page(numbers: PageNumbers) -> bytes:
    """The page in the text format 0.0.4, to be sent as `CONTENT_TYPE`.

    Raises:
        ValueError: for a label value from outside the fixed sets.
    """
    registry = CollectorRegistry()
    registry.register(_Page(numbers))
    return generate_latest(registry)


class _Page(Collector):
    """One page; a new one is made for every scrape, nothing is kept between them."""

    def __init__(self, numbers: PageNumbers) -> None:
        self._numbers = numbers

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        if self._numbers.resolutions is not None:
            yield _resolutions(self._numbers.resolutions)
        if self._numbers.evaluations:
            yield from _leading(self._numbers.evaluations)
            yield _measures_met(self._numbers.evaluations)
        yield from _registered(self._numbers.registry)
        yield from _operation(self._numbers)


def _resolutions(counts: Mapping[tuple[str, str, str, str], int]) -> Metric:
    _check("idnode_resolutions_total", counts, _RESOLUTION_SETS)
    rows = dict.fromkeys(_RESOLUTIONS_FROM_START, 0) | dict(counts)
    return _family("idnode_resolutions_total", sorted(rows.items()))


def _leading(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    """The gauges without a policy label, so that they keep their label sets with any policies."""
    windowed = [evaluation for evaluation in evaluations if evaluation.claim_window]
    today = (windowed or evaluations)[0].today_so_far.values()
    yield _family("idnode_daily_resolutions", [((total.reading,), total.total) for total in today])
    for evaluation in windowed[:1]:
        yield from _volume(evaluation)
        yield from _integrations(evaluation)


def _volume(evaluation: Evaluation) -> Iterable[Metric]:
    yield _family(
        "idnode_daily_resolutions_average",
        [
            ((total.reading, window_id), total.average)
            for window_id, window in evaluation.windows.items()
            for total in window.resolutions.values()
        ],
    )
    for measure in evaluation.policy.measures:
        if isinstance(measure, IntegrationMeasure):
            yield _number("idnode_daily_resolutions_threshold", measure.daily_average_more_than)
            return


def _integrations(evaluation: Evaluation) -> Iterable[Metric]:
    found = evaluation.claimed.standings
    counts = counts_by_state(found, evaluation.policy.home)
    yield _family("idnode_integrations", counts.items())
    yield _number("idnode_external_regions", _regions(found, (OTHER_PROVINCE,)))
    yield _number("idnode_external_countries", _regions(found, (HK_MO_TW, FOREIGN)))


def _regions(found: Iterable[Standing], places: Collection[str]) -> int:
    active = (standing for standing in found if standing.is_active)
    return len({one.entry.place.region for one in active if one.place_class in places})


def _measures_met(evaluations: Iterable[Evaluation]) -> Metric:
    rows = [row for evaluation in evaluations for row in _met_rows(evaluation)]
    return _family("idnode_measure_met", rows)


def _met_rows(evaluation: Evaluation) -> _Rows:
    policy = evaluation.policy
    strictest = [reading.id for reading in policy.integration_readings[:1]]
    for verdict in evaluation.verdicts:
        if verdict.window == evaluation.claim_window and verdict.integration_reading in strictest:
            reading = verdict.resolutions.reading
            yield (policy.id, verdict.measure.id, reading), int(verdict.is_met)
    for number in evaluation.numbers:
        if number.is_met is not None:
            yield (policy.id, number.measure.id, number.reading), int(number.is_met)
    for standing in evaluation.thresholds:
        for reading in READINGS:
            is_met = standing.is_met(reading)
            if is_met is not None:
                yield (policy.id, standing.measure.id, reading), int(is_met)


def _registered(registry: RegistryNumbers | None) -> Iterable[Metric]:
    if registry is None:
        return
    yield _number("idnode_enterprises_served", registry.enterprises_served)
    yield _number("idnode_identifiers_registered", registry.identifiers_registered)
    yield _number("idnode_prefixes_allocated", registry.prefixes_allotted)


def _operation(numbers: PageNumbers) -> Iterable[Metric]:
    yield _family("idnode_build_info", [((numbers.version,), 1)])
    if numbers.store_up:
        stores = {(store,): int(is_up) for store, is_up in numbers.store_up.items()}
        _check("idnode_store_up", stores, (STORES,))
        yield _family("idnode_store_up", sorted(stores.items()))
    if numbers.cache_lookups is not None:
        _check("idnode_cache_lookups_total", numbers.cache_lookups, (CACHE_TIERS, CACHE_RESULTS))
        yield _family("idnode_cache_lookups_total", sorted(numbers.cache_lookups.items()))
    if numbers.refused is not None:
        refused = {(reason,): number for reason, number in numbers.refused.items()}
        _check("idnode_refused_total", refused, (REFUSED_REASONS,))
        yield _family("idnode_refused_total", sorted(refused.items()))
    plain: Mapping[str, float | None] = {
        "idnode_cache_entries": numbers.cache_entries,
        "idnode_connections": numbers.connections,
        "idnode_workers": numbers.workers,
        "idnode_l1_emptied_total": numbers.l1_emptied,
        "idnode_ledger_damaged_dates": numbers.ledger_damaged_days,
        "idnode_journal_flush_lag_seconds": numbers.journal_flush_lag_s,
        "idnode_outbox_pending": numbers.outbox_pending,
    }
    for name, value in plain.items():
        if value is not None:
            yield _number(name, value)


def _check(name: str, rows: Iterable[Sequence[str]], known: Sequence[Sequence[str]]) -> None:
    for values in rows:
        for value, label, fixed in zip(values, FAMILIES[name].labels, known, strict=True):
            if value not in fixed:
                expected = ", ".join(fixed)
                raise ValueError(f"{name}: {label}={value!r}: expected one of {expected}")


def _number(name: str, value: float) -> Metric:
    return _family(name, [((), value)])


def _family(name: str, rows: _Rows) -> Metric:
    about = FAMILIES[name]
    make = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = make(name, about.help_text, labels=about.labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
