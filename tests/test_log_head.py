"""Signed heads: published vectors of other programs, and whatever is changed is found."""

import base64
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import log_head
from metrics.log_head import (
    SIGNATURES_MAX,
    LogHead,
    LogHeadError,
    Signature,
    SignedHead,
    Verified,
    is_continued,
    opened_head,
    signed_head,
)
from metrics.merkle import EMPTY_ROOT, Tree, leaf_hash
from metrics.note_key import (
    ALGORITHMS,
    COSIGNATURE,
    ED25519,
    SM2_SM3,
    Algorithm,
    NoteKeyError,
    SigningKey,
    VerifierKey,
    bytes_from_base64,
)

NOW_S = 1_795_000_000
ORIGIN = "node.example/days"

# Go, golang.org/x/mod/sumdb/note, note_test.go: keys, a text and its two signatures.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SECRET = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpR"
    "Zb6KE6RyyBwJnAM="
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33"
    "WWd1RvMc+QQ="
)
GO_TEXT = (
    b"If you think cryptography is the answer to your problem,\n"
    b"then you don't know what your problem is.\n"
)

# Torchwood, cmd/litewitness/testdata: a head of a Sigsum log, and the key of that log.
SIGSUM_ORIGIN = (
    "sigsum.org/v1/tree/985ea163f5af026723561354f51f2ebcdcf2af809ce254ccfb64aa9aadd80f90"
)
SIGSUM_HEAD = f"""\
{SIGSUM_ORIGIN}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {SIGSUM_ORIGIN} 7BKT0gOfNZ1J0So9unY3BZtm2YkPIoNYM/dce0Z2avJDs8dxN6ts9bOSwwrVrbjm6P9K3Zxp\
K6jJngOG6YvGGzV/lwo=
""".encode()
SIGSUM_KEY = VerifierKey(
    SIGSUM_ORIGIN,
    ED25519,
    bytes.fromhex("52c05edad1bf5feffa81354faae59a655d9a9a1a793ed2f62c39c26c0be2aecd"),
)

