"""The files of HTTPS: the operator's, or those that the node makes for itself."""

import socket
from pathlib import Path

from node.config import Config
from node.tls_certificate import kept_certificate

# However the node is asked from its own machine.
_LOCAL = ("localhost", "127.0.0.1", "::1")
_EVERYWHERE = ("0.0.0.0", "::")


def tls_files(config: Config, now_s: float) -> tuple[Path, Path]:
    """The PEM files of the certificate and of its key.

    Raises:
        StartError: if the node's own cannot be read or made.
    """
    if config.tls_certificate is not None and config.tls_key is not None:
        return config.tls_certificate, config.tls_key
    return kept_certificate(config.data, _names(config), now_s)


def _names(config: Config) -> list[str]:
    """The names under which clients may know this node, each once."""
    listening = config.https_host if config.https_host not in _EVERYWHERE else None
    names = (listening, config.public_address, socket.gethostname(), *_LOCAL)
    return list(dict.fromkeys(name for name in names if name))
