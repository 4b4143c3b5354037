"""The members of a canonical document, taken apart one by one and strictly."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol, TypeVar

from metrics.canonical import Value, from_canonical

# Names have 128 characters at most; a reason or a note is a few sentences.
TEXT_LENGTH_MAX: Final = 4_000

_HASH_FORM = re.compile(r"[0-9a-f]{64}")


class DocumentError(ValueError):
    """A document without the members it should have; says where, what was expected and found."""


class _Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


_T = TypeVar("_T")


class Members:
    """The members of one object. Whoever has taken all that he knows calls `done`."""

    def __init__(self, where: str, value: Value) -> None:
        """`where` is the place of the object in its document, empty for the whole.

        Raises:
            DocumentError: if it is no object.
        """
        if not isinstance(value, Mapping):
            raise DocumentError(f"{where or 'document'}: expected an object, found {_shown(value)}")
        self._prefix = f"{where}." if where else ""
        self._left = dict(value)

    def where(self, name: str) -> str:
        """The place of a member in the document."""
        return f"{self._prefix}{name}"

    def take(self, name: str) -> Value:
        """The value of a member, whatever it is."""
        if name not in self._left:
            raise DocumentError(f"{self.where(name)}: expected this member, found none")
        return self._left.pop(name)

    def peek(self, name: str) -> Value:
        """The value of a member that stays to be taken; null if there is none."""
        return self._left.get(name)

    def done(self) -> None:
        """Raises DocumentError if members are left that nobody knows."""
        for name in self._left:
            raise DocumentError(f"{self.where(name)}: expected no such member")

    def same(self, name: str, expected: Value) -> None:
        """Take a member that has one right value, down to the place where it differs."""
        require_same(self.where(name), expected, self.take(name))

    def text(self, name: str) -> str:
        """A text that is not empty."""
        return text_at(self.where(name), self.take(name))

    def choice(self, name: str, known: Sequence[str]) -> str:
        """One of the texts that are known."""
        return choice_at(self.where(name), self.take(name), known)

    def number(self, name: str, at_least: int = 0) -> int:
        """A whole number."""
        return number_at(self.where(name), self.take(name), at_least)

    def digest(self, name: str) -> str:
        """A SHA-256 in lower-case hex."""
        found = self.take(name)
        if isinstance(found, str) and _HASH_FORM.fullmatch(found):
            return found
        raise DocumentError(f"{self.where(name)}: expected 64 hex digits, found {_shown(found)}")

    def object(self, name: str, read: Callable[["Members"], _T]) -> _T:
        """What `read` makes of an object, which must take all of its members."""
        members = Members(self.where(name), self.take(name))
        made = read(members)
        members.done()
        return made

    def optional(self, name: str, read: Callable[["Members"], _T]) -> _T | None:
        """Likewise, or null."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return self.object(name, read)

    def entries(
        self, name: str, read: Callable[[str, Value], _T], key: Callable[[_T], _Ordered]
    ) -> tuple[_T, ...]:
        """What `read` makes of each entry of an array, given its place. They must come in the
        order of their keys, each key once."""
        where, found = self.where(name), self.take(name)
        if not isinstance(found, list | tuple):
            raise DocumentError(f"{where}: expected an array, found {_shown(found)}")
        made = tuple(read(f"{where}[{place}]", entry) for place, entry in enumerate(found))
        for place, (before, after) in enumerate(pairwise(map(key, made)), 1):
            if not before < after:
                raise DocumentError(f"{where}[{place}]: expected more than {before}, found {after}")
        return made


def read_document(data: bytes, read: Callable[[Members], _T]) -> _T:
    """What `read` makes of a canonical document, of which it must take all members.

    Raises:
        CanonicalError: if the bytes are not canonical.
        DocumentError: if the members are not those that `read` takes.
    """
    members = Members("", from_canonical(data))
    made = read(members)
    members.done()
    return made


def text_at(where: str, found: Value) -> str:
    """A text of 1 to TEXT_LENGTH_MAX characters."""
    if isinstance(found, str) and 0 < len(found) <= TEXT_LENGTH_MAX:
        return found
    raise DocumentError(
        f"{where}: expected a text of 1 to {TEXT_LENGTH_MAX} characters, found {_shown(found)}"
    )


def choice_at(where: str, found: Value, known: Sequence[str]) -> str:
    """One of the texts that are known."""
    if isinstance(found, str) and found in known:
        return found
    raise DocumentError(f"{where}: expected one of {', '.join(known)}, found {_shown(found)}")


def number_at(where: str, found: Value, at_least: int = 0) -> int:
    """A whole number; true and false are none."""
    if type(found) is int and found >= at_least:
        return found
    raise DocumentError(
        f"{where}: expected a whole number from {at_least} on, found {_shown(found)}"
    )


def require_same(where: str, expected: Value, found: Value) -> None:
    """Raises DocumentError at the first place where `found` differs from `expected`."""
    if isinstance(expected, Mapping):
        members = Members(where, found)
        for name, value in expected.items():
            members.same(name, value)
        members.done()
    elif type(found) is not type(expected) or found != expected:
        raise DocumentError(f"{where}: expected {_shown(expected)}, found {_shown(found)}")


def _shown(value: Value) -> str:
    """A value as an error shows it; of a long one only what it is."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
