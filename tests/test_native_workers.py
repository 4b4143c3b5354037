"""Native callers of whole nodes: workers replaced and killed, ports taken, certificates made."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from resolver.response_code import ResponseCode
from resolver.wire import Message
from tests.conftest import RunningNode, free_port, wait_for
from tests.native_client import PATIENCE_S, Connection, NativeClient, question
from tests.test_supervision import workers

ITEM = "88.608.1001/00041250500735"
START_PATIENCE_S = 60.0


class Callers:
    """Clients that ask without end, each over one transport, until they are told to stop.

    `lost` are questions that nobody answered; who asked over a connection that was ended meanwhile
    asks again, as pools of clients do.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answered = dict.fromkeys(("udp", "one-shot", "kept"), 0)
        self.sent = dict.fromkeys(self.answered, 0)
        self.lost: list[str] = []
        self.wrong: list[int] = []
        self.refused = 0

    def begin(self, number: int) -> None:
        """Let so many ask over each transport."""
        for ask in (self._over_udp, self._one_shot, self._kept):
            self._tasks += [asyncio.create_task(ask()) for _ in range(number)]

    async def answers(self, number: int) -> None:
        """Return once each transport has brought so many more answers."""
        wanted = {way: count + number for way, count in self.answered.items()}
        async with asyncio.timeout(START_PATIENCE_S):
            while True:
                if all(self.answered[way] >= count for way, count in wanted.items()):
                    return
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Finish what was asked."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Give up: the node goes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _note(self, way: str, answer: Message | None) -> None:
        if answer is None:
            self.lost.append(way)
            return
        self.answered[way] += 1
        if answer.response_code != ResponseCode.SUCCESS:
            self.wrong.append(answer.response_code)

    async def _over_udp(self) -> None:
        with NativeClient(self._port) as client:
            while not self._is_over:
                await client.send_udp(question(ITEM))
                self.sent["udp"] += 1
                data = await client.receive_udp()
                self._note("udp", None if data is None else Message.from_wire(data))

    async def _one_shot(self) -> None:
        with NativeClient(self._port) as client:
            while not self._is_over:
                try:
                    async with client.connected() as connection:
                        self.sent["one-shot"] += 1
                        await connection.send(question(ITEM))
                        data = await connection.receive()
                except ConnectionRefusedError:
                    self.refused += 1
                    return
                self._note("one-shot", None if data is None else Message.from_wire(data))

    async def _kept(self) -> None:
        with NativeClient(self._port) as client:
            while not self._is_over:
                try:
                    async with client.connected() as connection:
                        await self._ask_until_the_end(connection)
                except ConnectionRefusedError:
                    self.refused += 1
                    return

    async def _ask_until_the_end(self, connection: Connection) -> None:
        while not self._is_over:
            with contextlib.suppress(ConnectionError):
                await connection.send(question(ITEM))
                self.sent["kept"] += 1
                data = await connection.receive()
                if data is not None:
                    self._note("kept", Message.from_wire(data))
                    continue
            return  # it was ended meanwhile: asked again on the next one


@pytest.fixture(scope="module")
def pair(scratch: Path) -> Iterator[RunningNode]:
    """A node of two workers."""
    folder = scratch / f"native-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    environment = {"IDNODE_WORKERS": "2", "IDNODE_HANDLE": f"127.0.0.1:{free_port()}"}
    node = RunningNode(folder / "data", free_port(), environment)
    node.start()
    yield node
    node.stop()


def port_of(node: RunningNode) -> int:
    return int(node.environment["IDNODE_HANDLE"].rpartition(":")[2])


def process_of(node: RunningNode) -> int:
    assert node.process is not None
    return node.process.pid


