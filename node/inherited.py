"""What a worker inherits from its supervisor: listening sockets, and a pipe to say it is ready."""

import contextlib
import os
import socket
from dataclasses import dataclass

from node.config import Config
from node.http_server import Listening
from node.tls import tls_context
from node.worker_process import READY


@dataclass(frozen=True, slots=True)
class Inherited:
    """Descriptors of this process; `https` and `ready` may be missing."""

    http: int
    https: int | None = None
    ready: int | None = None

    def listening(self, config: Config) -> tuple[Listening, ...]:
        """The sockets, with TLS on that of HTTPS; call it once.

        Raises:
            StartError: if the files of HTTPS cannot be used.
        """
        plain = Listening(socket.socket(fileno=self.http))
        if self.https is None:
            return (plain,)
        assert config.tls_certificate is not None
        assert config.tls_key is not None
        context = tls_context(config.tls_certificate, config.tls_key)
        return plain, Listening(socket.socket(fileno=self.https), context)

    def say_ready(self) -> None:
        """Tell the supervisor that callers are answered; call it once."""
        if self.ready is None:
            return
        # A supervisor that has gone needs no word.
        with contextlib.suppress(OSError):
            os.write(self.ready, READY)
        os.close(self.ready)
