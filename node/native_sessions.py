"""Sessions of native clients, shared by all workers: set up on one socket, used on any other.

Source: specs §3.8. A session has a place that its id allows, as challenges have: who sets up
sessions without end pushes out those that nobody has authenticated yet, and never another.
"""

from dataclasses import dataclass, field
from typing import Any

from node import session_places
from node.identity import Identity
from node.native_ids import new_session_id
from node.session_places import milliseconds
from resolver.hot_redis import RedisCache
from resolver.identifier import IDENTIFIER_SIZE_BYTES_MAX

# A session takes 700 bytes of Redis, with the longest handles 1,200: all of them at most 20 MB.
SESSIONS_MAX = 16_384
# What Handle.Net gives a session that does not say; a client asks for 600.
SESSION_IDLE_MAX_S = 86_400
# However busy, a key is not used longer than this; the client sets up another one by itself.
SESSION_LIFE_MAX_S = 7 * 86_400
# A client authenticates itself with its first operation, at once.
UNAUTHENTICATED_IDLE_MAX_S = 600
# Counters of messages that were overtaken: what Handle.Net allows.
REPLAY_WINDOW = 200

_COUNTER_MAX = (1 << 31) - 1

# KEYS: places. ARGV: idle limits before and after authentication (ms), life (ms), key, encrypts,
# who is claimed, when it was opened, then an id for each place. The clock of Redis is the one
# that all workers share. Fields: id, k(ey), e(ncrypts), c(laimed), o(pened), a(uthenticated),
# t (idle limit, ms), f (the one after authentication), u(ntil, ms), h (highest counter), w(indow
# of counters below it, 1 for those seen), n (our own counter).
_OPEN_SCRIPT = f"""{session_places.CHOOSE}
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
redis.call('DEL', KEYS[place])
redis.call('HSET', KEYS[place], 'id', ARGV[7 + place], 'k', ARGV[4], 'e', ARGV[5],
    'c', ARGV[6], 'o', ARGV[7], 'a', '', 't', ARGV[1], 'f', ARGV[2],
    'u', string.format('%.0f', until_ms), 'h', '0', 'w', '', 'n', '0')
redis.call('PEXPIRE', KEYS[place], ARGV[1])
return place
"""
_GET_SCRIPT = """
local found = redis.call('HMGET', KEYS[1], 'id', 'k', 'e', 'c', 'a', 'o')
if found[1] == ARGV[1] then
    return found
end
"""
# The first character of the window stands for the highest counter, the last for the lowest.
_ADMIT_SCRIPT = """
local found = redis.call('HMGET', KEYS[1], 'id', 'h', 'w', 't', 'u')
if found[1] ~= ARGV[1] then
    return 0
end
local counter, highest, window = tonumber(ARGV[2]), tonumber(found[2]), found[3]
local size = tonumber(ARGV[3])
if counter > highest then
    local gap = math.min(counter - highest, size)
    window = string.sub('1' .. string.rep('0', gap - 1) .. window, 1, size)
    highest = counter
else
    local place = highest - counter + 1
    if place > size or string.sub(window, place, place) == '1' then
        return 0
    end
    window = string.sub(window, 1, place - 1) .. '1' .. string.sub(window, place + 1)
end
local time = redis.call('TIME')
local left = found[5] - time[1] * 1000 - math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'h', string.format('%.0f', highest), 'w', window)
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(found[4], left)))
return 1
"""
_NEXT_COUNTER_SCRIPT = """
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
    return 0
end
return redis.call('HINCRBY', KEYS[1], 'n', 1)
"""
_AUTHENTICATED_SCRIPT = """
local found = redis.call('HMGET', KEYS[1], 'id', 'f', 'u')
if found[1] ~= ARGV[1] then
    return 0
end
local time = redis.call('TIME')
local left = found[3] - time[1] * 1000 - math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'a', ARGV[2], 't', found[2])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(found[2], left)))
return 1
"""


@dataclass(frozen=True, slots=True)
class NativeSession:
    """What is known of a session.

    `key` is the 32 bytes that both sides agreed on; `encrypts` says that messages are encrypted;
    `claimed` is who the client said it is, `identity` who it has proved to be, and until then
    None. `opened_at_s` is when it was set up.
    """

    session_id: int
    key: bytes = field(repr=False)  # logs must not have it
    encrypts: bool
    claimed: Identity | None
    identity: Identity | None
    opened_at_s: float


