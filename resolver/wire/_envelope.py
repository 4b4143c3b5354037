"""The envelope before every message, and the one error of whatever is no message."""

import struct
from dataclasses import dataclass

from resolver.response_code import ResponseCode

ENVELOPE_SIZE_BYTES = 20
# What Handle.Net accepts and RFC 3652 allows; the longest record fits.
MESSAGE_SIZE_BYTES_MAX = 262_144
COMPRESSED, ENCRYPTED, TRUNCATED = 0x80, 0x40, 0x20
# The version we speak and suggest: nobody serves more (specs §3.9).
VERSION = (2, 11)

_FLAGS = COMPRESSED | ENCRYPTED | TRUNCATED
_MAJOR_MAX = 3
_ENVELOPE = struct.Struct(">BBBBIIII")
_VERSION_AND_NUMBERS = struct.Struct(">BBBBII")


class InvalidMessageError(ValueError):
    """Bytes that are no message; the text says where and what was expected.

    It carries what an answer needs: `envelope` and `opcode` (None if they could not be read),
    the request's `flags`, `expiration_s`, and `response_code`, which is PROTOCOL_ERROR or, for a
    well-formed message that asks for what we do not know, OPERATION_NOT_SUPPORTED. After
    `ends_stream` nobody knows where on a TCP connection the next message begins.
    """

    def __init__(
        self,
        text: str,
        *,
        envelope: "Envelope | None" = None,
        opcode: int | None = None,
        flags: int = 0,
        expiration_s: int = 0,
        response_code: ResponseCode = ResponseCode.PROTOCOL_ERROR,
        ends_stream: bool = False,
    ) -> None:
        super().__init__(text)
        self.envelope = envelope
        self.opcode = opcode
        self.flags = flags
        self.expiration_s = expiration_s
        self.response_code = response_code
        self.ends_stream = ends_stream

    @property
    def request_id(self) -> int | None:
        return None if self.envelope is None else self.envelope.request_id


@dataclass(frozen=True, slots=True)
class Envelope:
    """Twenty bytes before every TCP message and in every UDP packet.

    `sequence` numbers the packets of one message; `message_size_bytes` is the size of the whole
    message without envelopes. `flags` are COMPRESSED, ENCRYPTED and TRUNCATED; the last says
    that this is one packet of several, but real clients forget it, so nothing depends on it.
    """

    request_id: int
    message_size_bytes: int = 0
    session_id: int = 0
    sequence: int = 0
    major: int = VERSION[0]
    minor: int = VERSION[1]
    suggested_major: int = VERSION[0]
    suggested_minor: int = VERSION[1]
    flags: int = 0

    def to_wire(self) -> bytes:
        return _ENVELOPE.pack(
            self.major,
            self.minor,
            self.flags | self.suggested_major,
            self.suggested_minor,
            self.session_id,
            self.request_id,
            self.sequence,
            self.message_size_bytes,
        )

    @classmethod
    def from_wire(cls, data: bytes | bytearray, offset: int = 0) -> "Envelope":
        """The envelope at `offset`.

        Raises:
            InvalidMessageError: if `data` is too short, of an unknown major version, or
                announces more than MESSAGE_SIZE_BYTES_MAX.
        """
        if len(data) - offset < ENVELOPE_SIZE_BYTES:
            raise InvalidMessageError(
                f"envelope is cut short: expected {ENVELOPE_SIZE_BYTES} bytes, "
                f"found {len(data) - offset}",
                ends_stream=True,
            )
        fields = _ENVELOPE.unpack_from(data, offset)
        major, minor, flags, suggested_minor, session_id, request_id, sequence, size_bytes = fields
        envelope = cls(
            request_id=request_id,
            message_size_bytes=size_bytes,
            session_id=session_id,
            sequence=sequence,
            major=major,
            minor=minor,
            suggested_major=flags & ~_FLAGS,
            suggested_minor=suggested_minor,
            flags=flags & _FLAGS,
        )
        envelope._check()
        return envelope

    def _check(self) -> None:
        if not 1 <= self.major <= _MAJOR_MAX:
            # Some other protocol knocks: an answer in ours would not be understood.
            raise InvalidMessageError(
                f"major version {self.major}: expected 1 to {_MAJOR_MAX}", ends_stream=True
            )
        if self.message_size_bytes > MESSAGE_SIZE_BYTES_MAX:
            raise InvalidMessageError(
                f"message of {self.message_size_bytes} bytes: "
                f"expected at most {MESSAGE_SIZE_BYTES_MAX}",
                envelope=self,
                ends_stream=True,
            )

    @property
    def is_encrypted(self) -> bool:
        return bool(self.flags & ENCRYPTED)

    def reply(self, session_id: int = 0) -> "Envelope":
        """The envelope of an answer: in the older of our version and the one suggested to us.

        Source: specs §3.1; recorded: a request in 2.3 that suggests 2.10 is answered in 2.10.
        """
        spoken, suggested = (self.major, self.minor), (self.suggested_major, self.suggested_minor)
        # Clients of RFC 3652 have zero bytes where others suggest a version.
        major, minor = min(suggested if self.suggested_major else spoken, VERSION)
        return Envelope(self.request_id, session_id=session_id, major=major, minor=minor)

    def signed_bytes(self) -> bytes:
        """What a credential signs of the envelope: the versions, session and request number."""
        return _VERSION_AND_NUMBERS.pack(
            self.major,
            self.minor,
            self.suggested_major,
            self.suggested_minor,
            self.session_id,
            self.request_id,
        )


def envelope_and_content(data: bytes) -> tuple[Envelope, bytes]:
    """One whole message, still encrypted if it is: its envelope and the bytes after.

    Raises:
        InvalidMessageError: if `data` is not exactly as long as its envelope says.
    """
    envelope = Envelope.from_wire(data)
    size_bytes = len(data) - ENVELOPE_SIZE_BYTES
    if size_bytes != envelope.message_size_bytes:
        raise InvalidMessageError(
            f"message has {size_bytes} bytes: expected {envelope.message_size_bytes}, "
            "as its envelope says",
            envelope=envelope,
        )
    return envelope, data[ENVELOPE_SIZE_BYTES:]
