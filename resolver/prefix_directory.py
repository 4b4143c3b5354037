"""Which prefixes live here: a table small enough to be held whole by every worker."""

from collections.abc import Iterable
from dataclasses import dataclass

from resolver.errors import RegistryUnavailableError
from resolver.identifier import PREFIX_HANDLE_PREFIX, Identifier, fold
from resolver.response_code import ResponseCode


@dataclass(frozen=True, slots=True)
class PrefixState:
    """An allotted prefix: hosted here or run by its enterprise, served or suspended."""

    key: str
    hosted: bool = True
    suspended: bool = False


class PrefixDirectory:
    """Every allotted prefix; unknown until it was loaded once."""

    def __init__(self) -> None:
        self._prefixes: dict[str, PrefixState] | None = None

    @property
    def is_known(self) -> bool:
        return self._prefixes is not None

    def replace(self, prefixes: Iterable[PrefixState]) -> None:
        """Take over a new table whole."""
        self._prefixes = {prefix.key: prefix for prefix in prefixes}

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
