"""The shared cache: one suite against Redis and its twin in memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest
from redis.asyncio import Redis

from resolver.bulletin import message_from_bytes
from resolver.entry import Announcements, Entry, Shelf
from resolver.errors import CacheUnavailableError
from resolver.hot_redis import Listener, RedisCache
from resolver.record import HandleValue, Record
from resolver.shared_memory import MemoryCache
from tests.conftest import Stores
from tests.listening_cache import listening_cache
from tests.resolving_worker import PATIENCE_S, eventually

NOW_S = 1_800_000_000.0
PREFIX = "88.1.2"


class Cache(Protocol):
    """What both twins can do."""

    async def get_many(self, keys: Sequence[tuple[str, str]]) -> list[Shelf]: ...

    async def fill(self, entries: Sequence[tuple[str, Entry, str]]) -> None: ...

    async def announce(self, announcements: Announcements) -> None: ...


class Kept:
    """A cache of one kind, what it announced, and how to lose what it holds."""

    def __init__(self, cache: Cache, redis: "Redis | None" = None) -> None:
        self.cache = cache
        self.redis = redis
        self.heard: list[tuple[str, str, int]] = []

    async def flush(self) -> None:
        if self.redis is not None:
            await self.redis.flushdb()
        else:
            assert isinstance(self.cache, MemoryCache)
            await self.cache.flush()

    async def get(self, key: str = "A", prefix_key: str = PREFIX) -> Shelf:
        (shelf,) = await self.cache.get_many([(key, prefix_key)])
        return shelf

    async def put(self, entry: Entry, ticket: str, key: str = "A") -> None:
        await self.cache.fill([(key, entry, ticket)])

    async def filled(self, entry: Entry, key: str = "A") -> None:
        await self.put(entry, (await self.get(key)).ticket, key)

    async def version(self, key: str = "A") -> int | None:
        entry = (await self.get(key)).entry
        return None if entry is None else entry.version


def listening(
    stores: Stores, database: int, heard: list[tuple[str, str, int]]
) -> AbstractAsyncContextManager[RedisCache]:
    return listening_cache(f"{stores.redis_url}&db={database}", heard)


@pytest.fixture(params=["memory", "redis"])
async def kept(request: pytest.FixtureRequest, stores: Stores) -> AsyncIterator[Kept]:
    if request.param == "memory":
        memory = MemoryCache()
        made = Kept(memory)
        memory.listeners.append(made.heard.extend)
        yield made
        return
    redis: Redis = Redis.from_url(f"{stores.redis_url}&db=3")
    await redis.flushdb()
    heard: list[tuple[str, str, int]] = []
    async with listening(stores, 3, heard) as cache:
        made = Kept(cache, redis)
        made.heard = heard
        yield made
    await redis.aclose()


def live(version: int, text: str = "") -> Entry:
    return Entry(Record.of("88.1.2/A", version, (HandleValue(1, "T", text.encode()),)), NOW_S)


def gone(version: int) -> Entry:
    return Entry(Record("88.1.2/A", version, deleted=True), NOW_S)


async def test_what_was_filled_is_found(kept: Kept) -> None:
    await kept.filled(live(3, "three"))
    shelf = await kept.get()
    assert shelf.entry == live(3, "three")
    assert shelf.ticket == ""


async def test_who_finds_nothing_gets_a_ticket_that_others_share(kept: Kept) -> None:
    first, second = await kept.get(), await kept.get()
    assert first.entry is None
    assert first.ticket
    assert first.ticket == second.ticket


async def test_nothing_is_filled_without_a_ticket(kept: Kept) -> None:
    await kept.put(live(3), "")
    assert await kept.version() is None
    await kept.put(live(3), "")
    await kept.put(live(3), "~made up")
    assert await kept.version() is None


@pytest.mark.parametrize("older", [live(2), gone(2), Entry(None, NOW_S, "e")])
async def test_a_fill_never_overwrites_a_newer_version(kept: Kept, older: Entry) -> None:
    ticket = (await kept.get()).ticket
    await kept.put(live(3), ticket)
    await kept.put(older, ticket)
    assert await kept.version() == 3


async def test_a_fill_renews_the_same_version_and_replaces_an_older_one(kept: Kept) -> None:
    await kept.filled(live(3, "old"))
    await kept.put(live(3, "same, read later"), "")
    await kept.put(gone(4), "")
    assert await kept.version() == 4
    await kept.put(live(2**62, "far"), "")
    assert await kept.version() == 2**62


async def test_an_announcement_forgets_what_is_older(kept: Kept) -> None:
    for key in ("A", "B", "C"):
        await kept.filled(live(3), key)
    await kept.cache.announce([("record", "A", 4), ("record", "B", 3), ("record", "C", 2)])
    assert [await kept.version(key) for key in "ABC"] == [None, 3, 3]


async def test_an_announcement_is_heard(kept: Kept) -> None:
    said = [("record", "甲", 2**62), ("registered", PREFIX, 0), ("keys", "", 0)]
    await kept.cache.announce(said)
    await eventually(lambda: kept.heard == said)


async def test_a_slow_reader_cannot_bring_back_what_an_announcement_ended(kept: Kept) -> None:
    ticket = (await kept.get()).ticket
    await kept.cache.announce([("record", "A", 4)])
    await kept.put(live(3), ticket)
    assert await kept.version() is None


async def test_a_slow_reader_cannot_bring_an_old_value_into_an_emptied_cache(kept: Kept) -> None:
    ticket = (await kept.get()).ticket
    await kept.filled(live(4))
    await kept.flush()
    await kept.put(live(3), ticket)
    assert await kept.version() is None


async def test_a_slow_reader_cannot_use_the_ticket_of_another(kept: Kept) -> None:
    old_ticket = (await kept.get()).ticket
    await kept.flush()
    new_ticket = (await kept.get()).ticket
    await kept.put(live(3), old_ticket)
    assert await kept.version() is None
    await kept.put(live(4), new_ticket)
    assert await kept.version() == 4


async def test_a_registration_begins_a_new_epoch_of_its_prefix(kept: Kept) -> None:
    before, other = await kept.get(), await kept.get("B", "88.1.3")
    await kept.cache.announce([("registered", PREFIX, 0)])
    assert (await kept.get()).epoch != before.epoch
    assert (await kept.get("B", "88.1.3")).epoch == other.epoch


async def test_an_absence_comes_with_the_present_epoch(kept: Kept) -> None:
    shelf = await kept.get()
    await kept.put(Entry(None, NOW_S, shelf.epoch), shelf.ticket)
    found = await kept.get()
    assert found.entry == Entry(None, NOW_S, shelf.epoch)
    assert found.epoch == shelf.epoch
    await kept.cache.announce([("registered", PREFIX, 0)])
    assert (await kept.get()).epoch != shelf.epoch


async def test_a_record_comes_without_an_epoch(kept: Kept) -> None:
    for entry in (live(3), gone(4)):
        await kept.filled(entry)
        await kept.put(entry, "")
        assert await kept.get() == Shelf(entry, "")


async def test_records_and_absences_are_found_together(kept: Kept) -> None:
    await kept.filled(live(3), "B")
    epoch = (await kept.get("C")).epoch
    missing, found, other = await kept.cache.get_many(
        [("A", PREFIX), ("B", PREFIX), ("C", "88.1.3")]
    )
    assert (missing.entry, found, other.entry) == (None, Shelf(live(3), ""), None)
    assert missing.ticket
    assert missing.epoch == epoch
    assert other.epoch not in ("", epoch)


async def test_an_epoch_lasts_until_a_registration(kept: Kept) -> None:
    assert (await kept.get()).epoch == (await kept.get("B")).epoch != ""


async def test_a_lost_epoch_is_never_the_same_again(kept: Kept) -> None:
    before = (await kept.get()).epoch
    await kept.flush()
    assert (await kept.get()).epoch != before


async def test_many_questions_are_answered_in_order(kept: Kept) -> None:
    for number in range(0, 50, 2):
        await kept.filled(live(number + 1), f"K{number}")
    keys = [(f"K{number}", f"88.1.{number % 3}") for number in (*range(50), *range(50))]
    shelves = await kept.cache.get_many(keys)
    versions = [0 if shelf.entry is None else shelf.entry.version for shelf in shelves]
    assert versions == [0 if number % 2 else number + 1 for number in range(50)] * 2


async def test_questions_of_one_moment_get_each_their_answers(kept: Kept) -> None:
    for number in range(20):
        await kept.filled(live(number + 1), f"K{number}")
    shelves = await asyncio.gather(*[kept.get(f"K{number}") for number in range(20)])
    assert [shelf.entry and shelf.entry.version for shelf in shelves] == list(range(1, 21))


async def test_a_question_that_is_given_up_takes_no_other_along(kept: Kept) -> None:
    await kept.filled(live(3))
    given_up = asyncio.ensure_future(kept.get())
    other = asyncio.ensure_future(kept.get())
    await asyncio.sleep(0)
    given_up.cancel()
    assert (await other).entry == live(3)


async def test_what_something_else_wrote_is_as_good_as_nothing(stores: Stores) -> None:
    redis: Redis = Redis.from_url(f"{stores.redis_url}&db=3")
    await redis.flushdb()
    async with listening(stores, 3, []) as cache:
        kept = Kept(cache, redis)
        await kept.filled(live(3))
        (place,) = [key async for key in redis.scan_iter("idnode:*:r:A")]
        await redis.set(place, b"junk")
        shelf = await kept.get()
        assert (shelf.entry, shelf.ticket) == (None, "")
    await redis.aclose()


async def test_everything_kept_in_redis_ends_by_itself(stores: Stores) -> None:
    redis: Redis = Redis.from_url(f"{stores.redis_url}&db=3")
    await redis.flushdb()
    async with listening(stores, 3, []) as cache:
        kept = Kept(cache, redis)
        await kept.filled(live(3))
        await kept.get("B")
        await cache.announce([("registered", PREFIX, 0)])
        lives_s = [await redis.ttl(key) async for key in redis.scan_iter("idnode:*")]
        # An entry, a ticket, the epoch, and the number of the last announcement.
        assert len(lives_s) == 4
        assert all(life_s > 0 for life_s in lives_s)
    await redis.aclose()


async def test_nodes_on_two_databases_of_one_server_do_not_hear_each_other(stores: Stores) -> None:
    heard: list[tuple[str, str, int]] = []
    others: list[tuple[str, str, int]] = []
    async with listening(stores, 3, heard) as cache, listening(stores, 4, others) as other:
        await cache.announce([("record", "A", 1)])
        await other.announce([("record", "B", 1)])
        await eventually(lambda: bool(heard) and bool(others))
        assert (heard, others) == ([("record", "A", 1)], [("record", "B", 1)])


async def test_announcements_are_numbered_one_by_one(stores: Stores) -> None:
    redis: Redis = Redis.from_url(f"{stores.redis_url}&db=3")
    await redis.flushdb()
    async with listening(stores, 3, []) as cache, redis.pubsub() as bulletin:
        await bulletin.subscribe("idnode:bulletin:3")
        await bulletin.get_message(timeout=PATIENCE_S)
        numbers = []
        for version in (1, 2, 3):
            await cache.announce([("record", "A", version)])
            message = await bulletin.get_message(timeout=PATIENCE_S)
            assert message is not None
            number, announcements = message_from_bytes(message["data"])
            assert announcements == [("record", "A", version)]
            numbers.append(number)
        assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
        assert cache.gaps == 0
    await redis.aclose()


async def test_a_lost_number_is_a_gap_and_not_a_lost_connection(stores: Stores) -> None:
    redis: Redis = Redis.from_url(f"{stores.redis_url}&db=3")
    heard: list[tuple[str, str, int]] = []
    async with listening(stores, 3, heard) as cache:
        await redis.flushdb()
        await cache.announce([("record", "A", 1)])
        await eventually(lambda: cache.gaps > 0 and heard == [("record", "A", 1)])
        assert cache.disconnects == 0
        assert cache.is_trusted
    await redis.aclose()


async def test_a_damaged_announcement_counts_as_one_that_was_missed(stores: Stores) -> None:
    redis: Redis = Redis.from_url(f"{stores.redis_url}&db=3")
    async with listening(stores, 3, []) as cache:
        await redis.publish("idnode:bulletin:3", b"junk")
        await eventually(lambda: cache.disconnects == 1)
        await eventually(lambda: cache.is_trusted)
    await redis.aclose()


async def test_a_stop_that_meets_a_loss_is_a_stop(stores: Stores) -> None:
    cache = RedisCache(f"{stores.redis_url}&db=3")

    async def lost_and_stopped() -> None:
        task.cancel()
        raise CacheUnavailableError("lost just then")

    nothing: list[object] = []
    listener = Listener(
        time.time,
        lost_and_stopped,
        nothing.append,
        nothing.append,
        nothing.clear,
        nothing.clear,
    )
    task = asyncio.create_task(cache.listen(listener))
    await asyncio.wait({task}, timeout=PATIENCE_S)
    assert task.cancelled()
    await cache.close()


async def test_an_error_while_connecting_is_tried_again(stores: Stores) -> None:
    cache = RedisCache(f"{stores.redis_url}&db=3")
    tries: list[float] = []

    async def connected() -> None:
        tries.append(time.time())
        if len(tries) < 3:
            raise CacheUnavailableError("lost just then")

    nothing: list[object] = []
    listener = Listener(
        time.time, connected, nothing.append, nothing.append, nothing.clear, nothing.clear
    )
    task = asyncio.create_task(cache.listen(listener))
    await eventually(lambda: cache.is_trusted)
    assert len(tries) == 3
    task.cancel()
    await asyncio.wait({task})
    await cache.close()


async def test_the_table_of_prefixes_is_kept(stores: Stores) -> None:
    async with listening(stores, 3, []) as cache:
        await cache.keep_prefixes(b"[1]")
        assert await cache.kept_prefixes() == b"[1]"


async def test_the_memory_is_bounded() -> None:
    kept = Kept(MemoryCache(places_max=3))
    for number in range(10):
        await kept.filled(live(number + 1), f"K{number}")
    assert [await kept.version(f"K{number}") for number in (0, 6, 9)] == [None, None, 10]
