"""The shared cache (L2) and the bulletin of changes, in Redis or Valkey."""

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from resolver.bulletin import FIRST_BITS, Numbering, body_to_bytes, message_from_bytes
from resolver.entry import Announcements, Entry, Shelf, entry_from_bytes, entry_to_bytes
from resolver.errors import CacheUnavailableError, InvalidValueError

# A local or regional Redis answers within milliseconds; beyond this PostgreSQL is the better bet.
COMMAND_TIMEOUT_S = 0.5
# The bulletin is asked this often whether it still arrives, and given up after this silence:
# before the entries of the process cache end being believed (freshness.HEARD_S).
PING_EVERY_S = 0.25
SILENCE_MAX_S = 0.75
RECONNECT_PAUSE_S = 0.1
CONNECTIONS_MAX = 16
# How long an entry stays in Redis: long past its freshness, for answers while PostgreSQL is away.
KEEP_S = 86_400
# Longer than any fetch from the registry takes, and than "not found" is believed.
TICKET_KEEP_S = 60
_BULLETIN, _PREFIXES, _USES = "idnode:bulletin", "idnode:prefixes", "idnode:uses"
_TICKET = b"~"

# What is missing gets a ticket; the epoch of a prefix is one, too: lost, it is a new one.
_GET_SCRIPT = """
local found = {}
for i = 1, #KEYS do
    found[i] = redis.call('GET', KEYS[i])
    if not found[i] then
        found[i] = ARGV[1]
        redis.call('SET', KEYS[i], ARGV[1], 'EX', ARGV[2])
    end
end
return found
"""
# An entry begins with its version in 16 digits, so that one atomic step compares and sets. Where
# nothing is, nothing is put: it may have been a newer version that was flushed or evicted.
_FILL_SCRIPT = """
for i = 1, #KEYS do
    local known = redis.call('GETRANGE', KEYS[i], 0, 63)
    local ticket, entry = ARGV[2 * i], ARGV[2 * i + 1]
    local is_ticket = string.sub(known, 1, 1) == '~'
    if (is_ticket and known == ticket)
        or (not is_ticket and known ~= '' and string.sub(known, 1, 16) <= string.sub(entry, 1, 16))
    then
        redis.call('SET', KEYS[i], entry, 'EX', ARGV[1])
    end
end
"""
# First the shared cache, then the bulletin: who hears of a change finds nothing older. A number
# that the server has lost begins anew somewhere else, which is noticed like a hole.
_ANNOUNCE_SCRIPT = """
local records = #ARGV - 6
for i = 1, records do
    local known = redis.call('GETRANGE', KEYS[i], 0, 15)
    if string.sub(known, 1, 1) == '~' or (known ~= '' and known < ARGV[i + 6]) then
        redis.call('DEL', KEYS[i])
    end
end
for i = records + 1, #KEYS - 1 do
    redis.call('SET', KEYS[i], ARGV[3], 'EX', ARGV[4])
end
local number = redis.call('INCR', KEYS[#KEYS])
if number == 1 then
    number = tonumber(ARGV[5])
    redis.call('SET', KEYS[#KEYS], ARGV[5], 'EX', ARGV[6])
end
redis.call('PUBLISH', ARGV[1], string.format('%.0f ', number) .. ARGV[2])
"""
# The number of the last announcement; the server keeps it for as long as anybody asks.
_NUMBER_SCRIPT = """
local number = redis.call('GET', KEYS[1])
if number then
    redis.call('EXPIRE', KEYS[1], ARGV[2])
else
    number = ARGV[1]
    redis.call('SET', KEYS[1], number, 'EX', ARGV[2])
end
return number
"""


@dataclass(frozen=True, slots=True)
class Listener:
    """Who follows the bulletin.

    `on_connect` runs before the cache is used again; when it returns, the cache is trusted.
    `on_heard` is told the time before which every announcement has arrived. `on_missed` is told
    that one did not arrive, although the connection lives.
    """

    now_s: Callable[[], float]
    on_connect: Callable[[], Awaitable[None]]
    on_heard: Callable[[float], None]
    on_announcements: Callable[[Announcements], None]
    on_disconnect: Callable[[], None]
    on_missed: Callable[[], None]


