"""Who administers: one key of a handle, such as `300:88.102.5/ADMIN`."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from resolver import identifier
from resolver.errors import InvalidIdentifierError
from resolver.identifier import PREFIX_HANDLE_PREFIX, fold
from resolver.record import INDEX_MAX

# An index has at most ten digits: a longer text is not even looked at as a number.
_FORM = re.compile(r"([0-9]{1,10})(:|%3[Aa])(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """The key at `index` of `handle`; index 0 is any key of that handle.

    Two are equal if their indexes are, and their handles by `handle_key`.
    """

    handle: str
    index: int

    @classmethod
    def from_text(cls, text: str) -> "Identity":
        """Inverse of `str`; the colon may be written as `%3A`, a percent sign then as `%25`.

        Raises:
            InvalidIdentifierError: if it is not index and handle.

        Source: specs §1.5.
        """
        found = _FORM.fullmatch(text)
        if found is None or int(found[1]) > INDEX_MAX:
            raise InvalidIdentifierError(
                "identity is not of the form index:handle, such as 300:88.102.5/ADMIN"
            )
        handle = found[3] if found[2] == ":" else unquote(found[3], errors="surrogateescape")
        identifier.from_text(handle)
        return cls(handle, int(found[1]))

    @property
    def key(self) -> str:
        """The handle as it is compared."""
        return handle_key(self.handle)

    def is_named_by(self, handle: str, index: int) -> bool:
        """True if the reference `index:handle` means this identity; index 0 means any."""
        return index in (0, self.index) and handle_key(handle) == self.key

    def __str__(self) -> str:
        return f"{self.index}:{self.handle}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        return (self.key, self.index) == (other.key, other.index)

    def __hash__(self) -> int:
        return hash((self.key, self.index))


def handle_key(handle: str) -> str:
    """A handle as it is compared: without ASCII case, a slashless name as its prefix handle.

    Any text has one, also what can be no handle.
    """
    return fold(handle) if "/" in handle else f"{PREFIX_HANDLE_PREFIX}/{fold(handle)}"
