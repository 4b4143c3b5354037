"""What an encrypted session encrypts: recorded messages are read, and damage says nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.errors import InvalidValueError
from resolver.session_cipher import decrypted, encrypted
from resolver.wire import (
    ENVELOPE_SIZE_BYTES,
    Message,
    Opcode,
    envelope_and_content,
    sealed,
)
from tests.recorded_native import NATIVE, captured

KEY = bytes(range(32))
CONTENT = b"header, body and credential"


def recorded_messages() -> list[tuple[bool, bytes]]:
    """The encrypted session of the capture: who sent it, and the message."""
    return [(one.from_client, one.data) for one in captured() if one.is_encrypted]


def recorded_key() -> bytes:
    text = (NATIVE / "session-crypto-check.txt").read_text("utf-8")
    _, key = re.findall(r" key=([0-9a-f]{64})", text)
    return bytes.fromhex(key)


def test_every_recorded_message_is_decrypted_and_its_code_holds() -> None:
    counters: dict[bool, list[int]] = {True: [], False: []}
    without_code = []
    for from_client, data in recorded_messages():
        envelope, content = envelope_and_content(data)
        message = Message.from_content(envelope, decrypted(recorded_key(), content))
        if message.credential is None:
            without_code.append(message.opcode)
            continue
        assert message.is_authenticated_by(recorded_key())
        assert not message.is_authenticated_by(KEY)
        counters[from_client].append(message.credential.session_counter)
    assert counters == {True: [1, 2, 3], False: [1, 2, 3, 4]}
    assert without_code == [Opcode.RESPONSE_TO_CHALLENGE]


def test_a_recorded_message_that_is_encrypted_anew_says_the_same() -> None:
    for _, data in recorded_messages():
        envelope, content = envelope_and_content(data)
        plain = decrypted(recorded_key(), content)
        again = sealed(envelope, encrypted(recorded_key(), plain))
        assert len(again) == len(data)
        assert decrypted(recorded_key(), again[ENVELOPE_SIZE_BYTES:]) == plain


@given(st.binary(max_size=600), st.binary(min_size=32, max_size=32))
def test_what_was_encrypted_is_decrypted(content: bytes, key: bytes) -> None:
    data = encrypted(key, content)
    assert len(data) == 16 + (len(content) // 16 + 1) * 16
    assert decrypted(key, data) == content


def test_the_same_content_is_never_sent_as_the_same_bytes() -> None:
    assert len({encrypted(KEY, CONTENT) for _ in range(100)}) == 100


def test_only_the_first_half_of_the_key_encrypts() -> None:
    assert decrypted(KEY[:16] + bytes(16), encrypted(KEY, CONTENT)) == CONTENT


def _damaged() -> list[bytes]:
    data = encrypted(KEY, CONTENT)
    padding = data[:-17] + bytes((data[-17] ^ 0x55,)) + data[-16:]
    return [b"", data[:15], data[:16], data[:-1], data + b"\x00", padding, data[16:-16]]


def test_damage_is_named_without_saying_what_is_damaged() -> None:
    texts = set()
    for data in _damaged():
        with pytest.raises(InvalidValueError) as raised:
            decrypted(KEY, data)
        texts.add(str(raised.value))
    assert texts == {"encrypted message cannot be read: expected one of this session"}
