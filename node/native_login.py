"""Logging in on a connection, as Chinese clients do it (IDIS, opcodes 2001 and 2000).

From then on the connection is that of an administrator; sessions and codes have no part in it.

Source: specs §4; recorded connections of two SDKs.
"""

import hashlib
import secrets
from dataclasses import replace
from typing import Final

from node.administrators import Administrators
from node.identity import Identity
from node.native_asked import Asked
from node.native_challenge import NONCE_SIZE_BYTES, Challenges
from node.native_ids import CLIENT_IDS_END
from node.native_peer import Peer, PendingLogin
from node.pending_challenges import CHALLENGE_PATIENCE_S
from resolver.response_code import ResponseCode
from resolver.wire import ChallengeAnswer, LoginRequest, Message, ResolutionRequest

_NO_CONNECTION: Final = "Log in over TCP: only a connection can be logged in on"
_TOO_LATE: Final = "The challenge is too old: log in again"
_OTHER: Final = "Another handle has answered than the one that logs in"


class Logins:
    """Logins that begin and end on one connection."""

    def __init__(self, challenges: Challenges, administrators: Administrators) -> None:
        self._challenges = challenges
        self._administrators = administrators

    def begun(self, asked: Asked, body: LoginRequest | ResolutionRequest) -> Message:
        """The challenge, under the client's own session number if it has one."""
        if not asked.peer.is_connection:
            return asked.refused(ResponseCode.OPERATION_NOT_SUPPORTED, _NO_CONNECTION)
        session_id = asked.request.envelope.session_id or _new_id()
        nonce = secrets.token_bytes(NONCE_SIZE_BYTES)
        asked.peer.keep_login(session_id, _pending(asked, nonce, _who(body)))
        return asked.challenge(nonce, session_id)

    async def finished(self, asked: Asked, body: ChallengeAnswer, login: PendingLogin) -> Message:
        """The reply to the login, whose challenge `asked` answers; with success the connection is
        that of an administrator."""
        request = replace(asked, request=login.request, answered=asked.request)
        named = asked.request.envelope.session_id
        if not 0 <= asked.now_s - login.asked_at_s <= CHALLENGE_PATIENCE_S:
            return request.refused(ResponseCode.AUTHENTICATION_TIMEOUT, _TOO_LATE)
        if Identity(body.key.handle, 0).key != login.identity.key:
            return request.refused(ResponseCode.AUTHENTICATION_FAILED, _OTHER)
        identity = await self._challenges.identity(request, body, login.challenge)
        if isinstance(identity, Message):
            return identity
        await self._keep(asked.peer, identity, body.authentication_type)
        return request.reply(ResponseCode.SUCCESS, session_id=named)

    async def holds(self, peer: Peer) -> bool:
        """True if who has logged in could still prove it with the same keys.

        Otherwise the login is void: whoever was taken a key away, is taken its rights away.

        Raises:
            RegistryUnavailableError: if PostgreSQL does not answer.
        """
        identity = peer.identity
        if identity is None:
            return False
        keys = await self._administrators.keys(identity, peer.key_type)
        if keys and _digest(keys) == peer.keys_digest:
            return True
        peer.identity = None
        return False

    async def _keep(self, peer: Peer, identity: Identity, key_type: str) -> None:
        keys = await self._administrators.keys(identity, key_type)
        peer.identity, peer.key_type = identity, key_type
        peer.keys_digest = _digest(keys)


def _pending(asked: Asked, nonce: bytes, identity: Identity) -> PendingLogin:
    challenge = nonce + asked.request.digest().digest
    head = replace(asked.request, body=b"", credential=None)
    return PendingLogin(head, challenge, identity, asked.now_s)


def _who(body: LoginRequest | ResolutionRequest) -> Identity:
    if isinstance(body, LoginRequest):
        return Identity(body.key.handle, body.key.index)
    return Identity(body.handle, body.indexes[0] if body.indexes else 0)


def _new_id() -> int:
    # Odd, as the ids of other challenges: it cannot be taken for a session.
    return CLIENT_IDS_END + 2 * secrets.randbelow(CLIENT_IDS_END) + 1


def _digest(keys: list[bytes]) -> bytes:
    return hashlib.sha256(b"".join(hashlib.sha256(key).digest() for key in keys)).digest()
