"""Fuzzes the native doors: inputs that reach new code of node, registry or resolver are kept.

It starts stores of its own. What is found is kept as `found-…` in the corpus, and tried first the
next time.

python -m tests.fuzz_doors --minutes 30 --corpus var/fuzz-doors
"""

import argparse
import asyncio
import gc
import importlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any

from resolver.record import Reference
from resolver.wire import (
    DhPublicKey,
    DsaPublicKey,
    Message,
    Opcode,
    Pbkdf2Answer,
    SignatureAnswer,
    packets,
    references_to_wire,
)
from tests.conftest import Stores, migrated_database, running_stores
from tests.fuzzed_doors import SELF_RUN, SUSPENDED, FuzzedDoors, datagrams_of, fuzzed_doors
from tests.fuzzed_operations import (
    OPCODES,
    STAYING_MAX,
    VALUE_TYPES,
    WAYS,
    answer_challenge,
    ask_in_session,
    ask_operation,
    log_in,
    operation_of,
    send_content,
    set_session_up,
    store_value,
    try_input,
)
from tests.native_asking import ITEM, OWNER, URL, admin, asking, creating, on_handle
from tests.native_doors import own_site
from tests.native_node import GROUP_PRIME, OWN_PREFIX, PREFIX, SECRET, public_key
from tests.recorded_native import readable

# What was registered and remembered on the way must neither fill the memory nor slow down.
_RENEWED_EVERY = 2_000
_INPUT_SIZE_BYTES_MAX = 4_096
_OPTIONS = (0, 2, 4, 5, 12, 14, 20, 22, 68, 70, 132)
# Pieces of a stream: some let time pass or leave answers unread, the last ones do neither.
_PLANS = (b"\xff\x7f\x3f\x01", b"\x05\x45\x85\xc6", b"\x3e\x45\xbe\x42", b"\x7f\x7f\x7f\x7f")
_ASKED = (ITEM, f"{PREFIX}/NONE", "0", f"0.NA/{PREFIX}", PREFIX, f"{SUSPENDED}/x", f"{SELF_RUN}/x")
_ON_HANDLES = (
    (Opcode.DELETE_HANDLE, ITEM),
    (Opcode.LIST_HANDLES, f"0.NA/{PREFIX}"),
    (Opcode.LIST_DERIVED_PREFIXES, f"0.NA/{OWN_PREFIX}"),
    (Opcode.HOME_NA, f"0.NA/{OWN_PREFIX}.77"),
    (Opcode.UNHOME_NA, f"0.NA/{OWN_PREFIX}.77"),
    (Opcode.UNHOME_NA, f"0.NA/{OWN_PREFIX}"),
    (Opcode.LIST_HOMED_NAS, "/"),
    (Opcode.GET_SITE_INFO, "/"),
    (Opcode.SESSION_TERMINATE, "/"),
)
# With some seeds, stores leave in one of so many ways.
_LEAVING_EVERY, _LEAVING_WAYS = 5, 14
_PACKAGES = ("node", "registry", "resolver")


def seeds() -> Iterator[bytes]:
    """Inputs to begin with: what real clients have sent, in every way, at times without stores."""
    for number, seed in enumerate(_seeds()):
        yield seed
        if not number % _LEAVING_EVERY:
            leaving = STAYING_MAX + 1 + number // _LEAVING_EVERY % _LEAVING_WAYS
            yield bytes((seed[0] + len(WAYS) * leaving,)) + seed[1:]


def _seeds() -> Iterator[bytes]:
    recorded = [one.data for one in readable() if one.from_client and len(one.data) < 2_000]
    questions = [asking(handle).to_wire() for handle in _ASKED]
    long = asking(types=tuple(f"TYPE{number:04d}" for number in range(120))).to_wire()
    asked = [*questions, *recorded]
    for data in asked:
        yield from _in(FuzzedDoors.hear_message, data, options=(0, 1, 2))
    for plan in _PLANS:
        stream = plan + b"".join([questions[0], *asked[:12]])
        yield from _in(FuzzedDoors.hear_stream, stream, options=range(8))
        yield from _in(FuzzedDoors.hear_stream, plan + long + questions[0], options=range(8))
    for who in (0, 4, 0x5C):
        datagrams = datagrams_of(*((who + number % 4, data) for number, data in enumerate(asked)))
        yield from _in(FuzzedDoors.hear_datagrams, datagrams[:3_000], options=(0, 1))
        parts = [(who, packet) for packet in (questions[0], *reversed(packets(long)), questions[0])]
        yield from _in(FuzzedDoors.hear_datagrams, datagrams_of(*parts), options=(0, 1))
    yield from _operations([Message.from_wire(data) for data in recorded])
    yield from _proofs()


def _in(way: Any, data: bytes, options: Any = (0,)) -> Iterator[bytes]:
    for option in options:
        yield bytes((WAYS.index(way), option)) + data


def _operations(recorded: list[Message]) -> Iterator[bytes]:
    referring = replace(URL, references=(Reference(OWNER.handle, OWNER.index),))
    made = [creating(f"{PREFIX}/NEW"), creating(f"{PREFIX}/NEW", referring, admin(OWNER))]
    made += [asking(handle) for handle in _ASKED]
    made += [on_handle(opcode, handle) for opcode, handle in _ON_HANDLES]
    for message in (*recorded, *made):
        yield from _in(send_content, message.content, options=(0, 4, 12))
        if message.opcode in OPCODES:
            operation = operation_of(message.opcode, message.body, message.flags)
            yield from _in(ask_operation, operation, options=(0, 20, 53))
            yield from _in(ask_in_session, operation, options=_OPTIONS)
            yield from _in(log_in, operation, options=(9, 8))
        if message.opcode == Opcode.SESSION_SETUP:
            yield from _in(set_session_up, message.body, options=(4, 20))
        if message.opcode == Opcode.RESPONSE_TO_CHALLENGE:
            yield from _in(answer_challenge, message.body, options=(16, 20))


