"""Requests that wait for an answer: taken once, by whichever worker, and never too many."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from node.data_folder import DataFolder
from node.embedded_valkey import EmbeddedValkey
from node.pending_challenges import (
    LARGE_PENDING_MAX,
    NONCE_SIZE_BYTES_MAX,
    SMALL_PENDING_MAX,
    SMALL_SIZE_BYTES_MAX,
    Pending,
    PendingChallenges,
)
from resolver.errors import CacheUnavailableError, InvalidValueError
from resolver.hot_redis import RedisCache
from resolver.wire import ENVELOPE_SIZE_BYTES, MESSAGE_SIZE_BYTES_MAX
from tests.conftest import Stores
from tests.listening_cache import emptied_redis, listening_cache, none_left, only_key
from tests.resolving_worker import eventually

NOW_S = 1_800_000_000.25
NONCE = bytes(range(16))
REQUEST = b"\x00\xff request"
LARGE = bytes(SMALL_SIZE_BYTES_MAX)


@pytest.fixture
def url(stores: Stores) -> str:
    return f"{stores.redis_url}&db=11"


@pytest.fixture
async def redis(url: str) -> "AsyncIterator[Redis]":
    async with emptied_redis(url) as connection:
        yield connection


@pytest.fixture
async def cache(url: str, redis: Redis) -> AsyncIterator[RedisCache]:
    async with listening_cache(url) as opened:
        yield opened


@pytest.fixture
def pending(cache: RedisCache) -> PendingChallenges:
    return PendingChallenges(cache)


async def test_a_request_is_taken_as_it_was_put_and_only_once(pending: PendingChallenges) -> None:
    id_ = await pending.put(REQUEST, NONCE, 0, NOW_S)
    assert await pending.take(id_) == Pending(REQUEST, NONCE, 0, NOW_S)
    assert await pending.take(id_) is None


@pytest.mark.parametrize("size", [0, 1, SMALL_SIZE_BYTES_MAX, MESSAGE_SIZE_BYTES_MAX])
async def test_a_request_of_any_size_waits(pending: PendingChallenges, size: int) -> None:
    request = b"\x81" * (ENVELOPE_SIZE_BYTES + size)
    id_ = await pending.put(request, NONCE, 0, NOW_S)
    assert await pending.take(id_) == Pending(request, NONCE, 0, NOW_S)


async def test_the_answer_may_come_to_another_worker(pending: PendingChallenges, url: str) -> None:
    id_ = await pending.put(REQUEST, NONCE, 0, NOW_S)
    async with listening_cache(url) as other:
        assert await PendingChallenges(other).take(id_) == Pending(REQUEST, NONCE, 0, NOW_S)
    assert await pending.take(id_) is None


async def test_one_of_two_workers_that_take_at_once_gets_it(
    pending: PendingChallenges, url: str
) -> None:
    async with listening_cache(url) as other:
        takers = (pending, PendingChallenges(other))
        for _ in range(50):
            id_ = await pending.put(REQUEST, NONCE, 0, NOW_S)
            taken = await asyncio.gather(*(takers[i % 2].take(id_) for i in range(6)))
            assert sum(one is not None for one in taken) == 1


async def test_a_request_is_forgotten_after_its_time(cache: RedisCache, redis: Redis) -> None:
    pending = PendingChallenges(cache, patience_s=0.05)
    id_ = await pending.put(REQUEST, NONCE, 0, NOW_S)
    await none_left(redis, "*:c:*")
    assert await pending.take(id_) is None


async def test_a_request_waits_a_minute(pending: PendingChallenges, redis: Redis) -> None:
    await pending.put(REQUEST, NONCE, 0, NOW_S)
    key = await only_key(redis, "*:c:*")
    assert 0 < await redis.pttl(key) <= 60_000


async def test_ids_are_odd_and_between_those_of_clients_and_the_sign_bit(
    pending: PendingChallenges,
) -> None:
    ids = [await pending.put(REQUEST, NONCE, 0, NOW_S) for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(id_ % 2 == 1 and 1 << 20 <= id_ < 1 << 31 for id_ in ids)


# Requests in a session.


async def test_a_request_in_a_session_waits_under_its_id(pending: PendingChallenges) -> None:
    assert await pending.put(REQUEST, NONCE, 4_000_000_000, NOW_S) == 4_000_000_000
    assert await pending.take(4_000_000_000) == Pending(REQUEST, NONCE, 4_000_000_000, NOW_S)


@pytest.mark.parametrize(
    ("first", "second"),
    [(b"first", b"second"), (LARGE, b"second"), (b"first", LARGE), (LARGE, LARGE + b"!")],
    ids=["both small", "large first", "large second", "both large"],
)
async def test_of_one_session_the_latest_request_waits(
    pending: PendingChallenges, first: bytes, second: bytes
) -> None:
    for request in (first, second):
        await pending.put(request, NONCE, 7, NOW_S)
    assert await pending.take(7) == Pending(second, NONCE, 7, NOW_S)
    assert await pending.take(7) is None


async def test_the_same_session_number_of_two_connections_is_two_sessions(
    pending: PendingChallenges,
) -> None:
    for scope in ("one", "two"):
        await pending.put(scope.encode(), NONCE, 10_001, NOW_S, scope=scope)
    assert await pending.take(10_001) is None
    for scope in ("two", "one"):
        taken = await pending.take(10_001, scope=scope)
        assert taken is not None
        assert taken.request == scope.encode()


# Limits.


async def test_no_more_requests_wait_than_there_are_places(cache: RedisCache, redis: Redis) -> None:
    pending = PendingChallenges(cache, small_max=5, large_max=3)
    for number in range(60):
        request = LARGE if number % 2 else REQUEST
        id_ = await pending.put(request, NONCE, 0, NOW_S)
        # Whatever gave way: the latest waits.
        if number % 7 == 0:
            assert await pending.take(id_) is not None
    assert 0 < len(await redis.keys("*:c:s:*")) <= 5
    assert 0 < len(await redis.keys("*:c:l:*")) <= 3


async def test_large_requests_push_no_small_one_out(cache: RedisCache) -> None:
    pending = PendingChallenges(cache, small_max=1, large_max=1)
    small = await pending.put(REQUEST, NONCE, 0, NOW_S)
    for _ in range(5):
        large = await pending.put(LARGE, NONCE, 0, NOW_S)
    assert await pending.take(small) is not None
    assert await pending.take(large) is not None


async def test_nobody_gives_way_while_there_is_room(pending: PendingChallenges) -> None:
    ids = await asyncio.gather(*(pending.put(REQUEST, NONCE, 0, NOW_S) for _ in range(400)))
    taken = await asyncio.gather(*map(pending.take, ids))
    assert None not in taken


def test_all_places_together_take_64_mib() -> None:
    small = SMALL_PENDING_MAX * SMALL_SIZE_BYTES_MAX
    large = LARGE_PENDING_MAX * (ENVELOPE_SIZE_BYTES + MESSAGE_SIZE_BYTES_MAX)
    assert small + large < 65 * 2**20


async def test_what_is_longer_than_any_message_is_not_kept(
    pending: PendingChallenges, redis: Redis
) -> None:
    request = bytes(ENVELOPE_SIZE_BYTES + MESSAGE_SIZE_BYTES_MAX + 1)
    with pytest.raises(InvalidValueError, match="longer than any message"):
        await pending.put(request, NONCE, 0, NOW_S)
    with pytest.raises(InvalidValueError, match="at most 64"):
        await pending.put(REQUEST, bytes(NONCE_SIZE_BYTES_MAX + 1), 0, NOW_S)
    assert await redis.keys("*:c:*") == []


def test_a_request_is_not_shown_in_a_log() -> None:
    assert "secret" not in repr(Pending(b"secret", NONCE, 0, NOW_S))


# Redis away.


async def test_nothing_is_kept_under_a_name_that_outlives_the_server(
    pending: PendingChallenges, redis: Redis
) -> None:
    id_ = await pending.put(REQUEST, NONCE, 0, NOW_S)
    key = await only_key(redis, "*:c:*")
    run_id = (await redis.info("server"))["run_id"][:16]
    assert key.startswith(f"idnode:{run_id}:")
    # As after a restart from a dump, or a failover to a replica.
    await redis.rename(key, key.replace(run_id, "another-run-id-0"))
    assert await pending.take(id_) is None


async def test_with_redis_away_it_says_so_and_later_knows_nothing_old(scratch: Path) -> None:
    folder = DataFolder.open(scratch / "pending")
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    try:
        async with listening_cache(valkey.url) as cache:
            pending = PendingChallenges(cache)
            id_ = await pending.put(REQUEST, NONCE, 0, NOW_S)
            await valkey.stop()
            with pytest.raises(CacheUnavailableError):
                await pending.take(id_)
            with pytest.raises(CacheUnavailableError):
                await pending.put(REQUEST, NONCE, 0, NOW_S)
            await valkey.start()
            await eventually(lambda: cache.is_trusted)
            assert await pending.take(id_) is None
            id_ = await pending.put(REQUEST, NONCE, 0, NOW_S)
            assert await pending.take(id_) is not None
    finally:
        await valkey.stop()
        folder.close()
