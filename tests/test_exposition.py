"""The Prometheus page."""

import subprocess
from datetime import date

import pytest
from prometheus_client.parser import text_string_to_metric_families

from metrics import dimension
from metrics.day import number_of
from metrics.exposition import CONTENT_TYPE, FAMILIES, PageNumbers, render_page
from metrics.facts import Facts, LedgerDays, RegistryNumbers
from metrics.integrations import ApplicationEntry
from metrics.measures import Evaluation, evaluate
from metrics.place import place_of
from metrics.policy import Policy
from metrics.policy_file import bundled_policies

GUANGXI, SHANDONG = bundled_policies()
TODAY = number_of(date(2022, 8, 5))

# The contract: name -> labels.
MEASURE_METRICS = {
    "idnode_resolutions_total": {"level", "channel", "outcome", "caller_class"},
    "idnode_daily_resolutions": {"reading"},
    "idnode_daily_resolutions_average": {"reading", "window"},
    "idnode_daily_resolutions_threshold": set(),
    "idnode_integrations": {"state", "place"},
    "idnode_external_regions": set(),
    "idnode_external_countries": set(),
    "idnode_measure_met": {"policy", "measure", "reading"},
    "idnode_enterprises_served": set(),
    "idnode_identifiers_registered": set(),
    "idnode_prefixes_allocated": set(),
}
OPERATION_METRICS = {
    "idnode_build_info": {"version"},
    "idnode_store_up": {"store"},
    "idnode_cache_entries": set(),
    "idnode_cache_lookups_total": {"tier", "result"},
    "idnode_refused_total": {"reason"},
    "idnode_connections": set(),
    "idnode_workers": set(),
    "idnode_l1_emptied_total": set(),
    "idnode_ledger_damaged_dates": set(),
    "idnode_journal_flush_lag_seconds": set(),
    "idnode_outbox_pending": set(),
}
VOLUME_READINGS = {"external_successes", "successes", "requests"}
LABEL_VALUES = {
    "level": set(dimension.LEVELS),
    "channel": set(dimension.CHANNELS),
    "outcome": set(dimension.OUTCOMES),
    "caller_class": set(dimension.CALLER_CLASSES),
    "reading": VOLUME_READINGS
    | {"enterprises_served", "enterprises_registered", "strictest", "loosest"},
    "window": {"30d", "90d", "365d", "year"},
    "state": {"registered", "resolving", "completed", "dormant"},
    "place": {"guangxi", "other_province", "hk_mo_tw", "foreign"},
    "policy": {"guangxi-2020-9", "shandong-2024"},
    "measure": {"2", "6", "award"},
    "store": {"postgres", "redis"},
    "tier": {"l1", "l2", "registry"},
    "result": {"hit", "miss", "stale"},
    "reason": {
        "connections",
        "head_size",
        "body_size",
        "slow_client",
        "rate_source",
        "rate_caller",
        "in_flight",
        "unknown_names",
    },
    "version": {"1.2.3"},
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _entry(number: int, place: str, *, contract: bool = True) -> ApplicationEntry:
    return ApplicationEntry(
        id=f"app-{number}",
        name=f'app "{number}"',
        kind="lifecycle",
        type="web",
        owner=f"owner {number}",
        place=place_of(division=place) if place.isdigit() else place_of(country=place),
        contract_sha256="cd" * 32 if contract else None,
        sandbox=False,
    )


def _evaluation(policy: Policy = GUANGXI) -> Evaluation:
    counts = {
        (TODAY - day, "enterprise", "application", "found"): 100_001 for day in range(1, 366)
    } | {
        (TODAY, "node", "anonymous", "found"): 6,
        (TODAY, "enterprise", "anonymous", "found"): 7,
        (TODAY, "enterprise", "anonymous", "not_found"): 8,
    }
    applications = [
        _entry(1, "VN"),
        _entry(2, "HK"),
        _entry(3, "440100"),
        _entry(4, "440300", contract=False),
        _entry(5, "430100"),
        _entry(6, "450100"),
    ]
    successes = {f"app-{number}": {TODAY - 1: 1} for number in (1, 2, 3, 4, 6)}
    growth = {
        "identifiers_held": {TODAY - 1: 100_000},
        "identifiers_registered": {TODAY - 1: 100_000},
        "nodes_self_run": {TODAY - 1: 4},
        "nodes_allotted": {TODAY - 1: 5},
    }
    registry = RegistryNumbers(600, 20, 3_000, 30, growth=growth)
    return evaluate(policy, Facts(LedgerDays(counts, successes), applications, registry), TODAY)


def _full() -> PageNumbers:
    return PageNumbers(
        version="1.2.3",
        resolutions={
            ("enterprise", "http_json", "found", "application"): 41,
            ("node", "redirect", "refused", "sandbox"): 2,
        },
        evaluations=[_evaluation(), _evaluation(SHANDONG)],
        registry=RegistryNumbers(600, 20, 3_000, 30),
        store_up={"postgres": True, "redis": False},
        cache_entries=12,
        cache_lookups={("l1", "hit"): 5, ("registry", "miss"): 1},
        refused={"rate_source": 3, "in_flight": 0},
        connections=64,
        workers=2,
        l1_emptied=1,
        ledger_damaged_days=0,
        journal_flush_lag_s=0.25,
        outbox_pending=3,
    )


def _samples(page: bytes) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_every_name_of_the_contract_is_on_the_page_with_its_labels() -> None:
    shown: dict[str, set[str]] = {}
    for name, labels in _samples(render_page(_full())):
        shown.setdefault(name, {key for key, _ in labels})
        assert shown[name] == {key for key, _ in labels}

    assert shown == MEASURE_METRICS | OPERATION_METRICS


def test_the_table_of_families_is_the_contract() -> None:
    named = {name: set(family.labels) for name, family in FAMILIES.items()}

    assert named == MEASURE_METRICS | OPERATION_METRICS


def test_no_label_value_comes_from_outside_the_fixed_sets() -> None:
    for _, labels in _samples(render_page(_full())):
        for key, value in labels:
            assert value in LABEL_VALUES[key]


def test_counters_end_in_total_and_everything_has_a_help_text_and_a_type() -> None:
    lines = render_page(_full()).decode().splitlines()
    types = dict(line.split()[2:] for line in lines if line.startswith("# TYPE "))
    helped = {line.split()[2] for line in lines if line.startswith("# HELP ")}

    assert helped == set(types) == set(FAMILIES)
    for name, kind in types.items():
        assert kind == ("counter" if name.endswith("_total") else "gauge")


def test_the_content_type_is_the_one_of_the_text_format() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_resolutions_are_shown_as_they_were_counted() -> None:
    samples = _samples(render_page(_full()))
    name = "idnode_resolutions_total"

    found = {"level": "enterprise", "channel": "http_json", "outcome": "found"}
    assert _value(samples, name, **found, caller_class="application") == 41
    refused = {"level": "node", "channel": "redirect", "outcome": "refused"}
    assert _value(samples, name, **refused, caller_class="sandbox") == 2


@pytest.mark.parametrize("outcome", ["found", "unavailable"])
def test_what_alerts_watch_is_there_from_the_start(outcome: str) -> None:
    samples = _samples(render_page(PageNumbers(version="1.2.3", resolutions={})))

    for level in dimension.LEVELS:
        for channel in dimension.CHANNELS:
            for caller_class in dimension.EXTERNAL_CALLERS:
                value = _value(
                    samples,
                    "idnode_resolutions_total",
                    level=level,
                    channel=channel,
                    outcome=outcome,
                    caller_class=caller_class,
                )
                assert value == 0


def test_the_numbers_of_the_measure_are_those_of_the_evaluation() -> None:
    samples = _samples(render_page(_full()))

    assert _value(samples, "idnode_daily_resolutions", reading="external_successes") == 7
    assert _value(samples, "idnode_daily_resolutions", reading="requests") == 15
    average = {"reading": "external_successes", "window": "90d"}
    assert _value(samples, "idnode_daily_resolutions_average", **average) == 100_001
    assert _value(samples, "idnode_daily_resolutions_threshold") == 100_000
    assert _value(samples, "idnode_external_regions") == 1
    assert _value(samples, "idnode_external_countries") == 2
    assert _value(samples, "idnode_enterprises_served") == 20
    assert _value(samples, "idnode_identifiers_registered") == 3_000
    assert _value(samples, "idnode_prefixes_allocated") == 30


def test_integrations_are_shown_by_state_and_place_zeros_included() -> None:
    samples = _samples(render_page(_full()))
    shown = {
        (dict(labels)["state"], dict(labels)["place"]): value
        for (name, labels), value in samples.items()
        if name == "idnode_integrations"
    }

    assert len(shown) == 4 * 4
    assert {key: value for key, value in shown.items() if value} == {
        ("completed", "foreign"): 1,
        ("completed", "hk_mo_tw"): 1,
        ("completed", "other_province"): 1,
        ("resolving", "other_province"): 1,
        ("registered", "other_province"): 1,
        ("completed", "guangxi"): 1,
    }


def _met(evaluations: list[Evaluation]) -> dict[tuple[str, str, str], float]:
    """By policy, measure and reading."""
    page = render_page(PageNumbers("1.2.3", {}, evaluations))
    return {
        (dict(labels)["policy"], dict(labels)["measure"], dict(labels)["reading"]): value
        for (name, labels), value in _samples(page).items()
        if name == "idnode_measure_met"
    }


def test_a_measure_is_1_when_met_and_0_when_not() -> None:
    assert _met([_evaluation(), _evaluation(SHANDONG)]) == {
        ("guangxi-2020-9", "2", "external_successes"): 1,
        ("guangxi-2020-9", "2", "successes"): 1,
        ("guangxi-2020-9", "2", "requests"): 1,
        ("guangxi-2020-9", "6", "enterprises_served"): 0,
        ("guangxi-2020-9", "6", "enterprises_registered"): 1,
        ("shandong-2024", "award", "strictest"): 0,
        ("shandong-2024", "award", "loosest"): 1,
    }


def test_a_measure_of_which_a_number_is_not_known_is_left_out() -> None:
    facts = Facts(LedgerDays({(TODAY - 1, "node", "anonymous", "found"): 100_000}, {}), [], None)

    assert _met([evaluate(SHANDONG, facts, TODAY)]) == {}


def test_the_gauges_without_a_policy_are_those_of_the_first_with_windows() -> None:
    one = _samples(render_page(PageNumbers("1", {}, [_evaluation()])))
    both = [_evaluation(SHANDONG), _evaluation()]
    other = _samples(render_page(PageNumbers("1", {}, both)))
    without = _samples(render_page(PageNumbers("1", {}, both[:1])))

    def plain(samples: Samples) -> Samples:
        return {key: value for key, value in samples.items() if key[0] != "idnode_measure_met"}

    assert plain(one) == plain(other)
    assert _value(without, "idnode_daily_resolutions", reading="requests") == 15
    assert not [name for name, _ in without if name == "idnode_daily_resolutions_average"]


def test_operation_is_shown_as_given() -> None:
    samples = _samples(render_page(_full()))

    assert _value(samples, "idnode_build_info", version="1.2.3") == 1
    assert _value(samples, "idnode_store_up", store="postgres") == 1
    assert _value(samples, "idnode_store_up", store="redis") == 0
    assert _value(samples, "idnode_cache_lookups_total", tier="l1", result="hit") == 5
    assert _value(samples, "idnode_refused_total", reason="rate_source") == 3
    assert _value(samples, "idnode_refused_total", reason="in_flight") == 0
    assert _value(samples, "idnode_connections") == 64
    assert _value(samples, "idnode_workers") == 2
    assert _value(samples, "idnode_l1_emptied_total") == 1
    assert _value(samples, "idnode_journal_flush_lag_seconds") == 0.25
    assert _value(samples, "idnode_outbox_pending") == 3
    assert _value(samples, "idnode_ledger_damaged_dates") == 0


def test_what_is_not_known_is_left_out() -> None:
    numbers = PageNumbers(version="1.2.3", resolutions={}, store_up={"postgres": False})
    samples = _samples(render_page(numbers))

    assert {name for name, _ in samples} == {
        "idnode_resolutions_total",
        "idnode_build_info",
        "idnode_store_up",
    }
    assert _value(samples, "idnode_store_up", store="postgres") == 0


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            PageNumbers("1", {("moon", "http_json", "found", "application"): 1}),
            "idnode_resolutions_total: level='moon': expected one of node, enterprise",
        ),
        (
            PageNumbers("1", {("node", "fax", "found", "application"): 1}),
            "idnode_resolutions_total: channel='fax'",
        ),
        (
            PageNumbers("1", {("node", "http_json", "found", "10.0.0.1"): 1}),
            "caller_class='10.0.0.1'",
        ),
        (PageNumbers("1", {}, store_up={"mysql": True}), "store='mysql'"),
        (PageNumbers("1", {}, cache_lookups={("l3", "hit"): 1}), "tier='l3'"),
        (PageNumbers("1", {}, cache_lookups={("l1", "maybe"): 1}), "result='maybe'"),
        (PageNumbers("1", {}, refused={"mood": 1}), "reason='mood'"),
    ],
)
def test_a_label_value_from_outside_is_refused(numbers: PageNumbers, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_page(numbers)


@pytest.mark.debian
def test_promtool_finds_nothing_to_complain_about() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=render_page(_full()),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
