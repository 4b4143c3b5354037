"""Certificates of callers: asked for at the handshake, and believed for their key alone.

Who has a handle makes a certificate of its own, which nobody has issued: its subject names the
identity, and its key is the HS_PUBKEY there. So the handshake only proves that the caller has the
private key, and the registry whose key it is.

Source: specs §1.5.
"""

import _ssl
import ctypes
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from node.identity import Identity
from resolver.errors import InvalidIdentifierError, InvalidValueError
from resolver.signature import RSA_BITS_LEAST
from resolver.wire import DsaPublicKey, OpaqueKey, PublicKey, RsaPublicKey, public_key_from_wire

# The reference looks at UID first, then at CN.
_NAMES = (NameOID.USER_ID, NameOID.COMMON_NAME)
_ED25519_NAME = "ED25519_PUB_KEY"
# The name of 15 bytes, two bytes of nothing, and the length of the key.
_ED25519_HEAD = b"\x00\x00\x00\x0f%b\x00\x00\x00\x00\x00\x20" % _ED25519_NAME.encode()
# The layout of a context is known up to here: the pointer stands behind the object's head.
_PYTHON_END = (3, 15)

_VERIFY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
# Lets every certificate in: what it is worth is decided by who reads it.
_accept = _VERIFY(lambda _store, _argument: 1)


def ask_for_certificates(context: ssl.SSLContext, issuer: Path) -> bool:
    """Ask callers for a certificate, of which any will do and none is needed.

    `issuer` is a PEM certificate, ours: browsers offer their users' certificates only to who names
    the issuer, and so ask nobody anything. Others send what they were given. False, and nothing is
    asked for, where Python's own TLS library cannot be told so; its interface knows certificates
    of known issuers alone.
    """
    try:
        library = _Library()
    except (AttributeError, OSError):
        return False
    pointer = library.pointer(context)
    if pointer is None:
        return False
    context.verify_mode = ssl.CERT_OPTIONAL
    library.set_verify(pointer, _accept, None)
    library.set_issuers(pointer, library.load_issuers(bytes(issuer)))
    return True


class _Library:
    """The functions of the TLS library that Python's module leaves out."""

    def __init__(self) -> None:
        if sys.implementation.name != "cpython" or sys.version_info >= _PYTHON_END:
            raise OSError("the layout of a context is not known")
        # The module's own library, wherever it came from; it may be part of the interpreter.
        self._library = ctypes.CDLL(getattr(_ssl, "__file__", None))
        void, number, name = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p
        self._version = self._function("OpenSSL_version_num", ctypes.c_ulong)
        self._options = self._function("SSL_CTX_get_options", number, void)
        self.set_verify = self._function(
            "SSL_CTX_set_cert_verify_callback", None, void, _VERIFY, void
        )
        self.load_issuers = self._function("SSL_load_client_CA_file", void, name)
        self.set_issuers = self._function("SSL_CTX_set_client_CA_list", None, void, void)

    def pointer(self, context: ssl.SSLContext) -> int | None:
        """Where the library keeps `context`; None if it is not the one that Python uses."""
        if self._version() != ssl.OPENSSL_VERSION_NUMBER:
            return None
        pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
        is_same = pointer is not None and self._options(pointer) == context.options
        return pointer if is_same else None

    def _function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        function = getattr(self._library, name)
        function.restype, function.argtypes = result, arguments
        return function  # type: ignore[no-any-return]  # ctypes finds functions by name


def subject_of(certificate: bytes) -> tuple[Identity, PublicKey]:
    """Whom a certificate (DER) names, and its key.

    Raises:
        InvalidValueError: if it names no identity, or has a key that no HS_PUBKEY has.
    """
    try:
        read = x509.load_der_x509_certificate(certificate)
        return _identity(read.subject), _key(read)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidValueError(
            "certificate: expected UID or CN index:handle, and a key of RSA, DSA or Ed25519"
        ) from None


def is_key(data: bytes, key: PublicKey) -> bool:
    """True if the data of an HS_PUBKEY value is this key."""
    try:
        return public_key_from_wire(data) == key
    except InvalidValueError:
        return False


def _identity(subject: x509.Name) -> Identity:
    for name in _NAMES:
        for attribute in subject.get_attributes_for_oid(name):
            try:
                return Identity.from_text(str(attribute.value))
            except InvalidIdentifierError:
                continue
    raise InvalidValueError("certificate: expected UID or CN index:handle")


def _key(certificate: x509.Certificate) -> PublicKey:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_LEAST:
        numbers = key.public_numbers()
        return RsaPublicKey(numbers.e, numbers.n)
    if isinstance(key, dsa.DSAPublicKey):
        numbers_of_dsa = key.public_numbers()
        group = numbers_of_dsa.parameter_numbers
        return DsaPublicKey(group.q, group.p, group.g, numbers_of_dsa.y)
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return OpaqueKey(_ED25519_NAME, _ED25519_HEAD + raw)
    raise InvalidValueError("certificate: expected a key of RSA, DSA or Ed25519")
