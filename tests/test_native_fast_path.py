"""The native fast path: the same answers as the door's, counted once, and void when they must."""

import random
from collections.abc import AsyncIterator, Sequence
from itertools import product
from pathlib import Path

import pytest

from metrics.day import DAY_S, day_number
from metrics.journal import CountMeaning
from node.known_addresses import KNOWN_S
from node.native_fast_path import CELLS_MAX, QUESTIONS_MAX, SILENCE
from node.native_peer import Peer
from resolver.freshness import CONNECTED_S
from resolver.prefix_directory import PrefixState
from resolver.record import ADMIN_READ, Reference
from resolver.response_code import ResponseCode
from resolver.wire import Envelope, Message, OpFlag, ResolutionResponse, response_body
from tests.answering import NOON_S, OTHER, PREFIX, SELF_RUN, SUSPENDED, Answering, text
from tests.native_client import PLAIN_FLAGS, question
from tests.native_doors import NativeDoors

SEED = 20_261_123
ITEM = f"{PREFIX}/A"
CALLER = "192.0.2.7"
UDP = "native_udp"
URL = "http://www.example.com/product/1"
FOUND = (UDP, "found")

# A record with everything that a message can hold, and one that not everybody may read whole.
RICH = (
    text(1, "URL", URL),
    text(2, "NAME", "工业产品 1", timestamp_s=1_700_000_000),
    text(3, "X.Y", "", ttl=0, references=(Reference(f"{PREFIX}/B", 7),)),
)
MIXED = (text(1, "URL", URL), text(2, "SECRET", "hidden", permissions=ADMIN_READ))


@pytest.fixture
async def answering(tmp_path: Path) -> AsyncIterator[Answering]:
    made = Answering(tmp_path)
    for suffix, values in {"A": RICH, "mixed": MIXED, "空": RICH, "Empty": ()}.items():
        await made.put(suffix, *values)
    await made.put("B", text(1, "URL", URL), prefix=OTHER)
    yield made
    made.close()


@pytest.fixture
async def doors(answering: Answering, tmp_path: Path) -> AsyncIterator[NativeDoors]:
    made = NativeDoors(answering, tmp_path)
    yield made
    await made.close()


async def from_door(doors: NativeDoors, asked: bytes) -> bytes:
    """What the native door says, which prepares nothing."""
    (answer,) = await doors.native.told(asked, Peer(CALLER, UDP))
    return answer


async def prepare(doors: NativeDoors, handle: str = ITEM) -> bytes:
    """Ask at the door, so that the record is at hand; a question about it."""
    asked = question(handle).to_wire()
    await from_door(doors, asked)
    return asked


def found_in(data: bytes | None) -> Sequence[str]:
    """The texts of the values in an answer."""
    assert data
    body, _ = response_body(Message.from_wire(data))
    assert isinstance(body, ResolutionResponse), body
    return [value.data.decode() for value in body.values]


async def test_every_kind_of_question_has_the_same_answer_both_ways(doors: NativeDoors) -> None:
    generator, taken = random.Random(SEED), 0
    handles = [ITEM, f"{PREFIX}/mixed", f"{PREFIX}/空", f"{PREFIX}/empty", ITEM.lower()]
    handles += [f"{SUSPENDED}/A", f"{SELF_RUN}/A", f"{PREFIX}/none", "88.1/x", PREFIX, "", "0"]
    handles += [f"0.NA/{PREFIX}", f"{OTHER}/B", f"{OTHER}/b"]
    flags = (0, OpFlag.PUBL, PLAIN_FLAGS, PLAIN_FLAGS | OpFlag.AUTH, PLAIN_FLAGS | OpFlag.CERT,
             PLAIN_FLAGS | OpFlag.RRDG, PLAIN_FLAGS | OpFlag.DNRF, OpFlag.KPAL)  # fmt: skip
    filters: Sequence[tuple[tuple[int, ...], tuple[str, ...]]] = (
        ((), ()), ((1,), ()), ((), ("URL",)), ((2,), ("X.",)),
    )  # fmt: skip
    for handle, flag, (indexes, types), _ in product(handles, flags, filters, range(3)):
        asked = question(handle, flags=flag, indexes=indexes, types=types)
        minor, suggested = generator.choice([(11, 11), (3, 10), (0, 0), (10, 11)])
        envelope = Envelope(
            generator.getrandbits(32), minor=minor, suggested_minor=suggested,
            session_id=generator.choice((0, 0, 0, 10_001)),
        )  # fmt: skip
        whole = Message(
            envelope, asked.opcode, asked.body, flags=asked.flags,
            expiration_s=generator.getrandbits(32), recursion_count=generator.choice((0, 0, 1)),
        ).to_wire()  # fmt: skip
        slow = await from_door(doors, whole)
        for _ in range(2):  # learnt, and known
            fast = doors.answer(whole, doors.asker())
            taken += fast is not None
            assert fast in (None, slow), (handle, flag, indexes, types)
    # So many that nobody can say that the fast path was not taken.
    assert taken > 50


