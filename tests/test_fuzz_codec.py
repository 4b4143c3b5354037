"""The trial of the fuzzer: it holds for damaged recordings, and it notices what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import fuzz_codec
from loadtest.fuzz_codec import FoundError, read_everything
from resolver.wire import Message
from tests.recorded_native import readable

RECORDED = [one.data for one in readable() if len(one.data) <= 4096]


@pytest.mark.parametrize("size", range(0, 120, 7))
def test_recorded_messages_cut_short_are_messages_or_errors(size: int) -> None:
    for message in RECORDED:
        read_everything(message[:size])
        read_everything(message[size:])


@given(st.sampled_from(RECORDED), st.data())
def test_recorded_messages_with_changed_bytes_are_messages_or_errors(
    message: bytes, data: st.DataObject
) -> None:
    changed = bytearray(message)
    for place in data.draw(st.lists(st.integers(0, len(message) - 1), max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    read_everything(bytes(changed))


def test_what_is_not_written_back_as_it_was_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_codec, "Message", _Forgetful)
    with pytest.raises(FoundError, match="not written back"):
        read_everything(RECORDED[0])


class _Forgetful(Message):
    def to_wire(self) -> bytes:
        return super().to_wire()[:-1]
