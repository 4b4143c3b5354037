"""Who may administer what: keys that prove an identity, and the HS_ADMIN values that name it.

Everything is read from PostgreSQL, never from a cache. Only handles that live here count: neither
a key nor a group is asked of another node.

Source: specs §1.5, §3.5 and §3.6.
"""

import asyncio
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from node.identity import Identity, handle_key
from node.permission import ALL, OF_PARENT, OF_PREFIX
from registry.records import PostgresRecords
from resolver import identifier as identifiers
from resolver.errors import InvalidIdentifierError, InvalidValueError
from resolver.identifier import PREFIX_HANDLE_PREFIX, Identifier, fold
from resolver.prefix_directory import PrefixDirectory, refusal
from resolver.record import HandleValue, Record, Reference
from resolver.response_code import ResponseCode
from resolver.signature import is_signature_of
from resolver.wire import (
    AdminRecord,
    SignatureAnswer,
    references_from_wire,
    secret_answer_from_wire,
)

PUBLIC_KEY, SECRET_KEY = "HS_PUBKEY", "HS_SECKEY"
ADMIN, GROUP = "HS_ADMIN", "HS_VLIST"

# Keys of one handle that are tried for index 0. A secret may cost 50 ms of one core.
KEYS_TRIED_MAX = 16
# Proofs that are computed at once, in threads: more would only wait for the same cores.
PROOFS_AT_ONCE_MAX = 2
# Groups in groups; people nest two or three.
GROUP_DEPTH_MAX = 10
# Handles whose groups are read for one decision: 8 MB if each is as large as a record may be.
GROUPS_READ_MAX = 32
# Members that are looked at for one decision; a few milliseconds.
MEMBERS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Rights:
    """What an identity may do: the permissions of all HS_ADMIN values that name it.

    `versions` are those of the records that this rests on besides the one in question, by key, 0
    where there is none.
    """

    permissions: int
    is_named: bool
    versions: Mapping[str, int] = field(default_factory=dict)

    def refusal(self, permission: int) -> ResponseCode | None:
        """Why something that needs all bits of `permission` is not allowed, or None."""
        if not self.is_named:
            return ResponseCode.INVALID_ADMIN
        if permission & ~self.permissions:
            return ResponseCode.INSUFFICIENT_PERMISSIONS
        return None


