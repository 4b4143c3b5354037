"""Native administration: records changed over kept connections, each change with a public key.

python -m loadtest.bench_native_admin --tcp 127.0.0.1:2641 --prefix 88.608.9101 --key-file key.pem \
    --seconds 5

Writes one line of JSON, in the form of wrk's script; a request is one change: the operation, its
challenge, and the signed answer.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from loadtest.bench_figures import BenchError
from resolver.record import HandleValue, Reference
from resolver.response_code import ResponseCode
from resolver.wire import (
    Challenge,
    ChallengeAnswer,
    Envelope,
    Message,
    MessageStream,
    Opcode,
    OpFlag,
    SignatureAnswer,
    ValuesRequest,
    response_body,
)

# Where `idnode prefix admin --public-key` puts the key.
KEY_INDEX = 301
# Enough that the node never waits for a client.
CONNECTIONS = 16
_ANSWER_WITHIN_S = 10.0
_READ_BYTES = 65_536
_FLAGS = OpFlag.RECU | OpFlag.CACR | OpFlag.PUBL | OpFlag.OVRW


class Administrator:
    """One connection, and the key by which its changes are allowed."""

    def __init__(self, key: rsa.RSAPrivateKey, identity: Reference, number: int) -> None:
        self._key = key
        self._identity = identity
        self._ids: Iterator[int] = iter(range(number << 20, (number + 1) << 20))
        self._stream = MessageStream()

    async def connect(self, address: tuple[str, int]) -> None:
        """Open the connection."""
        self._reader, self._writer = await asyncio.open_connection(*address)

    async def close(self) -> None:
        """Close it."""
        self._writer.close()
        await self._writer.wait_closed()

    async def change(self, opcode: Opcode, handle: str, values: tuple[HandleValue, ...]) -> None:
        """One operation that is challenged and allowed.

        Raises:
            BenchError: if it is refused.
        """
        body = ValuesRequest(handle, values).to_wire()
        request = Message(Envelope(next(self._ids)), opcode, body, flags=int(_FLAGS))
        challenged = await self._ask(request)
        challenge, _ = response_body(challenged)
        if not isinstance(challenge, Challenge):
            raise BenchError(f"{handle}: not challenged: {challenged.response_code}")
        done = await self._ask(self._answer(request, challenge, challenged.envelope.session_id))
        if done.response_code != ResponseCode.SUCCESS:
            raise BenchError(f"{handle}: refused with {done.response_code}: {done.body!r}")

    def _answer(self, request: Message, challenge: Challenge, session_id: int) -> Message:
        signed = challenge.nonce + request.digest().digest
        signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        answer = SignatureAnswer("SHA-256", signature).to_wire()
        body = ChallengeAnswer("HS_PUBKEY", self._identity, answer).to_wire()
        envelope = Envelope(next(self._ids), session_id=session_id)
        return Message(envelope, Opcode.RESPONSE_TO_CHALLENGE, body, flags=int(_FLAGS))

    async def _ask(self, message: Message) -> Message:
        self._writer.write(message.to_wire())
        while (answer := self._stream.take()) is None:
            more = await asyncio.wait_for(self._reader.read(_READ_BYTES), _ANSWER_WITHIN_S)
            if not more:
                raise BenchError("the connection was closed")
            self._stream.feed(more)
        return Message.from_wire(answer)


async def load(options: argparse.Namespace) -> dict[str, object]:
    """Change records until the time is over; the figures."""
    key = serialization.load_pem_private_key(options.key_file.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    identity = Reference(f"0.NA/{options.prefix}", KEY_INDEX)
    ready = asyncio.Barrier(CONNECTIONS)
    took_s: list[float] = []

    async def work(number: int) -> None:
        administrator = Administrator(key, identity, number)
        await administrator.connect(options.tcp)
        handle = f"{options.prefix}/bench-{number}"
        await administrator.change(Opcode.CREATE_HANDLE, handle, (_value(0),))
        await ready.wait()
        until_s = time.perf_counter() + options.seconds
        turn, now_s = 0, time.perf_counter()
        while now_s < until_s:
            turn += 1
            await administrator.change(Opcode.MODIFY_VALUE, handle, (_value(turn),))
            before_s, now_s = now_s, time.perf_counter()
            took_s.append(now_s - before_s)
        await administrator.close()

    await asyncio.gather(*(work(number) for number in range(1, CONNECTIONS + 1)))
    slowest_s = sorted(took_s)[len(took_s) * 99 // 100]
    return {
        "requests": len(took_s),
        "duration_us": int(options.seconds * 1e6),
        "p99_us": int(slowest_s * 1e6),
        "errors": {},
    }


def _value(turn: int) -> HandleValue:
    return HandleValue(1, "NAME", f"turn {turn}".encode())


def main() -> int:
    """Change, and say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tcp", type=_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5)
    try:
        figures = uvloop.run(load(parser.parse_args()))
    except (BenchError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{json.dumps(figures)}\n")
    return 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
