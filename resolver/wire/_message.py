"""Messages: header, body and credential behind an envelope."""

import struct
from dataclasses import dataclass, replace

from resolver.errors import InvalidValueError
from resolver.response_code import ResponseCode
from resolver.wire._credential import Credential
from resolver.wire._digest import DigestAlgorithm, RequestDigest
from resolver.wire._envelope import (
    COMPRESSED,
    ENVELOPE_SIZE_BYTES,
    MESSAGE_SIZE_BYTES_MAX,
    Envelope,
    InvalidMessageError,
    envelope_and_content,
)
from resolver.wire._opcode import OpFlag
from resolver.wire._reader import Reader

HEADER_SIZE_BYTES = 24
SITE_SERIAL_UNKNOWN = 0xFFFF

_HEADER = struct.Struct(">iiIHBBII")
_COUNTER = struct.Struct(">i")
_SIZE = struct.Struct(">I")
_NO_CREDENTIAL = bytes(4)


@dataclass(frozen=True, slots=True)
class Message:
    """One request or reply; a request has response code 0.

    `opcode` may be one that Opcode does not know; `flags` are bits of OpFlag, unknown ones kept.
    `expiration_s` is seconds since 1970, UTC. `body` is as it is sent; what it says is read by
    `request_body` and `response_body`. `credential_left_out` remembers that not even the four
    zero bytes of an empty credential were there, as in the login of one SDK.
    """

    envelope: Envelope
    opcode: int
    body: bytes = b""
    response_code: int = 0
    flags: int = 0
    site_serial: int = SITE_SERIAL_UNKNOWN
    recursion_count: int = 0
    expiration_s: int = 0
    credential: Credential | None = None
    credential_left_out: bool = False
    reserved: int = 0

    @property
    def is_request(self) -> bool:
        return not self.response_code

    @property
    def header_and_body(self) -> bytes:
        """What digests and signatures are made of."""
        header = _HEADER.pack(
            self.opcode,
            self.response_code,
            self.flags,
            self.site_serial,
            self.recursion_count,
            self.reserved,
            self.expiration_s,
            len(self.body),
        )
        return header + self.body

    @property
    def content(self) -> bytes:
        """Everything after the envelope: what an encrypted session encrypts."""
        if self.credential is not None:
            return self.header_and_body + self.credential.to_wire()
        return self.header_and_body + (b"" if self.credential_left_out else _NO_CREDENTIAL)

    def to_wire(self) -> bytes:
        """The whole message, in the clear.

        Raises:
            InvalidMessageError: if it is longer than anybody accepts.
        """
        return sealed(self.envelope, self.content)

    @classmethod
    def from_wire(cls, data: bytes) -> "Message":
        """Inverse of `to_wire`, for exactly one message.

        Raises:
            InvalidMessageError: names the byte at which it is damaged.
        """
        return cls.from_content(*envelope_and_content(data))

    @classmethod
    def from_content(cls, envelope: Envelope, content: bytes) -> "Message":
        """The message behind `envelope`, after it was reassembled and decrypted.

        Raises:
            InvalidMessageError: names the byte at which it is damaged.
        """
        if envelope.flags & COMPRESSED:
            raise InvalidMessageError(
                "message is compressed: expected it in the clear",
                envelope=envelope,
                response_code=ResponseCode.OPERATION_NOT_SUPPORTED,
            )
        if len(content) < HEADER_SIZE_BYTES:
            raise InvalidMessageError(
                f"message is cut short: expected a header of {HEADER_SIZE_BYTES} bytes, "
                f"found {len(content)}",
                envelope=envelope,
                opcode=_opcode_of(content),
            )
        return cls._from_header(envelope, content)

    @classmethod
    def _from_header(cls, envelope: Envelope, content: bytes) -> "Message":
        opcode, response_code, flags, serial, recursion, reserved, expiration_s, size_bytes = (
            _HEADER.unpack_from(content)
        )
        try:
            body, credential, left_out = _body_and_credential(content, size_bytes)
        except InvalidValueError as error:
            raise InvalidMessageError(
                str(error), envelope=envelope, opcode=opcode, flags=flags, expiration_s=expiration_s
            ) from None
        return cls(
            envelope,
            opcode,
            body,
            response_code,
            flags,
            serial,
            recursion,
            expiration_s,
            credential,
            left_out,
            reserved,
        )

    def malformed(
        self, text: str, response_code: ResponseCode = ResponseCode.PROTOCOL_ERROR
    ) -> InvalidMessageError:
        """The error to raise about this message."""
        return InvalidMessageError(
            text,
            envelope=self.envelope,
            opcode=self.opcode,
            flags=self.flags,
            expiration_s=self.expiration_s,
            response_code=response_code,
        )

    def digest(self, algorithm: DigestAlgorithm = DigestAlgorithm.SHA256) -> RequestDigest:
        """The digest by which a challenge or a reply names this request."""
        return RequestDigest.of(self.header_and_body, algorithm)

    def signed_bytes(self, session_counter: int = 0) -> bytes:
        """What a credential with this counter signs (protocol 2.8 and newer).

        Source: specs §3.2; verified with the recorded signatures.
        """
        counter = _COUNTER.pack(session_counter)
        return self.envelope.signed_bytes() + counter + self.header_and_body

    def is_authenticated_by(self, session_key: bytes) -> bool:
        """True if the message carries the code of its session."""
        credential = self.credential
        if credential is None:
            return False
        return credential.is_mac_of(self.signed_bytes(credential.session_counter), session_key)

    def authenticated(self, session_key: bytes, session_counter: int) -> "Message":
        """This message with the code of its session, which the envelope must name already."""
        signed = self.signed_bytes(session_counter)
        return replace(self, credential=Credential.mac_of(signed, session_key, session_counter))

    def reply(
        self,
        response_code: int,
        body: bytes = b"",
        *,
        site_serial: int,
        digest: RequestDigest | None = None,
        session_id: int = 0,
        answers: "Message | None" = None,
    ) -> "Message":
        """The answer to this request, with the request's flags and AUTH, and its expiration.

        `digest` is put before `body`, and RRDG says so. `answers` is the message that is answered
        if it is not this one: the answer to a challenge gets the reply of the operation that it
        allows.
        """
        answered = answers or self
        flags = (self.flags | OpFlag.AUTH) & ~(OpFlag.RRDG | OpFlag.CONT)
        if digest is not None:
            flags |= OpFlag.RRDG
            body = digest.to_wire() + body
        return Message(
            answered.envelope.reply(session_id),
            self.opcode,
            body,
            response_code=response_code,
            flags=int(flags),
            site_serial=site_serial,
            expiration_s=answered.expiration_s,
        )


