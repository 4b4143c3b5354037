"""Identifiers as web addresses: `/{identifier}` leads to the product's page.

Source: specs §2; recorded exchanges of the Handle.Net 9.3.1 proxy. Unlike it, this door leads to
http and https only.
"""

import random
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import quoteattr

from metrics.dimension import CHANNEL_REDIRECT
from node.admission import asker_of
from node.callers import Callers
from node.door_json import stale_headers
from node.http_exchange import (
    HTML,
    Exchange,
    Headers,
    Parameters,
    RefusedError,
    Reply,
    decoded_path,
)
from node.pages import identifier_path, language_of, problem_page, record_page, redirect_page
from node.prepared_answers import expires, keep_redirect
from node.problems import caller_of, http_status, identifier_of, retry_later, status_of
from node.tally import Tally
from resolver.identifier import fold
from resolver.locations import choose_location, locations_from_xml
from resolver.query import Query
from resolver.record import TTL_RELATIVE, HandleValue
from resolver.redirect_target import redirect_target
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode

_SCHEMES = ("urn:hdl:", "urn:doi:", "hdl:", "doi:")
# Values that lead elsewhere, or by choice.
_DEPENDING = ("HS_ALIAS", "10320/LOC")
# Attributes that a requester can ask for at once; a document has about five.
LOCATT_MAX = 20
_MESSAGES = {
    ResponseCode.HANDLE_NOT_FOUND: ("not_found", "not_found_text"),
    ResponseCode.SERVER_NOT_RESPONSIBLE: ("refused", "not_responsible_text"),
    ResponseCode.INVALID_HANDLE: ("refused", "invalid_text"),
    ResponseCode.PROTOCOL_ERROR: ("refused", "parameter_text"),
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
            asked = identifier_of(text)
            parameters = exchange.parameters()
            query = Query(parameters.integers("index"), tuple(parameters.all("type")))
            caller = await caller_of(self._callers, exchange, now_s)
        except RefusedError as error:
            self._tally.count(now_s, error.code, CHANNEL_REDIRECT, source)
            return _problem(error.code, text, language)
        resolution = await self._resolver.resolve(
            asked,
            now_s,
            authoritative=parameters.flag("auth"),
            asker=asker_of(caller),
            do_not_refer=True,  # a browser does not speak to nodes
        )
        code, values = resolution.code, query.select(_values(resolution))
        if code == ResponseCode.SUCCESS and not values and not query.is_plain:
            code = ResponseCode.VALUES_NOT_FOUND
        self._tally.count(
            now_s,
            code,
            CHANNEL_REDIRECT,
            source,
            caller=caller,
            identifier=asked,
            resolution=resolution,
        )
        if resolution.code != ResponseCode.SUCCESS:
            return _problem(code, text, language, status_of(resolution))
        reply = _led(exchange, parameters, values, now_s) or record_page(
            asked.text, values, language, is_stale=resolution.stale_age_s is not None
        )
        if not parameters.values and asked.text == resolution.record.handle:
            _prepare(resolution, values)
        reply.headers.extend(stale_headers(resolution))
        return reply


def _values(resolution: Resolution) -> tuple[HandleValue, ...]:
    return resolution.record.values if resolution.code == ResponseCode.SUCCESS else ()


def _led(
    exchange: Exchange, parameters: Parameters, values: Sequence[HandleValue], now_s: float
) -> Reply | None:
    """Where the values lead, or None if they are to be shown."""
    action = parameters.first("action")
    if action == "showurls":
        return _urls(values)
    if parameters.flag("noredirect") or action == "showvalues":
        return None
    return (
        _alias(values, parameters, now_s)
        or _location(exchange, values, parameters, now_s)
        or _url(values, parameters, now_s)
    )


def _alias(values: Sequence[HandleValue], parameters: Parameters, now_s: float) -> Reply | None:
    if parameters.flag("ignore_aliases"):
        return None
    for value in values:
        if fold(value.type) == "HS_ALIAS":
            target = value.data.decode("utf-8", "replace").strip()
            if target:
                return _redirect(301, identifier_path(target), target, value, now_s)
    return None


def _location(
    exchange: Exchange, values: Sequence[HandleValue], parameters: Parameters, now_s: float
) -> Reply | None:
    locatt = [_pair(text) for text in parameters.all("locatt")[:LOCATT_MAX]]
    accept = exchange.header(b"accept")
    for value in values:
        if not _is_location(value):
            continue
        chosen = choose_location(
            value.data, locatt=locatt, accept=accept, random_unit=random.random()
        )
        if chosen is not None:
            reply = _redirect(chosen.http_status, chosen.href, chosen.href, value, now_s)
            if chosen.vary_accept:
                reply.headers.append((b"vary", b"Accept"))
            return reply
    return None


def _url(values: Sequence[HandleValue], parameters: Parameters, now_s: float) -> Reply | None:
    found = _url_target(values, parameters.first("urlappend") or "")
    return None if found is None else _redirect(302, *found, now_s)


def _url_target(values: Sequence[HandleValue], append: str) -> tuple[str, str, HandleValue] | None:
    """Where the first URL value that may be followed leads, how that is shown, and the value."""
    for value in _in_order(values):
        shown = value.data.decode("utf-8", "replace")
        location = redirect_target(shown, append)
        if location is not None:
            return location, shown + append, value
    return None


def _prepare(resolution: Resolution, values: Sequence[HandleValue]) -> None:
    """Keep the redirect for everybody who asks plainly, if it depends on nothing else."""
    prepared = resolution.entry.prepared if resolution.entry is not None else None
    if prepared is None or (prepared.redirect and prepared.prefix is resolution.prefix):
        return
    if any(fold(value.type) in _DEPENDING for value in values):
        return
    found = _url_target(values, "")
    if found is not None and found[2].ttl_type == TTL_RELATIVE:
        location, shown, value = found
        body = redirect_page(location, shown)
        place = location.encode("ascii")
        keep_redirect(prepared, resolution.record, resolution.prefix, value.ttl, place, body)


def _in_order(values: Iterable[HandleValue]) -> list[HandleValue]:
    """The URL values: those of exactly this type before those of a type below it."""
    found = [value for value in values if fold(f"{value.type}.").startswith("URL.")]
    return sorted(found, key=lambda value: fold(value.type) != "URL")


def _redirect(status: int, location: str, shown: str, value: HandleValue, now_s: float) -> Reply:
    since_s = now_s if value.ttl_type == TTL_RELATIVE else 0
    headers: Headers = [
        (b"expires", expires(since_s, value.ttl)),
        (b"location", location.encode("ascii")),
    ]
    return Reply(status, redirect_page(location, shown), HTML, headers)


def _urls(values: Sequence[HandleValue]) -> Reply:
    """Every place that the values lead to: the locations with their attributes, then the URLs."""
    found = [dict(location) for value in values for location in _locations(value)]
    targets = (
        redirect_target(value.data.decode("utf-8", "replace")) for value in _in_order(values)
    )
    found += [{"href": target} for target in targets if target is not None]
    rows = "".join(f"<location{_attributes(location)}/>" for location in found)
    return Reply(200, f"<locations>{rows}</locations>".encode(), b"text/xml;charset=utf-8")


def _locations(value: HandleValue) -> Iterable[dict[str, str]]:
    found = locations_from_xml(value.data) if _is_location(value) else None
    for location in () if found is None else found.entries:
        yield {**location.attributes, "href": location.href}


def _attributes(location: dict[str, str]) -> str:
    # A name in braces is of a namespace, whose declaration is not repeated here.
    return "".join(
        f" {name}={quoteattr(text)}" for name, text in location.items() if name[0] != "{"
    )


def _is_location(value: HandleValue) -> bool:
    return fold(value.type) == "10320/LOC"


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition(":")
    return key, value


def _without_scheme(text: str) -> str:
    for scheme in _SCHEMES:
        if text[: len(scheme)].lower() == scheme:
            return text[len(scheme) :]
    return text


def _problem(code: ResponseCode, text: str, language: str, status: int | None = None) -> Reply:
    title, message = _MESSAGES[code] if status != 429 else ("refused", "rate_text")
    reply = problem_page(status or http_status(code), title, message, text, language)
    reply.headers.extend(retry_later(code))
    return reply
