"""`idnode up`, `idnode serve` and the worker that they start."""

from dataclasses import replace
from importlib import import_module
from typing import Annotated

import typer

from node.cli.context import Json, desk_of
from node.config import WORKERS_MAX, Config

# Loaded when needed: the server's libraries would slow every other command by half a second.
_LIFECYCLE, _INHERITED = "node.lifecycle", "node.inherited"

Workers = Annotated[int | None, typer.Option(min=1, max=WORKERS_MAX, help="opt.workers")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("up", help="cmd.up")(up)
    app.command("serve", help="cmd.serve")(serve)
    app.command("worker", help="cmd.worker", hidden=True)(worker)


def up(context: typer.Context, workers: Workers = None, as_json: Json = False) -> None:
    import_module(_LIFECYCLE).up(_config(context, workers))


def serve(context: typer.Context, workers: Workers = None, as_json: Json = False) -> None:
    import_module(_LIFECYCLE).serve(_config(context, workers))


def worker(
    context: typer.Context,
    fd: Annotated[int, typer.Argument(metavar="FD", help="arg.worker.fd")],
    https: Annotated[int | None, typer.Option(metavar="FD", help="opt.worker.https")] = None,
    ready: Annotated[int | None, typer.Option(metavar="FD", help="opt.worker.ready")] = None,
    handle_udp: Annotated[int | None, typer.Option(metavar="FD", help="opt.worker.udp")] = None,
    handle_tcp: Annotated[int | None, typer.Option(metavar="FD", help="opt.worker.tcp")] = None,
    as_json: Json = False,
) -> None:
    inherited = import_module(_INHERITED).Inherited(fd, https, ready, handle_udp, handle_tcp)
    import_module(_LIFECYCLE).worker(desk_of(context).config, inherited)


def _config(context: typer.Context, workers: int | None) -> Config:
    config = desk_of(context).config
    return config if workers is None else replace(config, workers=workers)