# C2SP tlog-cosignature: the example, whose keys are not given.
SPECIFICATION_HEAD = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhc\
yv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX\
3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
""".encode()

# A witness of the binary transparency log of Android: its key, what it saw, its signature.
ANDROID_HEAD = (
    b"developers.google.com/android/binary_transparency/google1p/0\n"
    b"5\n"
    b"xqaCEZhTGZUuKNA7MpSyxe1WXiiESB2p+crAyzM+Vxo=\n"
)
ANDROID_WITNESS = base64.b64decode("pTPPKyRu6Q3PoMkeY+/sNni0biF4vnVTYRHbVNA31mY=")
ANDROID_SIGNATURE = base64.b64decode(
    "r0xBJQAAAABnkyoLuHgN5KlIUUpZV9hulwsFcgqV5v1CyeIhBZWdkfOJT0ims1LqbYygO5MEl91CGha5sP79K57P7lIGrz7Q"
    "tx8eBw=="
)[4:]

# GB/T 32918.5 annex A: the key on the recommended curve, the message, and a signature.
SM2_SECRET = bytes.fromhex("3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8")
SM2_PUBLIC = bytes.fromhex(
    "04"
    "09F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020"
    "CCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13"
)
SM2_SIGNATURE = bytes.fromhex(
    "F5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3"
    "B1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA"
)

# Ours.
LEAVES = tuple(leaf_hash(b"%d" % day) for day in range(40))
TREE = Tree(LEAVES)
HEAD = LogHead(ORIGIN, 30, TREE.root(30))
LOG_KEY = SigningKey(ORIGIN, ED25519, b"\x01" * 32)
SM2_KEY = SigningKey(ORIGIN, SM2_SM3, SM2_SECRET)
WITNESS = SigningKey("partner.example/witness", COSIGNATURE, b"\x02" * 32)
KEYS = (LOG_KEY, SM2_KEY, WITNESS)
SIGNED = signed_head(HEAD, *KEYS, now_s=NOW_S)


# What others signed


def test_a_key_and_a_signature_of_go_are_the_same_here() -> None:
    key = SigningKey("PeterNeumann", ED25519, PETER_SECRET)
    assert key.verifier_key.to_text() == PETER
    signature = Signature(key.name, key.verifier_key.key_id, key.sign(GO_TEXT, NOW_S))
    assert signature.to_line() == PETER_LINE + "\n"


@pytest.mark.parametrize(("key", "line"), [(PETER, PETER_LINE), (ENOCH, ENOCH_LINE)])
def test_signatures_of_go_are_right(key: str, line: str) -> None:
    signature, verifier = Signature.from_line(line), VerifierKey.from_text(key)
    assert signature.is_by(verifier)
    assert verifier.is_signature(GO_TEXT, signature.signature)
    assert not verifier.is_signature(GO_TEXT[:-1], signature.signature)


def test_the_head_of_a_sigsum_log_is_right() -> None:
    signed = opened_head(SIGSUM_HEAD, [SIGSUM_KEY])
    assert (signed.head.origin, signed.head.size) == (SIGSUM_ORIGIN, 1)
    assert signed.to_bytes() == SIGSUM_HEAD
    with pytest.raises(LogHeadError, match="is false"):
        opened_head(SIGSUM_HEAD.replace(b"\n1\n", b"\n2\n"), [SIGSUM_KEY])


def test_the_example_of_the_specification_reads_and_writes() -> None:
    signed = SignedHead.from_bytes(SPECIFICATION_HEAD)
    assert signed.head.size == 20_852_163
    assert signed.to_bytes() == SPECIFICATION_HEAD
    assert COSIGNATURE.time_s(signed.signatures[1].signature) == 1_679_315_147


def test_the_cosignature_of_a_witness_of_android_is_right() -> None:
    witness = VerifierKey("witness", COSIGNATURE, ANDROID_WITNESS)
    assert witness.is_signature(ANDROID_HEAD, ANDROID_SIGNATURE)
    assert COSIGNATURE.time_s(ANDROID_SIGNATURE) == 1_737_697_803
    other_time = bytes([*ANDROID_SIGNATURE[:7], ANDROID_SIGNATURE[7] ^ 1, *ANDROID_SIGNATURE[8:]])
    assert not witness.is_signature(ANDROID_HEAD, other_time)
    # The same key without a time is another kind of signature.
    assert not VerifierKey("witness", ED25519, ANDROID_WITNESS).is_signature(
        ANDROID_HEAD, ANDROID_SIGNATURE[8:]
    )


def test_the_signature_of_the_sm2_standard_is_right() -> None:
    key = VerifierKey(ORIGIN, SM2_SM3, SM2_PUBLIC)
    assert SM2_KEY.verifier_key == key
    assert key.is_signature(b"message digest", SM2_SIGNATURE)
    assert not key.is_signature(b"message digesT", SM2_SIGNATURE)


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (PETER, ED25519),
        (ENOCH, ED25519),
        ("remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2", COSIGNATURE),
        (SM2_KEY.verifier_key.to_text(), SM2_SM3),
    ],
)
def test_a_verifier_key_reads_and_writes(text: str, algorithm: Algorithm) -> None:
    key = VerifierKey.from_text(text)
    assert key.algorithm == algorithm
    assert key.to_text() == text


def test_no_part_of_a_key_is_a_key() -> None:
    """As Go's tests have it."""
    for first, last in combinations(range(len(PETER) + 1), 2):
        if last - first < len(PETER):
            with pytest.raises(NoteKeyError):
                VerifierKey.from_text(PETER[first:last])


@pytest.mark.parametrize(
    "text",
    [
        *(PETER[:at] + chr(ord(PETER[at]) + 1) + PETER[at + 1 :] for at in range(len(PETER))),
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        PETER.replace("c74f20a3", "C74F20A3"),
        PETER + "\n",
    ],
)
def test_no_mangled_key_is_a_key(text: str) -> None:
    with pytest.raises(NoteKeyError):
        VerifierKey.from_text(text)


@pytest.mark.parametrize("point", [bytes(65), b"\x04" + bytes(64), SM2_PUBLIC[:-1] + b"\x14"])
def test_a_point_off_the_curve_is_no_key(point: bytes) -> None:
    with pytest.raises(NoteKeyError, match="expected one of type 0xff"):
        VerifierKey(ORIGIN, SM2_SM3, point)


