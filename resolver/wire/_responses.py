"""What the bodies of replies say.

Source: specs §3.4; recorded replies of Handle.Net 9.3.1.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from resolver.errors import InvalidValueError
from resolver.record import VALUES_MAX, HandleValue
from resolver.response_code import ResponseCode
from resolver.wire._digest import RequestDigest
from resolver.wire._envelope import MESSAGE_SIZE_BYTES_MAX
from resolver.wire._fields import counted, counted_indexes, counted_text, counted_texts
from resolver.wire._message import Message
from resolver.wire._opcode import Opcode, OpFlag
from resolver.wire._reader import Reader
from resolver.wire._records import HANDLE_SIZE_BYTES_MAX, KEY_SIZE_BYTES_MAX, SiteInfo
from resolver.wire._requests import NONCE_SIZE_BYTES_MAX, PADDING_SIZE_BYTES_MAX
from resolver.wire._values import counted_values, read_values

# A line for a person; the reference server sends one sentence.
ERROR_TEXT_SIZE_BYTES_MAX = 4_096

_U2 = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class EmptyResponse:
    """Done, and there is nothing more to say."""

    def to_wire(self) -> bytes:
        return b""

    @classmethod
    def from_reader(cls, reader: Reader) -> "EmptyResponse":
        reader.end()
        return cls()


@dataclass(frozen=True, slots=True)
class ResolutionResponse:
    """The values, behind the handle as the request spelled it."""

    handle: str
    values: tuple[HandleValue, ...]

    def to_wire(self) -> bytes:
        return counted_text(self.handle) + counted_values(self.values)

    @classmethod
    def from_reader(cls, reader: Reader) -> "ResolutionResponse":
        response = cls(reader.text(HANDLE_SIZE_BYTES_MAX), read_values(reader))
        reader.end()
        return response


@dataclass(frozen=True, slots=True)
class SiteResponse:
    """The site that answers: the record stands alone, without a length."""

    site: SiteInfo

    def to_wire(self) -> bytes:
        return self.site.to_wire()

    @classmethod
    def from_reader(cls, reader: Reader) -> "SiteResponse":
        return cls(SiteInfo.from_wire(reader.take(reader.remaining_bytes)))


@dataclass(frozen=True, slots=True)
class CreationResponse:
    """The handle that was created, which the server may have chosen; None if it is not said."""

    handle: str | None = None

    def to_wire(self) -> bytes:
        return b"" if self.handle is None else counted_text(self.handle)

    @classmethod
    def from_reader(cls, reader: Reader) -> "CreationResponse":
        handle = reader.text(HANDLE_SIZE_BYTES_MAX) if reader.remaining_bytes else None
        reader.end()
        return cls(handle)


@dataclass(frozen=True, slots=True)
class HandleList:
    """Handles or prefixes; of a long list, one part (all but the last have CONT)."""

    handles: tuple[str, ...]

    def to_wire(self) -> bytes:
        return counted_texts(self.handles)

    @classmethod
    def from_reader(cls, reader: Reader) -> "HandleList":
        count = reader.count(MESSAGE_SIZE_BYTES_MAX // 4, 4)
        handles = tuple(reader.text(HANDLE_SIZE_BYTES_MAX) for _ in range(count))
        reader.end()
        return cls(handles)


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the signature was right."""

    is_valid: bool

    def to_wire(self) -> bytes:
        return bytes((self.is_valid,))

    @classmethod
    def from_reader(cls, reader: Reader) -> "Verification":
        answer = reader.u1()
        if answer > 1:
            raise reader.damaged("0 or 1", reader.offset - 1)
        reader.end()
        return cls(bool(answer))


@dataclass(frozen=True, slots=True)
class SessionResponse:
    """The server's half of a session: in mode 4 a cipher and a DhPublicKey."""

    mode: int
    data: bytes
    padding: bytes = b""

    def to_wire(self) -> bytes:
        return _U2.pack(self.mode) + counted(self.data) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "SessionResponse":
        mode, data = reader.u2(), reader.counted(KEY_SIZE_BYTES_MAX)
        return cls(mode, data, reader.padding(PADDING_SIZE_BYTES_MAX))


