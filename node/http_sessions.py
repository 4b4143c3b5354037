"""Sessions of the Handle HTTP API, shared by all workers: made on one, proved and used on another.

Source: specs §1.5. A session has a place that its id allows, as native sessions have: who asks for
challenges without end pushes out those that nobody has answered yet, and never another. Redis has
neither the id that opens a session, nor anything from which a key could be guessed.
"""

import re
import secrets
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from node import session_places
from node.identity import Identity
from node.session_places import milliseconds
from resolver.hot_redis import RedisCache

# A session takes less than 1,000 bytes of Redis; this many take 16 MB.
HTTP_SESSIONS_MAX = 16_384
# A program answers a challenge at once; one that asks its user takes some minutes.
HTTP_CHALLENGE_PATIENCE_S = 600
# As long as Jetty, in which Handle.Net runs, keeps a session that is not used.
HTTP_SESSION_IDLE_MAX_S = 1_800
# However busy, nobody is believed longer than a day without proving it again.
HTTP_SESSION_LIFE_MAX_S = 86_400
# Both sides' nonces have 16 bytes.
NONCE_SIZE_BYTES = 16

_ID_SIZE_BYTES = 16
_ID = re.compile(r"[0-9a-f]{32}")

# KEYS: places. ARGV: patience and life (ms), nonce, then a name for each place. The clock of Redis
# is the one that all workers share. Fields: id (name of the session), n(once), a (who was
# authenticated), k(ind of the key), g (digest of the key), u(ntil, ms).
_OPEN_SCRIPT = f"""{session_places.CHOOSE}
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
redis.call('DEL', KEYS[place])
redis.call('HSET', KEYS[place], 'id', ARGV[3 + place], 'n', ARGV[3], 'a', '', 'k', '', 'g', '',
    'u', string.format('%.0f', until_ms))
redis.call('PEXPIRE', KEYS[place], ARGV[1])
return place
"""
# ARGV: name, idle limit after authentication (ms).
_GET_SCRIPT = """
local found = redis.call('HMGET', KEYS[1], 'id', 'n', 'a', 'k', 'g', 'u')
if found[1] ~= ARGV[1] then
    return
end
if found[3] ~= '' then
    local time = redis.call('TIME')
    local left = found[6] - time[1] * 1000 - math.floor(time[2] / 1000)
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(tonumber(ARGV[2]), left)))
end
return found
"""
# ARGV: name, idle limit (ms), who, kind and digest of the key.
_AUTHENTICATED_SCRIPT = """
local found = redis.call('HMGET', KEYS[1], 'id', 'u')
if found[1] ~= ARGV[1] then
    return 0
end
local time = redis.call('TIME')
local left = found[2] - time[1] * 1000 - math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'a', ARGV[3], 'k', ARGV[4], 'g', ARGV[5])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(tonumber(ARGV[2]), left)))
return 1
"""


@dataclass(frozen=True, slots=True)
class Proven:
    """Who somebody has proved to be, and the key that proved it, an HS_SECKEY or HS_PUBKEY."""

    identity: Identity
    kind: str
    key: bytes = field(repr=False)  # logs must not have it


@dataclass(frozen=True, slots=True)
class HttpSession:
    """What is known of a session; `nonce` is what its owner has to sign.

    `identity` is who the owner has proved to be with a key of `kind`, None until then.
    """

    session_id: str = field(repr=False)  # who has it may use it
    nonce: bytes
    identity: Identity | None = None
    kind: str = ""
    key_digest: bytes = field(default=b"", repr=False)

    def is_of_key(self, key: bytes) -> bool:
        """True if it was this key that proved who the owner is."""
        return secrets.compare_digest(_key_digest(self.session_id, key), self.key_digest)


class HttpSessions:
    """Sessions by id, which nobody can guess."""

    def __init__(
        self,
        cache: RedisCache,
        *,
        sessions_max: int = HTTP_SESSIONS_MAX,
        patience_s: float = HTTP_CHALLENGE_PATIENCE_S,
        idle_s: float = HTTP_SESSION_IDLE_MAX_S,
        life_s: float = HTTP_SESSION_LIFE_MAX_S,
    ) -> None:
        self._cache = cache
        self._places = sessions_max
        self._patience_s = patience_s
        self._idle_s = min(idle_s, life_s)
        self._life_s = life_s

    async def open(self) -> HttpSession:
        """A new session, whose owner nobody knows yet.

        Raises:
            CacheUnavailableError: if Redis does not answer, or if all places are taken by
                sessions of authenticated owners.
        """
        ids = [secrets.token_hex(_ID_SIZE_BYTES) for _ in range(session_places.CHOICES)]
        nonce = secrets.token_bytes(NONCE_SIZE_BYTES)
        names = [_name(one) for one in ids]
        patience_ms = milliseconds(min(self._patience_s, self._life_s))
        arguments: list[bytes | str | int] = [
            patience_ms,
            milliseconds(self._life_s),
            nonce,
            *names,
        ]
        keys = [self._place(name) for name in names]
        place = session_places.chosen(await self._cache.run(_OPEN_SCRIPT, keys, arguments))
        return HttpSession(ids[place], nonce)

    async def get(self, session_id: str) -> HttpSession | None:
        """The session of that id; None if there is none, or none any more.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        found = await self._run(_GET_SCRIPT, session_id, milliseconds(self._idle_s))
        if found is None:
            return None
        _, nonce, identity, kind, key_digest, _ = found
        return HttpSession(
            session_id=session_id,
            nonce=nonce,
            identity=Identity.from_text(identity.decode()) if identity else None,
            kind=kind.decode(),
            key_digest=key_digest,
        )

    async def authenticated(self, session: HttpSession, proven: Proven) -> HttpSession | None:
        """The session, with its owner known from now on; None if it has ended.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        digest = _key_digest(session.session_id, proven.key)
        done = await self._run(
            _AUTHENTICATED_SCRIPT,
            session.session_id,
            milliseconds(self._idle_s),
            str(proven.identity),
            proven.kind,
            digest,
        )
        if not done:
            return None
        return HttpSession(session.session_id, session.nonce, proven.identity, proven.kind, digest)

    async def close(self, session_id: str) -> bool:
        """End a session; False if it has ended already.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        return bool(await self._run(session_places.CLOSE_SCRIPT, session_id))

    async def _run(self, script: str, session_id: str, *arguments: bytes | str | int) -> Any:
        if not _ID.fullmatch(session_id):
            return None  # no id of ours: nothing to look for
        name = _name(session_id)
        return await self._cache.run(script, [self._place(name)], [name, *arguments])

    def _place(self, name: bytes) -> str:
        return f"h:{int.from_bytes(name[:8]) % self._places}"


def _name(session_id: str) -> bytes:
    """What Redis knows of an id."""
    return blake2b(session_id.encode(), digest_size=16, person=b"http session").digest()


def _key_digest(session_id: str, key: bytes) -> bytes:
    """A digest of a key that tells nothing of it to who does not know the id of the session."""
    salt = session_id.encode()
    return blake2b(key, key=salt, digest_size=16, person=b"http session").digest()
