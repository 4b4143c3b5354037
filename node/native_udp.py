"""The Handle protocol over UDP: datagrams of one message each, or of a part of one.

Source: specs §3.7.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Hashable
from hashlib import blake2b
from typing import Final

from metrics.dimension import CHANNEL_NATIVE_UDP
from metrics.worker_numbers import REFUSED_IN_FLIGHT
from node.datagrams import Address, datagrams
from node.native_answering import NativeAnswering
from node.native_asker import Asker, Askers
from node.native_fast_path import NativeFastPath
from node.native_limits import source_of
from node.native_peer import Peer
from node.native_refusal import replies_to
from node.native_repeats import REPEATED_S, Answers, Repeats
from resolver.wire import PACKET_SIZE_BYTES_MAX, InvalidMessageError, Reassembly, packets

_log = logging.getLogger("idnode.native")

# Senders that are known by their address; 40 MB at most, if each asks about many prefixes.
ASKERS_MAX: Final = 8_192
# What is paid for before the work for it begins.
_FIRST_PACKET: Final = PACKET_SIZE_BYTES_MAX
# How soon it is looked up again whether somebody is still known.
DOUBT_EVERY_S: Final = 60.0
# What waits when the node stops: as much as the kernel holds in its buffer, and no flood.
_LAST_TURNS_MAX: Final = 200


class UdpDoor:
    """One socket of a worker; others of the same port have those of the other workers."""

    def __init__(
        self,
        listening: socket.socket,
        fast: NativeFastPath,
        answering: NativeAnswering,
        askers: Askers,
        now_s: Callable[[], float],
    ) -> None:
        listening.setblocking(False)
        self._socket = listening
        self._fast = fast
        self._answering = answering
        self._askers = askers
        self._now_s = now_s
        self._datagrams = datagrams(listening)
        # By the part of the address that says which machine it is.
        self._known: dict[Hashable, Asker] = {}
        self._repeats = Repeats()
        self._reassembly = Reassembly()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._is_open = self._is_reading = False

    def open(self) -> None:
        """Answer from now on."""
        self._is_open = self._is_reading = True
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        self._every(REPEATED_S, self._repeats.turn)
        self._every(DOUBT_EVERY_S, self._askers.doubt)

    async def drain(self) -> None:
        """Answer what has arrived, and nothing else."""
        self._stop_reading()
        for _ in range(_LAST_TURNS_MAX):
            if not self._read():
                break
            await asyncio.sleep(0)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Let go of the socket; what is still worked on is not answered any more."""
        self._is_open = False
        self._stop_reading()
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            asyncio.get_running_loop().remove_reader(self._socket)

    def _read(self) -> bool:
        """Answer what waits; False if nothing did.

        One function, and long: it is what happens to every datagram.
        """
        answer_of, host = self._fast.answer, self._datagrams.host
        known, repeats = self._known, self._repeats
        now_s = self._now_s()
        received = self._datagrams.receive()
        answers: list[tuple[bytes, Address]] = []
        for data, address in received:
            try:
                asker = known.get(address[host]) or self._new_asker(address, now_s)
                if asker.network is not None and not self._askers.hears(asker, now_s):
                    continue
                mark = hash((address, data))
                is_again = mark in repeats.marks or mark in repeats.older_marks
                answer = answer_of(data, asker, now_s, is_again)
                if answer is None:
                    self._answer_slowly(data, address, asker, mark, now_s)
            except Exception:
                # Ours to mend; the others of this turn are answered all the same.
                # What it holds is not written down: it may be a secret key.
                _log.exception("a datagram of %d bytes was not answered", len(data))
                continue
            if answer:
                if not is_again:
                    repeats.mark(mark)
                if len(answer) <= PACKET_SIZE_BYTES_MAX:
                    answers.append((answer, address))
                else:
                    answers += [(packet, address) for packet in packets(answer)]
        self._datagrams.send(answers)
        return bool(received)

    def _new_asker(self, address: Address, now_s: float) -> Asker:
        if len(self._known) >= ASKERS_MAX:
            self._known.clear()
        asker = self._askers.sending(source_of(self._datagrams.text_of(address)), now_s)
        self._known[address[self._datagrams.host]] = asker
        return asker

    def _answer_slowly(
        self, data: bytes, address: Address, asker: Asker, mark: int, now_s: float
    ) -> None:
        try:
            message = self._reassembly.add(address, data, now_s)
        except InvalidMessageError as error:
            self._give(replies_to(error, self._answering.site_serial()), address, asker, now_s)
            return
        if message is None:
            return
        refusal = self._refusal(message, asker, now_s)
        if refusal is not None:
            self._give(refusal, address, asker, now_s)
            return
        key = (address, blake2b(message, digest_size=16).digest())
        if not self._repeats.begin(key):
            self._answering.room.give(len(message))
            self._give(self._repeats.answers(key), address, asker, now_s)
            return
        if not self._askers.admits(asker, _FIRST_PACKET, now_s):
            # Before the work, which is what a flood would cost the others.
            self._answering.room.give(len(message))
            self._repeats.answered(key, ())
            return
        task = asyncio.get_running_loop().create_task(self._work(message, key, asker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if message is data:
            # In time it may be answered fast, and has been counted then.
            self._repeats.mark(mark)

    def _refusal(self, message: bytes, asker: Asker, now_s: float) -> Answers | None:
        refusal = self._answering.refusal(message, asker, now_s)
        if refusal is None and not self._answering.room.take(len(message)):
            self._answering.count(REFUSED_IN_FLIGHT)
            return ()
        return refusal

    async def _work(self, message: bytes, key: tuple[Address, bytes], asker: Asker) -> None:
        try:
            peer = Peer(asker.source, CHANNEL_NATIVE_UDP)
            answers = await self._answering.answer(message, peer)
        finally:
            self._answering.room.give(len(message))
        self._repeats.answered(key, answers)
        self._give(answers, key[0], asker, self._now_s(), paid_bytes=_FIRST_PACKET)

    def _give(
        self,
        answers: Answers,
        address: Address,
        asker: Asker,
        now_s: float,
        *,
        paid_bytes: int = 0,
    ) -> None:
        """Send the messages of an answer, unless they are too much for who may not be there."""
        for answer in answers:
            owed_bytes = max(0, len(answer) - paid_bytes)
            paid_bytes = 0
            if self._is_open and self._askers.admits(asker, owed_bytes, now_s):
                self._send(answer, address)

    def _send(self, answer: bytes, address: Address) -> None:
        self._datagrams.send([(packet, address) for packet in packets(answer)])

    def _every(self, pause_s: float, act: Callable[[], None]) -> None:
        """Call `act` again and again while the door is open."""

        def tick() -> None:
            act()
            self._timers[place] = loop.call_later(pause_s, tick)

        loop, place = asyncio.get_running_loop(), len(self._timers)
        self._timers.append(loop.call_later(pause_s, tick))
