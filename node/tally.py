"""Counting at the doors: what an answer counts as, and where it came from."""

from ipaddress import ip_address

from metrics import dimension
from metrics.counting import Counting
from node.callers import ANONYMOUS, Caller
from node.http_exchange import Exchange
from resolver.identifier import Identifier
from resolver.resolve import Resolution
from resolver.response_code import ResponseCode

_OUTCOMES = {
    ResponseCode.SUCCESS: dimension.OUTCOME_FOUND,
    ResponseCode.VALUES_NOT_FOUND: dimension.OUTCOME_VALUES_NOT_FOUND,
    ResponseCode.HANDLE_NOT_FOUND: dimension.OUTCOME_NOT_FOUND,
    ResponseCode.SERVER_NOT_RESPONSIBLE: dimension.OUTCOME_NOT_RESPONSIBLE,
    ResponseCode.INVALID_HANDLE: dimension.OUTCOME_INVALID,
    ResponseCode.PROTOCOL_ERROR: dimension.OUTCOME_INVALID,
    ResponseCode.AUTHENTICATION_NEEDED: dimension.OUTCOME_REFUSED,
    ResponseCode.AUTHENTICATION_FAILED: dimension.OUTCOME_REFUSED,
    ResponseCode.INSUFFICIENT_PERMISSIONS: dimension.OUTCOME_REFUSED,
    ResponseCode.SERVER_TOO_BUSY: dimension.OUTCOME_UNAVAILABLE,
}
# A forwarded chain longer than this is not followed.
_FORWARDED_MAX = 32


class Tally:
    """Counts each resolution once, just before its answer is sent."""

    def __init__(self, counting: Counting, trusted_proxies: tuple[str, ...]) -> None:
        self._counting = counting
        self._trusted_proxies = frozenset(trusted_proxies)

    def source(self, exchange: Exchange) -> str:
        """The address that asked: the peer, or what a trusted proxy says of it."""
        source = exchange.peer
        if "." in source:
            source = source.removeprefix("::ffff:")  # IPv4 on a socket for both
        if source not in self._trusted_proxies:
            return source
        # All lines of the header: what the caller sent comes first, what the proxy added last.
        lines = [value for name, value in exchange.scope["headers"] if name == b"x-forwarded-for"]
        chain = b",".join(lines).decode("latin-1").split(",")[-_FORWARDED_MAX:]
        for text in reversed(chain):
            try:
                source = str(ip_address(text.strip()))
            except ValueError:
                break
            if source not in self._trusted_proxies:
                break
        return source

    def count(
        self,
        now_s: float,
        code: ResponseCode,
        channel: str,
        source: str,
        *,
        caller: Caller = ANONYMOUS,
        identifier: Identifier | None = None,
        resolution: Resolution | None = None,
    ) -> None:
        """Count one answered question."""
        prefix = resolution.prefix if resolution is not None else None
        hosted = (
            prefix is not None
            and prefix.hosted
            and identifier is not None
            and not identifier.is_prefix_handle
        )
        outcome = _OUTCOMES.get(code, dimension.OUTCOME_UNAVAILABLE)
        is_stale = resolution is not None and resolution.stale_age_s is not None
        if outcome == dimension.OUTCOME_FOUND and is_stale:
            outcome = dimension.OUTCOME_FOUND_STALE
        self._counting.count(
            now_s,
            dimension.LEVEL_ENTERPRISE if hosted else dimension.LEVEL_NODE,
            "" if prefix is None else prefix.key,
            caller.caller_class,
            caller.name,
            channel,
            outcome,
            source,
        )
