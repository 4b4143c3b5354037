"""What a worker inherits from its supervisor: listening sockets, and a pipe to say it is ready."""

import contextlib
import os
import socket
from dataclasses import dataclass

from node.config import Config
from node.http_server import Listening
from node.native_server import NativeSockets
from node.tls import tls_context
from node.tls_files import tls_files
from node.worker_process import READY


@dataclass(frozen=True, slots=True)
class Inherited:
    """Descriptors of this process; all but `http` may be missing."""

    http: int
    https: int | None = None
    ready: int | None = None
    handle_udp: int | None = None
    handle_tcp: int | None = None

    def listening(self, config: Config, now_s: float) -> tuple[Listening, ...]:
        """The sockets, with TLS on that of HTTPS; call it once.

        Raises:
            StartError: if the files of HTTPS cannot be used.
        """
        plain = Listening(socket.socket(fileno=self.http))
        if self.https is None:
            return (plain,)
        context = tls_context(*tls_files(config, now_s))
        return plain, Listening(socket.socket(fileno=self.https), context)

    def native(self) -> NativeSockets | None:
        """The sockets of the Handle protocol, None where it is not served; call it once."""
        if self.handle_udp is None or self.handle_tcp is None:
            return None
        udp, tcp = self.handle_udp, self.handle_tcp
        return NativeSockets(socket.socket(fileno=udp), socket.socket(fileno=tcp))

    def say_ready(self) -> None:
        """Tell the supervisor that callers are answered; call it once."""
        if self.ready is None:
            return
        # A supervisor that has gone needs no word.
        with contextlib.suppress(OSError):
            os.write(self.ready, READY)
        os.close(self.ready)
