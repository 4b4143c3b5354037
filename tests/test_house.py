"""Tidiness that no linter knows: what a file may be called, say, and weigh."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

TOP: Final = Path(__file__).resolve().parent.parent
FOLDERS: Final = ("node", "resolver", "registry", "metrics", "loadtest", "tests")
MODULES: Final = sorted(path for folder in FOLDERS for path in (TOP / folder).rglob("*.py"))
TEXTS: Final = sorted(
    path
    for path in (
        *MODULES,
        *TOP.glob("*.md"),
        *TOP.glob("*.toml"),
        *TOP.glob("*.lock"),
        TOP / "Makefile",
        *TOP.glob(".ci/*"),
        *(one for folder in ("docs", "deploy", "examples") for one in (TOP / folder).rglob("*")),
        *(TOP / "registry").rglob("*.sql"),
        *(TOP / "metrics").rglob("*.toml"),
    )
    if path.is_file() and path.suffix != ".csv"
)

# A file that holds more than this holds more than one thing. Blank lines are not counted.
LINES_MAX: Final = 600
NAMES_OF_NOTHING: Final = {"utils", "helpers", "common", "base", "manager", "service"}

# Put together, here and below, so that this file does not find itself.
UNFINISHED: Final = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
# Homes and work folders of people and machines; examples in documents are written relative.
MACHINE_PATH: Final = re.compile(r"(?<![\w.~-])/(?:home|Users|work|root)/\w|\b[A-Z]:\\\w")
INDEX_ADDRESS: Final = re.compile(r"https?:|--(?:extra-)?index-url|--find-links|file:|@ git")


def relative(path: Path) -> str:
    return str(path.relative_to(TOP))


def found(pattern: re.Pattern[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if match := pattern.search(line):
            yield f"{relative(path)}:{number}: {match[0]}"


def pyproject() -> Any:
    return tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 50
    assert TOP / "registry/migrations/0001_registry.sql" in TEXTS


def test_nothing_is_left_to_be_done_later() -> None:
    assert [line for path in TEXTS for line in found(UNFINISHED, path)] == []


def test_nothing_names_a_path_of_one_machine() -> None:
    assert [line for path in TEXTS for line in found(MACHINE_PATH, path)] == []


@pytest.mark.parametrize(
    ("line", "is_path"),
    [
        ("see /home" + "/me/x", True),
        ("open('/root" + "/x')", True),
        ("below /root.", False),
        ("docs/work/plan", False),
    ],
)
def test_a_path_of_one_machine_is_known_from_other_text(line: str, is_path: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is is_path


def test_no_program_prints_past_its_output() -> None:
    assert [line for path in MODULES if path.parent.name != "tests" for line in _prints(path)] == []


def _prints(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id in ("print", "pprint", "breakpoint"):
            yield f"{relative(path)}:{called.lineno}: {called.id}"


def test_every_file_is_named_by_what_it_holds() -> None:
    assert [relative(path) for path in MODULES if path.stem.lower() in NAMES_OF_NOTHING] == []


def test_no_file_is_too_long_to_hold_one_thing() -> None:
    sizes = {relative(path): _size_lines(path) for path in (*MODULES, *TOP.glob("*/*/*.sql"))}
    assert {name: size for name, size in sizes.items() if size > LINES_MAX} == {}


def _size_lines(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_text("utf-8").splitlines())


def test_every_module_says_what_it_holds() -> None:
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert [relative(path) for path in silent] == []


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-dev.lock", "requirements-fuzz.lock"]
)
def test_a_lock_names_no_place_to_fetch_from_and_hashes_everything(name: str) -> None:
    path = TOP / name
    assert list(found(INDEX_ADDRESS, path)) == []
    packages = re.findall(r"^[a-z0-9][^\n]*==(?:[^\n]*\\\n)+[^\n]*", path.read_text("utf-8"), re.M)
    assert packages
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []


def test_every_dependency_has_its_reason() -> None:
    text = (TOP / "pyproject.toml").read_text("utf-8")
    declared = pyproject()
    groups = (*declared["dependency-groups"].values(), declared["project"]["dependencies"])
    names = [entry for group in groups for entry in group if isinstance(entry, str)]
    assert names
    assert [name for name in names if not _has_reason(name, text)] == []


def _has_reason(name: str, text: str) -> bool:
    return re.search(rf'^    "{re.escape(name)}", *# \S.+$', text, re.MULTILINE) is not None


def test_imports_are_under_contract() -> None:
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    assert {"layers", "forbidden"} <= {contract["type"] for contract in contracts}
    (arrows,) = (contract for contract in contracts if contract["id"] == "arrows")
    layers = [set(layer.split(" | ")) for layer in arrows["layers"]]
    assert set().union(*layers) == set(pyproject()["tool"]["importlinter"]["root_packages"])
