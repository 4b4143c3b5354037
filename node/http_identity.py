"""Who asks over HTTP, by the keys of a handle: secrets, signatures, sessions, certificates.

Nobody is believed over plain HTTP, where everybody reads along.

Source: specs §1.5; recorded exchanges of Handle.Net 9.3.1.
"""

import base64
import hmac
import ssl
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from node.administrators import PUBLIC_KEY, SECRET_KEY, Administrators
from node.client_certificate import is_key, subject_of
from node.http_exchange import Exchange, Headers, RefusedError, Reply
from node.http_proof import (
    Fields,
    Proof,
    authorization,
    basic_from_header,
    fields_from_header,
    nonce_of,
    proof_from_fields,
    proof_with_key,
)
from node.http_sessions import HttpSession, HttpSessions, Proven
from node.identity import Identity
from node.native_cost import CHALLENGE_MS, SIGNATURE_MS, AdmitsCost, comparison_ms
from node.node_key import NodeKey
from node.problems import refusal_of
from resolver.errors import (
    CacheUnavailableError,
    InvalidValueError,
    RegistryUnavailableError,
)
from resolver.identifier import Identifier
from resolver.response_code import ResponseCode

BASIC, HANDLE = "basic", "handle"
# The one reason that the reference gives, whatever is wrong.
NOT_VERIFIED: Final = "Identity not verified"
_SERVER_ALGORITHM: Final = "SHA-256"
_BASIC_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="handle"')
# A look-up and some comparisons or checks of RSA signatures, with up to a handful of keys.
_CHEAP_MS: Final = 4.0
_TRUE: Final = ("", "yes", "true")
_TOO_OFTEN: Final = "This address asks for too much cryptography: try again in a second"


class UnprovenError(RefusedError):
    """What was sent to prove an identity does not; `reason` is told to the caller."""

    def __init__(self, reason: str | None = NOT_VERIFIED) -> None:
        super().__init__(ResponseCode.AUTHENTICATION_NEEDED)
        self.reason = reason


class Identities(Protocol):
    """Tells the doors who asks, and answers who must say so first."""

    async def of(self, exchange: Exchange) -> Identity | None:
        """Who asks; None for nobody in particular.

        Raises:
            UnprovenError: if the caller says who it is and does not prove it.
            RefusedError: if it cannot be checked now.
        """

    async def refusal(
        self, identity: Identity, permission: int, asked: Identifier
    ) -> ResponseCode | None:
        """Why `identity` may not do this to an identifier, or None if it may."""

    async def reply_to(
        self, exchange: Exchange, error: RefusedError, handle_text: str | None = None
    ) -> Reply:
        """The reply to a refused request; it asks who the caller is where that would help."""


class NoIdentities:
    """Where nobody can prove anything: everybody is anonymous, or has an API key."""

    async def of(self, exchange: Exchange) -> Identity | None:
        """See Identities."""
        return None

    async def refusal(
        self, identity: Identity, permission: int, asked: Identifier
    ) -> ResponseCode | None:
        """See Identities."""
        return ResponseCode.INVALID_ADMIN

    async def reply_to(
        self, exchange: Exchange, error: RefusedError, handle_text: str | None = None
    ) -> Reply:
        """See Identities."""
        return refusal_of(error, handle_text)


NOBODY: Final = NoIdentities()


