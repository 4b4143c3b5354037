"""The command line: its words, its texts, its exit codes, and where it finds the node."""

import asyncio
import csv
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from stdnum.cn import uscc

from node.cli import program
from node.cli.context import Desk
from node.cli.output import printable
from node.cli.register import ProgressLines
from node.cli.text import TEXTS
from node.config import from_environment
from node.data_folder import DataFolder, RunInfo
from node.registration import RegistrationProgress
from registry.api_keys import new_key_text, parse_key
from tests.command_line import Ended, Idnode, command_line

ROOT = Path(__file__).parents[1]
CODE = "91450200000000001" + uscc.calc_check_digit("91450200000000001")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# Nobody listens on the port of a service that has been dead for decades.
NOBODY = "127.0.0.1:1"


@pytest.fixture
def idnode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Idnode:
    """Run a command in an environment with nothing but a data folder that does not exist."""
    run_it = command_line(monkeypatch, capsys, tmp_path / "var")
    monkeypatch.setenv("IDNODE_HTTP", NOBODY)
    return run_it


@pytest.fixture
def node(idnode: Idnode, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Idnode:
    """As `idnode`, with a configured, migrated database."""
    monkeypatch.setenv("IDNODE_POSTGRES_URL", database_url)
    return idnode


def _add_enterprise(node: Idnode) -> None:
    words = ("--name", "柳州样品厂", "--credit-code", CODE, "--division", "450200")
    assert node("enterprise", "add", *words).code == 0


def _products(folder: Path, *rows: str) -> Path:
    file = folder / "products.csv"
    file.write_text("\n".join(("gtin,brand,name", *rows)) + "\n", "utf-8")
    return file


def _register(node: Idnode, file: Path, *more: str) -> Ended:
    columns = ("--suffix", "gtin", "--value", "NAME=name", "--value", "BRAND=brand")
    return node("register", str(file), "--prefix", "88.608.5288", *columns, *more)


GOOD_ROWS = ("00041250500735,Meijer,维生素C", "00602652170560,Kind,Chocolate")


# Texts and help


def test_every_text_has_both_languages_and_the_same_places() -> None:
    for key, (chinese, english) in TEXTS.items():
        assert CHINESE.search(chinese), key
        assert english, key
        assert not CHINESE.search(english), key
        assert sorted(re.findall(r"\{\w*\}", chinese)) == sorted(re.findall(r"\{\w*\}", english)), (
            key
        )


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*words, name))


ALL = [words for words, _ in _commands(program.build("en"))]


def test_the_commands_are_those_promised() -> None:
    assert {words for words in ALL if words} == {
        ("up",),
        ("serve",),
        ("worker",),
        ("migrate",),
        ("enterprise",),
        ("enterprise", "add"),
        ("enterprise", "list"),
        ("enterprise", "show"),
        ("prefix",),
        ("prefix", "allot"),
        ("prefix", "list"),
        ("prefix", "suspend"),
        ("prefix", "resume"),
        ("prefix", "delegate"),
        ("prefix", "admin"),
        ("register",),
        ("resolve",),
        ("export",),
        ("application",),
        ("application", "add"),
        ("application", "list"),
        ("application", "contract"),
        ("key",),
        ("key", "create"),
        ("key", "list"),
        ("key", "revoke"),
        ("measures",),
        ("doctor",),
    }


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_speaks_chinese_and_english(idnode: Idnode, words: tuple[str, ...]) -> None:
    chinese = idnode("--lang", "zh", *words, "--help")
    english = idnode("--lang", "en", *words, "--help")
    assert (chinese.code, english.code) == (0, 0)
    assert CHINESE.search(chinese.out)
    assert not CHINESE.search(english.out)
    for said in (chinese.out, english.out):
        assert not re.search(r"\b(cmd|opt|arg)\.[a-z]", said)
    assert "Show this message" not in chinese.out


def test_every_command_has_json() -> None:
    for words, command in _commands(program.build("en")):
        if not hasattr(command, "commands"):
            options = [option for parameter in command.params for option in parameter.opts]
            assert "--json" in options, words