@dataclass(frozen=True, slots=True)
class Challenge:
    """AUTHENTICATION_NEEDED: sign this nonce together with the digest before it."""

    nonce: bytes

    def to_wire(self) -> bytes:
        return counted(self.nonce)

    @classmethod
    def from_reader(cls, reader: Reader) -> "Challenge":
        challenge = cls(reader.counted(NONCE_SIZE_BYTES_MAX))
        reader.end()
        return challenge


@dataclass(frozen=True, slots=True)
class Referral:
    """Ask there: the service of `handle` or, if that is empty, the sites among `values`."""

    handle: str = ""
    values: tuple[HandleValue, ...] | None = ()

    def to_wire(self) -> bytes:
        values = b"" if self.values is None else counted_values(self.values)
        return counted_text(self.handle) + values

    @classmethod
    def from_reader(cls, reader: Reader) -> "Referral":
        handle = reader.text(HANDLE_SIZE_BYTES_MAX)
        values = read_values(reader) if reader.remaining_bytes else None
        reader.end()
        return cls(handle, values)


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """No, and why: None if not even an empty text is sent.

    `indexes` are those that are to blame, as DO-IRP 3.0 may say; None if it does not.
    """

    text: str | None = ""
    indexes: tuple[int, ...] | None = None

    def to_wire(self) -> bytes:
        if self.text is None:
            return b""
        if self.indexes is None:
            return counted_text(self.text)
        return counted_text(self.text) + counted_indexes(self.indexes)

    @classmethod
    def from_reader(cls, reader: Reader) -> "ErrorResponse":
        if not reader.remaining_bytes:
            return cls(None)
        text = reader.text(ERROR_TEXT_SIZE_BYTES_MAX)
        if not reader.remaining_bytes:
            return cls(text)
        indexes = tuple(reader.i4() for _ in range(reader.count(VALUES_MAX, 4)))
        reader.end()
        return cls(text, indexes)


Response = (
    EmptyResponse
    | ResolutionResponse
    | SiteResponse
    | CreationResponse
    | HandleList
    | Verification
    | SessionResponse
    | Challenge
    | Referral
    | ErrorResponse
)

_OF_SUCCESS: dict[int, Callable[[Reader], Response]] = {
    Opcode.RESOLUTION: ResolutionResponse.from_reader,
    Opcode.GET_SITE_INFO: SiteResponse.from_reader,
    Opcode.CREATE_HANDLE: CreationResponse.from_reader,
    Opcode.LIST_HANDLES: HandleList.from_reader,
    Opcode.LIST_DERIVED_PREFIXES: HandleList.from_reader,
    Opcode.LIST_HOMED_NAS: HandleList.from_reader,
    Opcode.VERIFY_CHALLENGE: Verification.from_reader,
    Opcode.SESSION_SETUP: SessionResponse.from_reader,
}
_OF_OTHERS: dict[int, Callable[[Reader], Response]] = {
    ResponseCode.AUTHENTICATION_NEEDED: Challenge.from_reader,
    ResponseCode.SERVICE_REFERRAL: Referral.from_reader,
    ResponseCode.PREFIX_REFERRAL: Referral.from_reader,
}


def response_body(message: Message) -> tuple[Response, RequestDigest | None]:
    """What `message` answers, and the digest of the request that it answers, if it has one.

    The class is decided by the response code and, of successes, by the opcode.

    Raises:
        InvalidMessageError: names the byte at which the body is damaged.
    """
    reader = Reader(message.body, f"reply {message.response_code} to opcode {message.opcode}")
    try:
        has_digest = message.flags & OpFlag.RRDG or _is_challenge(message)
        digest = RequestDigest.from_reader(reader) if has_digest else None
        return _reader_of(message)(reader), digest
    except InvalidValueError as error:
        raise message.malformed(str(error)) from None


def _is_challenge(message: Message) -> bool:
    return message.response_code == ResponseCode.AUTHENTICATION_NEEDED


def _reader_of(message: Message) -> Callable[[Reader], Response]:
    if message.response_code == ResponseCode.SUCCESS:
        return _OF_SUCCESS.get(message.opcode, EmptyResponse.from_reader)
    return _OF_OTHERS.get(message.response_code, ErrorResponse.from_reader)
