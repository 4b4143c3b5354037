"""No rule of a policy is in the code: neither a name, nor a number, nor a clause."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from metrics.place import province_name

TOP: Final = Path(__file__).resolve().parent.parent
POLICIES: Final = sorted((TOP / "metrics/policies").glob("*.toml"))
PACKAGES: Final = ("node", "resolver", "registry", "metrics")
MODULES: Final = sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.py"))
# The files that read, judge and show policies. Elsewhere a threshold may be a size of a cache.
JUDGES: Final = [
    TOP / path
    for path in (
        "metrics/countable.py",
        "metrics/exposition.py",
        "metrics/facts.py",
        "metrics/integrations.py",
        "metrics/measure_number.py",
        "metrics/measures.py",
        "metrics/place.py",
        "metrics/policy.py",
        "metrics/policy_file.py",
        "metrics/projection.py",
        "metrics/thresholds.py",
        "metrics/volume.py",
        "node/cli/measures.py",
        "node/measures_report.py",
        "node/operations.py",
    )
]
# Smaller ones are everywhere: an index, a number of digits.
TELLING: Final = 10


def policy(path: Path) -> Any:
    return tomllib.loads(path.read_text("utf-8"))


def names(path: Path) -> Iterator[str]:
    """What only this policy would be called: its province, its title, its number."""
    read = policy(path)
    yield read["id"]
    yield read["home"]["label"]
    yield from read["title"].values()
    yield from (read[key] for key in ("document_number", "source") if key in read)
    province = province_name(read["home"]["province"])
    assert province is not None
    yield province.removesuffix("省").removesuffix("壮族自治区")
    for measure in read["measures"]:
        yield from measure["title"].values()
        yield from (one["name"]["zh"] for one in measure.get("conditions", ()))


def thresholds(path: Path) -> set[int]:
    return {
        number
        for measure in policy(path)["measures"]
        for number in _numbers(measure)
        if number > TELLING
    }


def _numbers(node: object) -> Iterator[int]:
    if isinstance(node, dict):
        for value in node.values():
            yield from _numbers(value)
    elif isinstance(node, list):
        for value in node:
            yield from _numbers(value)
    elif isinstance(node, int) and not isinstance(node, bool):
        yield node


def constants(path: Path) -> Iterator[ast.Constant]:
    tree = ast.parse(path.read_text("utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Constant))


def test_there_are_policies_and_judges_to_look_at() -> None:
    assert len(POLICIES) >= 2
    assert set(JUDGES) <= set(MODULES)
    assert {100_000} <= set.intersection(*(thresholds(path) for path in POLICIES))
    assert {"guangxi", "广西", "shandong", "山东"} <= {n for path in POLICIES for n in names(path)}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_no_text_in_the_code_names_a_policy(path: Path) -> None:
    named = re.compile("|".join(re.escape(name) for name in names(path)), re.IGNORECASE)
    found = [
        f"{module.relative_to(TOP)}:{node.lineno}: {match[0]}"
        for module in MODULES
        for node in constants(module)
        if isinstance(node.value, str) and (match := named.search(node.value))
    ]
    assert found == []


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_no_file_that_judges_holds_a_threshold_or_the_number_of_a_province(path: Path) -> None:
    numbers, province = thresholds(path), policy(path)["home"]["province"]
    found = [
        f"{module.relative_to(TOP)}:{node.lineno}: {node.value!r}"
        for module in JUDGES
        for node in constants(module)
        if (type(node.value) is int and node.value in numbers) or node.value == province
    ]
    assert found == []
