"""Callers: keys that are remembered, for how long, and what ends that."""

import asyncio
from typing import Any

import pytest

from node.callers import (
    REMEMBERED_CONNECTED_S,
    REMEMBERED_S,
    Callers,
    UnknownKeyError,
)
from node.http_exchange import Exchange
from registry import api_keys
from registry.database import Database
from registry.records import Author

NOW_S = 1_800_000_000.0
AUTHOR = Author("test", "test")


@pytest.fixture
def callers(database: Database) -> Callers:
    return Callers(database)


async def key_of_operator(database: Database) -> tuple[str, str]:
    text, key = await api_keys.create(database, api_keys.OPERATOR, None, author=AUTHOR)
    return text, key.id


def asking(key: str) -> Exchange:
    async def receive() -> Any:
        raise AssertionError("nobody reads a body")

    return Exchange({"headers": [(b"x-api-key", key.encode())], "client": None}, receive)


async def test_a_key_is_remembered_after_it_was_looked_up(
    callers: Callers, database: Database
) -> None:
    key, _ = await key_of_operator(database)
    assert callers.remembered(key, NOW_S) == (None, 0.0)
    caller = await callers.of(asking(key), NOW_S)
    assert callers.remembered(key, NOW_S) == (caller, NOW_S + REMEMBERED_S)
    assert callers.remembered(key, NOW_S + REMEMBERED_S) == (None, 0.0)


@pytest.mark.parametrize(
    ("connected", "kept_s"), [(True, REMEMBERED_CONNECTED_S), (False, REMEMBERED_S)]
)
async def test_how_long_depends_on_whether_revocations_are_announced(
    callers: Callers, database: Database, connected: bool, kept_s: float
) -> None:
    key, _ = await key_of_operator(database)
    caller = await callers.of(asking(key), NOW_S)
    callers.connected = connected
    for elapsed_s in (0.0, kept_s - 0.1, 0.1 - kept_s):
        assert callers.remembered(key, NOW_S + elapsed_s) == (caller, NOW_S + kept_s)
    for elapsed_s in (kept_s, -kept_s):
        assert callers.remembered(key, NOW_S + elapsed_s)[0] is None


async def test_a_key_that_opens_nothing_is_nobody_s(callers: Callers, database: Database) -> None:
    key, key_id = await key_of_operator(database)
    await api_keys.revoke(database, key_id, author=AUTHOR)
    for text in (key, api_keys.new_key_text(), "nonsense"):
        with pytest.raises(UnknownKeyError):
            await callers.of(asking(text), NOW_S)
        assert callers.remembered(text, NOW_S)[0] is None


async def test_whoever_keeps_callers_is_told_before_they_are_forgotten_for_certain(
    callers: Callers, database: Database
) -> None:
    key, _ = await key_of_operator(database)
    await callers.of(asking(key), NOW_S)
    told: list[object] = []
    # What is learnt again by whoever is told must not be what was to be forgotten.
    callers.on_forget = lambda: told.append(callers.remembered(key, NOW_S)[0])
    callers.forget()
    assert told == [None]


async def test_a_look_up_that_began_before_a_revocation_is_not_remembered_after(
    callers: Callers, database: Database
) -> None:
    key, _ = await key_of_operator(database)
    looking = asyncio.create_task(callers.of(asking(key), NOW_S))
    await asyncio.sleep(0)  # it has asked, and nothing has come yet
    callers.forget()
    assert (await looking).is_operator
    assert callers.remembered(key, NOW_S)[0] is None
