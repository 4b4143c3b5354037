"""The table of prefixes as a worker holds it: loaded from PostgreSQL, copied for bad times."""

import logging
from collections.abc import Iterable

import orjson

from registry import homed_prefixes, prefixes
from registry.database import Database
from registry.records import Author
from registry.refusal import RefusalError
from resolver.errors import RegistryUnavailableError
from resolver.identifier import fold
from resolver.prefix_directory import PrefixState

_log = logging.getLogger("idnode")

_AUTHOR = Author("node", "node", "its own prefix")


class PrefixTable:
    """Loads every prefix that lives here; the prefix of the node itself is homed unasked."""

    def __init__(self, database: Database, node_prefix: str | None) -> None:
        self._database = database
        self._node_prefix = node_prefix
        self._is_refused = False

    async def load(self) -> list[PrefixState]:
        """The states of all prefixes.

        Raises:
            RegistryUnavailableError: if PostgreSQL does not answer.
        """
        async with self._database.connection() as connection:
            allotted = await prefixes.load_all(connection)
            homed = await homed_prefixes.load_all(connection)
        states = {fold(prefix): PrefixState(fold(prefix), homed=True) for prefix in homed}
        for prefix in allotted:
            is_hosted = prefix.mode == prefixes.HOSTED
            states[prefix.key] = PrefixState(prefix.key, is_hosted, prefix.is_suspended)
        if self._node_prefix is not None and fold(self._node_prefix) not in states:
            await self._home(self._node_prefix, states)
        return list(states.values())

    async def _home(self, prefix: str, states: dict[str, PrefixState]) -> None:
        """Answer for the prefix of the node at once, and have it written down for the writers."""
        if self._is_refused:
            return
        try:
            await homed_prefixes.home(self._database, prefix, _AUTHOR)
        except RefusalError as error:
            self._is_refused = True
            _log.error("IDNODE_NODE_PREFIX: %s", error)
            return
        except RegistryUnavailableError:
            _log.warning("the prefix of the node cannot be written down yet: %s", prefix)
        states[fold(prefix)] = PrefixState(fold(prefix), homed=True)


def table_to_bytes(states: Iterable[PrefixState]) -> bytes:
    """The table as it is kept in Redis."""
    rows = [(state.key, state.hosted, state.suspended, state.homed) for state in states]
    return orjson.dumps(rows)


def table_from_bytes(data: bytes) -> list[PrefixState]:
    """Inverse of `table_to_bytes`; rows of the release before lack the last field."""
    return [PrefixState(*row) for row in orjson.loads(data)]
