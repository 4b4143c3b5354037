"""Signed heads of the log of days: its size and root, and who signed them.

A head is a text of three lines (origin, size, root), then lines of extensions, of which we write
none. Signatures follow after an empty line, one to a line. The log signs with keys that bear its
origin as their name; witnesses add their own lines.

Source: C2SP tlog-checkpoint, signed-note, tlog-cosignature.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from metrics.merkle import EMPTY_ROOT, HASH_SIZE_BYTES, is_consistent
from metrics.note_key import (
    KEY_ID_SIZE_BYTES,
    SigningKey,
    VerifierKey,
    bytes_from_base64,
    is_key_name,
)

# Readers must take 16; more than a node has partners say nothing more.
SIGNATURES_MAX: Final = 64
# Room for as many signatures of 5 kB, as those that withstand quantum computers have.
HEAD_SIZE_BYTES_MAX: Final = 512 * 1024

# A day a leaf is far below; other logs have numbers of 64 bits.
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_TREE_SIZE_MAX = 2**63 - 1
_SIGNATURE_LINE = re.compile(r"— ([^ ]+) ([^ ]+)")
# Control characters, but for the line feed.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class LogHeadError(ValueError):
    """A head that has not the form, or is not signed as it should be; says what and where."""


@dataclass(frozen=True, slots=True)
class LogHead:
    """The state of a log: the root over its first `size` leaves.

    Raises:
        LogHeadError: for what no head can say.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line or _CONTROL.search(line):
                raise LogHeadError(f"expected a line of text in the head, found {line!r}")
        if not 0 <= self.size <= _TREE_SIZE_MAX or len(self.root) != HASH_SIZE_BYTES:
            raise LogHeadError(
                f"size {self.size}, root {self.root.hex()}: expected those of a tree"
            )
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise LogHeadError(f"root {self.root.hex()}: expected that of an empty log")

    def to_bytes(self) -> bytes:
        """The text that is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode())
        return "".join(f"{line}\n" for line in (*lines, *self.extensions)).encode()

    @classmethod
    def from_text(cls, text: str) -> "LogHead":
        """The head in a text, as `to_bytes` spells it.

        Raises:
            LogHeadError: for any other form.
        """
        origin, size, root, *extensions = _lines(text)
        if not _SIZE.fullmatch(size):
            raise LogHeadError(f"line 2: expected the number of leaves, found {size[:80]!r}")
        root_bytes = bytes_from_base64(root)
        if root_bytes is None or len(root_bytes) != HASH_SIZE_BYTES:
            raise LogHeadError(f"line 3: expected a root of 32 bytes, found {root[:80]!r}")
        return cls(origin, int(size), root_bytes, tuple(extensions))


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature under a head: the name and identifier of its key, and what that key made."""

    name: str
    key_id: bytes
    signature: bytes

    def to_line(self) -> str:
        """The line below the head."""
        return f"— {self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"

    @classmethod
    def from_line(cls, line: str) -> "Signature":
        """The signature in a line, without its line feed.

        Raises:
            LogHeadError: for any other form than that of `to_line`.
        """
        parts = _SIGNATURE_LINE.fullmatch(line)
        data = bytes_from_base64(parts[2]) if parts else None
        if parts is None or data is None or len(data) <= KEY_ID_SIZE_BYTES:
            raise LogHeadError(f"expected the line of a signature, found {line[:80]!r}")
        if not is_key_name(parts[1]):
            raise LogHeadError(f"expected the name of a key, found {parts[1][:80]!r}")
        return cls(parts[1], data[:KEY_ID_SIZE_BYTES], data[KEY_ID_SIZE_BYTES:])

    def is_by(self, key: VerifierKey) -> bool:
        """True if it names this key; it may be false all the same."""
        return (self.name, self.key_id) == (key.name, key.key_id)


