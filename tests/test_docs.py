"""The documents: their commands run, their links lead somewhere, their tables are complete."""

import importlib
import operator
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main

from metrics.exposition import FAMILIES
from node.cli.program import app
from node.config import terminal_environment
from tests.conftest import RunningNode

TOP: Final = Path(__file__).resolve().parent.parent
README: Final = TOP / "README.md"
README_ZH: Final = TOP / "README.zh-CN.md"
OPERATE: Final = TOP / "docs/operate.md"
GLOSSARY: Final = TOP / "docs/glossary.md"
DOCUMENTS: Final = sorted((*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("*/README.md")))
PACKAGES: Final = ("node", "resolver", "registry", "metrics")

# What .ci/run does in any case, and takes minutes.
LEFT_OUT: Final = re.compile(r"^make (run|test)$", re.MULTILINE)
WRITTEN_ADDRESS: Final = "127.0.0.1:8000"
# Parts of an output that every run has its own.
ELLIPSIS: Final = "…"
PATIENCE_S: Final = 180

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SETTING = re.compile(r"\bIDNODE_[A-Z_]*[A-Z]\b")
_LIMIT_ROW = re.compile(
    r"^\| `([a-z_/]+\.py)` \| `([A-Z_]+(?:\.[a-z_]+)?)` \| ([0-9.,]+) \| .+ \|$", re.MULTILINE
)
_IS_LIMIT = re.compile(r"[A-Z][A-Z_]*_(MAX|MAX_S|TIMEOUT_S|EVERY_S|PATIENCE_S)")


@dataclass(frozen=True)
class Example:
    """A block of commands, and the lines that the document shows below it."""

    commands: str
    shown: tuple[str, ...]


def examples(document: Path) -> list[Example]:
    """The tested blocks (`sh`) of a document, each with the output (`text`) that follows it."""
    blocks = [(match[1], match[2]) for match in _FENCE.finditer(document.read_text("utf-8"))]
    found = []
    for (kind, commands), (next_kind, output) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "sh" and LEFT_OUT.sub("", commands).strip():
            shown = output.splitlines() if next_kind == "text" else []
            found.append(Example(commands, tuple(line for line in shown if line.strip())))
    return found


@dataclass(frozen=True)
class Reader:
    """A person in the project's folder who types what a document says."""

    folder: Path
    node: RunningNode

    def prepare(self) -> None:
        """The folder as the commands expect it, with this interpreter and this node in it."""
        for name in ("examples", "metrics", "docs"):
            (self.folder / name).symlink_to(TOP / name)
        (self.folder / "var").symlink_to(self.node.data)
        programs = self.folder / ".venv/bin"
        programs.mkdir(parents=True)
        (self.folder / ".venv/lib").symlink_to(Path(sys.prefix) / "lib")
        (programs / "python").symlink_to(sys.executable)
        program = programs / "idnode"
        path, python = shlex.quote(str(TOP)), shlex.quote(sys.executable)
        program.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {python} -P -m node "$@"\n')
        program.chmod(0o755)

    def types(self, commands: str, language: str) -> subprocess.CompletedProcess[str]:
        """Run blocks one after the other in one shell, which stops at the first failure."""
        inherited = terminal_environment()
        kept = {key: value for key, value in inherited.items() if not key.startswith("IDNODE_")}
        commands = commands.replace(WRITTEN_ADDRESS, f"127.0.0.1:{self.node.port}")
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env={**kept, "IDNODE_LANG": language},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def follows(self, document: Path, language: str) -> list[str]:
        """Type all blocks of a document; returns what is shown there and did not appear."""
        blocks = examples(document)
        done = self.types("echo '@block'\n".join(["", *(b.commands for b in blocks)]), language)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs = done.stdout.split("@block\n")[1:]
        said = zip(blocks, outputs, strict=True)
        return [line for block, output in said for line in _missing(block.shown, output)]


def _missing(shown: tuple[str, ...], output: str) -> Iterator[str]:
    """Lines of a document that are not in the output, in their order."""
    rest = iter(_squeezed(line) for line in _lines(output))
    for line in shown:
        parts = (re.escape(part) for part in _squeezed(line).split(ELLIPSIS))
        pattern = re.compile(".*".join(parts))
        if not any(pattern.fullmatch(candidate) for candidate in rest):
            yield line


def _lines(output: str) -> list[str]:
    # curl ends an answer without a line end: the next answer begins on the same line.
    return re.sub(r'\}(?=\{")', "}\n", output).splitlines()


def _squeezed(line: str) -> str:
    """A line without the columns' padding, which depends on the widest cell."""
    return " ".join(line.split())


@pytest.mark.parametrize(("document", "language"), [(README, "en"), (README_ZH, "zh")])
def test_a_reader_gets_from_nothing_to_a_counted_product(
    own_node: RunningNode, tmp_path: Path, document: Path, language: str
) -> None:
    own_node.start()
    reader = Reader(tmp_path, own_node)
    reader.prepare()
    before = _external(own_node)
    assert reader.follows(document, language) == []
    assert _external(own_node) == before + 2
    if document == README:
        assert reader.follows(OPERATE, "en") == []


def _external(node: RunningNode) -> float:
    """Today's resolutions by others, as the metrics page has them."""
    done = subprocess.run(
        ["curl", "-sf", f"{node.url}/metrics"], capture_output=True, text=True, check=True
    )
    name = 'idnode_daily_resolutions{reading="external_successes"}'
    return float(
        next(line for line in done.stdout.splitlines() if line.startswith(name)).split()[1]
    )


