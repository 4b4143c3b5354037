"""Workers under load: replaced, killed, renewed and stopped, and what becomes of the callers."""

import asyncio
import contextlib
import os
import pty
import signal
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.busy_callers import BusyCallers
from tests.conftest import RunningNode, free_port, wait_for

EXAMPLE = "/api/handles/88.608.1001/00041250500735"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Pair:
    """A node of two workers that also serves HTTPS."""

    node: RunningNode
    https_port: int
    certificate: Path
    key: Path

    @property
    def pid(self) -> int:
        assert self.node.process is not None
        return self.node.process.pid

    def said(self, text: str) -> int:
        """How often the node said `text` so far."""
        return self.node.output_file.read_text().count(text)

    def replaced(self) -> None:
        """Send a SIGHUP, and return when every worker was replaced."""
        before = self.said("the workers were replaced")
        os.kill(self.pid, signal.SIGHUP)
        self.wait(lambda: self.said("the workers were replaced") > before)

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_for(condition, PATIENCE_S, self.node.output_file.read_text)

    def is_https_alive(self, trust: ssl.SSLContext) -> bool:
        """Whether the node is healthy over HTTPS."""
        url = f"https://127.0.0.1:{self.https_port}/health"
        return httpx.get(url, verify=trust).is_success

    def callers(self, tls: ssl.SSLContext | None = None) -> BusyCallers:
        body = httpx.get(f"{self.node.url}{EXAMPLE}").content
        port = self.node.port if tls is None else self.https_port
        return BusyCallers(port, EXAMPLE, body, tls)

    def trust(self) -> ssl.SSLContext:
        """What a client needs that trusts the certificate and nothing else."""
        return ssl.create_default_context(cafile=self.certificate)


@pytest.fixture(scope="module")
def pair(scratch: Path) -> Iterator[Pair]:
    folder = scratch / f"pair-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    certificate, key, https_port = folder / "cert.pem", folder / "key.pem", free_port()
    make_certificate(certificate, key)
    environment = {
        "IDNODE_WORKERS": "2",
        "IDNODE_HTTPS": f"127.0.0.1:{https_port}",
        "IDNODE_TLS_CERT": str(certificate),
        "IDNODE_TLS_KEY": str(key),
    }
    node = RunningNode(folder / "data", free_port(), environment)
    node.start()
    yield Pair(node, https_port, certificate, key)
    node.stop()


def make_certificate(certificate: Path, key: Path) -> None:
    """A certificate of `localhost`, signed by itself."""
    words = ["openssl", "req", "-x509", "-nodes", "-days", "7"]
    words += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*words, *names, "-out", certificate, "-keyout", key],
        check=True,
        capture_output=True,
    )


def workers(pid: int) -> set[int]:
    """The workers of the node with this process."""
    found = set()
    for child in psutil.Process(pid).children():
        # One that has just ended has no command line any more.
        with contextlib.suppress(psutil.Error):
            found |= {child.pid} if "worker" in child.cmdline() else set()
    return found


