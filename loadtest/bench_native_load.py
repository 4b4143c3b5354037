"""A load of native resolutions, 64 under way at a time: over UDP, or over kept TCP connections.

python -m loadtest.bench_native_load --udp 127.0.0.1:2641 --prefix 88.608.9101 --count 10000 \
    --seconds 5 --seed 1

Writes one line of JSON, in the form of wrk's script.
"""

import argparse
import json
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeAlias

from loadtest.bench_load import CONNECTIONS
from resolver.response_code import ResponseCode
from resolver.wire import Envelope, Message, Opcode, OpFlag, ResolutionRequest

# Every n-th answer is timed: the clock would cost as much as the answer.
_TIMED = 16
# Nothing is lost on loopback; what is not there after this long will not come.
_ANSWER_WITHIN_S = 2.0
_READ_BYTES = 65_536
_ENVELOPE_BYTES = 20
_SIZE = slice(16, 20)
_ID = slice(8, 12)
_CODE = slice(24, 28)
_SUCCESS = int(ResponseCode.SUCCESS).to_bytes(4, "big")
# As the clients of Handle.Net ask.
_FLAGS = OpFlag.RECU | OpFlag.CACR | OpFlag.PUBL

_Asked: TypeAlias = tuple[Callable[[int], bytes], Callable[[bytes], int], list[float]]
"""Of one connection: how to receive and to send, and when the question under way was sent."""


def question(handle: str, request_id: int = 0, expiration_s: int = 0) -> bytes:
    """The request for all public values of `handle`."""
    body = ResolutionRequest(handle).to_wire()
    return Message(
        Envelope(request_id), Opcode.RESOLUTION, body, flags=int(_FLAGS), expiration_s=expiration_s
    ).to_wire()


class Asking:
    """Questions in a random order, each with a number of its own, and what came of them."""

    def __init__(self, prefix: str, count: int, seed: int) -> None:
        now_s = int(time.time())
        names = [f"{prefix}/{number:010d}" for number in range(count)]
        asked = [question(name, expiration_s=now_s + 43_200) for name in names]
        self._parts = [(one[: _ID.start], one[_ID.stop :]) for one in asked]
        self._random = random.Random(seed)
        self._next_id = self._random.getrandbits(31)
        self.requests = 0
        self.refused = 0
        self.latencies_s: list[float] = []

    def questions(self) -> Iterator[bytes]:
        """One question after the other, without end."""
        order = list(range(len(self._parts)))
        while True:
            self._random.shuffle(order)
            for place in order:
                head, tail = self._parts[place]
                self._next_id = (self._next_id + 1) & 0xFFFF_FFFF
                yield head + self._next_id.to_bytes(4, "big") + tail

    def over_udp(self, address: tuple[str, int], seconds: float) -> float:
        """Ask until `seconds` have passed; returns how long it took (s)."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.connect(address)
            asker.settimeout(_ANSWER_WITHIN_S)
            questions, sent_s = self.questions(), deque[float]()
            began_s = now_s = time.perf_counter()
            for _ in range(CONNECTIONS):
                asker.send(next(questions))
                sent_s.append(now_s)
            until_s = began_s + seconds
            while now_s < until_s:
                for turn in range(_TIMED):
                    self._note(asker.recv(_READ_BYTES))
                    at_s = sent_s.popleft()
                    if not turn:
                        now_s = time.perf_counter()
                        self.latencies_s.append(now_s - at_s)
                    asker.send(next(questions))
                    sent_s.append(now_s)
            return time.perf_counter() - began_s

    def over_tcp(self, address: tuple[str, int], seconds: float) -> float:
        """The same over 64 connections, one question under way on each."""
        with ExitStack() as stack:
            waiting = stack.enter_context(select.epoll())
            questions, asked = self.questions(), dict[int, _Asked]()
            began_s = now_s = time.perf_counter()
            for _ in range(CONNECTIONS):
                asker = stack.enter_context(socket.create_connection(address, _ANSWER_WITHIN_S))
                asker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                waiting.register(asker, select.EPOLLIN)
                asker.sendall(next(questions))
                asked[asker.fileno()] = (asker.recv, asker.send, [now_s])
            until_s = began_s + seconds
            while (now_s := time.perf_counter()) < until_s:
                ready = waiting.poll(_ANSWER_WITHIN_S)
                if not ready:
                    raise TimeoutError("no answer came")
                for number, _ in ready:
                    self._turn(asked[number], next(questions), now_s)
            return time.perf_counter() - began_s

    def _turn(self, asked: _Asked, following: bytes, now_s: float) -> None:
        receive, send, sent_s = asked
        answer = receive(_READ_BYTES)
        size_bytes = _ENVELOPE_BYTES + int.from_bytes(answer[_SIZE], "big")
        while len(answer) < size_bytes:
            more = receive(_READ_BYTES)
            if not more:
                raise ConnectionError("the connection was closed")
            answer += more
        self._note(answer)
        if not self.requests % _TIMED:
            self.latencies_s.append(now_s - sent_s[0])
        sent_s[0] = now_s
        # A question is 100 bytes, and there is room for it: the one before was answered.
        send(following)

    def _note(self, answer: bytes) -> None:
        self.requests += 1
        if answer[_CODE] != _SUCCESS:
            self.refused += 1


def main() -> int:
    """Ask, and say what came of it."""
    options = _options()
    asking = Asking(options.prefix, options.count, options.seed)
    address = options.udp or options.tcp
    load = asking.over_udp if options.udp else asking.over_tcp
    errors = {"refused": 0, "lost": 0}
    began_s = time.perf_counter()
    try:
        took_s = load(address, options.seconds)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        took_s, errors["lost"] = time.perf_counter() - began_s, 1
    errors["refused"] = asking.refused
    latencies_s = sorted(asking.latencies_s) or [0.0]
    figures = {
        "requests": asking.requests,
        "duration_us": int(took_s * 1e6),
        "p99_us": int(latencies_s[len(latencies_s) * 99 // 100] * 1e6),
        "errors": errors,
    }
    sys.stdout.write(f"{json.dumps(figures)}\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--udp", type=_address, metavar="HOST:PORT")
    how.add_argument("--tcp", type=_address, metavar="HOST:PORT")
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
