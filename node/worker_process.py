"""A worker as its supervisor sees it: a child on inherited sockets that says when it answers."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from socket import socket

from node.child_process import ChildProcess
from node.http_server import DRAIN_S

# What a worker writes into its pipe when it answers.
READY = b"r"
# Its drain, and a few seconds for its last counts.
WORKER_PATIENCE_S = DRAIN_S + 5.0
# A worker that is just starting answers who waits on its socket before it ends.
START_PATIENCE_S = 5.0


class WorkerProcess:
    """One child process of `idnode worker`."""

    def __init__(self, process: ChildProcess, said: "asyncio.Future[bool]", began_s: float) -> None:
        self._process = process
        self._said = said
        self.began_s = began_s

    @classmethod
    async def start(
        cls, sockets: Mapping[str, socket], env: Mapping[str, str], log_file: Path
    ) -> "WorkerProcess":
        """Start a worker that serves on these sockets: `http`, and others by their options.

        Raises:
            OSError, subprocess.SubprocessError: it cannot be started.
        """
        reading, writing = os.pipe()
        descriptors = {name: one.fileno() for name, one in sockets.items()} | {"ready": writing}
        words = [str(descriptors["http"])]
        for name, descriptor in descriptors.items():
            words += [] if name == "http" else [f"--{name}", str(descriptor)]
        try:
            process = await ChildProcess.spawn(
                [sys.executable, "-m", "node", "worker", *words],
                log_file=log_file,
                env=env,
                pass_fds=tuple(descriptors.values()),
                death_signal=signal.SIGTERM,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return cls(process, _first_word(reading), asyncio.get_running_loop().time())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """The exit code, once the process has ended."""
        return await self._process.wait()

    async def is_ready(self, within_s: float) -> bool:
        """Whether the worker answers within `within_s`; False as soon as it has ended."""
        await asyncio.wait([self._said], timeout=within_s)
        return self._said.done() and self._said.result()

    async def stop(self) -> None:
        """Let it answer what it accepted, and end."""
        # Before it listens for signals, one would end it with callers waiting on its socket.
        await self.is_ready(START_PATIENCE_S)
        await self._process.stop(signal.SIGTERM, WORKER_PATIENCE_S)


def _first_word(descriptor: int) -> "asyncio.Future[bool]":
    """Whether the first word of a pipe is that the worker is ready; its end means that it died."""
    loop = asyncio.get_running_loop()
    said: asyncio.Future[bool] = loop.create_future()

    def read() -> None:
        loop.remove_reader(descriptor)
        word = os.read(descriptor, len(READY))
        os.close(descriptor)
        said.set_result(word == READY)

    loop.add_reader(descriptor, read)
    return said