@pytest.mark.parametrize("name", ["", "a b", "a\u3000b", "a+b", "a\nb", "a\x00b", "a\u2028b"])
def test_a_name_with_a_space_or_a_plus_is_no_name(name: str) -> None:
    with pytest.raises(NoteKeyError, match="expected one without spaces and plus signs"):
        SigningKey(name, ED25519, b"\x01" * 32)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_key_signs_and_keeps_its_secret_to_itself(algorithm: Algorithm) -> None:
    key = SigningKey.new(ORIGIN, algorithm)
    assert key.secret != SigningKey.new(ORIGIN, algorithm).secret
    assert key.verifier_key.is_signature(b"text", key.sign(b"text", NOW_S))
    assert not key.verifier_key.is_signature(b"text", b"")
    assert repr(key.secret) not in repr(key)
    with pytest.raises(NoteKeyError, match="expected 32 bytes"):
        SigningKey(ORIGIN, algorithm, key.secret[1:])


# Heads


def test_a_signed_head_reads_as_it_was_written() -> None:
    data = SIGNED.to_bytes()
    assert data.startswith(b"node.example/days\n30\n")
    assert SignedHead.from_bytes(data) == SIGNED
    assert opened_head(data, [LOG_KEY.verifier_key, SM2_KEY.verifier_key]) == SIGNED


def test_signatures_say_who_and_when() -> None:
    assert SIGNED.verified(key.verifier_key for key in KEYS) == (
        Verified(LOG_KEY.verifier_key, None),
        Verified(SM2_KEY.verifier_key, None),
        Verified(WITNESS.verifier_key, NOW_S),
    )
    stranger = SigningKey(ORIGIN, ED25519, b"\x03" * 32)
    assert SIGNED.verified([stranger.verifier_key]) == ()


def test_a_later_signature_of_a_key_takes_the_place_of_the_earlier() -> None:
    again = SIGNED.signed_by(WITNESS, now_s=NOW_S + 60)
    assert len(again.signatures) == 3
    assert again.verified([WITNESS.verifier_key])[0].time_s == NOW_S + 60


def test_every_key_of_the_log_must_have_signed() -> None:
    keys = [LOG_KEY.verifier_key, SM2_KEY.verifier_key]
    without = signed_head(HEAD, LOG_KEY, WITNESS, now_s=NOW_S).to_bytes()
    with pytest.raises(LogHeadError, match=f"expected a signature of {ORIGIN}.*found none"):
        opened_head(without, keys)
    with pytest.raises(LogHeadError, match="expected a key of the log, found none"):
        opened_head(SIGNED.to_bytes(), [])


def test_a_head_of_another_log_is_not_taken_for_ours() -> None:
    other = replace(HEAD, origin="node.example/others")
    data = signed_head(other, LOG_KEY, now_s=NOW_S).to_bytes()
    with pytest.raises(LogHeadError, match=f"expected a head of {ORIGIN}, found"):
        opened_head(data, [LOG_KEY.verifier_key])


def test_a_false_signature_of_a_known_key_spoils_the_head() -> None:
    false = replace(SIGNED, head=replace(HEAD, size=31))
    for key in KEYS:
        with pytest.raises(LogHeadError, match=f"{key.verifier_key.key_id.hex()} is false"):
            false.verified([key.verifier_key])


def test_extensions_are_signed_too() -> None:
    head = replace(HEAD, extensions=("one", "two"))
    signed = signed_head(head, LOG_KEY, WITNESS, now_s=NOW_S)
    assert SignedHead.from_bytes(signed.to_bytes()) == signed
    changed = SignedHead.from_bytes(signed.to_bytes().replace(b"two", b"twO"))
    for key in (LOG_KEY, WITNESS):
        with pytest.raises(LogHeadError, match="is false"):
            changed.verified([key.verifier_key])


