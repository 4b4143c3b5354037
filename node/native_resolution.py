"""RESOLUTION: the values asked for, public ones to everybody, others to who may read them.

Source: specs §3.2 to §3.5, §4 and §5; recorded answers of Handle.Net 9.3.1.
"""

from dataclasses import replace
from typing import Final

from metrics.dimension import CALLER_PROBE
from node.administrators import Administrators
from node.callers import ANONYMOUS, Caller
from node.native_asked import NOT_OF_SESSION, Asked, to_be_encrypted
from node.native_login import Logins
from node.permission import Permission
from node.tally import Tally
from resolver import identifier as identifiers
from resolver import unknown_budget
from resolver.errors import InvalidIdentifierError, RegistryUnavailableError
from resolver.identifier import (
    IDENTIFIER_SIZE_BYTES_MAX,
    PREFIX_HANDLE_PREFIX,
    Identifier,
    fold,
)
from resolver.prefix_directory import PrefixDirectory, refusal
from resolver.query import Query
from resolver.record import ADMIN_READ, PUBLIC_READ, HandleValue
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode
from resolver.wire import (
    Message,
    OpFlag,
    Referral,
    ResolutionRequest,
    ResolutionResponse,
)

# What Chinese clients ask for to keep a connection; no question, and counted as none.
HEARTBEAT: Final = "0"
_PROBE: Final = Caller(CALLER_PROBE)


class ResolutionDoor:
    """Answers questions for the values of an identifier."""

    def __init__(
        self,
        resolver: Resolver,
        directory: PrefixDirectory,
        administrators: Administrators,
        logins: Logins,
        tally: Tally,
    ) -> None:
        self._resolver = resolver
        self._directory = directory
        self._administrators = administrators
        self._logins = logins
        self._tally = tally

    async def reply(self, asked: Asked, body: ResolutionRequest) -> Message | None:
        """The answer, counted; None if the asker must first say who it is."""
        if body.handle == HEARTBEAT:
            self.count(asked, ResponseCode.HANDLE_NOT_FOUND, caller=_PROBE)
            return asked.refused(ResponseCode.HANDLE_NOT_FOUND)
        try:
            identifier = identifiers.from_text(body.handle)
            resolution = await self._resolution(asked, identifier)
        except InvalidIdentifierError as error:
            too_long = _too_long(body.handle)
            if too_long is None:
                self.count(asked, ResponseCode.INVALID_HANDLE)
                return asked.refused(ResponseCode.INVALID_HANDLE, str(error))
            identifier, resolution = too_long, self._absence(too_long)
        reply = await self._reply(asked, body, identifier, resolution)
        if reply is not None:
            self.count(asked, reply.response_code, identifier, resolution)
        return reply

    def count(
        self,
        asked: Asked,
        code: int,
        identifier: Identifier | None = None,
        resolution: Resolution | None = None,
        *,
        caller: Caller = ANONYMOUS,
    ) -> None:
        """Count one question that is answered with `code`."""
        self._tally.count(
            asked.now_s,
            counted_as(code),
            asked.peer.channel,
            asked.peer.source,
            caller=caller,
            identifier=identifier,
            resolution=resolution,
        )

    async def _resolution(self, asked: Asked, identifier: Identifier) -> Resolution:
        flags = asked.request.flags
        is_known = asked.identity is not None
        return await self._resolver.resolve(
            identifier,
            asked.now_s,
            authoritative=bool(flags & OpFlag.AUTH),
            asker=unknown_budget.KNOWN if is_known else unknown_budget.ANONYMOUS,
            do_not_refer=bool(flags & OpFlag.DNRF),
        )

    def _absence(self, identifier: Identifier) -> Resolution:
        """That there is no such identifier, if this node answers for its prefix."""
        try:
            state = self._directory.responsible(identifier)
        except RegistryUnavailableError as error:
            return Resolution(ResponseCode.SERVER_TOO_BUSY, message=str(error))
        refused = refusal(state, identifier)
        if refused is not None:
            return Resolution(refused[0], state, message=refused[1])
        return Resolution(ResponseCode.HANDLE_NOT_FOUND, state)

    async def _reply(
        self,
        asked: Asked,
        body: ResolutionRequest,
        identifier: Identifier,
        resolution: Resolution,
    ) -> Message | None:
        if resolution.referral:
            return asked.reply(resolution.code, Referral("", resolution.referral).to_wire())
        if resolution.code != ResponseCode.SUCCESS:
            return asked.refused(resolution.code, resolution.message)
        query = Query(body.indexes, body.types, public_only=bool(asked.request.flags & OpFlag.PUBL))
        values = query.select(resolution.record.values)
        if any(not value.is_public for value in values):
            shown = await self._readable(asked, identifier, values)
            if not isinstance(shown, tuple):
                return None if shown is None else asked.refused(*_reason(shown))
            values = shown
        return _found(asked, body, values, resolution)

    async def _readable(
        self, asked: Asked, identifier: Identifier, values: tuple[HandleValue, ...]
    ) -> tuple[HandleValue, ...] | ResponseCode | None:
        """Those of `values` that the asker may read, why it may not, or None if nobody knows who
        it is."""
        if asked.lacks_code:
            return ResponseCode.INVALID_CREDENTIAL
        try:
            if asked.is_by_login and not await self._logins.holds(asked.peer):
                return None
            identity = asked.identity
            if identity is None:
                return None
            code = await self._administrators.refusal(identity, Permission.READ_VALUE, identifier)
        except RegistryUnavailableError:
            return ResponseCode.SERVER_TOO_BUSY
        if code is None:
            return tuple(one for one in values if one.permissions & (PUBLIC_READ | ADMIN_READ))
        # One SDK never says that public values will do: a login is no wish to read others.
        public = tuple(value for value in values if value.is_public)
        return public if asked.is_by_login and public else code


def _too_long(text: str) -> Identifier | None:
    """A name that only its length keeps from being registered, and from being looked up; or None.

    Recorded: a name of 913 bytes is answered as one that is not there.
    """
    is_too_long = len(text.encode()) > IDENTIFIER_SIZE_BYTES_MAX
    if not is_too_long or "\x00" in text:
        return None
    prefix, slash, suffix = text.partition("/")
    if not slash:
        prefix, suffix = PREFIX_HANDLE_PREFIX, text
    return Identifier(text, fold(f"{prefix}/{suffix}"), prefix, suffix)


def counted_as(code: int) -> ResponseCode:
    """The response code as the ledger knows it: whatever is wrong with who asks is one thing."""
    is_about_asker = code >= ResponseCode.INVALID_ADMIN
    return ResponseCode.AUTHENTICATION_FAILED if is_about_asker else ResponseCode(code)


def _reason(code: ResponseCode) -> tuple[ResponseCode, str | None]:
    return code, NOT_OF_SESSION if code == ResponseCode.INVALID_CREDENTIAL else None


def _found(
    asked: Asked,
    body: ResolutionRequest,
    values: tuple[HandleValue, ...],
    resolution: Resolution,
) -> Message:
    if not values and (body.indexes or body.types):
        return asked.refused(ResponseCode.VALUES_NOT_FOUND)
    answer = ResolutionResponse(body.handle, values)
    reply = asked.reply(ResponseCode.SUCCESS, answer.to_wire())
    if resolution.stale_age_s is not None:
        # The last values known, the registry being away: not said with authority.
        reply = replace(reply, flags=reply.flags & ~OpFlag.AUTH)
    is_private = any(not value.is_public for value in values)
    # Recorded: in a session, what not everybody may read is always encrypted.
    return to_be_encrypted(reply) if is_private and asked.session is not None else reply
