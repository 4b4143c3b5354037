"""Which prefixes live here: a table small enough to be held whole by every worker."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from resolver.errors import RegistryUnavailableError
from resolver.identifier import PREFIX_HANDLE_PREFIX, Identifier, fold
from resolver.response_code import ResponseCode


@dataclass(slots=True)
class PrefixState:
    """An allotted prefix: hosted here or run by its enterprise, served or suspended.

    `is_superseded` is set when the table says something else of it: what was prepared under the
    old state is void. Nothing else of a state ever changes.
    """

    key: str
    hosted: bool = True
    suspended: bool = False
    is_superseded: bool = field(default=False, compare=False)


class PrefixDirectory:
    """Every allotted prefix; unknown until it was loaded once."""

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
        """The allotted prefix that answers for `identifier`, or None if it does not live here.

        Raises:
            RegistryUnavailableError: if the table was never loaded: nothing can be said.
        """
        if self._prefixes is None:
            raise RegistryUnavailableError("the table of prefixes was not loaded yet")
        key = identifier.prefix_key
        if key == PREFIX_HANDLE_PREFIX:
            return self._prefixes.get(fold(identifier.suffix))
        return self._prefixes.get(key)


def refusal(state: PrefixState | None, identifier: Identifier) -> tuple[ResponseCode, str] | None:
    """Why a prefix does not answer for `identifier` here, or None if it does."""
    if state is None:
        return ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix doesn't live here"
    if state.suspended:
        return ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix is suspended"
    if not state.hosted and not identifier.is_prefix_handle:
        return ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix is run by its enterprise node"
    return None