class Administrators:
    """Proves identities and says what they may do."""

    def __init__(
        self,
        records: PostgresRecords,
        directory: PrefixDirectory,
        server_admins: Sequence[Identity],
    ) -> None:
        self._records = records
        self._directory = directory
        self._server_admins = tuple(server_admins)
        self._proofs = asyncio.Semaphore(PROOFS_AT_ONCE_MAX)

    async def authenticate(
        self, identity: Identity, auth_type: str, signed: bytes, challenge: bytes
    ) -> Identity | None:
        """The identity, with the index of the key that answered `challenge`; None if none did.

        `auth_type` is HS_PUBKEY or HS_SECKEY, `signed` that field of a wire.ChallengeAnswer,
        `challenge` the nonce and the digest.

        Raises:
            RegistryUnavailableError: if PostgreSQL does not answer.

        Source: specs §3.5.
        """
        try:
            is_proven_by = _proof(identity, auth_type, signed, challenge)
        except InvalidValueError:
            return None
        return await self.proven(identity, auth_type, is_proven_by)

    async def authenticate_secret(self, identity: Identity, secret: bytes) -> Identity | None:
        """The identity, with the index of the HS_SECKEY that is `secret`; None if none is.

        Raises as `authenticate`.
        """
        return await self.proven(
            identity, SECRET_KEY, lambda known: hmac.compare_digest(known, secret)
        )

    async def proven(
        self, identity: Identity, kind: str, is_proven_by: Callable[[bytes], bool]
    ) -> Identity | None:
        """The identity, with the index of the first key for which `is_proven_by` is true.

        It is called in a thread, with the data of each value of type `kind`. Raises as
        `authenticate`.
        """
        for value in await self._keys(identity, kind):
            async with self._proofs:
                is_proven = await asyncio.to_thread(is_proven_by, value.data)
            if is_proven:
                return Identity(identity.handle, value.index)
        return None

    async def keys(self, identity: Identity, kind: str) -> list[bytes]:
        """The keys of type `kind` by which `identity` can be proven. Raises as `authenticate`."""
        return [value.data for value in await self._keys(identity, kind)]

    def is_server_admin(self, identity: Identity) -> bool:
        """True if the operator lets `identity` do everything on this server."""
        return any(identity.is_named_by(one.handle, one.index) for one in self._server_admins)

    async def refusal(
        self,
        identity: Identity,
        permission: int,
        identifier: Identifier,
        record: Record | None = None,
    ) -> ResponseCode | None:
        """Why `identity` may not do what needs `permission`, or None if it may.

        INVALID_ADMIN if no HS_ADMIN names it, INSUFFICIENT_PERMISSIONS if it lacks a bit. To
        create and to list is up to the prefix handle, to create and to delete a prefix handle is up
        to that of its parent, everything else to the record of `identifier`: `record` if it was
        just read, otherwise it is read. Raises as `authenticate`.
        """
        if permission & (OF_PREFIX | OF_PARENT):
            rights = await self.rights_above(identity, identifier, permission)
        else:
            record = record or await self._records.fetch(identifier.key)
            rights = await self.rights(identity, identifier, record)
        return rights.refusal(permission)

    async def rights(
        self, identity: Identity, identifier: Identifier, record: Record | None
    ) -> Rights:
        """What `identity` may do with the values of a record: its HS_ADMIN values say it.

        Where it has none, those of its prefix handle. Raises as `authenticate`.
        """
        admins = admin_data(record)
        if self.is_server_admin(identity):
            return Rights(ALL, is_named=True)
        if admins:
            return await self._rights_by(identity, admins, {})
        return await self._rights_at(identity, _prefix_handle(identifier))

    async def rights_above(
        self, identity: Identity, identifier: Identifier, permission: int
    ) -> Rights:
        """What `identity` may do below a prefix: the HS_ADMIN values of the prefix handle say it.

        For permissions of OF_PARENT, those of the parent of the prefix handle `identifier`. Raises
        as `authenticate`.
        """
        if self.is_server_admin(identity):
            return Rights(ALL, is_named=True)
        if identifier.is_prefix_handle and not permission & OF_PARENT:
            return await self._rights_at(identity, _handle_of(identifier.suffix))
        return await self._rights_at(identity, _prefix_handle(identifier))

    async def _rights_at(self, identity: Identity, above: Identifier | None) -> Rights:
        if above is None:
            return Rights(0, is_named=False)
        record = await self._records.fetch(above.key)
        versions = {above.key: 0 if record is None else record.version}
        return await self._rights_by(identity, admin_data(record), versions)

    async def _rights_by(
        self, identity: Identity, admins: Iterable[bytes], versions: dict[str, int]
    ) -> Rights:
        search = _Search(identity)
        for admin in _admin_records(admins):
            search.meet(admin.handle, admin.index, admin.permissions)
        for _ in range(GROUP_DEPTH_MAX):
            followed = search.take()
            if not followed:
                break
            records = await self._living({one.handle for one in followed}, versions)
            for one in followed:
                for member in _members(records.get(handle_key(one.handle)), one.index):
                    search.meet(member.handle, member.index, one.permissions)
        return Rights(search.granted, search.is_named, versions)

    async def _living(self, handles: Iterable[str], versions: dict[str, int]) -> dict[str, Record]:
        """The records of `handles` that live here, by key; `versions` grows by them."""
        keys = {found.key for found in map(self._here, handles) if found is not None}
        if not keys:
            return {}
        records = await self._records.fetch_many(list(keys))
        for key in keys:
            versions[key] = records[key].version if key in records else 0
        return records

    async def _keys(self, identity: Identity, kind: str) -> list[HandleValue]:
        found = self._here(identity.handle)
        record = None if found is None else await self._records.fetch(found.key)
        # An empty key would be known to everybody.
        keys = [value for value in _of_type(record, kind) if value.data]
        if identity.index:
            keys = [value for value in keys if value.index == identity.index]
        return keys[:KEYS_TRIED_MAX]

    def _here(self, handle: str) -> Identifier | None:
        """The identifier, if its prefix is answered for here."""
        try:
            found = identifiers.from_text(handle)
        except InvalidIdentifierError:
            return None
        return None if refusal(self._directory.responsible(found), found) else found