async def test_a_record_with_hidden_values_is_answered_fast_to_who_wants_public_ones(
    doors: NativeDoors,
) -> None:
    await prepare(doors, f"{PREFIX}/mixed")
    public, all_ = (
        question(f"{PREFIX}/mixed", flags=flags).to_wire()
        for flags in (PLAIN_FLAGS, PLAIN_FLAGS & ~OpFlag.PUBL)
    )
    assert found_in(doors.answer(public, doors.asker())) == [URL]
    assert doors.answer(all_, doors.asker()) is None


async def test_each_answer_counts_once_for_its_prefix_door_and_source(
    doors: NativeDoors, answering: Answering
) -> None:
    asked = await prepare(doors)
    before, hits = answering.counts, answering.l1_hits
    asker = doors.asker()
    for _ in range(5):
        assert doors.answer(asked, asker)
    kind = CountMeaning(day_number(NOON_S), "enterprise", PREFIX, "anonymous", "", UDP, "found")
    assert answering.counts[kind] == before[kind] + 5
    assert sum(answering.counts.values()) == sum(before.values()) + 5
    assert answering.l1_hits == hits + 5
    sources = {meaning.source: number for meaning, number in answering.sources.items()}
    assert sources == {CALLER: 6}


async def test_what_was_counted_before_is_answered_and_not_counted(
    doors: NativeDoors, answering: Answering
) -> None:
    asked = await prepare(doors)
    before = answering.counts
    assert doors.answer(asked, doors.asker(), is_again=True)
    assert answering.counts == before


async def test_a_new_day_and_a_new_journal_are_counted_in(
    doors: NativeDoors, answering: Answering
) -> None:
    asked, asker = await prepare(doors), doors.asker()
    assert doors.answer(asked, asker)
    answering.after(DAY_S)
    assert doors.answer(asked, asker) is None
    await from_door(doors, asked)
    assert doors.answer(asked, asker)
    days = {meaning.day: number for meaning, number in answering.counts.items()}
    assert days == {day_number(NOON_S): 2, day_number(NOON_S) + 1: 2}


async def test_a_changed_record_is_answered_anew(doors: NativeDoors, answering: Answering) -> None:
    asked = await prepare(doors)
    assert URL in found_in(doors.answer(asked, doors.asker()))
    await answering.put("A", text(1, "URL", "http://new.example/"))
    assert doors.answer(asked, doors.asker()) is None
    await from_door(doors, asked)
    assert found_in(doors.answer(asked, doors.asker())) == ["http://new.example/"]


async def test_nothing_is_answered_that_is_not_believed_any_more(
    doors: NativeDoors, answering: Answering
) -> None:
    asked, asker = await prepare(doors), doors.asker()
    answering.after(CONNECTED_S)
    assert doors.answer(asked, asker) is None
    await from_door(doors, asked)
    assert doors.answer(asked, asker)
    answering.after(1.5, heard=False)
    assert doors.answer(asked, asker) is None
    answering.at(answering.clock())
    assert doors.answer(asked, asker)
    answering.hot.disconnect()
    assert doors.answer(asked, asker) is None


async def test_a_suspended_prefix_is_not_answered_for(
    doors: NativeDoors, answering: Answering
) -> None:
    asked = await prepare(doors)
    assert doors.answer(asked, doors.asker())
    answering.allot(PrefixState(PREFIX, suspended=True))
    assert doors.answer(asked, doors.asker()) is None
    reply = Message.from_wire(await from_door(doors, asked))
    assert reply.response_code == ResponseCode.SERVER_NOT_RESPONSIBLE
    answering.allot()
    await from_door(doors, asked)
    assert doors.answer(asked, doors.asker())


