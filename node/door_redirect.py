"""Identifiers as web addresses: `/{identifier}` leads to the product's page.

Source: specs §2; recorded exchanges of the Handle.Net 9.3.1 proxy. Unlike it, this door leads to
http and https only.
"""

import random
from collections.abc import Sequence
from email.utils import formatdate
from xml.sax.saxutils import quoteattr

from metrics.dimension import CHANNEL_REDIRECT
from node.callers import Caller, Callers, UnknownKeyError
from node.door_json import public_values, stale_headers
from node.http_exchange import (
    HTML,
    BadRequestError,
    Exchange,
    Headers,
    Parameters,
    Reply,
    decoded_path,
)
from node.pages import identifier_path, language_of, problem_page, record_page, redirect_page
from node.problems import http_status, retry_later
from node.tally import Tally
from resolver import identifier
from resolver.errors import InvalidIdentifierError, RegistryUnavailableError
from resolver.identifier import Identifier, fold
from resolver.locations import choose_location
from resolver.query import Query
from resolver.record import TTL_RELATIVE, HandleValue
from resolver.redirect_target import redirect_target
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode

_SCHEMES = ("urn:hdl:", "urn:doi:", "hdl:", "doi:")
_MESSAGES = {
    ResponseCode.HANDLE_NOT_FOUND: ("not_found", "not_found_text"),
    ResponseCode.SERVER_NOT_RESPONSIBLE: ("refused", "not_responsible_text"),
    ResponseCode.INVALID_HANDLE: ("refused", "invalid_text"),
    ResponseCode.PROTOCOL_ERROR: ("refused", "invalid_text"),
    ResponseCode.AUTHENTICATION_FAILED: ("refused", "key_text"),
    ResponseCode.SERVER_TOO_BUSY: ("refused", "away_text"),
}


class RedirectDoor:
    """Answers GET and HEAD of `/{identifier}`."""

    def __init__(self, resolver: Resolver, callers: Callers, tally: Tally) -> None:
        self._resolver = resolver
        self._callers = callers
        self._tally = tally

    async def answer(self, exchange: Exchange, now_s: float) -> Reply:
        """The reply to one question; counted before it is returned."""
        text = _without_scheme(decoded_path(exchange.path[1:]))
        source = self._tally.source(exchange)
        language = language_of(exchange.header(b"accept-language"))
        try:
            asked = identifier.from_text(text)
            parameters = exchange.parameters()
            query = _query(parameters)
            caller = await self._callers.of(exchange, now_s)
        except (InvalidIdentifierError, BadRequestError, UnknownKeyError) as error:
            return self._refused(_code(error), text, language, source, now_s)
        except RegistryUnavailableError:
            code = ResponseCode.SERVER_TOO_BUSY
            return self._refused(code, text, language, source, now_s)
        resolution = await self._resolver.resolve(
            asked, now_s, authoritative=parameters.flag("auth")
        )
        self._count(now_s, source, caller, asked, resolution)
        if resolution.code != ResponseCode.SUCCESS:
            return _problem(resolution.code, text, language)
        return _led(exchange, asked, parameters, query, resolution, now_s, language)

    def _count(
        self,
        now_s: float,
        source: str,
        caller: Caller,
        asked: Identifier,
        resolution: Resolution,
    ) -> None:
        self._tally.count(
            now_s,
            resolution.code,
            CHANNEL_REDIRECT,
            source,
            caller=caller,
            identifier=asked,
            resolution=resolution,
        )

    def _refused(
        self, code: ResponseCode, text: str, language: str, source: str, now_s: float
    ) -> Reply:
        self._tally.count(now_s, code, CHANNEL_REDIRECT, source)
        return _problem(code, text, language)


def _led(
    exchange: Exchange,
    asked: Identifier,
    parameters: Parameters,
    query: Query,
    resolution: Resolution,
    now_s: float,
    language: str,
) -> Reply:
    values = query.select(resolution.record.values)
    action = parameters.first("action")
    headers = stale_headers(resolution)
    if action == "showurls":
        return _urls(values, headers)
    if not parameters.flag("noredirect") and action != "showvalues":
        reply = (
            _alias(values, parameters, now_s)
            or _location(exchange, values, parameters, now_s)
            or _url(values, parameters, now_s)
        )
        if reply is not None:
            reply.headers.extend(headers)
            return reply
    page = record_page(
        asked.text, public_values(values), language, is_stale=resolution.stale_age_s is not None
    )
    page.headers.extend(headers)
    return page


