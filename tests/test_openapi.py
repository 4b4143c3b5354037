"""The OpenAPI document: valid, complete, and true of the running node (Schemathesis)."""

import http.client
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import jsonschema_rs
import pytest
from fastapi.routing import APIRoute

from node import openapi
from node.framework_http import framework
from node.openapi_schemas import digits_up_to
from resolver.prefix_directory import PrefixDirectory
from tests.conftest import RunningNode, free_port

Document = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
METHODS = ("get", "head", "post", "put", "delete")
EXAMPLES_MAX = 30
SEED = 1
PATIENCE_S = 300


@pytest.fixture(scope="module")
def documented(scratch: Path) -> Iterator[RunningNode]:
    """A node of its own: the document names the prefixes that live there, and others add some."""
    running = RunningNode(scratch / "openapi", free_port())
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def document(documented: RunningNode) -> Document:
    answer = httpx.get(f"{documented.url}/openapi.json")
    assert answer.headers["content-type"] == "application/json;charset=utf-8"
    found: Document = answer.json()
    return found


# The node does what the document says. All checks that Schemathesis makes by default are on.


def test_anonymous_callers_get_what_the_document_says(documented: RunningNode) -> None:
    _schemathesis(documented)


def test_the_operator_gets_what_the_document_says(documented: RunningNode) -> None:
    # Where it homes prefixes, more lives there than the document said.
    _schemathesis(
        documented,
        *("--header", f"Authorization: Bearer {documented.operator_key}"),
        *("--exclude-operation-id", "homePrefix"),
    )


def _schemathesis(node: RunningNode, *more: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{node.url}/openapi.json"),
            *("--max-examples", str(EXAMPLES_MAX), "--seed", str(SEED)),
            *("--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"),
            # Where the generator throws much away, that is its own affair.
            "--suppress-health-check=filter_too_much",
            *("--request-timeout", "10", "--no-color", "--generation-database", "none"),
            *more,
        ],
        cwd=node.data.parent,  # it leaves files where it runs
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    left_out = more.count("--exclude-operation-id")
    assert f"Operations:       {45 - left_out} selected / 45 total" in done.stdout
    tested = re.search(r"([0-9]+) generated, ([0-9]+) passed", done.stdout)
    assert tested is not None, done.stdout
    assert int(tested[1]) > 1_000
    log = (node.data / "logs" / "worker.log").read_text(errors="replace")
    assert "Traceback" not in log


# The document itself


def test_the_document_is_openapi_3_1(document: Document) -> None:
    assert document["openapi"] == "3.1.0"
    for schema in _schemas(document):
        jsonschema_rs.meta.validate({"$schema": DIALECT, **schema})


def _schemas(document: Document) -> Iterator[Document]:
    """The named schemas, and every schema of a parameter, a body or an answer."""
    yield from document["components"]["schemas"].values()
    for _, _, operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            yield parameter["schema"]
        bodies = [*operation["responses"].values(), operation.get("requestBody", {})]
        for body in bodies:
            for content in body.get("content", {}).values():
                yield content.get("schema", {})


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert method in METHODS
            yield path, method, operation


def test_every_pointer_of_the_document_leads_somewhere(document: Document) -> None:
    names = {found for found in _pointers(document)}
    assert names == document["components"]["schemas"].keys()


def _pointers(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix("#/components/schemas/")
        for item in value.values():
            yield from _pointers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _pointers(item)


def test_every_operation_has_a_name_of_its_own_and_says_its_errors(document: Document) -> None:
    names = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(set(names)) == len(names)
    for path, method, operation in _operations(document):
        assert operation["summary"], (path, method)
        assert {"400", "431", "503"} <= operation["responses"].keys(), (path, method)


def test_every_path_that_can_be_read_answers_head_too(document: Document) -> None:
    for path, methods in document["paths"].items():
        assert ("get" in methods) == ("head" in methods), path


def test_the_methods_of_the_document_are_those_that_are_allowed(
    documented: RunningNode, document: Document
) -> None:
    with httpx.Client(base_url=documented.url) as client:
        for path, methods in document["paths"].items():
            allow = client.options(re.sub(r"\{.*\}", "88.608.1001/1", path)).headers["allow"]
            assert {*allow.split(", ")} == {*map(str.upper, methods), "OPTIONS"}, path


def test_a_method_that_is_not_served_is_405_everywhere(
    documented: RunningNode, document: Document
) -> None:
    with httpx.Client(base_url=documented.url) as client:
        for path, methods in document["paths"].items():
            for method in ("PATCH", "TRACE", *(m.upper() for m in METHODS if m not in methods)):
                answer = client.request(method, re.sub(r"\{.*\}", "88.608.1001/1", path))
                assert answer.status_code == 405, (method, path)
                assert {*answer.headers["allow"].split(", ")} == {
                    *map(str.upper, methods),
                    "OPTIONS",
                }


def test_what_is_refused_before_the_doors_is_as_the_document_says(
    documented: RunningNode, document: Document
) -> None:
    responses = document["paths"]["/health"]["get"]["responses"]
    for head, status in (("x: " + "y" * 40_000, 431), ("content-length: a", 400)):
        connection = http.client.HTTPConnection("127.0.0.1", documented.port, timeout=30)
        connection.connect()
        connection.sock.sendall(f"GET /health HTTP/1.1\r\n{head}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        assert answer.status == status
        assert answer.headers.get_content_type() in responses[str(status)]["content"]
        answer.close()
        connection.close()


def test_the_framework_serves_nothing_that_the_document_does_not_name() -> None:
    named = openapi.document(["88.608.1001"])["paths"]
    nothing = cast(Any, None)  # routes are looked at, not served
    app = framework(nothing, nothing, PrefixDirectory())
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert routes
    for route in routes:
        methods = {method.lower() for method in route.methods or ()}
        assert methods, route.path
        assert methods <= named[route.path_format].keys()


def test_the_document_names_the_prefixes_that_live_here(document: Document) -> None:
    handle = document["paths"]["/api/handles/{handle}"]["get"]["parameters"][0]["schema"]
    assert re.search(handle["pattern"], "88.608.1001/00041250500735")
    assert not re.search(handle["pattern"], "88.608.10010/1")
    assert not re.search(handle["pattern"], "88x608x1001/1")


def test_the_document_of_many_prefixes_names_their_form() -> None:
    prefixes = [f"88.608.{number}" for number in range(openapi.PREFIXES_NAMED_MAX + 1)]
    for some in ((), prefixes):
        handle = openapi.document(some)["paths"]["/api/handles/{handle}"]["get"]["parameters"][0]
        assert re.search(handle["schema"]["pattern"], "88.1.2/a")
        assert not re.search(handle["schema"]["pattern"], "a/b")


def test_a_document_is_not_changed_by_making_another() -> None:
    first = openapi.document(["88.1.2"])
    openapi.document(["88.3.4"])
    assert first == openapi.document(["88.1.2"])


@pytest.mark.parametrize("number_max", [2**31 - 1, 9, 10, 19, 1_000, 65_535])
def test_a_pattern_of_digits_takes_numbers_up_to_its_last(number_max: int) -> None:
    pattern = re.compile(digits_up_to(number_max))
    near = range(max(0, number_max - 2_000), number_max + 2_000)
    for number in (*range(200), *near, number_max * 10, number_max // 10):
        assert bool(pattern.fullmatch(str(number))) == (1 <= number <= number_max), number
    assert pattern.fullmatch(f"0{number_max}")
