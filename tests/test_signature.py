"""Signatures: every recorded one is right, and what is changed, unknown or too large is none."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from gmalg import SM2, SM3
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.signature import (
    DER_SIZE_BYTES_MAX,
    RSA_BITS_MAX,
    SM2_SIGNED_SIZE_BYTES_MAX,
    is_signature_of,
)
from resolver.wire import (
    SIGNED,
    Challenge,
    ChallengeAnswer,
    DhPublicKey,
    DsaPublicKey,
    ResolutionResponse,
    RsaPublicKey,
    SignatureAnswer,
    SiteResponse,
    request_body,
    response_body,
)
from tests.recorded_native import IDIS, Recorded, captured, of_sdk, readable

TRANSCRIPT = Path(__file__).parent / "data" / "vectors" / "http-9.3.1.txt"
# In a header and in JSON.
SERVER_SIGNATURE = re.compile(
    r'nonce[":=]+([\w+/=]+)[", ]+serverAlg[":=]+([\w-]+)[", ]+serverSignature[":=]+([\w+/=]+)'
)
SIGNED_BYTES = b"nonce and digest"
HANDLE = "88.102.5/管理员"


def counted(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def key_record(name: str, *numbers: bytes) -> bytes:
    """A public key as an HS_PUBKEY value holds it."""
    return counted(name.encode()) + b"\x00\x00" + b"".join(map(counted, numbers))


# What real servers and clients signed.


def _responses() -> Iterator[object]:
    for one in captured():
        if not one.from_client and not one.is_encrypted:
            yield response_body(one.message)[0]


def server_key() -> bytes:
    site = next(body.site for body in _responses() if isinstance(body, SiteResponse))
    return site.servers[0].public_key


def admin_key() -> bytes:
    records = (body for body in _responses() if isinstance(body, ResolutionResponse))
    values = (value for body in records for value in body.values if value.type == "HS_PUBKEY")
    return next(values).data


def test_every_recorded_reply_is_signed_by_the_key_of_its_site() -> None:
    signed = 0
    for one in readable():
        credential = one.message.credential
        if credential is None or credential.type != SIGNED:
            continue
        data = one.message.signed_bytes(credential.session_counter)
        assert is_signature_of(server_key(), credential.algorithm, credential.signature, data)
        assert not is_signature_of(admin_key(), credential.algorithm, credential.signature, data)
        assert not is_signature_of(server_key(), credential.algorithm, credential.signature, b"")
        signed += 1
    assert signed == 6


def _signature_answers(group: tuple[Recorded, ...]) -> Iterator[tuple[SignatureAnswer, bytes]]:
    """Answers with a public key, and the challenge: nonce and digest."""
    challenges: dict[int, bytes] = {}
    for one in group:
        if one.is_encrypted:
            continue
        session_id = one.message.envelope.session_id
        if one.from_client:
            answer = request_body(one.message)
            if isinstance(answer, ChallengeAnswer) and answer.authentication_type == "HS_PUBKEY":
                yield SignatureAnswer.from_wire(answer.signed), challenges[session_id]
        else:
            body, digest = response_body(one.message)
            if isinstance(body, Challenge) and digest is not None:
                challenges[session_id] = body.nonce + digest.digest


@pytest.mark.parametrize(
    ("group", "count"),
    [(captured(), 4), (of_sdk("idis-caict.txt"), 1), (of_sdk("idis-teleinfo.txt"), 2)],
    ids=["Handle.Net", *IDIS],
)
def test_every_recorded_answer_to_a_challenge_is_signed_by_its_key(
    group: tuple[Recorded, ...], count: int
) -> None:
    answers = list(_signature_answers(group))
    assert len(answers) == count
    for answer, challenge in answers:
        assert is_signature_of(admin_key(), answer.algorithm, answer.signature, challenge)
        assert not is_signature_of(admin_key(), answer.algorithm, answer.signature, challenge[:-1])


def test_the_recorded_server_signs_its_own_and_the_clients_nonce_over_http() -> None:
    text = TRANSCRIPT.read_text("utf-8")
    key = _transcript_key(text)
    client_nonce = base64.b64decode("AAECAwQFBgcICQoLDA0ODw==")
    found = SERVER_SIGNATURE.findall(text)
    assert len(found) >= 2
    for nonce, algorithm, signature in found:
        signed = base64.b64decode(nonce) + client_nonce
        assert is_signature_of(key, algorithm, base64.b64decode(signature), signed)


def _transcript_key(text: str) -> bytes:
    (modulus,) = set(re.findall(r'"publicKey":.{0,60}?"n":"([\w-]+)"', text))
    padded = modulus + "=" * (-len(modulus) % 4)
    return RsaPublicKey(65_537, int.from_bytes(base64.urlsafe_b64decode(padded))).to_wire()


# Every kind of key.


@dataclass(frozen=True)
class Signing:
    """A key, and what it signed."""

    key: bytes
    algorithm: str
    signature: bytes

    def is_accepted(self, signed: bytes = SIGNED_BYTES, signer: str = HANDLE) -> bool:
        return is_signature_of(self.key, self.algorithm, self.signature, signed, signer=signer)


RSA_KEY = rsa.generate_private_key(65_537, 1_024)
DSA_KEY = dsa.generate_private_key(1_024)
ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
SM2_SECRET = bytes.fromhex("3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8")
SM2_POINT = bytes.fromhex(
    "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
    "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
)
SM2_X, SM2_Y = SM2_POINT[:32], SM2_POINT[32:]


def rsa_signing(algorithm: str, digest: hashes.HashAlgorithm) -> Signing:
    public = RSA_KEY.public_key().public_numbers()
    signature = RSA_KEY.sign(SIGNED_BYTES, padding.PKCS1v15(), digest)
    return Signing(RsaPublicKey(public.e, public.n).to_wire(), algorithm, signature)


def dsa_signing(algorithm: str, digest: hashes.HashAlgorithm) -> Signing:
    public = DSA_KEY.public_key().public_numbers()
    numbers = public.parameter_numbers
    key = DsaPublicKey(numbers.q, numbers.p, numbers.g, public.y).to_wire()
    return Signing(key, algorithm, DSA_KEY.sign(SIGNED_BYTES, digest))


def ed25519_signing() -> Signing:
    public = ED25519_KEY.public_key().public_bytes_raw()
    signature = ED25519_KEY.sign(SIGNED_BYTES)
    return Signing(key_record("ED25519_PUB_KEY", public), "Ed25519", signature)


def sm3(data: bytes) -> bytes:
    digest = SM3()
    digest.update(data)
    return digest.value()


def sm2_signing(key: bytes, algorithm: str = "SM3", *, in_der: bool = True) -> Signing:
    message = sm3(SIGNED_BYTES) if algorithm == "SM3" else SIGNED_BYTES
    r, s = SM2(sk=SM2_SECRET, uid=HANDLE.encode(), pk=b"\x04" + SM2_POINT).sign(message)
    if in_der:
        signature = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
    else:
        signature = r.rjust(32, b"\x00") + s.rjust(32, b"\x00")
    return Signing(key, algorithm, signature)


X509 = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d03420004") + SM2_POINT
SM2_KEY = key_record("SM2_PUB_KEY", b"\x04" + SM2_POINT)
SIGNINGS = {
    "rsa sha-256": rsa_signing("SHA-256", hashes.SHA256()),
    "rsa sha256": rsa_signing("SHA256", hashes.SHA256()),
    "rsa sha-1": rsa_signing("SHA-1", hashes.SHA1()),
    "rsa sha1": rsa_signing("sha1", hashes.SHA1()),
    "dsa sha-1": dsa_signing("SHA-1", hashes.SHA1()),
    "dsa sha-256": dsa_signing("SHA-256", hashes.SHA256()),
    "ed25519": ed25519_signing(),
    "sm2 point": sm2_signing(SM2_KEY),
    "sm2 bare point": sm2_signing(key_record("SM2_PUB_KEY", SM2_POINT)),
    "sm2 x and y": sm2_signing(key_record("SM2_PUB_KEY", SM2_X, SM2_Y)),
    "sm2 x and y with signs": sm2_signing(
        key_record("SM2_PUB_KEY", b"\x00" + SM2_X, b"\x00" + SM2_Y)
    ),
    "sm2 x.509": sm2_signing(key_record("SM2_PUB_KEY", X509)),
    "sm2 two numbers": sm2_signing(SM2_KEY, in_der=False),
    "sm2 of the message": sm2_signing(SM2_KEY, "SM3withSM2"),
}
EVERY_SIGNING = pytest.mark.parametrize("signing", SIGNINGS.values(), ids=SIGNINGS)


@EVERY_SIGNING
def test_what_was_signed_is_signed(signing: Signing) -> None:
    assert signing.is_accepted()


@EVERY_SIGNING
def test_other_bytes_are_not_signed(signing: Signing) -> None:
    assert not signing.is_accepted(SIGNED_BYTES + b"!")


@EVERY_SIGNING
def test_a_changed_signature_is_none(signing: Signing) -> None:
    last = signing.signature[:-1] + bytes((signing.signature[-1] ^ 1,))
    changed = (b"", signing.signature[:-1], signing.signature + b"\x00", last)
    for signature in changed:
        assert not Signing(signing.key, signing.algorithm, signature).is_accepted()


@EVERY_SIGNING
@pytest.mark.parametrize("algorithm", ["", "MD5", "SHA-512", "SM9", "管"])
def test_with_another_algorithm_it_is_none(signing: Signing, algorithm: str) -> None:
    assert not Signing(signing.key, algorithm, signing.signature).is_accepted()


@EVERY_SIGNING
def test_under_another_key_it_is_none(signing: Signing) -> None:
    accepted = [
        name
        for name, other in SIGNINGS.items()
        if Signing(other.key, signing.algorithm, signing.signature).is_accepted()
    ]
    # The same key in another form, or with the other name of its digest.
    kinds = {name.split()[0] for name, one in SIGNINGS.items() if one is signing}
    assert {name.split()[0] for name in accepted} == kinds


@EVERY_SIGNING
def test_a_damaged_key_signs_nothing(signing: Signing) -> None:
    for size in range(0, len(signing.key), 7):
        assert not Signing(signing.key[:size], signing.algorithm, b"").is_accepted()
        cut = Signing(signing.key[:size], signing.algorithm, signing.signature)
        assert not cut.is_accepted()
    longer = Signing(signing.key + b"\x01", signing.algorithm, signing.signature)
    assert not longer.is_accepted()


def test_md5_is_refused_however_right_it_is() -> None:
    assert rsa_signing("MD5", hashes.MD5()).is_accepted() is False


def test_a_key_that_does_not_sign_signs_nothing() -> None:
    exchange = DhPublicKey(5, 2**1024 + 1, 2).to_wire()
    assert not is_signature_of(exchange, "SHA-256", bytes(64), SIGNED_BYTES)


# Keys as large and as odd as strangers may make them.


@pytest.mark.parametrize(
    ("exponent", "modulus"),
    [
        (3, 2**1023 - 1),
        (65_537, (1 << RSA_BITS_MAX) + 1),
        ((1 << 64) + 1, 2**2048 - 1),
        (65_537, 2**2048 - 2),
        (65_536, 2**2048 - 1),
        (1, 2**2048 - 1),
    ],
    ids=["short", "long", "costly", "even", "even exponent", "no exponent"],
)
def test_an_rsa_key_that_nobody_uses_signs_nothing(exponent: int, modulus: int) -> None:
    key = RsaPublicKey(exponent, modulus).to_wire()
    size = (modulus.bit_length() + 7) // 8
    for signature in (bytes(size), b"\x00" * (size - 1) + b"\x01", b"\xff" * size):
        assert not is_signature_of(key, "SHA-256", signature, SIGNED_BYTES)


@pytest.mark.parametrize(
    "key",
    [
        DsaPublicKey(q=2**159 + 1, p=2**1023 + 1, g=2, y=3),
        DsaPublicKey(q=2**160 - 2, p=2**1024 - 2, g=2, y=3),
        DsaPublicKey(q=2**160 - 1, p=2**1024 - 1, g=1, y=1),
        DsaPublicKey(q=2**160 - 1, p=2**1024 - 1, g=2**1024, y=2**1024),
        DsaPublicKey(q=1, p=1, g=1, y=1),
        DsaPublicKey(q=2**256 - 1, p=2**8000 - 1, g=2, y=3),
    ],
    ids=["composite", "even", "one", "too large", "tiny", "long"],
)
def test_a_dsa_key_that_is_none_signs_nothing(key: DsaPublicKey) -> None:
    for r, s in ((1, 1), (2**150, 2**150), (key.q, 1), (1, key.q)):
        signature = encode_dss_signature(r, s)
        assert not is_signature_of(key.to_wire(), "SHA-256", signature, SIGNED_BYTES)


def test_a_long_dsa_signature_is_none() -> None:
    signing = SIGNINGS["dsa sha-1"]
    long = encode_dss_signature(1 << 8 * DER_SIZE_BYTES_MAX, 1)
    assert not Signing(signing.key, "SHA-1", long).is_accepted()


# SM2.


def test_the_example_of_the_sm2_standard_is_right() -> None:
    # GB/T 32918.5-2017, annex A.2.
    r = bytes.fromhex("f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3")
    s = bytes.fromhex("b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa")
    example = Signing(SM2_KEY, "SM3withSM2", r + s)
    assert example.is_accepted(b"message digest", "1234567812345678")
    assert not example.is_accepted(b"message digest", "1234567812345679")
    assert not example.is_accepted(b"message digest", "")


def test_an_sm2_signature_is_that_of_one_handle() -> None:
    assert not SIGNINGS["sm2 point"].is_accepted(signer=HANDLE + "2")
    assert not SIGNINGS["sm2 point"].is_accepted(signer="\ud800")


@pytest.mark.parametrize("form", [(SM2_X, SM2_X), (SM2_POINT[1:] + b"\x00",), (bytes(64),), (b"",)])
def test_a_key_off_the_curve_signs_nothing(form: tuple[bytes, ...]) -> None:
    signature = SIGNINGS["sm2 point"].signature
    assert not Signing(key_record("SM2_PUB_KEY", *form), "SM3", signature).is_accepted()


@pytest.mark.parametrize(("r", "s"), [(0, 1), (1, 0), (2**256 - 1, 1), (1, 2**256 - 1)])
def test_sm2_numbers_outside_the_order_are_no_signature(r: int, s: int) -> None:
    for signature in (encode_dss_signature(r, s), r.to_bytes(32) + s.to_bytes(32)):
        assert not Signing(SM2_KEY, "SM3", signature).is_accepted()


def test_sm2_signs_nothing_longer_than_a_message() -> None:
    long = bytes(SM2_SIGNED_SIZE_BYTES_MAX + 1)
    message = sm3(long)
    r, s = SM2(sk=SM2_SECRET, uid=HANDLE.encode(), pk=b"\x04" + SM2_POINT).sign(message)
    signature = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
    assert not Signing(SM2_KEY, "SM3", signature).is_accepted(long)


def test_the_example_of_the_ed25519_standard_is_right() -> None:
    # RFC 8032 §7.1, test 1: the empty message.
    key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    record = key_record("ED25519_PUB_KEY", bytes.fromhex(key))
    assert is_signature_of(record, "Ed25519", signature, b"")
    assert not is_signature_of(record, "Ed25519", signature, b"\x00")


NAMES = ["RSA_PUB_KEY", "DSA_PUB_KEY", "SM2_PUB_KEY", "ED25519_PUB_KEY", "DH_PUB_KEY", "X"]
ALGORITHMS = ["SHA-256", "SHA-1", "SM3", "SM3withSM2", "Ed25519", "MD5"]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.lists(st.binary(max_size=140), max_size=5),
    st.sampled_from(ALGORITHMS),
    st.binary(max_size=140),
)
def test_any_bytes_are_refused_without_an_error(
    name: str, numbers: list[bytes], algorithm: str, signature: bytes
) -> None:
    key = key_record(name, *numbers)
    # Not always no: of a key of order 4 (Ed25519) anything may be a signature.
    answer = is_signature_of(key, algorithm, signature, SIGNED_BYTES, signer=HANDLE)
    assert answer is False or (name, algorithm) == ("ED25519_PUB_KEY", "Ed25519")
