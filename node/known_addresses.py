"""Addresses that are known to be real: they have completed a TCP connection lately.

Anybody can write another's address on a datagram, nobody can finish another's handshake. One
mapped file tells it to all workers of a node: the kernel may give a client's connections to one
worker and its datagrams to another.

File layout, native byte order: 16 bytes of key, then 64-bit places. A place holds 40 bits of the
address's keyed hash, then 24 bits of the minute (since 1970) until which it holds; the rest of the
hash chooses the place. A later address takes it over: that one has to connect again.
"""

import fcntl
import hashlib
import mmap
import os
import secrets
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Final

# A client that falls back to TCP when nobody answers its datagrams waits seconds for that: not
# more often than once in an hour. Providers give an address to somebody else after days.
KNOWN_S: Final = 3_600
# More addresses than a node has callers in an hour; 512 kB.
KNOWN_MAX: Final = 65_536

_KEY_SIZE_BYTES: Final = 16
_FILE_SIZE_BYTES: Final = _KEY_SIZE_BYTES + 8 * KNOWN_MAX
_MINUTE_BITS: Final = 24
_MINUTE_MASK: Final = (1 << _MINUTE_BITS) - 1
_MINUTES: Final = KNOWN_S // 60


class KnownAddresses:
    """The addresses that the workers of one node know; `close` at the end."""

    def __init__(self, folder: Path) -> None:
        """Open the file in `folder`, made if it is missing.

        Raises:
            OSError: if the disk is full or cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _opened(folder / "addresses")
        self._map = mmap.mmap(self._file, _FILE_SIZE_BYTES)
        self._key = bytes(self._map[:_KEY_SIZE_BYTES])
        self._places = memoryview(self._map)[_KEY_SIZE_BYTES:].cast("Q")

    def add(self, source: str, now_s: float) -> None:
        """`source` has completed a connection."""
        place, tag = self._place(source)
        self._places[place] = (tag << _MINUTE_BITS) | (int(now_s) // 60 + _MINUTES) & _MINUTE_MASK

    def knows(self, source: str, now_s: float) -> bool:
        """True if `source` has completed a connection in the last hour."""
        place, tag = self._place(source)
        found = self._places[place]
        # The minutes go around. A clock that was set back makes nobody known for longer.
        left = (found - int(now_s) // 60) & _MINUTE_MASK
        return found >> _MINUTE_BITS == tag and left <= _MINUTES

    def close(self) -> None:
        """Let go of the file; it stays for the others, and for the next start."""
        self._places.release()
        self._map.close()
        os.close(self._file)

    def _place(self, source: str) -> tuple[int, int]:
        # Keyed: nobody can choose addresses that push out a certain one.
        digest = hashlib.blake2b(source.encode(), digest_size=8, key=self._key).digest()
        number = int.from_bytes(digest, "big")
        # The tag is never 0, which is what an empty place holds.
        return number % KNOWN_MAX, (number >> _MINUTE_BITS) | 1


def network_of(source: str) -> str:
    """The network that shares what datagrams from nobody known may ask for: a /24, or a /56.

    Source: what DNS servers take together when they limit their answers (BIND, Knot).
    """
    if ":" not in source:
        return source.rpartition(".")[0]
    try:
        address = IPv6Address(source.partition("%")[0])
    except ValueError:
        return source
    return str(IPv6Network((address.packed, 56), strict=False))


def _opened(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_size != _FILE_SIZE_BYTES:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, secrets.token_bytes(_KEY_SIZE_BYTES), 0)
            # Crash here: the file is too short, and made anew.
            # Real blocks, not a hole: a store into a hole on a full disk would kill the process.
            os.posix_fallocate(descriptor, 0, _FILE_SIZE_BYTES)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
