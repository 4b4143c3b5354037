"""Prefixes and what is below them: prefix handles, lists, homing, and what is said to strangers."""

from collections.abc import AsyncIterator

import pytest

from node.permission import ALL, Permission
from registry.database import Database
from registry.records import Refused
from resolver.identifier import from_text
from resolver.record import (
    HandleValue,
)
from resolver.response_code import ResponseCode
from resolver.wire import (
    Envelope,
    HandleRequest,
    IndexesRequest,
    InvalidMessageError,
    Message,
    Opcode,
    OpFlag,
    ResolutionRequest,
    ValuesRequest,
)
from tests.administered import (
    NOW_S,
    OWNER,
    SERVER_ADMIN,
    STRANGER,
    admin,
    entrust,
    put,
    url,
)
from tests.conftest import Stores
from tests.office import (
    EXISTS,
    INSUFFICIENT,
    INVALID_ADMIN,
    NOT_FOUND,
    NOT_HERE,
    VALUES_NOT_FOUND,
    A,
    Office,
    done,
    office_on,
)
from tests.resolving_worker import PREFIX, name


@pytest.fixture
async def office(database: Database, stores: Stores) -> AsyncIterator[Office]:
    async with office_on(database, stores.redis_url) as opened:
        yield opened


async def test_prefix_handles_are_up_to_their_parent(office: Office) -> None:
    derived = from_text(f"0.NA/{PREFIX}.7")
    below = Permission.ADD_DERIVED_PREFIX | Permission.DELETE_DERIVED_PREFIX
    await entrust(office.records, admin(OWNER, below), admin(STRANGER, ALL & ~below, 101))
    assert await office.create(STRANGER, derived, admin(STRANGER)) == INSUFFICIENT
    created = done(await office.create(OWNER, derived, admin(STRANGER)))
    assert created.created
    # Its values are its administrators', the whole of it is the parent's.
    derived_values = office.administration.add_values
    assert done(await derived_values(STRANGER, derived, [url()], now_s=NOW_S)).changed
    assert await derived_values(OWNER, derived, [url(index=2)], now_s=NOW_S) == INVALID_ADMIN
    assert await office.delete(STRANGER, derived) == INSUFFICIENT
    assert done(await office.create(OWNER, derived, url(), overwrite=True)).changed
    assert done(await office.delete(OWNER, derived)).changed


async def test_a_slashless_name_is_written_as_its_prefix_handle(office: Office) -> None:
    await entrust(office.records)
    slashless = from_text(f"{PREFIX}.8")
    created = done(await office.create(OWNER, slashless, url()))
    assert created.record is not None
    assert created.record.handle == f"0.NA/{PREFIX}.8"
    assert await office.held(from_text(f"0.NA/{PREFIX}.8"))
    assert done(await office.delete(OWNER, slashless)).changed


@pytest.mark.parametrize("asked", [PREFIX, f"0.NA/{PREFIX}"])
async def test_who_may_list_gets_every_identifier_below_the_prefix_page_by_page(
    office: Office, asked: str
) -> None:
    listing = office.administration.list_handles
    assert await listing(OWNER, asked) == INVALID_ADMIN
    await entrust(
        office.records,
        admin(OWNER, Permission.LIST_HANDLES),
        admin(STRANGER, ALL & ~Permission.LIST_HANDLES, 101),
    )
    assert await listing(STRANGER, asked) == INSUFFICIENT
    for n in range(7):
        await put(office.records, name(f"n{n}"), url())
    await put(office.records, name("gone"), admin(OWNER))
    done(await office.delete(OWNER, name("gone")))
    pages = await listing(OWNER, asked, page_size=3)
    assert not isinstance(pages, Refused)
    assert [page async for page in pages] == [
        [f"{PREFIX}/n0", f"{PREFIX}/n1", f"{PREFIX}/n2"],
        [f"{PREFIX}/n3", f"{PREFIX}/n4", f"{PREFIX}/n5"],
        [f"{PREFIX}/n6"],
    ]


async def test_only_a_prefix_that_lives_here_is_listed(office: Office) -> None:
    for asked in ("10.1000", "0.NA/10.1000", f"{PREFIX}0", f"{PREFIX}.9"):
        assert await office.administration.list_handles(SERVER_ADMIN, asked) == NOT_HERE
        assert await office.administration.list_derived_prefixes(SERVER_ADMIN, asked) == NOT_HERE
    for asked in ("", f"{PREFIX}/A", "x" * 300):
        refused = await office.administration.list_handles(SERVER_ADMIN, asked)
        assert isinstance(refused, Refused)
        assert refused.code == ResponseCode.INVALID_HANDLE


