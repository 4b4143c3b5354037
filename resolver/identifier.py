"""Identifiers: `prefix/suffix`, split at the first slash, compared without ASCII case."""

import re
import unicodedata
from dataclasses import dataclass

from resolver.errors import InvalidIdentifierError

# Source: SNMS OpenAPI v5 (handle 255, prefix 64); the protocol itself sets no limit.
IDENTIFIER_SIZE_BYTES_MAX = 255
PREFIX_SIZE_BYTES_MAX = 64

# The prefix handles of RFC 3651 §3.1: a slashless name P stands for 0.NA/P.
PREFIX_HANDLE_PREFIX = "0.NA"

_PREFIX_FORM = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,16}){2,6}")
# Letters, digits and the marks of printed codes; anything else takes the slow check.
_PLAIN_SUFFIX = re.compile(r"[A-Za-z0-9._:;,+=@!~*()\-/|&$'\[\]{}^`]+")


@dataclass(frozen=True, slots=True)
class Identifier:
    """An identifier as it was written, and the key under which it is compared and stored.

    `key` folds ASCII a–z to A–Z and leaves everything else exact (RFC 3651 §3.2).
    """

    text: str
    key: str
    prefix: str
    suffix: str

    @property
    def prefix_key(self) -> str:
        return fold(self.prefix)

    @property
    def is_prefix_handle(self) -> bool:
        """True for `0.NA/…` and for a slashless name: a routing question of the node level."""
        return self.prefix_key == PREFIX_HANDLE_PREFIX


def fold(text: str) -> str:
    """`text` with ASCII letters in upper case, every other character untouched."""
    if text.isascii():
        return text.upper()
    return text.encode("utf-8", "surrogatepass").upper().decode("utf-8", "surrogatepass")


def from_text(text: str) -> Identifier:
    """Read any name that a resolver may be asked for; wide on purpose.

    A slashless name stands for its prefix handle (specs: §1.1 of the HTTP API, IDIS recursion).

    Raises:
        InvalidIdentifierError: for the empty name, and for one that cannot be stored (more than
            255 bytes, NUL, broken UTF-8), which therefore cannot exist.
    """
    if not text:
        raise InvalidIdentifierError("Empty handle invalid")
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidIdentifierError("Handle is not valid UTF-8") from None
    if size_bytes > IDENTIFIER_SIZE_BYTES_MAX:
        raise InvalidIdentifierError(
            f"Handle is {size_bytes} bytes long, at most {IDENTIFIER_SIZE_BYTES_MAX} are allowed"
        )
    if "\x00" in text:
        raise InvalidIdentifierError("Handle contains a NUL character")
    prefix, slash, suffix = text.partition("/")
    if not slash:
        return Identifier(text, f"{PREFIX_HANDLE_PREFIX}/{fold(text)}", PREFIX_HANDLE_PREFIX, text)
    return Identifier(text, fold(text), prefix, suffix)


def check_prefix(text: str) -> str:
    """Return `text` if it may be allotted as an enterprise prefix `88.<node>.<enterprise>`.

    Raises:
        InvalidIdentifierError: says which rule is broken.
    """
    if len(text.encode("utf-8", "replace")) > PREFIX_SIZE_BYTES_MAX:
        raise InvalidIdentifierError(f"prefix is longer than {PREFIX_SIZE_BYTES_MAX} bytes")
    if not _PREFIX_FORM.fullmatch(text):
        raise InvalidIdentifierError(
            f"prefix {text!r} is not of the form 88.<node>.<enterprise>: "
            "at least three numbers joined by dots"
        )
    return text


def check_suffix(suffix: str) -> None:
    """Accept a suffix for a new registration; strict on purpose.

    Raises:
        InvalidIdentifierError: for an empty suffix, white space, control or unassigned characters.
    """
    if _PLAIN_SUFFIX.fullmatch(suffix):
        return
    if not suffix:
        raise InvalidIdentifierError("suffix is empty")
    for position, character in enumerate(suffix, start=1):
        category = unicodedata.category(character)
        if category[0] in "CZ":
            raise InvalidIdentifierError(
                f"suffix has the character U+{ord(character):04X} at position {position}; "
                "letters, digits and visible marks are allowed"
            )
    if unicodedata.normalize("NFC", suffix) != suffix:
        raise InvalidIdentifierError("suffix is not in Unicode normal form NFC")


def for_registration(text: str) -> Identifier:
    """Read a name that is to be registered; strict on purpose.

    Raises:
        InvalidIdentifierError: says which rule is broken.
    """
    identifier = from_text(text)
    if "/" not in text:
        raise InvalidIdentifierError("identifier has no suffix: expected prefix/suffix")
    check_suffix(identifier.suffix)
    return identifier
