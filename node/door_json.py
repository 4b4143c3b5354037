"""The read side of the Handle HTTP JSON API: `/api/handles/{handle}`.

Source: specs §1.1–1.4, §1.6; recorded exchanges of Handle.Net 9.3.1.
"""

import re
from dataclasses import dataclass

import orjson

from metrics.dimension import CHANNEL_HTTP_JSON
from node.callers import Caller, Callers, UnknownKeyError
from node.http_exchange import (
    BadRequestError,
    BodyTooLargeError,
    Exchange,
    Headers,
    Parameters,
    Reply,
    decoded_path,
)
from node.problems import http_status, retry_later
from node.tally import Tally
from resolver import handle_json, identifier
from resolver.errors import InvalidIdentifierError, RegistryUnavailableError
from resolver.identifier import Identifier
from resolver.query import Query
from resolver.record import ADMIN_READ, PUBLIC_READ, HandleValue
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode

PATH = b"/api/handles/"
# Parameters of a POST that asks: indexes and types.
BODY_SIZE_BYTES_MAX = 64 * 1024
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
_INDEX_RANGE = range(-(2**31), 2**31)
_VARY = (b"vary", b"Accept-Encoding, User-Agent")


@dataclass(frozen=True, slots=True)
class _Question:
    query: Query
    wants_all: bool
    authoritative: bool
    pretty: bool
    callback: str | None


class JsonDoor:
    """Answers GET, HEAD and POST of one identifier."""

    def __init__(self, resolver: Resolver, callers: Callers, tally: Tally) -> None:
        self._resolver = resolver
        self._callers = callers
        self._tally = tally

    async def answer(self, exchange: Exchange, now_s: float) -> Reply:
        """The reply to one question; counted before it is returned."""
        text = decoded_path(exchange.path[len(PATH) :])
        source = self._tally.source(exchange)
        try:
            asked = identifier.from_text(text)
            question = _question(await _parameters(exchange))
        except InvalidIdentifierError as error:
            self._tally.count(now_s, ResponseCode.INVALID_HANDLE, CHANNEL_HTTP_JSON, source)
            return _refusal(ResponseCode.INVALID_HANDLE, str(error), exchange)
        except (BadRequestError, BodyTooLargeError) as error:
            self._tally.count(now_s, ResponseCode.PROTOCOL_ERROR, CHANNEL_HTTP_JSON, source)
            return _refusal(ResponseCode.PROTOCOL_ERROR, str(error), exchange)
        return await self._resolved(exchange, asked, question, source, now_s)

    async def _resolved(
        self,
        exchange: Exchange,
        asked: Identifier,
        question: _Question,
        source: str,
        now_s: float,
    ) -> Reply:
        try:
            caller = await self._callers.of(exchange, now_s)
        except UnknownKeyError:
            code = ResponseCode.AUTHENTICATION_FAILED
            self._tally.count(now_s, code, CHANNEL_HTTP_JSON, source, identifier=asked)
            return _refusal(code, "The API key is unknown or revoked", exchange, asked.text)
        except RegistryUnavailableError as error:
            code = ResponseCode.SERVER_TOO_BUSY
            self._tally.count(now_s, code, CHANNEL_HTTP_JSON, source, identifier=asked)
            return _refusal(code, f"The API key cannot be checked: {error}", exchange, asked.text)
        resolution = await self._resolver.resolve(
            asked, now_s, authoritative=question.authoritative
        )
        code, reply = _reply(exchange, asked, question, resolution, caller)
        self._tally.count(
            now_s,
            code,
            CHANNEL_HTTP_JSON,
            source,
            caller=caller,
            identifier=asked,
            resolution=resolution,
        )
        return reply


