"""What is in use is renewed before it ends, hundreds at once; what is not, ends in its time."""

import asyncio

import pytest

from registry.records import Written
from registry.records_memory import MemoryRecords
from resolver.errors import RegistryUnavailableError
from resolver.freshness import CONNECTED_S, RENEWED_AHEAD_S, RENEWED_FROM_S
from resolver.hot import Hot, Kept
from resolver.record import Record
from resolver.renewing import Renewing
from resolver.resolve import Resolver
from resolver.unshared import Unshared
from tests.resolving_worker import AUTHOR, PREFIX, HeldRecords, directory, eventually, name, values

NOW_S = 1_800_000_000.0
A, B = name("A"), name("B")


class Kit:
    """A process cache of two records before a registry whose questions are counted."""

    def __init__(self) -> None:
        self.truth = MemoryRecords({PREFIX})
        self.held = HeldRecords(self.truth)
        self.hot = Hot()
        self.hot.connect()
        self.resolver = Resolver(self.held, Unshared(), directory(), self.hot)
        self.renewing = Renewing(self.held, self.hot, self.resolver.outdated)

    async def write(self, text: str) -> int:
        written = await self.truth.put(A, values(text), AUTHOR, NOW_S)
        assert isinstance(written, Written)
        return written.record.version

    async def renew(self, now_s: float) -> int:
        """How often the registry was asked for it."""
        self.hot.heard(now_s)
        before = len(self.held.asked)
        await self.renewing.renew(now_s)
        return len(self.held.asked) - before

    def use(self) -> None:
        for identifier in (A, B):
            kept = self.hot.kept(identifier.key)
            assert kept is not None
            kept.is_used = True

    def answers(self, now_s: float) -> list[Kept | None]:
        self.hot.heard(now_s)
        return [self.kept(A.key, now_s), self.kept(B.key, now_s)]

    def kept(self, key: str, now_s: float) -> Kept | None:
        kept = self.hot.kept(key)
        return kept if kept is not None and self.hot.may_answer(kept, now_s) else None


@pytest.fixture
async def kit() -> Kit:
    made = Kit()
    await made.write("first")
    await made.truth.put(B, values("other"), AUTHOR, NOW_S)
    made.hot.heard(NOW_S)
    await made.resolver.resolve_many([A, B], NOW_S)
    made.held.asked.clear()
    return made


async def test_what_is_in_use_is_renewed_in_one_question_and_stays_prepared(kit: Kit) -> None:
    before = kit.answers(NOW_S)
    assert None not in before
    for kept in before:
        assert kept is not None
        kept.json = b"as it was prepared"
    questions = 0
    for second in range(300):
        kit.use()
        questions += await kit.renew(NOW_S + second)
        assert kit.answers(NOW_S + second) == before
    assert 300 // CONNECTED_S <= questions <= 300 // (RENEWED_FROM_S - RENEWED_AHEAD_S)
    assert all(keys == [A.key, B.key] for keys in kit.held.asked)
    assert before[0] is not None
    assert before[0].json == b"as it was prepared"


async def test_nothing_is_asked_for_before_its_time_or_twice(kit: Kit) -> None:
    assert await kit.renew(NOW_S + RENEWED_FROM_S - RENEWED_AHEAD_S) == 0
    kit.use()
    assert await kit.renew(NOW_S + CONNECTED_S - 1) == 1
    kit.use()
    assert await kit.renew(NOW_S + CONNECTED_S - 1) == 0


async def test_what_nobody_uses_ends_in_its_time(kit: Kit) -> None:
    at_s = NOW_S + CONNECTED_S - 1
    assert await kit.renew(at_s) == 1  # it was fetched because somebody asked
    at_s += CONNECTED_S - 1
    assert await kit.renew(at_s) == 0
    assert kit.answers(at_s + 1) == [None, None]


async def test_a_newer_version_that_nobody_announced_is_found(kit: Kit) -> None:
    await kit.write("second")
    await kit.renew(NOW_S + CONNECTED_S - 1)
    first, other = kit.answers(NOW_S + CONNECTED_S - 1)
    assert first is None
    assert other is not None


async def test_a_value_that_was_changed_behind_the_registry_is_forgotten(kit: Kit) -> None:
    record = await kit.truth.fetch(A.key)
    assert record is not None
    edited = Record(record.handle, record.version, record.wire + b"\0", record.stamp_s)
    kit.truth._records[A.key] = edited
    await kit.renew(NOW_S + CONNECTED_S - 1)
    first, other = kit.answers(NOW_S + CONNECTED_S - 1)
    assert first is None
    assert other is not None


async def test_an_announcement_while_the_registry_is_asked_is_not_undone(kit: Kit) -> None:
    kit.held.hold()
    renewing = asyncio.create_task(kit.renew(NOW_S + CONNECTED_S - 1))
    await eventually(lambda: kit.held.read == 2)
    version = await kit.write("second")
    kit.resolver.outdated(A.key, version)
    kit.held.let_go()
    await renewing
    assert kit.answers(NOW_S + CONNECTED_S - 1)[0] is None


async def test_what_was_asked_before_the_connection_was_lost_renews_nothing(kit: Kit) -> None:
    kit.held.hold()
    renewing = asyncio.create_task(kit.renew(NOW_S + CONNECTED_S - 1))
    await eventually(lambda: kit.held.read == 2)
    kit.hot.disconnect()
    kit.hot.connect()
    kit.held.let_go()
    await renewing
    assert kit.answers(NOW_S + CONNECTED_S - 1) == [None, None]


async def test_while_announcements_may_be_missed_nothing_is_renewed(kit: Kit) -> None:
    kit.hot.disconnect()
    assert await kit.renew(NOW_S + 0.5) == 0


async def test_without_the_registry_entries_end_in_their_time(kit: Kit) -> None:
    kit.truth.is_up = False
    assert await kit.renew(NOW_S + CONNECTED_S - 1) == 0
    kit.truth.is_up = True
    assert await kit.renew(NOW_S + CONNECTED_S - 1) == 1


async def test_a_registry_that_goes_away_in_the_middle_renews_nothing(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(keys: object) -> dict[str, Record]:
        raise RegistryUnavailableError("gone")

    monkeypatch.setattr(kit.held, "fetch_many", lost)
    with pytest.raises(RegistryUnavailableError):
        await kit.renew(NOW_S + CONNECTED_S - 1)
    assert kit.answers(NOW_S + CONNECTED_S) == [None, None]


async def test_many_are_renewed_in_pieces(kit: Kit) -> None:
    names = [name(f"N{number}") for number in range(600)]
    for identifier in names:
        await kit.truth.put(identifier, values("many"), AUTHOR, NOW_S)
    await kit.resolver.resolve_many(names, NOW_S)
    kit.held.asked.clear()
    await kit.renew(NOW_S + CONNECTED_S - 1)
    asked = [key for keys in kit.held.asked for key in keys]
    assert sorted(asked) == sorted(one.key for one in (A, B, *names))
    assert max(map(len, kit.held.asked)) <= 250
