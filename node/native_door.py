"""The door of the Handle protocol: one whole message in, the messages of its answer out.

Source: specs §3.2 to §3.8 and §4; recorded exchanges of Handle.Net 9.3.1 and two Chinese SDKs.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from node.administration import Administration
from node.administrators import Administrators
from node.native_administration import OPERATIONS, NativeAdministration
from node.native_asked import Asked, rejection
from node.native_challenge import Challenges
from node.native_cost import SIGNATURE_MS, AdmitsCost
from node.native_entrance import Entrance
from node.native_login import Logins
from node.native_peer import Peer
from node.native_resolution import ResolutionDoor, counted_as
from node.native_seal import Seal
from node.native_session_door import SessionDoor
from node.native_sessions import NativeSessions
from node.node_key import NodeKey
from node.pending_challenges import PendingChallenges
from node.tally import Tally
from resolver.errors import CacheUnavailableError, RegistryUnavailableError
from resolver.prefix_directory import PrefixDirectory
from resolver.resolve import Resolver
from resolver.response_code import ResponseCode
from resolver.wire import (
    ENCRYPTED,
    ENVELOPE_SIZE_BYTES,
    ChallengeAnswer,
    InvalidMessageError,
    LoginRequest,
    Message,
    Opcode,
    OpFlag,
    Request,
    ResolutionRequest,
    SessionSetup,
    SiteInfo,
    SiteResponse,
    VerificationRequest,
    refusal,
    request_body,
)

__all__ = ["NativeDoor", "Peer"]

_log = logging.getLogger("idnode")

_LOGINS: Final = frozenset({Opcode.LOGIN_ID_SYSTEM, Opcode.LOGIN_ID_SYSTEM_OLD})
_TOO_OFTEN: Final = "This address asks for too many signatures: try again in a second"
_NOT_DONE: Final = "nothing is confirmed as written: try again"

# How the ledger knows a question that is over a limit.
_OVER_LIMIT: Final = ResponseCode.AUTHENTICATION_FAILED

_Act: TypeAlias = Callable[[Asked], Awaitable[list[bytes]]]


class NativeDoor:
    """Answers messages of every transport.

    `site` is what we are known as (its serial goes into every answer), `admits_cost` whether a
    source may have some milliseconds of cryptography.
    """

    def __init__(
        self,
        resolver: Resolver,
        directory: PrefixDirectory,
        administrators: Administrators,
        administration: Administration,
        pending: PendingChallenges,
        sessions: NativeSessions,
        node_key: NodeKey,
        tally: Tally,
        *,
        site: Callable[[], SiteInfo],
        admits_cost: AdmitsCost,
        now_s: Callable[[], float],
    ) -> None:
        self._site = site
        self._admits_cost = admits_cost
        self._now_s = now_s
        self._tally = tally
        self._entrance = Entrance(sessions)
        self._challenges = Challenges(pending, sessions, administrators, admits_cost)
        self._logins = Logins(self._challenges, administrators)
        self._session_door = SessionDoor(sessions, admits_cost)
        self._resolution = ResolutionDoor(resolver, directory, administrators, self._logins, tally)
        self._administration = NativeAdministration(administration, self._logins, admits_cost)
        self._seal = Seal(sessions, node_key)

    async def answer(self, message: bytes, peer: Peer) -> list[bytes]:
        """The messages that answer one whole message, each with its envelope.

        There are none for what is itself an answer, or so damaged that nobody can be answered.
        Whatever is wrong is said in the answer; nothing is raised. A resolution is counted once:
        when it is answered, not when it is challenged.
        """
        now_s = self._now_s()
        try:
            asked = await self._entrance.asked(message, peer, now_s, self._site().serial)
        except InvalidMessageError as error:
            return [] if _looks_like_a_reply(message) else self._malformed(error, peer, now_s)
        if asked is None:
            return []
        if isinstance(asked, Message):
            return [self._refused(asked, peer, now_s)]
        # Before anything is done: afterwards the answer could not be kept back any more.
        wants_signature = asked.session is None and asked.request.flags & OpFlag.CERT
        if wants_signature and not self._admits_cost(peer.source, SIGNATURE_MS):
            busy = asked.refused(ResponseCode.SERVER_TOO_BUSY, _TOO_OFTEN)
            return [self._refused(busy, peer, now_s, is_signed=False)]
        return await self._attempted(asked, self._answered)

    async def _attempted(self, asked: Asked, act: _Act) -> list[bytes]:
        """The replies of `act`, or the one that says why there are none."""
        try:
            return await act(asked)
        except InvalidMessageError as error:
            if asked.lacks_code and asked.message.envelope.is_encrypted:
                return [rejection(asked.message.envelope, asked.site_serial).to_wire()]
            return self._malformed(error, asked.peer, asked.now_s)
        except RegistryUnavailableError as error:
            is_write = asked.request.opcode in OPERATIONS
            code = ResponseCode.SERVER_BACKUP if is_write else ResponseCode.SERVER_TOO_BUSY
            return await self._could_not(asked, code, f"{error}; {_NOT_DONE}")
        except CacheUnavailableError as error:
            return await self._could_not(asked, ResponseCode.SERVER_TOO_BUSY, str(error))
        except Exception:
            _log.exception("a native request was not answered")
            return await self._could_not(asked, ResponseCode.ERROR, "Server error")

    async def _answered(self, asked: Asked) -> list[bytes]:
        body = request_body(asked.request)
        if isinstance(body, ChallengeAnswer):
            return await self._after_challenge(asked, body)
        replies = await self._performed(asked, body)
        if replies is None:
            replies = [await self._challenges.begun(asked)]
        sent = [await self._seal.sealed(asked, reply) for reply in replies]
        if asked.request.opcode == Opcode.SESSION_TERMINATE and asked.has_code:
            await self._session_door.ended(asked)
        return sent

    async def _after_challenge(self, asked: Asked, body: ChallengeAnswer) -> list[bytes]:
        login = asked.peer.logins.pop(asked.request.envelope.session_id, None)
        if login is not None:
            reply = await self._logins.finished(asked, body, login)
            return [await self._seal.sealed(asked, reply)]
        found = await self._challenges.answered(asked, body)
        if isinstance(found, Asked):
            return await self._attempted(found, self._answered)
        if found.opcode == Opcode.RESOLUTION:
            self._resolution.count(asked, found.response_code)
        return [await self._seal.sealed(asked, found)]

    async def _performed(self, asked: Asked, body: Request) -> Sequence[Message] | None:
        """The replies to an operation; None if the asker must first say who it is."""
        opcode = asked.request.opcode
        if opcode in OPERATIONS:
            return await self._administration.replies(asked, body)
        if opcode == Opcode.RESOLUTION:
            assert isinstance(body, ResolutionRequest)
            reply = await self._resolution.reply(asked, body)
            return None if reply is None else [reply]
        return [await self._simple(asked, body)]

    async def _simple(self, asked: Asked, body: Request) -> Message:
        """The one reply to an operation that needs no challenge."""
        opcode = asked.request.opcode
        if opcode == Opcode.GET_SITE_INFO:
            return asked.reply(ResponseCode.SUCCESS, SiteResponse(self._site()).to_wire())
        if opcode in _LOGINS and isinstance(body, LoginRequest | ResolutionRequest):
            return self._logins.begun(asked, body)
        if isinstance(body, VerificationRequest):
            return await self._challenges.verified(asked, body)
        if isinstance(body, SessionSetup):
            return await self._session_door.opened(asked, body)
        if opcode == Opcode.SESSION_TERMINATE:
            return self._session_door.terminated(asked)
        text = f"operation {opcode} is not served here"
        return asked.refused(ResponseCode.OPERATION_NOT_SUPPORTED, text)

    async def _could_not(self, asked: Asked, code: ResponseCode, text: str) -> list[bytes]:
        reply = asked.refused(code, text)
        try:
            return [await self._seal.sealed(asked, reply)]
        except CacheUnavailableError:
            # Without a code the client will not believe it, but it need not wait.
            plain = replace(asked, session=None).refused(code, text)
            return [_unsigned(plain).to_wire()]

    def _malformed(self, error: InvalidMessageError, peer: Peer, now_s: float) -> list[bytes]:
        reply = refusal(error, site_serial=self._site().serial)
        return [] if reply is None else [self._refused(reply, peer, now_s)]

    def _refused(
        self, reply: Message, peer: Peer, now_s: float, *, is_signed: bool = True
    ) -> bytes:
        """A refusal from before anything was done; of a resolution it is counted."""
        if reply.opcode == Opcode.RESOLUTION:
            code = counted_as(reply.response_code) if is_signed else _OVER_LIMIT
            self._tally.count(now_s, code, peer.channel, peer.source)
        if is_signed and reply.flags & OpFlag.CERT:
            is_signed = self._admits_cost(peer.source, SIGNATURE_MS)
        reply = self._seal.signed(reply) if is_signed else _unsigned(reply)
        return reply.to_wire()


def _unsigned(reply: Message) -> Message:
    return replace(reply, flags=int(reply.flags & ~OpFlag.CERT))


def _looks_like_a_reply(message: bytes) -> bool:
    """True for a damaged message in the clear that has a response code, as requests have not."""
    place = ENVELOPE_SIZE_BYTES + 4
    is_clear = len(message) > 2 and not message[2] & ENCRYPTED
    return is_clear and any(message[place : place + 4])
