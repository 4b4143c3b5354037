"""The shared cache (L2) and the bulletin of changes, in Redis or Valkey."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from resolver.entry import Entry, entry_from_bytes, entry_to_bytes
from resolver.errors import CacheUnavailableError, InvalidValueError

# A local or regional Redis answers within milliseconds; beyond this PostgreSQL is the better bet.
COMMAND_TIMEOUT_S = 0.5
# A silent connection is found out this soon: ping after the first, given up after the second.
PING_AFTER_S = 0.25
SILENCE_MAX_S = 0.75
RECONNECT_PAUSE_S = 0.1
CONNECTIONS_MAX = 16
# How long an entry stays in Redis: long past its freshness, for answers while PostgreSQL is away.
KEEP_S = 86_400
BULLETIN = "idnode:bulletin"
_RECORD, _EPOCH, _PREFIXES = "idnode:r:", "idnode:e:", "idnode:prefixes"

# The version stands first, as 16 digits: one atomic step compares and sets.
_FILL_SCRIPT = """
local done = 0
for i = 1, #KEYS do
    local known = redis.call('GETRANGE', KEYS[i], 0, 15)
    if #known < 16 or known <= string.sub(ARGV[i + 1], 1, 16) then
        redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1])
        done = done + 1
    end
end
return done
"""

Announcements = Sequence[tuple[str, str, int, str]]
"""Topic, key, version, epoch; the epoch for topic `registered`, whose key is a prefix key."""


class RedisCache:
    """Implements SharedCache; also carries announcements between workers.

    Nothing here is the truth: whatever fails becomes CacheUnavailableError, and the registry
    answers instead.
    """

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=COMMAND_TIMEOUT_S,
            socket_connect_timeout=COMMAND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            max_connections=CONNECTIONS_MAX,
        )
        self._fill_script = self._redis.register_script(_FILL_SCRIPT)
        self._waiting: list[tuple[str, asyncio.Future[bytes | None]]] = []
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX - 2)
        self.is_up = False
        self.is_trusted = False
        self.connection_number = 0

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        self.is_up = self.is_trusted = False
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def get_many(self, keys: Sequence[tuple[str, str]]) -> list[tuple[Entry | None, str]]:
        """See SharedCache. Questions of one turn of the event loop share one MGET."""
        prefixes = list({prefix_key for _, prefix_key in keys})
        wanted = [_RECORD + key for key, _ in keys] + [_EPOCH + key for key in prefixes]
        values = await asyncio.gather(*[self._get(key) for key in wanted])
        epochs = {
            prefix_key: (value or b"").decode("ascii", "replace")
            for prefix_key, value in zip(prefixes, values[len(keys) :], strict=True)
        }
        return [
            (_entry(value), epochs[prefix_key])
            for (_, prefix_key), value in zip(keys, values, strict=False)
        ]

    async def fill(self, entries: Sequence[tuple[str, Entry]], connection_number: int) -> None:
        """See SharedCache."""
        if connection_number != self.connection_number:
            return
        await self._command(
            self._fill_script(
                keys=[_RECORD + key for key, _ in entries],
                args=[KEEP_S, *(entry_to_bytes(entry) for _, entry in entries)],
            )
        )

    async def begin_epochs(self, prefix_keys: Sequence[str]) -> dict[str, str]:
        """Begin a new registration epoch below each prefix: earlier absences no longer hold."""
        epochs = {prefix_key: uuid.uuid4().hex for prefix_key in prefix_keys}
        if epochs:
            await self._command(
                self._redis.mset({_EPOCH + key: epoch for key, epoch in epochs.items()})
            )
        return epochs

    async def announce(self, announcements: Announcements) -> None:
        """Tell every worker."""
        await self._command(self._redis.publish(BULLETIN, orjson.dumps(announcements)))

    async def keep_prefixes(self, table: bytes) -> None:
        """Keep a copy of the table of prefixes, for a worker that starts without PostgreSQL."""
        await self._command(self._redis.set(_PREFIXES, table))

    async def kept_prefixes(self) -> bytes | None:
        """The copy of the table of prefixes."""
        value = await self._command(self._redis.get(_PREFIXES))
        return value if isinstance(value, bytes) else None

    async def listen(
        self,
        on_connect: Callable[[], Awaitable[None]],
        on_announcements: Callable[[Announcements], None],
        on_disconnect: Callable[[], None],
    ) -> None:
        """Keep a connection to the bulletin for ever, and notice at once when it is gone.

        `on_connect` runs before the cache is used again; when it returns, the cache is trusted.
        """
        while True:
            pubsub = self._redis.pubsub()
            settling: asyncio.Task[None] | None = None
            try:
                await self._command(pubsub.subscribe(BULLETIN))
                self.connection_number += 1
                self.is_up = True
                settling = asyncio.create_task(self._settle(on_connect))
                await self._follow(pubsub, on_announcements)
            except CacheUnavailableError:
                pass
            finally:
                self._lose()
                if settling is not None:
                    settling.cancel()
                    on_disconnect()
                with contextlib.suppress(RedisError, OSError, RuntimeError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
                with contextlib.suppress(RedisError, OSError):
                    await self._redis.connection_pool.disconnect()
            await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _settle(self, on_connect: Callable[[], Awaitable[None]]) -> None:
        await on_connect()
        self.is_trusted = True

    async def _follow(
        self, pubsub: PubSub, on_announcements: Callable[[Announcements], None]
    ) -> None:
        heard_s = time.monotonic()
        while self.is_up:
            message = await self._command(
                pubsub.get_message(ignore_subscribe_messages=True, timeout=PING_AFTER_S)
            )
            if message is not None:
                heard_s = time.monotonic()
                if message.get("type") == "message":
                    on_announcements(orjson.loads(message["data"]))
            elif time.monotonic() - heard_s > SILENCE_MAX_S:
                raise CacheUnavailableError("Redis is silent")
            else:
                await self._command(pubsub.ping())  # the pong counts as hearing from it

    def _lose(self) -> None:
        self.is_up = self.is_trusted = False

    async def _get(self, key: str) -> bytes | None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes | None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(lambda: loop.create_task(self._get_waiting()))
        self._waiting.append((key, future))
        return await future

    async def _get_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            values = await self._command(self._redis.mget([key for key, _ in waiting]))
        except CacheUnavailableError as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), value in zip(waiting, values, strict=True):
            if not future.done():
                future.set_result(value)

    async def _command(self, command: Awaitable[Any]) -> Any:
        try:
            async with self._slots, asyncio.timeout(2 * COMMAND_TIMEOUT_S):
                return await command
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            # The listener notices within a moment and tells everybody; until then nobody asks.
            self._lose()
            raise CacheUnavailableError(f"Redis did not answer: {error}") from error


def _entry(value: bytes | None) -> Entry | None:
    if value is None:
        return None
    try:
        return entry_from_bytes(value)
    except InvalidValueError:
        return None  # written by something else: as good as not there