def _proofs() -> Iterator[bytes]:
    """Answers to challenges, keys, and values that say who may."""
    secret = Pbkdf2Answer.of(SECRET, bytes(48), b"salt", iterations=10).to_wire()
    signature = SignatureAnswer("SHA-256", bytes(256)).to_wire()
    yield from _in(answer_challenge, secret, options=(32, 36, 100))
    yield from _in(answer_challenge, b"\x03" + bytes(32), options=(32, 36, 100))
    yield from _in(answer_challenge, signature, options=(0, 4, 68))
    yield from _in(set_session_up, bytes(100) + b"\x07", options=(0, 16))
    yield from _in(set_session_up, DhPublicKey(7, GROUP_PRIME, 2).to_wire(), options=(8, 24))
    members = references_to_wire([Reference(OWNER.handle, OWNER.index)])
    site, service = own_site().site.to_wire(), ITEM.encode()
    for data in (admin(OWNER).data, members, site, service, b"", SECRET):
        yield from _in(store_value, b"\x00" + data, options=range(len(VALUE_TYPES)))
    dsa = DsaPublicKey(GROUP_PRIME >> 800, GROUP_PRIME, 2, 7).to_wire()
    for key in (public_key(300).data, dsa, SM2_KEY, ED25519_KEY):
        kind = VALUE_TYPES.index("HS_PUBKEY")
        signed = bytes((len(_NUMBERS),)) + _NUMBERS + key
        yield from _in(store_value, signed, options=range(kind, 40, len(VALUE_TYPES)))


def _key(name: bytes, *numbers: bytes) -> bytes:
    parts = (name, *numbers)
    counted = [len(part).to_bytes(4) + part for part in parts]
    return counted[0] + bytes(2) + b"".join(counted[1:])


# What is taken for a signature.
_NUMBERS = bytes(31) + b"\x01" + bytes(31) + b"\x02"
# The base point of the curve of GB/T 32918.5.
_SM2_X = bytes.fromhex("32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7")
_SM2_Y = bytes.fromhex("bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0")
SM2_KEY = _key(b"SM2_PUB_KEY", _SM2_X, _SM2_Y)
ED25519_KEY = _key(b"ED25519_PUB_KEY", bytes(32))


class Fuzzed:
    """Tries one input after the other on doors that are built anew from time to time."""

    def __init__(self, stores: Stores, folder: Path) -> None:
        self._stores = stores
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._opened = AsyncExitStack()
        self._tried = 0

    def try_input(self, data: bytes) -> None:
        """Let one input in.

        Raises:
            FoundError: if anything happened that nobody may cause.
        """
        if not self._tried % _RENEWED_EVERY:
            self._loop.run_until_complete(self._renew())
        self._tried += 1
        self._loop.run_until_complete(try_input(self._doors, data))

    async def _renew(self) -> None:
        await self._opened.aclose()
        url = await self._opened.enter_async_context(migrated_database(self._stores))
        folder = self._opened.enter_context(tempfile.TemporaryDirectory(dir=self._folder))
        doors = fuzzed_doors(url, self._stores.redis_url, Path(folder))
        self._doors = await self._opened.enter_async_context(doors)


def main() -> int:
    """Fuzz until the time is over; the fuzzer itself ends the program with what it found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--corpus", type=Path, default=Path("var/fuzz-doors"))
    parser.add_argument(
        "--on", nargs=3, metavar=("POSTGRES_URL", "REDIS_URL", "FOLDER"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is missing: run `make fuzz`, which installs it\n")
        return 1
    if options.on is None:
        return _on_own_stores()
    options.corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (options.corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    *urls, folder = options.on
    _fuzz(Fuzzed(Stores(*urls), Path(folder)), options.minutes, options.corpus)
    return 0


def _on_own_stores() -> int:
    """Run this program again while stores run: the fuzzer leaves it without a word of farewell."""
    with tempfile.TemporaryDirectory(prefix="idnode-fuzz-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the servers have an account of their own
        with running_stores(folder / "stores") as stores:
            words = [*sys.orig_argv, "--on", stores.postgres_url, stores.redis_url, name]
            return subprocess.run(words, check=False).returncode


def _fuzz(fuzzed: Fuzzed, minutes: float, corpus: Path) -> None:
    # Not in the lock of the tests: it exists for few platforms.
    atheris: Any = importlib.import_module("atheris")
    for found in gc.get_objects():
        # Ours alone: what the libraries of the stores do says nothing about an input.
        if isinstance(found, FunctionType) and _package_of(found) in _PACKAGES:
            atheris.instrument_func(found)
    words = [
        f"-max_total_time={int(minutes * 60)}",
        f"-max_len={_INPUT_SIZE_BYTES_MAX}",
        "-timeout=60",
        f"-artifact_prefix={corpus}/found-",
    ]
    atheris.Setup([sys.argv[0], *words, str(corpus)], fuzzed.try_input)
    atheris.Fuzz()


def _package_of(function: FunctionType) -> str:
    # What is made by other functions may be of no module.
    return str(function.__module__).partition(".")[0]


if __name__ == "__main__":
    sys.exit(main())
