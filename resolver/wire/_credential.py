"""Credentials: the signature or message authentication code at the end of a message."""

import hmac
import struct
from dataclasses import dataclass

from resolver.errors import InvalidValueError
from resolver.wire._fields import counted, counted_text
from resolver.wire._reader import Reader
from resolver.wire._records import HANDLE_SIZE_BYTES_MAX

SIGNED, MAC = "HS_SIGNED", "HS_MAC"
# RSA of 16,384 bits signs in 2,048 bytes.
SIGNATURE_SIZE_BYTES_MAX = 2_048
# "HMAC-SHA256" is the longest that is known.
ALGORITHM_NAME_SIZE_BYTES_MAX = 64

MAC_ALGORITHM = "HMAC-SHA256"
_MAC_HASHES = {MAC_ALGORITHM: "sha256", "HMAC-SHA1": "sha1"}
_HEAD = struct.Struct(">BBH")
_I4 = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class Credential:
    """Who vouches for a message.

    `type` is SIGNED (the server's key; `session_counter` 0) or MAC (the key of the session;
    the counter grows with every message of one direction). `signer` is empty in every recorded
    credential, `version`, `reserved` and `options` are zero.
    """

    type: str
    algorithm: str
    signature: bytes
    session_counter: int = 0
    signer: str = ""
    version: int = 0
    reserved: int = 0
    options: int = 0

    def to_wire(self) -> bytes:
        section = counted_text(self.algorithm) + counted(self.signature)
        parts = (
            _HEAD.pack(self.version, self.reserved, self.options),
            counted_text(self.signer),
            _I4.pack(self.session_counter),
            counted_text(self.type),
            counted(section),
        )
        return counted(b"".join(parts))

    @classmethod
    def from_reader(cls, reader: Reader) -> "Credential":
        """The credential up to the end of what is read.

        Raises:
            InvalidValueError: names the byte at which it is damaged.
        """
        _expect_rest(reader, "credential")
        version, reserved, options = reader.u1(), reader.u1(), reader.u2()
        signer = reader.text(HANDLE_SIZE_BYTES_MAX)
        session_counter = reader.i4()
        type_ = reader.text(ALGORITHM_NAME_SIZE_BYTES_MAX)
        _expect_rest(reader, "signature")
        algorithm = reader.text(ALGORITHM_NAME_SIZE_BYTES_MAX)
        signature = reader.counted(SIGNATURE_SIZE_BYTES_MAX)
        reader.end()
        return cls(type_, algorithm, signature, session_counter, signer, version, reserved, options)

    @classmethod
    def mac_of(
        cls, signed: bytes, key: bytes, session_counter: int, algorithm: str = MAC_ALGORITHM
    ) -> "Credential":
        """The credential of a message in a session; `signed` are its signed bytes.

        Raises:
            InvalidValueError: if `algorithm` is unknown.
        """
        signature = message_authentication_code(algorithm, key, signed)
        return cls(MAC, algorithm, signature, session_counter)

    def is_mac_of(self, signed: bytes, key: bytes) -> bool:
        """True if this is the code of `signed` under the session's `key`."""
        if self.type != MAC or self.algorithm not in _MAC_HASHES:
            return False
        expected = message_authentication_code(self.algorithm, key, signed)
        return hmac.compare_digest(expected, self.signature)


def message_authentication_code(algorithm: str, key: bytes, signed: bytes) -> bytes:
    """The HMAC of `signed` bytes under a session's 32-byte key.

    Raises:
        InvalidValueError: if `algorithm` is unknown.
    """
    name = _MAC_HASHES.get(algorithm)
    if name is None:
        raise InvalidValueError(f"MAC algorithm: expected one of {', '.join(_MAC_HASHES)}")
    return hmac.digest(key, signed, name)


def _expect_rest(reader: Reader, what: str) -> None:
    start = reader.offset
    if reader.i4() != reader.remaining_bytes:
        raise reader.damaged(f"a {what} of {reader.remaining_bytes} bytes", start)
