"""Who asks at the native doors: whom it counts as, and what it may still ask for."""

from typing import Final
from weakref import WeakSet

from metrics.counting import Cells
from metrics.dimension import CHANNEL_NATIVE_UDP
from metrics.worker_numbers import REFUSED_RATE_SOURCE, WorkerNumbers
from node.callers import ANONYMOUS
from node.known_addresses import KnownAddresses
from node.native_limits import Strangers, is_loopback
from node.rate_limit import Bucket, Rates
from resolver.wire import PACKET_SIZE_BYTES_MAX

# Whoever has drawn too much is not even heard for so long: looking at what a flood asks for would
# cost the others their answers.
SILENT_S: Final = 0.05


class Asker:
    """One address at one native door.

    `source` is what it is counted as. `network` is set for the sender of datagrams that nobody
    knows: it shares so many packets of answers with all addresses near it.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "bucket",
        "cells",
        "channel",
        "network",
        "silent_since_s",
        "source",
    )

    def __init__(
        self, address: str, source: str, channel: str, bucket: Bucket, network: Bucket | None
    ) -> None:
        self.address = address
        self.source = source
        self.channel = channel
        self.bucket = bucket
        self.network = network
        self.cells: dict[str, Cells] = {}
        self.silent_since_s = float("-inf")


class Askers:
    """Makes askers of addresses, and judges what is sent to those that may not be there."""

    def __init__(
        self,
        rates: Rates,
        known: KnownAddresses,
        strangers: Strangers,
        numbers: WorkerNumbers,
        *,
        limits_loopback: bool = False,
    ) -> None:
        """`limits_loopback`: this machine itself is a stranger, too, when it sends datagrams."""
        self._rates = rates
        self._known = known
        self._strangers = strangers
        self._numbers = numbers
        self._limits_loopback = limits_loopback
        self._all: WeakSet[Asker] = WeakSet()

    def connected(self, address: str, channel: str, now_s: float) -> Asker:
        """The other end of a connection: whoever completes one is really there."""
        self._known.add(address, now_s)
        return self._asker(address, address, channel, None)

    def sending(self, address: str, now_s: float) -> Asker:
        """The sender of a datagram, whose address anybody may have written."""
        source = self._strangers.counted_as(address, now_s)
        return self._asker(address, source, CHANNEL_NATIVE_UDP, self._network(address))

    def admits(self, asker: Asker, size_bytes: int, now_s: float) -> bool:
        """True if an answer of this size may be sent.

        Otherwise nothing is said: a refusal would reach the wrong one as well, and a client that
        is really there asks over TCP when it hears nothing.
        """
        network = asker.network
        if network is None:
            return True
        packets = -(-size_bytes // PACKET_SIZE_BYTES_MAX)
        if all(network.admits(now_s) for _ in range(packets)):
            return True
        if self._known.knows(asker.address, now_s):
            asker.network = None
            return True
        asker.silent_since_s = now_s
        self._numbers.add(REFUSED_RATE_SOURCE)
        return False

    def hears(self, asker: Asker, now_s: float) -> bool:
        """False while datagrams of `asker` are not looked at, because it has drawn too much."""
        is_silent = 0 <= now_s - asker.silent_since_s < SILENT_S
        if not is_silent or self._known.knows(asker.address, now_s):
            return True
        self._numbers.add(REFUSED_RATE_SOURCE)
        return False

    def doubt(self) -> None:
        """Whoever was known has to be looked up again: an hour may be over."""
        for asker in self._all:
            if asker.channel == CHANNEL_NATIVE_UDP:
                asker.network = self._network(asker.address)

    def void_cells(self) -> None:
        """The places where askers count are others from now on."""
        for asker in self._all:
            asker.cells.clear()

    def _network(self, address: str) -> Bucket | None:
        if is_loopback(address) and not self._limits_loopback:
            return None
        return self._rates.network_bucket(address)

    def _asker(self, address: str, source: str, channel: str, network: Bucket | None) -> Asker:
        bucket = self._rates.bucket(ANONYMOUS, address, address)
        asker = Asker(address, source, channel, bucket, network)
        self._all.add(asker)
        return asker
