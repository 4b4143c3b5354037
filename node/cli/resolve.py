"""`idnode resolve`: what the running node answers."""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer

from node.cli.context import Desk, Json, desk_of, find_node
from node.cli.failure import CommandError, ExitCode
from node.cli.node_http import HttpAnswer, ask
from node.cli.output import cell, write_json, write_line, write_table
from resolver.response_code import ResponseCode

# The node takes no more in one request.
BATCH_MAX = 1_000
# A key is 60 characters; a file that is longer was not written by a node.
_KEY_FILE_SIZE_BYTES_MAX = 4_096
# What a person can take in of an answer that is no answer.
_EXCERPT_CHARACTERS_MAX = 300

Result = dict[str, Any]


def resolve(
    context: typer.Context,
    identifiers: Annotated[list[str], typer.Argument(metavar="ID...", help="arg.identifiers")],
    as_json: Json = False,
) -> None:
    desk = desk_of(context)
    address, key_text = find_node(desk).http, _operator_key(desk)
    asked, all_found = _asked(identifiers), True
    results: list[Result] = []
    while batch := list(islice(asked, BATCH_MAX)):
        answer = ask(
            address, "POST", "/api/resolve", document={"identifiers": batch}, key_text=key_text
        )
        for result in _results(desk, answer):
            all_found &= result["responseCode"] == ResponseCode.SUCCESS
            if as_json:
                results.append(result)
            else:
                _print_result(desk, result)
    if as_json:
        write_json({"results": results})
    if not all_found:
        raise typer.Exit(ExitCode.FAILED)


def _asked(identifiers: list[str]) -> Iterator[str]:
    for identifier in identifiers:
        if identifier != "-":
            yield identifier
            continue
        yield from filter(None, (line.strip() for line in sys.stdin))


def _operator_key(desk: Desk) -> str | None:
    """The operator's key if this account may read it; without it the question is anonymous."""
    try:
        with desk.config.operator_key_file.open(encoding="utf-8") as file:
            return file.read(_KEY_FILE_SIZE_BYTES_MAX).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _results(desk: Desk, answer: HttpAnswer) -> list[Result]:
    found = answer.document()
    if answer.status == 200 and isinstance(found, dict) and isinstance(found.get("results"), list):
        return list(found["results"])
    reason = answer.body[:_EXCERPT_CHARACTERS_MAX].decode("utf-8", "replace")
    raise CommandError(
        desk.text("error.node_answer", status=answer.status, reason=reason),
        desk.text("error.node_answer.do"),
        ExitCode.UNREACHABLE if answer.status >= 500 else ExitCode.FAILED,
    )


def _print_result(desk: Desk, result: Result) -> None:
    code = result["responseCode"]
    if code != ResponseCode.SUCCESS:
        reason = result.get("message") or _name(code)
        write_line(f"{result['identifier']}  {desk.text('resolve.no', code=code, reason=reason)}")
        return
    stale = desk.text("resolve.stale") if result.get("stale") else ""
    write_line(f"{result['identifier']}  {stale}".rstrip())
    write_table(
        [desk.text(f"column.{name}") for name in ("index", "type", "value", "ttl", "timestamp")],
        ([str(value.get("index")), *_cells(value)] for value in result.get("values", [])),
    )


def _cells(value: Result) -> list[str]:
    data = value.get("data", {})
    content = data.get("value") if isinstance(data, dict) else data
    if not isinstance(content, str):
        content = json.dumps(content, ensure_ascii=False)
    times = [cell(value.get("ttl")), _time(value.get("timestamp"))]
    return [cell(value.get("type")), content, *times]


def _time(timestamp: object) -> str:
    try:
        return cell(datetime.fromisoformat(str(timestamp)))
    except ValueError:
        return cell(timestamp)


def _name(code: int) -> str:
    try:
        return ResponseCode(code).name
    except ValueError:
        return ""
