"""Token buckets: what one source or one owner of keys gets, alone and over several workers."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from metrics.dimension import CALLER_APPLICATION
from metrics.worker_numbers import REFUSED_RATE_CALLER, REFUSED_RATE_SOURCE
from node import rate_limit
from node.callers import ANONYMOUS, Caller
from node.rate_limit import CLOSED_MAX_S, Bucket, Rates
from registry.api_keys import APPLICATION, KeyOwner
from resolver.errors import CacheUnavailableError
from resolver.hot_redis import RedisCache
from tests.conftest import Stores
from tests.resolving_worker import ResolvingWorker

NOW_S = 1_800_000_000.0
RATE = 1_000
SOURCE = "192.0.2.7"


def taken(bucket: Bucket, now_s: float, tries: int = 10 * RATE) -> int:
    """How many of `tries` requests get through at one moment, on the hot path's way."""
    through = 0
    for _ in range(tries):
        bucket.left -= 1
        if bucket.left >= 0 or bucket.refill(now_s):
            through += 1
    return through


def application(name: str, key_id: str = "k") -> Caller:
    return Caller(CALLER_APPLICATION, name, KeyOwner(key_id, APPLICATION, name))


def test_a_second_s_worth_may_come_at_once_and_no_more() -> None:
    bucket = Rates(RATE, 0).source_bucket(SOURCE)

    assert taken(bucket, NOW_S) == RATE
    assert taken(bucket, NOW_S) == 0
    assert taken(bucket, NOW_S + 0.5) == RATE // 2
    assert taken(bucket, NOW_S + 60) == RATE


def test_in_the_long_run_the_rate_gets_through() -> None:
    bucket = Rates(RATE, 0).source_bucket(SOURCE)

    through = sum(taken(bucket, NOW_S + step / 100, 50) for step in range(1_000))

    assert 10 * RATE <= through <= 11 * RATE


def test_the_slow_path_and_the_fast_path_take_from_one_bucket() -> None:
    rates = Rates(RATE, 0)
    fast = rates.source_bucket(SOURCE)
    assert taken(fast, NOW_S, RATE - 1) == RATE - 1

    slow = rates.bucket(ANONYMOUS, SOURCE, SOURCE)

    assert [slow.admits(NOW_S) for _ in range(3)] == [True, False, False]


def test_a_clock_that_is_set_back_shuts_nobody_out() -> None:
    bucket = Rates(RATE, 0).source_bucket(SOURCE)
    assert taken(bucket, NOW_S) == RATE
    bucket.heard(5 * RATE, int(NOW_S))

    assert taken(bucket, NOW_S - 3_600) == 0
    assert taken(bucket, NOW_S - 3_599) == RATE


@pytest.mark.parametrize("source", ["127.0.0.1", "127.8.8.8", "::1"])
def test_this_machine_is_not_limited_by_default(source: str) -> None:
    rates = Rates(1, 1)

    for caller in (ANONYMOUS, application("a")):
        assert taken(rates.bucket(caller, source, f"::ffff:{source}"), NOW_S) == 10 * RATE


def test_this_machine_is_limited_where_the_operator_has_set_a_rate() -> None:
    rates = Rates(1, 1, limits_loopback=True)

    for caller in (ANONYMOUS, application("a")):
        assert taken(rates.bucket(caller, "127.0.0.1", "127.0.0.1"), NOW_S) == 1


def test_what_a_trusted_proxy_forwards_is_limited_even_if_it_is_this_machine() -> None:
    bucket = Rates(1, 1).bucket(ANONYMOUS, "127.0.0.9", "10.0.0.1")

    assert taken(bucket, NOW_S) == 1


def test_no_rate_is_no_limit() -> None:
    rates = Rates(0, 0)

    assert taken(rates.source_bucket(SOURCE), NOW_S) == 10 * RATE
    assert taken(rates.caller_bucket(application("a")), NOW_S) == 10 * RATE


def test_each_source_has_its_own_and_a_subscriber_of_ipv6_has_one() -> None:
    rates = Rates(RATE, 0)

    assert rates.source_bucket("192.0.2.1") is not rates.source_bucket("192.0.2.2")
    assert rates.source_bucket("192.0.2.1") is rates.source_bucket("192.0.2.1")
    assert rates.source_bucket("2001:db8:0:1::1") is rates.source_bucket("2001:db8:0:1:f::2")
    assert rates.source_bucket("2001:db8:0:1::1") is not rates.source_bucket("2001:db8:0:2::1")
    assert rates.source_bucket("::ffff:192.0.2.1") is rates.source_bucket("192.0.2.1")


def test_an_owner_has_one_bucket_for_all_keys_wherever_they_come_from() -> None:
    rates = Rates(RATE, RATE)
    bucket = rates.bucket(application("a", "k1"), SOURCE, SOURCE)

    assert bucket is rates.bucket(application("a", "k2"), "192.0.2.99", "192.0.2.99")
    assert bucket is not rates.bucket(application("b", "k1"), SOURCE, SOURCE)
    assert bucket.slot == REFUSED_RATE_CALLER
    assert rates.bucket(ANONYMOUS, SOURCE, SOURCE).slot == REFUSED_RATE_SOURCE


