"""From a reply to the bytes that are sent: signed, or with the code of its session, or encrypted.

Source: specs §3.2 and §3.8; recorded replies of Handle.Net 9.3.1.
"""

from node.native_asked import Asked
from node.native_sessions import NativeSessions
from node.node_key import NodeKey
from resolver import wire
from resolver.session_cipher import encrypted
from resolver.wire import Message, OpFlag


class Seal:
    """Vouches for replies where the request wants it (CERT)."""

    def __init__(self, sessions: NativeSessions, node_key: NodeKey) -> None:
        self._sessions = sessions
        self._node_key = node_key

    async def sealed(self, asked: Asked, reply: Message) -> bytes:
        """`reply` to `asked` as it is sent.

        Raises:
            CacheUnavailableError: if a code is wanted and Redis does not answer.
            InvalidMessageError: if it is longer than anybody accepts.
        """
        session = asked.session
        if session is None:
            return self.signed(reply).to_wire()
        if reply.flags & OpFlag.CERT:
            counter = await self._sessions.next_counter(session.session_id)
            reply = reply.authenticated(session.key, counter) if counter else reply
        if reply.envelope.is_encrypted:
            return wire.sealed(reply.envelope, encrypted(session.key, reply.content))
        return reply.to_wire()

    def signed(self, reply: Message) -> Message:
        """`reply` with the node's signature if it is to have one; about 1 ms."""
        return self._node_key.signed(reply) if reply.flags & OpFlag.CERT else reply
