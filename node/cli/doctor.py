"""`idnode doctor`: every dependency, limit and clock, with what to do."""

from importlib import import_module

import typer

from node.cli.context import Json, desk_of


def doctor(context: typer.Context, as_json: Json = False) -> None:
    # Loaded when needed: the clients of the stores would slow the start of every command.
    import_module("node.cli.diagnosis").diagnose(desk_of(context), as_json)
