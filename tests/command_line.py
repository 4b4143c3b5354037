"""The command line run in this process, and what came of it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.cli import run


class Ended:
    """How a command ended and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        """What it said as JSON."""
        return json.loads(self.out)


Idnode = Callable[..., Ended]


def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> Idnode:
    """What runs a command, in English, in an environment with nothing but a data folder."""
    # What the developer has set must not reach the tests.
    for name in [name for name in os.environ if name.startswith("IDNODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IDNODE_DATA", str(data))
    monkeypatch.setenv("IDNODE_LANG", "en")

    def run_it(*words: str) -> Ended:
        capsys.readouterr()
        code = run(words)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run_it
