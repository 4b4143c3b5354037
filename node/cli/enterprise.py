"""`idnode enterprise`: who is served."""

from typing import Annotated

import typer

from node.cli.context import Desk, Json, desk_of, with_database
from node.cli.output import document, write_json, write_line, write_table
from registry import enterprises
from registry.database import Database
from registry.enterprises import Enterprise, EnterpriseAccount
from registry.place_code import CHINA, place_name

app = typer.Typer(help="cmd.enterprise", no_args_is_help=True)


@app.command("add", help="cmd.enterprise.add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="opt.enterprise.name")],
    credit_code: Annotated[str, typer.Option(help="opt.enterprise.credit_code")],
    division: Annotated[str | None, typer.Option(help="opt.division")] = None,
    country: Annotated[str | None, typer.Option(help="opt.country")] = None,
    as_json: Json = False,
) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> tuple[Enterprise, bool]:
        return await enterprises.add(
            database,
            name=name,
            credit_code=credit_code,
            division=division,
            country=country or CHINA,
            author=desk.author,
        )

    enterprise, is_new = with_database(desk, work)
    if as_json:
        write_json(document(enterprise, "id") | {"is_new": is_new})
        return
    key = "enterprise.added" if is_new else "enterprise.unchanged"
    write_line(desk.text(key, name=enterprise.name, code=enterprise.credit_code))


@app.command("list", help="cmd.enterprise.list")
def list_all(context: typer.Context, as_json: Json = False) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> list[Enterprise]:
        return [enterprise async for enterprise in enterprises.stream(database)]

    found = with_database(desk, work)
    if as_json:
        write_json({"enterprises": [document(enterprise, "id") for enterprise in found]})
        return
    write_table(
        [desk.text(f"column.{name}") for name in ("credit_code", "name", "place", "created_at")],
        (
            (
                enterprise.credit_code,
                enterprise.name,
                place_name(enterprise.division, enterprise.country),
                enterprise.created_at,
            )
            for enterprise in found
        ),
    )


@app.command("show", help="cmd.enterprise.show")
def show(
    context: typer.Context,
    credit_code: Annotated[str, typer.Argument(metavar="CODE", help="arg.credit_code")],
    as_json: Json = False,
) -> None:
    desk = desk_of(context)

    async def work(database: Database) -> EnterpriseAccount:
        return await enterprises.show(database, credit_code)

    account = with_database(desk, work)
    if as_json:
        write_json(
            document(account.enterprise, "id")
            | {"identifiers": account.identifiers, "prefixes": account.holdings}
        )
        return
    _print_account(desk, account)


def _print_account(desk: Desk, account: EnterpriseAccount) -> None:
    enterprise = account.enterprise
    write_line(f"{enterprise.name}  {enterprise.credit_code}")
    write_line(place_name(enterprise.division, enterprise.country))
    write_table(
        [desk.text(f"column.{name}") for name in ("prefix", "mode", "state", "identifiers")],
        (
            (
                holding.prefix,
                desk.text(f"mode.{holding.mode}"),
                desk.text("state.suspended" if holding.suspended else "state.active"),
                holding.identifiers,
            )
            for holding in account.holdings
        ),
    )
