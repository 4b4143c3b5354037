"""The lines of the native protocol: UDP beside a bare echo, kept TCP connections beside UDP, and
what of administration is cryptography."""

import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from loadtest.bench_arena import Arena
from loadtest.bench_figures import BenchError, Line, Measure, Result, measure_from_wrk, result_of
from loadtest.bench_native_load import question
from loadtest.bench_node import ServedNode
from loadtest.bench_programs import Program
from loadtest.ports import free_port
from resolver.signature import is_signature_of
from resolver.wire import Message, ResolutionResponse, RsaPublicKey, response_body

_IDENTIFIERS = 10_000
# Not measured: what is prepared natively is prepared at the first question.
_FIRST_S = 2
# Beyond the seconds of a load: what takes longer has hung.
_LATE_S = 30
_ANSWER_WITHIN_S = 1.0
# Signatures that are checked to see what one costs.
_PROOFS = 500
_READ_BYTES = 65_536

_UDP, _TCP, _ECHO = "native UDP", "native TCP", "UDP echo"


class NativeLoads:
    """The loads of one run, against the node and the echo."""

    def __init__(self, arena: Arena, stack: ExitStack) -> None:
        self._arena = arena
        book = arena.book(_IDENTIFIERS)
        port = free_port()
        self._address = ("127.0.0.1", port)
        self._node = arena.node(stack, book, IDNODE_HANDLE=f"127.0.0.1:{port}")
        self._node.warm(range(book.count))
        self._echo_port = free_port()
        self._start_echo(stack)
        self._words = ("--prefix", book.prefix, "--count", str(book.count))

    def measure(self, name: str, seconds: float, seed: int) -> Measure:
        """One load.

        Raises:
            BenchError: if any answer was refused or lost.
        """
        self._check_answers()
        option, port = {
            _UDP: ("--udp", self._address[1]),
            _TCP: ("--tcp", self._address[1]),
            _ECHO: ("--udp", self._echo_port),
        }[name]
        words = [option, f"127.0.0.1:{port}", *self._words, "--seed", str(seed)]
        return _load(self._arena, "bench_native_load", seconds, *words)

    def _start_echo(self, stack: ExitStack) -> None:
        answer_file = self._arena.place("answer")
        answer_file.write_bytes(_asked(self._address, question(self._node.book.identifier(0))))
        echo = Program(
            [
                *self._arena.under_test,
                *(sys.executable, "-m", "loadtest.bench_echo"),
                *("--port", str(self._echo_port), "--answer-file", str(answer_file)),
            ],
            self._arena.place("echo"),
        )
        stack.callback(echo.stop)
        echo.wait_ready(lambda: _answers(("127.0.0.1", self._echo_port)))

    def _check_answers(self) -> None:
        for number in (0, self._node.book.count // 2, self._node.book.count - 1):
            _check(self._node, self._address, number)


def measured(arena: Arena, lines: Sequence[Line], rounds: int, seconds: int) -> list[Result]:
    """The lines, their sides asked one after the other, round by round."""
    names = sorted({name for line in lines for name in (line.over, line.under)})
    found: dict[str, list[Measure]] = {name: [] for name in names}
    with ExitStack() as stack:
        loads = NativeLoads(arena, stack)
        for name in names:
            loads.measure(name, _FIRST_S, 0)
        for number in range(1, rounds + 1):
            for name in names:
                found[name].append(loads.measure(name, seconds, number))
            rates = (f"{name} {found[name][-1].rate_per_s:,.0f}/s" for name in names)
            arena.say(f"round {number} of {rounds}: {', '.join(rates)}")
    return [
        result_of(line, *([line.of(m) for m in found[name]] for name in (line.over, line.under)))
        for line in lines
    ]


def administered(arena: Arena, lines: Sequence[Line], rounds: int, seconds: int) -> list[Result]:
    """Milliseconds of cryptography by those of a whole change, which a key of 2,048 bits allows."""
    proofs_ms, changes_ms = [], []
    with ExitStack() as stack:
        book, port, key_file = arena.book(_IDENTIFIERS), free_port(), arena.place("key")
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        key_file.write_bytes(_pem(key))
        public_file = arena.place("key.pub")
        public_file.write_bytes(_public_pem(key))
        book.command("prefix", "admin", book.prefix, "--public-key", str(public_file))
        switches = {"IDNODE_RATE_PER_SOURCE": "", "IDNODE_RATE_PER_CALLER": ""}
        arena.node(stack, book, IDNODE_HANDLE=f"127.0.0.1:{port}", **switches)
        words = ("--tcp", f"127.0.0.1:{port}", "--prefix", book.prefix, "--key-file", str(key_file))
        for number in range(1, rounds + 1):
            measure = _load(arena, "bench_native_admin", seconds, *words)
            changes_ms.append(1e3 / measure.rate_per_s)
            proofs_ms.append(_proof_ms(key))
            arena.say(
                f"round {number} of {rounds}: {measure.rate_per_s:,.0f} changes/s, "
                f"{proofs_ms[-1]:.3f} ms of {changes_ms[-1]:.3f} ms are cryptography"
            )
    return [result_of(line, proofs_ms, changes_ms) for line in lines]


def _proof_ms(key: rsa.RSAPrivateKey) -> float:
    """What the node computes for one change: a digest, and the check of a signature (ms)."""
    numbers, challenge = key.public_key().public_numbers(), bytes(48)
    record = RsaPublicKey(numbers.e, numbers.n).to_wire()
    signature = key.sign(challenge, padding.PKCS1v15(), hashes.SHA256())
    began_s = time.perf_counter()
    for _ in range(_PROOFS):
        hashlib.sha256(challenge)
        if not is_signature_of(record, "SHA-256", signature, challenge):
            raise BenchError("a good signature was refused")
    return (time.perf_counter() - began_s) * 1e3 / _PROOFS


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(kind, form, serialization.NoEncryption())


def _public_pem(key: rsa.RSAPrivateKey) -> bytes:
    kind, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(kind, form)


def _load(arena: Arena, program: str, seconds: float, *words: str) -> Measure:
    """The figures of one load, which runs beside the server.

    Raises:
        BenchError: if it does not end well.
    """
    command = [sys.executable, "-m", f"loadtest.{program}", *words, "--seconds", str(seconds)]
    try:
        done = subprocess.run(
            [*arena.beside, *command],
            capture_output=True,
            text=True,
            timeout=seconds + _LATE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{program} did not end") from None
    if done.returncode:
        raise BenchError(f"{program} ended with {done.returncode}: {done.stderr[-300:]}")
    return measure_from_wrk(done.stdout)


# What a change costs besides is up to the disk: the share is reported, and nothing wanted of it.
ADMINISTRATION = (Line("native-admin-crypto", "cryptography ms", "change ms", aim=0, needs=()),)
LINES = (
    Line("native-udp", _UDP, _ECHO, at_least=0.75, needs=()),
    Line("native-tcp", _TCP, _UDP, at_least=0.7, needs=()),
)


def _asked(address: tuple[str, int], request: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(_ANSWER_WITHIN_S)
        asker.connect(address)
        try:
            asker.send(request)
            return asker.recv(_READ_BYTES)
        except OSError as error:
            raise BenchError(f"{address[0]}:{address[1]} gave no answer: {error}") from None


def _answers(address: tuple[str, int]) -> bool:
    try:
        return bool(_asked(address, b"?"))
    except BenchError:
        return False


def _check(node: ServedNode, address: tuple[str, int], number: int) -> None:
    """Nothing, if the node answers with the right values about one product."""
    handle = node.book.identifier(number)
    answer = Message.from_wire(_asked(address, question(handle, request_id=number + 1)))
    body, _ = response_body(answer)
    found = body.values if isinstance(body, ResolutionResponse) else ()
    shown = [one.data.decode() for one in found]
    right = json.loads(node.book.answer(number).body)["values"]
    if shown != [value["data"]["value"] for value in right]:
        raise BenchError(f"{handle}: wrong answer: {answer.response_code} {shown}")
