"""Answers and requests of the Handle.Net 9 HTTP API as JSON bytes.

Source: specs §1.3; recorded answers of Handle.Net 9.3.1.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from resolver.errors import InvalidValueError
from resolver.record import VALUES_MAX, HandleValue
from resolver.response_code import ResponseCode
from resolver.value_json import (
    Json,
    JsonPlace,
    site_to_json,
    value_from_json,
    value_to_json,
    values_to_json,
)
from resolver.wire._records import SiteInfo

__all__ = [
    "ParsedPut",
    "dump",
    "error_answer",
    "jsonp",
    "list_answer",
    "prefixes_answer",
    "referral_answer",
    "resolution_answer",
    "site_answer",
    "value_from_json",
    "value_to_json",
    "values_from_json",
    "values_not_found_answer",
    "values_to_json",
]

_SUCCESS = int(ResponseCode.SUCCESS)
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_$.]+")
# Names that libraries generate have fewer than 40 characters; a URL has room for far more.
_CALLBACK_CHARACTERS_MAX = 128


def dump(document: object, pretty: bool = False) -> bytes:
    """`document` as JSON in UTF-8, compact, or indented by two spaces.

    U+2028 and U+2029 are escaped: older JavaScript takes them for line ends.
    """
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2 if pretty else 0)
    if b"\xe2\x80" in body:
        body = body.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return body


def jsonp(callback: str, body: bytes) -> bytes:
    """`callback(body);`, the name reduced to letters, digits, `_`, `$` and `.`."""
    name = _NOT_OF_A_NAME.sub("", callback[:_CALLBACK_CHARACTERS_MAX]) or "callback"
    return b"%s(%s);" % (name.encode(), body)


def resolution_answer(
    handle_text: str, values: Iterable[HandleValue], pretty: bool = False
) -> bytes:
    """The values found; `handle_text` is the caller's spelling."""
    values_json = values_to_json(values)
    answer = {"responseCode": _SUCCESS, "handle": handle_text, "values": values_json}
    return dump(answer, pretty)


def values_not_found_answer(handle_text: str, pretty: bool = False) -> bytes:
    """The identifier exists, but has none of the values asked for."""
    code = int(ResponseCode.VALUES_NOT_FOUND)
    return dump({"responseCode": code, "values": [], "handle": handle_text}, pretty)


def error_answer(
    code: int, message: str | None = None, handle_text: str | None = None, pretty: bool = False
) -> bytes:
    """A response code with what is known; also the plain success of a change.

    `handle_text` may be what could not be read as an identifier: broken characters become `?`.
    """
    answer: Json = {"responseCode": int(code)}
    if message:
        answer["message"] = _encodable(message)
    if handle_text:
        answer["handle"] = _encodable(handle_text)
    return dump(answer, pretty)


def referral_answer(
    code: int, values: Iterable[HandleValue], handle_text: str, pretty: bool = False
) -> bytes:
    """Ask elsewhere: `values` are the HS_SITE values of the service responsible."""
    answer = {"responseCode": int(code), "values": values_to_json(values), "handle": handle_text}
    return dump(answer, pretty)


def list_answer(
    prefix: str,
    handles: Sequence[str],
    total_count: int,
    page: int | None = None,
    page_size: int | None = None,
    pretty: bool = False,
) -> bytes:
    """Identifiers under a prefix; `totalCount` is a string, as in the original."""
    answer: Json = {"responseCode": _SUCCESS, "prefix": prefix, "totalCount": str(total_count)}
    if page is not None:
        answer["page"] = page
    if page_size is not None:
        answer["pageSize"] = page_size
    answer["handles"] = list(handles)
    return dump(answer, pretty)


def prefixes_answer(prefixes: Sequence[str], pretty: bool = False) -> bytes:
    """The prefix handles that this node homes."""
    count = str(len(prefixes))
    answer = {"responseCode": _SUCCESS, "totalCount": count, "prefixes": list(prefixes)}
    return dump(answer, pretty)


def site_answer(site: SiteInfo, pretty: bool = False) -> bytes:
    """The site of this node."""
    return dump({"responseCode": _SUCCESS, "site": site_to_json(site)}, pretty)


@dataclass(frozen=True, slots=True)
class ParsedPut:
    """The body of a PUT: the values, and the identifier if the body names it."""

    handle: str | None
    values: tuple[HandleValue, ...]


def values_from_json(body: bytes) -> ParsedPut:
    """Read an array of values, `{"values": […], "handle": …}`, or one value object.

    Raises:
        InvalidValueError: names the path and what was expected there.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidValueError(f"body is not valid JSON: {error}") from None
    if isinstance(document, list):
        return ParsedPut(None, _values(JsonPlace(document, "values")))
    if not isinstance(document, dict):
        raise JsonPlace(document, "body").fail("an array of values or an object")
    if "values" not in document:
        return ParsedPut(None, (value_from_json(document),))
    place = JsonPlace(document, "")
    handle, values = place.member("handle"), place.member("values")
    return ParsedPut(None if handle.is_absent else handle.text(), _values(values))


def _values(place: JsonPlace) -> tuple[HandleValue, ...]:
    items = place.items()
    if len(items) > VALUES_MAX:
        raise InvalidValueError(f"{place.path}: {len(items)} values, at most {VALUES_MAX} allowed")
    return tuple(value_from_json(one.value, one.path) for one in items)


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
