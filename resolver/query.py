"""What is asked of a record: which values, and whether public ones only."""

from collections.abc import Iterable
from dataclasses import dataclass

from resolver.identifier import fold
from resolver.record import HandleValue


@dataclass(frozen=True, slots=True)
class Query:
    """A selection of values: the union of `indexes` and `types`; both empty means all.

    A type with a trailing dot means itself and every type below it: `URL.` is `URL` and
    `URL.…` (Handle.Net 9.3.1, recorded).
    """

    indexes: tuple[int, ...] = ()
    types: tuple[str, ...] = ()
    public_only: bool = True

    @property
    def is_plain(self) -> bool:
        return not self.indexes and not self.types and self.public_only

    def select(self, values: Iterable[HandleValue]) -> tuple[HandleValue, ...]:
        """The values asked for, in the order of the record."""
        readable = (value for value in values if value.is_public or not self.public_only)
        if not self.indexes and not self.types:
            return tuple(readable)
        types = [fold(type_) for type_ in self.types]
        return tuple(
            value
            for value in readable
            if value.index in self.indexes or _matches(fold(value.type), types)
        )


def _matches(type_: str, wanted: Iterable[str]) -> bool:
    for want in wanted:
        if want.endswith("."):
            if type_ == want[:-1] or type_.startswith(want):
                return True
        elif type_ == want:
            return True
    return False
