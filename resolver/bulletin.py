"""The bulletin of changes: how an announcement travels, and how a missed one is noticed.

Every announcement carries the next number of its server. Numbers begin anew, anywhere, with every
start of the server and whenever the server loses them.
"""

import orjson

from resolver.entry import Announcements
from resolver.errors import CacheUnavailableError

# Where numbers may begin: far apart, and a double still counts on from there one by one.
FIRST_BITS = 48


def body_to_bytes(announcements: Announcements) -> bytes:
    """The announcements as they follow their number and a blank in a message."""
    return orjson.dumps(announcements)


def message_from_bytes(data: bytes) -> tuple[int, list[tuple[str, str, int]]]:
    """The number of a message, and its announcements.

    Raises:
        CacheUnavailableError: if it is damaged: what it was to say is lost like one that never
            came.
    """
    number, _, body = data.partition(b" ")
    try:
        found = orjson.loads(body)
        return int(number), [(str(topic), str(key), int(version)) for topic, key, version in found]
    except (ValueError, TypeError) as error:
        raise CacheUnavailableError(f"the bulletin is damaged: {error}") from error


class Numbering:
    """The numbers that one subscription has seen; each method is False if something was missed.

    `number` is what the server gave last, asked after the subscription was confirmed.
    """

    def __init__(self, number: int) -> None:
        self._last = number
        # What was said between the confirmation and the question is still to come.
        self._may_repeat = True

    def hears(self, number: int) -> bool:
        """Take note of an announcement."""
        if self._may_repeat and number <= self._last:
            return True
        is_next = number == self._last + 1
        self._last = number
        return is_next

    def asks(self, number: int) -> bool:
        """Take note of what the server gave last, before the bulletin is asked to confirm it."""
        is_same_row = number >= self._last
        if not is_same_row:
            self._last, self._may_repeat = number, True
        return is_same_row

    def confirms(self, number: int) -> bool:
        """Take note that the bulletin has delivered everything up to `number`."""
        is_complete = number <= self._last
        self._last = max(number, self._last)
        self._may_repeat = False
        return is_complete
