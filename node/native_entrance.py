"""From received bytes to what is asked: decoded, decrypted, and checked against its session.

Source: specs §3.8; recorded sessions of Handle.Net 9.3.1.
"""

from dataclasses import replace
from typing import Final

from node.native_asked import NOT_OF_SESSION, Asked, rejection
from node.native_ids import CLIENT_IDS_END
from node.native_peer import Peer
from node.native_sessions import NativeSession, NativeSessions
from resolver.errors import CacheUnavailableError, InvalidValueError
from resolver.response_code import ResponseCode
from resolver.session_cipher import decrypted
from resolver.wire import (
    MAC,
    Envelope,
    InvalidMessageError,
    Message,
    Opcode,
    OpFlag,
    envelope_and_content,
)

_UNKNOWN_SESSION: Final = "Unknown session: set up a new one"
_SEEN_BEFORE: Final = "Session message was seen before"


class Entrance:
    """Lets messages in that are what their envelopes say."""

    def __init__(self, sessions: NativeSessions) -> None:
        self._sessions = sessions

    async def asked(
        self, data: bytes, peer: Peer, now_s: float, site_serial: int
    ) -> Asked | Message | None:
        """What one whole message asks for, or the reply that refuses it; None for a reply.

        Raises:
            InvalidMessageError: if it is no message.
        """
        envelope, content = envelope_and_content(data)
        if envelope.is_encrypted:
            return await self._encrypted(envelope, content, peer, now_s, site_serial)
        asked = Asked(Message.from_content(envelope, content), peer, now_s, site_serial)
        if not asked.request.is_request:
            return None
        return await self._in_session(asked) if _names_session(asked.request) else asked

    async def _in_session(self, asked: Asked) -> Asked | Message:
        session_id = asked.request.envelope.session_id
        try:
            session = await self._sessions.get(session_id)
            if session is None:
                return asked.refused(ResponseCode.SESSION_TIMEOUT, _UNKNOWN_SESSION)
            return await self._vouched(asked, session)
        except CacheUnavailableError as error:
            # What everybody may read is read without Redis, unless a code is wanted with it.
            if _is_public_question(asked.request):
                return asked
            return asked.refused(ResponseCode.SERVER_TOO_BUSY, str(error))

    async def _vouched(self, asked: Asked, session: NativeSession) -> Asked | Message:
        code = await self._refusal(asked.request, session)
        if code is None:
            return replace(asked, session=session, has_code=_has_code(asked.request))
        is_replay = code == ResponseCode.SESSION_MESSAGE_REJECTED
        return asked.refused(code, _SEEN_BEFORE if is_replay else NOT_OF_SESSION)

    async def _refusal(self, message: Message, session: NativeSession) -> ResponseCode | None:
        """Why the code of a message is not accepted; None if it is, or if there is none."""
        credential = message.credential
        if credential is None or credential.type != MAC:
            return None
        if not message.is_authenticated_by(session.key):
            return ResponseCode.INVALID_CREDENTIAL
        if not await self._sessions.admit(session.session_id, credential.session_counter):
            return ResponseCode.SESSION_MESSAGE_REJECTED
        return None

    async def _encrypted(
        self, envelope: Envelope, content: bytes, peer: Peer, now_s: float, site_serial: int
    ) -> Asked | Message:
        try:
            session = await self._sessions.get(envelope.session_id)
            if session is None:
                code = ResponseCode.SESSION_TIMEOUT
                return rejection(envelope, site_serial, code, _UNKNOWN_SESSION)
            message = Message.from_content(envelope, decrypted(session.key, content))
            asked = Asked(message, peer, now_s, site_serial)
            return await self._acceptable(asked, session)
        except (InvalidValueError, InvalidMessageError):
            return rejection(envelope, site_serial)
        except CacheUnavailableError as error:
            return rejection(envelope, site_serial, ResponseCode.SERVER_TOO_BUSY, str(error))

    async def _acceptable(self, asked: Asked, session: NativeSession) -> Asked | Message:
        """An encrypted request if its code is right; only answers to challenges have none.

        Source: recorded: the stock client sends no code with an answer to a challenge.
        """
        message = asked.request
        is_answer = message.opcode == Opcode.RESPONSE_TO_CHALLENGE and message.credential is None
        if not message.is_request or not (is_answer or _has_code(message)):
            return rejection(message.envelope, asked.site_serial)
        code = await self._refusal(message, session)
        if code is None:
            return replace(asked, session=session, has_code=not is_answer)
        if code == ResponseCode.INVALID_CREDENTIAL:
            return rejection(message.envelope, asked.site_serial)
        return rejection(message.envelope, asked.site_serial, code, _SEEN_BEFORE)


def _has_code(message: Message) -> bool:
    return message.credential is not None and message.credential.type == MAC


def _names_session(message: Message) -> bool:
    """True if the number in the envelope is of a session: not of a client's own, nor that of a
    challenge, to which only an answer comes."""
    named = message.envelope.session_id
    if named < CLIENT_IDS_END:
        return False
    return message.opcode != Opcode.RESPONSE_TO_CHALLENGE or not named % 2


def _is_public_question(message: Message) -> bool:
    asks = message.opcode in (Opcode.RESOLUTION, Opcode.GET_SITE_INFO)
    return asks and message.flags & (OpFlag.PUBL | OpFlag.CERT) == OpFlag.PUBL
