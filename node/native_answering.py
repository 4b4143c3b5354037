"""Whole native messages on their way to the door: let in or not, and answered in any case."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from metrics.dimension import LEVEL_NODE, OUTCOME_REFUSED, OUTCOME_UNAVAILABLE
from metrics.worker_numbers import REFUSED_IN_FLIGHT, WorkerNumbers
from node.admission import IN_FLIGHT_MAX, Admission
from node.callers import ANONYMOUS
from node.native_asker import Asker
from node.native_limits import Room
from node.native_peer import Peer
from node.native_refusal import is_resolution, refused
from node.rate_limit import Bucket
from node.tally import Kind, Tally
from resolver.response_code import ResponseCode

_log = logging.getLogger("idnode.native")

_TOO_BUSY: Final = f"The node is working on {IN_FLIGHT_MAX} requests: try again in a second"


class Door(Protocol):
    """What answers messages, whichever way they came."""

    async def answer(self, message: bytes, peer: Peer) -> list[bytes]:
        """The messages that answer one whole message; none to what is itself an answer."""


class NativeAnswering:
    """What the native doors of one process share to have a message answered."""

    def __init__(
        self,
        door: Door,
        admission: Admission,
        tally: Tally,
        numbers: WorkerNumbers,
        site_serial: Callable[[], int],
    ) -> None:
        self.room = Room()
        self.site_serial = site_serial
        self._door = door
        self._admission = admission
        self._tally = tally
        self._numbers = numbers
        # What a door refuses before a message is there.
        self.count = numbers.add

    def refusal(self, message: bytes, asker: Asker, now_s: float) -> list[bytes] | None:
        """The reply to a message that is not let in; None for one that is."""
        if self._admission.is_full:
            self._numbers.add(REFUSED_IN_FLIGHT)
            self._count(message, asker, OUTCOME_UNAVAILABLE, now_s)
            return self._refused(message, _TOO_BUSY)
        bucket = asker.bucket
        if bucket.admits(now_s):
            return None
        self._numbers.add(bucket.slot)
        self._count(message, asker, OUTCOME_REFUSED, now_s)
        return self._refused(message, _too_often(bucket, now_s))

    async def answer(self, message: bytes, peer: Peer) -> list[bytes]:
        """The messages that answer one that was let in; never raises."""
        with self._admission:
            return await self.told(message, peer)

    async def told(self, message: bytes, peer: Peer) -> list[bytes]:
        """The same for a message that came inside a request which was let in."""
        try:
            return await self._door.answer(message, peer)
        except Exception:
            # Ours to mend: the log has the traceback, the caller one line.
            opcode = int.from_bytes(message[20:24])
            # What it holds is not written down: it may be a secret key.
            _log.exception("a message failed: %d bytes, opcode %d", len(message), opcode)
            text = "Internal error, see the log"
            return refused(message, ResponseCode.ERROR, text, self.site_serial())

    def _refused(self, message: bytes, text: str) -> list[bytes]:
        return refused(message, ResponseCode.SERVER_TOO_BUSY, text, self.site_serial())

    def _count(self, message: bytes, asker: Asker, outcome: str, now_s: float) -> None:
        if is_resolution(message):
            kind = Kind(LEVEL_NODE, "", ANONYMOUS.caller_class, "", asker.channel, outcome)
            self._tally.count_many(now_s, {kind: 1}, asker.source)


def _too_often(bucket: Bucket, now_s: float) -> str:
    after_s = bucket.retry_after_s(now_s)
    return f"This address sends more than {bucket.rate} requests a second: try again in {after_s} s"
