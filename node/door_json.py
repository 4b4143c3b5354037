"""The read side of the Handle HTTP JSON API: `/api/handles/{handle}`.

Source: specs §1.1–1.4, §1.6; recorded exchanges of Handle.Net 9.3.1.
"""

from dataclasses import dataclass, replace

from metrics.dimension import CHANNEL_HTTP_JSON
from node.admission import asker_of
from node.callers import Caller, Callers
from node.http_exchange import (
    Exchange,
    Headers,
    Parameters,
    RefusedError,
    Reply,
    decoded_path,
    document_of,
)
from node.http_identity import NOBODY, Identities
from node.identity import Identity
from node.permission import Permission
from node.prepared_answers import json_body
from node.problems import (
    caller_of,
    identifier_of,
    refusal,
    refusal_of,
    refusal_of_resolution,
)
from node.tally import Tally
from resolver import handle_json, unknown_budget
from resolver.identifier import Identifier
from resolver.query import Query
from resolver.record import ADMIN_READ, PUBLIC_READ
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode

PATH = b"/api/handles/"
# Parameters of a POST that asks: indexes and types.
BODY_SIZE_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of one identifier; `public_only` is None where the caller did not say."""

    query: Query
    public_only: bool | None
    authoritative: bool
    do_not_refer: bool
    pretty: bool
    callback: str | None


_PLAIN = _Question(
    Query(),
    public_only=None,
    authoritative=False,
    do_not_refer=False,
    pretty=False,
    callback=None,
)


class JsonDoor:
    """Answers GET, HEAD and POST of one identifier."""

    def __init__(
        self,
        resolver: Resolver,
        callers: Callers,
        tally: Tally,
        identities: Identities = NOBODY,
    ) -> None:
        self._resolver = resolver
        self._callers = callers
        self._tally = tally
        self._identities = identities

    async def answer(self, exchange: Exchange, now_s: float) -> Reply:
        """The reply to one question; counted before it is returned."""
        text = decoded_path(exchange.path[len(PATH) :])
        source = self._tally.source(exchange)
        try:
            asked = identifier_of(text)
            question = _question(await _parameters(exchange))
            asker = await self._asker(exchange, source, now_s)
        except RefusedError as error:
            self._tally.count(now_s, error.code, CHANNEL_HTTP_JSON, source)
            return await self._identities.reply_to(exchange, error, text)
        code, reply = await self._answer(asked, question, asker, now_s)
        if code == ResponseCode.AUTHENTICATION_NEEDED:
            return await self._identities.reply_to(exchange, RefusedError(code), text)
        return reply

    async def answer_plain(self, text: str, caller: Caller, source: str, now_s: float) -> Reply:
        """The reply to a GET without parameters from a caller that is known already."""
        try:
            asked = identifier_of(text)
        except RefusedError as error:
            self._tally.count(now_s, error.code, CHANNEL_HTTP_JSON, source)
            return refusal_of(error, text)
        _, reply = await self._answer(asked, _PLAIN, _Asker(caller, source), now_s)
        return reply

    async def _asker(self, exchange: Exchange, source: str, now_s: float) -> "_Asker":
        caller = await caller_of(self._callers, exchange, now_s)
        has_key = caller.owner is not None
        return _Asker(caller, source, None if has_key else await self._identities.of(exchange))

    async def _answer(
        self, asked: Identifier, question: _Question, asker: "_Asker", now_s: float
    ) -> tuple[ResponseCode, Reply]:
        resolution = await self._resolver.resolve(
            asked,
            now_s,
            authoritative=question.authoritative,
            asker=asker.account,
            do_not_refer=question.do_not_refer,
        )
        refused = await self._refusal_of_private(asked, question, asker, resolution)
        code, reply = _reply(asked, question, resolution, refused)
        self._tally.count(
            now_s,
            code,
            CHANNEL_HTTP_JSON,
            asker.source,
            caller=asker.caller,
            identifier=asked,
            resolution=resolution,
        )
        return code, reply

    async def _refusal_of_private(
        self, asked: Identifier, question: _Question, asker: "_Asker", resolution: Resolution
    ) -> ResponseCode | None:
        """Why not everything that was found may be read; None if it may."""
        if asker.caller.may_write(asked.prefix_key):
            return None
        if asker.identity is None:
            return _needed(asker.caller)
        if question.public_only or resolution.code != ResponseCode.SUCCESS:
            return None  # there is nothing else that could be read
        if all(value.is_public for value in resolution.record.values):
            return None
        return await self._identities.refusal(asker.identity, Permission.READ_VALUE, asked)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asks, by API key or by identity, and from where."""

    caller: Caller
    source: str
    identity: Identity | None = None

    @property
    def account(self) -> str:
        """What pays for questions after names that do not exist."""
        return asker_of(self.caller) if self.identity is None else unknown_budget.KNOWN


