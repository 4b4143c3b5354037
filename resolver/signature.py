"""Signatures, checked with the public keys that handle values and sites hold.

RSA and DSA as the field has them; SM2 as the Chinese SDKs have it; Ed25519 is our own extension.

Source: specs §3.5, §3.6 and §4.6; recorded signatures of Handle.Net 9.3.1 and two Chinese SDKs.
"""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from gmalg import SM2, SM3
from gmalg.errors import GMError

from resolver.errors import InvalidValueError
from resolver.wire import DsaPublicKey, OpaqueKey, PublicKey, RsaPublicKey, public_key_from_wire
from resolver.wire._reader import Reader
from resolver.wire._records import KEY_NAME_SIZE_BYTES_MAX

# Shorter ones have been broken; longer ones only cost: 8,192 bits take 0.3 ms to check.
RSA_BITS_LEAST = 1_024
RSA_BITS_MAX = 8_192
# Everybody's is 65,537 or 3. One of 64 bits takes 0.9 ms, one as long as the modulus 100 ms.
RSA_EXPONENT_BITS_MAX = 64
# A DSA signature is two numbers of at most 32 bytes, an SM2 signature two of 32 bytes, in DER.
DER_SIZE_BYTES_MAX = 80
# Whatever is signed is a message of the native protocol or shorter; SM2 hashes it in Python.
SM2_SIGNED_SIZE_BYTES_MAX = 4_096
# A coordinate of 32 bytes with a sign byte, or a point of two in an X.509 public key.
_SM2_NUMBER_SIZE_BYTES_MAX = 33
_SM2_POINT_SIZE_BYTES_MAX = 91
_COORDINATE_SIZE_BYTES = 32
_ED25519_KEY_SIZE_BYTES = 32

_SM2_NAME, _ED25519_NAME = "SM2_PUB_KEY", "ED25519_PUB_KEY"
# MD5 is left out: two messages with the same digest are made within a second.
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "SHA-256": hashes.SHA256(),
    "SHA256": hashes.SHA256(),
    "SHA-1": hashes.SHA1(),
    "SHA1": hashes.SHA1(),
}
# The SDK of the Chinese field signs the SM3 digest as if it were the message; the standard (and
# the name that Java has for it) signs the message itself.
_SM2_OF_DIGEST, _SM2_OF_MESSAGE = "SM3", "SM3WITHSM2"
_ED25519 = "ED25519"

# The curve of GB/T 32918.5 and its order; with a cofactor of 1 every point on it will do.
_P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
_A = _P - 3
_B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
_ORDER = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
# What stands before the 65 bytes of a point in the X.509 form of an SM2 key.
SM2_X509 = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
_UNCOMPRESSED = b"\x04"


def is_signature_of(
    key: bytes, algorithm: str, signature: bytes, signed: bytes, *, signer: str = ""
) -> bool:
    """True if the holder of the private key to `key` has signed the bytes `signed`.

    `key` is the data of an HS_PUBKEY value or of a server's key. `algorithm` names the digest as
    the signature came with it: "SHA-256", "SHA256", "SHA-1" or "SHA1" for RSA (PKCS#1 v1.5) and
    DSA (DER), "SM3" for SM2 over the SM3 digest of `signed` and "SM3withSM2" for SM2 over
    `signed` itself (DER, or r and s of 32 bytes each), "Ed25519". `signer` is the handle that
    signs, in its own spelling: the user id of SM2, which needs one.

    Whatever is damaged, unknown or over a limit is no signature; nothing is raised. Costs at
    most 2 ms of one core, with SM2 20 ms, of a long message 30 ms: then ask in a thread.

    Source: specs §3.5, §3.6, §4.6; RFC 8017 §8.2; GB/T 32918.2; RFC 8032.
    """
    try:
        _verify(public_key_from_wire(key), algorithm.upper(), signature, signed, signer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, GMError):
        return False
    return True


def _verify(key: PublicKey, algorithm: str, signature: bytes, signed: bytes, signer: str) -> None:
    if isinstance(key, RsaPublicKey):
        _verify_rsa(key, algorithm, signature, signed)
    elif isinstance(key, DsaPublicKey):
        _verify_dsa(key, algorithm, signature, signed)
    elif key.name == _SM2_NAME:
        _verify_sm2(key, algorithm, signature, signed, signer)
    elif key.name == _ED25519_NAME:
        _verify_ed25519(key, algorithm, signature, signed)
    else:
        raise InvalidValueError(f"{key.name}: expected a key that signs")


def _verify_rsa(key: RsaPublicKey, algorithm: str, signature: bytes, signed: bytes) -> None:
    bits = key.modulus.bit_length()
    if not RSA_BITS_LEAST <= bits <= RSA_BITS_MAX:
        raise InvalidValueError(f"RSA key of {bits} bits")
    if key.exponent.bit_length() > RSA_EXPONENT_BITS_MAX:
        raise InvalidValueError("RSA key with an exponent that nobody uses")
    public = rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
    public.verify(signature, signed, padding.PKCS1v15(), _hash(algorithm))


