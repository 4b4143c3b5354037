"""Writing and listing for identities of the Handle protocol, the same for every door.

What an identity may do is looked up first and holds until the write is done: the transaction
refuses it if an administrator was changed in between, and the decision is made anew.

Source: specs §1.5, §3.3 to §3.6.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from node.administrators import Administrators, Rights, admin_data, is_admin_value
from node.announcer import Announcer
from node.identity import Identity
from node.permission import Permission
from registry import homed_prefixes, prefixes
from registry.database import Database
from registry.records import (
    Author,
    OvertakenError,
    Permit,
    PostgresRecords,
    Refused,
    Written,
    refusal_of_values,
)
from registry.refusal import InvalidEntryError, RefusalError
from resolver import identifier as identifiers
from resolver.errors import InvalidIdentifierError
from resolver.identifier import PREFIX_HANDLE_PREFIX, Identifier, fold
from resolver.prefix_directory import PrefixDirectory, names_prefix, refusal
from resolver.record import ADMIN_WRITE, HandleValue, Record
from resolver.response_code import ResponseCode
from resolver.wire import (
    HandleRequest,
    IndexesRequest,
    Message,
    Opcode,
    OpFlag,
    ValuesRequest,
    request_body,
)

# Decisions of one write that are overtaken by changed administrators; nobody changes them so often.
DECISIONS_MAX = 5
# Identifiers of one page of a list: a native message of 262,144 bytes holds that many at least.
LIST_PAGE_SIZE = 1_000

# A bit beyond those of HS_ADMIN: what needs it is not allowed to anybody.
_NOBODYS = 0x1000

_ON_ONE_HANDLE = (
    Opcode.CREATE_HANDLE,
    Opcode.DELETE_HANDLE,
    Opcode.ADD_VALUE,
    Opcode.REMOVE_VALUE,
    Opcode.MODIFY_VALUE,
)


@dataclass(frozen=True, slots=True)
class Done:
    """An operation that was done and, if it changed something, announced.

    `record` is what was written, None for prefixes; `created` and `changed` as in Written.
    """

    record: Record | None = None
    created: bool = False
    changed: bool = True


@dataclass(frozen=True, slots=True)
class _Needed:
    """Permissions that a write needs: of the prefix handle, of the record; None: not asked."""

    above: int | None = None
    own: int | None = None


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an identity may do, and the HS_ADMIN values of the record from which it follows."""

    admins: tuple[bytes, ...]
    above: Rights | None
    own: Rights | None


_Decide = Callable[[Record | None], _Needed | Refused]
_Act = Callable[[Permit], Awaitable[Written | Refused]]


