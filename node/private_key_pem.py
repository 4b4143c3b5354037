"""Private keys as they are kept: PEM, without a passphrase, in files for their owner alone."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


def private_key_pem(private: PrivateKeyTypes) -> str:
    """The key in PKCS #8, which `load_pem_private_key` reads."""
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
