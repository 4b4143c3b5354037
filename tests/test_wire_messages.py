"""Messages that are cut short, followed by junk, malformed, or made up."""

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.errors import InvalidValueError
from resolver.record import HandleValue, Reference
from resolver.response_code import ResponseCode
from resolver.wire import (
    COMPRESSED,
    ENCRYPTED,
    ENVELOPE_SIZE_BYTES,
    MAC,
    MESSAGE_SIZE_BYTES_MAX,
    TRUNCATED,
    Challenge,
    ChallengeAnswer,
    CreationResponse,
    Credential,
    DigestAlgorithm,
    EmptyResponse,
    Envelope,
    ErrorResponse,
    HandleList,
    HandleRequest,
    IndexesRequest,
    InvalidMessageError,
    KeyExchange,
    LoginRequest,
    Message,
    MessageStream,
    OpaqueRequest,
    Opcode,
    OpFlag,
    Referral,
    Request,
    RequestDigest,
    ResolutionRequest,
    ResolutionResponse,
    Response,
    SessionResponse,
    SessionSetup,
    SiteInfo,
    SiteResponse,
    ValuesRequest,
    Verification,
    VerificationRequest,
    envelope_and_content,
    refusal,
    request_body,
    response_body,
    sealed,
)
from tests.recorded_native import readable

JUNK = [b"\x00", b"\x01", bytes(17), b"junk", b"\xff" * 8]


def samples() -> dict[str, bytes]:
    """One short recorded message of each kind: opcode, response code, with or without code."""
    found: dict[str, bytes] = {}
    for one in sorted(readable(), key=lambda recorded: len(recorded.data)):
        message = one.message
        vouched = "" if message.credential is None else f" {message.credential.type}"
        name = f"{Opcode(message.opcode).name} {message.response_code}{vouched}"
        found.setdefault(name, one.data)
    return found


SAMPLES = samples()
EVERY_KIND = pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)
QUESTION = SAMPLES["RESOLUTION 0"]


def body_again(message: Message) -> bytes:
    """The body of `message`, read and written."""
    if message.is_request:
        return request_body(message).to_wire()
    body, digest = response_body(message)
    return (b"" if digest is None else digest.to_wire()) + body.to_wire()


def again_or_error(message: Message) -> bytes | InvalidMessageError:
    try:
        return body_again(message)
    except InvalidMessageError as error:
        return error


def is_refused_or_kept(message: Message) -> bool:
    """True if the body is refused; otherwise it must be written as it was read."""
    again = again_or_error(message)
    if isinstance(again, InvalidMessageError):
        assert (again.envelope, again.opcode) == (message.envelope, message.opcode)
        return True
    assert again == message.body
    return False


def test_there_is_a_message_of_every_kind() -> None:
    assert len(SAMPLES) > 40


@EVERY_KIND
def test_a_message_cut_short_anywhere_is_refused(data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(InvalidMessageError, match="expected"):
            Message.from_wire(data[:size])


@EVERY_KIND
def test_a_content_cut_short_anywhere_is_refused_or_written_as_it_was_read(data: bytes) -> None:
    envelope, content = envelope_and_content(data)
    whole = [size for size in range(len(content)) if _is_message(sealed(envelope, content[:size]))]
    # Only the credential may be missing, and only all of it.
    end = len(Message.from_wire(data).header_and_body)
    assert whole == [end] * (end < len(content))


@EVERY_KIND
def test_a_body_cut_short_anywhere_is_refused_or_written_as_it_was_read(data: bytes) -> None:
    message = Message.from_wire(data)
    kept = [
        size
        for size in range(len(message.body))
        if not is_refused_or_kept(replace(message, body=message.body[:size]))
    ]
    # Without one list, without both, without the padding or the text: not more than that.
    assert len(kept) <= 4


@EVERY_KIND
@pytest.mark.parametrize("junk", JUNK, ids=bytes.hex)
def test_junk_after_a_message_is_refused(data: bytes, junk: bytes) -> None:
    with pytest.raises(InvalidMessageError, match="as its envelope says"):
        Message.from_wire(data + junk)
    envelope, content = envelope_and_content(data)
    with pytest.raises(InvalidMessageError, match="is damaged at byte"):
        Message.from_content(envelope, content + junk)


@EVERY_KIND
@pytest.mark.parametrize("junk", JUNK[1:], ids=bytes.hex)
def test_junk_after_a_body_is_refused(data: bytes, junk: bytes) -> None:
    message = Message.from_wire(data)
    assert is_refused_or_kept(replace(message, body=message.body + junk))


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1_000, 65_536])
def test_a_stream_gives_every_message_however_its_bytes_arrive(chunk_bytes: int) -> None:
    sent = list(SAMPLES.values())
    data, stream, received = b"".join(sent), MessageStream(), list[bytes]()
    for start in range(0, len(data), chunk_bytes):
        stream.feed(data[start : start + chunk_bytes])
        received += iter(stream.take, None)
        assert stream.held_bytes < max(map(len, sent))
    assert received == sent
    assert stream.held_bytes == 0