class RedisCache:
    """Implements SharedCache; also carries announcements between workers.

    Nothing here is the truth: whatever fails becomes CacheUnavailableError, and the registry
    answers instead. Keys carry the server's run id: what a server brings along from a dump or
    from a replica that lagged behind is never looked at.

    `disconnects` says how often the bulletin was lost, `gaps` how often an announcement was
    missed on a living connection.
    """

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=COMMAND_TIMEOUT_S,
            socket_connect_timeout=COMMAND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            max_connections=CONNECTIONS_MAX,
        )
        self._get_script = self._redis.register_script(_GET_SCRIPT)
        self._fill_script = self._redis.register_script(_FILL_SCRIPT)
        self._announce_script = self._redis.register_script(_ANNOUNCE_SCRIPT)
        self._number_script = self._redis.register_script(_NUMBER_SCRIPT)
        self._scripts: dict[str, AsyncScript] = {}
        # Channels do not belong to a database of the server: the number keeps nodes apart.
        number = self._redis.connection_pool.connection_kwargs.get("db") or 0
        self._bulletin = f"{_BULLETIN}:{number}"
        self._found = _Together(self._ask_found)
        self._tickets = _Together(self._ask_tickets)
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX - 2)
        self._connection_number = 0
        self._server = ""
        self.is_up = False
        self.is_trusted = False
        self.disconnects = 0
        self.gaps = 0

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        self._lose()
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def get_many(self, keys: Sequence[tuple[str, str]]) -> list[Shelf]:
        """See SharedCache. Questions of one turn of the event loop share one command."""
        values = await self._found.ask([self._record_key(key) for key, _ in keys])
        shelves = [_shelf(value) for value in values]
        lacking = [place for place, shelf in enumerate(shelves) if shelf is None]
        if lacking:
            found = await self._with_tickets([keys[place] for place in lacking])
            for place, shelf in zip(lacking, found, strict=True):
                shelves[place] = shelf
        return [shelf for shelf in shelves if shelf is not None]

    async def _with_tickets(self, keys: Sequence[tuple[str, str]]) -> list[Shelf]:
        """What is there for keys whose record was not: absences need the epoch, the rest a ticket.

        The epoch may be younger than an absence that was found, never older: that is safe.
        """
        prefixes = list({prefix_key for _, prefix_key in keys})
        values = await self._tickets.ask(
            [self._record_key(key) for key, _ in keys] + [self._epoch_key(key) for key in prefixes]
        )
        epochs = dict(zip(prefixes, values[len(keys) :], strict=True))
        return [
            _ticketed(value, epochs[prefix_key].decode("ascii", "replace"))
            for (_, prefix_key), value in zip(keys, values, strict=False)
        ]

    async def fill(self, entries: Sequence[tuple[str, Entry, str]]) -> None:
        """See SharedCache."""
        keys = [self._record_key(key) for key, _, _ in entries]
        arguments: list[Any] = [KEEP_S]
        for _, entry, ticket in entries:
            arguments += (ticket, entry_to_bytes(entry))
        await self._command(lambda: self._fill_script(keys=keys, args=arguments))

    async def announce(self, announcements: Announcements) -> None:
        """Forget what is older in the shared cache, and tell every worker, in one atomic step."""
        versions = {
            self._record_key(key): version
            for topic, key, version in announcements
            if topic == "record"
        }
        prefixes = {key for topic, key, _ in announcements if topic == "registered"}
        keys = [*versions, *(self._epoch_key(key) for key in prefixes), self._number_key()]
        arguments: list[Any] = [
            self._bulletin,
            body_to_bytes(announcements),
            _new_ticket(),
            TICKET_KEEP_S,
            _first_number(),
            KEEP_S,
        ]
        arguments += [f"{version:016x}" for version in versions.values()]
        await self._command(lambda: self._announce_script(keys=keys, args=arguments))

    async def count_uses(self, uses: Mapping[str, int], keep_s: int) -> list[int]:
        """Add to counters that all workers share and that last `keep_s`; their new values.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for name, number in uses.items():
            key = f"{_USES}:{name}"
            pipeline.incrby(key, number)
            pipeline.expire(key, keep_s)
        values = await self._command(pipeline.execute)
        return [int(value) for value in values[::2]]

    async def run(
        self, script: str, names: Sequence[str], arguments: Sequence[bytes | str | int]
    ) -> Any:
        """What a Lua script answers that works on values shared by all workers, in one step.

        It finds `names` as KEYS, led by the run id of the server: what is kept so is gone after a
        restart or a failover, and never goes back to an older state. `script` is one of a few
        constants, which are remembered.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._redis.register_script(script)
        keys = [f"idnode:{self._server}:{name}" for name in names]
        return await self._command(lambda: registered(keys=keys, args=arguments))

    async def keep_prefixes(self, table: bytes) -> None:
        """Keep a copy of the table of prefixes, for a worker that starts without PostgreSQL."""
        await self._command(lambda: self._redis.set(_PREFIXES, table))

    async def kept_prefixes(self) -> bytes | None:
        """The copy of the table of prefixes."""
        value = await self._command(lambda: self._redis.get(_PREFIXES))
        return value if isinstance(value, bytes) else None

    async def listen(self, listener: Listener) -> None:
        """Keep a connection to the bulletin for ever, and notice at once when it is gone."""
        while True:
            with contextlib.suppress(CacheUnavailableError):
                await self._attend(self._redis.pubsub(), listener)
            await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _attend(self, pubsub: PubSub, listener: Listener) -> None:
        """Follow one connection to the bulletin to its end, which is always an error."""
        # Not a TaskGroup: until Python 3.13 it forgets a cancellation that meets an error.
        settling: asyncio.Task[None] | None = None
        try:
            asked_at_s = listener.now_s()
            await _bounded(lambda: self._subscribe(pubsub))
            listener.on_heard(asked_at_s)
            numbering = Numbering(await self._number())
            settling = asyncio.create_task(self._settle(listener.on_connect))
            await self._follow(pubsub, listener, numbering, settling)
        finally:
            if settling is not None:
                settling.cancel()
                await asyncio.gather(settling, return_exceptions=True)
            if self._server:
                self.disconnects += 1
                listener.on_disconnect()
            self._lose()
            self._server = ""
            with contextlib.suppress(RedisError, OSError, RuntimeError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RedisError, OSError, RuntimeError):
                await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Return once the server says that announcements arrive, and which server it is."""
        await pubsub.subscribe(self._bulletin)
        message = await pubsub.get_message(timeout=COMMAND_TIMEOUT_S)
        if message is None or message["type"] != "subscribe":
            raise CacheUnavailableError("Redis does not confirm the subscription")
        self._server = str((await self._redis.info("server")).get("run_id", ""))[:16] or "-"
        self._connection_number += 1
        self.is_up = True

    async def _settle(self, on_connect: Callable[[], Awaitable[None]]) -> None:
        await on_connect()
        self.is_trusted = self.is_up

    async def _follow(
        self,
        pubsub: PubSub,
        listener: Listener,
        numbering: Numbering,
        settling: "asyncio.Task[None]",
    ) -> None:
        asked_at_s = heard_at_s = listener.now_s()
        while self.is_up:
            if settling.done():
                settling.result()
            if abs(listener.now_s() - asked_at_s) >= PING_EVERY_S:
                asked_at_s = listener.now_s()
                number = await self._number()
                self._missed_unless(numbering.asks(number), listener)
                await _bounded(partial(pubsub.ping, f"{asked_at_s!r} {number}"))
            message = await _bounded(lambda: pubsub.get_message(timeout=PING_EVERY_S))
            if message is None:
                if abs(listener.now_s() - heard_at_s) > SILENCE_MAX_S:
                    break
            elif message["type"] == "pong":
                # What was announced before the question stands before the answer in the stream.
                heard_at_s, number = _question(message["data"])
                self._missed_unless(numbering.confirms(number), listener)
                listener.on_heard(heard_at_s)
            elif message["type"] == "message":
                number, announcements = message_from_bytes(message["data"])
                self._missed_unless(numbering.hears(number), listener)
                listener.on_announcements(announcements)
            else:
                break  # subscribed anew: the client library has reconnected, something was missed
        raise CacheUnavailableError("the bulletin was lost")

    def _missed_unless(self, is_complete: bool, listener: Listener) -> None:
        if not is_complete:
            self.gaps += 1
            listener.on_missed()

    async def _number(self) -> int:
        """The number of the last announcement; not in the queue of those who wait for a slot."""
        keys, arguments = [self._number_key()], [_first_number(), KEEP_S]
        return int(await _bounded(lambda: self._number_script(keys=keys, args=arguments)))

    def _lose(self) -> None:
        self.is_up = self.is_trusted = False

    def _record_key(self, key: str) -> str:
        return f"idnode:{self._server}:r:{key}"

    def _epoch_key(self, prefix_key: str) -> str:
        return f"idnode:{self._server}:e:{prefix_key}"

    def _number_key(self) -> str:
        return f"idnode:{self._server}:n:{self._bulletin}"

    async def _ask_found(self, keys: list[str]) -> list[Any]:
        found: list[Any] = await self._command(lambda: self._redis.mget(keys))
        return found

    async def _ask_tickets(self, keys: list[str]) -> list[Any]:
        arguments: list[Any] = [_new_ticket(), TICKET_KEEP_S]
        found: list[Any] = await self._command(lambda: self._get_script(keys=keys, args=arguments))
        return found

    async def _command(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        number = self._connection_number
        async with self._slots:
            # Who waited for a slot while Redis was lost does not wait for Redis, too.
            if not self.is_up or number != self._connection_number:
                raise CacheUnavailableError("Redis is away")
            try:
                return await _bounded(ask)
            except CacheUnavailableError:
                # The listener notices within a moment and tells everybody; until then nobody asks.
                if number == self._connection_number:
                    self._lose()
                raise


class _Together:
    """Questions of one turn of the event loop, asked with one command."""

    def __init__(self, ask: Callable[[list[str]], Awaitable[list[Any]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[list[str], asyncio.Future[list[Any]]]] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def ask(self, keys: list[str]) -> list[Any]:
        """The values of `keys`.

        Raises:
            CacheUnavailableError: if Redis does not answer.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        if not self._waiting:
            task = loop.create_task(self._ask_waiting())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        self._waiting.append((keys, future))
        return await future

    async def _ask_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            values = iter(await self._ask([key for wanted, _ in waiting for key in wanted]))
            for wanted, future in waiting:
                found = list(islice(values, len(wanted)))
                if not future.done():
                    future.set_result(found)
        except CacheUnavailableError as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
        finally:
            for _, future in waiting:
                future.cancel()  # of what has a result, nothing


