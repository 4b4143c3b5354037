"""What any bytes may do to the codec: give a message or a protocol error, nothing else.

`read_everything` is one trial of it; a test feeds it with damaged recordings, and `make fuzz` for
half an hour with what a coverage-guided fuzzer finds:

python -m loadtest.fuzz_codec --minutes 30 --corpus var/fuzz [RECORDING.jsonl…]
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resolver.errors import InvalidValueError
from resolver.response_code import ResponseCode
from resolver.wire import (
    MESSAGE_SIZE_BYTES_MAX,
    AdminRecord,
    DhOffer,
    DhPublicKey,
    InvalidMessageError,
    Message,
    MessageStream,
    Reassembly,
    RsaPrivateKey,
    SignatureAnswer,
    SiteInfo,
    plain_answer,
    plain_refusal,
    plain_resolution,
    public_key_from_wire,
    references_from_wire,
    refusal,
    request_body,
    response_body,
    secret_answer_from_wire,
)

_SERIAL = 1
_RECORDS: tuple[Callable[[bytes], object], ...] = (
    AdminRecord.from_wire,
    SiteInfo.from_wire,
    references_from_wire,
    public_key_from_wire,
    DhPublicKey.from_wire,
    DhOffer.from_wire,
    RsaPrivateKey.from_wire,
    SignatureAnswer.from_wire,
    secret_answer_from_wire,
)


class FoundError(Exception):
    """Bytes that broke a promise of the codec; says which."""


def read_everything(data: bytes) -> None:
    """Read `data` as everything that a stranger can send.

    Raises:
        FoundError: if what was read is not written back as it was, or a limit did not hold.
    """
    _read_message(data)
    _read_stream(data)
    _read_packets(data)
    for read in _RECORDS:
        try:
            read(data)
        except InvalidValueError:
            continue


def _read_message(data: bytes) -> None:
    plain = plain_resolution(data)
    try:
        message = Message.from_wire(data)
    except InvalidMessageError as error:
        if plain is not None:
            raise FoundError("the hot path reads what is no message") from error
        _refuse(error)
        return
    if message.to_wire() != data:
        raise FoundError("a message is not written back as it was")
    _read_body(message)
    if plain is not None:
        handle, flags = plain
        plain_answer(data, handle, flags, bytes(4), _SERIAL)
        plain_refusal(data, flags, int(ResponseCode.HANDLE_NOT_FOUND), _SERIAL)


def _read_body(message: Message) -> None:
    try:
        if message.is_request:
            body = request_body(message).to_wire()
        else:
            answer, digest = response_body(message)
            body = (digest.to_wire() if digest else b"") + answer.to_wire()
    except InvalidMessageError as error:
        _refuse(error)
        return
    if body != message.body:
        raise FoundError("a body is not written back as it was")


def _refuse(error: InvalidMessageError) -> None:
    reply = refusal(error, site_serial=_SERIAL)
    if reply is not None:
        Message.from_wire(reply.to_wire())


def _read_stream(data: bytes) -> None:
    stream = MessageStream()
    middle = len(data) // 2
    try:
        for part in (data[:middle], data[middle:]):
            stream.feed(part)
            while stream.take() is not None:
                pass
    except InvalidMessageError as error:
        if not error.ends_stream:
            raise FoundError("a stream ended by an error that ends no stream") from error
    if stream.held_bytes > MESSAGE_SIZE_BYTES_MAX + len(data):
        raise FoundError(f"a stream holds {stream.held_bytes} bytes")


def _read_packets(data: bytes) -> None:
    """Packets of a length that the data itself names, so that they can belong together."""
    reassembly, size = Reassembly(), 21 + (data[0] if data else 0)
    for start in range(0, len(data), size):
        try:
            reassembly.add("peer", data[start : start + size], 0.0)
        except InvalidMessageError as error:
            _refuse(error)
    if reassembly.held_bytes > 2 * len(data) + 128 * (2 + 2 * len(data) // size):
        raise FoundError(f"{len(data)} bytes of packets hold {reassembly.held_bytes}")


def main() -> int:
    """Fuzz until the time is over; the fuzzer itself ends the program with what it found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--corpus", type=Path, default=Path("var/fuzz"))
    parser.add_argument("recordings", type=Path, nargs="*")
    options = parser.parse_args()
    try:
        # Not in the lock of the tests: it exists for few platforms.
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.stderr.write("atheris is missing: run `make fuzz`, which installs it\n")
        return 1
    options.corpus.mkdir(parents=True, exist_ok=True)
    for recording in options.recordings:
        _plant(recording, options.corpus)
    atheris.instrument_all()
    words = [f"-max_total_time={int(options.minutes * 60)}", "-max_len=4096", "-timeout=10"]
    atheris.Setup([sys.argv[0], *words, str(options.corpus)], read_everything)
    atheris.Fuzz()
    return 0


def _plant(recording: Path, corpus: Path) -> None:
    """Begin with what real clients and servers sent: the fuzzer changes it bit by bit."""
    for number, line in enumerate(recording.read_text("utf-8").splitlines()):
        sent = bytes.fromhex(json.loads(line)["hex"])
        # Of the HTTP tunnel, the body.
        (corpus / f"{recording.stem}-{number}").write_bytes(sent.rpartition(b"\r\n\r\n")[2])


if __name__ == "__main__":
    sys.exit(main())
