"""Asking who somebody is, and judging the answer.

Source: specs §3.5; recorded challenges of Handle.Net 9.3.1.
"""

import secrets
from dataclasses import replace
from typing import Final

from node.administrators import PUBLIC_KEY, SECRET_KEY, Administrators
from node.identity import Identity
from node.native_asked import Asked
from node.native_cost import CHALLENGE_MS, AdmitsCost, answer_ms
from node.native_sessions import NativeSessions
from node.pending_challenges import Pending, PendingChallenges
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.record import Reference
from resolver.response_code import ResponseCode
from resolver.wire import (
    ChallengeAnswer,
    DigestAlgorithm,
    Message,
    Verification,
    VerificationRequest,
)

# As Handle.Net's are.
NONCE_SIZE_BYTES: Final = 16
_TOO_LATE: Final = "No challenge waits for this answer: ask again"
_TOO_OFTEN: Final = "This address asks for too much cryptography: try again in a second"
_SESSION_ENDED: Final = "The session has ended: set up a new one"


class Challenges:
    """Challenges whose answers may come to any worker."""

    def __init__(
        self,
        pending: PendingChallenges,
        sessions: NativeSessions,
        administrators: Administrators,
        admits_cost: AdmitsCost,
    ) -> None:
        self._pending = pending
        self._sessions = sessions
        self._administrators = administrators
        self._admits_cost = admits_cost

    async def begun(self, asked: Asked) -> Message:
        """The reply that asks who it is; the request waits for the answer."""
        if not self._admits_cost(asked.peer.source, CHALLENGE_MS):
            return asked.refused(ResponseCode.SERVER_TOO_BUSY, _TOO_OFTEN)
        nonce, session = secrets.token_bytes(NONCE_SIZE_BYTES), asked.session
        session_id = 0 if session is None else session.session_id
        try:
            named = await self._pending.put(asked.request.to_wire(), nonce, session_id, asked.now_s)
        except CacheUnavailableError as error:
            return asked.refused(ResponseCode.SERVER_TOO_BUSY, str(error))
        return asked.challenge(nonce, named)

    async def answered(self, asked: Asked, body: ChallengeAnswer) -> Asked | Message:
        """The request that was waiting, with who asks it; or the reply that says no.

        `asked` is the answer. One answer is judged to each challenge.
        """
        try:
            pending = await self._pending.take(asked.request.envelope.session_id)
        except CacheUnavailableError as error:
            return asked.rejected(ResponseCode.SERVER_TOO_BUSY, str(error))
        if pending is None:
            return asked.rejected(ResponseCode.AUTHENTICATION_TIMEOUT, _TOO_LATE)
        waiting = _waiting(asked, pending)
        challenge = pending.nonce + waiting.request.digest().digest
        identity = await self.identity(waiting, body, challenge)
        if isinstance(identity, Message):
            return identity
        return await self._known(waiting, identity)

    async def _known(self, waiting: Asked, identity: Identity) -> Asked | Message:
        session = waiting.session
        if session is None:
            return replace(waiting, proven=identity)
        try:
            lives = await self._sessions.authenticated(session.session_id, identity)
        except CacheUnavailableError as error:
            return waiting.refused(ResponseCode.SERVER_TOO_BUSY, str(error))
        if not lives:
            return waiting.refused(ResponseCode.SESSION_TIMEOUT, _SESSION_ENDED)
        return replace(waiting, proven=identity)

    async def identity(
        self, asked: Asked, body: ChallengeAnswer, challenge: bytes
    ) -> Identity | Message:
        """Who answered `challenge`, or the reply to `asked` that says that nobody did."""
        kind = body.authentication_type
        if kind not in (PUBLIC_KEY, SECRET_KEY):
            text = f"expected an answer with {PUBLIC_KEY} or {SECRET_KEY}"
            return asked.refused(ResponseCode.AUTHENTICATION_ERROR, text)
        found = await self._proven(asked, body.key, kind, body.signed, challenge)
        if found is None:
            return asked.refused(ResponseCode.AUTHENTICATION_FAILED)
        return found

    async def verified(self, asked: Asked, body: VerificationRequest) -> Message:
        """The reply that says whether somebody's answer to another one's challenge is right."""
        kind = PUBLIC_KEY if body.signed[:1] == b"\x00" else SECRET_KEY
        challenge = body.nonce + _without_algorithm(body.digest)
        found = await self._proven(asked, body.key, kind, body.signed, challenge)
        if isinstance(found, Message):
            return found
        return asked.reply(ResponseCode.SUCCESS, Verification(found is not None).to_wire())

    async def _proven(
        self, asked: Asked, key: Reference, kind: str, signed: bytes, challenge: bytes
    ) -> Identity | Message | None:
        if not self._admits_cost(asked.peer.source, answer_ms(kind, signed, key.index)):
            return asked.refused(ResponseCode.SERVER_TOO_BUSY, _TOO_OFTEN)
        identity = Identity(key.handle, key.index)
        try:
            return await self._administrators.authenticate(identity, kind, signed, challenge)
        except RegistryUnavailableError as error:
            return asked.refused(ResponseCode.SERVER_TOO_BUSY, str(error))


def _waiting(asked: Asked, pending: Pending) -> Asked:
    """The request to which `asked` answers the challenge."""
    return replace(asked, request=Message.from_wire(pending.request), answered=asked.request)


def _without_algorithm(digest: bytes) -> bytes:
    """A digest without the byte before it that names its algorithm, if there is one.

    Source: specs §3.4 has the byte, the recorded request has not; only the digest is signed.
    """
    known = {one.value: one.size_bytes for one in DigestAlgorithm}
    is_named = bool(digest) and known.get(digest[0]) == len(digest) - 1
    return digest[1:] if is_named else digest
