"""The whole act of resolving, on the twins in memory: what is asked of whom, and what is said."""

import asyncio
from collections.abc import Sequence

import pytest

from registry.records import Written
from registry.records_memory import MemoryRecords
from resolver.entry import Announcements, Entry, Shelf
from resolver.freshness import ABSENT_S, CONNECTED_S, DISCONNECTED_S
from resolver.hot import Hot
from resolver.identifier import Identifier, from_text
from resolver.prefix_directory import PrefixDirectory, PrefixState
from resolver.record import Record
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode
from resolver.shared_memory import MemoryCache
from tests.resolving_worker import AUTHOR, PREFIX, HeldRecords, directory, eventually, name, values
from tests.resolving_worker import said as text_of

NOW_S = 1_800_000_000.0
A = name("A")


class Kit:
    """A resolver with its tiers in reach."""

    def __init__(self, truth: MemoryRecords, cache: MemoryCache) -> None:
        self.truth = truth
        self.cache = cache
        self.held = HeldRecords(truth)
        self.hot = Hot()
        self.hot.connect()
        self.directory = directory()
        self.resolver = Resolver(self.held, cache, self.directory, self.hot)
        self.now_s = NOW_S
        cache.listeners.append(self.apply)

    def apply(self, announcements: Announcements) -> None:
        for topic, key, version in announcements:
            if topic == "record":
                self.resolver.outdated(key, version)
            elif topic == "registered":
                self.resolver.registered(key)

    async def resolve(self, identifier: Identifier = A) -> Resolution:
        self.hot.heard(self.now_s)
        found = await self.resolver.resolve(identifier, self.now_s)
        await asyncio.sleep(0)  # the fill is a task of its own
        return found

    async def say(self, identifier: Identifier = A) -> str:
        return text_of(await self.resolve(identifier))

    async def write(self, text: str, identifier: Identifier = A) -> int:
        """Into the registry; nobody is told."""
        written = await self.truth.put(identifier, values(text), AUTHOR, self.now_s)
        assert isinstance(written, Written)
        return written.record.version

    async def delete(self, identifier: Identifier = A) -> int:
        written = await self.truth.delete(identifier, AUTHOR, self.now_s)
        assert isinstance(written, Written)
        return written.record.version

    async def tell(self, version: int, identifier: Identifier = A) -> None:
        await self.cache.announce([("record", identifier.key, version)])

    def asked_later(self, identifier: Identifier = A) -> "asyncio.Task[str]":
        return asyncio.get_running_loop().create_task(self.say(identifier))


@pytest.fixture
def kit() -> Kit:
    return Kit(MemoryRecords({PREFIX}), MemoryCache())


async def test_the_registry_is_asked_once_then_the_process_answers(kit: Kit) -> None:
    await kit.write("one")
    assert [await kit.say() for _ in range(3)] == ["one"] * 3
    assert kit.held.asked == [[A.key]]
    assert kit.resolver.lookups.counts == {
        ("l1", "miss"): 1,
        ("l2", "miss"): 1,
        ("registry", "hit"): 1,
        ("registry", "miss"): 0,
        ("l1", "hit"): 2,
    }