class Administration:
    """The operations that only administrators may do."""

    def __init__(
        self,
        records: PostgresRecords,
        administrators: Administrators,
        announcer: Announcer,
        directory: PrefixDirectory,
        database: Database,
        *,
        door: str,
    ) -> None:
        self._records = records
        self._administrators = administrators
        self._announcer = announcer
        self._directory = directory
        self._database = database
        self._door = door

    async def create(
        self,
        identity: Identity,
        identifier: Identifier,
        values: Sequence[HandleValue],
        *,
        overwrite: bool,
        mint: bool = False,
        now_s: float,
    ) -> Done | Refused:
        """Make `values` the whole record of `identifier`, or with `mint` of a new one below it.

        Needs addHandle of the prefix handle, and deleteHandle of a record that is overwritten; of
        a prefix handle, addDerivedPrefix and deleteDerivedPrefix of its parent.

        Raises:
            RegistryUnavailableError: if PostgreSQL does not answer; it may have been written.
        """
        try:
            target = _registrable(_minted(identifier) if mint else identifier)
        except InvalidIdentifierError as error:
            return Refused(ResponseCode.INVALID_HANDLE, str(error))
        refused = refusal_of_values(values)
        if refused is not None:
            return refused
        overwrite = overwrite and not mint
        author = self._author(identity)

        async def act(permit: Permit) -> Written | Refused:
            return await self._records.put(
                target, values, author, now_s, overwrite=overwrite, permit=permit
            )

        return await self._write(identity, target, _creation(target, overwrite), act)

    async def delete(
        self, identity: Identity, identifier: Identifier, *, now_s: float
    ) -> Done | Refused:
        """Delete the record. Needs its deleteHandle; of a prefix handle, deleteDerivedPrefix of
        its parent. Raises as `create`.
        """
        author = self._author(identity)

        async def act(permit: Permit) -> Written | Refused:
            return await self._records.delete(identifier, author, now_s, permit=permit)

        return await self._write(identity, identifier, _deletion(identifier), act)

    async def add_values(
        self,
        identity: Identity,
        identifier: Identifier,
        values: Sequence[HandleValue],
        *,
        overwrite: bool = False,
        now_s: float,
    ) -> Done | Refused:
        """Add `values` to a record, with `overwrite` also in the place of those that are there.

        Needs addValue, and modifyValue for what is overwritten; for HS_ADMIN values addAdmin and
        modifyAdmin. Raises as `create`.
        """
        refused = refusal_of_values(values)
        if refused is not None:
            return refused
        author = self._author(identity)

        async def act(permit: Permit) -> Written | Refused:
            return await self._records.put_values(
                identifier, values, author, now_s, overwrite=overwrite, permit=permit
            )

        return await self._write(identity, identifier, _addition(values, overwrite), act)

    async def modify_values(
        self,
        identity: Identity,
        identifier: Identifier,
        values: Sequence[HandleValue],
        *,
        now_s: float,
    ) -> Done | Refused:
        """Put `values` in the place of those with their indexes, which must all be there.

        Needs modifyValue, for HS_ADMIN values modifyAdmin. Raises as `create`.
        """
        refused = refusal_of_values(values)
        if refused is not None:
            return refused
        author = self._author(identity)

        async def act(permit: Permit) -> Written | Refused:
            return await self._records.modify_values(
                identifier, values, author, now_s, permit=permit
            )

        return await self._write(identity, identifier, _modification(values), act)

    async def remove_values(
        self,
        identity: Identity,
        identifier: Identifier,
        indexes: Iterable[int],
        *,
        now_s: float,
    ) -> Done | Refused:
        """Remove the values with `indexes`, which must all be there.

        Needs removeValue, for HS_ADMIN values removeAdmin. Raises as `create`.
        """
        author, gone = self._author(identity), frozenset(indexes)

        async def act(permit: Permit) -> Written | Refused:
            return await self._records.remove_values(identifier, gone, author, now_s, permit=permit)

        return await self._write(identity, identifier, _removal(gone), act)

    async def list_handles(
        self, identity: Identity, prefix: str, *, page_size: int = LIST_PAGE_SIZE
    ) -> AsyncIterator[list[str]] | Refused:
        """Pages of the identifiers below `prefix`, in key order, as they are written.

        `prefix` may be written as its prefix handle, as native clients do. Raises as `create`, also
        while the pages are read.
        """
        asked = await self.listable(identity, prefix)
        if isinstance(asked, Refused):
            return asked
        return self._records.list_all(fold(asked), page_size)

    async def list_derived_prefixes(self, identity: Identity, prefix: str) -> list[str] | Refused:
        """The prefix handles 0.NA/P.x that are known here, by key. Raises as `create`."""
        asked = await self.listable(identity, prefix)
        if isinstance(asked, Refused):
            return asked
        stem = f"{fold(asked)}."
        keys = [state.key for state in self._directory.states() if state.key.startswith(stem)]
        return _prefix_handles(keys)

    async def listable(self, identity: Identity, prefix: str) -> str | Refused:
        """The prefix itself if `identity` may list what is below it: needs its listHandles.

        `prefix` may be written as its prefix handle. Raises as `create`.
        """
        asked = _of_prefix(prefix)
        if isinstance(asked, Refused):
            return asked
        state = self._directory.responsible(asked)
        if state is not None and not names_prefix(state, asked):
            state = None  # only what it is derived from lives here
        found = refusal(state, asked)
        if found is not None:
            return Refused(*found)
        code = await self._administrators.refusal(identity, Permission.LIST_HANDLES, asked)
        return asked.suffix if code is None else Refused(code)

    async def list_homed(self, identity: Identity) -> list[str] | Refused:
        """The prefix handles of all prefixes that live here; for server administrators.

        Raises as `create`.
        """
        if not self._administrators.is_server_admin(identity):
            return Refused(ResponseCode.INVALID_ADMIN)
        async with self._database.connection() as connection:
            homed = await homed_prefixes.load_all(connection)
            allotted = await prefixes.load_all(connection)
        hosted = [one.prefix for one in allotted if one.mode == prefixes.HOSTED]
        return _prefix_handles({*homed, *hosted})

    async def home(self, identity: Identity, prefix: str) -> Done | Refused:
        """Take over the service of a prefix; for server administrators. Raises as `create`."""
        return await self._homing(identity, prefix, homed_prefixes.home)

    async def unhome(self, identity: Identity, prefix: str) -> Done | Refused:
        """Give up the service of a prefix; for server administrators. Raises as `create`."""
        return await self._homing(identity, prefix, homed_prefixes.unhome)

    async def before_challenge(self, message: Message) -> Refused | None:
        """Why a request is refused at once, whoever asks; None if the asker must be known first.

        Raises:
            InvalidMessageError: if the body is damaged.
            RegistryUnavailableError: if PostgreSQL does not answer.

        Source: recorded answers of Handle.Net 9.3.1.
        """
        if message.opcode not in _ON_ONE_HANDLE:
            return None
        body = request_body(message)
        assert isinstance(body, ValuesRequest | IndexesRequest | HandleRequest)
        try:
            asked = identifiers.from_text(body.handle)
        except InvalidIdentifierError as error:
            return Refused(ResponseCode.INVALID_HANDLE, str(error))
        return self._refusal_of_prefix(asked) or await self._refusal_of_state(message, body, asked)

    async def _refusal_of_state(
        self, message: Message, body: object, asked: Identifier
    ) -> Refused | None:
        is_creation = message.opcode == Opcode.CREATE_HANDLE
        if is_creation and message.flags & (OpFlag.OVRW | OpFlag.MINT):
            return None
        if not is_creation and message.opcode != Opcode.MODIFY_VALUE:
            return None
        present = _present(await self._records.fetch(asked.key))
        if is_creation:
            return None if present is None else Refused(ResponseCode.HANDLE_ALREADY_EXISTS)
        if present is None:
            return Refused(ResponseCode.HANDLE_NOT_FOUND)
        assert isinstance(body, ValuesRequest)
        missing = {one.index for one in body.values} - {one.index for one in present.values}
        return Refused(ResponseCode.VALUES_NOT_FOUND) if missing else None

    def _refusal_of_prefix(self, asked: Identifier) -> Refused | None:
        found = refusal(self._directory.responsible(asked), asked)
        return None if found is None else Refused(*found)

    async def _homing(
        self,
        identity: Identity,
        prefix: str,
        act: Callable[[Database, str, Author], Awaitable[bool]],
    ) -> Done | Refused:
        if not self._administrators.is_server_admin(identity):
            return Refused(ResponseCode.INVALID_ADMIN)
        asked = _of_prefix(prefix)
        if isinstance(asked, Refused):
            return asked
        try:
            changed = await act(self._database, asked.suffix, self._author(identity))
        except InvalidEntryError as error:
            return Refused(ResponseCode.INVALID_HANDLE, str(error))
        except RefusalError as error:
            return Refused(ResponseCode.ERROR, str(error))
        return Done(changed=changed)

    async def _write(
        self, identity: Identity, identifier: Identifier, decide: _Decide, act: _Act
    ) -> Done | Refused:
        """Do a write if `identity` may, and tell every worker before it is acknowledged."""
        for _ in range(DECISIONS_MAX):
            basis = await self._basis(identity, identifier, decide)
            try:
                written = await act(_permit(basis, decide))
            except OvertakenError:
                continue
            if isinstance(written, Refused):
                return written
            if written.changed:
                await self._announcer.tell({identifier.key: written.record.version})
            return Done(written.record, written.created, written.changed)
        return Refused(ResponseCode.SERVER_TOO_BUSY, "The administrators are being changed")

    async def _basis(self, identity: Identity, identifier: Identifier, decide: _Decide) -> _Basis:
        record = _present(await self._records.fetch(identifier.key))
        needed = decide(record)
        above = own = None
        # What is refused now is looked at again in the transaction; the prefix goes first.
        if isinstance(needed, _Needed) and needed.above is not None:
            above = await self._administrators.rights_above(identity, identifier, needed.above)
        if isinstance(needed, _Needed) and needed.own is not None:
            own = await self._administrators.rights(identity, identifier, record)
        return _Basis(admin_data(record), above, own)

    def _author(self, identity: Identity) -> Author:
        return Author(f"handle:{identity}", self._door)


