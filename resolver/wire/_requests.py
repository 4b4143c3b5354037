"""What the bodies of requests say.

Each body is written as the specification has it. What real clients leave out or add is read,
and remembered so that the same bytes are written again: digests and signatures cover them.

Source: specs §3.4 and §4; recorded requests of Handle.Net's client and two Chinese SDKs.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from resolver.errors import InvalidValueError
from resolver.record import VALUES_MAX, HandleValue, Reference
from resolver.response_code import ResponseCode
from resolver.wire._credential import ALGORITHM_NAME_SIZE_BYTES_MAX, SIGNATURE_SIZE_BYTES_MAX
from resolver.wire._fields import (
    counted,
    counted_indexes,
    counted_text,
    counted_texts,
    reference_to_wire,
)
from resolver.wire._message import Message
from resolver.wire._opcode import Opcode
from resolver.wire._reader import Reader
from resolver.wire._records import HANDLE_SIZE_BYTES_MAX, KEY_SIZE_BYTES_MAX
from resolver.wire._values import counted_values, read_values

# A type of the longest kind in its longest UTF-8 form.
TYPE_SIZE_BYTES_MAX = 512
# Servers send 16 bytes; nothing is gained by more than a hash takes in one block.
NONCE_SIZE_BYTES_MAX = 64
# The algorithm byte and the longest digest that hashlib knows.
DIGEST_SIZE_BYTES_MAX = 65
# The name of an algorithm and a signature.
SIGNED_SIZE_BYTES_MAX = SIGNATURE_SIZE_BYTES_MAX + ALGORITHM_NAME_SIZE_BYTES_MAX + 8
# Two bytes of one client, four of another; they mean nothing.
PADDING_SIZE_BYTES_MAX = 16
# What GET_SITE_INFO and LIST_HOMED_NAS ask about.
NO_HANDLE = "/"

SESSION_BY_CLIENT_KEY, SESSION_BY_HANDLE_KEY, SESSION_BY_DH = 1, 3, 4

_U2 = struct.Struct(">H")
_I4 = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class ResolutionRequest:
    """RESOLUTION: the union of `indexes` and `types`; both empty means all values.

    `lists_left_out` is how many of the two lists, from the end, are not even there as empty.
    """

    handle: str
    indexes: tuple[int, ...] = ()
    types: tuple[str, ...] = ()
    lists_left_out: int = 0
    padding: bytes = b""

    def to_wire(self) -> bytes:
        lists = (counted_indexes(self.indexes), counted_texts(self.types))
        return counted_text(self.handle) + b"".join(lists[: 2 - self.lists_left_out]) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "ResolutionRequest":
        handle = reader.text(HANDLE_SIZE_BYTES_MAX)
        if not reader.remaining_bytes:
            return cls(handle, lists_left_out=2)
        indexes = _read_indexes(reader)
        if not reader.remaining_bytes:
            return cls(handle, indexes, lists_left_out=1)
        return cls(handle, indexes, _read_types(reader), padding=_padding(reader))


@dataclass(frozen=True, slots=True)
class HandleRequest:
    """An operation on a handle as such: delete, list, home, unhome, site info, end of session."""

    handle: str = NO_HANDLE
    padding: bytes = b""

    def to_wire(self) -> bytes:
        return counted_text(self.handle) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "HandleRequest":
        return cls(reader.text(HANDLE_SIZE_BYTES_MAX), _padding(reader))


@dataclass(frozen=True, slots=True)
class ValuesRequest:
    """CREATE_HANDLE, ADD_VALUE, MODIFY_VALUE."""

    handle: str
    values: tuple[HandleValue, ...]
    padding: bytes = b""

    def to_wire(self) -> bytes:
        return counted_text(self.handle) + counted_values(self.values) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "ValuesRequest":
        handle = reader.text(HANDLE_SIZE_BYTES_MAX)
        return cls(handle, read_values(reader), _padding(reader))


@dataclass(frozen=True, slots=True)
class IndexesRequest:
    """REMOVE_VALUE."""

    handle: str
    indexes: tuple[int, ...]
    padding: bytes = b""

    def to_wire(self) -> bytes:
        return counted_text(self.handle) + counted_indexes(self.indexes) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "IndexesRequest":
        handle = reader.text(HANDLE_SIZE_BYTES_MAX)
        return cls(handle, _read_indexes(reader), _padding(reader))


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """RESPONSE_TO_CHALLENGE: who answers, and how.

    `authentication_type` is HS_PUBKEY (`signed` is a SignatureAnswer) or HS_SECKEY (a
    SecretAnswer). `key` says whose key answers; index 0 is any index of that handle.
    """

    authentication_type: str
    key: Reference
    signed: bytes
    padding: bytes = b""

    def to_wire(self) -> bytes:
        head = counted_text(self.authentication_type) + reference_to_wire(self.key)
        return head + counted(self.signed) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "ChallengeAnswer":
        type_ = reader.text(TYPE_SIZE_BYTES_MAX)
        key = _read_reference(reader)
        return cls(type_, key, reader.counted(SIGNED_SIZE_BYTES_MAX), _padding(reader))


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """VERIFY_CHALLENGE: did the owner of `key` sign `nonce` and `digest` so?

    `digest` is what was signed after the nonce, as it stands in the request.
    """

    key: Reference
    nonce: bytes
    digest: bytes
    signed: bytes
    padding: bytes = b""

    def to_wire(self) -> bytes:
        fields = (self.nonce, self.digest, self.signed)
        return reference_to_wire(self.key) + b"".join(map(counted, fields)) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "VerificationRequest":
        key = _read_reference(reader)
        nonce = reader.counted(NONCE_SIZE_BYTES_MAX)
        digest = reader.counted(DIGEST_SIZE_BYTES_MAX)
        return cls(key, nonce, digest, reader.counted(SIGNED_SIZE_BYTES_MAX), _padding(reader))


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """LOGIN_ID_SYSTEM (2001) of Chinese clients: who will answer the challenge."""

    key: Reference
    padding: bytes = b""

    def to_wire(self) -> bytes:
        return reference_to_wire(self.key) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "LoginRequest":
        return cls(_read_reference(reader), _padding(reader))


@dataclass(frozen=True, slots=True)
class SessionSetup:
    """SESSION_SETUP: `key` is a public key record (mode SESSION_BY_DH: a DhPublicKey).

    In mode SESSION_BY_HANDLE_KEY it is `key_at`, where a handle keeps the key.
    """

    mode: int
    timeout_s: int
    identity: Reference
    key: bytes = b""
    key_at: Reference | None = None
    padding: bytes = b""

    def to_wire(self) -> bytes:
        head = _U2.pack(self.mode) + _I4.pack(self.timeout_s) + reference_to_wire(self.identity)
        key = counted(self.key) if self.key_at is None else reference_to_wire(self.key_at)
        return head + key + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "SessionSetup":
        mode = reader.u2()
        if mode not in (SESSION_BY_CLIENT_KEY, SESSION_BY_HANDLE_KEY, SESSION_BY_DH):
            raise reader.damaged("session mode 1, 3 or 4", 0)
        timeout_s, identity = reader.i4(), _read_reference(reader)
        if mode == SESSION_BY_HANDLE_KEY:
            key_at = _read_reference(reader)
            return cls(mode, timeout_s, identity, key_at=key_at, padding=_padding(reader))
        key = reader.counted(KEY_SIZE_BYTES_MAX)
        return cls(mode, timeout_s, identity, key, padding=_padding(reader))


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """SESSION_EXCHANGEKEY: the session's key, encrypted for the server."""

    encrypted_key: bytes
    padding: bytes = b""

    def to_wire(self) -> bytes:
        return counted(self.encrypted_key) + self.padding

    @classmethod
    def from_reader(cls, reader: Reader) -> "KeyExchange":
        return cls(reader.counted(SIGNATURE_SIZE_BYTES_MAX), _padding(reader))


