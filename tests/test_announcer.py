"""Two workers on real stores: a change of one is answered by the other, whatever breaks between."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from node.announcer import Announcer
from node.data_folder import DataFolder
from node.embedded_valkey import EmbeddedValkey
from registry import outbox
from registry.bulk import bulk_registration
from registry.database import Database
from registry.outbox import BATCH_MAX, Announcement, publish_pending
from resolver.entry import Entry
from resolver.errors import CacheUnavailableError
from resolver.hot_redis import CONNECTIONS_MAX
from resolver.identifier import Identifier
from resolver.record import Record, values_to_wire
from resolver.response_code import ResponseCode
from tests.conftest import Stores
from tests.resolving_worker import (
    AUTHOR,
    PATIENCE_S,
    PREFIX,
    ResolvingWorker,
    add_prefix,
    eventually,
    name,
    said,
    terminate_clients,
    values,
)

A, B = name("A"), name("B")
Workers = tuple[ResolvingWorker, ResolvingWorker]


@pytest.fixture
async def book(database: Database, database_url: str) -> str:
    """The address of a database with one prefix."""
    await add_prefix(database)
    return database_url


@pytest.fixture
async def redis(stores: Stores) -> AsyncIterator[Redis]:
    """A database of the shared server for these tests, empty."""
    client: Redis = Redis.from_url(f"{stores.redis_url}&db=5")
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
async def workers(book: str, stores: Stores, redis: Redis) -> AsyncIterator[Workers]:
    url = f"{stores.redis_url}&db=5"
    async with ResolvingWorker(book, url) as one, ResolvingWorker(book, url) as other:
        await one.ready()
        await other.ready()
        yield one, other


@pytest.fixture
async def valkey(scratch: Path) -> AsyncIterator[EmbeddedValkey]:
    """A server that a test may stop and kill; not started yet."""
    folder = DataFolder.open(scratch / f"valkey-{uuid.uuid4().hex[:8]}")
    server = EmbeddedValkey(folder)
    yield server
    await server.stop()
    folder.close()


@pytest.fixture
async def breakable(book: str, valkey: EmbeddedValkey) -> AsyncIterator[Workers]:
    """Two workers on a Redis that a test may stop and kill."""
    await valkey.start()
    async with AsyncExitStack() as stack:
        pair = [
            await stack.enter_async_context(ResolvingWorker(book, valkey.url)) for _ in range(2)
        ]
        for worker in pair:
            await worker.ready()
        yield pair[0], pair[1]


async def kill(valkey: EmbeddedValkey) -> None:
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGKILL)
    await valkey.wait()


@contextlib.contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    # 0 would be this very process.
    assert all(pid > 1 for pid in pids)
    _send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _send(pids, signal.SIGCONT)


def _send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        # A session may have ended by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def postgres_pids(database_url: str) -> list[int]:
    """The server of a database and all its processes."""
    connection = await asyncpg.connect(database_url)
    postmaster = _parent(int(await connection.fetchval("SELECT pg_backend_pid()")))
    await connection.close()
    assert postmaster > 1
    return _family(postmaster)


def _family(parent: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [parent, *(pid for pid in pids if _parent(pid) == parent)]


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


async def soon(worker: ResolvingWorker, text: str, identifier: Identifier = A) -> None:
    """Return once `worker` answers `text`."""
    until_s = time.monotonic() + PATIENCE_S
    while (answer := await worker.say(identifier)) != text:
        assert time.monotonic() < until_s, answer
        await asyncio.sleep(0.01)


async def test_a_change_is_answered_by_the_other_worker(workers: Workers) -> None:
    one, other = workers
    await one.put(A, "one")
    assert (await one.say(A), await other.say(A)) == ("one", "one")
    await one.put(A, "two")
    assert await one.say(A) == "two"
    await soon(other, "two")


async def test_a_deletion_and_a_new_creation_are_answered_by_the_other_worker(
    workers: Workers,
) -> None:
    one, other = workers
    await one.put(A, "one")
    assert await other.say(A) == "one"
    await one.delete(A)
    await soon(other, "HANDLE_NOT_FOUND")
    await one.put(A, "again")
    await soon(other, "again")


async def test_a_creation_ends_not_found_in_the_other_worker(workers: Workers) -> None:
    one, other = workers
    assert await other.say(A) == "HANDLE_NOT_FOUND"
    await one.put(A, "one")
    await soon(other, "one")


async def test_a_bulk_registration_ends_not_found_in_every_worker(workers: Workers) -> None:
    one, other = workers
    assert (await one.say(A), await other.say(B)) == ("HANDLE_NOT_FOUND", "HANDLE_NOT_FOUND")
    rows = [(found.key, found.text, values_to_wire(values("bulk"))) for found in (A, B)]
    async with bulk_registration(one.database, PREFIX, AUTHOR) as bulk:
        await bulk.write(rows, time.time())
    await soon(one, "bulk", A)
    await soon(other, "bulk", B)


async def test_a_bulk_change_is_answered_by_every_worker(workers: Workers) -> None:
    one, other = workers
    await one.put(A, "one")
    await soon(other, "one")
    async with bulk_registration(one.database, PREFIX, AUTHOR) as bulk:
        await bulk.write([(A.key, A.text, values_to_wire(values("bulk")))], time.time())
    await soon(one, "bulk")
    await soon(other, "bulk")


async def test_what_its_writer_did_not_tell_is_told_from_the_outbox(workers: Workers) -> None:
    one, other = workers
    await one.put(A, "one")
    await soon(other, "one")
    await one.records.put(A, values("two"), AUTHOR, time.time())  # and dies
    await soon(other, "two")
    await soon(one, "two")
    await eventually_published(one.database)


async def test_a_slow_reader_answers_what_was_written_meanwhile(workers: Workers) -> None:
    one, other = workers
    await one.put(A, "one")
    other.held.hold()
    slow = asyncio.ensure_future(other.say(A))
    await eventually(lambda: other.held.read == 1)
    heard = other.directory_changes
    version = await one.put(A, "two")
    await one.cache.announce([("keys", "", 0)])
    await eventually(lambda: other.directory_changes > heard)
    other.held.let_go()
    assert await slow == "two"
    entry = (await one.shelf(A)).entry
    assert entry is None or entry.version == version


async def test_nobody_joins_a_question_that_was_answered_before_the_change(
    workers: Workers,
) -> None:
    one, _ = workers
    await one.put(A, "one")
    await one.say(A)
    await eventually_shelved(one)
    one.hot.connect()  # it forgets A, the shared cache does not
    one.held.hold()
    together = asyncio.ensure_future(one.resolver.resolve_many([A, B], time.time()))
    await eventually(lambda: one.held.asked[-1] == [B.key])
    await one.put(A, "two")
    later = asyncio.ensure_future(one.say(A))
    await asyncio.sleep(0)
    one.held.let_go()
    assert await later == "two"
    assert said((await together)[0]) == "one"


async def test_nobody_joins_a_question_whose_neighbour_is_asked_for_again(
    workers: Workers,
) -> None:
    one, _ = workers
    await one.put(A, "one")
    one.held.hold()
    together = asyncio.ensure_future(one.resolver.resolve_many([A, B], time.time()))
    await eventually(lambda: one.held.read == 1)
    await one.put(B, "new")
    one.held.let_go()
    one.held.hold()
    await eventually(lambda: one.held.asked[-1] == [B.key])
    await one.put(A, "two")
    later = asyncio.ensure_future(one.say(A))
    await asyncio.sleep(0)
    one.held.let_go()
    assert await later == "two"
    assert [said(found) for found in await together] == ["one", "new"]


async def test_a_slow_reader_brings_nothing_old_into_an_emptied_redis(
    workers: Workers, redis: Redis
) -> None:
    one, other = workers
    version = await one.put(A, "one")
    ticket = (await other.shelf(A)).ticket
    await one.put(A, "two")
    await redis.flushdb()
    old = Entry(Record.of(A.text, version, values("one")), time.time())
    await other.cache.fill([(A.key, old, ticket)])
    assert (await one.say(A), await other.say(A)) == ("two", "two")


async def test_a_flushed_redis_changes_no_answer(workers: Workers, redis: Redis) -> None:
    one, other = workers
    await one.put(A, "one")
    assert (await other.say(A), await other.say(B)) == ("one", "HANDLE_NOT_FOUND")
    await redis.flushall()
    await redis.script_flush()
    assert await other.say(A) == "one"
    await one.put(A, "two")
    await one.put(B, "new")
    await soon(other, "two")
    await soon(other, "new", B)


async def test_a_killed_bulletin_empties_the_process_cache(workers: Workers, redis: Redis) -> None:
    one, other = workers
    await one.put(A, "one")
    await other.say(A)
    assert other.hot.fresh(A.key, PREFIX, time.time()) is not None
    await redis.client_kill_filter(_type="pubsub")
    await eventually(lambda: one.disconnects == other.disconnects == 1)
    assert other.hot.fresh(A.key, PREFIX, time.time()) is None
    await one.ready()
    await other.ready()
    assert other.hot.fresh(A.key, PREFIX, time.time()) is None
    await one.put(A, "two")
    await soon(other, "two")


async def swallow(redis: Redis) -> None:
    """Give an announcement its number, and never publish it."""
    (number_key,) = [key async for key in redis.scan_iter("idnode:*:n:*")]
    await redis.incr(number_key)


async def test_a_missed_announcement_is_noticed_at_the_next_one(
    workers: Workers, redis: Redis
) -> None:
    one, other = workers
    await one.put(A, "one")
    assert await other.say(A) == "one"
    assert other.hot.fresh(A.key, PREFIX, time.time()) is not None
    await swallow(redis)
    # Of another identifier: what is missed is not what is heard.
    await one.put(B, "new")
    await eventually(lambda: one.cache.gaps == other.cache.gaps == 1)
    assert other.hot.fresh(A.key, PREFIX, time.time()) is None
    assert one.disconnects == other.disconnects == 0


async def test_a_missed_last_announcement_is_noticed_by_itself(
    workers: Workers, redis: Redis
) -> None:
    one, other = workers
    await one.put(A, "one")
    await eventually_published(one.database)
    assert await other.say(A) == "one"
    await swallow(redis)
    await eventually(lambda: one.cache.gaps == other.cache.gaps == 1)
    assert other.hot.fresh(A.key, PREFIX, time.time()) is None
    assert (one.disconnects, other.disconnects) == (0, 0)
    assert await other.say(A) == "one"
    assert other.hot.fresh(A.key, PREFIX, time.time()) is not None
    assert one.cache.gaps == other.cache.gaps == 1


async def test_an_announcement_that_comes_twice_is_noticed(workers: Workers, redis: Redis) -> None:
    one, other = workers
    async with redis.pubsub() as bulletin:
        await bulletin.subscribe("idnode:bulletin:5")
        await one.put(A, "one")
        await other.say(A)
        message = None
        while message is None or message["type"] != "message":
            message = await bulletin.get_message(timeout=PATIENCE_S)
        # After a pong nothing that was given before the subscription can still come.
        heard_at_s = other.hot.heard_at_s
        await eventually(lambda: other.hot.heard_at_s > heard_at_s)
        assert other.cache.gaps == 0
        await redis.publish("idnode:bulletin:5", message["data"])
    await eventually(lambda: one.cache.gaps == other.cache.gaps == 1)


async def test_what_was_missed_is_answered_all_the_same(
    book: str, stores: Stores, redis: Redis
) -> None:
    url = f"{stores.redis_url}&db=5"
    async with (
        ResolvingWorker(book, url, watches=False) as one,
        ResolvingWorker(book, url, watches=False) as other,
    ):
        await one.ready()
        await other.ready()
        await one.put(A, "0")
        for number in range(1, 4):
            assert await other.say(A) == str(number - 1)
            await one.records.put(A, values(str(number)), AUTHOR, time.time())
            async for place in redis.scan_iter(f"idnode:*:r:{A.key}"):
                await redis.delete(place)
            await swallow(redis)
            await soon(other, str(number))
            assert other.cache.gaps == number
        assert other.disconnects == 0


async def test_every_killed_connection_is_opened_again(workers: Workers, redis: Redis) -> None:
    one, other = workers
    for text in ("one", "two", "three"):
        await redis.client_kill_filter(_type="normal", skipme=True)
        await redis.client_kill_filter(_type="pubsub")
        await one.put(A, text)
        await soon(other, text)
    await one.ready()
    await other.ready()


async def test_an_acknowledged_write_was_told_without_the_outbox(
    book: str, stores: Stores, redis: Redis
) -> None:
    url = f"{stores.redis_url}&db=5"
    async with (
        ResolvingWorker(book, url, watches=False) as one,
        ResolvingWorker(book, url, watches=False) as other,
    ):
        await one.ready()
        await other.ready()
        await one.put(A, "one")
        assert await other.say(A) == "one"
        await one.put(A, "two")
        await soon(other, "two")
        assert await outbox.pending(one.database) > 0


async def test_redis_is_trusted_only_when_all_is_published(
    book: str, stores: Stores, redis: Redis
) -> None:
    connection = await asyncpg.connect(book)
    await connection.execute("INSERT INTO outbox (topic, key) VALUES ('keys', 'k')")
    url = f"{stores.redis_url}&db=5"
    async with AsyncExitStack() as stack:
        async with connection.transaction():
            # Another worker is in the middle of publishing it.
            assert len(await connection.fetch("SELECT id FROM outbox FOR UPDATE")) == 1
            worker = await stack.enter_async_context(ResolvingWorker(book, url))
            await eventually(lambda: worker.cache.is_up)
            await asyncio.sleep(0.3)
            assert not worker.cache.is_trusted
            await connection.execute("DELETE FROM outbox")
        await worker.ready()
    await connection.close()


async def eventually_published(database: Database) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while await outbox.pending(database):
        assert time.monotonic() < until_s
        await asyncio.sleep(0.01)


async def test_a_publisher_that_hangs_loses_its_turn(database: Database, book: str) -> None:
    async with database.connection() as connection:
        await connection.execute("INSERT INTO outbox (topic, key) VALUES ('keys', 'k')")
    begun = asyncio.Event()
    published: list[Announcement] = []

    async def hang(announcements: Sequence[Announcement]) -> None:
        begun.set()
        await asyncio.sleep(60)

    async def publish(announcements: Sequence[Announcement]) -> None:
        published.extend(announcements)

    hanging = asyncio.ensure_future(publish_pending(database, hang))
    await begun.wait()
    last_id = await outbox.last_id(database)
    assert await outbox.is_pending(database, last_id)
    assert await publish_pending(database, publish) == 0
    until_s = time.monotonic() + PATIENCE_S
    while await publish_pending(database, publish) == 0:
        assert time.monotonic() < until_s
        await asyncio.sleep(0.2)
    assert published == [Announcement("keys", "k", 0)]
    assert not await outbox.is_pending(database, last_id)
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


async def test_a_long_backlog_is_published_to_the_end(workers: Workers) -> None:
    one, other = workers
    before = other.directory_changes
    async with one.database.connection() as connection:
        await connection.execute(
            "INSERT INTO outbox (topic, key)"
            f" SELECT 'keys', 'k' || n FROM generate_series(1, {2 * BATCH_MAX + 1}) n"
        )
    await eventually_published(one.database)
    await eventually(lambda: other.directory_changes >= before + 2 * BATCH_MAX + 1)


async def test_a_change_of_prefixes_or_keys_is_heard(workers: Workers) -> None:
    one, _ = workers
    before = [worker.directory_changes for worker in workers]
    async with one.database.connection() as connection:
        await connection.execute("INSERT INTO outbox (topic) VALUES ('prefixes'), ('keys')")
    expected = [number + 2 for number in before]
    await eventually(lambda: [worker.directory_changes for worker in workers] == expected)


async def test_the_outbox_is_watched_again_after_its_connection_was_cut(workers: Workers) -> None:
    one, other = workers
    await one.put(A, "one")
    await soon(other, "one")
    for text in ("two", "three"):
        await terminate_clients(one.database_url)
        await asyncio.sleep(0.05)
        await one.database.ping()
        until_s = time.monotonic() + PATIENCE_S
        while not await one.database.ping():
            assert time.monotonic() < until_s
        await one.records.put(A, values(text), AUTHOR, time.time())
        await soon(other, text)


async def test_the_outbox_is_watched_after_an_error_that_nobody_expected(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = workers
    await one.put(A, "one")
    await soon(other, "one")
    async with one.database.connection() as connection:
        await connection.execute("ALTER TABLE outbox RENAME TO elsewhere")
    await eventually(lambda: caplog.text.count("publishing failed; it is tried again") >= 2)
    async with one.database.connection() as connection:
        await connection.execute("ALTER TABLE elsewhere RENAME TO outbox")
    await one.records.put(A, values("two"), AUTHOR, time.time())
    await soon(other, "two")


async def test_a_worker_waits_for_a_redis_that_is_not_there_yet(
    book: str, valkey: EmbeddedValkey
) -> None:
    async with ResolvingWorker(book, valkey.url) as worker:
        await worker.put(A, "one")
        assert await worker.say(A) == "one"
        await asyncio.sleep(1)
        assert not worker.cache.is_up
        await eventually(lambda: worker.directory_changes > 0)
        await valkey.start()
        await worker.ready()
        await soon(worker, "one")
        await eventually_published(worker.database)


async def test_a_write_while_redis_is_away_is_answered_and_published_later(
    breakable: Workers, valkey: EmbeddedValkey
) -> None:
    one, other = breakable
    await one.put(A, "one")
    assert await other.say(A) == "one"
    await kill(valkey)
    await eventually(lambda: not one.cache.is_up and not other.cache.is_up)
    await one.put(A, "two")
    await soon(other, "two")
    assert await outbox.pending(one.database) > 0
    await valkey.start()
    await one.ready()
    await other.ready()
    assert await outbox.pending(one.database) == 0
    assert (await one.say(A), await other.say(A)) == ("two", "two")
    await one.put(A, "three")
    await soon(other, "three")


async def test_a_redis_that_comes_back_with_old_values_is_not_believed(
    breakable: Workers, valkey: EmbeddedValkey
) -> None:
    one, other = breakable
    await one.put(A, "one")
    assert (await other.say(A), await other.say(B)) == ("one", "HANDLE_NOT_FOUND")
    await eventually_shelved(other)
    await eventually_published(one.database)
    client: Redis = Redis.from_url(valkey.url)
    await client.save()
    await client.aclose()
    await one.put(A, "two")
    await one.put(B, "new")
    await eventually_published(one.database)
    await kill(valkey)
    await valkey.start()
    client = Redis.from_url(valkey.url)
    assert [key async for key in client.scan_iter("idnode:*:r:*")], "the dump was not loaded"
    await client.aclose()
    await eventually(lambda: one.disconnects == other.disconnects == 1)
    await one.ready()
    await other.ready()
    for worker in (one, other):
        assert (await worker.say(A), await worker.say(B)) == ("two", "new")


async def eventually_shelved(worker: ResolvingWorker) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while (await worker.shelf(A)).entry is None:
        assert time.monotonic() < until_s
        await asyncio.sleep(0.01)


async def test_a_stopped_redis_holds_nobody_up_for_long(
    breakable: Workers, valkey: EmbeddedValkey
) -> None:
    one, other = breakable
    await one.put(A, "one")
    assert await other.say(A) == "one"
    assert valkey.pid is not None
    with stopped([valkey.pid]):
        await one.put(A, "two")
        await soon(other, "two")
        await soon(one, "two")
        await eventually(lambda: not one.cache.is_up and not other.cache.is_up)
        assert await one.say(B) == "HANDLE_NOT_FOUND"
    await one.ready()
    await other.ready()
    await one.put(A, "three")
    await soon(other, "three")


async def test_commands_that_wait_for_a_stopped_redis_fail_together(
    breakable: Workers, valkey: EmbeddedValkey
) -> None:
    one, _ = breakable
    assert valkey.pid is not None
    with stopped([valkey.pid]):
        # Each by itself would take the time of a command: more than the patience together.
        tells = [one.cache.announce([("keys", "", 0)]) for _ in range(60 * CONNECTIONS_MAX)]
        async with asyncio.timeout(PATIENCE_S):
            results = await asyncio.gather(*tells, return_exceptions=True)
    assert {type(result) for result in results} == {CacheUnavailableError}


async def test_many_commands_at_once_are_not_a_lost_redis(workers: Workers) -> None:
    one, other = workers
    expected = other.directory_changes + 20 * CONNECTIONS_MAX
    tells = [one.cache.announce([("keys", "", 0)]) for _ in range(20 * CONNECTIONS_MAX)]
    await asyncio.gather(*tells)
    await eventually(lambda: other.directory_changes == expected)
    assert one.disconnects == other.disconnects == 0


async def test_a_stopped_postgres_is_answered_for_from_what_is_known(workers: Workers) -> None:
    one, other = workers
    await one.put(A, "one")
    assert (await one.say(A), await other.say(A)) == ("one", "one")
    with stopped(await postgres_pids(one.database_url)):
        assert await one.say(A) == "one"
        assert await one.say(B) == "SERVER_TOO_BUSY"
        assert (await one.resolve(A)).stale_age_s is not None
        # The worker loses its own memory: the shared cache still knows.
        other.hot.disconnect()
        other.hot.connect()
        found = await other.resolve(A)
        assert found.code == ResponseCode.SUCCESS
    await soon(one, "HANDLE_NOT_FOUND", B)
    await one.put(A, "two")
    await soon(other, "two")
    assert (await one.resolve(A)).stale_age_s is None


async def test_without_postgres_a_worker_that_reconnects_to_redis_marks_what_it_says(
    breakable: Workers, valkey: EmbeddedValkey, stores: Stores
) -> None:
    one, other = breakable
    await one.put(A, "one")
    assert await one.say(A) == "one"
    await eventually_shelved(one)
    client: Redis = Redis.from_url(valkey.url)
    with stopped(await postgres_pids(stores.postgres_url)):
        await client.client_kill_filter(_type="pubsub")
        await eventually(lambda: other.disconnects == 1)
        await eventually(lambda: other.cache.is_up)
        found = await other.resolve(A)
        assert found.code == ResponseCode.SUCCESS
        assert found.stale_age_s is not None
        assert not other.cache.is_trusted
        assert await other.say(B) == "SERVER_TOO_BUSY"
    await client.aclose()
    await other.ready()
    await soon(other, "HANDLE_NOT_FOUND", B)


async def test_telling_nothing_asks_nobody(book: str) -> None:
    worker = ResolvingWorker(book, "unix:///nowhere/valkey.sock")
    announcer = Announcer(worker.database, worker.cache, worker.resolver, lambda: None)
    await announcer.tell({})
    await announcer.tell({A.key: 3})
    with pytest.raises(CacheUnavailableError, match="Redis is away"):
        await worker.cache.announce([("record", A.key, 3)])
    await worker.cache.close()
    await worker.database.close()
