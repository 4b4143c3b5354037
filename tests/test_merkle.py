"""The tree of the log: the known vectors of Certificate Transparency, and every proof of small
trees."""

import hashlib
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.merkle import (
    EMPTY_ROOT,
    Frontier,
    MerkleError,
    Tree,
    is_consistent,
    is_included,
    leaf_hash,
    node_hash,
)

# Source: the reference implementation of RFC 6962 (certificate-transparency, merkle tests).
ENTRIES = tuple(
    map(
        bytes.fromhex,
        (
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ),
    )
)
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"

LEAVES = tuple(map(leaf_hash, ENTRIES))
# Every pair of sizes up to here: beyond two powers of two and a few.
SIZE_MAX = 70
MANY = tuple(leaf_hash(b"%d" % number) for number in range(SIZE_MAX))
TREE = Tree(MANY)


def naive_root(leaves: tuple[bytes, ...]) -> bytes:
    """The definition: RFC 9162 §2.1.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = max(1 << bit for bit in range(len(leaves).bit_length()) if 1 << bit < len(leaves))
    return node_hash(naive_root(leaves[:middle]), naive_root(leaves[middle:]))


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_that_were_published(size: int) -> None:
    assert Tree(LEAVES).root(size).hex() == ROOTS[size]
    assert Frontier.of(LEAVES[:size]).root.hex() == ROOTS[size]


@pytest.mark.parametrize(
    ("index", "size", "proof"),
    [
        (0, 1, []),
        (0, 8, [A, B, C]),
        (5, 8, [D, E, ROOTS[4]]),
        (2, 3, [ROOTS[2]]),
        (1, 5, [ROOTS[1], B, D]),
    ],
)
def test_inclusion_proofs_are_those_that_were_published(
    index: int, size: int, proof: list[str]
) -> None:
    assert [node.hex() for node in Tree(LEAVES).inclusion_proof(index, size)] == proof


@pytest.mark.parametrize(
    ("old_size", "size", "proof"),
    [(1, 1, []), (1, 8, [A, B, C]), (6, 8, [F, E, ROOTS[4]]), (2, 5, [B, D])],
)
def test_consistency_proofs_are_those_that_were_published(
    old_size: int, size: int, proof: list[str]
) -> None:
    assert [node.hex() for node in Tree(LEAVES).consistency_proof(old_size, size)] == proof


def test_an_entry_cannot_pass_for_a_node() -> None:
    left, right = LEAVES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)


@pytest.mark.parametrize("size", range(SIZE_MAX + 1))
def test_every_way_to_a_root_leads_to_the_same(size: int) -> None:
    expected = naive_root(MANY[:size])
    assert TREE.root(size) == Tree(MANY[:size]).root() == expected
    frontier = Frontier.of(MANY[:size])
    assert frontier.root == expected
    assert Frontier(size, frontier.nodes) == frontier
    assert len(frontier.nodes) == size.bit_count()


@pytest.mark.parametrize("size", range(1, SIZE_MAX + 1))
def test_every_leaf_is_included_where_it_is_and_nowhere_else(size: int) -> None:
    root = TREE.root(size)
    for index in range(size):
        proof = TREE.inclusion_proof(index, size)
        assert len(proof) <= (size - 1).bit_length()
        assert is_included(MANY[index], index, size, proof, root)
        for other in {0, index - 1, index + 1, index ^ 2, size - 1, size} - {index}:
            assert not is_included(MANY[index], other, size, proof, root)


@pytest.mark.parametrize("size", range(SIZE_MAX + 1))
def test_every_tree_is_consistent_with_those_before_it(size: int) -> None:
    root = TREE.root(size)
    for old_size in range(size + 1):
        old_root = TREE.root(old_size)
        proof = TREE.consistency_proof(old_size, size)
        assert is_consistent(old_size, size, old_root, root, proof)
        # A smaller tree says nothing of a greater one, and no other root will do.
        assert old_size == size or not is_consistent(size, old_size, root, old_root, proof)
        assert not is_consistent(old_size, size, MANY[3], root, proof)
        assert old_size == 0 or not is_consistent(old_size, size, old_root, MANY[3], proof)
        assert not is_consistent(old_size, size, old_root, root, (*proof, MANY[3]))
        assert not proof or not is_consistent(old_size, size, old_root, root, proof[:-1])


def test_a_root_with_another_history_is_not_consistent() -> None:
    forged = Tree((*MANY[:20], leaf_hash(b"forged"), *MANY[21:40]))
    for old_size, size in product(range(21, 40), range(40, SIZE_MAX + 1)):
        for proof in (
            TREE.consistency_proof(old_size, size),
            forged.consistency_proof(old_size, 40),
        ):
            roots = forged.root(old_size), TREE.root(size)
            assert not is_consistent(old_size, size, *roots, proof)


SIZES = st.integers(1, SIZE_MAX)


def changed(data: st.DataObject, parts: list[bytes]) -> list[bytes]:
    """The parts with one byte of one of them changed."""
    part = data.draw(st.integers(0, len(parts) - 1))
    place = data.draw(st.integers(0, len(parts[part]) - 1))
    other = bytearray(parts[part])
    other[place] ^= data.draw(st.integers(1, 255))
    return [*parts[:part], bytes(other), *parts[part + 1 :]]


@given(SIZES, st.data())
@settings(max_examples=500)
def test_a_changed_byte_of_an_inclusion_is_found(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    parts = [MANY[index], TREE.root(size), *TREE.inclusion_proof(index, size)]
    leaf, root, *proof = changed(data, parts)
    assert not is_included(leaf, index, size, proof, root)


@given(SIZES, st.data())
@settings(max_examples=500)
def test_a_changed_byte_of_a_consistency_is_found(size: int, data: st.DataObject) -> None:
    old_size = data.draw(st.integers(1, size))
    parts = [TREE.root(old_size), TREE.root(size), *TREE.consistency_proof(old_size, size)]
    old_root, root, *proof = changed(data, parts)
    assert not is_consistent(old_size, size, old_root, root, proof)


@given(SIZES, st.data())
def test_a_shorter_or_longer_proof_is_no_proof(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root = TREE.inclusion_proof(index, size), TREE.root(size)
    others = [(*proof, MANY[0]), (MANY[0], *proof), (*proof[:-1], proof[-1][:-1]) if proof else ()]
    if proof:
        others += [proof[:-1], proof[1:]]
    for other in others:
        assert other == proof or not is_included(MANY[index], index, size, other, root)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.integers(0, 40))
def test_a_frontier_kept_anywhere_grows_to_the_same_root(leaves: list[bytes], at: int) -> None:
    kept = Frontier.of(leaves[:at])
    grown = Frontier(kept.size, kept.nodes)
    for leaf in leaves[at:]:
        grown = grown.grown(leaf)
    assert grown.root == naive_root(tuple(leaves))


def test_the_empty_tree_begins_every_tree_and_has_one_root() -> None:
    assert Tree().root() == EMPTY_ROOT
    assert is_consistent(0, 0, EMPTY_ROOT, EMPTY_ROOT, ())
    assert not is_consistent(0, 0, EMPTY_ROOT, MANY[0], ())
    assert not is_consistent(0, 5, MANY[0], TREE.root(5), ())
    assert not is_included(MANY[0], 0, 0, (), EMPTY_ROOT)


def test_what_no_tree_has_is_refused() -> None:
    with pytest.raises(MerkleError, match="2 nodes do not make a tree of 4 leaves"):
        Frontier(4, (MANY[0], MANY[1]))
    with pytest.raises(MerkleError, match="expected hashes of 32 bytes"):
        Frontier(1, (b"short",))
    with pytest.raises(MerkleError, match="expected hashes of 32 bytes"):
        Tree([b"short"])
    with pytest.raises(MerkleError, match="expected a leaf below 3, found 3"):
        TREE.inclusion_proof(3, 3)
    with pytest.raises(MerkleError, match="expected at most 3 leaves, found 4"):
        TREE.consistency_proof(4, 3)
    with pytest.raises(MerkleError, match=f"expected at most {SIZE_MAX} leaves, found 71"):
        TREE.root(71)
