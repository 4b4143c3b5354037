"""Answers to challenges and keys of sessions: right, wrong, damaged, and too expensive."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.errors import InvalidValueError
from resolver.wire import (
    DhOffer,
    DhPublicKey,
    DigestAlgorithm,
    DigestAnswer,
    Message,
    Pbkdf2Answer,
    RequestDigest,
    RsaPrivateKey,
    SignatureAnswer,
    secret_answer_from_wire,
)
from tests.recorded_native import captured

SECRET, CHALLENGE = b"secret", bytes(range(48))
# The prime of the recorded sessions, the second Oakley group (RFC 2409 §6.2).
PRIME = int(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e34"
    "04ddef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6"
    "f406b7edee386bfb5a899fa5ae9f24117c4b1fe649286651ece65381ffffffffffffffff",
    16,
)
DH_KEY = DhPublicKey(pow(2, 12345, PRIME), PRIME, 2)
STRETCHED = Pbkdf2Answer.of(SECRET, CHALLENGE, b"salt", iterations=2)

RECORDS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "signature": (SignatureAnswer("SHA-256", bytes(256)).to_wire(), SignatureAnswer.from_wire),
    "md5": (
        DigestAnswer.of(SECRET, CHALLENGE, DigestAlgorithm.MD5).to_wire(),
        secret_answer_from_wire,
    ),
    "sha256": (DigestAnswer.of(SECRET, CHALLENGE).to_wire(), secret_answer_from_wire),
    "pbkdf2": (STRETCHED.to_wire(), secret_answer_from_wire),
    "dh key": (DH_KEY.to_wire(), DhPublicKey.from_wire),
    "dh offer": (DhOffer(DH_KEY).to_wire(), DhOffer.from_wire),
    "private key": (
        RsaPrivateKey(3233, 17, 413, 61, 53, 53, 49, 38).to_wire(),
        RsaPrivateKey.from_wire,
    ),
}
EVERY_RECORD = pytest.mark.parametrize(("data", "from_wire"), RECORDS.values(), ids=RECORDS)


@EVERY_RECORD
def test_a_record_is_written_as_it_was_read(data: bytes, from_wire: Callable[[bytes], Any]) -> None:
    assert from_wire(data).to_wire() == data


@EVERY_RECORD
def test_a_record_cut_short_anywhere_is_damaged(
    data: bytes, from_wire: Callable[[bytes], Any]
) -> None:
    for size in range(len(data)):
        with pytest.raises(InvalidValueError, match="expected"):
            from_wire(data[:size])


@EVERY_RECORD
@pytest.mark.parametrize("junk", [b"\x00", b"junk"])
def test_a_record_with_junk_after_is_damaged(
    data: bytes, from_wire: Callable[[bytes], Any], junk: bytes
) -> None:
    with pytest.raises(InvalidValueError, match="damaged at byte"):
        from_wire(data + junk)


@given(st.binary(max_size=60), st.sampled_from(sorted(RECORDS)))
def test_any_bytes_are_a_record_or_damaged(data: bytes, name: str) -> None:
    whole, from_wire = RECORDS[name]
    for bytes_ in (data, whole[: len(whole) // 2] + data):
        try:
            from_wire(bytes_)
            reason = "expected"
        except InvalidValueError as error:
            reason = str(error)
        assert "expected" in reason


# Digests.


@pytest.mark.parametrize(
    ("algorithm", "name", "first"),
    [
        (DigestAlgorithm.MD5, "md5", 1),
        (DigestAlgorithm.SHA1, "sha1", 2),
        (DigestAlgorithm.SHA256, "sha256", 3),
    ],
)
def test_a_digest_covers_header_and_body_and_names_its_algorithm(
    algorithm: DigestAlgorithm, name: str, first: int
) -> None:
    recorded = captured()[0].data
    digest = Message.from_wire(recorded).digest(algorithm)
    # All but the envelope and the four bytes of no credential.
    assert digest.digest == hashlib.new(name, recorded[20:-4]).digest()
    assert digest.to_wire()[:1] == bytes((first,))
    assert algorithm.size_bytes == len(digest.digest)
    assert RequestDigest.of(recorded[20:-4], algorithm) == digest


# Secret keys.


@pytest.mark.parametrize("algorithm", DigestAlgorithm)
def test_an_answer_of_the_older_kind_is_right_for_one_secret_and_one_challenge(
    algorithm: DigestAlgorithm,
) -> None:
    answer = DigestAnswer.of(SECRET, CHALLENGE, algorithm)
    assert answer.is_of(SECRET, CHALLENGE)
    assert not answer.is_of(b"Secret", CHALLENGE)
    assert not answer.is_of(SECRET, CHALLENGE[:-1] + b"\x00")


@pytest.mark.parametrize("key_bits", [8, 160, 320])
def test_a_stretched_answer_is_right_for_one_secret_and_one_challenge(key_bits: int) -> None:
    answer = Pbkdf2Answer.of(SECRET, CHALLENGE, b"salt", iterations=3, key_bits=key_bits)
    assert answer.is_of(SECRET, CHALLENGE)
    assert not answer.is_of(b"Secret", CHALLENGE)
    assert not answer.is_of(SECRET, CHALLENGE[:-1] + b"\x00")
    for other in (
        replace(answer, salt=b"Salt"),
        replace(answer, iterations=4),
        replace(answer, key_bits=key_bits + 8),
        replace(answer, mac=answer.mac[:-1]),
        replace(answer, mac=b""),
    ):
        assert not other.is_of(SECRET, CHALLENGE)


@pytest.mark.parametrize(
    ("iterations", "key_bits", "message"),
    [
        (0, 160, "1 to 100000 iterations"),
        (-1, 160, "1 to 100000 iterations"),
        (100_001, 160, "1 to 100000 iterations"),
        (10_000, 0, "8 to 320 bits"),
        (10_000, 328, "8 to 320 bits"),
        (10_000, 161, "a multiple of 8"),
    ],
)
def test_an_answer_that_costs_too_much_to_check_is_refused(
    iterations: int, key_bits: int, message: str
) -> None:
    answer = replace(STRETCHED, iterations=iterations, key_bits=key_bits)
    with pytest.raises(InvalidValueError, match=message):
        secret_answer_from_wire(answer.to_wire())


def test_an_answer_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="byte 0: expected algorithm 1, 2, 3 or 34"):
        secret_answer_from_wire(b"\x04" + bytes(32))


# Sessions.


def test_both_sides_agree_on_one_key_of_32_bytes() -> None:
    ours, theirs = 1 << 255 | 99, 1 << 200 | 7
    key = DH_KEY.of_private(ours).session_key(theirs)
    assert key == DH_KEY.of_private(theirs).session_key(ours)
    assert len(key) == 32
    assert key != DH_KEY.of_private(theirs).session_key(ours + 1)


def test_leading_zero_bytes_of_the_secret_are_left_out() -> None:
    # g^1000 is 2^1000: a secret of 126 bytes below a prime of 128.
    assert DhPublicKey(2, PRIME, 2).session_key(1000) == b"\x01" + bytes(31)


def test_a_secret_too_short_for_a_key_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="a secret of at least 32 bytes"):
        DhPublicKey(2, PRIME, 2).session_key(100)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (DhPublicKey(1, PRIME, 2), "y and g of 2 to p - 2"),
        (DhPublicKey(PRIME - 1, PRIME, 2), "y and g of 2 to p - 2"),
        (DhPublicKey(PRIME + 5, PRIME, 2), "y and g of 2 to p - 2"),
        (DhPublicKey(5, PRIME, 1), "y and g of 2 to p - 2"),
        (DhPublicKey(5, PRIME, PRIME - 1), "y and g of 2 to p - 2"),
        (DhPublicKey(5, PRIME - 1, 2), "an odd number"),
        (DhPublicKey(5, PRIME >> 1, 2), "prime of 1023 bits: expected 1024 to 4096"),
        (DhPublicKey(5, 1 << 4096 | 1, 2), "length of 0 to 513|prime of 4097 bits"),
    ],
)
def test_a_key_that_agrees_on_no_secret_is_refused(key: DhPublicKey, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        DhPublicKey.from_wire(key.to_wire())


def test_a_key_of_another_kind_and_an_unknown_cipher_are_refused() -> None:
    data = DH_KEY.to_wire()
    with pytest.raises(InvalidValueError, match="expected DH_PUB_KEY"):
        DhPublicKey.from_wire(data.replace(b"DH_PUB", b"XX_PUB"))
    with pytest.raises(InvalidValueError, match="expected cipher 1, 2 or 3"):
        DhOffer.from_wire(b"\x00\x00\x00\x04" + data)


# Private keys.


def test_a_private_key_behind_a_passphrase_is_refused() -> None:
    data = RECORDS["private key"][0]
    with pytest.raises(InvalidValueError, match="a key without passphrase"):
        RsaPrivateKey.from_wire(b"\x00\x00\x00\x04" + data[4:])


def test_the_numbers_of_a_private_key_are_in_order() -> None:
    key = RsaPrivateKey.from_wire(RECORDS["private key"][0])
    assert key.p * key.q == key.modulus
    assert pow(pow(65, key.public_exponent, key.modulus), key.private_exponent, key.modulus) == 65
    assert (key.coefficient * key.q) % key.p == 1
    assert (key.exponent_p, key.exponent_q) == (413 % 60, 413 % 52)