def _reply(
    asked: Identifier, question: _Question, resolution: Resolution, refused: ResponseCode | None
) -> tuple[ResponseCode, Reply]:
    """The code and the reply; `refused` says why private values may not be read."""
    if resolution.code != ResponseCode.SUCCESS:
        return resolution.code, refusal_of_resolution(resolution, asked.text)
    if question.public_only is False and refused is not None:
        return refused, refusal(refused, handle_text=asked.text)
    reads_all = refused is None and question.public_only is not True
    code, body = _found(asked, question, resolution, reads_all)
    headers = stale_headers(resolution)
    if question.callback is not None:
        script = b"application/javascript;charset=utf-8"
        return code, Reply(200, handle_json.jsonp(question.callback, body), script, headers)
    return code, Reply(200, body, headers=headers)


def _needed(caller: Caller) -> ResponseCode:
    """What a caller lacks who may read public values only."""
    if caller.owner is None:
        return ResponseCode.AUTHENTICATION_NEEDED
    return ResponseCode.INSUFFICIENT_PERMISSIONS


def _found(
    asked: Identifier, question: _Question, resolution: Resolution, reads_all: bool
) -> tuple[ResponseCode, bytes]:
    """The body that shows the values asked for, or that says that there are none."""
    query = question.query
    if query.is_plain and not reads_all and not question.pretty:
        return ResponseCode.SUCCESS, _plain_body(resolution, asked.text)
    found = replace(query, public_only=not reads_all).select(resolution.record.values)
    values = [value for value in found if value.permissions & (PUBLIC_READ | ADMIN_READ)]
    if values or query.is_plain:
        body = handle_json.resolution_answer(asked.text, values, question.pretty)
        return ResponseCode.SUCCESS, body
    body = handle_json.values_not_found_answer(asked.text, question.pretty)
    return ResponseCode.VALUES_NOT_FOUND, body


def _plain_body(resolution: Resolution, text: str) -> bytes:
    """The answer to the plain question, prepared once for the spelling of the registration."""
    entry, record = resolution.entry, resolution.record
    assert entry is not None
    if entry.prepared is None or text != record.handle:
        return handle_json.resolution_answer(text, Query().select(record.values))
    return json_body(entry.prepared, record, resolution.prefix)


def stale_headers(resolution: Resolution) -> Headers:
    """How an answer is marked that was right when last heard (RFC 9111 §5.1, RFC 7234 §5.5.1)."""
    if resolution.stale_age_s is None:
        return []
    return [
        (b"warning", b'110 - "Response is Stale"'),
        (b"age", str(resolution.stale_age_s).encode()),
    ]


async def _parameters(exchange: Exchange) -> Parameters:
    parameters = exchange.parameters()
    if exchange.method != "POST":
        return parameters
    body = await exchange.body(BODY_SIZE_BYTES_MAX)
    if not body:
        return parameters
    if exchange.media_type == "application/json":
        posted = Parameters.from_document(document_of(body))
    else:
        posted = Parameters.from_form(body)
    return Parameters({**parameters.values, **posted.values})


def _question(parameters: Parameters) -> _Question:
    is_said = parameters.first("publicOnly") is not None
    return _Question(
        query=Query(parameters.integers("index"), tuple(parameters.all("type"))),
        public_only=parameters.flag("publicOnly") if is_said else None,
        authoritative=parameters.flag("auth"),
        do_not_refer=parameters.flag("doNotRefer"),
        pretty=parameters.flag("pretty"),
        callback=parameters.first("callback"),
    )
