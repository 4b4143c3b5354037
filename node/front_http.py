"""The HTTP front: which door answers which request.

Resolving goes straight from bytes to a door; writing and administration go through FastAPI.
"""

import contextlib
import logging
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from metrics.dimension import (
    CHANNEL_BATCH,
    CHANNEL_HTTP_JSON,
    CHANNEL_NATIVE_HTTP,
    CHANNEL_REDIRECT,
)
from node import door_batch, door_json
from node.admission import Admission
from node.door_batch import BatchDoor
from node.door_home import PREFIXES, HomeDoor
from node.door_json import JsonDoor
from node.door_list import ListDoor
from node.door_redirect import RedirectDoor
from node.door_session import SESSIONS, THIS_SESSION, SessionDoor
from node.door_verify import VERIFICATIONS, VerifyDoor
from node.fast_path import FastPath
from node.http_exchange import (
    DisconnectedError,
    Exchange,
    Headers,
    Parameters,
    RefusedError,
    Reply,
    send_reply,
)
from node.native_tunnel import NativeTunnel, is_tunneled
from node.pages import form_page, identifier_path, language_of
from node.prepared_answers import finish
from node.problems import refusal, refusal_of
from resolver.response_code import ResponseCode

_log = logging.getLogger("idnode.http")

FORM_SIZE_BYTES_MAX = 4_096
_PREFLIGHT: Headers = [
    (b"access-control-max-age", b"86400"),
    (b"access-control-allow-methods", b"GET,POST,HEAD,PUT,DELETE"),
    (
        b"access-control-allow-headers",
        b"X-Requested-With,Authorization,Origin,Accept,Content-Type,X-API-Key",
    ),
]
_ROBOTS = b"User-agent: *\nCrawl-delay: 1\nRequest-rate: 1/1\n"
# 1 x 1 pixel, so that browsers stop asking.
_FAVICON = bytes.fromhex(
    "00000100010001010000010018003000000016000000280000000100000002000000010018000000000004000000"
    "0000000000000000000000000000000000c4812f0000000000"
)
# Paths that the framework serves.
FRAMEWORK_PATHS = frozenset(
    (b"/health", b"/ready", b"/metrics", b"/openapi.json", b"/api/measures")
)
_READS = ("GET", "HEAD")
# What is served beside identifiers below /.
_NO_IDENTIFIERS = frozenset((b"/favicon.ico", b"/robots.txt", b"/help.html"))
# What is served below /api besides identifiers, and where more than reading is served.
_METHODS = {
    b"/": (*_READS, "POST"),
    b"": (*_READS, "POST"),
    b"/api/handles": (*_READS, "POST"),
    b"/api/resolve": ("POST",),
    b"/api/prefixes": _READS,
    b"/api/site": _READS,
    b"/api/measures": _READS,
    SESSIONS: (*_READS, "POST"),
    THIS_SESSION: (*_READS, "PUT", "POST", "DELETE"),
}
# The same of whole folders.
_METHODS_BELOW = {
    door_json.PATH: (*_READS, "POST", "PUT", "DELETE"),
    PREFIXES: ("POST", "DELETE"),
    VERIFICATIONS: _READS,
}


@dataclass(frozen=True, slots=True)
class IdentityDoors:
    """The doors for identities of the Handle protocol."""

    sessions: SessionDoor
    verify: VerifyDoor
    home: HomeDoor


@dataclass(frozen=True, slots=True)
class Doors:
    """The doors behind the front."""

    json: JsonDoor
    redirect: RedirectDoor
    batch: BatchDoor
    listing: ListDoor
    # None where native messages are not taken inside HTTP.
    tunnel: NativeTunnel | None = None
    # None where nobody has an identity.
    identity: IdentityDoors | None = None


