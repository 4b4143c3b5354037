"""`idnode prefix delegate` and `idnode prefix admin`: what the prefix handle says, in one step."""

import asyncio
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from node.cli.context import Desk, Json, desk_of, with_database
from node.cli.failure import CommandError, ExitCode
from node.cli.output import console, document, write_json, write_line
from node.clock import now_s
from node.native_question import NATIVE_PORT, ToldSite, UnansweredError, site_of
from node.node_key import fingerprint
from node.public_key_file import FILE_SIZE_BYTES_MAX, public_key_record
from registry import prefixes
from registry.database import Database
from registry.prefix_handles import keep_admin, keep_values
from registry.prefixes import SELF_RUN, Prefix
from registry.records import PostgresRecords
from resolver.errors import InvalidValueError
from resolver.own_site import SERVICE, SITE, SITE_6, SITE_OF_DERIVED
from resolver.prefix_directory import handle_of
from resolver.record import ADMIN_READ, ADMIN_WRITE, HandleValue
from resolver.value_json import site_to_json
from resolver.wire import INTERFACE_QUERY, PROTOCOL_TCP, PROTOCOL_UDP, Server

# Where keys stand by custom.
_SECRET_INDEX: Final = 300
_PUBLIC_KEY_INDEX: Final = 301
# Nobody guesses 192 bits; eight characters of a person's choice hold for a while.
_SECRET_SIZE_BYTES: Final = 24
_SECRET_SIZE_BYTES_LEAST: Final = 8
_NATIVE: Final = (PROTOCOL_UDP, PROTOCOL_TCP)
_UNSPECIFIED: Final = ("0.0.0.0", "::")

