"""One native request on its way to its reply."""

from dataclasses import dataclass, replace
from typing import Final

from node.identity import Identity
from node.native_ids import CLIENT_IDS_END
from node.native_peer import Peer
from node.native_sessions import NativeSession
from resolver.response_code import ResponseCode
from resolver.wire import (
    ENCRYPTED,
    Challenge,
    Envelope,
    ErrorResponse,
    Message,
    OpFlag,
)

NOT_OF_SESSION: Final = "Session request missing MAC code."


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation, and what is known about who asks for it.

    `request` is the operation itself, in the clear; `answered` is set where it was challenged: the
    answer to the challenge, to which the reply goes. `session` is the one it came in, and
    `has_code` says that its credential is of that session. `proven` is who answered the challenge.
    """

    request: Message
    peer: Peer
    now_s: float
    site_serial: int
    answered: Message | None = None
    session: NativeSession | None = None
    has_code: bool = False
    proven: Identity | None = None

    @property
    def message(self) -> Message:
        """What the client has sent last, and waits for the reply to."""
        return self.answered or self.request

    @property
    def identity(self) -> Identity | None:
        """Who asks, if that is proven: by a challenge, a session or a login, in this order."""
        if self.proven is not None:
            return self.proven
        if self.session is not None:
            return self.session.identity if self.has_code else None
        return self.peer.identity

    @property
    def is_by_login(self) -> bool:
        """True if only the login on the connection says who asks."""
        return self.proven is None and self.session is None and self.peer.identity is not None

    @property
    def lacks_code(self) -> bool:
        """True for what came in a session, but could be from anybody who guesses its number."""
        return self.session is not None and not self.has_code and self.proven is None

    @property
    def is_encrypted(self) -> bool:
        """True if the reply must be."""
        session = self.session
        asked = self.message.envelope.is_encrypted or self.request.flags & OpFlag.ENCR
        return session is not None and bool(session.encrypts or asked)

    @property
    def session_id(self) -> int:
        """What the envelope of the reply names: the session, or the client's own number."""
        if self.session is not None:
            return self.session.session_id
        named = self.message.envelope.session_id
        return named if named < CLIENT_IDS_END else 0

    def reply(
        self, code: ResponseCode, body: bytes = b"", *, session_id: int | None = None
    ) -> Message:
        """The reply that says `code`; encrypted, if it is to be, is what its envelope says only."""
        reply = self.request.reply(
            code,
            body,
            site_serial=self.site_serial,
            digest=self.message.digest() if self.request.flags & OpFlag.RRDG else None,
            session_id=self.session_id if session_id is None else session_id,
            answers=self.answered,
        )
        return to_be_encrypted(reply) if self.is_encrypted else reply

    def refused(self, code: ResponseCode, text: str | None = None) -> Message:
        """The reply that says no, and why."""
        return self.reply(code, ErrorResponse(text or "").to_wire())

    def challenge(self, nonce: bytes, session_id: int) -> Message:
        """The reply that asks who it is. Source: specs §3.5: the digest is always there."""
        reply = self.request.reply(
            ResponseCode.AUTHENTICATION_NEEDED,
            Challenge(nonce).to_wire(),
            site_serial=self.site_serial,
            digest=self.request.digest(),
            session_id=session_id,
        )
        return to_be_encrypted(reply) if self.is_encrypted else reply

    def rejected(self, code: ResponseCode, text: str) -> Message:
        """As `refused`, unless nothing vouches for an encrypted message."""
        if self.lacks_code and self.message.envelope.is_encrypted:
            return rejection(self.message.envelope, self.site_serial)
        return self.refused(code, text)


def to_be_encrypted(reply: Message) -> Message:
    """`reply` with an envelope that says so; its content is encrypted when it is sent."""
    return replace(reply, envelope=replace(reply.envelope, flags=ENCRYPTED))


def rejection(
    envelope: Envelope,
    site_serial: int,
    code: ResponseCode = ResponseCode.INVALID_CREDENTIAL,
    text: str = NOT_OF_SESSION,
) -> Message:
    """The refusal of an encrypted message whose content nothing vouches for.

    By default it is the same whatever was wrong, so that nobody finds out what a message says by
    sending changed ones; not even the operation is named.
    """
    return Message(
        envelope.reply(),
        0,
        ErrorResponse(text).to_wire(),
        response_code=code,
        flags=int(OpFlag.AUTH),
        site_serial=site_serial,
    )
