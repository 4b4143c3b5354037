"""What a flood of datagrams with forged senders draws, and what real clients notice of it.

python -m loadtest.udp_flood 127.0.0.1:2641 88.608.5288/LZ-0001 --seconds 10

The node must not except this machine: start it with IDNODE_UDP_RATE=1000. Addresses of 127/8 are
the senders: those of 127.66.6.0/24 are the victim's network, whose packets are counted as they
arrive there; a client in 127.77.7.0/24 asks beside them, first alone, then during the flood.
"""

import argparse
import json
import multiprocessing
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

from loadtest.bench_native_load import question
from resolver.response_code import ResponseCode
from resolver.wire import Message

_VICTIMS = [f"127.66.6.{number}" for number in range(1, 17)]
_CLIENT = "127.77.7.7"
_PAUSE_S = 0.02
_ANSWER_WITHIN_S = 1.0
_READ_BYTES = 65_536

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one client's questions; `slowest_ms` of the fastest 99 in 100."""

    asked: int
    answered: int
    slowest_ms: float


def client(node: Address, handle: str, seconds: float) -> Served:
    """Ask 50 times a second, and wait for each answer."""
    waits_s, asked = [], 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind((_CLIENT, 0))
        asker.settimeout(_ANSWER_WITHIN_S)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            asked += 1
            began_s = time.perf_counter()
            asker.sendto(question(handle, asked), node)
            if _is_answered(asker, asked):
                waits_s.append(time.perf_counter() - began_s)
            time.sleep(_PAUSE_S)
    waits_s.sort()
    slowest_s = waits_s[len(waits_s) * 99 // 100] if waits_s else float("inf")
    return Served(asked, len(waits_s), slowest_s * 1e3)


def _is_answered(asker: socket.socket, request_id: int) -> bool:
    try:
        while True:
            answer = Message.from_wire(asker.recv(_READ_BYTES))
            if answer.envelope.request_id == request_id:
                return answer.response_code == ResponseCode.SUCCESS
    except TimeoutError:
        return False


@contextmanager
def flood(node: Address, handle: str) -> Iterator[list["Synchronized[int]"]]:
    """Questions as fast as one process can send them; what was sent, and what was drawn.

    The numbers are packets sent, bytes sent, packets that arrived at the victims, their bytes.
    """
    numbers: list[Synchronized[int]] = [multiprocessing.Value("q", 0) for _ in range(4)]
    is_over = multiprocessing.Event()
    sender = multiprocessing.Process(target=_send, args=(node, handle, numbers, is_over))
    sender.start()
    try:
        yield numbers
    finally:
        is_over.set()
        sender.join()


def _send(node: Address, handle: str, numbers: list["Synchronized[int]"], is_over: Event) -> None:
    victims = [_victim(address) for address in _VICTIMS]
    sent_number = 0
    while not is_over.is_set():
        for victim in victims:
            sent_number += 1
            asked = question(handle, sent_number & 0xFFFF_FFFF)
            try:
                victim.sendto(asked, node)
            except BlockingIOError:
                continue
            numbers[0].value += 1
            numbers[1].value += len(asked)
        for victim in victims:
            _note_drawn(victim, numbers)
    for victim in victims:
        victim.close()


def _victim(address: str) -> socket.socket:
    victim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    victim.bind((address, 0))
    victim.setblocking(False)
    return victim


def _note_drawn(victim: socket.socket, numbers: list["Synchronized[int]"]) -> None:
    while True:
        try:
            drawn = victim.recv(_READ_BYTES)
        except BlockingIOError:
            return
        numbers[2].value += 1
        numbers[3].value += len(drawn)


def main() -> int:
    """Measure, and say what was seen."""
    options = _options()
    alone = client(options.node, options.handle, options.seconds)
    with flood(options.node, options.handle) as numbers:
        began_s = time.monotonic()
        beside = client(options.node, options.handle, options.seconds)
        took_s = time.monotonic() - began_s
        sent, sent_bytes, drawn, drawn_bytes = (number.value for number in numbers)
    report = {
        "flood": {
            "sent_per_s": round(sent / took_s),
            "sent_bytes_per_s": round(sent_bytes / took_s),
            "drawn_per_s": round(drawn / took_s),
            "drawn_bytes_per_s": round(drawn_bytes / took_s),
            "amplification": round(drawn_bytes / sent_bytes, 3),
        },
        "client_alone": _shown(alone),
        "client_beside": _shown(beside),
    }
    sys.stdout.write(f"{json.dumps(report, indent=1)}\n")
    return 0 if beside.answered == beside.asked else 1


def _shown(served: Served) -> dict[str, float]:
    return {
        "asked": served.asked,
        "answered": served.answered,
        "p99_ms": round(served.slowest_ms, 2),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("node", type=_address, metavar="HOST:PORT")
    parser.add_argument("handle", help="an identifier that is registered")
    parser.add_argument("--seconds", type=float, default=10)
    return parser.parse_args()


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