def counted(node: RunningNode, channel: str) -> int:
    """How many questions were counted in a channel, found or not."""
    page = httpx.get(f"{node.url}/metrics").text.splitlines()
    lines = [line for line in page if line.startswith("idnode_resolutions_total")]
    found = [line for line in lines if f'channel="{channel}"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in found)


def is_counted(node: RunningNode, callers: Callers) -> bool:
    """Whether everything that was answered is in the books, and nothing that was not asked."""
    over_tcp = ("one-shot", "kept")
    answered, sent = (
        sum(numbers[way] for way in over_tcp) for numbers in (callers.answered, callers.sent)
    )
    is_udp = counted(node, "native_udp") == callers.answered["udp"] == callers.sent["udp"]
    return is_udp and answered <= counted(node, "native_tcp") <= sent


async def test_sighup_replaces_every_worker_and_no_native_caller_notices(
    pair: RunningNode,
) -> None:
    pid = process_of(pair)
    before, callers = workers(pid), Callers(port_of(pair))
    callers.begin(3)
    await callers.answers(100)
    os.kill(pid, signal.SIGHUP)
    said = pair.output_file
    await asyncio.to_thread(
        wait_for, lambda: "the workers were replaced" in said.read_text(), START_PATIENCE_S
    )
    await callers.answers(100)
    await callers.end()
    assert (callers.lost, callers.wrong, callers.refused) == ([], [], 0)
    assert not workers(pid) & before
    assert len(workers(pid)) == 2
    await asyncio.to_thread(wait_for, lambda: is_counted(pair, callers), PATIENCE_S)


async def test_a_killed_worker_is_replaced_and_native_callers_are_served_again(
    pair: RunningNode,
) -> None:
    pid = process_of(pair)
    before, callers = workers(pid), Callers(port_of(pair))
    os.kill(min(before), signal.SIGKILL)
    await asyncio.to_thread(
        wait_for, lambda: len(workers(pid) - {min(before)}) == 2, START_PATIENCE_S
    )
    # Whoever asks meanwhile waits in the sockets of the dead one.
    callers.begin(4)
    await callers.answers(50)
    await callers.end()
    assert (callers.lost, callers.wrong, callers.refused) == ([], [], 0)


async def test_sigterm_ends_a_node_with_native_callers(pair: RunningNode) -> None:
    callers = Callers(port_of(pair))
    callers.begin(2)
    await callers.answers(50)
    children = psutil.Process(process_of(pair)).children(recursive=True)
    os.kill(process_of(pair), signal.SIGTERM)
    assert pair.process is not None
    assert await asyncio.to_thread(pair.process.wait, START_PATIENCE_S) == 0
    await callers.stop()
    assert callers.wrong == []
    assert not [child for child in children if child.is_running()]
    log = (pair.data / "logs/worker.log").read_text()
    assert "Traceback" not in log
    pair.start()
    assert counted(pair, "native_udp") >= callers.answered["udp"]


@pytest.mark.parametrize("transport", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_was_chosen_and_is_taken_keeps_the_node_from_starting(
    own_node: RunningNode, transport: int
) -> None:
    with socket.socket(socket.AF_INET, transport) as taken:
        taken.bind(("127.0.0.1", 0))
        if transport == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        own_node.environment["IDNODE_HANDLE"] = f"127.0.0.1:{port}"
        done = subprocess.run(
            [sys.executable, "-m", "node", "up"],
            env=own_node.environment_for_test(), capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode != 0
    line = f"127.0.0.1:{port} is taken by another program: choose another, such as IDNODE_HANDLE="
    assert line in done.stdout + done.stderr


def test_a_port_that_nobody_chose_and_is_taken_leaves_the_protocol_out(
    own_node: RunningNode,
) -> None:
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        # If another node has it, it is taken as well.
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", 2641))
            taken.listen()
        own_node.environment["IDNODE_HANDLE"] = ""
        own_node.start()
    said = own_node.output_file.read_text()
    assert "127.0.0.1:2641 is taken by another program" in said
    assert "the node starts without the Handle protocol" in said
    response = httpx.post(
        f"{own_node.url}/0",
        content=question(ITEM).to_wire(),
        headers={"content-type": "application/x-hdl-message"},
    )
    assert Message.from_wire(response.content).response_code == ResponseCode.SUCCESS


def test_https_without_files_has_a_certificate_that_stays(own_node: RunningNode) -> None:
    port = free_port()
    own_node.environment["IDNODE_HTTPS"] = f"127.0.0.1:{port}"
    own_node.environment["IDNODE_HANDLE"] = "off"
    own_node.start()
    trust = ssl.create_default_context(cafile=own_node.data / "tls.pem")
    for name in ("127.0.0.1", "localhost"):
        assert httpx.get(f"https://{name}:{port}/health", verify=trust).is_success
    assert (own_node.data / "tls.key").stat().st_mode & 0o777 == 0o600
    own_node.stop()
    own_node.start()
    assert httpx.get(f"https://127.0.0.1:{port}/health", verify=trust).is_success
    assert "Handle          -" in own_node.output_file.read_text()
