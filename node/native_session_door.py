"""Beginning and ending sessions: SESSION_SETUP with Diffie-Hellman, SESSION_TERMINATE.

Source: specs §3.8; recorded sessions of Handle.Net 9.3.1.
"""

import secrets
from typing import Final

from node.identity import Identity
from node.native_asked import Asked
from node.native_cost import AdmitsCost, agreement_ms
from node.native_sessions import NativeSessions
from resolver.errors import CacheUnavailableError, InvalidValueError
from resolver.response_code import ResponseCode
from resolver.wire import (
    SESSION_BY_DH,
    DhOffer,
    DhPublicKey,
    Message,
    OpFlag,
    SessionResponse,
    SessionSetup,
)

# Twice the strength that the group of 4,096 bits has, and fifteen times as fast as full length.
_EXPONENT_BITS: Final = 256
# What Handle.Net puts behind its answer.
_PADDING: Final = bytes(2)
_ONLY_DH: Final = "Sessions are agreed on by Diffie-Hellman (mode 4)"
_TOO_OFTEN: Final = "This address sets up too many sessions: try again in a second"


class SessionDoor:
    """Opens and closes sessions."""

    def __init__(self, sessions: NativeSessions, admits_cost: AdmitsCost) -> None:
        self._sessions = sessions
        self._admits_cost = admits_cost

    async def opened(self, asked: Asked, body: SessionSetup) -> Message:
        """Our half of the key, under the number of the new session."""
        if body.mode != SESSION_BY_DH:
            return asked.refused(ResponseCode.INVALID_SESSION_SETUP, _ONLY_DH)
        try:
            theirs = DhPublicKey.from_wire(body.key)
        except InvalidValueError as error:
            return asked.refused(ResponseCode.INVALID_SESSION_SETUP, str(error))
        if not self._admits_cost(asked.peer.source, agreement_ms(theirs.p.bit_length())):
            return asked.refused(ResponseCode.SERVER_TOO_BUSY, _TOO_OFTEN)
        return await self._agreed(asked, body, theirs)

    async def _agreed(self, asked: Asked, body: SessionSetup, theirs: DhPublicKey) -> Message:
        private = 1 << _EXPONENT_BITS - 1 | secrets.randbits(_EXPONENT_BITS - 1)
        claimed = Identity(body.identity.handle, body.identity.index)
        encrypts = bool(asked.request.flags & OpFlag.ENCR)
        try:
            key = theirs.session_key(private)
            session_id = await self._sessions.open(
                key, claimed, encrypts, body.timeout_s, asked.now_s
            )
        except InvalidValueError as error:
            return asked.refused(ResponseCode.INVALID_SESSION_SETUP, str(error))
        except CacheUnavailableError as error:
            return asked.refused(ResponseCode.SERVER_TOO_BUSY, str(error))
        offer = DhOffer(theirs.of_private(private))
        answer = SessionResponse(SESSION_BY_DH, offer.to_wire(), _PADDING)
        return asked.reply(ResponseCode.SUCCESS, answer.to_wire(), session_id=session_id)

    def terminated(self, asked: Asked) -> Message:
        """The reply to who ends its session; `ended` does it when the reply is made."""
        if asked.session is None:
            return asked.refused(ResponseCode.SESSION_TIMEOUT)
        if not asked.has_code:
            return asked.refused(ResponseCode.INVALID_SESSION_KEY)
        return asked.reply(ResponseCode.SUCCESS)

    async def ended(self, asked: Asked) -> None:
        """End the session in which `asked` came.

        Raises:
            CacheUnavailableError: if Redis does not answer; it ends by itself when it is idle.
        """
        if asked.session is not None:
            await self._sessions.close(asked.session.session_id)
