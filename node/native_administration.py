"""Operations of administrators: from native requests to Administration, and back.

Source: specs §3.3 to §3.5 and §4; recorded answers of Handle.Net 9.3.1 and two Chinese SDKs.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Final

from node.administration import Administration, Done
from node.identity import Identity
from node.native_asked import NOT_OF_SESSION, Asked
from node.native_cost import CHALLENGE_MS, AdmitsCost
from node.native_login import Logins
from registry.records import Refused
from resolver import identifier as identifiers
from resolver.errors import InvalidIdentifierError
from resolver.identifier import Identifier
from resolver.record import TIMESTAMP_OF_RECORD_S, stamped
from resolver.response_code import ResponseCode
from resolver.wire import (
    CreationResponse,
    HandleList,
    HandleRequest,
    IndexesRequest,
    Message,
    Opcode,
    OpFlag,
    Request,
    ValuesRequest,
)

OPERATIONS: Final = frozenset(
    {
        Opcode.CREATE_HANDLE,
        Opcode.DELETE_HANDLE,
        Opcode.ADD_VALUE,
        Opcode.REMOVE_VALUE,
        Opcode.MODIFY_VALUE,
        Opcode.LIST_HANDLES,
        Opcode.LIST_DERIVED_PREFIXES,
        Opcode.HOME_NA,
        Opcode.UNHOME_NA,
        Opcode.LIST_HOMED_NAS,
    }
)
# One message of a long list: clients begin to read before the last one is there.
LIST_MESSAGE_SIZE_BYTES_MAX: Final = 65_536
# A whole list: half a million identifiers of usual length. More are listed over HTTP, in pages.
LIST_SIZE_BYTES_MAX: Final = 16_777_216

# From here on Handle.Net's client reads the handle that was created.
_CREATION_NAMED_FROM: Final = (2, 11)
_TOO_OFTEN: Final = "This address asks too often who may administer: try again in a second"
_LOGIN_FIRST: Final = "Log in first"
_RELOGIN: Final = "The keys of the login have changed: log in again"
_TOO_LONG: Final = "The list is too long for one answer: list it over HTTP, page by page"
_NO_STREAM: Final = "The list is longer than one message: ask over TCP"


class NativeAdministration:
    """Answers requests that change or list."""

    def __init__(
        self, administration: Administration, logins: Logins, admits_cost: AdmitsCost
    ) -> None:
        self._administration = administration
        self._logins = logins
        self._admits_cost = admits_cost

    async def replies(self, asked: Asked, body: Request) -> list[Message] | None:
        """The replies, several for a long list; None if the asker must first say who it is.

        Raises:
            RegistryUnavailableError: if PostgreSQL does not answer.
        """
        if asked.lacks_code:
            return [asked.refused(ResponseCode.INVALID_CREDENTIAL, NOT_OF_SESSION)]
        if asked.is_by_login and not await self._logins.holds(asked.peer):
            return [asked.refused(ResponseCode.RELOGIN, _RELOGIN)]
        if asked.identity is not None:
            return await self._done(asked, asked.identity, body)
        if asked.session is None and asked.peer.has_tried_login:
            # The SDK takes a challenge for done; this it shows.
            return [asked.refused(ResponseCode.LOGIN_FIRST, _LOGIN_FIRST)]
        if not self._admits_cost(asked.peer.source, CHALLENGE_MS):
            return [asked.refused(ResponseCode.SERVER_TOO_BUSY, _TOO_OFTEN)]
        refused = await self._administration.before_challenge(asked.request)
        return None if refused is None else [_refused(asked, refused)]

    async def _done(self, asked: Asked, identity: Identity, body: Request) -> list[Message]:
        if isinstance(body, HandleRequest) and asked.request.opcode != Opcode.DELETE_HANDLE:
            return await self._of_prefix(asked, identity, body.handle)
        assert isinstance(body, ValuesRequest | IndexesRequest | HandleRequest)
        try:
            identifier = identifiers.from_text(body.handle)
        except InvalidIdentifierError as error:
            return [asked.refused(ResponseCode.INVALID_HANDLE, str(error))]
        done = await self._written(asked, identity, identifier, body)
        return [_refused(asked, done) if isinstance(done, Refused) else _acknowledged(asked, done)]

    async def _written(
        self,
        asked: Asked,
        identity: Identity,
        identifier: Identifier,
        body: ValuesRequest | IndexesRequest | HandleRequest,
    ) -> Done | Refused:
        write, now_s = self._administration, asked.now_s
        if isinstance(body, HandleRequest):
            return await write.delete(identity, identifier, now_s=now_s)
        if isinstance(body, IndexesRequest):
            return await write.remove_values(identity, identifier, body.indexes, now_s=now_s)
        # Recorded: whatever time the client gives, a value has that of its writing.
        values = stamped(body.values, TIMESTAMP_OF_RECORD_S)
        overwrite = bool(asked.request.flags & OpFlag.OVRW)
        if asked.request.opcode == Opcode.MODIFY_VALUE:
            return await write.modify_values(identity, identifier, values, now_s=now_s)
        if asked.request.opcode == Opcode.ADD_VALUE:
            return await write.add_values(
                identity, identifier, values, overwrite=overwrite, now_s=now_s
            )
        mint = bool(asked.request.flags & OpFlag.MINT)
        return await write.create(
            identity, identifier, values, overwrite=overwrite, mint=mint, now_s=now_s
        )

    async def _of_prefix(self, asked: Asked, identity: Identity, handle: str) -> list[Message]:
        found = await self._found(asked.request.opcode, identity, handle)
        if isinstance(found, Refused):
            return [_refused(asked, found)]
        if isinstance(found, Done):
            return [asked.reply(ResponseCode.SUCCESS)]
        return await _listed(asked, _one_page(found) if isinstance(found, list) else found)

    async def _found(
        self, opcode: int, identity: Identity, handle: str
    ) -> AsyncIterator[list[str]] | list[str] | Done | Refused:
        administration = self._administration
        if opcode == Opcode.LIST_HANDLES:
            return await administration.list_handles(identity, handle)
        if opcode == Opcode.LIST_DERIVED_PREFIXES:
            return await administration.list_derived_prefixes(identity, handle)
        if opcode == Opcode.LIST_HOMED_NAS:
            return await administration.list_homed(identity)
        act = administration.home if opcode == Opcode.HOME_NA else administration.unhome
        return await act(identity, handle)


def _refused(asked: Asked, refused: Refused) -> Message:
    return asked.refused(refused.code, refused.message)


def _acknowledged(asked: Asked, done: Done) -> Message:
    if asked.request.opcode != Opcode.CREATE_HANDLE:
        return asked.reply(ResponseCode.SUCCESS)
    assert done.record is not None
    named = done.record.handle if _is_creation_named(asked) else None
    return asked.reply(ResponseCode.SUCCESS, CreationResponse(named).to_wire())


def _is_creation_named(asked: Asked) -> bool:
    """True if the client reads which handle was created: SDKs that log in expect no body."""
    if asked.request.flags & OpFlag.MINT:
        return True
    envelope = asked.message.envelope.reply()
    return not asked.is_by_login and (envelope.major, envelope.minor) >= _CREATION_NAMED_FROM


async def _one_page(handles: list[str]) -> AsyncIterator[list[str]]:
    yield handles


async def _listed(asked: Asked, pages: AsyncIterator[list[str]]) -> list[Message]:
    """A list in as many messages as it needs, all but the last with CONT."""
    parts, total_bytes = [_Part()], 0
    async for page in pages:
        for handle in page:
            size_bytes = 4 + len(handle.encode())
            total_bytes += size_bytes
            if not parts[-1].takes(handle, size_bytes):
                parts.append(_Part([handle], size_bytes))
        if total_bytes > LIST_SIZE_BYTES_MAX:
            return [asked.refused(ResponseCode.ERROR, _TOO_LONG)]
    if len(parts) > 1 and not asked.peer.is_connection:
        return [asked.refused(ResponseCode.OPERATION_NOT_SUPPORTED, _NO_STREAM)]
    *replies, last = [_list_reply(asked, part.handles) for part in parts]
    return [*(replace(one, flags=one.flags | OpFlag.CONT) for one in replies), last]


@dataclass(slots=True)
class _Part:
    """What one message of a list holds."""

    handles: list[str] = field(default_factory=list)
    size_bytes: int = 0

    def takes(self, handle: str, size_bytes: int) -> bool:
        """Add a handle, unless the message would be too long."""
        if self.size_bytes + size_bytes > LIST_MESSAGE_SIZE_BYTES_MAX:
            return False
        self.handles.append(handle)
        self.size_bytes += size_bytes
        return True


def _list_reply(asked: Asked, handles: list[str]) -> Message:
    return asked.reply(ResponseCode.SUCCESS, HandleList(tuple(handles)).to_wire())
