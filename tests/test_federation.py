"""Three nodes as a tree: a client that knows only the top finds an enterprise's identifier."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from resolver.response_code import ResponseCode
from resolver.wire import (
    PROTOCOL_TCP,
    Message,
    OpFlag,
    Referral,
    ResolutionResponse,
    Server,
    SiteInfo,
    response_body,
)
from tests.conftest import RunningNode, free_port
from tests.native_client import PLAIN_FLAGS, NativeClient, question
from tests.tenant import Labels, counted, credit_code, text_value

TOP, SECONDARY, ENTERPRISE = "88", "88.608", "88.608.5288"
# What the reference client asks of a prefix (recorded).
SERVICE_TYPES = ("HS_SITE", "HS_SITE.6", "HS_SERV", "HS_NAMESPACE")


@dataclass(frozen=True)
class Tree:
    """The three nodes, each on an address of its own and the same port."""

    top: RunningNode
    secondary: RunningNode
    enterprise: RunningNode
    port: int

    def counts(self) -> list[Counter[Labels]]:
        """What each has counted, top first."""
        return [counted(node) for node in (self.top, self.secondary, self.enterprise)]


def _node(folder: Path, number: int, port: int, **settings: str) -> RunningNode:
    made = RunningNode(folder, free_port())
    made.environment = {"IDNODE_HANDLE": f"127.0.0.{number}:{port}", **settings}
    made.start()
    return made


def _register(node: RunningNode, number: int, name: str) -> str:
    code = credit_code(number)
    words = ("--name", name, "--credit-code", code, "--division", "450200")
    node.cli("enterprise", "add", *words)
    return code


def _delegate(node: RunningNode, prefix: str, code: str, place: str, *more: str) -> None:
    node.cli("prefix", "delegate", prefix, "--enterprise", code, "--node", place, *more)


@pytest.fixture(scope="module")
def tree(scratch: Path) -> Iterator[Tree]:
    """A top node, which leaves 88.608 to a secondary node, which leaves 88.608.5288 to its
    enterprise."""
    port = free_port()
    folders = [scratch / name for name in ("top", "secondary", "enterprise")]
    nodes: list[RunningNode] = []
    try:
        nodes.append(_node(folders[0], 1, port, IDNODE_NODE_PREFIX=TOP))
        nodes.append(_node(folders[1], 2, port, IDNODE_NODE_PREFIX=SECONDARY))
        nodes.append(_node(folders[2], 3, port))
        made = Tree(nodes[0], nodes[1], nodes[2], port)
        code = _register(made.top, 71, "二级节点")
        _delegate(made.top, SECONDARY, code, f"127.0.0.2:{port}", "--for-derived")
        code = _register(made.secondary, 72, "柳州样品厂")
        _delegate(made.secondary, ENTERPRISE, code, f"127.0.0.3:{port}")
        code = _register(made.enterprise, 72, "柳州样品厂")
        made.enterprise.cli("prefix", "allot", ENTERPRISE, "--enterprise", code)
        _put_widget(made.enterprise)
        yield made
    finally:
        for node in nodes:
            node.stop()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _put_widget(node: RunningNode) -> None:
    key = {"Authorization": f"Bearer {node.operator_key}"}
    path = f"{node.url}/api/handles/{ENTERPRISE}/WIDGET"
    values = [text_value(1, "URL", "http://ent.example/widget")]
    httpx.put(path, json=values, headers=key, timeout=60).raise_for_status()


async def _ask(server: Server, handle: str, *types: str, flags: int = PLAIN_FLAGS) -> Message:
    """Ask the server of a site as it says that it is reached."""
    (port,) = (one.port for one in server.interfaces if one.protocol == PROTOCOL_TCP)
    async with NativeClient(port, host=server.address_text) as client:
        return await client.ask_tcp(question(handle, flags=flags, types=types))


def _server(answer: Message, type_: str) -> Server:
    """The server of the site that an answer names in a value of this type."""
    body, _ = response_body(answer)
    assert isinstance(body, ResolutionResponse | Referral)
    (value,) = (one for one in body.values or () if one.type == type_)
    (server,) = SiteInfo.from_wire(value.data).servers
    return server


async def test_a_client_that_knows_only_the_top_finds_what_an_enterprise_registered(
    tree: Tree,
) -> None:
    before = tree.counts()
    handle = f"0.NA/{ENTERPRISE}"
    async with NativeClient(tree.port) as top:
        first = await top.ask_udp(question(handle, types=SERVICE_TYPES))
    assert first.response_code == ResponseCode.PREFIX_REFERRAL
    secondary = _server(first, "HS_SITE.PREFIX")
    assert secondary.address_text == "127.0.0.2"
    second = await _ask(secondary, handle, *SERVICE_TYPES)
    assert second.response_code == ResponseCode.SUCCESS
    enterprise = _server(second, "HS_SITE")
    assert enterprise.address_text == "127.0.0.3"
    third = await _ask(enterprise, f"{ENTERPRISE}/WIDGET")
    body, _ = response_body(third)
    assert isinstance(body, ResolutionResponse)
    assert [value.data for value in body.values] == [b"http://ent.example/widget"]
    # Each its own share, and no more.
    after = tree.counts()
    assert [new - old for old, new in zip(before, after, strict=True)] == [
        {("node", "native_udp", "referred", "anonymous"): 1},
        {("node", "native_tcp", "found", "anonymous"): 1},
        {("enterprise", "native_tcp", "found", "anonymous"): 1},
    ]


async def test_the_secondary_sends_who_asks_for_an_identifier_to_the_enterprise(tree: Tree) -> None:
    name = f"{ENTERPRISE}/WIDGET"
    async with NativeClient(tree.port, host="127.0.0.2") as secondary:
        referred = await secondary.ask_tcp(question(name))
        refused = await secondary.ask_tcp(question(name, flags=PLAIN_FLAGS | OpFlag.DNRF))
    assert referred.response_code == ResponseCode.SERVICE_REFERRAL
    found = await _ask(_server(referred, "HS_SITE"), name)
    assert found.response_code == ResponseCode.SUCCESS
    assert refused.response_code == ResponseCode.SERVER_NOT_RESPONSIBLE


@pytest.mark.parametrize(
    ("number", "handle", "code"),
    [
        (1, "0.NA/88", ResponseCode.SUCCESS),
        (1, "88.608", ResponseCode.SUCCESS),
        (1, "88.609", ResponseCode.HANDLE_NOT_FOUND),
        (1, "89.1", ResponseCode.SERVER_NOT_RESPONSIBLE),
        (1, f"{ENTERPRISE}.9", ResponseCode.PREFIX_REFERRAL),
        (2, "0.NA/88.608", ResponseCode.SUCCESS),
        (2, "88.608.77", ResponseCode.HANDLE_NOT_FOUND),
        # Delegated without its derived prefixes: they would be here.
        (2, f"{ENTERPRISE}.9", ResponseCode.HANDLE_NOT_FOUND),
        (2, "0.NA/88", ResponseCode.SERVER_NOT_RESPONSIBLE),
        (3, f"0.NA/{ENTERPRISE}", ResponseCode.SUCCESS),
        (3, "0.NA/88.608", ResponseCode.SERVER_NOT_RESPONSIBLE),
    ],
)
async def test_every_node_answers_for_what_is_its_own(
    tree: Tree, number: int, handle: str, code: ResponseCode
) -> None:
    async with NativeClient(tree.port, host=f"127.0.0.{number}") as client:
        answer = await client.ask_tcp(question(handle))
    assert answer.response_code == code


def test_a_node_keeps_the_number_of_its_site_over_a_restart(tree: Tree) -> None:
    site = httpx.get(f"{tree.secondary.url}/api/site").json()["site"]
    assert (
        json.loads((tree.secondary.data / "site.json").read_text())["serial"]
        == (site["serialNumber"])
    )
    tree.secondary.stop()
    tree.secondary.start()
    assert httpx.get(f"{tree.secondary.url}/api/site").json()["site"] == site
