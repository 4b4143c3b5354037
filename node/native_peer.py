"""Who sent a native message, and what is remembered of a connection."""

from dataclasses import dataclass, field
from typing import Final

from metrics.dimension import CHANNEL_NATIVE_TCP
from node.identity import Identity
from resolver.wire import Message

# Challenges of one connection that wait for their answer: clients log in once, seldom anew.
LOGINS_PENDING_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login that was challenged.

    `request` is what its reply is made from, without the body, which may be long; `challenge` the
    nonce and the digest; `identity` who wants to log in.
    """

    request: Message
    challenge: bytes = field(repr=False)
    identity: Identity
    asked_at_s: float


@dataclass(slots=True, eq=False)
class Peer:
    """The sender of messages: `source` is its address as text, `channel` one of the native ones.

    A TCP connection has one Peer for its whole life, which holds who has logged in on it; of a
    datagram or a tunnelled message nothing is kept.
    """

    source: str
    channel: str
    identity: Identity | None = None
    # With which type of key, and a digest of the keys of `identity`: with others it is not proven.
    key_type: str = ""
    keys_digest: bytes = b""
    logins: dict[int, PendingLogin] = field(default_factory=dict, repr=False)
    has_tried_login: bool = False

    @property
    def is_connection(self) -> bool:
        """True if later messages of the same client come with this very object."""
        return self.channel == CHANNEL_NATIVE_TCP

    def keep_login(self, session_id: int, login: PendingLogin) -> None:
        """Remember a login until its challenge is answered; the oldest one gives way."""
        self.has_tried_login = True
        self.logins.pop(session_id, None)
        while len(self.logins) >= LOGINS_PENDING_MAX:
            del self.logins[next(iter(self.logins))]
        self.logins[session_id] = login
