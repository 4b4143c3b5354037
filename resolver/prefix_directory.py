"""Which prefixes live here: a table small enough to be held whole by every worker."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from resolver.errors import RegistryUnavailableError
from resolver.identifier import PREFIX_HANDLE_PREFIX, Identifier, fold
from resolver.response_code import ResponseCode

NOT_HERE = "That prefix doesn't live here"


@dataclass(slots=True)
class PrefixState:
    """A prefix that lives here: hosted or run by its enterprise, served or suspended.

    `homed` says that it is no enterprise's, but of the node itself: hosted, and prefixes derived
    from it are answered for here, too. `is_superseded` is set when the table says something else
    of it: what was prepared under the old state is void. Nothing else of a state ever changes.
    """

    key: str
    hosted: bool = True
    suspended: bool = False
    homed: bool = False
    is_superseded: bool = field(default=False, compare=False)


class PrefixDirectory:
    """Every allotted or homed prefix; unknown until it was loaded once."""

    def __init__(self) -> None:
        self._prefixes: dict[str, PrefixState] | None = None

    @property
    def is_known(self) -> bool:
        return self._prefixes is not None

    def replace(self, prefixes: Iterable[PrefixState]) -> None:
        """Take over a new table whole; what it says as before stays the same object."""
        before = self._prefixes or {}
        after: dict[str, PrefixState] = {}
        for state in prefixes:
            known = before.get(state.key)
            after[state.key] = known if known is not None and known == state else state
        for state in before.values():
            if after.get(state.key) is not state:
                state.is_superseded = True
        self._prefixes = after

    def states(self) -> list[PrefixState]:
        """The table, for a copy that survives a restart."""
        return list((self._prefixes or {}).values())

    def responsible(self, identifier: Identifier) -> PrefixState | None:
        """The prefix that answers for `identifier`, or None if it does not live here.

        For a prefix handle that is its prefix or, if that does not live here, the nearest one that
        it is derived from: 88.608 for `0.NA/88.608.5288.1`.

        Raises:
            RegistryUnavailableError: if the table was never loaded: nothing can be said.
        """
        if self._prefixes is None:
            raise RegistryUnavailableError("the table of prefixes was not loaded yet")
        key = identifier.prefix_key
        if key != PREFIX_HANDLE_PREFIX:
            return self._prefixes.get(key)
        key = fold(identifier.suffix)
        found = self._prefixes.get(key)
        if found is None and "/" not in key:
            return next(filter(None, map(self._prefixes.get, derived_from(key))), None)
        return found


def derived_from(prefix_key: str) -> list[str]:
    """The prefixes from which a prefix is derived, nearest first: 88.608, 88 of 88.608.5288."""
    ends = [place for place, character in enumerate(prefix_key) if character == "."]
    return [prefix_key[:end] for end in reversed(ends)]


def handle_of(prefix: str) -> Identifier:
    """The prefix handle of a prefix: `0.NA/88.608` of 88.608."""
    text = f"{PREFIX_HANDLE_PREFIX}/{prefix}"
    return Identifier(text, fold(text), PREFIX_HANDLE_PREFIX, prefix)


def names_prefix(state: PrefixState, identifier: Identifier) -> bool:
    """True if `identifier` is the prefix handle of this very prefix."""
    return identifier.is_prefix_handle and fold(identifier.suffix) == state.key


def refusal(state: PrefixState | None, identifier: Identifier) -> tuple[ResponseCode, str] | None:
    """Why a prefix does not answer for `identifier` here, or None if it does."""
    if state is None:
        return ResponseCode.SERVER_NOT_RESPONSIBLE, NOT_HERE
    if state.suspended:
        return ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix is suspended"
    if not state.hosted and not identifier.is_prefix_handle:
        return ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix is run by its enterprise node"
    return None
