"""Recorded messages: read, written again byte for byte, and every digest and signature checked."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from resolver.response_code import ResponseCode
from resolver.wire import (
    SIGNED,
    Challenge,
    ChallengeAnswer,
    DhOffer,
    DhPublicKey,
    LoginRequest,
    Message,
    Opcode,
    OpFlag,
    RequestDigest,
    ResolutionRequest,
    ResolutionResponse,
    RsaPublicKey,
    SessionResponse,
    SessionSetup,
    SignatureAnswer,
    SiteResponse,
    VerificationRequest,
    envelope_and_content,
    packets,
    public_key_from_wire,
    request_body,
    response_body,
    sealed,
    secret_answer_from_wire,
)
from tests.recorded_native import IDIS, NATIVE, Recorded, all_recorded, captured, of_sdk, readable

SECRET = b"secret"
ECHOED_SOMETIMES = int(OpFlag.OVRW | OpFlag.MINT)
# DigestInfo of SHA-256 (RFC 8017 §9.2).
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def test_all_recorded_messages_are_there() -> None:
    assert (len(captured()), sum(one.is_encrypted for one in captured())) == (244, 8)
    assert {name: len(of_sdk(name)) for name in IDIS} == {
        "idis-caict.txt": 24,
        "idis-teleinfo.txt": 44,
    }


def test_every_recorded_message_is_written_as_it_was_read() -> None:
    assert [one.label for one in readable() if one.message.to_wire() != one.data] == []


def test_an_encrypted_message_keeps_its_envelope_and_its_bytes() -> None:
    encrypted = [one.data for one in all_recorded() if one.is_encrypted]
    assert [sealed(*envelope_and_content(data)) for data in encrypted] == encrypted


def test_every_recorded_body_is_written_as_it_was_read() -> None:
    assert [one.label for one in readable() if _body_again(one.message) != one.message.body] == []


def _body_again(message: Message) -> bytes:
    if message.is_request:
        return request_body(message).to_wire()
    body, digest = response_body(message)
    return (b"" if digest is None else digest.to_wire()) + body.to_wire()


def test_every_recorded_message_of_several_packets_is_sent_in_the_same_packets() -> None:
    several = [one for one in captured() if len(one.packets) > 1]
    assert [len(one.packets) for one in several] == [2, 2, 2, 7, 2]
    assert [one.label for one in several if packets(one.data) != list(one.packets)] == []


def test_the_recordings_hold_every_operation_that_clients_send() -> None:
    asked = {one.message.opcode for one in readable() if one.from_client}
    assert asked == set(Opcode) - {
        Opcode.LIST_DERIVED_PREFIXES,  # DO-IRP 3.0
        Opcode.SESSION_TERMINATE,
        Opcode.SESSION_EXCHANGEKEY,
        Opcode.GET_NEXT_TXN_ID,
        Opcode.RETRIEVE_TXN_LOG,
        Opcode.DUMP_HANDLES,
        Opcode.BACKUP_SERVER,
        Opcode.LOGIN_ID_SYSTEM_OLD,
    }


def test_a_login_that_ends_after_its_body_is_read() -> None:
    logins = [one.message for one in readable() if one.message.opcode == Opcode.LOGIN_ID_SYSTEM]
    asked = [message for message in logins if message.is_request]
    assert [message.credential_left_out for message in asked] == [False, True, True]
    for message in asked:
        body = request_body(message)
        assert isinstance(body, LoginRequest)
        assert (body.key.handle, body.key.index) == ("88.102.5/ADMIN", 301)


def test_zero_bytes_after_the_lists_are_remembered() -> None:
    bodies = [request_body(one.message) for one in of_sdk("idis-teleinfo.txt") if one.from_client]
    padded = [body for body in bodies if isinstance(body, ResolutionRequest)]
    assert {body.padding for body in padded} == {bytes(4)}
    assert {body.types for body in padded} == {(), ("URL",), ("HS_SITE",)}


# What a server says to whom.


def _requests(group: tuple[Recorded, ...]) -> dict[int, Message]:
    sent = [one.message for one in group if one.from_client and not one.is_encrypted]
    return {message.envelope.request_id: message for message in sent}


def test_replies_to_recorded_requests_have_the_recorded_envelopes_and_headers() -> None:
    requests, pending = _requests(captured()), dict[int, Message]()
    replies = [one.message for one in captured() if not one.from_client and not one.is_encrypted]
    for recorded in replies:
        envelope = replace(recorded.envelope, flags=0)
        request = requests[envelope.request_id]
        answers: Message | None = None
        if request.opcode == Opcode.RESPONSE_TO_CHALLENGE:
            answers, request = request, pending[request.envelope.session_id]
        if recorded.response_code == ResponseCode.AUTHENTICATION_NEEDED:
            pending[envelope.session_id] = request
        # Handle.Net says OVRW and MINT again in some replies and not in others.
        request = replace(request, flags=request.flags & ~ECHOED_SOMETIMES)
        flags = recorded.flags & ~ECHOED_SOMETIMES
        expected = replace(recorded, envelope=envelope, flags=flags, credential=None)
        assert _reply_again(request, recorded, answers).to_wire() == expected.to_wire()


def _reply_again(request: Message, recorded: Message, answers: Message | None) -> Message:
    body, digest = response_body(recorded)
    reply = request.reply(
        recorded.response_code,
        body.to_wire(),
        site_serial=recorded.site_serial,
        digest=digest,
        session_id=recorded.envelope.session_id,
        answers=answers,
    )
    # Handle.Net reads the clock anew, and is a second later now and then.
    assert recorded.expiration_s - reply.expiration_s in (0, 1)
    return replace(reply, expiration_s=recorded.expiration_s)


# Digests, answers to challenges, signatures, codes and keys.


def _digests(group: tuple[Recorded, ...]) -> Iterator[tuple[Message, RequestDigest]]:
    requests = _requests(group)
    for one in group:
        if not one.from_client and not one.is_encrypted:
            _, digest = response_body(one.message)
            if digest is not None:
                yield requests[one.message.envelope.request_id], digest


@pytest.mark.parametrize(
    ("group", "count"),
    [(captured(), 43), (of_sdk("idis-caict.txt"), 2), (of_sdk("idis-teleinfo.txt"), 5)],
    ids=["capture", "caict", "teleinfo"],
)
def test_every_recorded_request_digest_is_that_of_its_request(
    group: tuple[Recorded, ...], count: int
) -> None:
    digests = list(_digests(group))
    assert len(digests) == count
    assert [one for one, digest in digests if one.digest(digest.algorithm) != digest] == []


def _answers(group: tuple[Recorded, ...]) -> Iterator[tuple[str, ChallengeAnswer, bytes]]:
    """Label, answer, and the challenge: nonce and digest."""
    challenges: dict[int, bytes] = {}
    for one in group:
        if one.is_encrypted:
            continue
        body = request_body(one.message) if one.from_client else response_body(one.message)
        if isinstance(body, ChallengeAnswer):
            yield one.label, body, challenges[one.message.envelope.session_id]
        elif isinstance(body, tuple) and isinstance(body[0], Challenge) and body[1]:
            session_id = one.message.envelope.session_id
            challenges[session_id] = body[0].nonce + body[1].digest


def test_every_recorded_answer_with_a_secret_key_is_right_but_the_wrong_ones() -> None:
    seen = Counter[bool]()
    for label, answer, challenge in _answers(captured()):
        if answer.authentication_type == "HS_SECKEY":
            is_right = secret_answer_from_wire(answer.signed).is_of(SECRET, challenge)
            assert is_right is not label.endswith("badsecret")
            seen[is_right] += 1
    assert seen == {True: 31, False: 2}


def test_every_recorded_answer_with_a_public_key_is_signed_by_it() -> None:
    signed = [
        (SignatureAnswer.from_wire(answer.signed), challenge)
        for group in (captured(), *map(of_sdk, IDIS))
        for _, answer, challenge in _answers(group)
        if answer.authentication_type == "HS_PUBKEY"
    ]
    assert [answer.algorithm for answer, _ in signed] == ["SHA-256"] * 7
    for answer, challenge in signed:
        assert _is_rsa_signature(_admin_key(), answer.signature, challenge)


def test_every_recorded_signed_reply_is_signed_by_the_key_of_its_site() -> None:
    signed = 0
    for one in readable():
        credential = one.message.credential
        if credential is not None and credential.type == SIGNED:
            assert credential.session_counter == 0
            data = one.message.signed_bytes()
            assert _is_rsa_signature(_server_key(), credential.signature, data)
            assert not _is_rsa_signature(_server_key(), credential.signature, data + b"\x00")
            signed += 1
    assert signed == 6


def _admin_key() -> RsaPublicKey:
    bodies = (response_body(one.message)[0] for one in captured() if not one.from_client)
    records = (body for body in bodies if isinstance(body, ResolutionResponse))
    values = (value for body in records for value in body.values if value.type == "HS_PUBKEY")
    key = public_key_from_wire(next(values).data)
    assert isinstance(key, RsaPublicKey)
    return key


def _server_key() -> RsaPublicKey:
    bodies = (response_body(one.message)[0] for one in captured() if not one.from_client)
    site = next(body.site for body in bodies if isinstance(body, SiteResponse))
    key = public_key_from_wire(site.servers[0].public_key)
    assert isinstance(key, RsaPublicKey)
    return key


def _is_rsa_signature(key: RsaPublicKey, signature: bytes, data: bytes) -> bool:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2.2)."""
    size_bytes = (key.modulus.bit_length() + 7) // 8
    info = SHA256_INFO + hashlib.sha256(data).digest()
    padded = b"\x00\x01" + b"\xff" * (size_bytes - len(info) - 3) + b"\x00" + info
    number = pow(int.from_bytes(signature, "big"), key.exponent, key.modulus)
    return number.to_bytes(size_bytes, "big") == padded


