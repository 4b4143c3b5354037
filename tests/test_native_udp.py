"""The Handle protocol over UDP, on real sockets: packets, repetitions, limits, the end."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from resolver.record import HandleValue
from resolver.response_code import ResponseCode
from resolver.wire import (
    PACKET_SIZE_BYTES_MAX,
    Envelope,
    Message,
    Opcode,
    packets,
)
from tests.answering import PREFIX, Answering, text
from tests.native_client import SILENCE_S, NativeClient, question, renumbered, values_of
from tests.native_doors import NativeDoors, eventually

ITEM, LARGE, OTHER_ITEM = f"{PREFIX}/A", f"{PREFIX}/large", f"{PREFIX}/B"
FOUND = ("native_udp", "found")
URL = "http://www.example.com/product/1"


@pytest.fixture
async def answering(tmp_path: Path) -> AsyncIterator[Answering]:
    made = Answering(tmp_path)
    await made.put("A", text(1, "URL", URL))
    await made.put("B", text(1, "URL", f"{URL}/b"))
    await made.put("large", HandleValue(1, "DOC", bytes(range(256)) * 20))
    yield made
    made.close()


@pytest.fixture
async def doors(answering: Answering, tmp_path: Path) -> AsyncIterator[NativeDoors]:
    made = NativeDoors(answering, tmp_path)
    yield made
    await made.close()


async def test_a_question_is_answered_by_the_door_and_then_fast(doors: NativeDoors) -> None:
    client = await doors.open()
    for number in range(3):
        asked = question(ITEM)
        answer = await client.ask_udp(asked)
        assert values_of(answer) == [URL.encode()]
        assert answer.envelope.request_id == asked.envelope.request_id
        assert doors.counts() == {FOUND: number + 1}
    assert len(doors.door.asked) == 1


async def test_what_is_longer_than_a_packet_comes_in_several(doors: NativeDoors) -> None:
    client = await doors.open()
    loop = asyncio.get_running_loop()
    for number in range(2):  # of the door, and fast
        await client.send_udp(question(LARGE))
        first = await loop.sock_recv(client.udp, 65_536)
        assert len(first) == PACKET_SIZE_BYTES_MAX
        client._reassembly.add("server", first, loop.time())
        whole = await client.receive_udp()
        assert whole is not None
        assert values_of(Message.from_wire(whole)) == [bytes(range(256)) * 20]
        assert doors.counts() == {FOUND: number + 1}


async def test_a_question_in_several_packets_is_put_together(doors: NativeDoors) -> None:
    client = await doors.open()
    asked = question(ITEM, types=tuple(f"TYPE{number:04d}" for number in range(100)))
    parts = list(packets(asked.to_wire()))
    assert len(parts) > 2
    loop = asyncio.get_running_loop()
    for part in reversed(parts):
        await loop.sock_sendall(client.udp, part)
    answer = await client.receive_udp()
    assert answer is not None
    assert Message.from_wire(answer).response_code == ResponseCode.VALUES_NOT_FOUND
    assert len(doors.door.asked) == 1


async def test_a_question_that_is_asked_again_is_answered_again_and_counted_once(
    doors: NativeDoors,
) -> None:
    client = await doors.open()
    for asked in (question(ITEM), question(ITEM), question(LARGE), question(f"{PREFIX}/none")):
        before = sum(doors.counts().values())
        answers = [(await client.ask_udp(asked)).to_wire() for _ in range(3)]
        assert answers[1:] == answers[:1] * 2
        assert sum(doors.counts().values()) == before + 1
    # The same under another number, and from another address, is another question.
    asked = question(ITEM)
    before = doors.counts()[FOUND]
    await client.ask_udp(asked)
    await client.ask_udp(renumbered(asked, 1))
    with doors.client(client.port) as other:
        await other.ask_udp(asked)
    assert doors.counts()[FOUND] == before + 3


async def test_what_is_asked_again_while_it_is_worked_on_is_answered_once(
    doors: NativeDoors,
) -> None:
    client = await doors.open()
    doors.door.hold()
    asked = question(ITEM)
    await client.send_udp(asked, asked, asked)
    await eventually(lambda: len(doors.door.asked) == 1)
    await client.send_udp(asked)
    doors.door.let_go()
    assert await client.receive_udp() is not None
    assert await client.receive_udp(SILENCE_S) is None
    assert doors.counts() == {FOUND: 1}
    # What was asked again holds no room for longer than it was worked on.
    assert doors.native.room.held_bytes == 0


async def test_a_question_that_takes_long_holds_up_no_other(doors: NativeDoors) -> None:
    client = await doors.open()
    assert values_of(await client.ask_udp(question(ITEM)))
    doors.door.hold()
    slow = question(OTHER_ITEM)
    await client.send_udp(slow)
    await eventually(lambda: len(doors.door.asked) == 2)
    fast = question(ITEM)
    assert (await client.ask_udp(fast)).envelope.request_id == fast.envelope.request_id
    doors.door.let_go()
    answer = await client.receive_udp()
    assert answer is not None
    assert Message.from_wire(answer).envelope.request_id == slow.envelope.request_id


@pytest.mark.parametrize("size", [0, 1, 19])
async def test_what_is_no_message_is_not_answered(doors: NativeDoors, size: int) -> None:
    client = await doors.open()
    await asyncio.get_running_loop().sock_sendall(client.udp, bytes(size))
    assert await client.receive_udp(SILENCE_S) is None
    assert values_of(await client.ask_udp(question(ITEM)))


async def test_a_damaged_message_is_refused_with_its_number(doors: NativeDoors) -> None:
    client = await doors.open()
    whole = question(ITEM).to_wire()
    # The handle is said to be longer than the body.
    answer = await client.ask_udp(whole[:44] + b"\x00\x00\xff\xff" + whole[48:])
    assert answer.response_code == ResponseCode.PROTOCOL_ERROR
    assert answer.opcode == Opcode.RESOLUTION
    assert answer.envelope.request_id == Message.from_wire(whole).envelope.request_id
    too_long = Envelope(77, message_size_bytes=300_000).to_wire() + bytes(30)
    await asyncio.get_running_loop().sock_sendall(client.udp, too_long)
    reply = await client.receive_udp()
    assert reply is not None
    assert Message.from_wire(reply).response_code == ResponseCode.PROTOCOL_ERROR


async def test_a_reply_is_not_answered(doors: NativeDoors) -> None:
    client = await doors.open()
    answer = await client.ask_udp(question(ITEM))
    await client.send_udp(answer)
    assert await client.receive_udp(SILENCE_S) is None


async def test_a_datagram_that_is_too_long_is_not_looked_at(doors: NativeDoors) -> None:
    client = await doors.open()
    asked = question(ITEM, types=tuple(f"TYPE{number:04d}" for number in range(500)))
    await asyncio.get_running_loop().sock_sendall(client.udp, asked.to_wire())
    assert await client.receive_udp(SILENCE_S) is None
    assert doors.door.asked == []


async def test_a_stranger_over_the_limit_hears_nothing_until_it_connects(
    answering: Answering, tmp_path: Path
) -> None:
    doors = NativeDoors(answering, tmp_path, per_network=2, limits_loopback=True)
    client = await doors.open()
    for _ in range(2):
        assert values_of(await client.ask_udp(question(ITEM)))
    # An answer of eleven packets, a refusal, and what is answered fast.
    for asked in (question(LARGE), question(f"{PREFIX}/none"), question(ITEM)):
        await client.send_udp(asked)
        assert await client.receive_udp(SILENCE_S) is None
    assert doors.refused("rate_source") == 3
    assert values_of(await client.ask_tcp(question(ITEM)))
    for _ in range(20):
        assert values_of(await client.ask_udp(question(ITEM)))
    assert values_of(await client.ask_udp(question(LARGE)))
    await doors.close()


async def test_who_asks_too_often_is_told_so(answering: Answering, tmp_path: Path) -> None:
    doors = NativeDoors(answering, tmp_path, per_source=2, limits_loopback=True)
    client = await doors.open()
    codes = [(await client.ask_udp(question(ITEM))).response_code for _ in range(4)]
    assert codes == [ResponseCode.SUCCESS] * 2 + [ResponseCode.SERVER_TOO_BUSY] * 2
    assert doors.refused("rate_source") == 2
    assert doors.counts() == {FOUND: 2, ("native_udp", "refused"): 2}
    await doors.close()


async def test_a_node_that_is_full_says_so(
    doors: NativeDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.admission.IN_FLIGHT_MAX", 2)
    client = await doors.open()
    doors.door.hold()
    await client.send_udp(question(ITEM), question(OTHER_ITEM))
    await eventually(lambda: len(doors.door.asked) == 2)
    answer = await client.ask_udp(question(LARGE))
    assert answer.response_code == ResponseCode.SERVER_TOO_BUSY
    assert doors.refused("in_flight") == 1
    assert doors.counts() == {("native_udp", "unavailable"): 1}
    doors.door.let_go()
    assert await client.receive_udp() is not None
    assert await client.receive_udp() is not None
    assert values_of(await client.ask_udp(question(LARGE)))


async def test_a_failure_of_the_door_is_told_in_one_line(
    doors: NativeDoors, answering: Answering
) -> None:
    class Failing:
        async def answer(self, message: bytes, peer: object) -> list[bytes]:
            raise RuntimeError(f"{len(message)} bytes")

    doors.native._door = Failing()
    client = await doors.open()
    asked = question(ITEM)
    answer = await client.ask_udp(asked)
    assert answer.response_code == ResponseCode.ERROR
    assert answer.envelope.request_id == asked.envelope.request_id
    assert answering.counts == {}


async def test_it_works_over_ipv6(doors: NativeDoors, answering: Answering) -> None:
    try:
        client = await doors.open("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    for _ in range(2):
        assert values_of(await client.ask_udp(question(ITEM)))
    assert values_of(await client.ask_tcp(question(ITEM)))
    assert {meaning.source for meaning in answering.sources} == {"::1"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which one was asked")
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_every_address_of_the_machine_answers_who_asks_it(
    doors: NativeDoors, host: str
) -> None:
    try:
        port = (await doors.open(host)).port
    except OSError:
        pytest.skip("this machine has no IPv6")
    for number, asked_host in enumerate(("127.0.0.2", "127.0.0.3"), 1):
        client = doors.client(port, asked_host)
        asked = question(ITEM)
        # A question that is asked again is not counted again, here as elsewhere.
        for _ in range(3):
            assert values_of(await client.ask_udp(asked)) == [URL.encode()]
        assert doors.counts()[FOUND] == 2 * number - 1
        assert values_of(await client.ask_udp(question(LARGE))) == [bytes(range(256)) * 20]
        types = tuple(f"TYPE{kind:04d}" for kind in range(100))
        answer = await client.ask_udp(question(ITEM, types=types))
        assert answer.response_code == ResponseCode.VALUES_NOT_FOUND
        assert {meaning.source for meaning in doors.answering.sources} == {"127.0.0.1"}


async def test_a_stop_answers_what_has_arrived(doors: NativeDoors) -> None:
    client = await doors.open()
    doors.door.hold()
    await client.send_udp(question(OTHER_ITEM))
    await eventually(lambda: len(doors.door.asked) == 1)
    asyncio.get_running_loop().call_later(SILENCE_S, doors.door.let_go)
    # It lies in the socket when the door stops reading.
    client.udp.send(question(ITEM).to_wire())
    await doors.server.close()
    answers = [await client.receive_udp(), await client.receive_udp()]
    assert all(answers)
    client.udp.send(question(ITEM).to_wire())
    # Nobody has the port any more: the machine says so.
    with pytest.raises(ConnectionRefusedError):
        await client.receive_udp()


def test_a_client_has_an_address_of_its_own() -> None:
    with NativeClient(9) as one, NativeClient(9) as other:
        assert one.udp.family == socket.AF_INET
        assert one.udp.getsockname() != other.udp.getsockname()