def _alias(values: Sequence[HandleValue], parameters: Parameters, now_s: float) -> Reply | None:
    if parameters.flag("ignore_aliases"):
        return None
    for value in values:
        if value.type == "HS_ALIAS":
            target = value.data.decode("utf-8", "replace").strip()
            if target:
                return _redirect(301, identifier_path(target), target, value, now_s)
    return None


def _location(
    exchange: Exchange, values: Sequence[HandleValue], parameters: Parameters, now_s: float
) -> Reply | None:
    for value in values:
        if value.type.lower() == "10320/loc":
            chosen = choose_location(
                value.data,
                locatt=[_pair(text) for text in parameters.all("locatt")[:20]],
                accept=exchange.header(b"accept"),
                random_unit=random.random(),
            )
            if chosen is not None:
                reply = _redirect(chosen.http_status, chosen.href, chosen.href, value, now_s)
                if chosen.vary_accept:
                    reply.headers.append((b"vary", b"Accept"))
                return reply
    return None


def _url(values: Sequence[HandleValue], parameters: Parameters, now_s: float) -> Reply | None:
    append = parameters.first("urlappend") or ""
    exact = [value for value in values if fold(value.type) == "URL"]
    below = [value for value in values if fold(value.type).startswith("URL.")]
    for value in (*exact, *below):
        shown = value.data.decode("utf-8", "replace")
        location = redirect_target(shown, append)
        if location is not None:
            return _redirect(302, location, shown + append, value, now_s)
    return None


def _redirect(status: int, location: str, shown: str, value: HandleValue, now_s: float) -> Reply:
    # An absolute ttl is a date; a redirect is then as fresh as a default one.
    kept_s = value.ttl if value.ttl_type == TTL_RELATIVE else max(0, value.ttl - int(now_s))
    headers: Headers = [
        (b"location", location.encode("ascii")),
        (b"expires", formatdate(int(now_s) + kept_s, usegmt=True).encode()),
    ]
    return Reply(status, redirect_page(location, shown), HTML, headers)


def _urls(values: Sequence[HandleValue], headers: Headers) -> Reply:
    found = []
    for value in values:
        if value.type.lower() == "10320/loc":
            chosen = choose_location(value.data, random_unit=0.0)
            found += [] if chosen is None else [chosen.href]
        elif fold(value.type) == "URL" or fold(value.type).startswith("URL."):
            target = redirect_target(value.data.decode("utf-8", "replace"))
            found += [] if target is None else [target]
    rows = "".join(
        f'<location id="{number}" href={quoteattr(href)}/>' for number, href in enumerate(found)
    )
    body = f"<locations>{rows}</locations>".encode()
    return Reply(200, body, b"text/xml;charset=utf-8", list(headers))


def _query(parameters: Parameters) -> Query:
    indexes = parameters.all("index")
    if not all(text.isascii() and text.isdigit() and len(text) < 11 for text in indexes):
        raise BadRequestError("index: expected numbers")
    return Query(tuple(int(text) for text in indexes), tuple(parameters.all("type")))


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition(":")
    return key, value


def _without_scheme(text: str) -> str:
    for scheme in _SCHEMES:
        if text[: len(scheme)].lower() == scheme:
            return text[len(scheme) :]
    return text


def _code(error: Exception) -> ResponseCode:
    if isinstance(error, UnknownKeyError):
        return ResponseCode.AUTHENTICATION_FAILED
    if isinstance(error, BadRequestError):
        return ResponseCode.PROTOCOL_ERROR
    return ResponseCode.INVALID_HANDLE


def _problem(code: ResponseCode, text: str, language: str) -> Reply:
    title, message = _MESSAGES[code]
    reply = problem_page(http_status(code, is_secure=False), title, message, text, language)
    reply.headers.extend(retry_later(code))
    return reply
