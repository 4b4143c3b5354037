"""Keys of sessions, agreed on by Diffie and Hellman.

Source: specs §3.8; both keys of the recorded sessions are derived so.
"""

from dataclasses import dataclass

from resolver.errors import InvalidValueError
from resolver.wire._fields import counted, counted_text
from resolver.wire._reader import Reader
from resolver.wire._records import KEY_NAME_SIZE_BYTES_MAX

# Handle.Net's clients send 1,024 bits. 4,096 take 9 ms of one core with a private exponent of
# 256 bits, as ours should be, and 135 ms with one of full length: strangers can ask for it.
DH_PRIME_BITS_MAX = 4_096
DH_PRIME_BITS_LEAST = 1_024
# A number of that size with its sign byte.
DH_NUMBER_SIZE_BYTES_MAX = 513
# Of a session: HMAC-SHA256 uses all of it, AES-128 the first 16.
SESSION_KEY_SIZE_BYTES = 32
ENCRYPTION_KEY_SIZE_BYTES = 16

CIPHER_DES, CIPHER_3DES, CIPHER_AES = 1, 2, 3
_CIPHERS = (CIPHER_DES, CIPHER_3DES, CIPHER_AES)
_NAME = "DH_PUB_KEY"


@dataclass(frozen=True, slots=True)
class DhPublicKey:
    """One side's public number `y` in the group of the prime `p` and the generator `g`."""

    y: int
    p: int
    g: int

    def to_wire(self) -> bytes:
        # One bit more than the number needs keeps the sign bit clear.
        numbers = ((one, one.bit_length() // 8 + 1) for one in (self.y, self.p, self.g))
        parts = (counted(one.to_bytes(size, "big")) for one, size in numbers)
        return counted_text(_NAME) + b"\x00\x00" + b"".join(parts)

    @classmethod
    def from_wire(cls, data: bytes) -> "DhPublicKey":
        """The key of a SESSION_SETUP.

        Raises:
            InvalidValueError: if the record is damaged, or no secret can be agreed on with it.
        """
        reader = Reader(data, _NAME)
        key = cls._from_reader(reader)
        reader.end()
        return key

    @classmethod
    def _from_reader(cls, reader: Reader) -> "DhPublicKey":
        if reader.text(KEY_NAME_SIZE_BYTES_MAX) != _NAME:
            raise reader.damaged(_NAME, 0)
        if reader.u2():
            raise reader.damaged("two zero bytes", reader.offset - 2)
        key = cls(_number(reader), _number(reader), _number(reader))
        key._check()
        return key

    def _check(self) -> None:
        bits = self.p.bit_length()
        if not DH_PRIME_BITS_LEAST <= bits <= DH_PRIME_BITS_MAX or not self.p & 1:
            raise InvalidValueError(
                f"{_NAME} with a prime of {bits} bits: expected "
                f"{DH_PRIME_BITS_LEAST} to {DH_PRIME_BITS_MAX} bits and an odd number"
            )
        # 0, 1 and p - 1 would make a secret that everybody knows.
        if not (1 < self.y < self.p - 1 and 1 < self.g < self.p - 1):
            raise InvalidValueError(f"{_NAME}: expected y and g of 2 to p - 2")

    def of_private(self, x: int) -> "DhPublicKey":
        """The public key of the private exponent `x` in the same group."""
        return DhPublicKey(pow(self.g, x, self.p), self.p, self.g)

    def session_key(self, x: int) -> bytes:
        """What both sides share: this is the other's key, `x` our own private exponent.

        32 bytes, from the first byte of the secret that is not zero.

        Raises:
            InvalidValueError: if the secret is shorter, as only one in 2^768 is.
        """
        secret = pow(self.y, x, self.p)
        key = secret.to_bytes((secret.bit_length() + 7) // 8, "big")[:SESSION_KEY_SIZE_BYTES]
        if len(key) < SESSION_KEY_SIZE_BYTES:
            raise InvalidValueError(f"{_NAME}: expected a secret of at least 32 bytes")
        return key


@dataclass(frozen=True, slots=True)
class DhOffer:
    """The data of a SessionResponse in mode 4: the cipher (AES) and the server's key."""

    key: DhPublicKey
    cipher: int = CIPHER_AES

    def to_wire(self) -> bytes:
        return self.cipher.to_bytes(4, "big") + self.key.to_wire()

    @classmethod
    def from_wire(cls, data: bytes) -> "DhOffer":
        """Inverse of `to_wire`.

        Raises:
            InvalidValueError: if it is damaged, or no secret can be agreed on with it.
        """
        reader = Reader(data, "offer of a session")
        cipher = reader.i4()
        if cipher not in _CIPHERS:
            raise reader.damaged("cipher 1, 2 or 3", 0)
        return cls(DhPublicKey.from_wire(reader.rest), cipher)


def _number(reader: Reader) -> int:
    return int.from_bytes(reader.counted(DH_NUMBER_SIZE_BYTES_MAX), "big")
