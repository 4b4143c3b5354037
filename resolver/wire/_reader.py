"""Reads big-endian fields one after the other and says at which byte they end too early."""

import struct

from resolver.errors import InvalidValueError

_U2 = struct.Struct(">H")
_U4 = struct.Struct(">I")
_I4 = struct.Struct(">i")


class Reader:
    """A place in `data`, moved on by every read.

    Every read that `data` cannot satisfy raises InvalidValueError naming `what` and the byte
    offset; no length or count is believed before it is compared with the bytes that are left.
    """

    __slots__ = ("_data", "_what", "offset")

    def __init__(self, data: bytes, what: str, offset: int = 0) -> None:
        self._data = data
        self._what = what
        self.offset = offset

    @property
    def remaining_bytes(self) -> int:
        return len(self._data) - self.offset

    @property
    def rest(self) -> bytes:
        """The bytes that are left, without moving on."""
        return self._data[self.offset :]

    def damaged(self, expected: str, offset: int | None = None) -> InvalidValueError:
        """The error to raise: what is damaged, where, and what was expected there."""
        place = self.offset if offset is None else offset
        return InvalidValueError(f"{self._what} is damaged at byte {place}: expected {expected}")

    def take(self, size_bytes: int) -> bytes:
        """The next `size_bytes` bytes."""
        start = self.offset
        if not 0 <= size_bytes <= len(self._data) - start:
            raise self.damaged(f"{size_bytes} more bytes, {self.remaining_bytes} are left")
        self.offset = start + size_bytes
        return self._data[start : self.offset]

    def u1(self) -> int:
        return self.take(1)[0]

    def u2(self) -> int:
        (number,) = _U2.unpack(self.take(2))
        return int(number)

    def u4(self) -> int:
        (number,) = _U4.unpack(self.take(4))
        return int(number)

    def i4(self) -> int:
        (number,) = _I4.unpack(self.take(4))
        return int(number)

    def counted(self, size_bytes_max: int) -> bytes:
        """`ba`: an i4 length and that many bytes."""
        start = self.offset
        size_bytes = self.i4()
        if not 0 <= size_bytes <= size_bytes_max:
            raise self.damaged(f"a length of 0 to {size_bytes_max}, found {size_bytes}", start)
        return self.take(size_bytes)

    def text(self, size_bytes_max: int) -> str:
        """`ba` holding UTF-8."""
        start = self.offset
        try:
            return self.counted(size_bytes_max).decode()
        except UnicodeDecodeError:
            raise self.damaged("UTF-8 text", start) from None

    def count(self, count_max: int, item_size_bytes_min: int) -> int:
        """An i4 number of items, each of which needs at least `item_size_bytes_min` bytes."""
        start = self.offset
        count = self.i4()
        most = min(count_max, self.remaining_bytes // item_size_bytes_min)
        if not 0 <= count <= most:
            raise self.damaged(f"a count of 0 to {most}, found {count}", start)
        return count

    def padding(self, size_bytes_max: int) -> bytes:
        """All that is left, which may be zero bytes only."""
        rest = self.rest
        if len(rest) > size_bytes_max or rest.strip(b"\x00"):
            raise self.damaged(f"the end or at most {size_bytes_max} zero bytes")
        self.offset += len(rest)
        return rest

    def end(self) -> None:
        """Accept that nothing is left."""
        if self.remaining_bytes:
            raise self.damaged(f"the end, {self.remaining_bytes} bytes are left")