def test_messages_before_junk_are_given_and_the_junk_ends_the_stream() -> None:
    stream = MessageStream()
    stream.feed(QUESTION + QUESTION + b"GET / HTTP/1.1\r\n\r\n  ")
    assert [stream.take(), stream.take()] == [QUESTION, QUESTION]
    for _ in range(2):
        with pytest.raises(InvalidMessageError, match="major version 71") as caught:
            stream.take()
        assert caught.value.ends_stream


def test_a_stream_goes_on_after_a_malformed_message() -> None:
    envelope, content = envelope_and_content(QUESTION)
    stream = MessageStream()
    stream.feed(sealed(envelope, content[:40]) + QUESTION)
    with pytest.raises(InvalidMessageError) as caught:
        Message.from_wire(stream.take() or b"")
    assert not caught.value.ends_stream
    assert stream.take() == QUESTION


# What a refusal says.


def with_bytes(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


@pytest.mark.parametrize(
    ("offset", "new", "message"),
    [
        (0, b"\x00", "major version 0: expected 1 to 3"),
        (0, b"\x04", "major version 4: expected 1 to 3"),
        (16, b"\x00\x04\x00\x01", "message of 262145 bytes: expected at most 262144"),
        (16, b"\xff\xff\xff\xff", "message of 4294967295 bytes: expected at most 262144"),
        (16, b"\x00\x00\x00\x01", r"message has \d+ bytes: expected 1, as its envelope says"),
        (40, b"\xff\xff\xff\xff", "byte 24: expected 4294967295 more bytes"),
        (40, b"\x00\x00\x00\x01", "expected a credential of"),
        (44, b"\xff\xff\xff\xff", "byte 0: expected a length of 0 to 2048, found -1"),
        (44, b"\x00\x00\x00\xff", "byte 4: expected 255 more bytes"),
        (48, b"\xff", "byte 0: expected UTF-8 text"),
        (-12, b"\x00\x00\x00\x02", "expected a count of 0 to"),
        (-8, b"\x7f\xff\xff\xff", "expected a count of 0 to"),
    ],
)
def test_a_malformed_question_is_refused_with_the_place(
    offset: int, new: bytes, message: str
) -> None:
    data = with_bytes(QUESTION, offset % len(QUESTION), new)
    with pytest.raises(InvalidMessageError, match=message) as caught:
        request_body(Message.from_wire(data))
    assert caught.value.response_code == ResponseCode.PROTOCOL_ERROR


def test_a_malformed_request_is_answered_with_its_opcode_and_request_number() -> None:
    question = Message.from_wire(SAMPLES["ADD_VALUE 0"])
    with pytest.raises(InvalidMessageError) as caught:
        request_body(replace(question, body=question.body[:-1]))
    reply = refusal(caught.value, site_serial=7)
    assert reply is not None
    reply = Message.from_wire(reply.to_wire())
    assert (reply.opcode, reply.response_code) == (Opcode.ADD_VALUE, 4)
    assert reply.envelope.request_id == question.envelope.request_id
    assert reply.flags == question.flags | OpFlag.AUTH
    assert reply.expiration_s == question.expiration_s
    assert response_body(reply) == (ErrorResponse(str(caught.value)), None)


def test_an_unknown_operation_is_answered_with_response_code_5() -> None:
    question = replace(Message.from_wire(QUESTION), opcode=-7)
    with pytest.raises(InvalidMessageError, match="opcode -7 is unknown") as caught:
        request_body(question)
    reply = refusal(caught.value, site_serial=1)
    assert reply is not None
    assert (reply.opcode, reply.response_code) == (-7, ResponseCode.OPERATION_NOT_SUPPORTED)


def test_a_compressed_message_is_answered_with_response_code_5() -> None:
    envelope, content = envelope_and_content(QUESTION)
    with pytest.raises(InvalidMessageError, match="compressed") as caught:
        Message.from_content(replace(envelope, flags=COMPRESSED), content)
    assert caught.value.response_code == ResponseCode.OPERATION_NOT_SUPPORTED


def test_bytes_without_an_envelope_are_not_answered() -> None:
    with pytest.raises(InvalidMessageError, match="expected 20 bytes, found 3") as caught:
        Message.from_wire(b"\x02\x0b\x02")
    assert (caught.value.request_id, caught.value.opcode) == (None, None)
    assert refusal(caught.value, site_serial=1) is None


def test_the_opcode_of_a_header_cut_short_is_known_if_it_is_whole() -> None:
    envelope, content = envelope_and_content(QUESTION)
    for size, opcode in ((3, None), (4, 1), (23, 1)):
        with pytest.raises(InvalidMessageError, match="header of 24 bytes") as caught:
            Message.from_content(envelope, content[:size])
        assert caught.value.opcode == opcode


def test_what_is_longer_than_anybody_accepts_is_not_sent() -> None:
    body = bytes(MESSAGE_SIZE_BYTES_MAX - 28)
    longest = Message(Envelope(1), 1000, body)
    assert Message.from_wire(longest.to_wire()).body == body
    with pytest.raises(InvalidMessageError, match="send a list in several messages"):
        replace(longest, body=body + b"\x00").to_wire()


# Versions.


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("020b020b", "020b020b"),
        ("0203020a", "020a020b"),  # recorded
        ("020a020b", "020b020b"),  # recorded
        ("02010201", "0201020b"),
        ("01000100", "0100020b"),
        ("03000300", "020b020b"),
        ("02010000", "0201020b"),  # RFC 3652 has message flags there
    ],
)
def test_a_reply_speaks_the_older_of_the_suggested_version_and_ours(
    asked: str, answered: str
) -> None:
    data = with_bytes(QUESTION, 0, bytes.fromhex(asked))
    assert Envelope.from_wire(data).reply().to_wire()[:4].hex() == answered