@dataclass(frozen=True, slots=True)
class OpaqueRequest:
    """What mirrors of a server say to it (1000 to 1003): known by number only."""

    data: bytes

    def to_wire(self) -> bytes:
        return self.data

    @classmethod
    def from_reader(cls, reader: Reader) -> "OpaqueRequest":
        return cls(reader.take(reader.remaining_bytes))


Request = (
    ResolutionRequest
    | HandleRequest
    | ValuesRequest
    | IndexesRequest
    | ChallengeAnswer
    | VerificationRequest
    | LoginRequest
    | SessionSetup
    | KeyExchange
    | OpaqueRequest
)

_READERS: dict[int, Callable[[Reader], Request]] = {
    Opcode.RESOLUTION: ResolutionRequest.from_reader,
    Opcode.LOGIN_ID_SYSTEM_OLD: ResolutionRequest.from_reader,
    Opcode.CREATE_HANDLE: ValuesRequest.from_reader,
    Opcode.ADD_VALUE: ValuesRequest.from_reader,
    Opcode.MODIFY_VALUE: ValuesRequest.from_reader,
    Opcode.REMOVE_VALUE: IndexesRequest.from_reader,
    Opcode.GET_SITE_INFO: HandleRequest.from_reader,
    Opcode.DELETE_HANDLE: HandleRequest.from_reader,
    Opcode.LIST_HANDLES: HandleRequest.from_reader,
    Opcode.LIST_DERIVED_PREFIXES: HandleRequest.from_reader,
    Opcode.HOME_NA: HandleRequest.from_reader,
    Opcode.UNHOME_NA: HandleRequest.from_reader,
    Opcode.LIST_HOMED_NAS: HandleRequest.from_reader,
    Opcode.SESSION_TERMINATE: HandleRequest.from_reader,
    Opcode.RESPONSE_TO_CHALLENGE: ChallengeAnswer.from_reader,
    Opcode.VERIFY_CHALLENGE: VerificationRequest.from_reader,
    Opcode.LOGIN_ID_SYSTEM: LoginRequest.from_reader,
    Opcode.SESSION_SETUP: SessionSetup.from_reader,
    Opcode.SESSION_EXCHANGEKEY: KeyExchange.from_reader,
    Opcode.GET_NEXT_TXN_ID: OpaqueRequest.from_reader,
    Opcode.RETRIEVE_TXN_LOG: OpaqueRequest.from_reader,
    Opcode.DUMP_HANDLES: OpaqueRequest.from_reader,
    Opcode.BACKUP_SERVER: OpaqueRequest.from_reader,
}