def _private_exponents() -> list[int]:
    text = (NATIVE / "scenario-9.3.1.txt").read_text("utf-8")
    return [int(x, 16) for x in re.findall(r"^DHPRIV \S+ x=([0-9a-f]+)", text, re.MULTILINE)]


def _recorded_keys() -> list[bytes]:
    text = (NATIVE / "session-crypto-check.txt").read_text("utf-8")
    return [bytes.fromhex(key) for key in re.findall(r" key=([0-9a-f]{64})", text)]


def test_both_recorded_session_keys_are_agreed_on() -> None:
    bodies = [request_body(one.message) for one in readable() if one.from_client]
    setups = [body for body in bodies if isinstance(body, SessionSetup)]
    replies = [response_body(one.message)[0] for one in readable() if not one.from_client]
    offers = [DhOffer.from_wire(one.data) for one in replies if isinstance(one, SessionResponse)]
    private = _private_exponents()
    assert len(private) == len(setups) == len(offers) == 2
    for x, setup, offer in zip(private, setups, offers, strict=True):
        key = DhPublicKey.from_wire(setup.key)
        assert (key.to_wire(), key.of_private(x)) == (setup.key, key)
        assert (offer.key.p, offer.key.g) == (key.p, key.g)
    keys = [offer.key.session_key(x) for x, offer in zip(private, offers, strict=True)]
    assert keys == _recorded_keys()
    assert [DhOffer.from_wire(offer.to_wire()) for offer in offers] == offers


def test_every_recorded_code_is_made_with_the_key_of_its_session() -> None:
    (key, other), coded = _recorded_keys(), list[Message]()
    for one in readable():
        if one.message.credential is not None and one.message.credential.type != SIGNED:
            coded.append(one.message)
    assert len(coded) == 7
    for message in coded:
        assert message.is_authenticated_by(key)
        assert not message.is_authenticated_by(other)
        assert message.credential is not None
        again = replace(message, credential=None).authenticated(
            key, message.credential.session_counter
        )
        assert again == message


def test_the_recorded_question_about_a_signature_is_answered_yes() -> None:
    bodies = [
        request_body(one.message) for one in captured() if one.from_client and not one.is_encrypted
    ]
    (asked,) = (body for body in bodies if isinstance(body, VerificationRequest))
    answer = secret_answer_from_wire(asked.signed)
    assert answer.is_of(SECRET, asked.nonce + asked.digest)
    assert not answer.is_of(b"Secret", asked.nonce + asked.digest)