class NativeSessions:
    """Sessions by id. Ids are random and even, those of challenges odd: none is both."""

    def __init__(
        self,
        cache: RedisCache,
        *,
        sessions_max: int = SESSIONS_MAX,
        unauthenticated_idle_s: float = UNAUTHENTICATED_IDLE_MAX_S,
        life_s: float = SESSION_LIFE_MAX_S,
    ) -> None:
        self._cache = cache
        self._places = sessions_max
        self._unauthenticated_idle_s = unauthenticated_idle_s
        self._life_s = life_s

    async def open(
        self,
        key: bytes,
        identity_claimed: Identity | None,
        encrypts: bool,
        timeout_s: float,
        now_s: float,
    ) -> int:
        """Begin a session that ends `timeout_s` after its last message; its id.

        A `timeout_s` of 0 or less means the longest that is allowed. Whoever claims a handle that
        is longer than any identifier claims none.

        Raises:
            CacheUnavailableError: if Redis does not answer, or if all places are taken by
                sessions of authenticated clients.
        """
        idle_s = min(timeout_s if timeout_s > 0 else SESSION_IDLE_MAX_S, SESSION_IDLE_MAX_S)
        idle_s = min(idle_s, self._life_s)
        ids = [new_session_id() for _ in range(session_places.CHOICES)]
        arguments: list[bytes | str | int] = [
            milliseconds(min(idle_s, self._unauthenticated_idle_s)),
            milliseconds(idle_s),
            milliseconds(self._life_s),
            key,
            int(encrypts),
            _claim(identity_claimed),
            repr(now_s),
        ]
        keys = [self._place(id_) for id_ in ids]
        place = session_places.chosen(await self._cache.run(_OPEN_SCRIPT, keys, [*arguments, *ids]))
        return ids[place]

    async def get(self, session_id: int) -> NativeSession | None:
        """The session of that id; None if there is none, or none any more.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        found = await self._run(_GET_SCRIPT, session_id)
        if found is None:
            return None
        _, key, encrypts, claimed, identity, opened_at_s = found
        return NativeSession(
            session_id=session_id,
            key=key,
            encrypts=encrypts == b"1",
            claimed=_identity(claimed),
            identity=_identity(identity),
            opened_at_s=float(opened_at_s),
        )

    async def admit(self, session_id: int, counter: int) -> bool:
        """True if a message with this counter is new: not seen yet, and not 200 behind another.

        To be asked once for a message, after its code was checked. The session lives on.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        if not 0 < counter <= _COUNTER_MAX:
            return False
        return bool(await self._run(_ADMIT_SCRIPT, session_id, counter, REPLAY_WINDOW))

    async def next_counter(self, session_id: int) -> int:
        """The counter of our next message: 1, 2, 3 …; 0 if the session has ended.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        return int(await self._run(_NEXT_COUNTER_SCRIPT, session_id))

    async def authenticated(self, session_id: int, identity: Identity) -> bool:
        """Remember who the client has proved to be; False if the session has ended.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        return bool(await self._run(_AUTHENTICATED_SCRIPT, session_id, str(identity)))

    async def close(self, session_id: int) -> bool:
        """End a session; False if it has ended already.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        return bool(await self._run(session_places.CLOSE_SCRIPT, session_id))

    async def _run(self, script: str, session_id: int, *arguments: str | int) -> Any:
        return await self._cache.run(script, [self._place(session_id)], [session_id, *arguments])

    def _place(self, session_id: int) -> str:
        return f"s:{session_id // 2 % self._places}"


def _claim(identity: Identity | None) -> str:
    # A handle longer than any identifier is nobody's, and only takes room.
    if identity is None or len(identity.handle.encode()) > IDENTIFIER_SIZE_BYTES_MAX:
        return ""
    return str(identity)


def _identity(text: bytes) -> Identity | None:
    if not text:
        return None
    index, _, handle = text.decode().partition(":")
    return Identity(handle, int(index))
