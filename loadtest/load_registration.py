"""Before the users come: what they ask for is registered, and the node answers for it."""

import json
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.load_node import LoadError, LoadNode, ask
from loadtest.load_products import Products, product_values

_ENTERPRISE = ("负荷试验工厂 Load Test Factory", "91450200MA5LADTE0G", "450200")
# A sandbox: what it resolves on a real node is shown, and never claimed.
_APPLICATION = (
    *("--name", "负荷试验 load test", "--kind", "traceability", "--owner", _ENTERPRISE[0]),
    *("--division", _ENTERPRISE[2], "--sandbox"),
)
# As many as the node takes in one request.
_ITEMS_MAX = 2_000
# An allotted prefix reaches every worker within a second.
_ANSWERS_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.1


def register_by_command(node: LoadNode, all_products: Sequence[Products]) -> None:
    """Enter an enterprise, allot it the prefixes and register their products."""
    name, code, division = _ENTERPRISE
    node.cli("enterprise", "add", "--name", name, "--credit-code", code, "--division", division)
    with tempfile.TemporaryDirectory() as folder:
        for products in all_products:
            node.cli("prefix", "allot", products.prefix, "--enterprise", code)
            file = Path(folder) / "products.csv"
            node.cli("register", str(file), *products.write_file(file))
    wait_answered(node, all_products)


@contextmanager
def application_key(node: LoadNode) -> Iterator[str]:
    """A key of the application of load tests, revoked at the end."""
    application = node.cli("application", "add", *_APPLICATION)
    created = node.cli("key", "create", "--application", application["id"])
    try:
        yield str(created["key"])
    finally:
        node.cli("key", "revoke", created["id"])


def register_by_http(node: LoadNode, key: str, all_products: Sequence[Products]) -> None:
    """Register the products with the operator's key; the prefixes must be allotted.

    Raises:
        LoadError: says what the node refused.
    """
    for products in all_products:
        for start in range(0, products.count, _ITEMS_MAX):
            numbers = range(start, min(start + _ITEMS_MAX, products.count))
            _put_many(node, key, products, numbers)
    wait_answered(node, all_products)


def wait_answered(node: LoadNode, all_products: Sequence[Products]) -> None:
    """Return when the node answers for the last product of each prefix.

    Raises:
        LoadError: if it does not, with its answer.
    """
    until_s = time.monotonic() + _ANSWERS_WITHIN_S
    for products in all_products:
        path = f"/api/handles/{products.identifier(products.count - 1)}"
        while (answer := node.get(path))[0] != 200:
            if time.monotonic() > until_s:
                shown = answer[1][:300].decode("utf-8", "replace")
                raise LoadError(f"{node.url}{path}: HTTP {answer[0]} {shown}; is it registered?")
            time.sleep(_LOOK_EVERY_S)


def _put_many(node: LoadNode, key: str, products: Products, numbers: Sequence[int]) -> None:
    items = [
        {"handle": products.identifier(number), "values": product_values(number)}
        for number in numbers
    ]
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    body = json.dumps({"items": items}).encode()
    url = f"{node.url}/api/handles"
    status, answer = ask(urllib.request.Request(url, body, headers, method="POST"))
    results = json.loads(answer).get("results", []) if status == 200 else []
    refused = [one for one in results if one.get("responseCode") != 1]
    if status != 200 or refused:
        shown = refused[0] if refused else answer[:300].decode("utf-8", "replace")
        raise LoadError(
            f"{url}: HTTP {status} {shown}; allot {products.prefix} to an enterprise first:"
            f" idnode prefix allot {products.prefix} --enterprise CODE"
        )