def _permit(basis: _Basis, decide: _Decide) -> Permit:
    """What the transaction looks at again: the record as it is then, and what `basis` rests on."""

    def refused(record: Record | None) -> Refused | None:
        needed = decide(record)
        if isinstance(needed, Refused):
            return needed
        if admin_data(record) != basis.admins:
            raise OvertakenError
        for permission, rights in ((needed.above, basis.above), (needed.own, basis.own)):
            if permission is not None:
                if rights is None:
                    raise OvertakenError
                code = rights.refusal(permission)
                if code is not None:
                    return Refused(code)
        return None

    versions: dict[str, int] = {}
    for rights in (basis.above, basis.own):
        if rights is not None:
            versions.update(rights.versions)
    return Permit(refused, versions)


def _creation(target: Identifier, overwrite: bool) -> _Decide:
    def decide(record: Record | None) -> _Needed | Refused:
        if record is not None and not overwrite:
            return Refused(ResponseCode.HANDLE_ALREADY_EXISTS)
        if not target.is_prefix_handle:
            return _Needed(
                Permission.ADD_HANDLE, None if record is None else Permission.DELETE_HANDLE
            )
        above = Permission.ADD_DERIVED_PREFIX
        return _Needed(above if record is None else above | Permission.DELETE_DERIVED_PREFIX)

    return decide