@dataclass(frozen=True, slots=True)
class _Followed:
    """A reference that may name groups, and what its members may do."""

    handle: str
    index: int
    permissions: int


class _Search:
    """Looks for an identity among administrators and members of groups, and adds up its rights."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._seen: dict[tuple[str, int], int] = {}
        self._waiting: list[_Followed] = []
        self._groups_left = GROUPS_READ_MAX
        self._members_left = MEMBERS_MAX
        self.granted = 0
        self.is_named = False

    def meet(self, handle: str, index: int, permissions: int) -> None:
        """Consider one reference; what gives nothing new is not followed again."""
        if not self._members_left:
            return
        self._members_left -= 1
        if self._identity.is_named_by(handle, index):
            self.granted |= permissions
            self.is_named = True
        place = (handle_key(handle), index)
        known = self._seen.get(place)
        if known is None or permissions & ~known:
            self._seen[place] = permissions | (known or 0)
            self._waiting.append(_Followed(handle, index, permissions))

    def take(self) -> list[_Followed]:
        """What is to be followed next; of at most as many handles as may still be read."""
        handles = list(dict.fromkeys(handle_key(one.handle) for one in self._waiting))
        chosen = set(handles[: self._groups_left])
        self._groups_left -= len(chosen)
        followed = [one for one in self._waiting if handle_key(one.handle) in chosen]
        self._waiting = []
        return followed


def admin_data(record: Record | None) -> tuple[bytes, ...]:
    """The HS_ADMIN values of a record, as they are stored."""
    return tuple(value.data for value in _of_type(record, ADMIN))


def is_admin_value(value: HandleValue) -> bool:
    """True for a value that says who administers; types are compared without ASCII case."""
    return fold(value.type) == ADMIN


def _of_type(record: Record | None, type_: str) -> list[HandleValue]:
    if record is None or record.deleted:
        return []
    return [value for value in record.values if fold(value.type) == type_]


def _admin_records(admins: Iterable[bytes]) -> list[AdminRecord]:
    """Those that can be read: a damaged one names nobody."""
    found: list[AdminRecord] = []
    for data in admins:
        try:
            found.append(AdminRecord.from_wire(data))
        except InvalidValueError:
            continue
    return found


def _members(record: Record | None, index: int) -> list[Reference]:
    members: list[Reference] = []
    for value in _of_type(record, GROUP):
        if index in (0, value.index):
            try:
                members += references_from_wire(value.data)
            except InvalidValueError:
                continue
    return members


def _prefix_handle(identifier: Identifier) -> Identifier | None:
    """The handle whose administrators decide where `identifier` does not: None above the top.

    That of its prefix; of a prefix handle 0.NA/P.x, its parent 0.NA/P.
    """
    if not identifier.is_prefix_handle:
        return _handle_of(identifier.prefix)
    parent, dot, _ = identifier.suffix.rpartition(".")
    # 0.NA/0.NA/P only says that derived prefixes are answered for: it has no parent.
    return _handle_of(parent) if dot and "/" not in identifier.suffix else None


def _handle_of(prefix: str) -> Identifier | None:
    try:
        return identifiers.from_text(f"{PREFIX_HANDLE_PREFIX}/{prefix}")
    except InvalidIdentifierError:
        return None


def _proof(
    identity: Identity, auth_type: str, signed: bytes, challenge: bytes
) -> Callable[[bytes], bool]:
    """Whether the owner of a key gave this answer.

    Raises:
        InvalidValueError: if it is no answer.
    """
    if auth_type == SECRET_KEY:
        answer = secret_answer_from_wire(signed)
        return lambda secret: answer.is_of(secret, challenge)
    if auth_type != PUBLIC_KEY:
        raise InvalidValueError("expected an answer with HS_PUBKEY or HS_SECKEY")
    signature = SignatureAnswer.from_wire(signed)
    return lambda key: is_signature_of(
        key, signature.algorithm, signature.signature, challenge, signer=identity.handle
    )