async def _bounded(ask: Callable[[], Awaitable[Any]]) -> Any:
    task = asyncio.current_task()
    cancellations = 0 if task is None else task.cancelling()
    try:
        async with asyncio.timeout(2 * COMMAND_TIMEOUT_S):
            return await ask()
    except (RedisError, OSError, RuntimeError) as error:
        raise CacheUnavailableError(f"Redis did not answer: {error}") from error
    finally:
        # The client library sends with wait_for: until Python 3.12 that forgets a cancellation.
        if task is not None and task.cancelling() > cancellations:
            raise asyncio.CancelledError


def _new_ticket() -> bytes:
    return _TICKET + uuid.uuid4().hex.encode()


def _first_number() -> int:
    return secrets.randbits(FIRST_BITS)


def _question(pong: bytes) -> tuple[float, int]:
    """When the bulletin was asked, and which number had been given by then."""
    asked_at_s, _, number = pong.partition(b" ")
    return float(asked_at_s), int(number)


def _shelf(value: bytes | None) -> Shelf | None:
    """What is there if a record is; None if a ticket or an epoch is needed."""
    if value is None or value.startswith(_TICKET):
        return None
    try:
        entry = entry_from_bytes(value)
    except InvalidValueError:
        return None
    return None if entry.record is None else Shelf(entry, "")


def _ticketed(value: bytes, epoch: str) -> Shelf:
    if value.startswith(_TICKET):
        return Shelf(None, epoch, value.decode("ascii", "replace"))
    try:
        return Shelf(entry_from_bytes(value), epoch)
    except InvalidValueError:
        return Shelf(None, epoch)  # written by something else: as good as not there