def _body_and_credential(content: bytes, body_bytes: int) -> tuple[bytes, Credential | None, bool]:
    reader = Reader(content, "message", HEADER_SIZE_BYTES)
    body = reader.take(body_bytes)
    rest = reader.rest
    if not rest or rest == _NO_CREDENTIAL:
        return body, None, not rest
    return body, Credential.from_reader(reader), False


def sealed(envelope: Envelope, content: bytes) -> bytes:
    """`content`, encrypted or not, behind its envelope.

    Raises:
        InvalidMessageError: if it is longer than anybody accepts.
    """
    if len(content) > MESSAGE_SIZE_BYTES_MAX:
        raise InvalidMessageError(
            f"message of {len(content)} bytes: expected at most {MESSAGE_SIZE_BYTES_MAX}; "
            "send a list in several messages"
        )
    return replace(envelope, message_size_bytes=len(content)).to_wire() + content


def refusal(error: InvalidMessageError, *, site_serial: int) -> Message | None:
    """The reply to bytes that are no message; None if there is nobody to address it to."""
    if error.envelope is None:
        return None
    text = str(error).encode()
    flags = (error.flags | OpFlag.AUTH) & ~(OpFlag.RRDG | OpFlag.CONT)
    return Message(
        error.envelope.reply(),
        error.opcode or 0,
        _SIZE.pack(len(text)) + text,
        response_code=error.response_code,
        flags=int(flags),
        site_serial=site_serial,
        expiration_s=error.expiration_s,
    )


def _opcode_of(content: bytes) -> int | None:
    return int.from_bytes(content[:4], "big", signed=True) if len(content) >= 4 else None


class MessageStream:
    """Cuts the bytes of a TCP connection into whole messages.

    Holds less than one message of MESSAGE_SIZE_BYTES_MAX between calls, as long as every `feed`
    is followed by `take` until it returns None.
    """

    __slots__ = ("_buffer", "_start")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> bytes | None:
        """The next whole message with its envelope; None if more bytes are needed.

        Raises:
            InvalidMessageError: if what comes next can be no envelope; with `ends_stream`, and
                again at every further call.
        """
        if self.held_bytes < ENVELOPE_SIZE_BYTES:
            self._forget()
            return None
        envelope = Envelope.from_wire(self._buffer, self._start)
        end = self._start + ENVELOPE_SIZE_BYTES + envelope.message_size_bytes
        if end > len(self._buffer):
            self._forget()
            return None
        message = bytes(self._buffer[self._start : end])
        self._start = end
        return message

    def _forget(self) -> None:
        # Once for all messages that came together, not once for each.
        del self._buffer[: self._start]
        self._start = 0