def _deletion(identifier: Identifier) -> _Decide:
    def decide(record: Record | None) -> _Needed | Refused:
        if record is None:
            return Refused(ResponseCode.HANDLE_NOT_FOUND)
        if identifier.is_prefix_handle:
            return _Needed(above=Permission.DELETE_DERIVED_PREFIX)
        return _Needed(own=Permission.DELETE_HANDLE)

    return decide


def _addition(values: Sequence[HandleValue], overwrite: bool) -> _Decide:
    def decide(record: Record | None) -> _Needed | Refused:
        if record is None:
            return Refused(ResponseCode.HANDLE_NOT_FOUND)
        present = {value.index: value for value in record.values} if overwrite else {}
        needed = 0
        for value in values:
            old = present.get(value.index)
            needed |= _to_add(value) if old is None else _to_modify(old, value)
        return _Needed(own=needed)

    return decide


def _modification(values: Sequence[HandleValue]) -> _Decide:
    def decide(record: Record | None) -> _Needed | Refused:
        if record is None:
            return Refused(ResponseCode.HANDLE_NOT_FOUND)
        present = {value.index: value for value in record.values}
        if any(value.index not in present for value in values):
            return Refused(ResponseCode.VALUES_NOT_FOUND)
        needed = 0
        for value in values:
            needed |= _to_modify(present[value.index], value)
        return _Needed(own=needed)

    return decide


def _removal(indexes: frozenset[int]) -> _Decide:
    def decide(record: Record | None) -> _Needed | Refused:
        if record is None:
            return Refused(ResponseCode.HANDLE_NOT_FOUND)
        gone = [value for value in record.values if value.index in indexes]
        if len(gone) < len(indexes):
            return Refused(ResponseCode.VALUES_NOT_FOUND)
        needed = 0
        for value in gone:
            needed |= _to_remove(value)
        return _Needed(own=needed)

    return decide


def _to_add(value: HandleValue) -> int:
    return Permission.ADD_ADMIN if is_admin_value(value) else Permission.ADD_VALUE


def _to_modify(old: HandleValue, new: HandleValue) -> int:
    """Of both: what becomes an HS_ADMIN value, or no longer is one, changes who administers."""
    needed = _of_nobody(old)
    for value in (old, new):
        is_admin = is_admin_value(value)
        needed |= Permission.MODIFY_ADMIN if is_admin else Permission.MODIFY_VALUE
    return needed


def _to_remove(value: HandleValue) -> int:
    permission = Permission.REMOVE_ADMIN if is_admin_value(value) else Permission.REMOVE_VALUE
    return permission | _of_nobody(value)


def _of_nobody(value: HandleValue) -> int:
    return 0 if value.permissions & ADMIN_WRITE else _NOBODYS


def _present(record: Record | None) -> Record | None:
    return None if record is None or record.deleted else record


def _registrable(identifier: Identifier) -> Identifier:
    """The identifier as it is registered: a slashless name as its prefix handle.

    Raises:
        InvalidIdentifierError: says which rule is broken.
    """
    if identifier.is_prefix_handle:
        return identifiers.for_registration(f"{PREFIX_HANDLE_PREFIX}/{identifier.suffix}")
    return identifiers.for_registration(identifier.text)


def _minted(identifier: Identifier) -> Identifier:
    """A new name: a UUID behind the given one, below the given prefix if it is a prefix handle.

    Raises:
        InvalidIdentifierError: if that is too long.
    """
    stem = f"{identifier.suffix}/" if identifier.is_prefix_handle else identifier.text
    return identifiers.from_text(f"{stem}{uuid.uuid4()}")


def _of_prefix(prefix: str) -> Identifier | Refused:
    """The prefix handle of a prefix that is written with or without 0.NA/."""
    try:
        asked = identifiers.from_text(prefix)
    except InvalidIdentifierError as error:
        return Refused(ResponseCode.INVALID_HANDLE, str(error))
    if not asked.is_prefix_handle:
        return Refused(ResponseCode.INVALID_HANDLE, "expected a prefix or its prefix handle")
    return asked


def _prefix_handles(names: Iterable[str]) -> list[str]:
    return [f"{PREFIX_HANDLE_PREFIX}/{name}" for name in sorted(names)]
