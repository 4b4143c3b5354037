"""What may come back for what was sent to a native door, whatever it was."""

from collections.abc import Iterable

from resolver.session_cipher import decrypted
from resolver.wire import (
    ENVELOPE_SIZE_BYTES,
    Envelope,
    InvalidMessageError,
    Message,
    MessageStream,
    Opcode,
    OpFlag,
    envelope_and_content,
    response_body,
)
from tests.native_asking import NOBODYS

_NO_OPCODE = 0


class FoundError(Exception):
    """What a native door must not do; says what it did."""


class Sent:
    """Messages that were sent, by the number of the request; judges what comes back.

    `key` is that of the session in which they were sent.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        # Opcodes under which each may be answered; None stands for any.
        self._opcodes: dict[int, set[int | None]] = {}
        self._owed: dict[int, int] = {}

    def add(self, data: bytes, plain: Message | None = None) -> None:
        """One message was sent; `plain` is what it says if it is encrypted."""
        asked = plain or _readable(data)
        if asked is None:
            self.add_part(data)
            return
        opcodes = self._opcodes.setdefault(asked.envelope.request_id, set())
        opcodes.add(asked.opcode)
        if asked.opcode == Opcode.RESPONSE_TO_CHALLENGE:
            opcodes.add(None)  # it is the challenged operation that is answered
        if plain is not None:
            opcodes.add(_NO_OPCODE)
        elif asked.is_request:
            number = asked.envelope.request_id
            self._owed[number] = self._owed.get(number, 0) + 1

    def add_part(self, data: bytes) -> None:
        """What is no whole message was sent, or nothing that can be read: it need not be answered,
        and an answer may leave open to what."""
        try:
            envelope: Envelope | None = Envelope.from_wire(data)
        except InvalidMessageError as error:
            envelope = error.envelope
        if envelope is not None:
            opcodes = self._opcodes.setdefault(envelope.request_id, set())
            opcodes |= {_opcode_at(data), _NO_OPCODE}

    def add_stream(self, data: bytes) -> None:
        """The whole of what was sent on one connection."""
        stream = MessageStream()
        stream.feed(data)
        try:
            while (message := stream.take()) is not None:
                self.add(message)
                data = data[len(message) :]
        except InvalidMessageError:
            # What can be no message is answered if it names a request, and then nothing more.
            self.add_part(data)

    def judge_stream(self, written: bytes) -> list[Message]:
        """What was written on one connection: whole messages, each of which answers.

        Raises:
            FoundError: if it is anything else.
        """
        stream = MessageStream()
        stream.feed(written)
        replies = []
        try:
            while (reply := stream.take()) is not None:
                replies.append(reply)
        except InvalidMessageError as error:
            raise FoundError(f"written was no message: {error}") from error
        if stream.held_bytes:
            raise FoundError(f"{stream.held_bytes} bytes of no whole message were written")
        return self.judge(replies)

    def judge(self, replies: Iterable[bytes]) -> list[Message]:
        """Replies, each of which must be one message that answers what was sent.

        Raises:
            FoundError: if one is anything else.
        """
        found = [self._read(reply) for reply in replies]
        for reply in found:
            opcodes = self._opcodes.get(reply.envelope.request_id)
            if opcodes is None:
                raise FoundError(f"nobody asked under number {reply.envelope.request_id}: {reply}")
            if None not in opcodes and reply.opcode not in opcodes:
                raise FoundError(f"expected opcode {opcodes}: {reply}")
        return found

    def require_all(self, replies: Iterable[Message], *, once: bool = False) -> None:
        """Every request that can be read was answered; `once` for all that look the same.

        Raises:
            FoundError: if one was not.
        """
        answered: dict[int, int] = {}
        for reply in replies:
            if not reply.flags & OpFlag.CONT:
                number = reply.envelope.request_id
                answered[number] = answered.get(number, 0) + 1
        for number, owed in self._owed.items():
            if answered.get(number, 0) < (1 if once else owed):
                raise FoundError(f"request {number} was not answered: {answered}")

    def _read(self, data: bytes) -> Message:
        try:
            envelope, content = envelope_and_content(data)
            if envelope.is_encrypted:
                # Whichever session it names: a new one is told in the session that it was asked in.
                content = decrypted(self._key or b"", content)
            reply = Message.from_content(envelope, content)
            response_body(reply)
        except ValueError as error:
            raise FoundError(f"no reply that can be read: {error!r}, {data.hex()}") from error
        if reply.is_request:
            raise FoundError(f"a reply that is a request: {reply}")
        if NOBODYS.data in content:
            raise FoundError(f"a value is shown that nobody may read: {reply}")
        return reply


def _readable(data: bytes) -> Message | None:
    """The message in `data`, in the clear, if it is one whole one."""
    try:
        envelope, content = envelope_and_content(data)
        return None if envelope.is_encrypted else Message.from_content(envelope, content)
    except InvalidMessageError:
        return None


def _opcode_at(data: bytes) -> int:
    place = ENVELOPE_SIZE_BYTES
    return int.from_bytes(data[place : place + 4], signed=True)