def test_a_suggested_major_version_has_five_bits() -> None:
    envelope = Envelope(1, suggested_major=31, flags=ENCRYPTED | TRUNCATED)
    assert envelope.to_wire()[2] == 0x7F
    assert Envelope.from_wire(envelope.to_wire()) == envelope


# Anything that can be said is read as it was meant.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BYTES = st.binary(max_size=20)
I4 = st.integers(-(2**31), 2**31 - 1)
U4 = st.integers(0, 2**32 - 1)
U1 = st.integers(0, 255)
PADDING = st.sampled_from([b"", b"\x00\x00", bytes(4), bytes(16)])
REFERENCES = st.builds(Reference, TEXT, I4)
INDEXES = st.lists(I4, max_size=4).map(tuple)
TEXTS = st.lists(TEXT, max_size=4).map(tuple)
VALUES = st.lists(
    st.builds(
        HandleValue,
        index=I4,
        type=TEXT,
        data=BYTES,
        ttl=I4,
        ttl_type=U1,
        permissions=U1,
        timestamp_s=U4,
        references=st.lists(REFERENCES, max_size=2).map(tuple),
    ),
    max_size=3,
).map(tuple)

REQUESTS: st.SearchStrategy[tuple[int, Request]] = st.one_of(
    st.tuples(
        st.sampled_from([Opcode.RESOLUTION, Opcode.LOGIN_ID_SYSTEM_OLD]),
        st.builds(ResolutionRequest, TEXT, INDEXES, TEXTS, st.just(0), PADDING)
        | st.builds(ResolutionRequest, TEXT, INDEXES, lists_left_out=st.just(1))
        | st.builds(ResolutionRequest, TEXT, lists_left_out=st.just(2)),
    ),
    st.tuples(
        st.sampled_from([2, 101, 105, 106, 300, 301, 302, 401]),
        st.builds(HandleRequest, TEXT, PADDING),
    ),
    st.tuples(st.sampled_from([100, 102, 104]), st.builds(ValuesRequest, TEXT, VALUES, PADDING)),
    st.tuples(st.just(103), st.builds(IndexesRequest, TEXT, INDEXES, PADDING)),
    st.tuples(st.just(200), st.builds(ChallengeAnswer, TEXT, REFERENCES, BYTES, PADDING)),
    st.tuples(
        st.just(201), st.builds(VerificationRequest, REFERENCES, BYTES, BYTES, BYTES, PADDING)
    ),
    st.tuples(st.just(2001), st.builds(LoginRequest, REFERENCES, PADDING)),
    st.tuples(
        st.just(400),
        st.builds(SessionSetup, st.sampled_from([1, 4]), I4, REFERENCES, BYTES, padding=PADDING)
        | st.builds(SessionSetup, st.just(3), I4, REFERENCES, key_at=REFERENCES, padding=PADDING),
    ),
    st.tuples(st.just(402), st.builds(KeyExchange, BYTES, PADDING)),
    st.tuples(st.sampled_from([1000, 1001, 1002, 1003]), st.builds(OpaqueRequest, BYTES)),
)

