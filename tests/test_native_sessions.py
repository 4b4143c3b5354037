"""Sessions: known to every worker, each message once, never too many, never too long."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from node.data_folder import DataFolder
from node.embedded_valkey import EmbeddedValkey
from node.identity import Identity
from node.native_sessions import (
    REPLAY_WINDOW,
    SESSION_IDLE_MAX_S,
    UNAUTHENTICATED_IDLE_MAX_S,
    NativeSession,
    NativeSessions,
)
from resolver.errors import CacheUnavailableError
from resolver.hot_redis import RedisCache
from tests.conftest import Stores
from tests.listening_cache import emptied_redis, listening_cache, none_left, only_key
from tests.resolving_worker import eventually

NOW_S = 1_800_000_000.25
KEY = bytes(range(200, 232))
ADMIN = Identity("88.102.5/ADMIN", 300)
TIMEOUT_S = 3_600


@pytest.fixture
def url(stores: Stores) -> str:
    return f"{stores.redis_url}&db=12"


@pytest.fixture
async def redis(url: str) -> "AsyncIterator[Redis]":
    async with emptied_redis(url) as connection:
        yield connection


@pytest.fixture
async def cache(url: str, redis: Redis) -> AsyncIterator[RedisCache]:
    async with listening_cache(url) as opened:
        yield opened


@pytest.fixture
def sessions(cache: RedisCache) -> NativeSessions:
    return NativeSessions(cache)


async def opened(sessions: NativeSessions, timeout_s: float = TIMEOUT_S) -> int:
    return await sessions.open(KEY, ADMIN, False, timeout_s, NOW_S)


async def idle_ms(redis: Redis) -> int:
    """How long the only session there is may be idle from now on."""
    key = await only_key(redis, "*:s:*")
    return int(await redis.pttl(key))


@pytest.mark.parametrize("encrypts", [True, False])
@pytest.mark.parametrize(
    "claimed", [None, ADMIN, Identity("88.102.5/管理:员%3A", 0), Identity("", 0), Identity("/", 0)]
)
async def test_a_session_is_known_as_it_was_opened(
    sessions: NativeSessions, claimed: Identity | None, encrypts: bool
) -> None:
    id_ = await sessions.open(KEY, claimed, encrypts, TIMEOUT_S, NOW_S)
    assert await sessions.get(id_) == NativeSession(id_, KEY, encrypts, claimed, None, NOW_S)
    assert await sessions.get(id_ + 2) is None


async def test_a_claim_that_is_longer_than_any_handle_is_none(sessions: NativeSessions) -> None:
    id_ = await sessions.open(KEY, Identity("88.102.5/" + "品" * 82, 1), False, 60, NOW_S)
    session = await sessions.get(id_)
    assert session is not None
    assert session.claimed == Identity("88.102.5/" + "品" * 82, 1)
    id_ = await sessions.open(KEY, Identity("88.102.5/" + "品" * 83, 1), False, 60, NOW_S)
    session = await sessions.get(id_)
    assert session is not None
    assert session.claimed is None


async def test_who_a_client_has_proved_to_be_is_remembered_for_every_worker(
    sessions: NativeSessions, url: str
) -> None:
    id_ = await opened(sessions)
    async with listening_cache(url) as other:
        proved = Identity("88.102.5/other", 301)
        assert await NativeSessions(other).authenticated(id_, proved)
    session = await sessions.get(id_)
    assert session is not None
    assert (session.claimed, session.identity) == (ADMIN, proved)


async def test_ids_are_even_and_between_those_of_clients_and_the_sign_bit(
    sessions: NativeSessions,
) -> None:
    ids = [await opened(sessions) for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(id_ % 2 == 0 and 1 << 20 <= id_ < 1 << 31 for id_ in ids)


async def test_a_closed_session_is_gone(sessions: NativeSessions) -> None:
    id_ = await opened(sessions)
    assert await sessions.close(id_)
    assert await sessions.get(id_) is None
    assert not await sessions.admit(id_, 1)
    assert await sessions.next_counter(id_) == 0
    assert not await sessions.authenticated(id_, ADMIN)
    assert not await sessions.close(id_)


async def test_a_session_is_not_taken_for_another_in_its_place(cache: RedisCache) -> None:
    sessions = NativeSessions(cache, sessions_max=1)
    gone = await opened(sessions)
    id_ = await opened(sessions)
    assert await sessions.get(gone) is None
    assert not await sessions.admit(gone, 1)
    assert await sessions.next_counter(gone) == 0
    assert not await sessions.authenticated(gone, ADMIN)
    assert not await sessions.close(gone)
    session = await sessions.get(id_)
    assert session is not None
    assert session.identity is None
    assert await sessions.next_counter(id_) == 1
    assert await sessions.admit(id_, 1)


def test_a_key_is_not_shown_in_a_log() -> None:
    shown = repr(NativeSession(4, KEY, True, None, ADMIN, NOW_S))
    assert repr(KEY) not in shown
    assert "ADMIN" in shown


# Counters.


async def test_our_counters_are_given_once_by_all_workers_together(
    sessions: NativeSessions, url: str
) -> None:
    id_ = await opened(sessions)
    async with listening_cache(url) as other:
        givers = (sessions, NativeSessions(other))
        given = await asyncio.gather(*(givers[i % 2].next_counter(id_) for i in range(40)))
    assert sorted(given) == list(range(1, 41))


async def test_a_counter_is_admitted_once_by_all_workers_together(
    sessions: NativeSessions, url: str
) -> None:
    id_ = await opened(sessions)
    async with listening_cache(url) as other:
        askers = (sessions, NativeSessions(other))
        for counter in range(1, 30):
            admitted = await asyncio.gather(*(askers[i % 2].admit(id_, counter) for i in range(6)))
            assert sum(admitted) == 1


@pytest.mark.parametrize("counter", [0, -1, -(2**31), 2**31, 2**40])
async def test_a_counter_that_no_client_sends_is_not_admitted(
    sessions: NativeSessions, counter: int
) -> None:
    id_ = await opened(sessions)
    assert not await sessions.admit(id_, counter)
    assert await sessions.admit(id_, 1)


async def test_the_window_ends_200_counters_back(sessions: NativeSessions) -> None:
    id_ = await opened(sessions)
    asked = [1, 300, 100, 101, 102, 300, 101, 301, 102, 103, 101]
    admitted = [await sessions.admit(id_, counter) for counter in asked]
    #                    300   100    101   102   300    101    301   102    103   101
    assert admitted == [True, True, False, True, True, False, False, True, False, True, False]
    assert REPLAY_WINDOW == 200


async def test_the_first_counters_may_come_in_any_order(sessions: NativeSessions) -> None:
    id_ = await opened(sessions)
    for counter in (3, 1, 2, 5, 4):
        assert await sessions.admit(id_, counter)
    for counter in range(1, 6):
        assert not await sessions.admit(id_, counter)


async def test_a_jump_to_the_last_counter_leaves_nothing_behind(sessions: NativeSessions) -> None:
    id_ = await opened(sessions)
    last = 2**31 - 1
    asked = [7, last, last, 7, last - 200, last - 199, last - 199, last - 1]
    admitted = [await sessions.admit(id_, counter) for counter in asked]
    assert admitted == [True, True, False, False, False, True, False, True]


async def test_counters_at_random_are_admitted_as_by_a_list_of_those_seen(
    sessions: NativeSessions,
) -> None:
    chance = random.Random(20)
    id_ = await opened(sessions)
    seen, highest = set[int](), 0
    for _ in range(1_500):
        counter = max(1, highest + chance.randint(-250, 30) + chance.choice((0, 0, 0, 0, 250)))
        is_new = counter not in seen and counter > highest - REPLAY_WINDOW
        assert await sessions.admit(id_, counter) is is_new
        if is_new:
            seen.add(counter)
            highest = max(highest, counter)


# How long a session lasts.


async def test_a_session_ends_when_nothing_comes(cache: RedisCache, redis: Redis) -> None:
    sessions = NativeSessions(cache)
    id_ = await opened(sessions, 0.05)
    await none_left(redis, "*:s:*")
    assert await sessions.get(id_) is None
    assert not await sessions.admit(id_, 1)


async def test_a_session_gets_its_time_when_it_is_authenticated(
    sessions: NativeSessions, redis: Redis
) -> None:
    id_ = await opened(sessions)
    assert 0 < await idle_ms(redis) <= 1_000 * UNAUTHENTICATED_IDLE_MAX_S
    assert await sessions.admit(id_, 1)
    assert 0 < await idle_ms(redis) <= 1_000 * UNAUTHENTICATED_IDLE_MAX_S
    assert await sessions.authenticated(id_, ADMIN)
    assert 1_000 * UNAUTHENTICATED_IDLE_MAX_S < await idle_ms(redis) <= 1_000 * TIMEOUT_S


async def test_every_message_gives_an_authenticated_session_its_time_again(
    sessions: NativeSessions, redis: Redis
) -> None:
    id_ = await opened(sessions)
    assert await sessions.authenticated(id_, ADMIN)
    key = await only_key(redis, "*:s:*")
    await redis.pexpire(key, 1_000 * UNAUTHENTICATED_IDLE_MAX_S)
    assert await sessions.admit(id_, 1)
    assert 1_000 * UNAUTHENTICATED_IDLE_MAX_S < await idle_ms(redis) <= 1_000 * TIMEOUT_S


@pytest.mark.parametrize("timeout_s", [0, -1, -(2**31), 2**31 - 1])
async def test_no_session_may_be_idle_longer_than_a_day(
    sessions: NativeSessions, redis: Redis, timeout_s: int
) -> None:
    id_ = await opened(sessions, timeout_s)
    assert await sessions.authenticated(id_, ADMIN)
    assert TIMEOUT_S * 1_000 < await idle_ms(redis) <= 1_000 * SESSION_IDLE_MAX_S


async def test_a_session_ends_however_busy_it_is(sessions: NativeSessions, redis: Redis) -> None:
    id_ = await opened(sessions)
    key = await only_key(redis, "*:s:*")
    now_s, _ = await redis.time()
    # As if nearly all of its life were over.
    await redis.hset(key, "u", str((now_s + 60) * 1_000))
    assert await sessions.admit(id_, 1)
    assert 0 < await idle_ms(redis) <= 60_000
    assert await sessions.authenticated(id_, ADMIN)
    assert 0 < await idle_ms(redis) <= 60_000


# How many sessions there may be.


async def test_sessions_without_end_push_out_those_that_nobody_authenticated(
    cache: RedisCache, redis: Redis
) -> None:
    sessions = NativeSessions(cache, sessions_max=8)
    for _ in range(100):
        id_ = await opened(sessions)
        assert await sessions.get(id_) is not None
    assert 0 < len(await redis.keys("*:s:*")) <= 8


async def test_an_authenticated_session_is_never_pushed_out(cache: RedisCache) -> None:
    sessions = NativeSessions(cache, sessions_max=1)
    id_ = await opened(sessions)
    assert await sessions.authenticated(id_, ADMIN)
    with pytest.raises(CacheUnavailableError, match="no room for another session"):
        await opened(sessions)
    session = await sessions.get(id_)
    assert session is not None
    assert session.identity == ADMIN
    await sessions.close(id_)
    assert await sessions.get(await opened(sessions)) is not None


async def test_many_sessions_live_side_by_side(sessions: NativeSessions) -> None:
    ids = await asyncio.gather(*(opened(sessions) for _ in range(400)))
    found = await asyncio.gather(*map(sessions.get, ids))
    assert None not in found


# Redis away.


async def test_a_session_does_not_come_back_from_a_dump(
    sessions: NativeSessions, redis: Redis
) -> None:
    id_ = await opened(sessions)
    key = await only_key(redis, "*:s:*")
    run_id = (await redis.info("server"))["run_id"][:16]
    await redis.rename(key, key.replace(run_id, "another-run-id-0"))
    assert await sessions.get(id_) is None
    assert not await sessions.admit(id_, 1)


async def test_with_redis_away_it_says_so_and_later_the_session_is_gone(scratch: Path) -> None:
    folder = DataFolder.open(scratch / "sessions")
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    try:
        async with listening_cache(valkey.url) as cache:
            sessions = NativeSessions(cache)
            id_ = await opened(sessions)
            await valkey.stop()
            for asked in (
                sessions.get(id_),
                sessions.admit(id_, 1),
                sessions.next_counter(id_),
                sessions.authenticated(id_, ADMIN),
                sessions.close(id_),
                opened(sessions),
            ):
                with pytest.raises(CacheUnavailableError):
                    await asked
            await valkey.start()
            await eventually(lambda: cache.is_trusted)
            assert await sessions.get(id_) is None
            assert await sessions.get(await opened(sessions)) is not None
    finally:
        await valkey.stop()
        folder.close()
