"""What an encrypted session encrypts: everything of a message behind its envelope.

Source: specs §3.8; the recorded encrypted session is read and written so.
"""

import secrets

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from resolver.errors import InvalidValueError

_KEY_SIZE_BYTES = 16
_BLOCK_SIZE_BYTES = 16


def encrypted(session_key: bytes, content: bytes) -> bytes:
    """`content` as it is sent: 16 random bytes (the IV) and AES-128-CBC of it, padded (PKCS#5).

    `session_key` is the 32 bytes both sides agreed on, of which the first 16 encrypt.
    """
    start = secrets.token_bytes(_BLOCK_SIZE_BYTES)
    pad = PKCS7(8 * _BLOCK_SIZE_BYTES).padder()
    encryptor = _cipher(session_key, start).encryptor()
    return start + encryptor.update(pad.update(content) + pad.finalize()) + encryptor.finalize()


def decrypted(session_key: bytes, data: bytes) -> bytes:
    """Inverse of `encrypted`.

    Nothing vouches for the result before its credential was checked. Who answers must not show
    whether it was this or the credential that failed: the padding would tell a stranger the
    content, byte by byte.

    Raises:
        InvalidValueError: if it is not of this key; the text is the same whatever is wrong.
    """
    start, blocks = data[:_BLOCK_SIZE_BYTES], data[_BLOCK_SIZE_BYTES:]
    if not blocks or len(blocks) % _BLOCK_SIZE_BYTES:
        raise _unreadable()
    decryptor = _cipher(session_key, start).decryptor()
    padded = decryptor.update(blocks) + decryptor.finalize()
    unpad = PKCS7(8 * _BLOCK_SIZE_BYTES).unpadder()
    try:
        return unpad.update(padded) + unpad.finalize()
    except ValueError:
        raise _unreadable() from None


def _cipher(session_key: bytes, start: bytes) -> Cipher[CBC]:
    return Cipher(AES128(session_key[:_KEY_SIZE_BYTES]), CBC(start))


def _unreadable() -> InvalidValueError:
    return InvalidValueError("encrypted message cannot be read: expected one of this session")
