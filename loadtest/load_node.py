"""The node that a load test asks: one that runs already, or its own in a temporary folder."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from loadtest.killing import READY_WITHIN_S
from loadtest.ports import free_port

# As long as one answer may take; the metrics page of a busy node is the slowest.
ANSWER_WITHIN_S = 30.0
# A command of the command line; registering takes a second for some 50,000 rows.
COMMAND_WITHIN_S = 600.0
STOP_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.1
# The end of what a command or a node has said: where the reason is.
_SHOWN_CHARACTERS_MAX = 2_000
# Settings that would lead a node of our own into somebody's real stores.
_PLACES = (
    *("IDNODE_POSTGRES_URL", "IDNODE_REDIS_URL", "IDNODE_OPERATOR_KEY_FILE", "IDNODE_NODE_PREFIX"),
    *("IDNODE_HTTPS", "IDNODE_TLS_CERT", "IDNODE_TLS_KEY", "IDNODE_TRUSTED_PROXIES"),
)
# What a node says it listens on when it listens everywhere, and where it is asked then.
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class LoadError(Exception):
    """The load test cannot be run; says what is missing and what to do."""


@dataclass(frozen=True)
class LoadNode:
    """A running node; `environment` is what the command line finds it by."""

    url: str
    environment: dict[str, str] = field(repr=False)

    def cli(self, *words: str) -> Any:
        """What a command answers with `--json`.

        Raises:
            LoadError: with what the command said, if it did not succeed.
        """
        done = subprocess.run(
            [sys.executable, "-m", "node", *words, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-_SHOWN_CHARACTERS_MAX:]
            raise LoadError(f"idnode {words[0]} {words[1]} failed: {said}")
        return json.loads(done.stdout)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; the status is 0 if nobody answers."""
        return ask(urllib.request.Request(f"{self.url}{path}"))

    def is_ready(self) -> bool:
        return self.get("/ready")[0] == 200

    def counted(self, caller_class: str = "") -> int:
        """Resolutions by all callers, or by those of one class, as the metrics page has them."""
        status, page = self.get("/metrics")
        if status != 200:
            raise LoadError(f"{self.url}/metrics: HTTP {status}, expected 200")
        wanted = f'caller_class="{caller_class}"' if caller_class else ""
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in page.decode().splitlines()
            if line.startswith("idnode_resolutions_total{") and wanted in line
        )


def ask(request: urllib.request.Request) -> tuple[int, bytes]:
    """Status and body of an answer; the status is 0 if there was none."""
    # A proxy of the environment knows nothing of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_WITHIN_S) as answer:
            return int(answer.status), bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, HTTPException):
        return 0, b""


def running_node(data: Path) -> LoadNode | None:
    """The node that runs on a data folder, None if there is none."""
    try:
        http = str(json.loads((data / "run.json").read_text("utf-8"))["http"])
    except (OSError, ValueError, KeyError):
        return None
    host, _, port = http.rpartition(":")
    environment = {**os.environ, "IDNODE_DATA": str(data), "IDNODE_LANG": "en"}
    node = LoadNode(f"http://{_ANYWHERE.get(host, host)}:{port}", environment)
    return node if node.is_ready() else None


@contextmanager
def own_node(folder: Path) -> Iterator[LoadNode]:
    """A node with stores of its own in `folder`, ready; it is stopped at the end.

    Raises:
        LoadError: with what it said, if it does not start.
    """
    folder.chmod(0o711)  # the stores of a node of root run as another user
    port = free_port()
    kept = {name: text for name, text in os.environ.items() if name not in _PLACES}
    places = {"IDNODE_DATA": str(folder / "data"), "IDNODE_HTTP": f"127.0.0.1:{port}"}
    node = LoadNode(f"http://127.0.0.1:{port}", {**kept, **places, "IDNODE_LANG": "en"})
    with (folder / "node.out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "node", "up"],
            env=node.environment,
            stdout=out,
            stderr=out,
            # Ctrl-C stops the users first.
            start_new_session=True,
        )
    try:
        _wait_ready(node, process, folder / "node.out")
        yield node
    finally:
        _stop(process)


def _wait_ready(node: LoadNode, process: "subprocess.Popen[bytes]", out: Path) -> None:
    until_s = time.monotonic() + READY_WITHIN_S
    while not node.is_ready():
        if process.poll() is not None or time.monotonic() > until_s:
            said = out.read_text("utf-8", "replace")[-_SHOWN_CHARACTERS_MAX:]
            raise LoadError(f"the node did not start within {READY_WITHIN_S:.0f} s: {said}")
        time.sleep(_LOOK_EVERY_S)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
