"""Programs of a benchmark: which are there, on which core they run, how they begin and end."""

import http.client
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.bench_figures import BenchError

# A new embedded database is made within seconds; a busy machine takes longer.
_READY_WITHIN_S = 120.0
# A node gives its callers 10 s to take their answers, and its stores some more to write.
_STOP_WITHIN_S = 60.0
_ANSWER_WITHIN_S = 10.0
_PAUSE_S = 0.05
# The end of what a program has said that failed: where the reason is.
_SHOWN_CHARACTERS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of the server under test, and the core of wrk and the stores; None: any."""

    server: int | None
    client: int | None

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """One core for each side, where there are two and `taskset` can give them."""
        if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
            return cls(None, None)
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[-1]) if len(cores) > 1 else cls(None, None)


def on_core(core: int | None) -> list[str]:
    """What stands before a command that is to stay on one core with its children."""
    return [] if core is None else ["taskset", "-c", str(core)]


def program(name: str) -> str | None:
    """The path of an installed program; servers of the system are often outside the PATH."""
    folders = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin")
    return shutil.which(name, path=os.pathsep.join(folders))


def printed(name: str, words: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a Python module prints that runs to its end: its name and its options are `words`.

    Raises:
        BenchError: says that `name` failed, and why.
    """
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-_SHOWN_CHARACTERS_MAX:]
        raise BenchError(f"{name} ended with {done.returncode}: {said}")
    return done.stdout


class Program:
    """A program that runs until it is told to stop."""

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._log = log
        self._stop_signal = stop_signal
        self._name = Path(words[-1]).name if len(words) == 1 else " ".join(words[:6])
        with log.open("ab") as out:
            # A session of its own: Ctrl-C ends the benchmark, which then ends this in its turn.
            self._process = subprocess.Popen(
                words, env=environment, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, is_ready: Callable[[], bool]) -> None:
        """Return once `is_ready` holds.

        Raises:
            BenchError: if the program ended instead, or is not ready in time.
        """
        until_s = time.monotonic() + _READY_WITHIN_S
        while not is_ready():
            if self._process.poll() is not None:
                raise BenchError(f"{self._name} ended with {self._process.returncode}{self._why()}")
            if time.monotonic() > until_s:
                raise BenchError(f"{self._name} not ready in {_READY_WITHIN_S:g} s{self._why()}")
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """End it, at last by force; safe to call twice."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _why(self) -> str:
        text = self._log.read_text("utf-8", "replace").strip()
        return f": {text.splitlines()[-1]}" if text else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to one request; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    url: str, path: str, headers: Mapping[str, str] | None = None, body: str | None = None
) -> Answer:
    """One question over a connection of its own; a certificate is not checked.

    Raises:
        BenchError: if no answer came.
    """
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            parts.netloc, timeout=_ANSWER_WITHIN_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=_ANSWER_WITHIN_S)
    try:
        connection.request("GET" if body is None else "POST", path, body, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"{url}{path} gave no answer: {error}") from None
    finally:
        connection.close()


def answers(url: str, path: str, status: int) -> bool:
    """True if `path` is answered with `status` now."""
    try:
        return ask(url, path).status == status
    except BenchError:
        return False
