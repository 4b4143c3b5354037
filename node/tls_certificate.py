"""The certificate of HTTPS where the operator has given none: the node vouches for itself."""

import contextlib
import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import idna
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.file_lock import FileLock
from node.private_key_pem import private_key_pem
from node.start_error import StartError
from node.whole_file import write_whole

CERTIFICATE_FILE_NAME, KEY_FILE_NAME = "tls.pem", "tls.key"
# Clients have a copy of the certificate and nobody else vouches for it: a new one means work for
# every one of them, and the key itself does not wear out.
_VALID_DAYS = 3_650
# Looked at when the node starts, and nodes are not started every day.
_RENEWED_DAYS_BEFORE = 30
# Clocks of clients that are slow must not refuse a certificate of today.
_VALID_DAYS_BEFORE = 1
# A machine has a few names and addresses; every client reads all of them.
_NAMES_MAX = 100
# Both take milliseconds; a machine that needs longer than this for them serves nobody.
_PATIENCE_S = 30.0
_PEM_SIZE_BYTES_MAX = 65_536
# Wider than IDNA, which knows no underscore: names of containers have them.
_ASCII_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_*][A-Za-z0-9_.-]{0,252}")


def kept_certificate(folder: Path, names: Sequence[str], now_s: float) -> tuple[Path, Path]:
    """The PEM files of a certificate for `names`, and of its key, made if there are none yet.

    `names` are host names and IP addresses, at least one. The key (ECDSA, P-256) is made once and
    its file is readable for its owner alone; the certificate is made again with the same key when
    it ends within a month, has other names, or is another key's. However many processes ask at
    the same time, the two files fit together.

    Raises:
        StartError: if the files cannot be read or written, or a name is none.
    """
    certificate, key = folder / CERTIFICATE_FILE_NAME, folder / KEY_FILE_NAME
    wanted = _general_names(names)
    now = datetime.fromtimestamp(now_s, UTC)
    try:
        lock = FileLock.take(certificate.with_name(f"{certificate.name}.lock"), _PATIENCE_S)
        if lock is None:
            raise StartError(f"{certificate} is being made by another process that does not end")
        try:
            _keep(certificate, key, wanted, now)
        finally:
            lock.release()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"{certificate} and {key} cannot be read or made ({reason})") from None
    return certificate, key


def _keep(certificate: Path, key: Path, names: list[x509.GeneralName], now: datetime) -> None:
    # A crash between the two leaves a key for which the next start makes a certificate.
    if not key.exists():
        write_whole(key, private_key_pem(ec.generate_private_key(ec.SECP256R1())))
    private = _private(key)
    if not _is_good(_loaded(certificate), private.public_key(), names, now):
        made = _made(private, names, now).public_bytes(serialization.Encoding.PEM)
        write_whole(certificate, made.decode())


def _private(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_content(path), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StartError(
            f"{path} is damaged: put it back from a copy, or remove it to have another one made, "
            "whose certificate clients then need"
        )
    return key


def _loaded(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(_content(path))
    except (FileNotFoundError, ValueError):
        return None


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_PEM_SIZE_BYTES_MAX)


def _is_good(
    found: x509.Certificate | None,
    key: ec.EllipticCurvePublicKey,
    names: list[x509.GeneralName],
    now: datetime,
) -> bool:
    if found is None or found.public_key() != key:
        return False
    ends = found.not_valid_after_utc - timedelta(days=_RENEWED_DAYS_BEFORE)
    return found.not_valid_before_utc <= now < ends and _names_of(found) == names


def _names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(extension.value)


def _made(
    private: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], now: datetime
) -> x509.Certificate:
    itself = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idnode")])
    public = private.public_key()
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(itself)
        .issuer_name(itself)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=_VALID_DAYS_BEFORE))
        .not_valid_after(now + timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # It vouches for this node and for nobody else: who trusts it, trusts no other site by it.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    if not 0 < len(names) <= _NAMES_MAX:
        raise StartError(f"certificate for {len(names)} names: expected 1 to {_NAMES_MAX}")
    return list(dict.fromkeys(map(_general_name, names)))


def _general_name(name: str) -> x509.GeneralName:
    # Of an address like fe80::1%eth0, what comes after it means something on this machine only.
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))
    if _ASCII_NAME.fullmatch(name):
        return x509.DNSName(name.lower())
    try:
        return x509.DNSName(idna.encode(name, uts46=True).decode())
    except idna.IDNAError:
        raise StartError(
            f"{name!r} is no name for a certificate: expected a host name or an IP address"
        ) from None
