"""How many requests a second one source, or one owner of an API key, may make.

Token buckets that are filled in slices: a request takes one from a plain number, and only when a
slice is used up is anything reckoned. Each worker limits by itself; heavy users are added up in
Redis besides, so that what several workers and machines let through together stays within the rate.
Nothing waits for Redis, and without it each worker's own limit remains.

Worst case of one worker in t seconds: rate x (t + 1) + rate / 40. Of W workers together, until
they have heard of each other (REPORT_EVERY_S): W times as much for that quarter of a second; then
all of them are closed for as long as it takes the rate to make up for it.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network
from typing import Protocol

from metrics.worker_numbers import REFUSED_RATE_CALLER, REFUSED_RATE_SOURCE
from node.callers import Caller
from node.known_addresses import network_of
from resolver.errors import CacheUnavailableError

# How often heavy users are told to the other workers: four times in the second that is limited.
REPORT_EVERY_S = 0.25
# A slice is what a user of a tenth of the rate takes in that time: who needs more is heavy.
_SLICES_A_SECOND = 40
# A bucket takes some 300 bytes: 20 MB. More sources than this in a second are a flood from
# everywhere, which the budget of unknown names and the cap on requests under way hold.
BUCKETS_MAX = 65_536
# Buckets that are looked at for one that can be given up.
_LOOKS = 8
# A bucket nobody took from for so long is full again: a new one is the same.
_IDLE_S = 1.0
# However much came at once: nobody is shut out for longer.
CLOSED_MAX_S = 10.0
# Sums in Redis are asked for in their own second only; clocks differ by less than this.
_KEEP_S = 10
# What is not limited: a number that a processor word holds, filled up whenever it is used up.
_UNLIMITED = 1 << 29


class SharedUses(Protocol):
    """Counters that all workers share."""

    @property
    def is_up(self) -> bool:
        """False while they are known to be away."""

    async def count_uses(self, uses: Mapping[str, int], keep_s: int) -> list[int]:
        """Add to counters, which last `keep_s`; their new values in the same order.

        Raises:
            CacheUnavailableError: if they cannot be reached.
        """


class Bucket:
    """What one user may still ask for.

    The hot path takes from `left` itself: `bucket.left -= 1`; if that is below 0, `refill` says
    whether the request may go on.
    """

    __slots__ = (
        "_at_s",
        "_busy",
        "_closed_until_s",
        "_granted",
        "_tokens",
        "_told",
        "left",
        "name",
        "rate",
        "slot",
    )

    def __init__(self, name: str, rate: int, slot: int, busy: "dict[Bucket, None]") -> None:
        """A full bucket. `rate`: requests a second, 0 without limit; `slot`: where a refusal is
        counted; `busy`: where it enters itself when a slice did not last."""
        self.name = name
        self.rate = rate
        self.slot = slot
        self.left = 0
        self._busy = busy
        self._tokens = float(rate)
        self._at_s = self._closed_until_s = 0.0
        self._granted = self._told = 0

    def admits(self, now_s: float) -> bool:
        """Take one for a request; False if there is none."""
        self.left -= 1
        return self.left >= 0 or self.refill(now_s)

    def refill(self, now_s: float) -> bool:
        """Take the next slice, and from it one for the request that found none; False if there
        is none."""
        slice_ = self._slice(now_s) if self.rate else _UNLIMITED
        self.left = max(0, slice_ - 1)
        return slice_ > 0

    def retry_after_s(self, now_s: float) -> int:
        """Whole seconds after which it is worth asking again."""
        return max(1, math.ceil(self._closed_for_s(now_s)))

    def is_idle(self, now_s: float) -> bool:
        """True if a new bucket would be the same."""
        return abs(now_s - self._at_s) > _IDLE_S and not self._closed_for_s(now_s)

    def uses(self) -> int:
        """How many were taken since this was asked last, or since the use was light."""
        taken = self._granted - max(0, self.left)
        uses, self._told = taken - self._told, taken
        return uses

    def heard(self, total: int, second: int) -> None:
        """All workers together let `total` through in a second (seconds since 1970): if that is
        too much, let nothing through until the rate has made up for it."""
        if total <= self.rate:
            return
        until_s = second + min(CLOSED_MAX_S, max(1.0, total / self.rate))
        self._closed_until_s = self._at_s = max(self._closed_until_s, until_s)
        self._granted -= max(0, self.left)
        self.left, self._tokens = 0, 0.0

    def _slice(self, now_s: float) -> int:
        if self._closed_for_s(now_s):
            return 0
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = now_s
        if elapsed_s < REPORT_EVERY_S:
            self._busy[self] = None
        else:
            self._told = self._granted  # a slice that lasted is no heavy use
        self._tokens = min(self.rate, self._tokens + elapsed_s * self.rate)
        slice_ = min(max(1, self.rate // _SLICES_A_SECOND), int(self._tokens))
        self._tokens -= slice_
        self._granted += slice_
        return slice_

    def _closed_for_s(self, now_s: float) -> float:
        closed_s = self._closed_until_s - now_s
        # A clock that was set back does not close anything.
        return closed_s if 0 < closed_s <= CLOSED_MAX_S + 1 else 0.0


class Rates:
    """The buckets of this worker: one for each source and each owner of keys."""

    def __init__(
        self,
        per_source: int,
        per_caller: int,
        *,
        per_network: int = 0,
        limits_loopback: bool = False,
    ) -> None:
        """Requests a second; 0 is no limit. `per_network`: packets to senders of datagrams that
        nobody knows. `limits_loopback`: also for this machine itself."""
        self._busy: dict[Bucket, None] = {}
        self._sources = _Buckets("source", per_source, REFUSED_RATE_SOURCE, self._busy)
        self._callers = _Buckets("caller", per_caller, REFUSED_RATE_CALLER, self._busy)
        self._networks = _Buckets("network", per_network, REFUSED_RATE_SOURCE, self._busy)
        self._unlimited = Bucket("", 0, REFUSED_RATE_SOURCE, self._busy)
        self._limits_loopback = limits_loopback

    def bucket(self, caller: Caller, source: str, peer: str) -> Bucket:
        """The bucket that a request takes from: its key's owner's, or else its source's.

        `peer` is the other end of the connection; `source` differs where a trusted proxy told it.
        """
        is_forwarded = source not in (peer, peer.removeprefix("::ffff:"))
        if not is_forwarded and not self._limits_loopback and _is_loopback(source):
            return self._unlimited
        return self.source_bucket(source) if caller.owner is None else self.caller_bucket(caller)

    def source_bucket(self, source: str) -> Bucket:
        """The bucket of an address without a key."""
        return self._sources.bucket(_network(source))

    def network_bucket(self, source: str) -> Bucket:
        """The bucket of all addresses that are near this one."""
        return self._networks.bucket(network_of(source))

    def caller_bucket(self, caller: Caller) -> Bucket:
        """The bucket that all keys of one owner share; `caller` has a key."""
        owner = caller.owner
        assert owner is not None
        name = owner.application_id or owner.enterprise_id or ""
        return self._callers.bucket(f"{owner.role}:{name}")

    async def share(self, shared: SharedUses, now_s: float) -> None:
        """Tell the other workers of heavy users, and close what was too much for all together."""
        self._sources.now_s = self._callers.now_s = self._networks.now_s = now_s
        uses = {bucket: bucket.uses() for bucket in self._busy}
        self._busy.clear()
        if not uses or not shared.is_up:
            return
        second = int(now_s)
        counters = {f"{second}:{bucket.name}": number for bucket, number in uses.items()}
        try:
            sums = await shared.count_uses(counters, _KEEP_S)
        except CacheUnavailableError:
            return  # what is not told now is not told at all: the next second has sums of its own
        for bucket, total in zip(uses, sums, strict=True):
            bucket.heard(total, second)


class _Buckets:
    """Buckets of one kind, least recently asked for out first; too many share one."""

    def __init__(self, kind: str, rate: int, slot: int, busy: dict[Bucket, None]) -> None:
        self._kind = kind
        self._rate = rate
        self._slot = slot
        self._busy = busy
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._crowd = self._new("…")
        self.now_s = 0.0

    def bucket(self, name: str) -> Bucket:
        if not self._rate:
            return self._crowd
        bucket = self._buckets.get(name)
        if bucket is not None:
            self._buckets.move_to_end(name)
            return bucket
        if len(self._buckets) >= BUCKETS_MAX and not self._give_up_one():
            return self._crowd
        bucket = self._buckets[name] = self._new(name)
        return bucket

    def _new(self, name: str) -> Bucket:
        return Bucket(f"{self._kind}:{name}", self._rate, self._slot, self._busy)

    def _give_up_one(self) -> bool:
        """Forget a bucket that a new one can stand for; False if none is found."""
        for _ in range(_LOOKS):
            name, oldest = next(iter(self._buckets.items()))
            if oldest.is_idle(self.now_s):
                del self._buckets[name]
                return True
            self._buckets.move_to_end(name)
        return False


def _is_loopback(source: str) -> bool:
    return source.startswith("127.") or source == "::1"


def _network(source: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one subscriber has all of it."""
    if ":" not in source:
        return source
    try:
        address = IPv6Address(source.partition("%")[0])
    except ValueError:
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address.packed, 64), strict=False))
