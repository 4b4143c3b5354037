"""`POST` and `DELETE /api/prefixes/{prefix}`: which prefixes live here (specs §1.1).

For who administers the server, and for the operator.
"""

from typing import Final

from node.administration import Administration
from node.callers import Caller, Callers
from node.http_exchange import Exchange, RefusedError, Reply, decoded_path
from node.http_identity import Identities
from node.identity import Identity
from node.problems import caller_of, identifier_of, refusal
from registry import homed_prefixes
from registry.database import Database
from registry.records import Author, Refused
from registry.refusal import InvalidEntryError, RefusalError
from resolver.errors import RegistryUnavailableError
from resolver.handle_json import error_answer
from resolver.identifier import Identifier
from resolver.response_code import ResponseCode

PREFIXES: Final = b"/api/prefixes/"
_DOOR: Final = "http"
# The book says something else: asking again does not help, and the node is well.
_CONFLICT: Final = 409


class HomeDoor:
    """Homes and unhomes prefixes."""

    def __init__(
        self,
        database: Database,
        callers: Callers,
        identities: Identities,
        administration: Administration,
    ) -> None:
        self._database = database
        self._callers = callers
        self._identities = identities
        self._administration = administration

    async def answer(self, exchange: Exchange, now_s: float) -> Reply:
        """Home the prefix of the path (POST), or give it up (DELETE)."""
        text = decoded_path(exchange.path[len(PREFIXES) :])
        try:
            await self._act(exchange, text, now_s)
        except RefusedError as error:
            return await self._identities.reply_to(exchange, error, text)
        except RegistryUnavailableError as error:
            message = f"The registry is away ({error}); nothing is confirmed as done: try again"
            return refusal(ResponseCode.SERVER_BACKUP, message, text)
        return Reply(200, error_answer(1, None, text))

    async def _act(self, exchange: Exchange, text: str, now_s: float) -> None:
        caller = await caller_of(self._callers, exchange, now_s)
        is_home = exchange.method == "POST"
        if caller.owner is None:
            identity = await self._identities.of(exchange)
            if identity is None:
                raise RefusedError(ResponseCode.AUTHENTICATION_NEEDED)
            await self._as_identity(identity, text, is_home=is_home)
        else:
            await self._as_operator(caller, _prefix_handle(text), is_home=is_home)

    async def _as_identity(self, identity: Identity, text: str, *, is_home: bool) -> None:
        act = self._administration.home if is_home else self._administration.unhome
        done = await act(identity, text)
        if isinstance(done, Refused):
            status = _CONFLICT if done.code == ResponseCode.ERROR else None
            raise RefusedError(done.code, done.message, status)

    async def _as_operator(self, caller: Caller, asked: Identifier, *, is_home: bool) -> None:
        if not caller.is_operator:
            raise RefusedError(
                ResponseCode.INSUFFICIENT_PERMISSIONS, "Only the operator homes prefixes"
            )
        act = homed_prefixes.home if is_home else homed_prefixes.unhome
        try:
            await act(self._database, asked.suffix, Author(caller.actor, _DOOR))
        except InvalidEntryError as error:
            raise RefusedError(ResponseCode.INVALID_HANDLE, str(error)) from None
        except RefusalError as error:
            raise RefusedError(ResponseCode.ERROR, str(error), _CONFLICT) from None


def _prefix_handle(text: str) -> Identifier:
    asked = identifier_of(text)
    if not asked.is_prefix_handle:
        raise RefusedError(ResponseCode.INVALID_HANDLE, "expected a prefix or its prefix handle")
    return asked