DIGESTS = st.sampled_from(DigestAlgorithm).map(lambda one: RequestDigest.of(b"", one))
SITE = SiteInfo((), hash_filter="f", attributes=(("desc", "x"),))
RESPONSES: st.SearchStrategy[tuple[int, int, Response]] = st.one_of(
    st.tuples(st.just(1), st.just(1), st.builds(ResolutionResponse, TEXT, VALUES)),
    st.tuples(st.just(2), st.just(1), st.just(SiteResponse(SITE))),
    st.tuples(st.just(100), st.just(1), st.builds(CreationResponse, st.none() | TEXT)),
    st.tuples(st.sampled_from([105, 106, 302]), st.just(1), st.builds(HandleList, TEXTS)),
    st.tuples(st.just(201), st.just(1), st.builds(Verification, st.booleans())),
    st.tuples(
        st.just(400), st.just(1), st.builds(SessionResponse, st.integers(0, 65_535), BYTES, PADDING)
    ),
    st.tuples(
        st.sampled_from([101, 102, 103, 104, 300, 301, 401, 402, 2001]),
        st.just(1),
        st.just(EmptyResponse()),
    ),
    st.tuples(I4, st.just(402), st.builds(Challenge, BYTES)),
    st.tuples(I4, st.sampled_from([302, 303]), st.builds(Referral, TEXT, st.none() | VALUES)),
    st.tuples(
        I4,
        I4.filter(lambda code: code not in (0, 1, 302, 303, 402)),
        st.just(ErrorResponse(None))
        | st.builds(ErrorResponse, TEXT)
        | st.builds(ErrorResponse, TEXT, INDEXES),
    ),
)
ENVELOPES = st.builds(
    Envelope,
    request_id=U4,
    session_id=U4,
    sequence=U4,
    major=st.integers(1, 3),
    minor=U1,
    suggested_major=st.integers(0, 31),
    suggested_minor=U1,
    flags=st.sampled_from([0, TRUNCATED, ENCRYPTED, ENCRYPTED | TRUNCATED]),
)
CREDENTIALS = st.builds(
    Credential,
    type=TEXT,
    algorithm=TEXT,
    signature=BYTES,
    session_counter=I4,
    signer=TEXT,
    version=U1,
    reserved=U1,
    options=st.integers(0, 65_535),
)


@given(st.data(), ENVELOPES, REQUESTS)
def test_any_request_comes_back(
    data: st.DataObject, envelope: Envelope, asked: tuple[int, Request]
) -> None:
    opcode, body = asked
    sent = Message(envelope, opcode, body.to_wire(), flags=data.draw(U4))
    received = Message.from_wire(sent.to_wire())
    assert replace(received, envelope=envelope) == sent
    assert request_body(received) == body


@given(RESPONSES, st.none() | DIGESTS)
def test_any_response_comes_back(
    answered: tuple[int, int, Response], digest: RequestDigest | None
) -> None:
    opcode, response_code, body = answered
    if response_code == ResponseCode.AUTHENTICATION_NEEDED:
        digest = digest or RequestDigest.of(b"")
    question = Message(Envelope(5), opcode, flags=OpFlag.RRDG)
    sent = question.reply(response_code, body.to_wire(), site_serial=1, digest=digest)
    assert response_body(Message.from_wire(sent.to_wire())) == (body, digest)


