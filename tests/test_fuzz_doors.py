"""The trial of the doors' fuzzer: it holds for damaged recordings, and it notices what is wrong."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.native_door import NativeDoor
from node.native_limits import Room
from node.native_peer import Peer
from tests.conftest import Stores
from tests.fuzz_doors import seeds
from tests.fuzzed_doors import FuzzedDoors, fuzzed_doors
from tests.fuzzed_operations import WAYS, try_input
from tests.native_asking import asking
from tests.native_replies import FoundError

_SEEDS = sorted(set(seeds()))
_ROUNDS = 30
_MESSAGE, _STREAM = (WAYS.index(way) for way in (FuzzedDoors.hear_message, FuzzedDoors.hear_stream))


@pytest.fixture
async def fuzzed(database_url: str, stores: Stores, tmp_path: Path) -> AsyncIterator[FuzzedDoors]:
    async with fuzzed_doors(database_url, stores.redis_url, tmp_path) as opened:
        yield opened


def damaged(data: bytes, chosen: random.Random) -> bytes:
    """`data` with some bytes changed, and often cut."""
    changed = bytearray(data)
    for _ in range(chosen.randrange(4)):
        changed[chosen.randrange(1, len(changed))] = chosen.randrange(256)
    return bytes(changed[: chosen.randrange(2, 2 * len(changed))])


async def test_damaged_requests_are_answered_or_not_in_every_way(fuzzed: FuzzedDoors) -> None:
    chosen = random.Random(1)
    for way in range(len(WAYS)):
        of_way = [seed for seed in _SEEDS if seed[0] % len(WAYS) == way]
        assert of_way
        for _ in range(_ROUNDS):
            seed = chosen.choice(of_way)
            await try_input(fuzzed, seed)
            await try_input(fuzzed, damaged(seed, chosen))


async def test_what_is_raised_is_found(
    fuzzed: FuzzedDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(door: NativeDoor, message: bytes, peer: Peer) -> list[bytes]:
        raise ZeroDivisionError

    monkeypatch.setattr(NativeDoor, "answer", answer)
    with pytest.raises(FoundError, match="a message failed"):
        await try_input(fuzzed, bytes((_MESSAGE, 0)) + asking().to_wire())


async def test_another_ones_answer_is_found(
    fuzzed: FuzzedDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(door: NativeDoor, message: bytes, peer: Peer) -> list[bytes]:
        return [another]

    (another,) = await fuzzed.doors.door.answer(asking().to_wire(), Peer("", "native_tcp"))
    monkeypatch.setattr(NativeDoor, "answer", answer)
    with pytest.raises(FoundError, match="nobody asked"):
        await try_input(fuzzed, bytes((_MESSAGE, 0)) + asking().to_wire())


async def test_bytes_that_are_held_for_nobody_are_found(
    fuzzed: FuzzedDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give(room: Room, size_bytes: int) -> None:
        """Give nothing back."""

    monkeypatch.setattr(Room, "give", give)
    with pytest.raises(FoundError, match="held for nobody"):
        await try_input(fuzzed, bytes((_STREAM, 2)) + b"\x3f" * 4 + asking().to_wire())
