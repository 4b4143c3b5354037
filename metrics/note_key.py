"""Keys that sign notes: Ed25519, SM2 with SM3, and the timestamped Ed25519 of a witness.

A key is known by its name and an identifier of four bytes, which is a part of SHA-256 over the
name, the type of signature and the public key.

Source: C2SP signed-note (types, key IDs, verifier keys) and tlog-cosignature (type 0x04); GB/T
32918.2 (SM2), GM/T 0009 (its encodings and the user id that is meant when none is agreed on).
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from gmalg import SM2
from gmalg.errors import GMError

KEY_ID_SIZE_BYTES: Final = 4
SECRET_SIZE_BYTES: Final = 32

# Name, identifier in hex, type and public key in base64.
_VERIFIER_KEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")
_TIME_SIZE_BYTES = 8
# Source: tlog-cosignature, so that a time fits into a signed number.
_TIME_MAX_S = 2**63 - 1
_SM2_USER_ID = b"1234567812345678"
_SM2_NUMBER_SIZE_BYTES = 32


class NoteKeyError(ValueError):
    """A name or key that nobody can sign with; says what was expected."""


class Algorithm(Protocol):
    """One type of signature over the text of a note."""

    @property
    def type(self) -> bytes:
        """What stands for it before a public key."""

    def public_key(self, secret: bytes) -> bytes:
        """The public key to a secret of SECRET_SIZE_BYTES."""

    def is_public_key(self, public_key: bytes) -> bool:
        """True if such a key may exist."""

    def sign(self, secret: bytes, text: bytes, now_s: int) -> bytes:
        """The signature; `now_s` (seconds since 1970) is in it if the type has a time."""

    def is_signature(self, public_key: bytes, text: bytes, signature: bytes) -> bool:
        """True if the holder of the secret has signed `text`."""

    def time_s(self, signature: bytes) -> int | None:
        """The time that a right signature states, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class _Ed25519:
    type: bytes = b"\x01"

    def public_key(self, secret: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()

    def is_public_key(self, public_key: bytes) -> bool:
        return len(public_key) == 32

    def sign(self, secret: bytes, text: bytes, now_s: int) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(secret).sign(text)

    def is_signature(self, public_key: bytes, text: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text)
        except InvalidSignature:
            return False
        return True

    def time_s(self, signature: bytes) -> int | None:
        return None


@dataclass(frozen=True, slots=True)
class _Cosignature(_Ed25519):
    """Ed25519 with the time at which the witness saw the head, 8 bytes before the signature."""

    type: bytes = b"\x04"

    def sign(self, secret: bytes, text: bytes, now_s: int) -> bytes:
        signed = _Ed25519.sign(self, secret, _cosigned(text, now_s), now_s)
        return now_s.to_bytes(_TIME_SIZE_BYTES) + signed

    def is_signature(self, public_key: bytes, text: bytes, signature: bytes) -> bool:
        time_s = self.time_s(signature)
        if time_s > _TIME_MAX_S:
            return False
        signed = _cosigned(text, time_s)
        return _Ed25519.is_signature(self, public_key, signed, signature[_TIME_SIZE_BYTES:])

    def time_s(self, signature: bytes) -> int:
        return int.from_bytes(signature[:_TIME_SIZE_BYTES])


def _cosigned(text: bytes, time_s: int) -> bytes:
    return b"cosignature/v1\ntime %d\n%b" % (time_s, text)


@dataclass(frozen=True, slots=True)
class _Sm2:
    """SM2 with SM3 over the text itself. Keys are 04, x and y, signatures r and s, all of 32
    bytes. The type is one of our own, which the specification leaves room for."""

    type: bytes = b"\xffSM2withSM3/v1\n"

    def public_key(self, secret: bytes) -> bytes:
        return SM2().generate_pk(secret)

    def is_public_key(self, public_key: bytes) -> bool:
        if len(public_key) != 1 + 2 * _SM2_NUMBER_SIZE_BYTES or public_key[0] != 4:
            return False
        try:
            return SM2().verify_pk(public_key)
        except GMError:
            return False

    def sign(self, secret: bytes, text: bytes, now_s: int) -> bytes:
        r, s = SM2(sk=secret, uid=_SM2_USER_ID).sign(text)
        return r.rjust(_SM2_NUMBER_SIZE_BYTES, b"\0") + s.rjust(_SM2_NUMBER_SIZE_BYTES, b"\0")

    def is_signature(self, public_key: bytes, text: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * _SM2_NUMBER_SIZE_BYTES:
            return False
        r, s = signature[:_SM2_NUMBER_SIZE_BYTES], signature[_SM2_NUMBER_SIZE_BYTES:]
        return SM2(pk=public_key, uid=_SM2_USER_ID).verify(text, r, s)

    def time_s(self, signature: bytes) -> int | None:
        return None


ED25519: Final[Algorithm] = _Ed25519()
COSIGNATURE: Final[Algorithm] = _Cosignature()
SM2_SM3: Final[Algorithm] = _Sm2()
ALGORITHMS: Final = (ED25519, COSIGNATURE, SM2_SM3)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """What somebody must have to check the signatures of one key.

    Raises:
        NoteKeyError: for a name with a space or a plus sign, and for what is no public key.
    """

    name: str
    algorithm: Algorithm
    public_key: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise NoteKeyError(f"name {self.name!r}: expected one without spaces and plus signs")
        if not self.algorithm.is_public_key(self.public_key):
            raise NoteKeyError(f"public key of {self.name}: expected one of type {self._type}")

    @property
    def key_id(self) -> bytes:
        """The four bytes by which signatures refer to the key."""
        named = self.name.encode() + b"\n" + self.algorithm.type + self.public_key
        return hashlib.sha256(named).digest()[:KEY_ID_SIZE_BYTES]

    def is_signature(self, text: bytes, signature: bytes) -> bool:
        """True if the holder of this key has signed `text`; of SM2 it takes some 20 ms."""
        return self.algorithm.is_signature(self.public_key, text, signature)

    def to_text(self) -> str:
        """The form in which a verifier key is given away: `name+id+key`."""
        encoded = base64.b64encode(self.algorithm.type + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def from_text(cls, text: str) -> "VerifierKey":
        """The key in a text of the form `name+id+key`.

        Raises:
            NoteKeyError: for another form, an unknown type, or an identifier that is not the
                key's.
        """
        parts = _VERIFIER_KEY.fullmatch(text)
        if parts is None:
            raise NoteKeyError(f"verifier key: expected name+id+key, found {text[:80]!r}")
        name, key_id, encoded = parts.groups()
        key = cls(name, *_typed_key(name, encoded))
        if key.key_id.hex() != key_id:
            raise NoteKeyError(f"id of {name}: expected {key.key_id.hex()}, found {key_id}")
        return key

    @property
    def _type(self) -> str:
        return f"0x{self.algorithm.type[:1].hex()}"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret of 32 bytes, with the name and the type under which it signs, and its public side.

    Raises:
        NoteKeyError: for a name or a secret that will not do.
    """

    name: str
    algorithm: Algorithm
    secret: bytes = field(repr=False)
    verifier_key: VerifierKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_SIZE_BYTES or not any(self.secret):
            raise NoteKeyError(f"secret of {self.name}: expected {SECRET_SIZE_BYTES} bytes")
        public_key = self.algorithm.public_key(self.secret)
        # Once: with SM2 it takes 30 ms.
        public_side = VerifierKey(self.name, self.algorithm, public_key)
        object.__setattr__(self, "verifier_key", public_side)

    @classmethod
    def new(cls, name: str, algorithm: Algorithm) -> "SigningKey":
        """A key that nobody had before."""
        # The order of the curve of SM2 is above 2**255: half of the secrets are left to it.
        secret = secrets.randbits(8 * SECRET_SIZE_BYTES - 1).to_bytes(SECRET_SIZE_BYTES)
        return cls(name, algorithm, secret)

    def sign(self, text: bytes, now_s: int) -> bytes:
        """The signature over `text`, without the identifier of the key."""
        return self.algorithm.sign(self.secret, text, now_s)


def is_key_name(name: str) -> bool:
    """True for a text without spaces (of Unicode), control characters and plus signs."""
    return bool(name) and not any(one.isspace() or one < " " or one == "+" for one in name)


def bytes_from_base64(text: str) -> bytes | None:
    """The bytes that `text` encodes, None if another text would be right for them."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    # The last character may have bits that say nothing.
    return data if base64.b64encode(data).decode() == text else None


def _typed_key(name: str, encoded: str) -> tuple[Algorithm, bytes]:
    data = bytes_from_base64(encoded)
    if data is None:
        raise NoteKeyError(f"key of {name}: expected base64")
    for algorithm in ALGORITHMS:
        if data.startswith(algorithm.type):
            return algorithm, data.removeprefix(algorithm.type)
    known = ", ".join(f"0x{algorithm.type[:1].hex()}" for algorithm in ALGORITHMS)
    raise NoteKeyError(f"key of {name}: expected one of the types {known}")
