"""`idnode up`, `idnode serve` and the worker that they start."""

from typing import Annotated

import typer

import node.lifecycle as lifecycle
from node.cli.context import Json, desk_of


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("up", help="cmd.up")(up)
    app.command("serve", help="cmd.serve")(serve)
    app.command("worker", help="cmd.worker", hidden=True)(worker)


def up(context: typer.Context, as_json: Json = False) -> None:
    lifecycle.up(desk_of(context).config)


def serve(context: typer.Context, as_json: Json = False) -> None:
    lifecycle.serve(desk_of(context).config)


def worker(
    context: typer.Context,
    fd: Annotated[int, typer.Argument(metavar="FD", help="arg.worker.fd")],
    as_json: Json = False,
) -> None:
    lifecycle.worker(desk_of(context).config, fd)