async def test_a_new_site_serial_is_in_the_next_answer(doors: NativeDoors) -> None:
    asked = await prepare(doors)
    first = doors.answer(asked, doors.asker())
    doors.fast.forget()
    assert doors.answer(asked, doors.asker()) == first
    assert first
    assert Message.from_wire(first).site_serial == 7


async def test_what_is_remembered_is_bounded(doors: NativeDoors, answering: Answering) -> None:
    await prepare(doors)
    asker = doors.asker()
    for number in range(QUESTIONS_MAX + 10):
        # The serial number of the site as the client knows it: part of the question.
        asked = question(ITEM, request_id=1).to_wire()
        varied = asked[:32] + (number % 65_536).to_bytes(2, "big") + asked[34:]
        assert doors.answer(varied, asker)
    assert len(doors.fast._questions) <= QUESTIONS_MAX
    for number in range(CELLS_MAX + 1):
        doors.fast._open_cells(asker, f"88.700.{number}", answering.clock())
    assert len(asker.cells) <= CELLS_MAX


async def test_a_source_over_its_rate_is_left_to_the_door(
    answering: Answering, tmp_path: Path
) -> None:
    doors = NativeDoors(answering, tmp_path, per_source=3)
    asked = await prepare(doors)
    asker = doors.asker()
    assert [doors.answer(asked, asker) is None for _ in range(4)] == [False] * 3 + [True]
    refusal = doors.native.refusal(asked, asker, answering.clock())
    assert refusal is not None
    reply = Message.from_wire(refusal[0])
    assert reply.response_code == ResponseCode.SERVER_TOO_BUSY
    assert reply.envelope.request_id == Message.from_wire(asked).envelope.request_id
    assert doors.refused("rate_source") == 1
    assert doors.counts()[UDP, "refused"] == 1
    other = doors.asker("192.0.2.8")
    assert doors.answer(asked, other)
    await doors.close()


async def test_strangers_of_one_network_share_what_is_sent_to_them(
    answering: Answering, tmp_path: Path
) -> None:
    doors = NativeDoors(answering, tmp_path, per_network=4)
    asked = await prepare(doors)
    before = doors.counts()[FOUND]
    near, far = doors.asker("192.0.2.9"), doors.asker("192.0.3.7")
    answers = [doors.answer(asked, one) for _ in range(3) for one in (doors.asker(), near)]
    assert [bool(one) for one in answers] == [True] * 4 + [False] * 2
    assert answers[4:] == [SILENCE] * 2
    assert doors.refused("rate_source") == 2
    assert doors.answer(asked, far)
    # What was not said was not counted, either.
    assert doors.counts()[FOUND] == before + 5
    await doors.close()


async def test_who_has_connected_lately_is_no_stranger(
    answering: Answering, tmp_path: Path
) -> None:
    doors = NativeDoors(answering, tmp_path, per_network=1)
    asked, asker = await prepare(doors), doors.asker()
    assert [doors.answer(asked, asker) for _ in range(2)][1] == SILENCE
    doors.askers.connected(CALLER, "native_tcp", answering.clock())
    assert all(doors.answer(asked, asker) for _ in range(10))
    doors.askers.doubt()
    assert all(doors.answer(asked, asker) for _ in range(10))
    answering.after(KNOWN_S + 120)
    await from_door(doors, asked)
    doors.askers.doubt()
    assert [doors.answer(asked, asker) for _ in range(3)][2] == SILENCE
    await doors.close()


async def test_this_machine_is_limited_only_if_that_was_set(
    answering: Answering, tmp_path: Path
) -> None:
    for limits, last in ((False, True), (True, False)):
        doors = NativeDoors(
            answering, tmp_path / str(limits), per_network=1, limits_loopback=limits
        )
        asked, asker = await prepare(doors), doors.asker("127.0.0.1")
        assert bool([doors.answer(asked, asker) for _ in range(3)][2]) is last
        await doors.close()


async def test_a_flood_of_made_up_addresses_is_one_source_in_the_books(
    answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.native_limits.STRANGERS_MAX", 3)
    doors = NativeDoors(answering, tmp_path)
    asked = await prepare(doors)
    for number in range(1, 9):
        assert doors.answer(asked, doors.asker(f"198.51.100.{number}"))
    sources = {meaning.source: number for meaning, number in answering.sources.items()}
    assert sources == {
        CALLER: 1, "overflow": 5, **{f"198.51.100.{number}": 1 for number in (1, 2, 3)}
    }  # fmt: skip
    await doors.close()