class HttpIdentities:
    """Identities as the registry knows them."""

    def __init__(
        self,
        administrators: Administrators,
        sessions: HttpSessions,
        node_key: NodeKey,
        *,
        trusted_proxies: tuple[str, ...],
        source_of: Callable[[Exchange], str],
        admits_cost: AdmitsCost,
    ) -> None:
        self._administrators = administrators
        self._sessions = sessions
        self._node_key = node_key
        self._trusted_proxies = frozenset(trusted_proxies)
        self._source_of = source_of
        self._admits_cost = admits_cost

    async def of(self, exchange: Exchange) -> Identity | None:
        """See Identities."""
        scheme, rest = authorization(exchange.header(b"authorization"))
        if scheme not in (BASIC, HANDLE) or not self.is_private(exchange):
            return None
        if scheme == BASIC:
            return (await self.proven_by_secret(exchange, rest)).identity
        fields = fields_from_header(rest)
        if "sessionId" in fields:
            return await self._of_session(exchange, fields)
        if fields.get("clientCert", "false").lower() in _TRUE:
            return await self._of_certificate(exchange)
        return None

    async def refusal(
        self, identity: Identity, permission: int, asked: Identifier
    ) -> ResponseCode | None:
        """See Identities."""
        try:
            return await self._administrators.refusal(identity, permission, asked)
        except RegistryUnavailableError:
            return ResponseCode.SERVER_TOO_BUSY

    async def reply_to(
        self, exchange: Exchange, error: RefusedError, handle_text: str | None = None
    ) -> Reply:
        """See Identities."""
        reply = refusal_of(error, handle_text)
        would_help = error.code == ResponseCode.AUTHENTICATION_NEEDED and error.status is None
        if not would_help or not self.is_private(exchange):
            return reply
        reply.status = 401
        reason = None
        if isinstance(error, UnprovenError):
            reply.body, reply.content_type, reason = b"", None, error.reason
        reply.headers += await self.challenge(exchange, reason)
        return reply

    def is_private(self, exchange: Exchange) -> bool:
        """True if nobody reads along: TLS up to here, or up to a proxy that is trusted."""
        if exchange.scope.get("scheme") == "https":
            return True
        if exchange.peer.removeprefix("::ffff:") not in self._trusted_proxies:
            return False
        # What a proxy adds comes last; what stands before it may be the caller's.
        protocols = (exchange.header(b"x-forwarded-proto") or "").split(",")
        return protocols[-1].strip().lower() == "https"

    async def challenge(
        self, exchange: Exchange, reason: str | None, session: HttpSession | None = None
    ) -> Headers:
        """The headers that ask who the caller is; `session` if that has to prove it."""
        scheme, rest = authorization(exchange.header(b"authorization"))
        fields = fields_from_header(rest) if scheme == HANDLE else {}
        session = session or await self._challenged(exchange, fields)
        headers: Headers = []
        is_script = exchange.header(b"x-requested-with") == "XMLHttpRequest"
        if (scheme != HANDLE and not is_script) or session is None:
            headers.append(_BASIC_CHALLENGE)  # which makes browsers ask their users
        if session is not None:
            shown = self.shown(exchange, session, fields)
            if reason is not None:
                shown["error"] = reason
            text = ", ".join(f'{name}="{value}"' for name, value in shown.items())
            headers.append((b"www-authenticate", f"Handle {text}".encode("ascii")))
        return headers

    def shown(self, exchange: Exchange, session: HttpSession, fields: Fields) -> dict[str, str]:
        """What the owner of a session is told of it, and our signature if it sent a nonce."""
        shown = {"sessionId": session.session_id, "nonce": _text(session.nonce)}
        try:
            nonce = nonce_of(fields, "cnonce")
        except InvalidValueError:
            return shown
        if nonce and self._admits_cost(self._source_of(exchange), SIGNATURE_MS):
            shown["serverAlg"] = _SERVER_ALGORITHM
            shown["serverSignature"] = _text(self._node_key.sign(session.nonce + nonce))
        return shown

    async def opened(self, exchange: Exchange) -> HttpSession:
        """A new session.

        Raises:
            RefusedError: if Redis is away, or the caller asks for too many.
        """
        self._charge(exchange, CHALLENGE_MS)
        try:
            return await self._sessions.open()
        except CacheUnavailableError as error:
            raise _unknown(error) from error

    async def session(self, fields: Fields) -> HttpSession:
        """The session that is named.

        Raises:
            UnprovenError: if there is none, or the key that opened it is gone.
            RefusedError: if it cannot be known now.
        """
        try:
            session = await self._sessions.get(fields.get("sessionId", ""))
            if session is not None and not await self._holds(session):
                await self._sessions.close(session.session_id)
                session = None
        except (CacheUnavailableError, RegistryUnavailableError) as error:
            raise _unknown(error) from error
        if session is None:
            raise UnprovenError(None)
        return session

    async def proven_session(
        self, exchange: Exchange, session: HttpSession, fields: Fields
    ) -> HttpSession:
        """The session, whose owner has answered its challenge.

        Raises:
            UnprovenError: if the answer is wrong, or the session has ended.
            RefusedError: if it cannot be checked now.
        """
        try:
            proof = proof_from_fields(fields, session.nonce)
        except InvalidValueError:
            raise UnprovenError from None
        return await self.authenticated(session, await self._proven(exchange, proof))

    async def authenticated(self, session: HttpSession, proven: Proven) -> HttpSession:
        """The session, which belongs to who was proven. Raises as `proven_session`."""
        try:
            found = await self._sessions.authenticated(session, proven)
        except CacheUnavailableError as error:
            raise _unknown(error) from error
        if found is None:
            raise UnprovenError(None)
        return found

    async def close(self, session: HttpSession) -> None:
        """End a session.

        Raises:
            RefusedError: if Redis is away.
        """
        try:
            await self._sessions.close(session.session_id)
        except CacheUnavailableError as error:
            raise _unknown(error) from error

    async def proven_by_secret(self, exchange: Exchange, text: str) -> Proven:
        """Who sends `Authorization: Basic` with `text`. Raises as `of`."""
        try:
            identity, secret = basic_from_header(text)
        except InvalidValueError:
            raise UnprovenError from None
        proof = Proof(
            identity,
            SECRET_KEY,
            lambda known: hmac.compare_digest(known, secret),
            comparison_ms(identity.index),
        )
        return await self._proven(exchange, proof)

    async def verified(self, exchange: Exchange, identity: Identity, fields: Fields) -> bool:
        """True if `identity` has signed the nonces in `fields`, with a key of either kind.

        Raises:
            InvalidValueError: if what is to be verified is no signature.
            RefusedError: if it cannot be checked now.
        """
        for name in ("nonce", "cnonce"):
            if name not in fields:
                raise InvalidValueError(f"{name}: expected base64")
        challenge = nonce_of(fields, "nonce") + nonce_of(fields, "cnonce")
        kinds = (fields["type"],) if fields.get("type") else (PUBLIC_KEY, SECRET_KEY)
        for proof in _proofs(identity, kinds, fields, challenge):
            try:
                await self._proven(exchange, proof)
            except UnprovenError:
                continue
            return True
        return False

    async def _of_session(self, exchange: Exchange, fields: Fields) -> Identity | None:
        session = await self.session(fields)
        if "signature" in fields:
            session = await self.proven_session(exchange, session, fields)
        return session.identity

    async def _of_certificate(self, exchange: Exchange) -> Identity:
        certificate = _certificate(exchange)
        if certificate is None:
            raise UnprovenError("No client certificate")
        try:
            identity, key = subject_of(certificate)
        except InvalidValueError:
            raise UnprovenError from None
        proof = Proof(
            identity, PUBLIC_KEY, lambda known: is_key(known, key), comparison_ms(identity.index)
        )
        return (await self._proven(exchange, proof)).identity

    async def _proven(self, exchange: Exchange, proof: Proof) -> Proven:
        """Who gave a proof. A cheap one costs only who fails: others send it with each request."""
        is_cheap = proof.cost_ms <= _CHEAP_MS
        self._charge(exchange, 0.0 if is_cheap else proof.cost_ms)
        keys: list[bytes] = []

        def is_proven_by(known: bytes) -> bool:
            if proof.is_of(known):
                keys.append(known)
            return bool(keys)

        try:
            identity = await self._administrators.proven(proof.identity, proof.kind, is_proven_by)
        except RegistryUnavailableError as error:
            raise _unknown(error) from error
        if identity is None:
            if is_cheap:
                self._admits_cost(self._source_of(exchange), proof.cost_ms)
            raise UnprovenError
        return Proven(identity, proof.kind, keys[0])

    async def _holds(self, session: HttpSession) -> bool:
        """False if the key that proved who the owner is was removed or changed."""
        if session.identity is None:
            return True
        keys = await self._administrators.keys(session.identity, session.kind)
        return any(session.is_of_key(key) for key in keys)

    async def _challenged(self, exchange: Exchange, fields: Fields) -> HttpSession | None:
        """The session of a challenge: the caller's own if it has one; None without Redis."""
        try:
            return await self.session(fields)
        except RefusedError:
            pass
        try:
            return await self.opened(exchange)
        except RefusedError:
            return None

    def _charge(self, exchange: Exchange, cost_ms: float) -> None:
        if not self._admits_cost(self._source_of(exchange), cost_ms):
            raise RefusedError(ResponseCode.SERVER_TOO_BUSY, _TOO_OFTEN, status=429)


def is_identity_claimed(exchange: Exchange) -> bool:
    """True if the caller says that it has a key of a handle: who it is has to be looked up."""
    return authorization(exchange.header(b"authorization"))[0] in (BASIC, HANDLE)


def _proofs(
    identity: Identity, kinds: Iterable[str], fields: Fields, challenge: bytes
) -> list[Proof]:
    """The ways in which the signature in `fields` can be one.

    Raises:
        InvalidValueError: if it cannot be one.
    """
    found: list[Proof] = []
    problem: InvalidValueError | None = None
    for kind in kinds:
        try:
            found.append(proof_with_key(identity, kind, fields, challenge))
        except InvalidValueError as error:
            problem = error
    if problem is not None and not found:
        raise problem
    return found


def _certificate(exchange: Exchange) -> bytes | None:
    """The certificate (DER) for which the caller has proved at the handshake to have the key."""
    tls = (exchange.scope.get("extensions") or {}).get("tls", {}).get("ssl_object")
    return tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None


def _unknown(error: Exception) -> RefusedError:
    return RefusedError(ResponseCode.SERVER_TOO_BUSY, f"Who asks cannot be checked: {error}")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