PrefixArgument = Annotated[str, typer.Argument(metavar="PREFIX", help="arg.prefix")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to those of `idnode prefix`."""
    app.command("delegate", help="cmd.prefix.delegate")(delegate)
    app.command("admin", help="cmd.prefix.admin")(admin)


def delegate(
    context: typer.Context,
    prefix: PrefixArgument,
    enterprise: Annotated[str, typer.Option(metavar="CODE", help="opt.prefix.enterprise")],
    node: Annotated[str, typer.Option(metavar="HOST:PORT", help="opt.prefix.node")],
    for_derived: Annotated[
        bool, typer.Option("--for-derived", help="opt.prefix.for_derived")
    ] = False,
    as_json: Json = False,
) -> None:
    desk = desk_of(context)
    told = _asked_site(desk, node)
    site = told.site
    types = (SITE, SITE_OF_DERIVED) if for_derived else (SITE,)
    values = [HandleValue(index, type_, site.to_wire()) for index, type_ in enumerate(types, 1)]

    async def work(database: Database) -> tuple[Prefix, bool]:
        allotted, is_new = await prefixes.allot(
            database,
            prefix=prefix,
            credit_code=enterprise,
            mode=SELF_RUN,
            node_prefix=desk.config.node_prefix,
            author=desk.author,
        )
        # A crash here leaves a prefix that nobody is referred from: the same command goes on.
        is_changed = await keep_values(
            PostgresRecords(database),
            allotted.prefix,
            values,
            instead_of=(SITE, SITE_6, SITE_OF_DERIVED, SERVICE),
            author=replace(desk.author, detail=f"prefix delegate {allotted.prefix} to {node}"),
            now_s=now_s(),
        )
        return allotted, is_new or is_changed

    delegated, changed = with_database(desk, work)
    if as_json:
        shown = {"changed": changed, "signed": told.is_signed, "site": site_to_json(site)}
        write_json(document(delegated, "id", "key") | shown)
        return
    key = "prefix.delegated" if changed else "prefix.delegated.before"
    places = ", ".join(server.address_text for server in site.servers)
    name = delegated.enterprise_name
    write_line(desk.text(key, prefix=delegated.prefix, name=name, places=places))
    signed = "prefix.node.signed" if told.is_signed else "prefix.node.unsigned"
    for server in site.servers:
        of_key = fingerprint(server.public_key)
        write_line(desk.text(signed, place=server.address_text, fingerprint=of_key))


def admin(
    context: typer.Context,
    prefix: PrefixArgument,
    secret_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="opt.prefix.secret_file")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="opt.prefix.public_key")
    ] = None,
    index: Annotated[int | None, typer.Option(min=1, help="opt.prefix.index")] = None,
    as_json: Json = False,
) -> None:
    desk = desk_of(context)
    if secret_file is not None and public_key is not None:
        raise typer.BadParameter(desk.text("usage.prefix.admin"))
    made = None if secret_file or public_key else secrets.token_urlsafe(_SECRET_SIZE_BYTES)
    key = _key(desk, secret_file, public_key, made, index)

    async def work(database: Database) -> bool:
        author = replace(desk.author, detail=f"prefix admin {prefix} {key.type} {key.index}")
        records = PostgresRecords(database)
        return await keep_admin(records, prefix, key, author=author, now_s=now_s())

    changed = with_database(desk, work)
    identity = f"{key.index}:{handle_of(prefix).text}"
    if as_json:
        shown = {"prefix": prefix, "identity": identity, "type": key.type, "changed": changed}
        write_json(shown if made is None else shown | {"secret": made})
        return
    said = desk.text("prefix.admin" if changed else "prefix.admin.before", identity=identity)
    if made is None:
        write_line(said)
        return
    # The secret alone on standard output, so that it can be taken into a file or a variable.
    write_line(made)
    console(sys.stderr).print(desk.text("prefix.admin.secret", identity=identity))


def _asked_site(desk: Desk, node: str) -> ToldSite:
    """HS_SITE of the node to which is delegated, as it says itself."""
    host, port = _address(desk, node)
    do = desk.text("prefix.node.do")
    try:
        told = asyncio.run(site_of(host, port, now_s=now_s()))
    except UnansweredError as error:
        message = desk.text("prefix.node.unanswered", node=node, reason=error)
        raise CommandError(message, do, ExitCode.UNREACHABLE) from None
    if not any(_is_reachable(server) for server in told.site.servers):
        raise CommandError(desk.text("prefix.node.nowhere", node=node), do)
    return told


def _is_reachable(server: Server) -> bool:
    """True if clients can ask it natively at the address that it names."""
    asked = (
        one for one in server.interfaces if one.protocol in _NATIVE and one.type & INTERFACE_QUERY
    )
    return server.address_text not in _UNSPECIFIED and any(one.port for one in asked)


def _address(desk: Desk, text: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[address]:port`."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = text, str(NATIVE_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65_535:
        raise typer.BadParameter(desk.text("usage.prefix.node", node=text))
    return host, int(port)


def _key(
    desk: Desk,
    secret_file: Path | None,
    public_key: Path | None,
    made: str | None,
    index: int | None,
) -> HandleValue:
    """The value by which the administrator is known."""
    if public_key is not None:
        try:
            record = public_key_record(_read(desk, public_key))
        except InvalidValueError as error:
            raise CommandError(f"{public_key}: {error}", desk.text("prefix.key.do")) from None
        return HandleValue(index or _PUBLIC_KEY_INDEX, "HS_PUBKEY", record)
    data = (made or "").encode() if secret_file is None else _read(desk, secret_file)
    secret = data.rstrip(b"\r\n")
    if len(secret) < _SECRET_SIZE_BYTES_LEAST:
        message = desk.text("prefix.secret.short", least=_SECRET_SIZE_BYTES_LEAST)
        raise CommandError(message, desk.text("prefix.secret.do"))
    permissions = ADMIN_READ | ADMIN_WRITE
    return HandleValue(index or _SECRET_INDEX, "HS_SECKEY", secret, permissions=permissions)


def _read(desk: Desk, file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(FILE_SIZE_BYTES_MAX + 1)
    if len(data) > FILE_SIZE_BYTES_MAX:
        message = desk.text("prefix.key.long", file=file, most=FILE_SIZE_BYTES_MAX)
        raise CommandError(message, desk.text("prefix.key.do"))
    return data
