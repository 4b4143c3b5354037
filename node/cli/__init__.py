"""The command line `idnode`: every command, in Chinese and English."""

from node.cli.program import main, run

__all__ = ["main", "run"]
