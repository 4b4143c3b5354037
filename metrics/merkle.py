"""An append-only Merkle tree over leaf hashes: roots, proofs and their checks.

A leaf hash is SHA-256 over 0x00 and the entry, a node hash SHA-256 over 0x01 and its two
children, so that no entry can pass for a node. All hashes are 32 bytes.

Source: RFC 9162 §2.1.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

HASH_SIZE_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()
"""The root of a tree without leaves."""


class MerkleError(ValueError):
    """Hashes or places that no tree has; says what was expected."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash under which `entry` hangs in the tree."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two neighbours."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree of `size` leaves, of which only its right edge is kept.

    `nodes` are the roots of the complete subtrees that the leaves fall into, left to right: one
    for each bit of `size` that is set, of as many leaves. That is all that appending needs.

    Raises:
        MerkleError: if the nodes cannot be those of so many leaves.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.nodes) != self.size.bit_count():
            raise MerkleError(f"{len(self.nodes)} nodes do not make a tree of {self.size} leaves")
        _require_hashes(self.nodes)

    @classmethod
    def of(cls, leaves: Iterable[bytes]) -> "Frontier":
        """The frontier of the tree of these leaf hashes."""
        return reduce(cls.grown, leaves, cls())

    def grown(self, leaf: bytes) -> "Frontier":
        """The tree with one more leaf hash: as many new nodes as `size` ends in set bits."""
        nodes, size = [*self.nodes, leaf], self.size
        while size & 1:
            right, left = nodes.pop(), nodes.pop()
            nodes.append(node_hash(left, right))
            size >>= 1
        return Frontier(self.size + 1, tuple(nodes))

    @property
    def root(self) -> bytes:
        """The root of the tree: the nodes joined from the right."""
        if not self.nodes:
            return EMPTY_ROOT
        return reduce(lambda right, left: node_hash(left, right), reversed(self.nodes))


class Tree:
    """All leaf hashes of a log, with what was computed from them.

    Proofs are about the tree of its first `size` leaves, for any size it ever had; each takes
    O(log²) look-ups.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        """Raises MerkleError for what is no hash."""
        # _levels[k][i] is the root of the 2**k leaves from i * 2**k on.
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash at the end."""
        _require_hashes((leaf,))
        height, node = 0, leaf
        self._levels[0].append(node)
        while len(self._levels[height]) % 2 == 0:
            node = node_hash(*self._levels[height][-2:])
            height += 1
            if height == len(self._levels):
                self._levels.append([])
            self._levels[height].append(node)

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` leaves, or over all.

        Raises:
            MerkleError: if there are not so many.
        """
        size = self._size(size)
        return self._subtree(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """What leads from the leaf at `index` to the root over `size` leaves; see `is_included`.

        Raises:
            MerkleError: if there are not so many leaves.

        Source: RFC 9162 §2.1.3.1.
        """
        size = self._size(size)
        if not 0 <= index < size:
            raise MerkleError(f"expected a leaf below {size}, found {index}")
        return tuple(self._path(index, 0, size))

    def consistency_proof(self, old_size: int, size: int | None = None) -> tuple[bytes, ...]:
        """What shows that `size` leaves begin with the first `old_size`; see `is_consistent`.

        Raises:
            MerkleError: if there are not so many leaves.

        Source: RFC 9162 §2.1.4.1.
        """
        size = self._size(size)
        if not 0 <= old_size <= size:
            raise MerkleError(f"expected at most {size} leaves, found {old_size}")
        if old_size in (0, size):
            return ()
        return tuple(self._growth(old_size, 0, size, is_known=True))

    def _size(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise MerkleError(f"expected at most {self.size} leaves, found {size}")
        return size

    def _subtree(self, first: int, last: int) -> bytes:
        """The root over the leaves from `first` up to `last`, as they hang in a tree."""
        count = last - first
        if count & (count - 1) == 0:
            return self._levels[count.bit_length() - 1][first // count]
        middle = first + _split(count)
        return node_hash(self._subtree(first, middle), self._subtree(middle, last))

    def _path(self, index: int, first: int, last: int) -> list[bytes]:
        """The siblings on the way from the leaf at `index` to the root of `first` to `last`."""
        if last - first == 1:
            return []
        middle = first + _split(last - first)
        if index < middle:
            return [*self._path(index, first, middle), self._subtree(middle, last)]
        return [*self._path(index, middle, last), self._subtree(first, middle)]

    def _growth(self, old: int, first: int, last: int, *, is_known: bool) -> list[bytes]:
        """SUBPROOF of the RFC. `is_known`: `first` to `old` is a root that the asker has."""
        if old == last:
            return [] if is_known else [self._subtree(first, last)]
        middle = first + _split(last - first)
        if old <= middle:
            return [
                *self._growth(old, first, middle, is_known=is_known),
                self._subtree(middle, last),
            ]
        return [*self._growth(old, middle, last, is_known=False), self._subtree(first, middle)]


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """True if `leaf` (a leaf hash) is the one at `index` of the `size` leaves under `root`.

    Source: RFC 9162 §2.1.3.2.
    """
    if not 0 <= index < size or not _are_hashes((leaf, *proof)):
        return False
    node, place, last = leaf, index, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            node = node_hash(sibling, node)
            place, last = _above_right_edge(place, last)
        else:
            node = node_hash(node, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and node == root


def is_consistent(
    old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]
) -> bool:
    """True if the `size` leaves under `root` begin with the `old_size` leaves under `old_root`.

    Every tree begins with the empty one and with itself; the proof is empty then.

    Source: RFC 9162 §2.1.4.2.
    """
    if not 0 <= old_size <= size or not _are_hashes(proof):
        return False
    if old_size in (0, size):
        same = EMPTY_ROOT if old_size == 0 else root
        # A tree without leaves has but one root.
        return not proof and old_root == same and (size > 0 or root == EMPTY_ROOT)
    return bool(proof) and _joined(old_size, size, old_root, proof) == (old_root, root)


def _joined(
    old_size: int, size: int, old_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes] | None:
    """The roots, old and new, to which the nodes of a consistency proof join."""
    # An old tree of 2**k leaves is a node of the new one: the proof leaves it out.
    is_node = old_size & (old_size - 1) == 0
    start, *nodes = (old_root, *proof) if is_node else proof
    place, last = old_size - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = start
    for node in nodes:
        if last == 0:
            return None
        if place & 1 or place == last:
            old, new = node_hash(node, old), node_hash(node, new)
            place, last = _above_right_edge(place, last)
        else:
            new = node_hash(new, node)
        place, last = place >> 1, last >> 1
    return (old, new) if last == 0 else None


def _above_right_edge(place: int, last: int) -> tuple[int, int]:
    """Where a node is met again that has no right neighbour on its level and rises alone."""
    while place and not place & 1:
        place, last = place >> 1, last >> 1
    return place, last


def _split(count: int) -> int:
    """The greatest power of two below `count`: as many leaves are on the left."""
    return 1 << (count - 1).bit_length() - 1


def _are_hashes(nodes: Iterable[bytes]) -> bool:
    return all(len(node) == HASH_SIZE_BYTES for node in nodes)


def _require_hashes(nodes: Sequence[bytes]) -> None:
    if not _are_hashes(nodes):
        raise MerkleError(f"expected hashes of {HASH_SIZE_BYTES} bytes")