def test_the_configured_language_is_that_of_the_help(
    idnode: Idnode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDNODE_LANG", "zh_CN.UTF-8")
    assert "企业" in idnode("enterprise", "--help").out
    assert "企业" not in idnode("--lang=en", "enterprise", "--help").out


# Failing


def _one_line(said: str) -> str:
    assert said.endswith("\n")
    assert said.count("\n") == 1
    return said


def test_without_a_node_a_command_says_how_to_start_one(idnode: Idnode, tmp_path: Path) -> None:
    ended = idnode("enterprise", "list")
    assert (ended.code, ended.out) == (4, "")
    assert f"no node is running on {tmp_path / 'var'}" in _one_line(ended.err)
    assert "start it with `idnode up`, or set IDNODE_POSTGRES_URL" in ended.err


def test_with_json_an_error_is_json_on_standard_error(idnode: Idnode) -> None:
    ended = idnode("--lang", "zh", "prefix", "list", "--json")
    assert (ended.code, ended.out) == (4, "")
    assert json.loads(ended.err) == {
        "error": f"{from_environment().data} 上没有运行中的节点",
        "do": "用 `idnode up` 启动，或设置 IDNODE_POSTGRES_URL",
    }


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("enterprises",), "No such command 'enterprises'"),
        (("enterprise", "add", "--name", "x"), "Missing option '--credit-code'"),
        (("key", "create"), "exactly one of --application, --enterprise, --operator"),
        (("key", "create", "--operator", "--enterprise", "x"), "exactly one of"),
        (("export", "--format", "csv", "--json"), "the format must be jsonl"),
        (("--lang", "fr", "doctor"), "'--lang'"),
    ],
)
def test_wrong_use_exits_with_2_and_one_line(
    idnode: Idnode, words: tuple[str, ...], reason: str
) -> None:
    ended = idnode(*words)
    assert (ended.code, ended.out) == (2, "")
    assert reason in _one_line(ended.err)


@pytest.mark.parametrize("words", [(), ("prefix",)])
def test_no_command_shows_the_help(idnode: Idnode, words: tuple[str, ...]) -> None:
    ended = idnode(*words)
    assert ended.code == 2
    assert "Usage: idnode" in ended.out + ended.err


def test_an_old_schema_asks_for_migrate(node: Idnode, database_url: str) -> None:
    async def forget() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("DELETE FROM schema_migration")
        await connection.close()

    asyncio.run(forget())
    ended = node("enterprise", "list")
    assert ended.code == 1
    assert "run `idnode migrate`" in _one_line(ended.err)


def test_migrate_on_a_migrated_database_changes_nothing(node: Idnode) -> None:
    assert node("migrate", "--json").document["applied"] == []
    assert "up to date" in node("migrate").out