async def test_another_worker_finds_it_in_the_shared_cache(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    other = Kit(kit.truth, kit.cache)
    assert await other.say() == "one"
    assert other.held.asked == []
    assert other.resolver.lookups.counts["l2", "hit"] == 1


async def test_what_is_too_old_is_asked_again(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    await kit.write("two")  # by hand, and nobody was told
    kit.now_s += CONNECTED_S - 1
    assert await kit.say() == "one"
    kit.now_s += 1
    assert await kit.say() == "two"


async def test_many_callers_of_one_moment_share_one_fetch(kit: Kit) -> None:
    await kit.write("one")
    assert await asyncio.gather(*[kit.say() for _ in range(50)]) == ["one"] * 50
    assert kit.held.asked == [[A.key]]


async def test_a_question_joins_the_fetch_under_way(kit: Kit) -> None:
    await kit.write("one")
    kit.held.hold()
    first = kit.asked_later()
    await eventually(lambda: kit.held.read == 1)
    second = kit.asked_later()
    await asyncio.sleep(0.01)
    kit.held.let_go()
    assert (await first, await second) == ("one", "one")
    assert kit.held.asked == [[A.key]]


async def test_a_thousand_questions_with_duplicates_are_one_fetch(kit: Kit) -> None:
    for number in range(300):
        await kit.write(f"v{number}", name(f"K{number}"))
    asked = [name(f"{'K' if n % 2 else 'k'}{n % 400}") for n in range(1000)]
    found = await kit.resolver.resolve_many(asked, NOW_S)
    expected = [f"v{n % 400}" if n % 400 < 300 else "HANDLE_NOT_FOUND" for n in range(1000)]
    assert [text_of(one) for one in found] == expected
    (keys,) = kit.held.asked
    assert sorted(keys) == sorted({one.key for one in asked})


async def test_a_batch_joins_what_is_under_way_and_asks_the_rest(kit: Kit) -> None:
    await kit.write("one")
    kit.held.hold()
    first = kit.asked_later()
    await eventually(lambda: kit.held.read == 1)
    batch = asyncio.ensure_future(kit.resolver.resolve_many([A, name("B"), A], NOW_S))
    await eventually(lambda: kit.held.read == 2)
    kit.held.let_go()
    assert [text_of(one) for one in await batch] == ["one", "HANDLE_NOT_FOUND", "one"]
    assert await first == "one"
    assert kit.held.asked == [[A.key], [name("B").key]]


async def test_a_caller_that_goes_away_takes_no_other_along(kit: Kit) -> None:
    await kit.write("one")
    kit.held.hold()
    first, second = kit.asked_later(), kit.asked_later()
    await eventually(lambda: kit.held.read == 1)
    first.cancel()
    await asyncio.sleep(0)
    kit.held.let_go()
    assert await second == "one"
    assert kit.held.asked == [[A.key]]


async def test_an_announcement_during_a_fetch_is_taken_to_heart(kit: Kit) -> None:
    await kit.write("one")
    kit.held.hold()
    slow = kit.asked_later()
    await eventually(lambda: kit.held.read == 1)
    await kit.tell(await kit.write("two"))
    joined = kit.asked_later()
    await asyncio.sleep(0)
    kit.held.let_go()
    assert (await slow, await joined) == ("two", "two")
    assert await kit.say() == "two"


async def test_every_fetch_of_one_moment_hears_of_an_announcement(kit: Kit) -> None:
    await kit.write("one")
    kit.held.hold()
    batch = asyncio.ensure_future(kit.resolver.resolve_many([A, name("B")], NOW_S))
    single = kit.asked_later()
    await eventually(lambda: kit.held.read >= 1)
    await kit.tell(await kit.write("two"))
    kit.held.let_go()
    assert text_of((await batch)[0]) == "two"
    assert await single == "two"
    assert await kit.say() == "two"


async def test_a_slow_fetch_cannot_bring_an_old_value_into_an_emptied_cache(kit: Kit) -> None:
    await kit.write("one")
    deaf = Kit(kit.truth, kit.cache)
    kit.cache.listeners.remove(deaf.apply)  # its announcement comes late
    deaf.held.hold()
    slow = deaf.asked_later()
    await eventually(lambda: deaf.held.read == 1)
    await kit.tell(await kit.write("two"))
    await kit.cache.flush()
    deaf.held.let_go()
    assert await slow == "one"
    assert await kit.say() == "two"


async def test_a_deletion_and_a_new_creation_are_answered(kit: Kit) -> None:
    await kit.write("one")
    assert await kit.say() == "one"
    await kit.tell(await kit.delete())
    assert await kit.say() == "HANDLE_NOT_FOUND"
    await kit.tell(await kit.write("again"))
    assert await kit.say() == "again"


async def test_not_found_is_believed_briefly(kit: Kit) -> None:
    assert await kit.say() == "HANDLE_NOT_FOUND"
    await kit.write("one")  # nobody was told
    kit.now_s += ABSENT_S - 1
    assert await kit.say() == "HANDLE_NOT_FOUND"
    kit.now_s += 1
    assert await kit.say() == "one"


async def test_a_registration_ends_not_found_at_once_in_every_worker(kit: Kit) -> None:
    other = Kit(kit.truth, kit.cache)
    assert (await kit.say(), await other.say()) == ("HANDLE_NOT_FOUND", "HANDLE_NOT_FOUND")
    await kit.write("one")
    await kit.cache.announce([("registered", PREFIX, 0)])
    assert (await kit.say(), await other.say()) == ("one", "one")


async def test_a_registration_during_a_fetch_is_taken_to_heart(kit: Kit) -> None:
    kit.held.hold()
    slow = kit.asked_later()
    await eventually(lambda: kit.held.read == 1)
    await kit.write("one")
    await kit.cache.announce([("registered", PREFIX, 0)])
    joined = kit.asked_later()
    await asyncio.sleep(0)
    kit.held.let_go()
    assert (await slow, await joined) == ("one", "one")


async def test_an_absence_of_an_earlier_epoch_is_not_believed(kit: Kit) -> None:
    assert await kit.say() == "HANDLE_NOT_FOUND"
    await kit.write("one")
    kit.cache.listeners.clear()
    await kit.cache.announce([("registered", PREFIX, 0)])
    assert await Kit(kit.truth, kit.cache).say() == "one"


async def test_a_change_that_never_stops_is_answered_all_the_same(kit: Kit) -> None:
    await kit.write("0")

    class Racing(HeldRecords):
        async def fetch(self, key: str) -> Record | None:
            found = await super().fetch(key)
            await kit.tell(await kit.write(str(len(self.asked))))
            return found

    kit.held = Racing(kit.truth)
    kit.resolver = Resolver(kit.held, kit.cache, kit.directory, kit.hot)
    assert (await kit.say()).isdigit()
    assert kit.hot.fresh(A.key, PREFIX, NOW_S) is None


async def test_without_announcements_nothing_older_than_a_second_is_answered(kit: Kit) -> None:
    kit.cache.is_up = False
    kit.hot.disconnect()
    await kit.write("one")
    assert await kit.say() == "one"
    await kit.write("two")
    kit.now_s += DISCONNECTED_S - 0.1
    assert await kit.say() == "one"
    kit.now_s += 0.1
    assert await kit.say() == "two"


async def test_a_fetch_that_hangs_is_not_joined_for_long(kit: Kit) -> None:
    kit.cache.is_up = False
    kit.hot.disconnect()
    await kit.write("one")
    kit.held.hold()
    hanging = kit.asked_later()
    await eventually(lambda: kit.held.read == 1)
    await kit.write("two")
    kit.now_s += DISCONNECTED_S
    late = kit.asked_later()
    await eventually(lambda: kit.held.read == 2)
    kit.held.let_go()
    assert (await hanging, await late) == ("one", "two")
    assert await kit.say() == "two"


async def test_a_shared_cache_that_goes_away_in_the_middle_is_passed_by(kit: Kit) -> None:
    await kit.write("one")

    class Failing(MemoryCache):
        async def get_many(self, keys: Sequence[tuple[str, str]]) -> list[Shelf]:
            self.is_up = False
            return await super().get_many(keys)

    kit.resolver = Resolver(kit.held, Failing(), kit.directory, kit.hot)
    assert await kit.say() == "one"
    assert kit.held.asked == [[A.key]]


async def test_a_shared_cache_that_is_not_trusted_is_not_believed(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    await kit.write("two")
    other = Kit(kit.truth, kit.cache)
    kit.cache.is_trusted = False
    assert await other.say() == "two"


async def test_without_the_registry_the_last_answer_is_given_marked_stale(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    kit.truth.is_up = False
    kit.now_s += 100_000
    found = await kit.resolve()
    assert (text_of(found), found.stale_age_s) == ("one", 100_000)
    assert kit.resolver.lookups.counts["registry", "stale"] == 1


async def test_what_is_still_fresh_is_marked_too_while_the_registry_is_away(kit: Kit) -> None:
    await kit.write("one")
    assert (await kit.resolve()).stale_age_s is None
    kit.truth.is_up = False
    kit.now_s += 3
    assert (await kit.resolve()).stale_age_s == 3


async def test_another_worker_gives_the_last_answer_from_the_shared_cache(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    kit.truth.is_up = kit.cache.is_trusted = False
    found = await Kit(kit.truth, kit.cache).resolve()
    assert (text_of(found), found.stale_age_s) == ("one", 0)


async def test_what_is_not_known_is_never_answered_as_not_found(kit: Kit) -> None:
    await kit.say()
    kit.truth.is_up = False
    kit.now_s += ABSENT_S
    for identifier in (A, name("never asked")):
        found = await kit.resolve(identifier)
        assert found.code == ResponseCode.SERVER_TOO_BUSY
        assert found.message == "the registry is away"


async def test_a_record_known_to_be_deleted_is_not_answered_as_it_was_before(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    await kit.delete()
    kit.now_s += CONNECTED_S
    assert await kit.say() == "HANDLE_NOT_FOUND"
    kit.truth.is_up = False
    kit.now_s += ABSENT_S
    old = Entry(Record.of(A.text, 1, values("one")), NOW_S)
    other = MemoryCache()  # another Redis, which never heard of the deletion
    (shelf,) = await other.get_many([(A.key, PREFIX)])
    await other.fill([(A.key, old, shelf.ticket)])
    kit.resolver = Resolver(kit.held, other, kit.directory, kit.hot)
    assert await kit.say() == "SERVER_TOO_BUSY"


async def test_what_this_worker_knows_to_be_older_is_not_believed(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()  # in the shared cache, too
    version = await kit.write("two")
    kit.resolver.outdated(A.key, version)  # its writer is still telling the others
    assert await kit.say() == "two"


async def test_what_was_announced_as_outdated_is_not_the_last_answer(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    await kit.tell(await kit.write("two"))
    kit.truth.is_up = False
    assert await kit.say() == "SERVER_TOO_BUSY"


async def test_the_registry_answers_again_when_it_is_back(kit: Kit) -> None:
    await kit.write("one")
    kit.truth.is_up = False
    assert await kit.say() == "SERVER_TOO_BUSY"
    kit.truth.is_up = True
    found = await kit.resolve()
    assert (text_of(found), found.stale_age_s) == ("one", None)


async def test_a_batch_says_for_each_what_is_known(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    kit.truth.is_up = False
    kit.now_s += CONNECTED_S
    asked = [A, name("B"), from_text("88.9.9/X"), A]
    found = await kit.resolver.resolve_many(asked, kit.now_s)
    assert [text_of(one) for one in found] == [
        "one",
        "SERVER_TOO_BUSY",
        "SERVER_NOT_RESPONSIBLE",
        "one",
    ]


async def test_an_error_that_nobody_expected_reaches_the_callers_and_ends_there(kit: Kit) -> None:
    await kit.write("one")

    class Damaged(HeldRecords):
        is_damaged = True

        async def fetch_many(self, keys: Sequence[str]) -> dict[str, Record]:
            if self.is_damaged:
                raise ValueError("stored values are damaged")
            return await super().fetch_many(keys)

    held = Damaged(kit.truth)
    kit.resolver = Resolver(held, kit.cache, kit.directory, kit.hot)
    results = await asyncio.gather(*[kit.say() for _ in range(3)], return_exceptions=True)
    assert [str(one) for one in results] == ["stored values are damaged"] * 3
    held.is_damaged = False
    assert await kit.say() == "one"


async def test_an_authoritative_question_passes_every_cache(kit: Kit) -> None:
    await kit.write("one")
    await kit.say()
    await kit.write("two")  # nobody was told
    found = await kit.resolver.resolve(A, NOW_S, authoritative=True)
    assert text_of(found) == "two"
    # What was shown once does not go back, though the change is not announced yet.
    assert await kit.say() == "two"


async def test_nothing_is_said_before_the_prefixes_are_known(kit: Kit) -> None:
    kit.resolver = Resolver(kit.held, kit.cache, PrefixDirectory(), kit.hot)
    found = await kit.resolve()
    assert found.code == ResponseCode.SERVER_TOO_BUSY
    assert found.message == "the table of prefixes was not loaded yet"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("88.9.9/A", "That prefix doesn't live here"),
        ("88.1.2/A", "That prefix is suspended"),
        ("0.NA/88.1.2", "That prefix is suspended"),
        ("0.NA/88.9.9", "That prefix doesn't live here"),
    ],
)
async def test_a_prefix_that_does_not_answer_here_says_why(
    kit: Kit, text: str, message: str
) -> None:
    kit.directory.replace(
        [PrefixState("88.1.2", suspended=True), PrefixState("88.1.3", hosted=False)]
    )
    found = await kit.resolve(from_text(text))
    assert (found.code, found.message) == (ResponseCode.SERVER_NOT_RESPONSIBLE, message)
    assert kit.held.asked == []


async def test_an_identifier_of_a_self_run_prefix_is_looked_up_nowhere_but_in_its_prefix_handle(
    kit: Kit,
) -> None:
    kit.directory.replace([PrefixState("88.1.3", hosted=False)])
    found = await kit.resolve(from_text("88.1.3/A"))
    message = "That prefix is run by its enterprise node"
    assert (found.code, found.message) == (ResponseCode.SERVER_NOT_RESPONSIBLE, message)
    assert kit.held.asked == [["0.NA/88.1.3"]]


async def test_a_prefix_handle_of_a_self_run_prefix_is_looked_up_here(kit: Kit) -> None:
    kit.directory.replace([PrefixState("88.1.3", hosted=False)])
    found = await kit.resolve(from_text("0.NA/88.1.3"))
    assert found.code == ResponseCode.HANDLE_NOT_FOUND
    assert found.prefix == PrefixState("88.1.3", hosted=False)
    assert kit.held.asked == [["0.NA/88.1.3"]]


async def test_the_table_of_prefixes_is_replaced_whole(kit: Kit) -> None:
    assert kit.directory.is_known
    kit.directory.replace([PrefixState("88.5.5")])
    assert kit.directory.states() == [PrefixState("88.5.5")]
    assert (await kit.resolve()).code == ResponseCode.SERVER_NOT_RESPONSIBLE
