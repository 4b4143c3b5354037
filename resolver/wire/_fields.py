"""Writes the fields that Reader reads."""

import struct
from collections.abc import Sequence

from resolver.record import Reference

_I4 = struct.Struct(">i")


def counted(data: bytes) -> bytes:
    """`ba`: an i4 length and that many bytes."""
    return _I4.pack(len(data)) + data


def counted_text(text: str) -> bytes:
    """`ba` holding UTF-8."""
    return counted(text.encode())


def counted_texts(texts: Sequence[str]) -> bytes:
    """An i4 number of texts, and these."""
    return _I4.pack(len(texts)) + b"".join(map(counted_text, texts))


def counted_indexes(indexes: Sequence[int]) -> bytes:
    """An i4 number of indexes, and these."""
    return struct.pack(f">i{len(indexes)}i", len(indexes), *indexes)


def reference_to_wire(reference: Reference) -> bytes:
    """The handle and the index of a reference."""
    return counted_text(reference.handle) + _I4.pack(reference.index)
