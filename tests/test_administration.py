"""Writing as an identity: what it needs, and what comes of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from node.administration import Done
from node.identity import Identity
from node.permission import ALL, Permission
from registry.database import Database
from registry.records import Refused
from resolver.errors import RegistryUnavailableError
from resolver.hot_redis import RedisCache
from resolver.identifier import from_text
from resolver.record import (
    ADMIN_READ,
    PUBLIC_READ,
    VALUE_DATA_SIZE_BYTES_MAX,
    HandleValue,
)
from resolver.response_code import ResponseCode
from tests.administered import (
    KEYS,
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
    open_office,
)
from tests.resolving_worker import PREFIX, name

UNWRITABLE = HandleValue(7, "FIXED", b"x", permissions=ADMIN_READ | PUBLIC_READ)


@pytest.fixture
async def office(database: Database, stores: Stores) -> AsyncIterator[Office]:
    async with office_on(database, stores.redis_url) as opened:
        yield opened


async def test_who_may_creates_a_record_and_the_history_says_who_it_was(office: Office) -> None:
    await entrust(office.records, admin(OWNER, Permission.ADD_HANDLE))
    ours = replace(url(), timestamp_s=1_700_000_000)
    created = done(await office.create(OWNER, A, ours, url(index=2)))
    assert (created.created, created.changed) == (True, True)
    assert created.record == await office.records.fetch(A.key)
    # A timestamp that was given stays; none means now.
    assert [value.timestamp_s for value in await office.held()] == [1_700_000_000, int(NOW_S)]
    (entry,) = await office.records.history(A.key)
    assert (entry.actor, entry.door) == (f"handle:300:{KEYS}", "native")
    assert await office.create(OWNER, A, url()) == EXISTS
    assert await office.create(STRANGER, name("B"), url()) == INVALID_ADMIN
    assert await office.records.fetch(name("B").key) is None


async def test_who_lacks_addhandle_creates_nothing(office: Office) -> None:
    await entrust(office.records, admin(OWNER, ALL & ~Permission.ADD_HANDLE))
    assert await office.create(OWNER, A, url()) == INSUFFICIENT
    assert await office.create(OWNER, A, url(), overwrite=True) == INSUFFICIENT
    assert await office.create(OWNER, A, url(), mint=True) == INSUFFICIENT
    assert await office.records.fetch(A.key) is None


async def test_overwriting_needs_deletehandle_of_the_record_too(office: Office) -> None:
    await entrust(office.records, admin(OWNER), admin(STRANGER, ALL, 101))
    await put(office.records, A, admin(OWNER, ALL & ~Permission.DELETE_HANDLE))
    before = await office.held()
    assert await office.create(OWNER, A, url(), overwrite=True) == INSUFFICIENT
    assert await office.create(STRANGER, A, url(), overwrite=True) == INVALID_ADMIN
    assert await office.held() == before
    await put(office.records, A, admin(OWNER, Permission.DELETE_HANDLE))
    overwritten = done(await office.create(OWNER, A, url(), overwrite=True))
    assert not overwritten.created
    # Now without administrators of its own, it is up to those of the prefix.
    again = done(await office.create(STRANGER, A, url("http://b.example/"), overwrite=True))
    assert not again.created
    assert done(await office.create(SERVER_ADMIN, A, admin(OWNER), overwrite=True)).changed


async def test_a_deleted_record_is_created_again_with_addhandle_alone(office: Office) -> None:
    await entrust(office.records, admin(OWNER, Permission.ADD_HANDLE))
    await put(office.records, A, admin(STRANGER))
    done(await office.delete(STRANGER))
    assert done(await office.create(OWNER, A, url())).created


@pytest.mark.parametrize(
    ("asked", "stem"),
    [
        (f"{PREFIX}/X-", f"{PREFIX}/X-"),
        (f"{PREFIX}/", f"{PREFIX}/"),
        (PREFIX, f"{PREFIX}/"),
        (f"0.NA/{PREFIX}", f"{PREFIX}/"),
    ],
)
async def test_minting_makes_a_new_name_behind_what_was_asked(
    office: Office, asked: str, stem: str
) -> None:
    await entrust(office.records)
    minted = []
    for overwrite in (False, True):
        result = done(
            await office.create(OWNER, from_text(asked), url(), overwrite=overwrite, mint=True)
        )
        assert result.created
        assert result.record is not None
        minted.append(result.record.handle)
        assert await office.held(from_text(minted[-1]))
    assert len(set(minted)) == 2
    assert all(text.startswith(stem) and len(text) == len(stem) + 36 for text in minted)


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        ((url(index=0),), ResponseCode.INVALID_VALUE, "Value indexes must be positive"),
        ((url(index=-1),), ResponseCode.INVALID_VALUE, "Value indexes must be positive"),
        (
            (HandleValue(1, "T", bytes(VALUE_DATA_SIZE_BYTES_MAX + 1)),),
            ResponseCode.INVALID_VALUE,
            "value 1: data is 65537 bytes, at most 65536 are allowed",
        ),
        ((url(), url()), ResponseCode.VALUE_ALREADY_EXISTS, "Index conflict for 1"),
    ],
)
async def test_values_that_break_a_rule_are_refused_and_the_rule_is_named(
    office: Office, values: Sequence[HandleValue], code: ResponseCode, message: str
) -> None:
    await put(office.records, A, admin(OWNER), url())
    await entrust(office.records)
    refused = Refused(code, message)
    assert await office.create(OWNER, name("B"), *values) == refused
    assert await office.add(OWNER, *values, overwrite=True) == refused
    assert await office.modify(OWNER, *values) == refused
    assert len(await office.records.history(A.key)) == 1


@pytest.mark.parametrize("suffix", ["", "a b", "a\nb", "a" * 250])
async def test_a_name_that_cannot_be_registered_is_not_created(office: Office, suffix: str) -> None:
    await entrust(office.records)
    for mint in (False, True) if suffix else (False,):
        asked = replace(A, text=f"{PREFIX}/{suffix}", suffix=suffix)
        refused = await office.create(OWNER, asked, url(), mint=mint)
        assert isinstance(refused, Refused)
        assert refused.code == ResponseCode.INVALID_HANDLE
        assert refused.message


async def test_nothing_is_written_where_the_prefix_does_not_live(office: Office) -> None:
    elsewhere = from_text("10.1000/1")
    for write in office.every_write(elsewhere):
        assert await write(SERVER_ADMIN) == NOT_HERE
        assert await write(STRANGER) == NOT_HERE


async def test_what_does_not_exist_cannot_be_changed_by_anybody(office: Office) -> None:
    await entrust(office.records)
    for _, *changes in (office.every_write(A), office.every_write(A)):
        for change in changes:
            assert await change(OWNER) == NOT_FOUND
            assert await change(STRANGER) == NOT_FOUND
        await put(office.records, A, url(), admin(OWNER))
        done(await office.delete(OWNER))


@dataclass(frozen=True)
class Change:
    """One change of the record of `_kinds`, and the permissions it needs."""

    act: Callable[[Office, Identity], Awaitable[Done | Refused]]
    needs: int


_P = Permission
_OTHER = Identity(KEYS, 1)
CHANGES = {
    "delete": Change(lambda office, who: office.delete(who), _P.DELETE_HANDLE),
    "add": Change(lambda office, who: office.add(who, url(index=50)), _P.ADD_VALUE),
    "add admin": Change(lambda office, who: office.add(who, admin(_OTHER, ALL, 50)), _P.ADD_ADMIN),
    "add both": Change(
        lambda office, who: office.add(who, admin(_OTHER, ALL, 50), url(index=51)),
        _P.ADD_ADMIN | _P.ADD_VALUE,
    ),
    "add or overwrite": Change(
        lambda office, who: office.add(who, url("new"), url(index=50), overwrite=True),
        _P.ADD_VALUE | _P.MODIFY_VALUE,
    ),
    "overwrite admin": Change(
        lambda office, who: office.add(who, admin(_OTHER, ALL, 101), overwrite=True),
        _P.MODIFY_ADMIN,
    ),
    "modify": Change(lambda office, who: office.modify(who, url("new")), _P.MODIFY_VALUE),
    "modify admin": Change(
        lambda office, who: office.modify(who, admin(_OTHER, 0, 101)), _P.MODIFY_ADMIN
    ),
    "become admin": Change(
        lambda office, who: office.modify(who, admin(who, ALL, 1)),
        _P.MODIFY_VALUE | _P.MODIFY_ADMIN,
    ),
    "become admin in small letters": Change(
        lambda office, who: office.modify(who, replace(admin(who, ALL, 1), type="hs_admin")),
        _P.MODIFY_VALUE | _P.MODIFY_ADMIN,
    ),
    "be admin no longer": Change(
        lambda office, who: office.modify(who, url(index=101)),
        _P.MODIFY_VALUE | _P.MODIFY_ADMIN,
    ),
    "remove": Change(lambda office, who: office.remove(who, 1), _P.REMOVE_VALUE),
    "remove admin": Change(lambda office, who: office.remove(who, 101), _P.REMOVE_ADMIN),
    "remove both": Change(
        lambda office, who: office.remove(who, 1, 101), _P.REMOVE_VALUE | _P.REMOVE_ADMIN
    ),
}
EVERY_CHANGE = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@EVERY_CHANGE
async def test_a_change_is_done_with_exactly_the_permissions_it_needs(
    office: Office, change: Change
) -> None:
    await entrust(office.records)
    await put(office.records, A, url(), admin(OWNER, change.needs), admin(_OTHER, ALL, 101))
    assert done(await change.act(office, OWNER)).changed


@EVERY_CHANGE
async def test_a_change_is_refused_if_one_of_its_permissions_is_lacking(
    office: Office, change: Change
) -> None:
    await entrust(office.records, admin(OWNER), admin(STRANGER, ALL, 101))
    for bit in (one for one in Permission if one & change.needs):
        await put(office.records, A, url(), admin(OWNER, ALL & ~bit), admin(_OTHER, ALL, 101))
        before = await office.records.fetch(A.key)
        assert await change.act(office, OWNER) == INSUFFICIENT
        # Neither by administrators of the prefix, who do not count here.
        assert await change.act(office, STRANGER) == INVALID_ADMIN
        assert await office.records.fetch(A.key) == before


@EVERY_CHANGE
async def test_server_administrators_may_do_every_change(office: Office, change: Change) -> None:
    await put(office.records, A, url(), admin(_OTHER, 0, 101))
    assert done(await change.act(office, SERVER_ADMIN)).changed


async def test_an_ownerless_record_is_changed_by_the_administrators_of_its_prefix(
    office: Office,
) -> None:
    await put(office.records, A, url())
    assert await office.modify(OWNER, url("new")) == INVALID_ADMIN
    await entrust(office.records, admin(OWNER, Permission.MODIFY_VALUE))
    assert done(await office.modify(OWNER, url("new"))).changed
    assert await office.remove(OWNER, 1) == INSUFFICIENT


async def test_nothing_to_do_is_not_for_everybody(office: Office) -> None:
    await put(office.records, A, url(), admin(OWNER, 0))
    for nothing in (office.add, office.modify, office.remove):
        assert await nothing(STRANGER) == INVALID_ADMIN
        assert isinstance(await nothing(OWNER), Done)


@pytest.mark.parametrize("who", [OWNER, SERVER_ADMIN])
async def test_a_value_that_administrators_may_not_write_stays(
    office: Office, who: Identity
) -> None:
    await put(office.records, A, UNWRITABLE, url(), admin(OWNER))
    before = await office.records.fetch(A.key)
    changed = replace(UNWRITABLE, data=b"y")
    assert await office.modify(who, url("new"), changed) == INSUFFICIENT
    assert await office.add(who, changed, overwrite=True) == INSUFFICIENT
    assert await office.remove(who, 1, 7) == INSUFFICIENT
    assert await office.remove(STRANGER, 7) == INVALID_ADMIN
    assert await office.records.fetch(A.key) == before
    # What stands beside it is as free as ever, and so is the whole.
    assert done(await office.remove(who, 1)).changed
    assert done(await office.delete(who)).changed


async def test_what_is_missing_or_there_already_is_said_and_changes_nothing(
    office: Office,
) -> None:
    await put(office.records, A, url(), admin(OWNER))
    before = await office.records.fetch(A.key)
    conflict = Refused(ResponseCode.VALUE_ALREADY_EXISTS, "Index conflict for 1")
    assert await office.add(OWNER, url("new", 2), url("new")) == conflict
    assert await office.modify(OWNER, url("new"), url("new", 2)) == VALUES_NOT_FOUND
    assert await office.remove(OWNER, 1, 2) == VALUES_NOT_FOUND
    assert await office.records.fetch(A.key) == before
    # Who may not add is not told what is there.
    assert await office.add(STRANGER, url("new")) == INVALID_ADMIN


async def test_values_are_added_modified_and_removed(office: Office) -> None:
    await put(office.records, A, url(), admin(OWNER))
    added = done(await office.add(OWNER, url("two", 2)))
    assert (added.created, added.record) == (True, await office.records.fetch(A.key))
    modified = done(await office.modify(OWNER, url("zwei", 2)))
    assert not modified.created
    assert [(one.index, one.data) for one in await office.held()][:2] == [
        (1, b"http://a.example/"),
        (2, b"zwei"),
    ]
    done(await office.remove(OWNER, 1, 2))
    assert [one.index for one in await office.held()] == [100]


async def test_a_record_does_not_grow_beyond_what_one_message_holds(office: Office) -> None:
    whole = [HandleValue(n, "T", bytes(VALUE_DATA_SIZE_BYTES_MAX)) for n in range(1, 4)]
    await put(office.records, A, *whole, admin(OWNER))
    refused = await office.add(OWNER, HandleValue(9, "T", bytes(VALUE_DATA_SIZE_BYTES_MAX)))
    assert isinstance(refused, Refused)
    assert refused.code == ResponseCode.INVALID_VALUE
    assert len(await office.held()) == 4


async def test_a_write_that_changes_nothing_says_so(office: Office) -> None:
    await entrust(office.records)
    done(await office.create(OWNER, A, url()))
    again = done(await office.create(OWNER, A, url(), overwrite=True))
    assert (again.created, again.changed) == (False, False)
    assert len(await office.records.history(A.key)) == 1


async def test_without_the_registry_nothing_is_said_to_be_done(stores: Stores) -> None:
    gone = Database("postgresql://127.0.0.1:1/nothing")
    cache = RedisCache(stores.redis_url)
    office = open_office(gone, cache)
    for write in office.every_write(A):
        with pytest.raises(RegistryUnavailableError):
            await write(SERVER_ADMIN)
    await cache.close()
    await gone.close()