def _verify_dsa(key: DsaPublicKey, algorithm: str, signature: bytes, signed: bytes) -> None:
    # The library takes p of 1,024 to 4,096 bits and q of 160 to 256: that bounds the cost.
    parameters = dsa.DSAParameterNumbers(key.p, key.q, key.g)
    public = dsa.DSAPublicNumbers(key.y, parameters).public_key()
    _require_short(signature)
    public.verify(signature, signed, _hash(algorithm))


def _verify_ed25519(key: OpaqueKey, algorithm: str, signature: bytes, signed: bytes) -> None:
    if algorithm != _ED25519:
        raise InvalidValueError(f"Ed25519 with {algorithm}")
    reader = _after_name(key)
    number = reader.counted(_ED25519_KEY_SIZE_BYTES)
    reader.end()
    ed25519.Ed25519PublicKey.from_public_bytes(number).verify(signature, signed)


def _verify_sm2(
    key: OpaqueKey, algorithm: str, signature: bytes, signed: bytes, signer: str
) -> None:
    if algorithm not in (_SM2_OF_DIGEST, _SM2_OF_MESSAGE) or not signer:
        raise InvalidValueError("SM2 without SM3 or without a signer")
    if len(signed) > SM2_SIGNED_SIZE_BYTES_MAX:
        raise InvalidValueError(f"SM2 over {len(signed)} bytes")
    x, y = _sm2_point(_after_name(key))
    r, s = _sm2_numbers(signature)
    point = _UNCOMPRESSED + _coordinate(x) + _coordinate(y)
    message = _sm3(signed) if algorithm == _SM2_OF_DIGEST else signed
    checker = SM2(uid=signer.encode(), pk=point)
    if not checker.verify(message, _coordinate(r), _coordinate(s)):
        raise InvalidSignature


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    found = _HASHES.get(algorithm)
    if found is None:
        raise InvalidValueError(f"digest {algorithm}: expected SHA-256 or SHA-1")
    return found


def _sm3(data: bytes) -> bytes:
    digest = SM3()
    digest.update(data)
    return digest.value()


def _after_name(key: OpaqueKey) -> Reader:
    """At the numbers of a key, which follow its name and two zero bytes."""
    reader = Reader(key.data, key.name)
    reader.text(KEY_NAME_SIZE_BYTES_MAX)
    if reader.u2():
        raise reader.damaged("two zero bytes", reader.offset - 2)
    return reader


def _sm2_point(reader: Reader) -> tuple[int, int]:
    """The point of an SM2 key: whole (X.509, 04 x y, or x y), or its two coordinates apart."""
    first = reader.counted(_SM2_POINT_SIZE_BYTES_MAX)
    if reader.remaining_bytes:
        second = reader.counted(_SM2_NUMBER_SIZE_BYTES_MAX)
        reader.end()
        x, y = int.from_bytes(first), int.from_bytes(second)
    else:
        x, y = _halves(_bare(first))
    if not (x < _P and y < _P) or (y * y - x * x * x - _A * x - _B) % _P:
        raise InvalidValueError("SM2 key: expected a point of the curve")
    return x, y


def _bare(point: bytes) -> bytes:
    for lead in (SM2_X509 + _UNCOMPRESSED, _UNCOMPRESSED):
        if len(point) == len(lead) + 2 * _COORDINATE_SIZE_BYTES and point.startswith(lead):
            return point[len(lead) :]
    return point


def _sm2_numbers(signature: bytes) -> tuple[int, int]:
    """r and s of a signature, in DER or one after the other."""
    if len(signature) == 2 * _COORDINATE_SIZE_BYTES:
        r, s = _halves(signature)
    else:
        _require_short(signature)
        r, s = decode_dss_signature(signature)
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        raise InvalidValueError("SM2 signature: expected numbers below the order of the curve")
    return r, s


def _halves(data: bytes) -> tuple[int, int]:
    if len(data) != 2 * _COORDINATE_SIZE_BYTES:
        raise InvalidValueError(f"{len(data)} bytes: expected two numbers of 32 bytes")
    first, second = data[:_COORDINATE_SIZE_BYTES], data[_COORDINATE_SIZE_BYTES:]
    return int.from_bytes(first), int.from_bytes(second)


def _coordinate(number: int) -> bytes:
    return number.to_bytes(_COORDINATE_SIZE_BYTES)


def _require_short(signature: bytes) -> None:
    if len(signature) > DER_SIZE_BYTES_MAX:
        raise InvalidValueError(f"signature of {len(signature)} bytes")