class Front:
    """The ASGI application."""

    def __init__(
        self,
        doors: Doors,
        framework: ASGIApp,
        now_s: Callable[[], float],
        fast: FastPath,
        admission: Admission,
    ) -> None:
        self.fast = fast
        self._doors = doors
        self._framework = framework
        self._now_s = now_s
        self._admission = admission
        self.refused = admission.count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no lifespan and no web sockets: nothing to say
        with self._admission:
            await self._answer(scope, self._admission.waiting(receive), send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive)
        try:
            reply = await self._reply(exchange)
        except DisconnectedError:
            return
        except Exception:
            # Ours to mend: the log has the traceback, the caller one line.
            _log.exception("request failed: %s %r", exchange.method, exchange.path[:300])
            reply = refusal(ResponseCode.ERROR, "Internal error, see the log")
        if reply is None:
            # Routes see the path as it was sent: no character of a name means anything to them.
            sent = {**scope, "path": exchange.path.decode("latin-1")}
            with contextlib.suppress(DisconnectedError):
                sending = self._admission.watching(_with_cors(exchange, send))
                await self._framework(sent, receive, sending)
            return
        self._admission.answered(reply.status)
        reply.headers.extend(_cors(exchange))
        finish(reply, accepts_gzip=exchange.accepts_gzip)
        await send_reply(send, reply, with_body=exchange.method != "HEAD")

    async def _reply(self, exchange: Exchange) -> Reply | None:
        """The reply of a door, or None for what the framework answers."""
        path, method = exchange.path, exchange.method
        tunnel = self._doors.tunnel if is_tunneled(exchange) else None
        channel = _channel(path, method) if tunnel is None else CHANNEL_NATIVE_HTTP
        refused = self._admission.refusal(exchange, channel, self._now_s())
        if refused is not None:
            return refused
        if tunnel is not None:
            return await tunnel.answer(exchange)
        methods = _methods(path)
        if not methods:
            return _unknown_endpoint(exchange)
        if method == "OPTIONS":
            return _options(exchange, methods)
        if method not in methods:
            return _unknown_method(method, methods)
        if path in FRAMEWORK_PATHS:
            return None
        if path.startswith(door_json.PATH):
            if method in ("PUT", "DELETE"):
                return None
            return await self._doors.json.answer(exchange, self._now_s())
        if path.startswith(b"/api/"):
            return await self._api(exchange, path, method)
        return await self._web(exchange, path)

    async def _api(self, exchange: Exchange, path: bytes, method: str) -> Reply | None:
        if path == door_batch.PATH:
            return await self._doors.batch.answer(exchange, self._now_s())
        if path == b"/api/prefixes":
            return await self._doors.listing.prefixes(exchange, self._now_s())
        if path == b"/api/site":
            return self._doors.listing.site()
        if path != b"/api/handles":
            return await self._of_identities(exchange, path)
        if method == "POST":
            return None
        return await self._doors.listing.identifiers(exchange, self._now_s())

    async def _of_identities(self, exchange: Exchange, path: bytes) -> Reply:
        doors = self._doors.identity
        if doors is None:
            return _unknown_endpoint(exchange)
        if path.startswith(VERIFICATIONS):
            return await doors.verify.answer(exchange)
        if path.startswith(PREFIXES):
            return await doors.home.answer(exchange, self._now_s())
        return await doors.sessions.answer(exchange)

    async def _web(self, exchange: Exchange, path: bytes) -> Reply:
        if path in (b"/", b""):
            return await _root(exchange)
        if path == b"/favicon.ico":
            return Reply(200, _FAVICON, b"image/x-icon")
        if path == b"/robots.txt":
            return Reply(200, _ROBOTS, b"text/plain")
        if path == b"/help.html":
            return Reply(302, content_type=None, headers=[(b"location", b"/")])
        return await self._doors.redirect.answer(exchange, self._now_s())


def _methods(path: bytes) -> tuple[str, ...]:
    """The methods that are served at `path`; none where there is nothing."""
    if not _is_api(path):
        return _METHODS.get(path, _READS)
    for folder, methods in _METHODS_BELOW.items():
        if path.startswith(folder):
            return methods
    return _METHODS.get(path, ())


def _is_api(path: bytes) -> bool:
    return path == b"/api" or path.startswith(b"/api/")


def _channel(path: bytes, method: str) -> str | None:
    """The channel of a resolution; None for what is none."""
    if path.startswith(door_json.PATH):
        return CHANNEL_HTTP_JSON if method in (*_READS, "POST") else None
    if path == door_batch.PATH:
        return CHANNEL_BATCH if method == "POST" else None
    is_other = path in _METHODS or path in FRAMEWORK_PATHS or path in _NO_IDENTIFIERS
    is_web = method in _READS and not is_other and not _is_api(path)
    return CHANNEL_REDIRECT if is_web else None


async def _root(exchange: Exchange) -> Reply:
    if exchange.method != "POST":
        return form_page(language_of(exchange.header(b"accept-language")))
    try:
        form = Parameters.from_form(await exchange.body(FORM_SIZE_BYTES_MAX))
    except RefusedError as error:
        return refusal_of(error)
    asked = (form.first("hdl") or "").strip()
    location = identifier_path(asked) if asked else "/"
    return Reply(303, content_type=None, headers=[(b"location", location.encode("ascii"))])


def _options(exchange: Exchange, methods: tuple[str, ...]) -> Reply:
    preflight = exchange.header(b"access-control-request-method") is not None
    if preflight and exchange.header(b"origin") is not None:
        return Reply(200, content_type=None, headers=list(_PREFLIGHT))
    return Reply(200, content_type=None, headers=[_allow(methods)])


def _unknown_method(method: str, methods: tuple[str, ...]) -> Reply:
    # The reference answers 501; a method that is known but not served here is 405
    # (RFC 9110 §15.5.6), and no client input may look like a failure of the node.
    message = f"Unknown method {method[:40]}"
    reply = refusal_of(RefusedError(ResponseCode.PROTOCOL_ERROR, message, status=405))
    reply.headers.append(_allow(methods))
    return reply


def _allow(methods: tuple[str, ...]) -> tuple[bytes, bytes]:
    return b"allow", ", ".join((*methods, "OPTIONS")).encode("ascii")


def _unknown_endpoint(exchange: Exchange) -> Reply:
    shown = exchange.path[:300].decode("ascii", "replace")
    message = f"Unknown HTTP API endpoint {exchange.method} {shown}"
    return refusal_of(RefusedError(ResponseCode.PROTOCOL_ERROR, message, status=404))


def _cors(exchange: Exchange) -> Headers:
    origin = exchange.header(b"origin")
    if not origin or not origin.isprintable():
        return []
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"vary", b"Origin"),
        (b"access-control-expose-headers", b"Content-Length"),
    ]


def _with_cors(exchange: Exchange, send: Send) -> Send:
    extra = _cors(exchange)
    if not extra:
        return send

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sending