ROOT = base64.b64encode(HEAD.root).decode()
LINE = SIGNED.signatures[0].to_line()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "expected a text, an empty line"),
        (f"{ORIGIN}\n30\n{ROOT}\n", "expected a text, an empty line"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n", "expected a text, an empty line"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n{LINE}"[:-1], "expected a text, an empty line"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n{LINE}more\n", "expected the line of a signature, found 'more'"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n-{LINE[1:]}", "expected the line of a signature"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n— a+b {LINE.split()[2]}\n", "expected the name of a key"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n— a b {LINE.split()[2]}\n", "expected the line of a signature"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n— a YWJjZA==\n", "expected the line of a signature"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n— a YWJjZGU\n", "expected the line of a signature"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n— a YWJjZGV=\n", "expected the line of a signature"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n{LINE}{LINE}", "expected one signature of .*, found two"),
        (f"{ORIGIN}\n30\n{ROOT}\n\n{LINE * (SIGNATURES_MAX + 1)}", "expected at most 64 signat"),
        (f"{ORIGIN}\n30\n\n{LINE}", "expected at least three lines"),
        (f"\n30\n{ROOT}\n\n{LINE}", "expected at least three lines"),
        (f"{ORIGIN}\n30\n{ROOT}\n\nx\n\n{LINE}", "expected at least three lines"),
        (f"{ORIGIN}\n030\n{ROOT}\n\n{LINE}", "line 2: expected the number of leaves, found '030'"),
        (f"{ORIGIN}\n-1\n{ROOT}\n\n{LINE}", "line 2"),
        (f"{ORIGIN}\n\u0663\n{ROOT}\n\n{LINE}", "line 2"),
        (f"{ORIGIN}\n{2**63}\n{ROOT}\n\n{LINE}", "expected those of a tree"),
        (f"{ORIGIN}\n0\n{ROOT}\n\n{LINE}", "expected that of an empty log"),
        (f"{ORIGIN}\n30\n{ROOT[:-4]}\n\n{LINE}", "line 3: expected a root of 32 bytes"),
        (f"{ORIGIN}\n30\n{ROOT} \n\n{LINE}", "line 3"),
        (f"{ORIGIN}\r\n30\n{ROOT}\n\n{LINE}", r"character 17: expected text, found '\\r'"),
        (b"\xff" + SIGNED.to_bytes(), "byte 0: expected UTF-8"),
    ],
)
def test_any_other_form_of_a_head_is_refused(data: str | bytes, error: str) -> None:
    with pytest.raises(LogHeadError, match=error):
        SignedHead.from_bytes(data if isinstance(data, bytes) else data.encode())


def test_a_head_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_head, "HEAD_SIZE_BYTES_MAX", 100)
    with pytest.raises(LogHeadError, match="expected at most 100 bytes, found"):
        SignedHead.from_bytes(SIGNED.to_bytes())


def test_sixteen_signatures_of_strangers_are_read() -> None:
    strangers = tuple(Signature(f"witness-{n}", bytes(4), bytes(4_900)) for n in range(16))
    crowded = replace(SIGNED, signatures=(*strangers, *SIGNED.signatures))
    opened = opened_head(crowded.to_bytes(), [LOG_KEY.verifier_key])
    assert opened == crowded


@given(st.data())
@settings(max_examples=300)
def test_a_changed_byte_of_a_head_is_found(data: st.DataObject) -> None:
    signed = signed_head(HEAD, LOG_KEY, WITNESS, now_s=NOW_S)
    changed = bytearray(signed.to_bytes())
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    keys = [LOG_KEY.verifier_key, WITNESS.verifier_key]
    try:
        found = SignedHead.from_bytes(bytes(changed)).verified(keys)
    except LogHeadError:
        return
    # A changed name or identifier is that of a stranger, whom nobody believes.
    assert len(found) == 1


@given(st.binary(max_size=64))
def test_base64_has_one_spelling(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert bytes_from_base64(text) == data
    for other in (text + "\n", " " + text, text.rstrip("="), text.replace("A", "A ")):
        assert other == text or bytes_from_base64(other) is None


# Growth


def test_a_log_goes_on_from_head_to_head() -> None:
    new = LogHead(ORIGIN, 40, TREE.root(40))
    proof = TREE.consistency_proof(30, 40)
    assert is_continued(HEAD, new, proof)
    assert is_continued(HEAD, HEAD, ())
    assert is_continued(LogHead(ORIGIN, 0, EMPTY_ROOT), new, ())
    assert not is_continued(new, HEAD, proof)
    assert not is_continued(HEAD, replace(new, origin="node.example/others"), proof)


def test_two_histories_of_one_size_do_not_go_on_from_each_other() -> None:
    forged = Tree((*LEAVES[:29], leaf_hash(b"forged")))
    assert not is_continued(HEAD, LogHead(ORIGIN, 30, forged.root()), ())
