"""What strangers may cost the native doors: dear work, waiting bytes, connections, names.

Rates of questions are node/rate_limit.py's, as over HTTP; this is what only the native protocol
has: work of milliseconds for one message, and senders whose address may be another's.
"""

from collections import OrderedDict
from typing import Final

from metrics.counting import SOURCE_OVERFLOW
from node.known_addresses import KnownAddresses

# Dear work is reckoned in milliseconds of one core: of one source,
COST_PER_SOURCE_MS: Final = 100
# of all that have completed a connection, and once more of all others. So writers at their dearest
# take half of a worker, and floods from written addresses do not shut out who connects.
COST_MS: Final = 250
# Accounts of sources, the one that was used longest ago goes first; an account is some 200 bytes.
ACCOUNTS_MAX: Final = 16_384
# Bytes of one worker that wait: for the rest of a message, for an answer, to be read.
HELD_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
# Connections of one worker, as at the HTTP door; some 40 MB.
CONNECTIONS_MAX: Final = 4_000
# Of one address: many factories share theirs, and no pool of a client is larger.
CONNECTIONS_PER_SOURCE_MAX: Final = 1_000
# Addresses that only wrote datagrams, and are told apart by the ledger: so many at once,
STRANGERS_MAX: Final = 50_000
# and so many more in each second: the books of a day must not be filled with made-up ones.
STRANGERS_PER_S: Final = 20


class _Account:
    """What may still be spent; less than 0 is debt."""

    __slots__ = ("_at_s", "_left", "_most", "_rate")

    def __init__(self, rate: float, most: float | None = None) -> None:
        """`rate` a second, `most` at once (by default one second's worth)."""
        self._rate = rate
        self._most = self._left = rate if most is None else most
        self._at_s = float("-inf")

    def has_any(self, now_s: float) -> bool:
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self._left = min(self._most, self._left + elapsed_s * self._rate)
        return self._left > 0

    def spend(self, cost: float) -> None:
        self._left -= cost


class CostBudget:
    """Dear work: signatures, key exchanges, digests of secrets."""

    def __init__(self, known: KnownAddresses, *, limits_loopback: bool = False) -> None:
        self._known = known
        self._limits_loopback = limits_loopback
        self._sources: OrderedDict[str, _Account] = OrderedDict()
        self._all = {is_known: _Account(COST_MS) for is_known in (True, False)}

    def admits(self, source: str, cost_ms: float, now_s: float) -> bool:
        """True if `source` may have work done that takes `cost_ms`; it is spent then.

        Whoever has anything left may have it: debts are paid by waiting.
        """
        if is_loopback(source) and not self._limits_loopback:
            return True
        accounts = (self._account(source), self._all[self._known.knows(source, now_s)])
        # Both are looked at: each has to learn the time.
        if not all([account.has_any(now_s) for account in accounts]):
            return False
        for account in accounts:
            account.spend(cost_ms)
        return True

    def _account(self, source: str) -> _Account:
        account = self._sources.get(source)
        if account is None:
            account = self._sources[source] = _Account(COST_PER_SOURCE_MS)
            if len(self._sources) > ACCOUNTS_MAX:
                self._sources.popitem(last=False)
        self._sources.move_to_end(source)
        return account


class Strangers:
    """The sources of datagrams as the ledger tells them apart."""

    def __init__(self, known: KnownAddresses) -> None:
        self._known = known
        self._account = _Account(STRANGERS_PER_S, STRANGERS_MAX)

    def counted_as(self, source: str, now_s: float) -> str:
        """The source under which questions of `source` are counted from now on."""
        if is_loopback(source) or self._known.knows(source, now_s):
            return source
        if not self._account.has_any(now_s):
            return SOURCE_OVERFLOW
        self._account.spend(1)
        return source


class Room:
    """Bytes that may wait."""

    def __init__(self, size_bytes: int = HELD_SIZE_BYTES_MAX) -> None:
        self._size_bytes = size_bytes
        self.held_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Hold so many more, unless they are too many; whoever got them gives them back."""
        if self.held_bytes + size_bytes > self._size_bytes:
            return False
        self.held_bytes += size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        self.held_bytes -= size_bytes


class Seats:
    """Connections, of one worker and of each address."""

    def __init__(
        self, most: int = CONNECTIONS_MAX, of_source: int = CONNECTIONS_PER_SOURCE_MAX
    ) -> None:
        self._most = most
        self._of_source = of_source
        self._taken: dict[str, int] = {}
        self.taken = 0

    def take(self, source: str) -> bool:
        """Let one more connection in, unless there are too many; it gives its seat back."""
        number = self._taken.get(source, 0)
        if self.taken >= self._most or number >= self._of_source:
            return False
        self._taken[source] = number + 1
        self.taken += 1
        return True

    def give(self, source: str) -> None:
        self.taken -= 1
        self._taken[source] -= 1
        if not self._taken[source]:
            del self._taken[source]


def is_loopback(source: str) -> bool:
    """True for this machine itself."""
    return source.startswith("127.") or source == "::1"


def source_of(address: str) -> str:
    """The address as it is counted: IPv4 on a socket for both is IPv4."""
    return address.removeprefix("::ffff:") if "." in address else address
