"""Messages over UDP: cut into packets, and put together again."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

from resolver.wire._envelope import (
    ENVELOPE_SIZE_BYTES,
    MESSAGE_SIZE_BYTES_MAX,
    TRUNCATED,
    Envelope,
    InvalidMessageError,
)

# Every recorded packet keeps to it; the least that every IP host takes is 576 with headers.
PACKET_SIZE_BYTES_MAX = 512
PACKET_CONTENT_SIZE_BYTES_MAX = PACKET_SIZE_BYTES_MAX - ENVELOPE_SIZE_BYTES
# Twice as many as the longest message fills with packets of 512 bytes.
PACKETS_MAX = 1_066
# Anybody can begin a message and leave it: this many may be open at a time. A request is seldom
# longer than one packet.
UNFINISHED_MAX = 1_024
# Of all open messages: 32 of the longest.
UNFINISHED_SIZE_BYTES_MAX = 8_388_608
# Clients repeat a request after two to five seconds; what is older is given up.
REASSEMBLY_PATIENCE_S = 10.0

# What one packet costs besides its bytes.
_PACKET_OVERHEAD_BYTES = 128


def packets(message: bytes) -> list[bytes]:
    """A whole message with its envelope as it is sent over UDP: of 512 bytes at most each.

    Source: specs §3.7; recorded: every packet of several repeats the envelope, with the size of
    the whole message, the TC flag and its own number.
    """
    if len(message) <= PACKET_SIZE_BYTES_MAX:
        return [message]
    return list(_numbered(Envelope.from_wire(message), message))


def _numbered(envelope: Envelope, message: bytes) -> Iterator[bytes]:
    places = range(ENVELOPE_SIZE_BYTES, len(message), PACKET_CONTENT_SIZE_BYTES_MAX)
    for number, place in enumerate(places):
        head = replace(envelope, sequence=number, flags=envelope.flags | TRUNCATED)
        yield head.to_wire() + message[place : place + PACKET_CONTENT_SIZE_BYTES_MAX]


@dataclass(slots=True)
class _Unfinished:
    """A message of which packets are missing."""

    envelope: Envelope
    since_s: float
    contents: dict[int, bytes] = field(default_factory=dict)
    received_bytes: int = 0

    @property
    def cost_bytes(self) -> int:
        return self.received_bytes + (1 + len(self.contents)) * _PACKET_OVERHEAD_BYTES

    @property
    def is_complete(self) -> bool:
        # Numbers are below the count and each is there once, so none is missing.
        whole = self.received_bytes == self.envelope.message_size_bytes
        return whole and max(self.contents) + 1 == len(self.contents)

    def add(self, number: int, content: bytes) -> int:
        """Keep a packet, once; what that costs in bytes."""
        if number in self.contents:
            return 0
        self.contents[number] = content
        self.received_bytes += len(content)
        return len(content) + _PACKET_OVERHEAD_BYTES

    def message(self) -> bytes:
        content = b"".join(self.contents[number] for number in range(len(self.contents)))
        return replace(self.envelope, sequence=0).to_wire() + content


class Reassembly:
    """Puts the packets of messages together, by sender and request number.

    Packets may come in any order and more than once, of any size, and without the TC flag. What
    it holds is bounded in messages, bytes and age; the oldest open message goes first.
    """

    __slots__ = ("_unfinished", "held_bytes")

    def __init__(self) -> None:
        # By age, the oldest first.
        self._unfinished: dict[tuple[Hashable, int], _Unfinished] = {}
        self.held_bytes = 0

    def __len__(self) -> int:
        """Messages of which packets are missing."""
        return len(self._unfinished)

    def add(self, sender: Hashable, packet: bytes, now_s: float) -> bytes | None:
        """The whole message, in one envelope, if `packet` completes it.

        The envelope is that of the packet that came first, with sequence 0.

        Raises:
            InvalidMessageError: if `packet` is none, or does not fit to the others; these are
                forgotten.
        """
        envelope = Envelope.from_wire(packet)
        size_bytes = len(packet) - ENVELOPE_SIZE_BYTES
        if not envelope.sequence and size_bytes == envelope.message_size_bytes:
            return packet
        self._give_up_before(now_s - REASSEMBLY_PATIENCE_S)
        _check(envelope, size_bytes)
        return self._join((sender, envelope.request_id), envelope, packet, now_s)

    def _join(
        self, key: tuple[Hashable, int], envelope: Envelope, packet: bytes, now_s: float
    ) -> bytes | None:
        unfinished = self._unfinished.get(key)
        if unfinished is not None and not _is_of(envelope, unfinished.envelope):
            # A request number that is used anew: the sender waits for the newer message.
            self._give_up(key)
            unfinished = None
        if unfinished is None:
            unfinished = self._begin(key, envelope, now_s)
        self.held_bytes += unfinished.add(envelope.sequence, packet[ENVELOPE_SIZE_BYTES:])
        if unfinished.received_bytes > envelope.message_size_bytes:
            self._give_up(key)
            raise _too_long(envelope, unfinished.received_bytes)
        if unfinished.is_complete:
            self._give_up(key)
            return unfinished.message()
        self._make_room()
        return None

    def _begin(self, key: tuple[Hashable, int], envelope: Envelope, now_s: float) -> _Unfinished:
        unfinished = self._unfinished[key] = _Unfinished(envelope, now_s)
        self.held_bytes += unfinished.cost_bytes
        return unfinished

    def _make_room(self) -> None:
        while len(self) > UNFINISHED_MAX or self.held_bytes > UNFINISHED_SIZE_BYTES_MAX:
            self._give_up(next(iter(self._unfinished)))

    def _give_up_before(self, time_s: float) -> None:
        while self._unfinished and next(iter(self._unfinished.values())).since_s <= time_s:
            self._give_up(next(iter(self._unfinished)))

    def _give_up(self, key: tuple[Hashable, int]) -> None:
        self.held_bytes -= self._unfinished.pop(key).cost_bytes


def _too_long(envelope: Envelope, received_bytes: int) -> InvalidMessageError:
    return InvalidMessageError(
        f"packets of {received_bytes} bytes: expected {envelope.message_size_bytes}, "
        "as their envelopes say",
        envelope=envelope,
    )


def _check(envelope: Envelope, size_bytes: int) -> None:
    if not 0 < size_bytes <= envelope.message_size_bytes <= MESSAGE_SIZE_BYTES_MAX:
        raise InvalidMessageError(
            f"packet with {size_bytes} bytes of {envelope.message_size_bytes}: "
            "expected a part of the message",
            envelope=envelope,
        )
    if envelope.sequence >= PACKETS_MAX:
        raise InvalidMessageError(
            f"packet {envelope.sequence}: expected at most {PACKETS_MAX} of a message",
            envelope=envelope,
        )


def _is_of(envelope: Envelope, first: Envelope) -> bool:
    """True if both are of one message: all but number and TC flag is the same."""
    return envelope == replace(first, sequence=envelope.sequence, flags=envelope.flags)
