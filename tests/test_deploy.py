"""The files of deploy/ and the ways to install: what they name exists, what they promise holds."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from metrics import dimension
from metrics.exposition import FAMILIES
from metrics.worker_numbers import REFUSED_REASONS

TOP: Final = Path(__file__).resolve().parent.parent
DEPLOY: Final = TOP / "deploy"
CONTAINERFILE: Final = DEPLOY / "Containerfile"
COMPOSE: Final = DEPLOY / "compose.yaml"
UNIT: Final = DEPLOY / "systemd/idnode.service"
PROMETHEUS: Final = DEPLOY / "prometheus/prometheus.yml"
RULES: Final = DEPLOY / "prometheus/rules/idnode.rules.yml"
RULES_TEST: Final = DEPLOY / "prometheus/tests/idnode.rules.test.yml"
DASHBOARD: Final = DEPLOY / "grafana/dashboards/idnode.json"
DATASOURCE: Final = DEPLOY / "grafana/provisioning/datasources/prometheus.yaml"

# What the node exposes, each metric with its labels.
METRICS: Final = {name: family.labels for name, family in FAMILIES.items()}
# What Prometheus itself adds.
OWN_SERIES: Final = {"up", "ALERTS"}
OWN_LABELS: Final = {"job", "instance", "alertname", "alertstate"}
# The closed sets of values that a query may ask for.
LABEL_VALUES: Final = {
    "level": set(dimension.LEVELS),
    "channel": set(dimension.CHANNELS),
    "outcome": set(dimension.OUTCOMES),
    "caller_class": set(dimension.CALLER_CLASSES),
    "reading": {"external_successes", "successes", "requests"},
    "store": {"postgres", "redis"},
    "tier": {"l1", "l2", "registry"},
    "result": {"hit", "miss", "stale"},
    "reason": set(REFUSED_REASONS),
}

_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHERS = re.compile(r"\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
# A name that no `(` follows is a series; one that it follows is a function.
_SERIES = re.compile(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()")
_DURATION = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_WORDS = {"and", "or", "unless", "bool", "offset"}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml(RULES)["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


def dashboard_queries() -> list[str]:
    board = dashboard()
    targets = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return targets + [note["expr"] for note in board["annotations"]["list"]]


def queries() -> list[str]:
    return [rule["expr"] for rule in rules()] + dashboard_queries()


def series_in(query: str) -> set[str]:
    bare = _MATCHERS.sub(" ", _GROUPING.sub(" ", _DURATION.sub(" ", query)))
    return {name for name in _SERIES.findall(bare) if name not in _WORDS}


def labels_in(query: str) -> set[str]:
    grouped = [name for _, names in _GROUPING.findall(query) for name in names.split(",")]
    return {name.strip() for name in grouped if name.strip()} | {name for name, _ in matched(query)}


def matched(query: str) -> list[tuple[str, str]]:
    return [pair for part in _MATCHERS.findall(query) for pair in _MATCHER.findall(part)]


def recorded() -> dict[str, set[str]]:
    """Recorded series with the labels that their aggregation keeps."""
    return {
        rule["record"]: {
            name.strip()
            for word, names in _GROUPING.findall(rule["expr"])
            if word == "by"
            for name in names.split(",")
        }
        for rule in rules()
        if "record" in rule
    }


# -- rules and dashboard


def test_series_are_found_in_a_query() -> None:
    query = 'sum by (a) (rate(x_total{b="c d"}[5m] offset 1d)) / on () (y > 0) and hour() >= 10'
    assert series_in(query) == {"x_total", "y"}
    assert labels_in(query) == {"a", "b"}


def test_every_series_asked_for_is_exposed_or_recorded() -> None:
    known = METRICS.keys() | recorded().keys() | OWN_SERIES
    unknown = {query: series_in(query) - known for query in queries() if series_in(query) - known}
    assert unknown == {}
    assert all(series_in(query) for query in queries())


def test_every_label_asked_for_is_a_label_of_the_series() -> None:
    labels = {name: set(its) for name, its in METRICS.items()} | recorded()
    for query in queries():
        known = OWN_LABELS.union(*(labels.get(name, set()) for name in series_in(query)))
        assert labels_in(query) <= known, query


def test_every_label_value_asked_for_can_occur() -> None:
    asked = [pair for query in queries() for pair in matched(query) if pair[0] in LABEL_VALUES]
    assert asked
    for label, values in asked:
        assert set(values.split("|")) <= LABEL_VALUES[label], (label, values)


def test_every_metric_is_asked_for_somewhere() -> None:
    assert METRICS.keys() - {name for query in queries() for name in series_in(query)} == set()


def test_every_alert_speaks_chinese_and_english() -> None:
    for alert in alerts():
        notes = alert["annotations"]
        assert set(notes) == {"summary_zh", "summary_en", "action_zh", "action_en"}, alert["alert"]
        assert all(is_chinese(notes[name]) for name in ("summary_zh", "action_zh"))
        assert not any(is_chinese(notes[name]) for name in ("summary_en", "action_en"))
        assert alert["labels"]["severity"] in {"critical", "warning"}


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = [
        case for test in read_yaml(RULES_TEST)["tests"] for case in test.get("alert_rule_test", [])
    ]
    names = {alert["alert"] for alert in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_the_dashboard_is_titled_in_both_languages() -> None:
    board = dashboard()
    for title in [board["title"], *(panel["title"] for panel in board["panels"])]:
        chinese, slash, english = title.partition(" / ")
        assert slash, title
        assert is_chinese(chinese), title
        assert english.isascii(), title


def test_the_dashboard_lies_flat_and_names_the_provisioned_source() -> None:
    uid = read_yaml(DATASOURCE)["datasources"][0]["uid"]
    panels = dashboard()["panels"]
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel.get("datasource", {"uid": uid})["uid"] == uid
        own = set(cells_of(panel["gridPos"]))
        assert not own & cells, panel["title"]
        cells |= own
    assert max(x for x, _ in cells) < 24  # Grafana's grid is 24 wide
    assert len({panel["id"] for panel in panels}) == len(panels)


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def cells_of(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


# -- container and compose


def instructions() -> list[list[str]]:
    joined = CONTAINERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [line.split() for line in lines]


def of_kind(kind: str) -> list[list[str]]:
    return [words[1:] for words in instructions() if words[0] == kind]


def copied() -> list[str]:
    here = [words for words in of_kind("COPY") if not words[0].startswith("--from")]
    return [source for words in here for source in words[:-1]]


def test_the_image_copies_what_exists_and_every_package() -> None:
    assert [name for name in copied() if not (TOP / name).exists()] == []
    text = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"wheel\]\npackages = \[(.*)\]", text)
    assert packages
    assert set(re.findall(r'"(\w+)"', packages[1])) <= set(copied())


def test_the_builder_is_given_exactly_what_the_image_copies() -> None:
    lines = (TOP / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())


def test_the_image_installs_the_lock_by_its_hashes_and_nothing_else() -> None:
    installs = [words for words in of_kind("RUN") if "install" in words and "pip" in words]
    lock, project = installs
    assert {"--require-hashes", "--no-deps", "requirements.lock"} <= set(lock)
    assert {"--no-index", "--no-deps", "--no-build-isolation", "."} <= set(project)


def test_the_image_runs_as_an_ordinary_user_by_number() -> None:
    last_stage = instructions()[max(i for i, w in enumerate(instructions()) if w[0] == "FROM") :]
    (user,) = [words[1] for words in last_stage if words[0] == "USER"]
    assert all(part.isdigit() and int(part) >= 1000 for part in user.split(":"))


def test_the_health_check_asks_the_port_that_is_served() -> None:
    (check,) = of_kind("HEALTHCHECK")
    (port,) = of_kind("EXPOSE")
    assert f"http://127.0.0.1:{port[0]}/health" in " ".join(check)
    program = json.loads(" ".join(check[check.index("CMD") + 1 :]))
    compile(program[2], "HEALTHCHECK", "exec")
    assert read_yaml(COMPOSE)["services"]["idnode"]["healthcheck"]["test"] == ["CMD", *program]


def test_compose_mounts_files_that_exist_and_volumes_that_are_declared() -> None:
    compose = read_yaml(COMPOSE)
    mounts = [mount for s in compose["services"].values() for mount in s.get("volumes", [])]
    sources = [mount.split(":")[0] for mount in mounts]
    files = [source for source in sources if source.startswith(".")]
    assert files
    assert [source for source in files if not (DEPLOY / source).exists()] == []
    assert set(sources) - set(files) == set(compose["volumes"])


def test_compose_publishes_on_loopback_only_and_never_a_store() -> None:
    services = read_yaml(COMPOSE)["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for store in ("postgres", "valkey"):
        assert "ports" not in services[store]
        assert services[store]["networks"] == ["stores"]


def test_every_compose_service_that_stays_has_a_health_check_and_a_fixed_image() -> None:
    compose = read_yaml(COMPOSE)
    for name, service in compose["services"].items():
        tag = service["image"].partition(":")[2]
        assert tag, name
        assert tag != "latest", name
        assert "healthcheck" in service, name
        assert set(service.get("depends_on", {})) <= compose["services"].keys(), name
        assert set(service["networks"]) <= compose["networks"].keys(), name
        assert set(service.get("secrets", [])) <= compose["secrets"].keys(), name


def test_the_compose_example_names_every_variable_that_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))
    secrets = read_yaml(COMPOSE)["secrets"].values()
    asked |= {secret["environment"] for secret in secrets}
    assert asked == settings(DEPLOY / "compose.env.example")


def test_prometheus_asks_the_node_where_compose_serves_it() -> None:
    (job,) = read_yaml(PROMETHEUS)["scrape_configs"]
    (port,) = of_kind("EXPOSE")
    assert job["job_name"] == "idnode"
    assert job["static_configs"][0]["targets"] == [f"idnode:{port[0]}"]
    for pattern in read_yaml(PROMETHEUS)["rule_files"]:
        assert list(PROMETHEUS.parent.glob(pattern)) == [RULES]


# -- systemd and settings


def settings(path: Path) -> set[str]:
    return set(re.findall(r"(?m)^#?([A-Z_]+)=", path.read_text(encoding="utf-8")))


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=True)
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_the_unit_starts_the_node_after_its_migrations() -> None:
    service = unit()["Service"]
    assert shlex.split(service["ExecStartPre"]) == ["/opt/idnode/bin/idnode", "migrate"]
    assert shlex.split(service["ExecStart"]) == ["/opt/idnode/bin/idnode", "serve"]
    assert service["Restart"] == "always"
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["LimitNOFILE"]) >= 65536


def test_the_unit_may_write_its_data_folder_and_nothing_else() -> None:
    service = unit()["Service"]
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["Environment"] == f"IDNODE_DATA=/var/lib/{service['StateDirectory']}"
    assert "ReadWritePaths" not in service
    sysusers = (UNIT.parent / "idnode.sysusers.conf").read_text(encoding="utf-8")
    assert re.search(rf"(?m)^u {service['User']} ", sysusers)


def test_every_setting_named_in_deploy_is_one_that_the_node_reads() -> None:
    read = set(re.findall(r'"(IDNODE_[A-Z_]+)"', (TOP / "node/config.py").read_text("utf-8")))
    named: set[str] = set()
    for path in (CONTAINERFILE, COMPOSE, UNIT, UNIT.parent / "idnode.env.example"):
        named |= set(re.findall(r"\bIDNODE_[A-Z_]+", path.read_text(encoding="utf-8")))
    # The password is compose's own: it becomes part of IDNODE_POSTGRES_URL.
    assert named - {"IDNODE_POSTGRES_PASSWORD"} <= read


# -- installing

LOCK_TEXT: Final = "nothing==1.0 --hash=sha256:00\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree with the installer and a lock; its PATH has no uv but what a test puts there."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(TOP / ".ci/install", tmp_path / ".ci/install")
    shutil.copy(TOP / "Makefile", tmp_path / "Makefile")
    (tmp_path / "pyproject.toml").write_text("")
    for lock in ("requirements.lock", "requirements-dev.lock"):
        (tmp_path / lock).write_text(LOCK_TEXT)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def install(tree: Path, python: str) -> "subprocess.CompletedProcess[str]":
    search = f"{tree / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        ["sh", ".ci/install", "run"],
        cwd=tree,
        env={"PATH": search, "PYTHON": python},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def fake_uv(tree: Path, install_line: str) -> None:
    """A uv that makes an empty .venv and then runs `install_line` for each `pip install`."""
    python = program(tree / "fake-python", "exit 0")
    make = f'mkdir -p .venv/bin && cp "{python}" .venv/bin/python'
    program(tree / "bin/uv", f'if [ "$1" = venv ]; then {make}; else {install_line}; fi')


def modern(tree: Path) -> str:
    return str(program(tree / "bin/python-modern", "echo 3.12"))


def test_an_old_python_gets_one_clear_line(tree: Path) -> None:
    ended = install(tree, str(program(tree / "old-python", "echo 3.10")))
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "3.10" in line
    assert "3.11 or newer is needed" in line


def test_a_missing_python_gets_one_clear_line(tree: Path) -> None:
    ended = install(tree, "python-that-is-not-there")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "python-that-is-not-there not found" in line


@pytest.mark.skipif(
    any(Path(folder, "uv").exists() for folder in ("/usr/bin", "/bin")),
    reason="uv of the system is on every PATH, and uv needs no venv module",
)
def test_a_python_without_venv_gets_one_clear_line(tree: Path) -> None:
    script = 'case "$2" in *ensurepip*) exit 1 ;; *version*) echo 3.12 ;; esac'
    ended = install(tree, str(program(tree / "bare-python", script)))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "has no venv module" in line


def test_a_failed_half_installation_is_done_again(tree: Path) -> None:
    python = modern(tree)
    fake_uv(tree, 'case "$*" in *--editable*) exit 3 ;; esac')
    assert install(tree, python).returncode == 3
    assert not (tree / ".venv/.installed-run").exists()
    fake_uv(tree, "true")
    again = install(tree, python)
    assert again.returncode == 0, again.stderr
    assert "Installing" in again.stdout


def test_an_installation_is_done_once_and_again_when_the_lock_changes(tree: Path) -> None:
    python = modern(tree)
    fake_uv(tree, 'echo "$*" >>asked')
    assert install(tree, python).returncode == 0
    first = (tree / "asked").read_text(encoding="utf-8").splitlines()
    assert "--require-hashes --no-deps --only-binary :all: -r requirements.lock" in first[0]
    assert "--no-deps --no-build-isolation --editable ." in first[1]
    assert install(tree, python).stdout == ""
    assert len((tree / "asked").read_text(encoding="utf-8").splitlines()) == 2
    (tree / "requirements.lock").write_text(LOCK_TEXT + LOCK_TEXT.replace("nothing", "more"))
    assert "2 from requirements.lock" in install(tree, python).stdout
    assert len((tree / "asked").read_text(encoding="utf-8").splitlines()) == 4


def test_every_target_of_the_makefile_is_listed_by_help() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    listed = subprocess.run(
        ["make", "-s", "-f", str(TOP / "Makefile")], capture_output=True, text=True, check=True
    ).stdout
    (phony,) = re.findall(r"\.PHONY: (.*)", (TOP / "Makefile").read_text(encoding="utf-8"))
    told = set(re.findall(r"(?m)^make (\w+)", listed))
    assert told == set(phony.split()) - {"help", "install", "install-dev", "install-fuzz"}


@pytest.mark.parametrize("name", ["run", "install", "test", "debian-packages"])
def test_the_scripts_of_ci_can_be_run_and_parse(name: str) -> None:
    script = TOP / ".ci" / name
    assert os.access(script, os.X_OK)
    shell = script.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", str(script)], check=True)


# -- what Prometheus itself says


def promtool(*arguments: str) -> None:
    path = shutil.which("promtool")
    assert path, "promtool is missing: apt-get install prometheus"
    ended = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.debian
def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", str(PROMETHEUS))


@pytest.mark.debian
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", str(RULES_TEST))


@pytest.mark.debian
def test_prometheus_can_parse_every_query_of_the_dashboard(tmp_path: Path) -> None:
    asked = [
        {"record": f"query_{number}", "expr": query}
        for number, query in enumerate(dashboard_queries())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    promtool("check", "rules", str(path))
