"""Answers to a challenge: what was signed, and with which kind of key.

A challenge is a nonce and the digest of the request; `challenge` below is both, one after the
other, the digest without its algorithm byte. The HTTP API uses the same with a client nonce in
place of the digest.

Source: specs §3.5 and §1.5; verified with recorded answers.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

from resolver.wire._credential import ALGORITHM_NAME_SIZE_BYTES_MAX, SIGNATURE_SIZE_BYTES_MAX
from resolver.wire._digest import ALGORITHMS, DigestAlgorithm, digest_of
from resolver.wire._fields import counted, counted_text
from resolver.wire._reader import Reader

# Ten times what clients do; about 50 ms of one core, which a stranger can ask for.
PBKDF2_ITERATIONS_MAX = 100_000
# Clients send 160; above that every 160 bits cost as much again.
PBKDF2_KEY_BITS_MAX = 320
SALT_SIZE_BYTES_MAX = 64

_PBKDF2_HMAC_SHA1 = 0x22
_SHA1_SIZE_BYTES = 20
_TWO_I4 = struct.Struct(">ii")


@dataclass(frozen=True, slots=True)
class SignatureAnswer:
    """The answer with a private key (HS_PUBKEY): a signature of the challenge.

    `algorithm` names the digest, as in "SHA-256".
    """

    algorithm: str
    signature: bytes

    def to_wire(self) -> bytes:
        return counted_text(self.algorithm) + counted(self.signature)

    @classmethod
    def from_wire(cls, data: bytes) -> "SignatureAnswer":
        """Inverse of `to_wire`.

        Raises:
            InvalidValueError: names the byte at which the answer is damaged.
        """
        reader = Reader(data, "signature")
        algorithm = reader.text(ALGORITHM_NAME_SIZE_BYTES_MAX)
        answer = cls(algorithm, reader.counted(SIGNATURE_SIZE_BYTES_MAX))
        reader.end()
        return answer


@dataclass(frozen=True, slots=True)
class DigestAnswer:
    """The answer with a secret key (HS_SECKEY) of clients before protocol 2.7.

    A digest of the secret, the challenge and the secret again.
    """

    algorithm: DigestAlgorithm
    digest: bytes

    def to_wire(self) -> bytes:
        return bytes((self.algorithm,)) + self.digest

    @classmethod
    def of(
        cls, secret: bytes, challenge: bytes, algorithm: DigestAlgorithm = DigestAlgorithm.SHA256
    ) -> "DigestAnswer":
        return cls(algorithm, digest_of(secret + challenge + secret, algorithm))

    def is_of(self, secret: bytes, challenge: bytes) -> bool:
        """True if who answered knows `secret`."""
        expected = self.of(secret, challenge, self.algorithm)
        return hmac.compare_digest(expected.digest, self.digest)


@dataclass(frozen=True, slots=True)
class Pbkdf2Answer:
    """The answer with a secret key (HS_SECKEY): an HMAC-SHA1 under a key stretched by PBKDF2."""

    salt: bytes
    iterations: int
    key_bits: int
    mac: bytes

    def to_wire(self) -> bytes:
        numbers = _TWO_I4.pack(self.iterations, self.key_bits)
        return b"\x22" + counted(self.salt) + numbers + counted(self.mac)

    @classmethod
    def of(
        cls, secret: bytes, challenge: bytes, salt: bytes, *, iterations: int, key_bits: int = 160
    ) -> "Pbkdf2Answer":
        key = hashlib.pbkdf2_hmac("sha1", secret, salt, iterations, key_bits // 8)
        return cls(salt, iterations, key_bits, hmac.digest(key, challenge, "sha1"))

    def is_of(self, secret: bytes, challenge: bytes) -> bool:
        """True if who answered knows `secret`; about 5 ms with 10,000 iterations."""
        expected = self.of(
            secret, challenge, self.salt, iterations=self.iterations, key_bits=self.key_bits
        )
        return hmac.compare_digest(expected.mac, self.mac)


SecretAnswer = DigestAnswer | Pbkdf2Answer


def secret_answer_from_wire(data: bytes) -> SecretAnswer:
    """What `signed` of an answer with a secret key says, in either form.

    Raises:
        InvalidValueError: names the byte at which the answer is damaged.
    """
    reader = Reader(data, "answer with a secret key")
    kind = reader.u1()
    answer: SecretAnswer
    if kind == _PBKDF2_HMAC_SHA1:
        answer = _read_pbkdf2(reader)
    elif algorithm := ALGORITHMS.get(kind):
        answer = DigestAnswer(algorithm, reader.take(algorithm.size_bytes))
    else:
        raise reader.damaged("algorithm 1, 2, 3 or 34", 0)
    reader.end()
    return answer


def _read_pbkdf2(reader: Reader) -> Pbkdf2Answer:
    salt = reader.counted(SALT_SIZE_BYTES_MAX)
    start = reader.offset
    iterations, key_bits = reader.i4(), reader.i4()
    if not 0 < iterations <= PBKDF2_ITERATIONS_MAX:
        raise reader.damaged(f"1 to {PBKDF2_ITERATIONS_MAX} iterations", start)
    if not 0 < key_bits <= PBKDF2_KEY_BITS_MAX or key_bits % 8:
        raise reader.damaged(f"8 to {PBKDF2_KEY_BITS_MAX} bits, a multiple of 8", start + 4)
    return Pbkdf2Answer(salt, iterations, key_bits, reader.counted(_SHA1_SIZE_BYTES))