@given(
    st.builds(
        Message,
        ENVELOPES,
        opcode=I4,
        body=BYTES,
        response_code=I4,
        flags=U4,
        site_serial=st.integers(0, 65_535),
        recursion_count=U1,
        expiration_s=U4,
        credential=st.none() | CREDENTIALS,
        reserved=U1,
    )
)
def test_any_message_comes_back(sent: Message) -> None:
    received = Message.from_wire(sent.to_wire())
    assert replace(received, envelope=sent.envelope) == sent


def _is_message(data: bytes) -> bool:
    try:
        message = Message.from_wire(data)
    except InvalidMessageError:
        return False
    assert message.to_wire() == data
    is_refused_or_kept(message)
    return True


@given(st.binary(max_size=120))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    _is_message(data)
    _is_message(sealed(Envelope(1), data))


@settings(max_examples=400)
@given(st.sampled_from(sorted(SAMPLES.values())), st.data())
def test_a_recorded_message_with_other_bytes_is_a_message_or_refused(
    sample: bytes, data: st.DataObject
) -> None:
    envelope, content = envelope_and_content(sample)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(
            st.sampled_from([b"\x00", b"\x01", b"\x7f", b"\xff", bytes(4), b"\xff" * 4])
        )
        content = with_bytes(content, place, new)[: len(content)]
    _is_message(sealed(envelope, content))


@given(st.lists(st.integers(0, 255), max_size=60), st.sampled_from(sorted(Opcode)))
def test_any_body_is_a_request_or_refused(body: list[int], opcode: Opcode) -> None:
    is_refused_or_kept(Message(Envelope(1), opcode, bytes(body)))


# Credentials.

KEY = bytes(range(32))


def _coded() -> Message:
    message = Message.from_wire(SAMPLES["DELETE_HANDLE 0"])
    return replace(message, envelope=replace(message.envelope, session_id=9)).authenticated(KEY, 5)


def test_a_code_covers_every_byte_but_itself() -> None:
    coded = _coded().to_wire()
    signature = _coded().credential
    assert signature is not None
    assert Message.from_wire(coded).is_authenticated_by(KEY)
    start = len(coded) - len(signature.to_wire())
    # Versions, session and request number, header and body.
    for place in (*range(12), *range(ENVELOPE_SIZE_BYTES, start), len(coded) - 1):
        if not _is_authentic(with_bytes(coded, place, bytes((coded[place] ^ 0x01,)))):
            continue
        raise AssertionError(f"byte {place} is not covered")


def _is_authentic(data: bytes) -> bool:
    try:
        return Message.from_wire(data).is_authenticated_by(KEY)
    except InvalidMessageError:
        return False


def test_another_key_counter_or_kind_of_code_does_not_fit() -> None:
    coded = _coded()
    assert coded.credential is not None
    assert not coded.is_authenticated_by(KEY[:-1] + b"\x00")
    for credential in (
        None,
        replace(coded.credential, session_counter=6),
        replace(coded.credential, type="HS_SIGNED"),
        replace(coded.credential, algorithm="HMAC-MD5"),
        replace(coded.credential, signature=coded.credential.signature[:-1]),
        replace(coded.credential, signature=b""),
    ):
        assert not replace(coded, credential=credential).is_authenticated_by(KEY)


def test_a_code_of_sha1_is_checked_as_such() -> None:
    message = replace(_coded(), credential=None)
    signed = message.signed_bytes(2)
    code = Credential.mac_of(signed, KEY, 2, "HMAC-SHA1")
    assert (code.type, len(code.signature)) == (MAC, 20)
    assert replace(message, credential=code).is_authenticated_by(KEY)
    with pytest.raises(InvalidValueError, match="MAC algorithm: expected one of HMAC-SHA256"):
        Credential.mac_of(signed, KEY, 2, "MD5")


def _signed_sample() -> Iterator[bytes]:
    yield from (data for name, data in SAMPLES.items() if "HS_" in name)


def test_a_credential_that_does_not_end_with_the_message_is_refused() -> None:
    seen = 0
    for data in _signed_sample():
        message = Message.from_wire(data)
        assert message.credential is not None
        credential = message.credential.to_wire()
        content = data[ENVELOPE_SIZE_BYTES : len(data) - len(credential)]
        for wrong in (len(credential) - 5, len(credential) - 3, -1):
            broken = content + struct.pack(">i", wrong) + credential[4:]
            with pytest.raises(InvalidMessageError, match="expected a credential of"):
                Message.from_content(message.envelope, broken)
            seen += 1
    assert seen
