"""What is asked for again and again is renewed before anybody has to wait for it.

Without this each entry of the process cache costs a round trip of its own to Redis and PostgreSQL
every minute: with 10,000 of them in use that took a tenth of the process (docs/decisions/0020).
"""

from collections.abc import Callable

from resolver.entry import Entry
from resolver.hot import Hot
from resolver.resolve import RecordSource

# One statement for so many takes PostgreSQL 1 ms, and the process as much to read what it says.
_TOGETHER_MAX = 250
# Of no prefix: what is renewed exists, whatever was registered meanwhile.
_NO_PREFIX = ""


class Renewing:
    """Asks the registry, hundreds at once, whether records are still as the process cache has them.

    Answers that are prepared stay as they are. `outdated` is told of newer versions.
    """

    def __init__(
        self, records: RecordSource, hot: Hot, outdated: Callable[[str, int], None]
    ) -> None:
        self._records = records
        self._hot = hot
        self._outdated = outdated

    async def renew(self, now_s: float) -> None:
        """Renew what will soon not be believed any more and was used since it was learnt.

        Raises:
            RegistryUnavailableError: if the registry is away; entries then end in their time.
        """
        if not self._records.is_up:
            return
        keys = self._hot.due(now_s)
        for first in range(0, len(keys), _TOGETHER_MAX):
            mark = self._hot.mark(_NO_PREFIX)
            records = await self._records.fetch_many(keys[first : first + _TOGETHER_MAX])
            for key, record in records.items():
                self._outdated(key, record.version)
                self._hot.renew(key, Entry(record, now_s), mark)
