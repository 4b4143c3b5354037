"""Public keys in the files that people have, as the record that HS_PUBKEY holds.

Source: specs §3.6 (RSA, DSA, SM2); Ed25519 is our own extension.
"""

import base64
import binascii
import struct
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, rsa

from resolver.errors import InvalidValueError
from resolver.signature import RSA_BITS_LEAST, RSA_BITS_MAX, SM2_X509
from resolver.wire import DsaPublicKey, RsaPublicKey, public_key_from_wire

# RSA of 16,384 bits as PEM takes 3 kB.
FILE_SIZE_BYTES_MAX: Final = 16_384

_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
_KNOWN: Final = ("RSA_PUB_KEY", "DSA_PUB_KEY", "ED25519_PUB_KEY", "SM2_PUB_KEY")
_SM2_POINT_SIZE_BYTES: Final = 65


def public_key_record(data: bytes) -> bytes:
    """The HS_PUBKEY record of the key in a file: PEM (`BEGIN PUBLIC KEY`), or Handle.Net's own.

    Raises:
        InvalidValueError: if it holds no public key that signatures can be checked with.
    """
    record = _from_pem(data) if data.lstrip().startswith(b"-----BEGIN") else data
    _check(record)
    return record


def _from_pem(data: bytes) -> bytes:
    if _BEGIN not in data:
        raise InvalidValueError("expected a public key: BEGIN PUBLIC KEY")
    sm2 = _sm2_point(data)
    if sm2 is not None:
        return _named("SM2_PUB_KEY", sm2)
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidValueError("expected a public key of RSA, DSA, Ed25519 or SM2") from None
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return RsaPublicKey(numbers.e, numbers.n).to_wire()
    if isinstance(key, dsa.DSAPublicKey):
        public = key.public_numbers()
        parameters = public.parameter_numbers
        return DsaPublicKey(parameters.q, parameters.p, parameters.g, public.y).to_wire()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return _named("ED25519_PUB_KEY", key.public_bytes_raw())
    raise InvalidValueError("expected a public key of RSA, DSA, Ed25519 or SM2")


def _sm2_point(data: bytes) -> bytes | None:
    """The point of an SM2 key, whose curve OpenSSL's bindings do not know."""
    text = data.partition(_BEGIN)[2].partition(_END)[0]
    try:
        der = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return None
    is_sm2 = der.startswith(SM2_X509) and len(der) == len(SM2_X509) + _SM2_POINT_SIZE_BYTES
    return der[len(SM2_X509) :] if is_sm2 else None


def _named(name: str, key: bytes) -> bytes:
    counted = (struct.pack(">i", len(part)) + part for part in (name.encode(), key))
    return b"\x00\x00".join(counted)


def _check(record: bytes) -> None:
    key = public_key_from_wire(record)
    if isinstance(key, RsaPublicKey):
        bits = key.modulus.bit_length()
        if not RSA_BITS_LEAST <= bits <= RSA_BITS_MAX:
            raise InvalidValueError(
                f"RSA key of {bits} bits: expected {RSA_BITS_LEAST} to {RSA_BITS_MAX}"
            )
    elif not isinstance(key, DsaPublicKey) and key.name not in _KNOWN:
        raise InvalidValueError(f"public key of type {key.name!r}: expected {', '.join(_KNOWN)}")
