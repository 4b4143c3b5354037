"""How the doors say no: the one table from response codes to HTTP statuses (specs §1.4)."""

from typing import Final

from node.callers import Caller, Callers, UnknownKeyError
from node.http_exchange import Exchange, Headers, RefusedError, Reply, decoded_path
from node.pages import language_of, problem_page
from resolver import identifier
from resolver.errors import InvalidIdentifierError, RegistryUnavailableError
from resolver.handle_json import error_answer, referral_answer
from resolver.identifier import Identifier
from resolver.resolve import Resolution
from resolver.response_code import ResponseCode

_STATUS: Final = {
    ResponseCode.SUCCESS: 200,
    ResponseCode.ERROR: 500,
    ResponseCode.SERVER_TOO_BUSY: 503,
    ResponseCode.PROTOCOL_ERROR: 400,
    ResponseCode.OPERATION_NOT_SUPPORTED: 501,
    ResponseCode.SERVER_BACKUP: 503,
    ResponseCode.HANDLE_NOT_FOUND: 404,
    ResponseCode.HANDLE_ALREADY_EXISTS: 409,
    ResponseCode.INVALID_HANDLE: 400,
    ResponseCode.VALUES_NOT_FOUND: 400,
    ResponseCode.VALUE_ALREADY_EXISTS: 409,
    ResponseCode.INVALID_VALUE: 400,
    ResponseCode.SERVER_NOT_RESPONSIBLE: 400,
    ResponseCode.SERVICE_REFERRAL: 300,
    ResponseCode.PREFIX_REFERRAL: 300,
    ResponseCode.INVALID_ADMIN: 403,
    ResponseCode.INSUFFICIENT_PERMISSIONS: 403,
    # Over TLS, where they can be given, credentials are asked for with 401 (node/http_identity.py).
    ResponseCode.AUTHENTICATION_NEEDED: 403,
    ResponseCode.AUTHENTICATION_FAILED: 403,
    ResponseCode.INVALID_CREDENTIAL: 403,
}
# The breaker towards PostgreSQL tries again several times a second.
_RETRY_AFTER_S: Final = b"1"
# Paths whose answers are read by programs; all others show pages.
_OF_PROGRAMS: Final = (b"/api/", b"/metrics", b"/openapi.json")


def http_status(code: ResponseCode) -> int:
    """The status of a reply that says `code`."""
    return _STATUS.get(code, 500)


def retry_later(code: ResponseCode) -> Headers:
    """When to try again, where that helps."""
    if code in (ResponseCode.SERVER_TOO_BUSY, ResponseCode.SERVER_BACKUP):
        return [(b"retry-after", _RETRY_AFTER_S)]
    return []


def refusal(
    code: ResponseCode, message: str | None = None, handle_text: str | None = None
) -> Reply:
    """The reply that says `code`, why, and about which identifier."""
    body = error_answer(code, message, handle_text)
    return Reply(http_status(code), body, headers=retry_later(code))


def refusal_of_resolution(resolution: Resolution, handle_text: str) -> Reply:
    """The reply to a question whose resolution is not a success."""
    if resolution.referral:
        body = referral_answer(resolution.code, resolution.referral, handle_text)
        return Reply(http_status(resolution.code), body)
    reply = refusal(resolution.code, resolution.message, handle_text)
    reply.status = status_of(resolution)
    return reply


def status_of(resolution: Resolution) -> int:
    """The status of a resolution that is not a success.

    Who asks for too many names that do not exist is told so (429): the node is well, and answers
    everything else meanwhile, so that it is not "unavailable" (503) by anybody's random names.
    """
    return 429 if resolution.is_refused else http_status(resolution.code)


def over_limit(
    exchange: Exchange, status: int, message: str, page_text: str, retry_after_s: int
) -> Reply:
    """The reply to a request over a limit, in the form of the door that it was for.

    `message` is for programs; `page_text` names the text for people.
    """
    path = exchange.path
    if path.startswith(_OF_PROGRAMS):
        reply = Reply(status, error_answer(ResponseCode.SERVER_TOO_BUSY, message))
    else:
        language = language_of(exchange.header(b"accept-language"))
        reply = problem_page(status, "refused", page_text, decoded_path(path[1:]), language)
    reply.headers.append((b"retry-after", str(retry_after_s).encode()))
    return reply


def refusal_of(error: RefusedError, handle_text: str | None = None) -> Reply:
    """The reply to a request that was refused.

    What could not be understood is answered without the identifier, as it was recorded.
    """
    is_named = error.code not in (ResponseCode.PROTOCOL_ERROR, ResponseCode.INVALID_HANDLE)
    reply = refusal(error.code, error.message, handle_text if is_named else None)
    reply.status = error.status or reply.status
    return reply


def identifier_of(text: str) -> Identifier:
    """The identifier asked for.

    Raises:
        RefusedError: if nothing can have this name.
    """
    try:
        return identifier.from_text(text)
    except InvalidIdentifierError as error:
        raise RefusedError(ResponseCode.INVALID_HANDLE, str(error)) from None


async def caller_of(callers: Callers, exchange: Exchange, now_s: float) -> Caller:
    """Who asks.

    Raises:
        RefusedError: for a key that opens nothing, or that cannot be checked now.
    """
    try:
        return await callers.of(exchange, now_s)
    except UnknownKeyError:
        message = "The API key is unknown or revoked"
        raise RefusedError(ResponseCode.AUTHENTICATION_FAILED, message) from None
    except RegistryUnavailableError as error:
        message = f"The API key cannot be checked: {error}"
        raise RefusedError(ResponseCode.SERVER_TOO_BUSY, message) from error