def test_too_many_busy_sources_share_a_bucket_and_idle_ones_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "BUCKETS_MAX", 3)
    rates = Rates(RATE, 0)
    busy = [rates.source_bucket(f"192.0.2.{number}") for number in range(3)]
    for bucket in busy:
        taken(bucket, NOW_S, 1)
    asyncio.run(rates.share(Unreachable(), NOW_S))

    crowd = rates.source_bucket("192.0.2.8")
    assert crowd is rates.source_bucket("192.0.2.9")
    assert crowd not in busy
    assert taken(crowd, NOW_S) == RATE

    asyncio.run(rates.share(Unreachable(), NOW_S + 5))
    assert rates.source_bucket("192.0.2.8") is not crowd


class Unreachable:
    """Shared counters that are away."""

    is_up = True

    async def count_uses(self, uses: Mapping[str, int], keep_s: int) -> list[int]:
        raise CacheUnavailableError("away")


class Shared:
    """Shared counters in memory."""

    is_up = True

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}

    async def count_uses(self, uses: Mapping[str, int], keep_s: int) -> list[int]:
        for name, number in uses.items():
            self.sums[name] = self.sums.get(name, 0) + number
        return [self.sums[name] for name in uses]


async def test_what_workers_let_through_together_closes_the_bucket_in_each() -> None:
    shared, workers = Shared(), [Rates(RATE, 0) for _ in range(4)]
    buckets = [worker.source_bucket(SOURCE) for worker in workers]
    assert [taken(bucket, NOW_S, 600) for bucket in buckets] == [600] * 4

    for worker in workers:
        await worker.share(shared, NOW_S + 0.25)

    # 600, 1,200, 1,800 and 2,400 had been told of when each one asked.
    assert [taken(bucket, NOW_S + 0.9, 600) for bucket in buckets] == [600, 0, 0, 0]
    assert buckets[3].retry_after_s(NOW_S + 0.9) == 2
    assert [bucket.refill(NOW_S + 1.3) for bucket in buckets[1:]] == [True, False, False]
    assert all(bucket.refill(NOW_S + 2.5) for bucket in buckets)


async def test_the_rate_holds_for_all_workers_together_in_the_long_run() -> None:
    shared, workers = Shared(), [Rates(RATE, 0) for _ in range(8)]
    through = 0
    for step in range(400):
        now_s = NOW_S + step / 20
        for worker in workers:
            through += taken(worker.source_bucket(SOURCE), now_s, 200)
            if step % 5 == 4:
                await worker.share(shared, now_s)

    # Each worker alone would have let through 20 x RATE: 160 x RATE in all.
    assert through < 60 * RATE


async def test_one_worker_s_user_within_the_rate_is_never_closed() -> None:
    shared, rates = Shared(), Rates(RATE, 0)
    bucket = rates.source_bucket(SOURCE)
    for step in range(400):
        now_s = NOW_S + step / 20
        assert taken(bucket, now_s, 45) == 45
        if step % 5 == 4:
            await rates.share(shared, now_s)
    assert shared.sums  # it was heavy enough to be told


async def test_light_users_are_not_told() -> None:
    shared, rates = Shared(), Rates(RATE, 0)
    bucket = rates.source_bucket(SOURCE)
    for step in range(400):
        now_s = NOW_S + step / 20
        assert taken(bucket, now_s, 2) == 2
        if step % 5 == 4:
            await rates.share(shared, now_s)
    # The first slices may look heavy; 38 of 40 a second are not told.
    assert sum(shared.sums.values()) < 100


async def test_without_redis_each_worker_limits_by_itself() -> None:
    rates = Rates(RATE, 0)
    bucket = rates.source_bucket(SOURCE)
    assert taken(bucket, NOW_S) == RATE

    await rates.share(Unreachable(), NOW_S)

    assert taken(bucket, NOW_S + 0.5) == RATE // 2


def test_nobody_is_shut_out_for_long() -> None:
    bucket = Rates(RATE, 0).source_bucket(SOURCE)
    bucket.heard(1_000 * RATE, int(NOW_S))

    assert bucket.retry_after_s(NOW_S) == CLOSED_MAX_S
    assert not bucket.admits(NOW_S + CLOSED_MAX_S - 0.1)
    assert bucket.admits(NOW_S + CLOSED_MAX_S + 0.1)


@pytest.fixture
async def redis_cache(stores: Stores, database_url: str) -> AsyncIterator[RedisCache]:
    async with ResolvingWorker(database_url, stores.redis_url, watches=False) as worker:
        await worker.ready()
        yield worker.cache


async def test_redis_adds_up_what_several_workers_tell(redis_cache: RedisCache) -> None:
    assert await redis_cache.count_uses({"test:a": 5, "test:b": 7}, 10) == [5, 7]
    assert await redis_cache.count_uses({"test:b": 1, "test:a": 0}, 10) == [8, 5]


async def test_workers_close_a_bucket_over_redis(redis_cache: RedisCache) -> None:
    one, other = Rates(RATE, 0), Rates(RATE, 0)
    source = "198.51.100.77"
    assert taken(one.source_bucket(source), NOW_S, 600) == 600
    assert taken(other.source_bucket(source), NOW_S, 600) == 600

    await one.share(redis_cache, NOW_S + 0.25)
    await other.share(redis_cache, NOW_S + 0.25)

    assert taken(one.source_bucket(source), NOW_S + 0.5, 100) == 100
    assert taken(other.source_bucket(source), NOW_S + 0.5, 100) == 0