@dataclass(frozen=True, slots=True)
class Verified:
    """Who has signed a head, and when, if that was signed too (seconds since 1970)."""

    key: VerifierKey
    time_s: int | None


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head and the signatures under it, one of a key; nobody has checked them yet."""

    head: LogHead
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """The head as it is kept and sent."""
        lines = "".join(signature.to_line() for signature in self.signatures)
        return b"%b\n%b" % (self.head.to_bytes(), lines.encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> "SignedHead":
        """The head and its signatures, whoever made them.

        Raises:
            LogHeadError: for any other form than that of `to_bytes`, no signature, two by one
                key, and more than the limits of this file.
        """
        text, _, signed = _note(data).rpartition("\n\n")
        if not text or not signed.endswith("\n"):
            raise LogHeadError("expected a text, an empty line, and signatures of a line each")
        lines = signed[:-1].split("\n")
        if len(lines) > SIGNATURES_MAX:
            raise LogHeadError(f"expected at most {SIGNATURES_MAX} signatures, found {len(lines)}")
        signatures = tuple(map(Signature.from_line, lines))
        _require_distinct(signatures)
        return cls(LogHead.from_text(f"{text}\n"), signatures)

    def signed_by(self, *keys: SigningKey, now_s: int) -> "SignedHead":
        """The head with signatures of these keys below the others, in the place of older ones of
        theirs. Only a key of a witness says `now_s` (seconds since 1970)."""
        made = tuple(_signature(self.head, key, now_s) for key in keys)
        kept = (
            signature
            for signature in self.signatures
            if not any(signature.is_by(key.verifier_key) for key in keys)
        )
        return replace(self, signatures=(*kept, *made))

    def verified(self, keys: Iterable[VerifierKey]) -> tuple[Verified, ...]:
        """Which of `keys` have signed the head, in the order of `keys`.

        Signatures of other keys say nothing, right or wrong. With SM2 it takes 20 ms for a key.

        Raises:
            LogHeadError: if one of `keys` is named by a signature that it did not make.
        """
        text = self.head.to_bytes()
        return tuple(
            _verified(signature, key, text)
            for key in keys
            for signature in self.signatures
            if signature.is_by(key)
        )


def signed_head(head: LogHead, *keys: SigningKey, now_s: int) -> SignedHead:
    """The head, signed by the keys of its log or of witnesses."""
    return SignedHead(head, ()).signed_by(*keys, now_s=now_s)


def opened_head(data: bytes, log_keys: Sequence[VerifierKey]) -> SignedHead:
    """A head that every one of `log_keys` has signed, and that is of the log that they name.

    Raises:
        LogHeadError: for a head of another form or log, a missing and a false signature.
    """
    signed = SignedHead.from_bytes(data)
    made_by = [verified.key for verified in signed.verified(log_keys)]
    for key in log_keys:
        if key not in made_by:
            raise LogHeadError(f"expected a signature of {key.name}+{key.key_id.hex()}, found none")
        if signed.head.origin != key.name:
            raise LogHeadError(f"expected a head of {key.name}, found {signed.head.origin}")
    if not log_keys:
        raise LogHeadError("expected a key of the log, found none")
    return signed


def is_continued(old: LogHead, new: LogHead, proof: Sequence[bytes]) -> bool:
    """True if `proof` (of consistency) shows that the log of `old` grew to `new`."""
    return old.origin == new.origin and is_consistent(old.size, new.size, old.root, new.root, proof)


def _signature(head: LogHead, key: SigningKey, now_s: int) -> Signature:
    public = key.verifier_key
    return Signature(public.name, public.key_id, key.sign(head.to_bytes(), now_s))


def _verified(signature: Signature, key: VerifierKey, text: bytes) -> Verified:
    if not key.is_signature(text, signature.signature):
        raise LogHeadError(f"the signature of {key.name}+{key.key_id.hex()} is false")
    return Verified(key, key.algorithm.time_s(signature.signature))


def _note(data: bytes) -> str:
    if len(data) > HEAD_SIZE_BYTES_MAX:
        raise LogHeadError(f"expected at most {HEAD_SIZE_BYTES_MAX} bytes, found {len(data)}")
    try:
        note = data.decode()
    except UnicodeDecodeError as error:
        raise LogHeadError(f"byte {error.start}: expected UTF-8") from error
    control = _CONTROL.search(note)
    if control:
        raise LogHeadError(f"character {control.start()}: expected text, found {control[0]!r}")
    return note


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise LogHeadError(f"expected at least three lines of text, found {text[:80]!r}")
    return lines


def _require_distinct(signatures: Sequence[Signature]) -> None:
    seen: set[tuple[str, bytes]] = set()
    for one in signatures:
        if (one.name, one.key_id) in seen:
            raise LogHeadError(
                f"expected one signature of {one.name}+{one.key_id.hex()}, found two"
            )
        seen.add((one.name, one.key_id))
