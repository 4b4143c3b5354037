"""Digests of requests: which message a challenge or a reply belongs to."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from resolver.wire._reader import Reader


class DigestAlgorithm(IntEnum):
    """The byte before a digest. MD5 and SHA-1 are read for old clients and never chosen."""

    MD5 = 1
    SHA1 = 2
    SHA256 = 3

    @property
    def size_bytes(self) -> int:
        """Of a digest."""
        return _SIZES_BYTES[self]


ALGORITHMS = {algorithm.value: algorithm for algorithm in DigestAlgorithm}
_HASHES: dict[DigestAlgorithm, Callable[[bytes], bytes]] = {
    DigestAlgorithm.MD5: lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    DigestAlgorithm.SHA1: lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    DigestAlgorithm.SHA256: lambda data: hashlib.sha256(data).digest(),
}
_SIZES_BYTES = {
    DigestAlgorithm.MD5: 16,
    DigestAlgorithm.SHA1: 20,
    DigestAlgorithm.SHA256: 32,
}


def digest_of(data: bytes, algorithm: DigestAlgorithm) -> bytes:
    """The bare digest of `data`: 16, 20 or 32 bytes."""
    return _HASHES[algorithm](data)


@dataclass(frozen=True, slots=True)
class RequestDigest:
    """The digest of a request's header and body, as replies with RRDG begin with it."""

    digest: bytes
    algorithm: DigestAlgorithm = DigestAlgorithm.SHA256

    def to_wire(self) -> bytes:
        return bytes((self.algorithm,)) + self.digest

    @classmethod
    def of(
        cls, header_and_body: bytes, algorithm: DigestAlgorithm = DigestAlgorithm.SHA256
    ) -> "RequestDigest":
        return cls(digest_of(header_and_body, algorithm), algorithm)

    @classmethod
    def from_reader(cls, reader: Reader) -> "RequestDigest":
        """The next digest.

        Raises:
            InvalidValueError: names the byte at which it is damaged.
        """
        algorithm = ALGORITHMS.get(reader.u1())
        if algorithm is None:
            raise reader.damaged("digest algorithm 1, 2 or 3", reader.offset - 1)
        return cls(reader.take(algorithm.size_bytes), algorithm)
