"""The file of a private key, as the tools of Handle.Net write it.

Source: specs §3.6. Files with a passphrase (encryption 3 and 4) are not read here.
"""

from dataclasses import dataclass

from resolver.wire._fields import counted, counted_text
from resolver.wire._reader import Reader
from resolver.wire._records import KEY_NAME_SIZE_BYTES_MAX, KEY_NUMBER_SIZE_BYTES_MAX

_NAME = "RSA_PRIVCRT_KEY"
_NOT_ENCRYPTED = 1


@dataclass(frozen=True, slots=True)
class RsaPrivateKey:
    """An RSA key with the numbers of the Chinese remainder theorem."""

    modulus: int
    public_exponent: int
    private_exponent: int
    p: int
    q: int
    exponent_p: int
    exponent_q: int
    coefficient: int

    def to_wire(self) -> bytes:
        """The file, without a passphrase."""
        numbers = (
            self.modulus,
            self.public_exponent,
            self.private_exponent,
            self.p,
            self.q,
            self.exponent_p,
            self.exponent_q,
            self.coefficient,
        )
        sizes = ((one, one.bit_length() // 8 + 1) for one in numbers)
        parts = (counted(one.to_bytes(size, "big")) for one, size in sizes)
        return _NOT_ENCRYPTED.to_bytes(4, "big") + counted_text(_NAME) + b"".join(parts)

    @classmethod
    def from_wire(cls, data: bytes) -> "RsaPrivateKey":
        """Inverse of `to_wire`.

        Raises:
            InvalidValueError: names the byte at which the file is damaged; also if a passphrase
                protects it, or if it holds another kind of key.
        """
        reader = Reader(data, "private key file")
        if reader.i4() != _NOT_ENCRYPTED:
            raise reader.damaged("encryption 1, a key without passphrase", 0)
        if reader.text(KEY_NAME_SIZE_BYTES_MAX) != _NAME:
            raise reader.damaged(_NAME, 4)
        numbers = [int.from_bytes(reader.counted(KEY_NUMBER_SIZE_BYTES_MAX)) for _ in range(8)]
        reader.end()
        return cls(*numbers)