def test_a_database_that_cannot_be_reached_exits_with_4(
    idnode: Idnode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDNODE_POSTGRES_URL", f"postgresql://idnode:secret@{NOBODY}/idnode")
    for words in (("enterprise", "list"), ("migrate",)):
        ended = idnode(*words)
        assert ended.code == 4
        assert "PostgreSQL cannot be reached" in _one_line(ended.err)
        assert "secret" not in ended.err


def test_a_database_that_does_not_exist_exits_with_4(
    node: Idnode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = asyncio.run(_database_name(database_url))
    monkeypatch.setenv("IDNODE_POSTGRES_URL", database_url.replace(name, "no_such_database"))
    ended = node("enterprise", "list")
    assert ended.code == 4
    assert "SQLSTATE 3D000" in _one_line(ended.err)


async def _database_name(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SELECT current_database()"))
    finally:
        await connection.close()


def test_a_setting_that_cannot_be_used_is_named(
    idnode: Idnode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDNODE_WORKERS", "many")
    ended = idnode("doctor")
    assert ended.code == 1
    assert "IDNODE_WORKERS is 'many'" in _one_line(ended.err)


def test_only_debug_shows_a_traceback(node: Idnode) -> None:
    words = ("enterprise", "show", CODE)
    assert "Traceback" not in node(*words).err
    assert "Traceback" in node("--debug", *words).err


# The words of the contract


def test_a_factory_goes_from_nothing_to_a_key(node: Idnode, tmp_path: Path) -> None:
    _add_enterprise(node)
    assert node("prefix", "allot", "88.608.5288", "--enterprise", CODE).code == 0
    file = _products(tmp_path, *GOOD_ROWS)
    dry = _register(node, file, "--dry-run")
    assert dry.code == 0
    assert "88.608.5288/00041250500735" in dry.out
    assert node("export").out == ""
    done = _register(node, file, "--json")
    assert done.code == 0
    assert {name: done.document[name] for name in ("rows", "added", "failed")} == {
        "rows": 2,
        "added": 2,
        "failed": 0,
    }
    assert "2 unchanged" in _register(node, file).out
    account = node("enterprise", "show", CODE, "--json").document
    assert account["identifiers"] == 2
    assert account["prefixes"][0]["prefix"] == "88.608.5288"
    added = node(
        *("application", "add", "--name", "Tracing", "--kind", "traceability"),
        *("--owner", "Mẫu", "--country", "VN", "--json"),
    ).document
    assert (added["id"], added["country"], added["division"]) == ("app-000001", "VN", None)
    key = node("key", "create", "--application", "app-000001")
    parsed = parse_key(key.out.strip())
    assert parsed is not None
    assert "only this once" in key.err
    listed = node("key", "list")
    assert parsed[0] in listed.out
    assert key.out.strip() not in listed.out
    assert node("key", "revoke", parsed[0]).code == 0
    assert node("key", "list", "--json").document["keys"][0]["revoked_at"].endswith("Z")


def test_bad_rows_are_reported_and_the_others_registered(node: Idnode, tmp_path: Path) -> None:
    _add_enterprise(node)
    node("prefix", "allot", "88.608.5288", "--enterprise", CODE)
    file = _products(tmp_path, GOOD_ROWS[0], "00041250500736,Meijer,wrong check digit")
    ended = _register(node, file)
    assert ended.code == 3
    assert "1 added" in ended.out
    assert "1 bad" in ended.out
    assert (tmp_path / "products.csv.errors.csv").exists()
    elsewhere = tmp_path / "bad.csv"
    assert _register(node, file, "--errors", str(elsewhere), "--json").code == 3
    assert elsewhere.exists()


def test_a_prefix_that_is_not_allotted_takes_no_file(node: Idnode, tmp_path: Path) -> None:
    ended = _register(node, _products(tmp_path, *GOOD_ROWS))
    assert ended.code == 1
    _one_line(ended.err)


def test_a_refusal_says_what_is_wrong_and_what_to_do(node: Idnode) -> None:
    wrong = CODE[:-1] + ("A" if CODE[-1] != "A" else "B")
    words = ("--name", "x", "--credit-code", wrong, "--division", "450200")
    ended = node("enterprise", "add", *words, "--json")
    assert (ended.code, ended.out) == (1, "")
    said = json.loads(ended.err)
    assert f"its check character is '{CODE[-1]}'" in said["error"]
    assert said["do"] == "copy the code from the business licence"


def test_the_same_entry_twice_succeeds(node: Idnode) -> None:
    _add_enterprise(node)
    _add_enterprise(node)
    words = ("prefix", "allot", "88.608.5288", "--enterprise", CODE, "--json")
    assert [node(*words).document["is_new"] for _ in range(2)] == [True, False]
    listed = node("enterprise", "list", "--json").document["enterprises"]
    assert [entry["credit_code"] for entry in listed] == [CODE]


def test_a_prefix_outside_of_the_node_is_refused(
    node: Idnode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDNODE_NODE_PREFIX", "88.609")
    _add_enterprise(node)
    ended = node("prefix", "allot", "88.608.5288", "--enterprise", CODE)
    assert ended.code == 1
    assert "give a prefix that begins with 88.609." in ended.err


def test_a_prefix_is_suspended_and_resumed(node: Idnode) -> None:
    _add_enterprise(node)
    node("prefix", "allot", "88.608.5288", "--enterprise", CODE)
    assert node("prefix", "suspend", "88.608.5288", "--reason", "欠费").code == 0
    assert "suspended: 欠费" in node("prefix", "list").out
    assert "is in service again" in node("prefix", "resume", "88.608.5288").out
    assert "was not suspended" in node("prefix", "resume", "88.608.5288").out


def test_the_contract_of_an_application_is_its_files_digest(node: Idnode, tmp_path: Path) -> None:
    contract = tmp_path / "contract.pdf"
    contract.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    words = ("application", "add", "--kind", "lifecycle", "--owner", "甲", "--division", "440100")
    first = node(*words, "--name", "A", "--contract", str(contract), "--json").document
    assert first["contract_sha256"] == digest
    node(*words, "--name", "B", "--type", "web", "--sandbox")
    second = node("application", "contract", "app-000002", str(contract), "--json").document
    assert (second["contract_sha256"], second["sandbox"], second["type"]) == (digest, True, "web")
    assert "全生命周期管理" in node("--lang", "zh", "application", "list").out
    missing = node(*words, "--name", "C", "--contract", str(tmp_path / "none"))
    assert missing.code == 1
    assert "No such file" in _one_line(missing.err)
    both = node(*words, "--name", "C", "--contract", str(contract), "--contract-sha256", digest)
    assert both.code == 2


def test_markup_and_escapes_in_a_name_are_shown_as_they_are(node: Idnode) -> None:
    words = ("--name", "[red]样品[/red] :boom:", "--credit-code", CODE, "--division", "450200")
    node("enterprise", "add", *words)
    assert "[red]样品[/red] :boom:" in node("enterprise", "list").out
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"


# Export


def test_an_export_holds_every_identifier(node: Idnode, tmp_path: Path) -> None:
    _add_enterprise(node)
    node("prefix", "allot", "88.608.5288", "--enterprise", CODE)
    _register(node, _products(tmp_path, *GOOD_ROWS))
    lines = [json.loads(line) for line in node("export").out.splitlines()]
    assert [line["handle"] for line in lines] == [
        "88.608.5288/00041250500735",
        "88.608.5288/00602652170560",
    ]
    assert lines[0]["values"][0]["data"] == {"format": "string", "value": "维生素C"}
    table = tmp_path / "all.csv"
    done = node("export", "--prefix", "88.608.5288", "--format", "csv", "--output", str(table))
    assert done.code == 0
    with table.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["index"], row["type"], row["value"]) for row in rows[:2]] == [
        ("1", "NAME", "维生素C"),
        ("2", "BRAND", "Meijer"),
    ]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["all.csv", "products.csv"]


def test_a_failed_export_leaves_the_file_of_before(node: Idnode, tmp_path: Path) -> None:
    before = tmp_path / "all.jsonl"
    before.write_text("before")
    ended = node("export", "--prefix", "88.608.9", "--output", str(before))
    assert ended.code == 1
    assert before.read_text() == "before"
    assert list(tmp_path.iterdir()) == [before]


def _program(words: list[str], **environment: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", "from node.cli import main; main()", *words],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_reader_that_goes_away_is_no_error(node: Idnode, tmp_path: Path) -> None:
    _add_enterprise(node)
    node("prefix", "allot", "88.608.5288", "--enterprise", CODE)
    rows = (f"{number},{'x' * 100},{'y' * 100}" for number in range(2_000))
    assert _register(node, _products(tmp_path, *rows), "--check", "none").code == 0
    with _program(["export"]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"handle"')
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_terminal_without_unicode_gets_escapes(node: Idnode) -> None:
    _add_enterprise(node)
    environment = {"PYTHONIOENCODING": "ascii", "IDNODE_LANG": "zh"}
    with _program(["enterprise", "list"], **environment) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert rb"\u67f3\u5dde" in out
    with _program(["enterprise", "list", "--json"], **environment) as process:
        out, _ = process.communicate()
    assert json.loads(out)["enterprises"][0]["name"] == "柳州样品厂"


# The running node


@contextmanager
def _answering(answer: Callable[[str, Mapping[str, str], bytes], tuple[int, Any]]) -> Iterator[str]:
    """An HTTP server in the place of the node; yields its `host:port`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, document = answer(self.path, dict(self.headers), body)
            self._send(status, json.dumps(document).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as inherited
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Registry:
    """Answers as the batch door does: what it knows, and 100 for the others."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.sizes: list[int] = []
        self.keys: list[str | None] = []

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        assert path == "/api/resolve"
        asked = json.loads(body)["identifiers"]
        self.sizes.append(len(asked))
        self.keys.append(headers.get("Authorization"))
        return 200, {"results": [self._result(identifier) for identifier in asked]}

    def _result(self, identifier: str) -> dict[str, Any]:
        if identifier not in self.known:
            return {"identifier": identifier, "responseCode": 100}
        value = {
            "index": 1,
            "type": "NAME",
            "data": {"format": "string", "value": "维生素\x1b[2J"},
            "ttl": 86400,
            "timestamp": "2023-11-14T22:13:20Z",
        }
        return {"identifier": identifier, "responseCode": 1, "values": [value], "stale": True}


@pytest.fixture
def running(
    idnode: Idnode, database_url: str, tmp_path: Path
) -> Iterator[Callable[[str], DataFolder]]:
    """Say in the data folder that a node runs, with its HTTP at the given address."""
    folder = DataFolder.open(tmp_path / "var")

    def announce(http: str) -> DataFolder:
        folder.write_run_info(RunInfo(os.getpid(), http, database_url, f"redis://{NOBODY}", 0.0))
        return folder

    yield announce
    folder.close()


def test_a_running_node_is_found_by_its_data_folder(
    idnode: Idnode, running: Callable[[str], DataFolder]
) -> None:
    running(NOBODY)
    _add_enterprise(idnode)
    assert CODE in idnode("enterprise", "list").out


def test_identifiers_are_resolved_at_the_running_node(
    idnode: Idnode, running: Callable[[str], DataFolder]
) -> None:
    registry = _Registry("88.608.5288/1")
    key_text = new_key_text()
    with _answering(registry.answer) as http:
        running(http).operator_key_file.write_text(key_text + "\n")
        found = idnode("resolve", "88.608.5288/1")
        missing = idnode("resolve", "88.608.5288/1", "88.608.5288/2", "--json")
    assert found.code == 0
    assert "维生素\\x1b[2J" in found.out
    assert "2023-11-15 06:13:20" in found.out  # the time of Beijing
    assert "stale" in found.out
    assert missing.code == 1
    codes = [result["responseCode"] for result in missing.document["results"]]
    assert codes == [1, 100]
    assert registry.keys == [f"Bearer {key_text}"] * 2


def test_many_identifiers_are_asked_for_in_batches(
    idnode: Idnode, running: Callable[[str], DataFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [f"88.608.5288/{number}" for number in range(2_001)]
    registry = _Registry(*asked)
    monkeypatch.setattr(sys, "stdin", StringIO("\n".join(asked) + "\n\n"))
    with _answering(registry.answer) as http:
        running(http)
        ended = idnode("resolve", "-", "--json")
    assert ended.code == 0
    assert registry.sizes == [1_000, 1_000, 1]
    assert [result["identifier"] for result in ended.document["results"]] == asked


@pytest.mark.parametrize(("status", "code"), [(401, 1), (503, 4)])
def test_an_answer_that_is_no_resolution_is_reported(
    idnode: Idnode, running: Callable[[str], DataFolder], status: int, code: int
) -> None:
    with _answering(lambda path, headers, body: (status, {"message": "no"})) as http:
        running(http)
        ended = idnode("resolve", "88.608.5288/1")
    assert ended.code == code
    assert f"HTTP {status}" in _one_line(ended.err)


def test_a_node_whose_door_is_shut_exits_with_4(
    idnode: Idnode, running: Callable[[str], DataFolder]
) -> None:
    running(NOBODY)
    ended = idnode("resolve", "88.608.5288/1")
    assert ended.code == 4
    assert f"http://{NOBODY}/api/resolve" in _one_line(ended.err)


# Measures, doctor, progress


def _states(ended: Ended) -> dict[str, str]:
    return {check["check"]: check["state"] for check in ended.document["checks"]}


def test_the_doctor_works_without_a_node_and_says_so(idnode: Idnode) -> None:
    ended = idnode("doctor")
    assert ended.code == 0
    assert "no node is running" in ended.out
    assert _states(idnode("doctor", "--json"))["node"] == "warn"


def test_the_doctor_looks_at_the_stores_and_the_doors(
    idnode: Idnode, running: Callable[[str], DataFolder]
) -> None:
    key_file = running(NOBODY).operator_key_file
    key_file.write_text(new_key_text())
    key_file.chmod(0o644)
    ended = idnode("doctor", "--json")
    assert ended.code == 1
    assert not ended.document["ok"]
    states = _states(ended)
    assert states["operator key file"] == "fail"
    assert states["HTTP /ready"] == "fail"
    assert states["Redis"] == "fail"
    for well in (
        "node",
        "PostgreSQL",
        "schema",
        "time zone data",
        "clock difference to the database",
    ):
        assert states[well] == "ok"
    advice = {check["check"]: check["do"] for check in ended.document["checks"]}
    assert advice["operator key file"] == f"chmod 600 {key_file}"
    key_file.chmod(0o600)
    assert _states(idnode("doctor", "--json"))["operator key file"] == "ok"


def test_the_doctor_names_the_days_that_cannot_be_claimed(node: Idnode, database_url: str) -> None:
    async def damage() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "INSERT INTO ledger_damage (journal_id, day, reason)"
            " VALUES (gen_random_uuid(), 19675, 'torn')"
        )
        await connection.close()

    asyncio.run(damage())
    found = {check["check"]: check for check in node("doctor", "--json").document["checks"]}
    damaged = found["days with damaged counts"]
    assert (damaged["state"], damaged["found"]) == ("warn", "2023-11-14")


def test_progress_in_a_log_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    times_s = iter([100.0, 101.0, 110.0, 111.0])
    lines = ProgressLines(Desk(from_environment(), "en"), lambda: next(times_s))
    for rows in (100, 1_000, 1_100):
        lines.report(RegistrationProgress(rows, rows, 0, 0, 3, 0.25))
    said = capsys.readouterr().err
    assert said == "1,000 rows, 3 bad, 100 rows/s, about 30 s left\n"
