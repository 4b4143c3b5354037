"""The Handle protocol over TCP, on real sockets: connections that stay, and those that must not."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.native_tcp import NativeConnection
from resolver.record import HandleValue
from resolver.response_code import ResponseCode
from resolver.wire import Envelope, Message
from tests.answering import PREFIX, Answering, text
from tests.native_client import SILENCE_S, Connection, question, values_of
from tests.native_doors import NativeDoors, eventually

ITEM, OTHER_ITEM, LARGE = f"{PREFIX}/A", f"{PREFIX}/B", f"{PREFIX}/large"
FOUND = ("native_tcp", "found")
URL = "http://www.example.com/product/1"
LARGE_DATA = bytes(60_000)


@pytest.fixture
async def answering(tmp_path: Path) -> AsyncIterator[Answering]:
    made = Answering(tmp_path)
    await made.put("A", text(1, "URL", URL))
    await made.put("B", text(1, "URL", f"{URL}/b"))
    await made.put("large", *(HandleValue(number, "DOC", LARGE_DATA) for number in (1, 2, 3)))
    yield made
    made.close()


@pytest.fixture
async def doors(answering: Answering, tmp_path: Path) -> AsyncIterator[NativeDoors]:
    made = NativeDoors(answering, tmp_path)
    yield made
    await made.close()


def ids(*messages: Message) -> list[int]:
    return [message.envelope.request_id for message in messages]


async def received(connection: Connection, number: int) -> list[Message]:
    """The next messages that come."""
    found = []
    for _ in range(number):
        data = await connection.receive()
        assert data is not None
        found.append(Message.from_wire(data))
    return found


async def test_a_connection_stays_and_answers_again_and_again(doors: NativeDoors) -> None:
    client = await doors.open()
    async with client.connected() as connection:
        for number in range(5):
            asked = question(ITEM)
            answer = await connection.ask(asked)
            assert ids(answer) == ids(asked)
            assert values_of(answer) == [URL.encode()]
            assert doors.counts() == {FOUND: number + 1}
    # The first by the door, the others fast.
    assert len(doors.door.asked) == 1


async def test_what_is_asked_again_is_another_question(doors: NativeDoors) -> None:
    client = await doors.open()
    asked = question(ITEM)
    async with client.connected() as connection:
        for _ in range(3):
            assert values_of(await connection.ask(asked))
    assert doors.counts() == {FOUND: 3}


async def test_questions_in_one_piece_are_all_answered(doors: NativeDoors) -> None:
    client = await doors.open()
    asked = [question(ITEM if number % 3 else OTHER_ITEM) for number in range(500)]
    async with client.connected() as connection:
        await connection.send(*asked)
        answers = await received(connection, len(asked))
    assert sorted(ids(*answers)) == sorted(ids(*asked))
    assert all(values_of(answer) for answer in answers)
    assert doors.counts() == {FOUND: len(asked)}


async def test_a_question_in_single_bytes_is_answered(doors: NativeDoors) -> None:
    client = await doors.open()
    for _ in range(2):  # of the door, and fast
        async with client.connected() as connection:
            sending = connection.writer.get_extra_info("socket")
            sending.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in question(ITEM).to_wire():
                await connection.send(bytes([byte]))
                await asyncio.sleep(0)
            (answer,) = await received(connection, 1)
            assert values_of(answer) == [URL.encode()]


async def test_a_question_that_takes_long_holds_up_no_other(doors: NativeDoors) -> None:
    client = await doors.open()
    async with client.connected() as connection:
        await connection.ask(question(ITEM))
        doors.door.hold()
        slow, fast = question(OTHER_ITEM), question(ITEM)
        await connection.send(slow, fast)
        assert ids(*await received(connection, 1)) == ids(fast)
        doors.door.let_go()
        assert ids(*await received(connection, 1)) == ids(slow)


async def test_so_many_are_under_way_and_the_others_wait(
    doors: NativeDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NativeConnection, "under_way_max", 3)
    client = await doors.open()
    doors.door.hold()
    asked = [question(f"{PREFIX}/none{number}") for number in range(20)]
    async with client.connected() as connection:
        await connection.send(*asked)
        await eventually(lambda: len(doors.door.asked) == 3)
        await asyncio.sleep(SILENCE_S)
        assert len(doors.door.asked) == 3
        doors.door.let_go()
        answers = await received(connection, len(asked))
    assert sorted(ids(*answers)) == sorted(ids(*asked))


async def test_a_connection_is_one_peer_to_the_door(doors: NativeDoors) -> None:
    client = await doors.open()
    for _ in range(2):
        async with client.connected() as connection:
            for _ in range(2):
                await connection.ask(question(f"{PREFIX}/none"))
    first, second, third, fourth = doors.door.peers
    assert first is second
    assert third is fourth
    assert first is not third
    assert (first.source, first.channel) == ("127.0.0.1", "native_tcp")
    await client.ask_udp(question(f"{PREFIX}/other"))
    assert not doors.door.peers[-1].is_connection


async def test_whoever_has_said_all_gets_the_answer_and_the_end(doors: NativeDoors) -> None:
    client = await doors.open()
    doors.door.hold()
    async with client.connected() as connection:
        await connection.send(question(ITEM))
        await eventually(lambda: len(doors.door.asked) == 1)
        connection.writer.write_eof()
        await asyncio.sleep(0.05)
        doors.door.let_go()
        (answer,) = await received(connection, 1)
        assert values_of(answer) == [URL.encode()]
        assert await connection.is_ended()
    await eventually(lambda: not doors.server.connections)


async def test_what_a_client_began_goes_on_when_it_hangs_up(doors: NativeDoors) -> None:
    client = await doors.open()
    doors.door.hold()
    async with client.connected() as connection:
        await connection.send(question(ITEM))
        await eventually(lambda: len(doors.door.asked) == 1)
        # A reset, not an end: after that nobody is there any more.
        sending = connection.writer.get_extra_info("socket")
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.writer.transport.abort()
        await eventually(lambda: not doors.server.connections)
    doors.door.let_go()
    await eventually(lambda: doors.counts() == {FOUND: 1})


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", bytes(20), b"\x16\x03\x01" + bytes(40)],
    ids=["HTTP", "zeros", "TLS"],
)
async def test_who_speaks_something_else_is_hung_up_on(doors: NativeDoors, data: bytes) -> None:
    client = await doors.open()
    async with client.connected() as connection:
        await connection.send(data)
        assert await connection.is_ended()
    assert doors.door.asked == []


async def test_a_message_that_is_too_long_is_refused_and_ends_the_connection(
    doors: NativeDoors,
) -> None:
    client = await doors.open()
    async with client.connected() as connection:
        await connection.send(Envelope(77, message_size_bytes=262_145).to_wire())
        (answer,) = await received(connection, 1)
        assert answer.response_code == ResponseCode.PROTOCOL_ERROR
        assert ids(answer) == [77]
        assert await connection.is_ended()


async def test_a_damaged_message_is_refused_and_the_connection_stays(doors: NativeDoors) -> None:
    client = await doors.open()
    whole = question(ITEM).to_wire()
    async with client.connected() as connection:
        answer = await connection.ask(whole[:44] + b"\x00\x00\xff\xff" + whole[48:])
        assert answer.response_code == ResponseCode.PROTOCOL_ERROR
        assert values_of(await connection.ask(question(ITEM)))


async def test_a_connection_on_which_nothing_is_asked_is_ended(
    doors: NativeDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NativeConnection, "idle_timeout_s", 0.2)
    client = await doors.open()
    async with client.connected() as connection:
        assert values_of(await connection.ask(question(ITEM)))
        assert await connection.is_ended()
    assert doors.refused("slow_client") == 0


async def test_a_message_that_does_not_come_to_its_end_ends_the_connection(
    doors: NativeDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NativeConnection, "message_timeout_s", 0.2)
    client = await doors.open()
    async with client.connected() as connection:
        await connection.send(question(ITEM).to_wire()[:-1])
        assert await connection.is_ended()
    assert doors.refused("slow_client") == 1
    assert doors.native.room.held_bytes == 0


async def test_a_client_that_takes_no_answers_is_cut(
    doors: NativeDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NativeConnection, "send_timeout_s", 0.3)
    client = await doors.open()
    loop = asyncio.get_running_loop()
    with socket.create_connection((client.host, client.port)) as silent:
        silent.setblocking(False)
        # Far more than the buffers of both ends take.
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await loop.sock_sendall(silent, question(LARGE).to_wire())
        await eventually(lambda: doors.refused("slow_client") == 1)
    await eventually(lambda: not doors.server.connections)
    await eventually(lambda: doors.native.room.held_bytes == 0)


async def test_a_client_that_is_slow_gets_everything(doors: NativeDoors) -> None:
    client = await doors.open()
    async with client.connected() as connection:
        for _ in range(100):
            connection.writer.write(question(LARGE).to_wire())
        for _ in range(100):
            (answer,) = await received(connection, 1)
            assert values_of(answer) == [LARGE_DATA] * 3
            await asyncio.sleep(0.001)
    assert doors.counts() == {FOUND: 100}


async def test_messages_that_wait_do_not_take_more_than_their_room(
    doors: NativeDoors,
) -> None:
    doors.native.room._size_bytes = 1_000
    client = await doors.open()
    begun = Envelope(1, message_size_bytes=5_000).to_wire()
    async with client.connected() as connection:
        await connection.send(begun + bytes(500))
        await eventually(lambda: doors.native.room.held_bytes == 520)
        async with client.connected() as other:
            await other.send(begun + bytes(500))
            assert await other.is_ended()
        assert doors.refused("in_flight") == 1
        assert doors.native.room.held_bytes == 520
    await eventually(lambda: doors.native.room.held_bytes == 0)


async def test_a_connection_too_many_is_ended_at_once(doors: NativeDoors) -> None:
    client = await doors.open()
    doors.server.tcp.seats._of_source = 2
    async with client.connected() as one, client.connected() as two:
        for connection in (one, two):
            assert values_of(await connection.ask(question(ITEM)))
        async with client.connected() as third:
            assert await third.is_ended()
        assert doors.refused("connections") == 1
        assert values_of(await two.ask(question(ITEM)))
    await eventually(lambda: doors.server.tcp.seats.taken == 0)
    assert values_of(await client.ask_tcp(question(ITEM)))


async def test_who_asks_too_often_is_told_so_and_stays(
    answering: Answering, tmp_path: Path
) -> None:
    doors = NativeDoors(answering, tmp_path, per_source=3, limits_loopback=True)
    client = await doors.open()
    async with client.connected() as connection:
        codes = [(await connection.ask(question(ITEM))).response_code for _ in range(5)]
        assert codes == [ResponseCode.SUCCESS] * 3 + [ResponseCode.SERVER_TOO_BUSY] * 2
        answering.after(10)
        assert values_of(await connection.ask(question(ITEM)))
    assert doors.counts() == {FOUND: 4, ("native_tcp", "refused"): 2}
    await doors.close()


async def test_a_stop_answers_who_is_in_and_who_waits_to_be(
    doors: NativeDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NativeConnection, "drain_idle_s", 0.3)
    client = await doors.open()
    async with client.connected() as busy, client.connected() as idle:
        await busy.ask(question(ITEM))
        await idle.ask(question(ITEM))
        doors.door.hold()
        await busy.send(question(OTHER_ITEM))
        await eventually(lambda: len(doors.door.asked) >= 2)
        doors.server.drain()
        # Asked after the stop has begun, and on a connection that is just made.
        assert values_of(await idle.ask(question(ITEM)))
        doors.door.let_go()
        async with client.connected() as late:
            assert values_of(await late.ask(question(ITEM)))
        (answer,) = await received(busy, 1)
        assert values_of(answer) == [f"{URL}/b".encode()]
        assert await busy.is_ended()
        assert await idle.is_ended()
    await doors.server.close()
    with pytest.raises(ConnectionRefusedError):
        await client.ask_tcp(question(ITEM))


async def test_a_stop_does_not_wait_for_ever_for_who_asks_without_a_pause(
    doors: NativeDoors,
) -> None:
    client = await doors.open()
    doors.server.drain_s = 0.3
    answered = 0
    async with client.connected() as busy:
        doors.server.drain()
        with contextlib.suppress(ConnectionError):
            while True:
                await busy.send(question(ITEM))
                if await busy.receive() is None:
                    break
                answered += 1
    await doors.server.close()
    assert answered > 0
    assert doors.counts() == {FOUND: answered}
