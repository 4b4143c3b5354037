"""What SIGHUP means: that the terminal was closed, or that the workers are to be replaced."""

import contextlib
import errno
import os
import signal
import termios


class Hangup:
    """Knows how the process was started: look at it before any handler is set.

    The kernel sends SIGHUP when a terminal is closed, and takes it away from every process of
    its session; who sends it with `kill` leaves the terminal where it is. A process that never
    had one (systemd, a container) is always meant by somebody. So is one under `nohup`, which
    asked not to be ended by a terminal.
    """

    def __init__(self) -> None:
        is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._ends_with_terminal = _has_terminal() and not is_ignored

    def was_the_terminal(self) -> bool:
        """Whether a SIGHUP that just came means that the terminal is gone.

        Then what is still said goes nowhere, instead of failing.
        """
        is_gone = self._ends_with_terminal and not _has_terminal()
        if is_gone:
            _say_nothing_more()
        return is_gone


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _say_nothing_more() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        # Only what was the terminal: a log file goes on being written.
        with contextlib.suppress(OSError):
            if os.isatty(descriptor) or _is_hung_up(descriptor):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _is_hung_up(descriptor: int) -> bool:
    """True for a terminal that is gone, which is none any more when asked."""
    try:
        termios.tcgetattr(descriptor)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return False
