"""Counting at the doors: what an answer counts as, and where it came from."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from metrics import dimension
from metrics.counting import Cells, Counting
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
    ResponseCode.SERVICE_REFERRAL: dimension.OUTCOME_REFERRED,
    ResponseCode.PREFIX_REFERRAL: dimension.OUTCOME_REFERRED,
    ResponseCode.INVALID_HANDLE: dimension.OUTCOME_INVALID,
    ResponseCode.PROTOCOL_ERROR: dimension.OUTCOME_INVALID,
    ResponseCode.INVALID_ADMIN: dimension.OUTCOME_REFUSED,
    ResponseCode.AUTHENTICATION_NEEDED: dimension.OUTCOME_REFUSED,
    ResponseCode.AUTHENTICATION_FAILED: dimension.OUTCOME_REFUSED,
    ResponseCode.INSUFFICIENT_PERMISSIONS: dimension.OUTCOME_REFUSED,
    ResponseCode.SERVER_TOO_BUSY: dimension.OUTCOME_UNAVAILABLE,
}
# A forwarded chain longer than this is not followed.
_FORWARDED_MAX = 32


class Kind(NamedTuple):
    """What a resolution counts as, besides its source."""

    level: str
    prefix_key: str
    caller_class: str
    caller: str
    channel: str
    outcome: str


class Tally:
    """Counts each resolution once, just before its answer is sent.

    `is_counting` is false only where the cost of counting itself is measured.
    """

    def __init__(
        self, counting: Counting, trusted_proxies: tuple[str, ...], *, is_counting: bool = True
    ) -> None:
        self._counting = counting
        self._trusted_proxies = frozenset(trusted_proxies)
        self._is_counting = is_counting

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
        if self._is_counting:
            kind = kind_of(code, channel, caller, identifier, resolution)
            self._counting.count(now_s, *kind, source)

    def count_many(self, now_s: float, numbers: Mapping[Kind, int], source: str) -> None:
        """Count questions that are answered together: how many of each kind."""
        if self._is_counting:
            for kind, number in numbers.items():
                self._counting.add(number, now_s, (*kind, source))

    def cells(self, now_s: float, kind: Kind, source: str) -> Cells | None:
        """Where one more of this kind is counted, for a caller that does it often; else None."""
        return self._counting.cells(now_s, (*kind, source)) if self._is_counting else None

    def keep_day(self, now_s: float) -> None:
        """Begin a new day if it has come; to be called before cells are used again."""
        self._counting.keep_day(now_s)


def prepared_kind(prefix_key: str, caller: Caller, channel: str) -> Kind:
    """What an answer counts as that was prepared: found, and of a hosted prefix."""
    level, found = dimension.LEVEL_ENTERPRISE, dimension.OUTCOME_FOUND
    return Kind(level, prefix_key, caller.caller_class, caller.name, channel, found)


def kind_of(
    code: ResponseCode,
    channel: str,
    caller: Caller,
    identifier: Identifier | None,
    resolution: Resolution | None,
) -> Kind:
    """What the answer to one question counts as."""
    prefix = resolution.prefix if resolution is not None else None
    # What is homed is the node's own, and no enterprise's.
    hosted = (
        prefix is not None
        and prefix.hosted
        and not prefix.homed
        and identifier is not None
        and not identifier.is_prefix_handle
    )
    outcome = _OUTCOMES.get(code, dimension.OUTCOME_UNAVAILABLE)
    if resolution is not None and resolution.is_refused:
        outcome = dimension.OUTCOME_REFUSED
    is_stale = resolution is not None and resolution.stale_age_s is not None
    if outcome == dimension.OUTCOME_FOUND and is_stale:
        outcome = dimension.OUTCOME_FOUND_STALE
    return Kind(
        dimension.LEVEL_ENTERPRISE if hosted else dimension.LEVEL_NODE,
        "" if prefix is None else prefix.key,
        caller.caller_class,
        caller.name,
        channel,
        outcome,
    )
