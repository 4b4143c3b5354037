"""`idnode application`: the register of what resolves through this node."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from node.cli.context import Desk, Json, desk_of, with_database
from node.cli.output import document, write_json, write_line, write_table
from registry import applications
from registry.applications import KINDS, TYPES, Application
from registry.database import Database
from registry.place_code import place_name

app = typer.Typer(help="cmd.application", no_args_is_help=True)


@app.command("add", help="cmd.application.add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="opt.application.name")],
    kind: Annotated[str, typer.Option(help="opt.application.kind")],
    owner: Annotated[str, typer.Option(help="opt.application.owner")],
    division: Annotated[str | None, typer.Option(help="opt.division")] = None,
    country: Annotated[str | None, typer.Option(help="opt.country")] = None,
    type_: Annotated[str, typer.Option("--type", help="opt.application.type")] = "other",
    contract: Annotated[Path | None, typer.Option(help="opt.application.contract")] = None,
    contract_sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="opt.application.contract_sha256")
    ] = None,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="opt.application.sandbox")] = False,
    as_json: Json = False,
) -> None:
    desk = desk_of(context)
    if contract is not None and contract_sha256 is not None:
        raise typer.BadParameter(desk.text("usage.contract"))
    digest = contract_sha256 if contract is None else _digest(contract)

    async def work(database: Database) -> tuple[Application, bool]:
        return await applications.add(
            database,
            name=name,
            kind=kind,
            type_=type_,
            owner=owner,
            division=division,
            country=country,
            contract_sha256=digest,
            sandbox=sandbox,
            author=desk.author,
        )

    application, is_new = with_database(desk, work)
    if as_json:
        write_json(document(application) | {"is_new": is_new})
        return
    key = "application.added" if is_new else "application.unchanged"
    write_line(desk.text(key, id=application.id, name=application.name))


@app.command("list", help="cmd.application.list")
def list_all(context: typer.Context, as_json: Json = False) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> list[Application]:
        return [application async for application in applications.stream(database)]

    found = with_database(desk, work)
    if as_json:
        write_json({"applications": [document(application) for application in found]})
        return
    columns = ("id", "name", "kind", "type", "owner", "place", "contract", "sandbox")
    write_table(
        [desk.text(f"column.{name}") for name in columns],
        (_row(desk, application) for application in found),
    )


@app.command("contract", help="cmd.application.contract")
def contract(
    context: typer.Context,
    application_id: Annotated[str, typer.Argument(metavar="ID", help="arg.application")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="arg.contract")],
    as_json: Json = False,
) -> None:
    desk = desk_of(context)
    digest = _digest(file)

    async def work(database: Database) -> tuple[Application, bool]:
        return await applications.set_contract(database, application_id, digest, author=desk.author)

    application, changed = with_database(desk, work)
    if as_json:
        write_json(document(application) | {"changed": changed})
        return
    write_line(desk.text("application.contract", id=application.id, digest=digest))


def _row(desk: Desk, application: Application) -> tuple[object, ...]:
    type_ = TYPES[application.type]
    return (
        application.id,
        application.name,
        KINDS[application.kind][0 if desk.language == "zh" else 1],
        type_.chinese if desk.language == "zh" else type_.english,
        application.owner,
        place_name(application.division, application.country),
        (application.contract_sha256 or "")[:12],
        desk.text("word.yes") if application.sandbox else "",
    )


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