async def test_derived_prefixes_are_listed_with_the_same_permission(office: Office) -> None:
    listing = office.administration.list_derived_prefixes
    assert await listing(OWNER, PREFIX) == INVALID_ADMIN
    await entrust(office.records, admin(OWNER, Permission.LIST_HANDLES))
    assert await listing(OWNER, PREFIX) == [f"0.NA/{PREFIX}.7", f"0.NA/{PREFIX}.8"]


async def test_only_server_administrators_home_and_unhome(office: Office) -> None:
    await entrust(office.records)
    administration = office.administration
    for result in (
        await administration.home(OWNER, f"0.NA/{PREFIX}.9"),
        await administration.unhome(OWNER, f"0.NA/{PREFIX}"),
        await administration.list_homed(OWNER),
    ):
        assert result == INVALID_ADMIN


async def test_a_homed_prefix_is_listed_until_it_is_unhomed(office: Office) -> None:
    administration, asked = office.administration, "0.NA/88.100.9"
    assert await administration.list_homed(SERVER_ADMIN) == [f"0.NA/{PREFIX}"]
    assert done(await administration.home(SERVER_ADMIN, asked)).changed
    assert not done(await administration.home(SERVER_ADMIN, asked)).changed
    assert await administration.list_homed(SERVER_ADMIN) == [f"0.NA/{PREFIX}", asked]
    assert done(await administration.unhome(SERVER_ADMIN, "88.100.9")).changed
    assert not done(await administration.unhome(SERVER_ADMIN, asked)).changed
    assert await administration.list_homed(SERVER_ADMIN) == [f"0.NA/{PREFIX}"]


async def test_a_prefix_that_is_allotted_stays(office: Office) -> None:
    refused = await office.administration.unhome(SERVER_ADMIN, PREFIX)
    message = f"the prefix {PREFIX} is allotted to an enterprise"
    assert refused == Refused(ResponseCode.ERROR, message)


async def test_what_is_no_prefix_is_not_homed(office: Office) -> None:
    for asked in ("", "88.100.9/A", "88 100", "x" * 300):
        for act in (office.administration.home, office.administration.unhome):
            refused = await act(SERVER_ADMIN, asked)
            assert isinstance(refused, Refused)
            assert refused.code == ResponseCode.INVALID_HANDLE


def message(opcode: int, body: bytes, flags: int = 0) -> Message:
    return Message(Envelope(request_id=1), opcode, body, flags=flags)


def _values(opcode: Opcode, handle: str, *values: HandleValue, flags: int = 0) -> Message:
    return message(opcode, ValuesRequest(handle, values).to_wire(), flags)


async def test_before_the_challenge_only_what_everybody_may_know_is_said(office: Office) -> None:
    await put(office.records, A, url(), admin(OWNER))
    before = office.administration.before_challenge
    at = A.text.lower()
    create, modify = Opcode.CREATE_HANDLE, Opcode.MODIFY_VALUE
    for asked, expected in (
        (_values(create, at, url()), EXISTS),
        (_values(create, at, url(), flags=OpFlag.OVRW), None),
        (_values(create, at, url(), flags=OpFlag.MINT), None),
        (_values(create, name("B").text, url()), None),
        (_values(modify, at, url("new")), None),
        (_values(modify, at, url("new"), url("new", 2)), VALUES_NOT_FOUND),
        (_values(modify, name("B").text, url("new")), NOT_FOUND),
        (_values(Opcode.ADD_VALUE, at, url("new")), None),
        (message(Opcode.REMOVE_VALUE, IndexesRequest(at, (9,)).to_wire()), None),
        (message(Opcode.DELETE_HANDLE, HandleRequest(name("B").text).to_wire()), None),
        (message(Opcode.DELETE_HANDLE, HandleRequest("10.1000/1").to_wire()), NOT_HERE),
        (_values(create, "10.1000/1", url(), flags=OpFlag.OVRW), NOT_HERE),
        (message(Opcode.LIST_HOMED_NAS, HandleRequest().to_wire()), None),
        (message(Opcode.RESOLUTION, ResolutionRequest("10.1000/1").to_wire()), None),
    ):
        assert await before(asked) == expected, asked
    await office.delete(OWNER)
    assert await before(_values(create, at, url())) is None


async def test_before_the_challenge_a_name_that_cannot_be_and_a_damaged_body_are_refused(
    office: Office,
) -> None:
    before = office.administration.before_challenge
    for handle in ("", "x" * 300):
        refused = await before(_values(Opcode.CREATE_HANDLE, handle, url()))
        assert isinstance(refused, Refused)
        assert refused.code == ResponseCode.INVALID_HANDLE
    with pytest.raises(InvalidMessageError):
        await before(message(Opcode.CREATE_HANDLE, b"\x00\x00"))