def test_a_line_that_the_output_lacks_is_found_out() -> None:
    output = 'one  1\ntwo 2\n{"responseCode":1}{"responseCode":2}\n'
    assert list(_missing(("one 1", '{"responseCode":2}'), output)) == []
    assert list(_missing(("two …", "one 1"), output)) == ["one 1"]
    assert list(_missing(("one 2",), output)) == ["one 2"]


def fences(document: Path, *kinds: str) -> list[str]:
    found = _FENCE.finditer(document.read_text("utf-8"))
    return [match[2] for match in found if match[1] in kinds]


def test_both_readmes_give_the_same_commands() -> None:
    assert fences(README, "sh", "console") == fences(README_ZH, "sh", "console")


def test_both_readmes_have_the_same_sections() -> None:
    assert [len(level) for level in _headings(README)] == [len(n) for n in _headings(README_ZH)]


def _headings(document: Path) -> list[str]:
    text = _FENCE.sub("", document.read_text("utf-8"))
    return re.findall(r"^(#+) ", text, re.MULTILINE)


def test_every_link_leads_to_a_file_or_a_heading() -> None:
    assert [problem for document in DOCUMENTS for problem in _dead_links(document)] == []


def _dead_links(document: Path) -> Iterator[str]:
    for link in _LINK.findall(document.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            yield f"{document.relative_to(TOP)}: {link}"


def _anchors(document: Path) -> set[str]:
    """The anchors that the headings of a document have on the usual forges."""
    titles = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_setting_is_described_and_every_described_setting_exists() -> None:
    described = set(_SETTING.findall(OPERATE.read_text("utf-8")))
    assert described == set(_SETTING.findall((TOP / "node/config.py").read_text("utf-8")))


def test_every_command_is_named() -> None:
    text = README.read_text("utf-8") + OPERATE.read_text("utf-8")
    assert [
        words for words in _commands(typer.main.get_command(app)) if not _named(words, text)
    ] == []


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, child in getattr(command, "commands", {}).items():
        if child.hidden:
            continue
        if hasattr(child, "commands"):
            yield from _commands(child, (*words, name))
        else:
            yield (*words, name)


def _named(words: tuple[str, ...], text: str) -> bool:
    """`idnode key create`, also as the last of `idnode key list`, `create`."""
    group, name = " ".join(("idnode", *words[:-1])), words[-1]
    return any(
        re.search(rf"[ `]{name}\b", line[line.index(group) :])
        for line in text.splitlines()
        if group in line
    )


def test_every_metric_is_described_with_its_labels_and_no_other_is() -> None:
    rows = re.findall(r"^\| `(idnode_\w+)` \| (.*?) \|", OPERATE.read_text("utf-8"), re.MULTILINE)
    described = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert described == {name: family.labels for name, family in FAMILIES.items()}


def test_every_alert_is_described_and_no_other_is() -> None:
    rules = (TOP / "deploy/prometheus/rules/idnode.rules.yml").read_text("utf-8")
    alerts = re.findall(r"alert: (\w+)", rules)
    assert re.findall(r"^\| `(Idnode\w+)` \|", OPERATE.read_text("utf-8"), re.MULTILINE) == alerts


def limit_rows() -> list[tuple[str, str, float]]:
    rows = _LIMIT_ROW.findall(OPERATE.read_text("utf-8"))
    return [(file, name, float(value.replace(",", ""))) for file, name, value in rows]


def _module(file: str) -> Any:
    return importlib.import_module(file.removesuffix(".py").replace("/", "."))


def test_every_limit_has_the_number_that_the_document_says() -> None:
    rows = limit_rows()
    assert rows
    assert [row for row in rows if operator.attrgetter(row[1])(_module(row[0])) != row[2]] == []


def test_every_public_limit_is_in_the_document() -> None:
    described = {(file, name) for file, name, _ in limit_rows()}
    assert sorted(set(_public_limits()) - described) == []


def _public_limits() -> Iterator[tuple[str, str]]:
    """Module constants named as limits, in the files that define them."""
    for package in PACKAGES:
        for path in (TOP / package).rglob("*.py"):
            found = re.findall(r"^([A-Z_]+)(?:: [^=]+)? = ", path.read_text("utf-8"), re.MULTILINE)
            for name in found:
                if _IS_LIMIT.fullmatch(name):
                    yield str(path.relative_to(TOP)), name


def test_every_chinese_term_is_one_entry_of_the_glossary() -> None:
    terms = re.findall(r"^\| ([^|]*[\u4e00-\u9fff][^|]*?) \|", GLOSSARY.read_text("utf-8"), re.M)
    assert terms
    assert len(terms) == len(set(terms))


@pytest.mark.parametrize(
    "path", sorted((TOP / "docs/decisions").glob("*.md")), ids=lambda p: p.stem
)
def test_a_decision_says_context_decision_consequences_alternatives(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Context",
        "Decision",
        "Consequences",
        "Alternatives",
    ]
    assert text.startswith(f"# {path.name[:4]}: ")


def test_decisions_are_numbered_one_after_the_other() -> None:
    numbers = [int(path.name[:4]) for path in sorted((TOP / "docs/decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