def request_body(message: Message) -> Request:
    """What `message` asks for; the class is decided by the opcode.

    Raises:
        InvalidMessageError: names the byte at which the body is damaged; with response code
            OPERATION_NOT_SUPPORTED if the opcode is unknown.
    """
    read = _READERS.get(message.opcode)
    if read is None:
        raise message.malformed(
            f"opcode {message.opcode} is unknown", ResponseCode.OPERATION_NOT_SUPPORTED
        )
    try:
        return read(Reader(message.body, f"{Opcode(message.opcode).name} request"))
    except InvalidValueError as error:
        raise message.malformed(str(error)) from None


def _padding(reader: Reader) -> bytes:
    return reader.padding(PADDING_SIZE_BYTES_MAX)


def _read_indexes(reader: Reader) -> tuple[int, ...]:
    # No record has more values than this to be asked for.
    return tuple(reader.i4() for _ in range(reader.count(VALUES_MAX, 4)))


def _read_types(reader: Reader) -> tuple[str, ...]:
    return tuple(reader.text(TYPE_SIZE_BYTES_MAX) for _ in range(reader.count(VALUES_MAX, 4)))


def _read_reference(reader: Reader) -> Reference:
    return Reference(reader.text(HANDLE_SIZE_BYTES_MAX), reader.i4())
