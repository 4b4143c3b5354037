"""`idnode key`: keys of the operator, of enterprises and of applications."""

import sys
from typing import Annotated

import typer

from node.cli.context import Desk, Json, desk_of, with_database
from node.cli.output import console, document, write_json, write_line, write_table
from registry import api_keys
from registry.api_keys import APPLICATION, ENTERPRISE, OPERATOR, ApiKey
from registry.database import Database

app = typer.Typer(help="cmd.key", no_args_is_help=True)


@app.command("create", help="cmd.key.create")
def create(
    context: typer.Context,
    application: Annotated[
        str | None, typer.Option(metavar="ID", help="opt.key.application")
    ] = None,
    enterprise: Annotated[
        str | None, typer.Option(metavar="CODE", help="opt.key.enterprise")
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="opt.key.operator")] = False,
    as_json: Json = False,
) -> None:
    desk = desk_of(context)
    role, owner = _owner(desk, application, enterprise, operator)

    async def work(database: Database) -> tuple[str, ApiKey]:
        return await api_keys.create(database, role, owner, author=desk.author)

    key_text, key = with_database(desk, work)
    if as_json:
        write_json({"key": key_text} | document(key))
        return
    # The key alone on standard output, so that it can be taken into a file or a variable.
    write_line(key_text)
    console(sys.stderr).print(desk.text("key.created", id=key.id))


@app.command("list", help="cmd.key.list")
def list_all(context: typer.Context, as_json: Json = False) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> list[ApiKey]:
        return [key async for key in api_keys.stream(database)]

    found = with_database(desk, work)
    if as_json:
        write_json({"keys": [document(key) for key in found]})
        return
    write_table(
        [
            desk.text(f"column.{name}")
            for name in ("id", "role", "owner", "created_at", "revoked_at")
        ],
        (
            (
                key.id,
                desk.text(f"role.{key.role}"),
                key.credit_code or key.application_id,
                key.created_at,
                key.revoked_at,
            )
            for key in found
        ),
    )


@app.command("revoke", help="cmd.key.revoke")
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="arg.key")],
    as_json: Json = False,
) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> tuple[ApiKey, bool]:
        return await api_keys.revoke(database, key_id, author=desk.author)

    key, changed = with_database(desk, work)
    if as_json:
        write_json(document(key) | {"changed": changed})
        return
    write_line(desk.text("key.revoked" if changed else "key.revoked.before", id=key.id))


def _owner(
    desk: Desk, application: str | None, enterprise: str | None, operator: bool
) -> tuple[str, str | None]:
    given: list[tuple[str, str | None]] = []
    if application is not None:
        given.append((APPLICATION, application))
    if enterprise is not None:
        given.append((ENTERPRISE, enterprise))
    if operator:
        given.append((OPERATOR, None))
    if len(given) != 1:
        raise typer.BadParameter(desk.text("usage.key"))
    return given[0]
