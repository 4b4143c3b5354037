"""The node's own key: it signs what clients want vouched for; HS_SITE tells its public half.

Source: specs §3.2 and §3.6; recorded signatures of Handle.Net 9.3.1.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from node.file_lock import FileLock
from node.private_key_pem import private_key_pem
from node.start_error import StartError
from node.whole_file import write_whole
from resolver.wire import SIGNED, Credential, Message, RsaPrivateKey, RsaPublicKey

FILE_NAME = "node.key"
# As Handle.Net makes them; a signature takes 0.3 ms of a core, with 4,096 bits 1.5 ms.
_KEY_BITS = 2_048
_KEY_BITS_LEAST, _KEY_BITS_MAX = 2_048, 4_096
_EXPONENT = 65_537
# A key takes 0.1 s to make, on a slow and busy machine some seconds.
_PATIENCE_S = 30.0
# A key of 4,096 bits takes 3,300 bytes as PEM; anything longer is no key.
_FILE_SIZE_BYTES_MAX = 65_536
_ALGORITHM = "SHA-256"


class NodeKey:
    """An RSA key; `public_key` is the record that HS_SITE holds of it (RSA_PUB_KEY)."""

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        self._private = private
        numbers = private.public_key().public_numbers()
        self.public_key = RsaPublicKey(numbers.e, numbers.n).to_wire()

    @classmethod
    def kept(cls, folder: Path) -> "NodeKey":
        """The key in the file `node.key` of the folder, made if there is none yet.

        The file is PEM, readable for its owner alone; the key file of a Handle.Net server (without
        a passphrase) may take its place, so that a node goes on with the key that others know.
        However many processes ask at the same time, there is one key.

        Raises:
            StartError: if the file cannot be read or written, or holds no RSA key of 2,048 to
                4,096 bits.
        """
        path = folder / FILE_NAME
        try:
            if not path.exists():
                _make(path)
            with path.open("rb") as file:
                data = file.read(_FILE_SIZE_BYTES_MAX)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(f"node key {path} cannot be read or made ({reason})") from None
        return cls(_checked(_from_file(data, path), path))

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`: RSASSA-PKCS1-v1_5 with SHA-256, 256 bytes with 2,048 bits.

        0.3 ms of one core.
        """
        return self._private.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def signed(self, message: Message) -> Message:
        """This message, vouched for outside of any session (HS_SIGNED).

        The envelope must be the one that is sent, but for its size and the number of a packet.
        """
        signature = self.sign(message.signed_bytes())
        return replace(message, credential=Credential(SIGNED, _ALGORITHM, signature))


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of the record of a public key, hexadecimal: what two operators compare."""
    return hashlib.sha256(public_key).hexdigest()


def _make(path: Path) -> None:
    lock = FileLock.take(path.with_name(f"{path.name}.lock"), _PATIENCE_S)
    if lock is None:
        raise StartError(f"node key {path} is being made by another process that does not end")
    try:
        if not path.exists():
            write_whole(path, private_key_pem(rsa.generate_private_key(_EXPONENT, _KEY_BITS)))
    finally:
        lock.release()


def _from_file(data: bytes, path: Path) -> object:
    try:
        if data.lstrip().startswith(b"-----"):
            return serialization.load_pem_private_key(data, password=None)
        return _from_handle_net(RsaPrivateKey.from_wire(data))
    # TypeError is what the library says of a passphrase.
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StartError(
            f"node key {path} is damaged or has a passphrase: put it back from a copy; to have a "
            "new one made, remove it and give its public half to whoever has this node's HS_SITE"
        ) from None


def _from_handle_net(key: RsaPrivateKey) -> rsa.RSAPrivateKey:
    return rsa.RSAPrivateNumbers(
        key.p,
        key.q,
        key.private_exponent,
        key.exponent_p,
        key.exponent_q,
        key.coefficient,
        rsa.RSAPublicNumbers(key.public_exponent, key.modulus),
    ).private_key()


def _checked(key: object, path: Path) -> rsa.RSAPrivateKey:
    if (
        not isinstance(key, rsa.RSAPrivateKey)
        or not _KEY_BITS_LEAST <= key.key_size <= _KEY_BITS_MAX
    ):
        raise StartError(
            f"node key {path}: expected an RSA key of {_KEY_BITS_LEAST} to {_KEY_BITS_MAX} bits"
        )
    return key
