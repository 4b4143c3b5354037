"""Requests that wait for the answer to a challenge, where every worker finds them.

A request is put into one of a few places that its id allows, first come first served; where all
are taken the one looked at last gives way. So nobody can fill the memory, an unanswered flood does
not lock anybody out for longer than it lasts, and there is no list to fall out of step.
"""

import struct
from dataclasses import dataclass, field
from hashlib import blake2b

from node.native_ids import new_challenge_id
from resolver.errors import InvalidValueError
from resolver.hot_redis import RedisCache
from resolver.wire import ENVELOPE_SIZE_BYTES, MESSAGE_SIZE_BYTES_MAX

# As long as Handle.Net waits (its max_auth_time); people do not type the answer, programs do.
CHALLENGE_PATIENCE_S = 60
# Two shelves of places: 32 MiB of requests as they are, and 32 MiB of requests with whole records.
# A node that is asked 100 times a second and gets no answer at all has 6,000 of them waiting.
SMALL_PENDING_MAX = 8_192
SMALL_SIZE_BYTES_MAX = 4_096
LARGE_PENDING_MAX = 128
# A nonce has 16 bytes; the protocol's codec takes up to 64.
NONCE_SIZE_BYTES_MAX = 64

# Places of one id on each shelf: with half of them taken, one request in 16 pushes another out.
_CHOICES = 4
_NUMBERS = struct.Struct(">8H")
_HEAD = struct.Struct(">dIB")

# KEYS: the shelf of the request, then the other one. ARGV: how long (ms), name, what is kept.
# A later request under the same name takes the place of the earlier one.
_PUT_SCRIPT = """
local choices, place = #KEYS / 2, nil
for i = 1, #KEYS do
    if redis.call('GETRANGE', KEYS[i], 0, 15) == ARGV[2] then
        redis.call('DEL', KEYS[i])
    end
end
for i = choices, 1, -1 do
    if not place or redis.call('EXISTS', KEYS[i]) == 0 then
        place = KEYS[i]
    end
end
redis.call('SET', place, ARGV[2] .. ARGV[3], 'PX', ARGV[1])
"""
_TAKE_SCRIPT = """
for i = 1, #KEYS do
    if redis.call('GETRANGE', KEYS[i], 0, 15) == ARGV[1] then
        local kept = redis.call('GET', KEYS[i])
        redis.call('DEL', KEYS[i])
        return kept
    end
end
"""


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that was challenged.

    `request` is the whole message with its envelope, decrypted if it came encrypted;
    `session_id` is the session it belongs to, or 0; `asked_at_s` is when it was challenged.
    """

    request: bytes = field(repr=False)  # may bring a secret key
    nonce: bytes
    session_id: int
    asked_at_s: float


class PendingChallenges:
    """Requests by the id under which the answer to their challenge comes back.

    An id that is made here is odd, the id of a session (NativeSessions) even: none is both.
    """

    def __init__(
        self,
        cache: RedisCache,
        *,
        patience_s: float = CHALLENGE_PATIENCE_S,
        small_max: int = SMALL_PENDING_MAX,
        large_max: int = LARGE_PENDING_MAX,
    ) -> None:
        self._cache = cache
        self._patience_ms = max(1, round(1000 * patience_s))
        self._small_max = small_max
        self._large_max = large_max

    async def put(
        self, request: bytes, nonce: bytes, session_id: int, now_s: float, *, scope: str = ""
    ) -> int:
        """Keep a request until its challenge is answered; the id for the reply's envelope.

        That is `session_id` unless it is 0; of one session only the latest request waits. `scope`
        keeps apart what the same `session_id` means on different connections, for clients that
        number sessions by themselves.

        Raises:
            CacheUnavailableError: if Redis does not answer.
            InvalidValueError: if the request or the nonce is longer than any.
        """
        _require_size(request, nonce)
        id_ = session_id or new_challenge_id()
        head = _HEAD.pack(now_s, session_id, len(nonce))
        small, large = self._places(name := _name(scope, id_))
        kept = head + nonce + request
        places = small + large if len(kept) <= SMALL_SIZE_BYTES_MAX else large + small
        await self._cache.run(_PUT_SCRIPT, places, [self._patience_ms, name, kept])
        return id_

    async def take(self, id_: int, *, scope: str = "") -> Pending | None:
        """The request that waits under an id, once; None if there is none any more.

        Of several who ask at the same time one gets it.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        small, large = self._places(name := _name(scope, id_))
        kept = await self._cache.run(_TAKE_SCRIPT, small + large, [name])
        return None if kept is None else _pending(kept[_NUMBERS.size :])

    def _places(self, name: bytes) -> tuple[list[str], list[str]]:
        numbers = _NUMBERS.unpack(name)
        small = [f"c:s:{number % self._small_max}" for number in numbers[:_CHOICES]]
        large = [f"c:l:{number % self._large_max}" for number in numbers[_CHOICES:]]
        return small, large


def _name(scope: str, id_: int) -> bytes:
    data = id_.to_bytes(4) + scope.encode()
    return blake2b(data, digest_size=_NUMBERS.size, person=b"challenge").digest()


def _require_size(request: bytes, nonce: bytes) -> None:
    if len(request) > ENVELOPE_SIZE_BYTES + MESSAGE_SIZE_BYTES_MAX:
        raise InvalidValueError(f"request of {len(request)} bytes: longer than any message")
    if len(nonce) > NONCE_SIZE_BYTES_MAX:
        raise InvalidValueError(f"nonce of {len(nonce)} bytes: at most {NONCE_SIZE_BYTES_MAX}")


def _pending(kept: bytes) -> Pending:
    asked_at_s, session_id, nonce_size_bytes = _HEAD.unpack_from(kept)
    nonce_end = _HEAD.size + nonce_size_bytes
    nonce, request = kept[_HEAD.size : nonce_end], kept[nonce_end:]
    return Pending(request, nonce, session_id, asked_at_s)
