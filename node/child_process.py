"""Child processes that never outlive the supervisor."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from node.unprivileged import Account

# Source: linux/prctl.h.
_PR_SET_PDEATHSIG = 1
# Loaded before any fork: a child between fork and exec must not open libraries.
_PRCTL: Callable[..., int] | None = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_EXIT_CODE_ORPHAN = 125


class ChildProcess:
    """A program that the supervisor started and ends. Start it from the main thread only:
    the kernel sends the death signal when the *thread* that started it ends.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        log_file: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: Account | None = None,
        pass_fds: Sequence[int] = (),
        death_signal: signal.Signals = signal.SIGTERM,
        stdin: bytes = b"",
    ) -> "ChildProcess":
        """Start a program in a session of its own, so that Ctrl-C reaches the supervisor alone.

        Its output is appended to `log_file`; None shares ours. `stdin` is all its input.
        `death_signal` is what it gets when this process dies (Linux; elsewhere nothing).

        Raises:
            OSError, subprocess.SubprocessError: it cannot be started.
        """
        parent_pid = os.getpid()
        with contextlib.ExitStack() as stack:
            log = None if log_file is None else stack.enter_context(_opened(log_file))
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=cwd,
                pass_fds=pass_fds,
                start_new_session=True,
                # Not the arguments user and group: uvloop does not know them.
                preexec_fn=lambda: _before_exec(account, death_signal, parent_pid),
            )
        child = cls(process)
        await child._feed(stdin)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the signal that killed it, or None while it lives."""
        return self._process.returncode

    async def wait(self) -> int:
        """The exit code, once the process has ended."""
        return await self._process.wait()

    def send(self, signal_: signal.Signals) -> None:
        """Send a signal; a process that has ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal_)

    async def stop(self, signal_: signal.Signals, patience_s: float) -> int:
        """The exit code after `signal_`, or after SIGKILL when `patience_s` have passed."""
        self.send(signal_)
        try:
            return await asyncio.wait_for(self.wait(), patience_s)
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.wait()

    async def _feed(self, data: bytes) -> None:
        if self._process.stdin is None:
            return
        # A program that died early says why in its log, not here.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        self._process.stdin.close()


@contextlib.contextmanager
def _opened(log_file: Path) -> Iterator[int]:
    descriptor = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _before_exec(account: Account | None, death_signal: signal.Signals, parent_pid: int) -> None:
    """Runs in the child. The kernel forgets the death signal when the user changes: so last."""
    if account is not None:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    # The parent died before the call above: nobody would ever end us.
    if os.getppid() != parent_pid:
        os._exit(_EXIT_CODE_ORPHAN)
