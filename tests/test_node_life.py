"""The life of a node as a user sees it: start, stop, start again, and what stands in the way."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from loadtest.killing import Node, kill_rounds
from tests.conftest import RunningNode, free_port, wait_for

EXAMPLE = "88.608.1001/00041250500735"


def test_a_second_start_keeps_the_data_and_the_counts(own_node: RunningNode) -> None:
    own_node.start()
    headers = {"Authorization": f"Bearer {own_node.operator_key}"}
    url = f"{own_node.url}/api/handles/88.608.1001/KEPT"
    values = [{"index": 1, "type": "NAME", "data": "保留"}]
    assert httpx.put(url, json=values, headers=headers).status_code == 201
    assert httpx.get(f"{own_node.url}/api/handles/{EXAMPLE}").status_code == 200
    before = counted(own_node)
    assert own_node.stop() == 0
    assert "Stopped" in own_node.output
    assert "Traceback" not in own_node.output
    own_node.start()
    assert counted(own_node) == before
    assert httpx.get(url).json()["values"][0]["data"]["value"] == "保留"
    assert counted(own_node) == before + 1


def counted(node: RunningNode) -> int:
    page = httpx.get(f"{node.url}/metrics").text
    return sum(
        int(float(line.rsplit(" ", 1)[1]))
        for line in page.splitlines()
        if line.startswith("idnode_resolutions_total")
    )


def test_a_stopped_node_leaves_no_process_behind(own_node: RunningNode) -> None:
    own_node.start()
    own_node.stop()
    assert processes_of(own_node) == []


def test_a_killed_node_leaves_no_process_behind(own_node: RunningNode) -> None:
    own_node.start()
    own_node.kill()
    wait_for(lambda: processes_of(own_node) == [], 20)


def processes_of(node: RunningNode) -> list[str]:
    done = subprocess.run(
        ["pgrep", "-af", str(node.data)], capture_output=True, text=True, check=False
    )
    return [line for line in done.stdout.splitlines() if "pgrep" not in line]


def test_a_second_instance_on_the_same_folder_gets_one_line(own_node: RunningNode) -> None:
    own_node.start()
    second = RunningNode(own_node.data, free_port())
    done = second.cli("up", check=False)
    assert done.returncode == 1
    assert own_node.process is not None
    assert_one_line(done.stderr, "is in use by", str(own_node.process.pid))
    assert httpx.get(f"{own_node.url}/ready").status_code == 200


def test_a_taken_port_gets_one_line(own_node: RunningNode) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", own_node.port))
        taken.listen()
        done = own_node.cli("up", check=False)
    assert done.returncode == 1
    assert_one_line(done.stderr, f"127.0.0.1:{own_node.port} is taken", "IDNODE_HTTP=")


def test_a_folder_that_cannot_be_written_gets_one_line(scratch: Path) -> None:
    occupied = scratch / "occupied"
    occupied.write_text("a file, not a folder")
    done = RunningNode(occupied, free_port()).cli("up", check=False)
    assert done.returncode == 1
    assert_one_line(done.stderr, str(occupied))


def test_a_full_disk_gets_one_line(scratch: Path) -> None:
    disk = scratch / "small-disk"
    disk.mkdir()
    if not mounted(disk, "size=8m"):
        pytest.skip("mounting a small disk needs root; as root this test runs")
    try:
        done = RunningNode(disk / "data", free_port()).cli("up", check=False)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 1
    assert_one_line(done.stderr, "MB", str(disk))


def test_a_read_only_disk_gets_one_line(scratch: Path) -> None:
    disk = scratch / "read-only-disk"
    disk.mkdir()
    if not mounted(disk, "ro"):
        pytest.skip("mounting a disk needs root; as root this test runs")
    try:
        done = RunningNode(disk / "data", free_port()).cli("up", check=False)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 1
    assert_one_line(done.stderr, "read-only", str(disk))


def mounted(folder: Path, options: str) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(words, check=False).returncode == 0


def assert_one_line(text: str, *parts: str) -> None:
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    for part in parts:
        assert part in lines[0]


def test_ctrl_c_during_the_first_start_stops_cleanly(own_node: RunningNode) -> None:
    output = own_node.data.with_suffix(".out")
    with output.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "node", "up"],
            env=own_node.environment_for_test(),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    wait_for(lambda: own_node.data.exists(), 20)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in (0, 130)
    assert "Traceback" not in output.read_text()
    wait_for(lambda: processes_of(own_node) == [], 20)
    own_node.start()
    assert httpx.get(f"{own_node.url}/api/handles/{EXAMPLE}").status_code == 200


async def test_kills_of_any_process_under_load_lose_and_invent_nothing(scratch: Path) -> None:
    folder = scratch / "killing"
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    node = Node(folder / "data", free_port())
    node.start()
    try:
        result = await kill_rounds(node, rounds=20, seed=20, load_s=0.7)
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)
    assert result["acknowledged"] > 0
    assert result["answered"] <= result["ledger"] <= result["sent"]
