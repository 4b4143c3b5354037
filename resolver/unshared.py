"""No shared cache: what a worker resolves with where the one in Redis is switched off."""

from collections.abc import Sequence

from resolver.entry import Entry, Shelf
from resolver.errors import CacheUnavailableError


class Unshared:
    """Implements SharedCache as one that is always away."""

    is_up = False
    is_trusted = False

    async def get_many(self, keys: Sequence[tuple[str, str]]) -> list[Shelf]:
        """See SharedCache: there is nothing to ask."""
        raise CacheUnavailableError("the shared cache is switched off")

    async def fill(self, entries: Sequence[tuple[str, Entry, str]]) -> None:
        """See SharedCache: there is nothing to fill."""
        raise CacheUnavailableError("the shared cache is switched off")
