"""`/api/sessions`: sessions in which who asks is proved once (specs §1.5).

Over plain HTTP there are none: whoever reads along could use them.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from node.http_exchange import Exchange, Parameters, RefusedError, Reply, document_of
from node.http_identity import (
    BASIC,
    HANDLE,
    NOT_VERIFIED,
    HttpIdentities,
    UnprovenError,
)
from node.http_proof import Fields, authorization, fields_from_header
from node.http_sessions import HttpSession
from resolver.handle_json import dump

SESSIONS, THIS_SESSION = b"/api/sessions", b"/api/sessions/this"
# A signature of 8,192 bits and a handle take 2 kB.
BODY_SIZE_BYTES_MAX = 16 * 1024
_LOCATION: Final = (b"location", THIS_SESSION)


class SessionDoor:
    """Opens sessions, takes the answers to their challenges, and ends them."""

    def __init__(self, identities: HttpIdentities) -> None:
        self._identities = identities

    async def answer(self, exchange: Exchange) -> Reply:
        """The reply to a request for a session."""
        if not self._identities.is_private(exchange):
            return Reply(403, content_type=None)
        is_this = exchange.path == THIS_SESSION
        act = self._acts(exchange.method) if is_this else self._open
        try:
            return await act(exchange, await _fields(exchange))
        except RefusedError as error:
            return await self._identities.reply_to(exchange, error)

    def _acts(self, method: str) -> "Callable[[Exchange, Fields], Awaitable[Reply]]":
        if method == "DELETE":
            return self._close
        return self._prove if method in ("PUT", "POST") else self._show

    async def _open(self, exchange: Exchange, fields: Fields) -> Reply:
        session, reason = await self._identities.opened(exchange), None
        scheme, rest = authorization(exchange.header(b"authorization"))
        if scheme == BASIC:
            try:
                proven = await self._identities.proven_by_secret(exchange, rest)
                session = await self._identities.authenticated(session, proven)
            except UnprovenError:
                reason = NOT_VERIFIED
        shown = self._identities.shown(exchange, session, fields)
        return Reply(201, _document(session, shown, reason), headers=[_LOCATION])

    async def _show(self, exchange: Exchange, fields: Fields) -> Reply:
        session = await self._identities.session(fields)
        shown = self._identities.shown(exchange, session, fields)
        return Reply(200, _document(session, shown))

    async def _prove(self, exchange: Exchange, fields: Fields) -> Reply:
        session = await self._identities.session(fields)
        try:
            proven = await self._identities.proven_session(exchange, session, fields)
        except UnprovenError as error:
            headers = await self._identities.challenge(exchange, error.reason, session)
            return Reply(401, content_type=None, headers=headers)
        # The caller has signed its own nonce already: what is left to say is who it is.
        return Reply(200, _document(proven, self._identities.shown(exchange, proven, {})))

    async def _close(self, exchange: Exchange, fields: Fields) -> Reply:
        await self._identities.close(await self._identities.session(fields))
        return Reply(204, content_type=None)


def _document(session: HttpSession, shown: dict[str, str], reason: str | None = None) -> bytes:
    document: dict[str, object] = {**shown}
    if session.identity is not None:
        document |= {"authenticated": True, "id": str(session.identity)}
    if reason is not None:
        document["error"] = reason
    return dump(document)


async def _fields(exchange: Exchange) -> dict[str, str]:
    """The fields of the header, and those of the body, which go first.

    Raises:
        BadRequestError: if the body cannot be understood.
    """
    scheme, rest = authorization(exchange.header(b"authorization"))
    found = fields_from_header(rest) if scheme == HANDLE else {}
    body = await exchange.body(BODY_SIZE_BYTES_MAX) if exchange.method in ("PUT", "POST") else b""
    if not body:
        return found
    if exchange.media_type == "application/x-www-form-urlencoded":
        sent = Parameters.from_form(body)
    else:
        sent = Parameters.from_document(document_of(body))
    return found | {name: values[0] for name, values in sent.values.items() if values}
