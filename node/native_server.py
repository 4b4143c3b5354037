"""The native doors of one worker over UDP and TCP: opened, drained and closed together."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from node.http_server import DRAIN_S
from node.native_answering import NativeAnswering
from node.native_asker import Askers
from node.native_fast_path import NativeFastPath
from node.native_tcp import TcpDoor
from node.native_udp import UdpDoor

_log = logging.getLogger("idnode.native")

# Of the time that a stop may take: who still asks without a pause is then told the end.
_LAST_WORDS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class NativeSockets:
    """The inherited sockets of one address."""

    udp: socket.socket
    tcp: socket.socket


class NativeServer:
    """Serves native messages on both sockets."""

    drain_s = DRAIN_S - _LAST_WORDS_S

    def __init__(
        self,
        sockets: NativeSockets,
        fast: NativeFastPath,
        answering: NativeAnswering,
        askers: Askers,
        now_s: Callable[[], float],
    ) -> None:
        self.udp = UdpDoor(sockets.udp, fast, answering, askers, now_s)
        self.tcp = TcpDoor(sockets.tcp, fast, answering, askers, now_s)
        self._draining: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Answer from now on."""
        self.udp.open()
        await self.tcp.open()

    def drain(self) -> None:
        """Begin to stop: what was accepted is answered; safe to call twice."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def close(self) -> None:
        """Return when everything that was accepted is answered, or its time is over."""
        self.drain()
        assert self._draining is not None
        await self._draining

    async def cut(self) -> None:
        """Close at once."""
        if self._draining is not None:
            self._draining.cancel()
        await self.udp.close()
        self.tcp.close()

    @property
    def connections(self) -> int:
        return len(self.tcp.connections)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self.drain_s):
                await asyncio.gather(self.udp.drain(), self.tcp.drain())
        except TimeoutError:
            await self._say_last_words()
        finally:
            await self.udp.close()
            self.tcp.close()

    async def _say_last_words(self) -> None:
        """End who asks without a pause after an answer; then it is over."""
        for connection in list(self.tcp.connections):
            connection.end()
        await asyncio.sleep(_LAST_WORDS_S)
        under_way = sum(connection.is_working for connection in self.tcp.connections)
        if under_way:
            _log.error("the last questions of %d connections were not answered", under_way)
