"""`idnode prefix`: what is allotted to whom, and whether it is in service."""

from typing import Annotated, Literal

import typer

from node.cli import prefix_handle
from node.cli.context import Desk, Json, desk_of, with_database
from node.cli.output import document, write_json, write_line, write_table
from node.cli.prefix_handle import PrefixArgument
from registry import prefixes
from registry.database import Database
from registry.prefixes import Prefix

app = typer.Typer(help="cmd.prefix", no_args_is_help=True)


@app.command("allot", help="cmd.prefix.allot")
def allot(
    context: typer.Context,
    prefix: PrefixArgument,
    enterprise: Annotated[str, typer.Option(metavar="CODE", help="opt.prefix.enterprise")],
    mode: Annotated[Literal["hosted", "self_run"], typer.Option(help="opt.prefix.mode")] = "hosted",
    as_json: Json = False,
) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> tuple[Prefix, bool]:
        return await prefixes.allot(
            database,
            prefix=prefix,
            credit_code=enterprise,
            mode=mode,
            node_prefix=desk.config.node_prefix,
            author=desk.author,
        )

    allotted, is_new = with_database(desk, work)
    if as_json:
        write_json(_document(allotted) | {"is_new": is_new})
        return
    key = "prefix.allotted" if is_new else "prefix.unchanged"
    write_line(desk.text(key, prefix=allotted.prefix, name=allotted.enterprise_name))


@app.command("list", help="cmd.prefix.list")
def list_all(context: typer.Context, as_json: Json = False) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> list[Prefix]:
        return [prefix async for prefix in prefixes.stream(database)]

    found = with_database(desk, work)
    if as_json:
        write_json({"prefixes": [_document(prefix) for prefix in found]})
        return
    columns = ("prefix", "name", "credit_code", "mode", "state", "created_at")
    write_table(
        [desk.text(f"column.{name}") for name in columns],
        (
            (
                prefix.prefix,
                prefix.enterprise_name,
                prefix.credit_code,
                desk.text(f"mode.{prefix.mode}"),
                _state(desk, prefix),
                prefix.created_at,
            )
            for prefix in found
        ),
    )


@app.command("suspend", help="cmd.prefix.suspend")
def suspend(
    context: typer.Context,
    prefix: PrefixArgument,
    reason: Annotated[str, typer.Option(help="opt.prefix.reason")],
    as_json: Json = False,
) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> tuple[Prefix, bool]:
        return await prefixes.suspend(database, prefix, reason=reason, author=desk.author)

    _print_change(desk, with_database(desk, work), "prefix.suspended", as_json)


@app.command("resume", help="cmd.prefix.resume")
def resume(context: typer.Context, prefix: PrefixArgument, as_json: Json = False) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> tuple[Prefix, bool]:
        return await prefixes.resume(database, prefix, author=desk.author)

    _print_change(desk, with_database(desk, work), "prefix.resumed", as_json)


prefix_handle.add_to(app)


def _print_change(desk: Desk, done: tuple[Prefix, bool], key: str, as_json: bool) -> None:
    prefix, changed = done
    if as_json:
        write_json(_document(prefix) | {"changed": changed})
        return
    write_line(desk.text(key if changed else f"{key}.before", prefix=prefix.prefix))


def _state(desk: Desk, prefix: Prefix) -> str:
    if not prefix.is_suspended:
        return desk.text("state.active")
    return f"{desk.text('state.suspended')}: {prefix.suspend_reason}"


def _document(prefix: Prefix) -> dict[str, object]:
    return document(prefix, "id", "key")
