"""Recorded messages of the native protocol: Handle.Net 9.3.1 and two Chinese client SDKs."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from resolver.wire import Message, Reassembly, envelope_and_content

NATIVE = Path(__file__).parent / "data" / "native"
IDIS = ("idis-caict.txt", "idis-teleinfo.txt")


@dataclass(frozen=True)
class Packet:
    """What crossed the wire at once; of HTTP, the body."""

    label: str
    conn: int
    proto: str
    from_client: bool
    data: bytes


@dataclass(frozen=True)
class Recorded:
    """One whole message and the packets it came in."""

    label: str
    from_client: bool
    data: bytes
    packets: tuple[bytes, ...]
    proto: str = "tcp"

    @property
    def is_encrypted(self) -> bool:
        return envelope_and_content(self.data)[0].is_encrypted

    @property
    def message(self) -> Message:
        return Message.from_wire(self.data)


@cache
def captured_packets() -> tuple[Packet, ...]:
    """Every line of the capture."""
    lines = (NATIVE / "native-capture.jsonl").read_text("utf-8").splitlines()
    return tuple(_packet(json.loads(line)) for line in lines)


def _packet(line: dict[str, str]) -> Packet:
    data = bytes.fromhex(line["hex"])
    if line["proto"] == "http":
        data = data.partition(b"\r\n\r\n")[2]
    return Packet(line["label"], int(line["conn"]), line["proto"], line["dir"] == "c2s", data)


@cache
def captured() -> tuple[Recorded, ...]:
    """Every message of the capture, in order."""
    return tuple(_whole(captured_packets()))


def _whole(packets: tuple[Packet, ...]) -> Iterator[Recorded]:
    reassembly, parts = Reassembly(), list[bytes]()
    for packet in packets:
        parts.append(packet.data)
        whole = reassembly.add((packet.conn, packet.from_client), packet.data, now_s=0.0)
        if whole is not None:
            yield Recorded(packet.label, packet.from_client, whole, tuple(parts), packet.proto)
            parts = []
    assert not parts


@cache
def of_sdk(name: str) -> tuple[Recorded, ...]:
    """Every message of a Chinese SDK's connection, in order."""
    lines = re.findall(r"^([cs]2[cs]) ([0-9a-f ]+)$", (NATIVE / name).read_text("utf-8"), re.M)
    messages = ((direction == "c2s", bytes.fromhex(text)) for direction, text in lines)
    return tuple(Recorded(name, sent, data, (data,)) for sent, data in messages)


@cache
def all_recorded() -> tuple[Recorded, ...]:
    return (*captured(), *(one for name in IDIS for one in of_sdk(name)))


@cache
def readable() -> tuple[Recorded, ...]:
    """All but those that are encrypted."""
    return tuple(one for one in all_recorded() if not one.is_encrypted)


def private_exponents() -> list[int]:
    """Of the client, in the two recorded sessions: the second one is encrypted."""
    text = (NATIVE / "scenario-9.3.1.txt").read_text("utf-8")
    return [int(x, 16) for x in re.findall(r"^DHPRIV \S+ x=([0-9a-f]+)", text, re.MULTILINE)]


def session_keys() -> list[bytes]:
    """Of the two recorded sessions, in the same order."""
    text = (NATIVE / "session-crypto-check.txt").read_text("utf-8")
    return [bytes.fromhex(key) for key in re.findall(r" key=([0-9a-f]{64})", text)]
