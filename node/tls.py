"""The TLS context of HTTPS, from the operator's PEM files."""

import logging
import ssl
from pathlib import Path

from node.client_certificate import ask_for_certificates
from node.start_error import StartError

_log = logging.getLogger("idnode.http")


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server needs for TLS 1.2 and 1.3; the files are read now and not again.

    Callers may show a certificate, whoever has issued it, and need none: it says who they are
    where the request asks for that, and nothing else.

    Raises:
        StartError: if a file is missing, cannot be read, is no PEM, or the key is another's.
    """
    for setting, path in (("IDNODE_TLS_CERT", certificate), ("IDNODE_TLS_KEY", key)):
        _require_readable(setting, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.2 lets a client have the server do the costly part again and again.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # The empty passphrase: an encrypted key must not stop a start with a question.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise StartError(_problem(certificate, key, error)) from None
    if not ask_for_certificates(context, certificate):
        _log.warning("certificates of callers cannot be asked for with this Python")
    return context


def _require_readable(setting: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"{path} of {setting} cannot be read ({reason}): give the path of a PEM file that"
            " this account may read"
        ) from None


def _problem(certificate: Path, key: Path, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} of IDNODE_TLS_KEY is not the key of the certificate in {certificate}"
    return (
        f"{certificate} of IDNODE_TLS_CERT and {key} of IDNODE_TLS_KEY cannot be used"
        f" ({error.reason or error}): expected PEM, a certificate with its chain and a private key"
        " without passphrase"
    )