def counted(node: RunningNode) -> int:
    page = httpx.get(f"{node.url}/metrics").text
    lines = [line for line in page.splitlines() if line.startswith("idnode_resolutions_total")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


async def test_sighup_replaces_every_worker_and_no_caller_notices(pair: Pair) -> None:
    before, callers = workers(pair.pid), pair.callers()
    assert len(before) == 2
    already = counted(pair.node)
    callers.begin(lasting=16, short=4)
    await callers.answers(200)
    await asyncio.to_thread(pair.replaced)
    await callers.answers(200)
    await callers.end()
    assert (callers.refused, callers.broken, callers.wrong) == ([], [], [])
    assert callers.closes >= 1
    assert len(workers(pair.pid)) == 2
    assert not workers(pair.pid) & before
    assert callers.sent == callers.answered
    # The last counts of a worker that has gone are read with the next look at the ledger.
    pair.wait(lambda: counted(pair.node) == already + callers.answered)


def test_what_is_asked_during_a_replacement_is_done_once_more(pair: Pair) -> None:
    begun, done = pair.said("one by one"), pair.said("the workers were replaced")
    os.kill(pair.pid, signal.SIGHUP)
    pair.wait(lambda: pair.said("one by one") == begun + 1)
    for _ in range(2):
        os.kill(pair.pid, signal.SIGHUP)
    pair.wait(lambda: pair.said("the workers were replaced") == done + 2)
    assert pair.said("one by one") == begun + 2


async def test_a_killed_worker_is_replaced_and_callers_are_served_again(pair: Pair) -> None:
    before, callers = workers(pair.pid), pair.callers()
    callers.begin(lasting=16)
    await callers.answers(200)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    await asyncio.to_thread(pair.wait, lambda: len(workers(pair.pid) - {victim}) == 2)
    await callers.answers(200)
    await callers.end()
    # Whoever was on the other worker, and whoever connected meanwhile, lost nothing.
    assert len(callers.broken) <= 16
    assert (callers.refused, callers.wrong) == ([], [])
    again = pair.callers()
    again.begin(lasting=4, short=4)
    await again.answers(200)
    await again.end()
    assert (again.refused, again.broken, again.wrong) == ([], [], [])


async def test_https_gives_the_same_answers(pair: Pair) -> None:
    callers = pair.callers(pair.trust())
    callers.begin(lasting=2, short=2)
    await callers.answers(50)
    await callers.end()
    assert (callers.refused, callers.broken, callers.wrong) == ([], [], [])


async def test_sighup_takes_a_new_certificate_and_no_caller_of_https_notices(pair: Pair) -> None:
    old = pair.trust()
    make_certificate(pair.certificate, pair.key)
    both = pair.trust()
    both.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(old.get_ca_certs(True)[0]))
    callers = pair.callers(both)
    callers.begin(lasting=4, short=1)
    await callers.answers(50)
    await asyncio.to_thread(pair.replaced)
    await callers.answers(50)
    await callers.end()
    assert (callers.refused, callers.broken, callers.wrong) == ([], [], [])
    assert pair.is_https_alive(pair.trust())


async def test_workers_go_on_when_new_ones_cannot_start(pair: Pair) -> None:
    before, good = workers(pair.pid), pair.certificate.read_bytes()
    trust, callers = pair.trust(), pair.callers()
    pair.certificate.write_text("no certificate")
    try:
        callers.begin(lasting=4, short=2)
        os.kill(pair.pid, signal.SIGHUP)
        await asyncio.to_thread(pair.wait, lambda: pair.said("worker 0 was not replaced") == 1)
        await callers.answers(100)
        await callers.end()
    finally:
        pair.certificate.write_bytes(good)
    assert workers(pair.pid) == before
    assert (callers.refused, callers.broken, callers.wrong) == ([], [], [])
    assert pair.is_https_alive(trust)
    log = (pair.node.data / "logs/worker.log").read_text()
    assert "IDNODE_TLS_CERT" in log
    assert "Traceback" not in log


async def test_sigterm_loses_nothing_that_was_accepted(pair: Pair) -> None:
    plain, safe = pair.callers(), pair.callers(pair.trust())
    already = counted(pair.node)
    plain.begin(lasting=12, short=6)
    safe.begin(lasting=4, short=1)
    await plain.answers(300)
    os.kill(pair.pid, signal.SIGTERM)
    assert pair.node.process is not None
    assert await asyncio.to_thread(pair.node.process.wait, PATIENCE_S) == 0
    await plain.end()
    await safe.end()
    assert (plain.broken, plain.wrong, safe.broken, safe.wrong) == ([], [], [], [])
    assert plain.closes >= 1
    assert processes_of(pair.node) == []
    pair.node.start()
    ledger = counted(pair.node) - already
    assert ledger == plain.answered + safe.answered == plain.sent + safe.sent


def processes_of(node: RunningNode) -> list[str]:
    done = subprocess.run(["pgrep", "-af", str(node.data)], capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if "pgrep" not in line]


def test_a_closed_terminal_ends_the_node_and_a_sent_sighup_does_not(own_node: RunningNode) -> None:
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        # The program becomes the leader of a session whose terminal this is, also where the tests
        # run under nohup.
        [
            "env",
            "--default-signal=HUP",
            "setsid",
            "--ctty",
            sys.executable,
            "-m",
            "node",
            "up",
            "--workers",
            "2",
        ],
        env=own_node.environment_for_test(),
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    try:
        wait_for(lambda: own_node.data.joinpath("run.json").exists(), PATIENCE_S)
        before = workers(process.pid)
        assert len(before) == 2
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: not workers(process.pid) & before, PATIENCE_S)
        assert httpx.get(f"{own_node.url}{EXAMPLE}").is_success
    finally:
        os.close(terminal)
        code = process.wait(PATIENCE_S)
    assert code == 0
    assert processes_of(own_node) == []
