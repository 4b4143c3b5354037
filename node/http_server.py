"""uvicorn's server on inherited sockets, with a drain that loses nothing that was accepted."""

import asyncio
import contextlib
import logging
import socket
import ssl
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from node.http_protocol import HEAD_TIMEOUT_S, LINGER_S, BoundedProtocol
from node.listening import LAST_CALL_S, accepted

_log = logging.getLogger("idnode.http")

# Answers under way, one more request of each connection, and the last words get this long.
DRAIN_S = 10.0
# Who is just shaking hands when the node stops gets as long as two or three round trips take.
_HANDSHAKES_S = 1.0
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Listening:
    """An inherited socket, and the context where it speaks TLS."""

    socket: socket.socket
    tls: ssl.SSLContext | None = None


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers (the worker has its own), on several sockets."""

    drain_s = DRAIN_S

    def __init__(
        self,
        config: uvicorn.Config,
        listening: tuple[Listening, ...],
        on_serving: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._on_serving = on_serving
        self._is_draining = False
        # Also those that are still shaking hands, which uvicorn does not know.
        self._connections: weakref.WeakSet[BoundedProtocol] = weakref.WeakSet()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on every socket."""
        await self.lifespan.startup()
        # The date of the first answers.
        await self.on_tick(0)
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._protocol, sock=one.socket, backlog=self.config.backlog, **_tls(one)
            )
            for one in self._listening
        ]
        self.started = True
        self._on_serving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer who is in, or was waiting to be let in; returns after DRAIN_S at most.

        Nothing is answered any more when it has returned.
        """
        self._is_draining = True
        for connection in list(self._connections):
            connection.shutdown()
        await asyncio.sleep(LAST_CALL_S)
        waiting = [self._let_in(*found) for found in self._last_ones()]
        try:
            async with asyncio.timeout(self.drain_s):
                await asyncio.gather(*waiting)
                await self._until_quiet()
        except TimeoutError:
            _log.error(
                "the last requests were not answered within the %g s of a stop", self.drain_s
            )
        finally:
            await self._end()

    def _protocol(self) -> BoundedProtocol:
        make: Any = self.config.http_protocol_class
        connection: BoundedProtocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        connection.is_draining = self._is_draining
        self._connections.add(connection)
        return connection

    def _last_ones(self) -> list[tuple[Listening, socket.socket]]:
        """Let go of the sockets; returns the connections that waited in their backlogs."""
        found = []
        for one, server in zip(self._listening, self.servers, strict=True):
            found += [(one, connection) for connection in accepted(one.socket)]
            server.close()
        return found

    async def _let_in(self, listening: Listening, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # Who leaves, or fails the handshake, is no failure of ours.
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(self._protocol, connection, **_tls(listening))

    async def _until_quiet(self) -> None:
        if any(one.tls for one in self._listening):
            await asyncio.sleep(_HANDSHAKES_S)
        state = self.server_state
        while True:
            if not (state.connections or state.tasks):
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _end(self) -> None:
        for connection in list(self._connections):
            connection.cut()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tls(listening: Listening) -> dict[str, Any]:
    if listening.tls is None:
        return {}
    return {
        "ssl": listening.tls,
        "ssl_handshake_timeout": HEAD_TIMEOUT_S,
        "ssl_shutdown_timeout": LINGER_S,
    }
