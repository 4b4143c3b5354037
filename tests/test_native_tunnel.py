"""The Handle protocol inside HTTP: one message in, its answer out, beside everything else there."""

from collections.abc import AsyncIterator

import httpx
import pytest

from resolver.response_code import ResponseCode
from resolver.wire import Message, Opcode, ResolutionResponse, response_body
from tests.conftest import RunningNode
from tests.native_client import MEDIA_TYPE, NativeClient, question

ITEM = "88.608.1001/00041250500735"


@pytest.fixture
async def client(node: RunningNode) -> AsyncIterator[NativeClient]:
    async with NativeClient(node.port, http_port=node.port) as made:
        yield made


def counted(node: RunningNode, outcome: str = "found") -> float:
    """How many questions were counted in the tunnel."""
    page = httpx.get(f"{node.url}/metrics").text.splitlines()
    start = 'idnode_resolutions_total{caller_class="anonymous",channel="native_http",'
    found = [line for line in page if line.startswith(start) and f'outcome="{outcome}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


async def test_a_question_is_answered_and_counted(client: NativeClient, node: RunningNode) -> None:
    before = counted(node)
    for _ in range(2):
        asked = question(ITEM)
        answer = await client.ask_tunnel(asked)
        assert answer.envelope.request_id == asked.envelope.request_id
        body, _ = response_body(answer)
        assert isinstance(body, ResolutionResponse), body
        async with httpx.AsyncClient() as http:
            shown = (await http.get(f"{node.url}/api/handles/{ITEM}")).json()["values"]
        assert [value.type for value in body.values] == [value["type"] for value in shown]
    assert counted(node) == before + 2


@pytest.mark.parametrize(
    "path", ["/88.608.1001%2F00041250500735", "/", "/other", "/%E7%A9%BA", "/a?b=c"]
)
async def test_the_path_means_nothing(client: NativeClient, path: str) -> None:
    response = await client.post(question(ITEM).to_wire(), path)
    assert response.status_code == 200
    assert Message.from_wire(response.content).response_code == ResponseCode.SUCCESS


async def test_the_answer_has_a_length_and_is_sent_as_it_is(client: NativeClient) -> None:
    headers = {"accept-encoding": "gzip", "user-agent": "CNRI-HCL 2.0"}
    response = await client.post(question(ITEM).to_wire(), **headers)
    assert response.headers["content-type"] == MEDIA_TYPE
    assert int(response.headers["content-length"]) == len(response.content)
    assert "transfer-encoding" not in response.headers
    assert "content-encoding" not in response.headers


async def test_several_questions_share_a_connection(node: RunningNode) -> None:
    types = {"content-type": f"{MEDIA_TYPE.upper()}; charset=x"}
    async with httpx.AsyncClient(base_url=node.url, headers=types) as client:
        for _ in range(3):
            content = question(ITEM).to_wire()
            response = await client.post("/0", content=content)
            assert Message.from_wire(response.content).response_code == ResponseCode.SUCCESS


async def test_a_name_that_does_not_exist_is_answered_natively(
    client: NativeClient, node: RunningNode
) -> None:
    before = counted(node, "not_found")
    answer = await client.ask_tunnel(question("88.608.1001/none"))
    assert answer.response_code == ResponseCode.HANDLE_NOT_FOUND
    assert counted(node, "not_found") == before + 1


async def test_a_damaged_message_is_refused_natively(client: NativeClient) -> None:
    whole = question(ITEM).to_wire()
    answer = await client.ask_tunnel(whole[:44] + b"\x00\x00\xff\xff" + whole[48:])
    assert answer.response_code == ResponseCode.PROTOCOL_ERROR
    assert answer.opcode == Opcode.RESOLUTION


async def test_what_is_no_message_that_asks_is_a_bad_request(client: NativeClient) -> None:
    reply = await client.ask_tunnel(question(ITEM))
    for body in (b"", b"GET / HTTP/1.1", reply.to_wire()):
        response = await client.post(body)
        assert response.status_code == 400
        assert response.json()["responseCode"] == ResponseCode.PROTOCOL_ERROR


async def test_a_body_that_is_too_long_is_not_read(client: NativeClient) -> None:
    response = await client.post(bytes(262_144 + 21))
    assert response.status_code == 413


async def test_another_type_of_body_is_no_message(client: NativeClient, node: RunningNode) -> None:
    async with httpx.AsyncClient(base_url=node.url) as http:
        content = question(ITEM).to_wire()
        response = await http.post("/0", content=content, headers={"content-type": "text/plain"})
        assert response.status_code == 405
        response = await http.post(
            "/api/handles", content=content, headers={"content-type": MEDIA_TYPE}
        )
        assert response.status_code >= 400
        assert response.headers["content-type"] != MEDIA_TYPE
