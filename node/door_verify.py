"""`/api/verifications/{index}:{handle}`: whether somebody has signed what another one asked it to.

A service that is no Handle server has its users prove who they are with the keys of their handles,
and asks here whether the answer is right.

Source: specs §1.1.
"""

from node.http_exchange import BadRequestError, Exchange, RefusedError, Reply, decoded_path
from node.http_identity import HttpIdentities
from node.identity import Identity
from node.problems import identifier_of, refusal_of
from resolver.errors import InvalidIdentifierError, InvalidValueError, RegistryUnavailableError
from resolver.handle_json import dump
from resolver.prefix_directory import PrefixDirectory
from resolver.prefix_directory import refusal as refusal_of_prefix
from resolver.response_code import ResponseCode

VERIFICATIONS = b"/api/verifications/"


class VerifyDoor:
    """Verifies signatures with keys of handles that live here."""

    def __init__(self, identities: HttpIdentities, directory: PrefixDirectory) -> None:
        self._identities = identities
        self._directory = directory

    async def answer(self, exchange: Exchange) -> Reply:
        """`isValid`, true or false; nobody has to say who asks."""
        text = decoded_path(exchange.path[len(VERIFICATIONS) :])
        try:
            identity = self._identity(text)
            fields = {name: found[0] for name, found in exchange.parameters().values.items()}
            is_valid = await self._identities.verified(exchange, identity, fields)
        except InvalidValueError as error:
            return refusal_of(BadRequestError(str(error)))
        except RefusedError as error:
            return refusal_of(error, text)
        return Reply(200, dump({"responseCode": 1, "isValid": is_valid}))

    def _identity(self, text: str) -> Identity:
        try:
            identity = Identity.from_text(text)
        except InvalidIdentifierError as error:
            raise RefusedError(ResponseCode.INVALID_HANDLE, str(error)) from None
        asked = identifier_of(identity.handle)
        try:
            refused = refusal_of_prefix(self._directory.responsible(asked), asked)
        except RegistryUnavailableError as error:
            raise RefusedError(ResponseCode.SERVER_TOO_BUSY, str(error)) from error
        if refused is not None:
            raise RefusedError(*refused)
        return identity