def _reply(
    exchange: Exchange,
    asked: Identifier,
    question: _Question,
    resolution: Resolution,
    caller: Caller,
) -> tuple[ResponseCode, Reply]:
    code = resolution.code
    if code != ResponseCode.SUCCESS:
        return code, _refusal(code, resolution.message, exchange, asked.text)
    may_read_all = caller.may_write(asked.prefix_key)
    if question.wants_all and not may_read_all:
        code = ResponseCode.AUTHENTICATION_NEEDED
        return code, _refusal(code, None, exchange, asked.text)
    headers: Headers = [_VARY, *stale_headers(resolution)]
    if question.query.is_plain and not may_read_all and not question.pretty:
        body = plain_body(resolution, asked.text)
    else:
        values = _selected(question.query, resolution.record.values, may_read_all)
        if values or (question.query.is_plain and not resolution.record.values):
            body = handle_json.resolution_answer(asked.text, values, question.pretty)
        else:
            code = ResponseCode.VALUES_NOT_FOUND
            body = handle_json.values_not_found_answer(asked.text, question.pretty)
    if question.callback is not None:
        script = b"application/javascript;charset=utf-8"
        return code, Reply(200, handle_json.jsonp(question.callback, body), script, headers)
    return code, Reply(200, body, headers=headers)


def plain_body(resolution: Resolution, text: str) -> bytes:
    """The answer to the plain question, prepared once for the spelling of the registration."""
    entry, record = resolution.entry, resolution.record
    assert entry is not None
    if text != record.handle:
        return handle_json.resolution_answer(text, public_values(record.values))
    if entry.body is None:
        entry.body = handle_json.resolution_answer(text, public_values(record.values))
    return entry.body


def public_values(values: tuple[HandleValue, ...]) -> tuple[HandleValue, ...]:
    """What everybody may read."""
    return tuple(value for value in values if value.is_public)


def stale_headers(resolution: Resolution) -> Headers:
    """How an answer is marked that was right when last heard (RFC 9111 §5.1, RFC 7234 §5.5.1)."""
    if resolution.stale_age_s is None:
        return []
    return [
        (b"warning", b'110 - "Response is Stale"'),
        (b"age", str(resolution.stale_age_s).encode()),
    ]


def _selected(
    query: Query, values: tuple[HandleValue, ...], may_read_all: bool
) -> tuple[HandleValue, ...]:
    readable = PUBLIC_READ | (ADMIN_READ if may_read_all else 0)
    whole = Query(query.indexes, query.types, public_only=False)
    return tuple(value for value in whole.select(values) if value.permissions & readable)


async def _parameters(exchange: Exchange) -> Parameters:
    parameters = exchange.parameters()
    if exchange.method != "POST":
        return parameters
    body = await exchange.body(BODY_SIZE_BYTES_MAX)
    if not body:
        return parameters
    media_type = (exchange.header(b"content-type") or "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadRequestError(f"body is not JSON: {error}") from None
        posted = Parameters.from_document(document)
    else:
        posted = Parameters.from_form(body)
    return Parameters({**parameters.values, **posted.values})


def _question(parameters: Parameters) -> _Question:
    public_only = parameters.flag("publicOnly", default=True)
    return _Question(
        query=Query(
            tuple(_index(text) for text in parameters.all("index")),
            tuple(parameters.all("type")),
        ),
        wants_all=not public_only,
        authoritative=parameters.flag("auth"),
        pretty=parameters.flag("pretty"),
        callback=parameters.first("callback"),
    )


def _index(text: str) -> int:
    # The wording is the reference server's, which clients show as it is.
    if not _INTEGER.fullmatch(text) or int(text) not in _INDEX_RANGE:
        shown = text[:100]
        raise BadRequestError(f'java.lang.NumberFormatException: For input string: "{shown}"')
    return int(text)


def _refusal(
    code: ResponseCode, message: str | None, exchange: Exchange, text: str | None = None
) -> Reply:
    return Reply(
        http_status(code, is_secure=exchange.is_secure),
        handle_json.error_answer(code, message, text),
        headers=retry_later(code),
    )
