"""The one table that turns response codes into HTTP statuses (specs §1.4)."""

from node.http_exchange import Headers
from resolver.response_code import ResponseCode

_STATUS = {
    ResponseCode.SUCCESS: 200,
    ResponseCode.ERROR: 500,
    ResponseCode.SERVER_TOO_BUSY: 503,
    ResponseCode.SERVER_BACKUP: 503,
    ResponseCode.PROTOCOL_ERROR: 400,
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
    ResponseCode.AUTHENTICATION_FAILED: 403,
    ResponseCode.INVALID_CREDENTIAL: 403,
    ResponseCode.OPERATION_NOT_SUPPORTED: 501,
}
# The breaker towards PostgreSQL tries again several times a second.
_RETRY_AFTER_S = b"1"


def http_status(code: ResponseCode, *, is_secure: bool) -> int:
    """The status of a reply; credentials are asked for over TLS only."""
    if code == ResponseCode.AUTHENTICATION_NEEDED:
        return 401 if is_secure else 403
    return _STATUS.get(code, 500)


def retry_later(code: ResponseCode) -> Headers:
    """When to try again, where that helps."""
    if code in (ResponseCode.SERVER_TOO_BUSY, ResponseCode.SERVER_BACKUP):
        return [(b"retry-after", _RETRY_AFTER_S)]
    return []
