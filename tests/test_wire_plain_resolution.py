"""The hot path answers what it answers as the slow path does, and leaves the rest to it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.errors import InvalidValueError
from resolver.query import Query
from resolver.record import HandleValue, Record, Reference, values_from_wire, values_to_wire
from resolver.wire import (
    ENCRYPTED,
    TRUNCATED,
    Credential,
    Envelope,
    ErrorResponse,
    InvalidMessageError,
    Message,
    OpFlag,
    ResolutionRequest,
    ResolutionResponse,
    plain_answer,
    plain_refusal,
    plain_resolution,
    public_values,
    request_body,
    response_body,
)
from tests.recorded_native import all_recorded, captured, of_sdk, readable

QUESTION, ANSWER = captured()[0].data, captured()[1].data
HANDLE = b"88.102.5/ITEM1"
HARMLESS_FLAGS = (
    0,
    OpFlag.RECU,
    OpFlag.CACR,
    OpFlag.KPAL,
    OpFlag.PUBL,
    OpFlag.DNRF,
    OpFlag.RECU_AUTH,
)
# A record as it is stored: times of zero are those of its version.
RECORD = Record.of(
    "88.102.5/X",
    7,
    (
        HandleValue(1, "URL", b"http://a.example/", references=(Reference("88.102.5/Y", 2),)),
        HandleValue(300, "HS_SECKEY", b"secret", permissions=0x0C, timestamp_s=5),
        HandleValue(3, "DESC", "工业".encode(), timestamp_s=1_700_000_000),
    ),
)
STAMPED = replace(RECORD, stamp_s=1_600_000_000)


def slow_answer(question: bytes, record: Record) -> bytes:
    message = Message.from_wire(question)
    asked = request_body(message)
    assert isinstance(asked, ResolutionRequest)
    values = Query().select(record.values)
    return message.reply(
        1, ResolutionResponse(asked.handle, values).to_wire(), site_serial=1
    ).to_wire()


def test_the_recorded_answer_is_built_from_prepared_values() -> None:
    recorded = response_body(Message.from_wire(ANSWER))[0]
    assert isinstance(recorded, ResolutionResponse)
    values = public_values(values_to_wire(recorded.values), 0)
    assert plain_resolution(QUESTION) == (HANDLE, 0x19000000)
    assert plain_answer(QUESTION, HANDLE, 0x19000000, values, 1) == ANSWER


def plain_questions() -> Iterator[bytes]:
    for one in all_recorded():
        if one.from_client and plain_resolution(one.data) is not None:
            yield one.data


def _asks_for_all(message: Message) -> bool:
    body = request_body(message)
    return (
        isinstance(body, ResolutionRequest)
        and not (body.indexes or body.types or message.envelope.session_id)
        and not message.flags & (OpFlag.CERT | OpFlag.RRDG)
        and len(message.to_wire()) <= 512
    )


def test_recorded_questions_of_every_client_are_plain() -> None:
    everything = [one.data for one in readable() if one.from_client and _asks_for_all(one.message)]
    assert list(plain_questions()) == everything
    assert len(everything) == 20
    for sdk, version in (("idis-caict.txt", 0x0203020A), ("idis-teleinfo.txt", 0x020A020B)):
        asked = next(one for one in of_sdk(sdk) if one.message.opcode == 1)
        assert int.from_bytes(asked.data[:4], "big") == version
        assert plain_resolution(asked.data) is not None


def test_every_plain_question_gets_the_answer_of_the_slow_path() -> None:
    prepared = public_values(STAMPED.wire, STAMPED.stamp_s)
    for question in plain_questions():
        plain = plain_resolution(question)
        assert plain is not None
        assert plain_answer(question, *plain, prepared, 1) == slow_answer(question, STAMPED)


def test_every_plain_question_gets_the_refusal_of_the_slow_path() -> None:
    for question in plain_questions():
        plain = plain_resolution(question)
        assert plain is not None
        for text in ("", "That prefix doesn't live here"):
            slow = Message.from_wire(question).reply(
                301, ErrorResponse(text).to_wire(), site_serial=3
            )
            refused = plain_refusal(question, plain[1], 301, 3, text.encode())
            assert refused == slow.to_wire()


@pytest.mark.parametrize("flag", [0, *(1 << bit for bit in range(32))], ids=hex)
def test_flags_that_ask_for_more_are_not_plain(flag: int) -> None:
    question = replace(Message.from_wire(QUESTION), flags=flag).to_wire()
    assert plain_resolution(question) == ((HANDLE, flag) if flag in HARMLESS_FLAGS else None)


def _unusual() -> Iterator[Message]:
    message = Message.from_wire(QUESTION)
    envelope = message.envelope
    yield replace(message, opcode=2)
    yield replace(message, opcode=-1)
    yield replace(message, response_code=1)
    yield replace(message, recursion_count=1)
    yield replace(message, reserved=1)
    yield replace(message, credential_left_out=True)
    yield replace(message, credential=Credential("HS_MAC", "", b""))
    yield replace(message, envelope=replace(envelope, session_id=1))
    yield replace(message, envelope=replace(envelope, sequence=1))
    yield replace(message, envelope=replace(envelope, flags=ENCRYPTED))
    yield replace(message, envelope=replace(envelope, flags=TRUNCATED))
    yield replace(message, envelope=replace(envelope, major=3))
    yield replace(message, envelope=replace(envelope, suggested_major=0))
    for asked in (
        ResolutionRequest("88.102.5/ITEM1", indexes=(1,)),
        ResolutionRequest("88.102.5/ITEM1", types=("URL",)),
        ResolutionRequest("88.102.5/ITEM1", lists_left_out=1),
        ResolutionRequest("88.102.5/ITEM1", lists_left_out=2),
        ResolutionRequest("88.102.5/ITEM1", padding=b"\x00\x00"),
    ):
        yield replace(message, body=asked.to_wire())


def test_what_is_unusual_is_left_to_the_slow_path() -> None:
    assert [one for one in _unusual() if plain_resolution(one.to_wire()) is not None] == []
    for one in _unusual():
        assert Message.from_wire(one.to_wire()).body == one.body


def test_a_question_cut_short_or_with_junk_after_is_left_to_the_slow_path() -> None:
    for size in range(len(QUESTION)):
        assert plain_resolution(QUESTION[:size]) is None
    for junk in (b"\x00", bytes(4), b"junk", QUESTION):
        assert plain_resolution(QUESTION + junk) is None


@given(
    st.integers(0, len(QUESTION) - 1),
    st.sampled_from([b"\x00", b"\x01", b"\x7f", b"\xff", b"\x00\x00\x00\x01"]),
)
def test_what_is_plain_is_read_as_the_slow_path_reads_it(place: int, new: bytes) -> None:
    data = (QUESTION[:place] + new + QUESTION[place + len(new) :])[: len(QUESTION)]
    plain = plain_resolution(data)
    if plain is not None:
        message = Message.from_wire(data)
        assert message.flags == plain[1]
        assert ResolutionRequest(plain[0].decode(errors="replace")) == _read(message, plain[0])


def _read(message: Message, handle: bytes) -> ResolutionRequest:
    try:
        body = request_body(message)
    except InvalidMessageError:
        # Only what is not UTF-8: no identifier is, so it is looked up in vain.
        assert handle.decode(errors="ignore").encode() != handle
        return ResolutionRequest(handle.decode(errors="replace"))
    assert isinstance(body, ResolutionRequest)
    return replace(body, padding=b"")


# Prepared values.


def test_prepared_values_are_the_public_ones_with_their_times() -> None:
    prepared = public_values(STAMPED.wire, STAMPED.stamp_s)
    assert prepared[:4] == b"\x00\x00\x00\x02"
    values = values_from_wire(prepared[4:])
    assert values == Query().select(STAMPED.values)
    assert [value.timestamp_s for value in values] == [1_600_000_000, 1_700_000_000]


def test_a_record_without_public_values_has_none() -> None:
    assert public_values(b"", 1) == bytes(4)
    assert public_values(Record.of("x", 1, RECORD.values[1:2]).wire, 1) == bytes(4)


def test_a_damaged_record_is_not_prepared() -> None:
    starts = [0]
    for value in RECORD.values:
        starts.append(starts[-1] + len(values_to_wire([value])))
    for size in range(len(RECORD.wire)):
        if size not in starts:
            with pytest.raises(InvalidValueError, match=r"value at byte|not fit|references"):
                public_values(RECORD.wire[:size], 1)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.lists(
    st.builds(
        HandleValue,
        index=st.integers(1, 2**31 - 1),
        type=TEXT,
        data=st.binary(max_size=20),
        permissions=st.integers(0, 15),
        timestamp_s=st.sampled_from([0, 1, 2**32 - 1]),
        references=st.lists(st.builds(Reference, TEXT, st.integers(0, 9)), max_size=3).map(tuple),
    ),
    max_size=4,
).map(tuple)


@given(VALUES, TEXT)
def test_any_record_is_answered_as_the_slow_path_does(
    values: tuple[HandleValue, ...], handle: str
) -> None:
    record = replace(Record.of(handle, 1, values), stamp_s=9)
    asked = Message(Envelope(1), 1, ResolutionRequest(handle).to_wire(), flags=OpFlag.PUBL)
    question = asked.to_wire()
    plain = plain_resolution(question)
    assert plain is not None
    prepared = public_values(record.wire, record.stamp_s)
    assert plain_answer(question, *plain, prepared, 1) == slow_answer(question, record)
