"""`idnode up`, `idnode serve` and the worker that they start."""

from importlib import import_module
from typing import Annotated

import typer

from node.cli.context import Json, desk_of

# Loaded when needed: the server's libraries would slow every other command by half a second.
_LIFECYCLE = "node.lifecycle"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("up", help="cmd.up")(up)
    app.command("serve", help="cmd.serve")(serve)
    app.command("worker", help="cmd.worker", hidden=True)(worker)


def up(context: typer.Context, as_json: Json = False) -> None:
    import_module(_LIFECYCLE).up(desk_of(context).config)


def serve(context: typer.Context, as_json: Json = False) -> None:
    import_module(_LIFECYCLE).serve(desk_of(context).config)


def worker(
    context: typer.Context,
    fd: Annotated[int, typer.Argument(metavar="FD", help="arg.worker.fd")],
    as_json: Json = False,
) -> None:
    import_module(_LIFECYCLE).worker(desk_of(context).config, fd)
