"""The hot path: a plain question is read, and answered, without an object for it.

Whatever is not plain is None here and goes through Message and request_body, which give the same
answer.
"""

import struct

from resolver.response_code import ResponseCode
from resolver.wire._envelope import Envelope
from resolver.wire._opcode import Opcode, OpFlag

_HANDLE_OFFSET = 48
# Envelope, header and the size of the handle. Two fields are read as one where both are known:
# sequence and message size; opcode and response code; recursion count and the reserved byte.
_QUESTION = struct.Struct(">8s4xQQI2xH4xII")
_ANSWER = struct.Struct(">8s4sQQIH2x4sI")
_RESOLUTION = Opcode.RESOLUTION << 32
_SUCCESS = _RESOLUTION | ResponseCode.SUCCESS
# Header without body, and the four bytes of no credential.
_LEAST_CONTENT_SIZE_BYTES = 28
_NO_CREDENTIAL = bytes(4)
# Two empty lists and no credential; one SDK adds four zero bytes to the body.
_TAILS = frozenset((bytes(12), bytes(16)))

# Flags that change nothing about the answer from a record that is at hand.
_PLAIN_FLAGS = (
    OpFlag.RECU | OpFlag.CACR | OpFlag.KPAL | OpFlag.PUBL | OpFlag.DNRF | OpFlag.RECU_AUTH
)
_OTHER_FLAGS = 0xFFFF_FFFF & ~int(_PLAIN_FLAGS)
_AUTH = int(OpFlag.AUTH)
# Every client that is known speaks and suggests 2.0 to 2.11.
_MINORS = range(16)


def _reply_heads() -> dict[bytes, bytes]:
    """What replies begin with, by what requests begin with: versions, no flag, no session."""
    asked = (Envelope(0, minor=a, suggested_minor=b) for a in _MINORS for b in _MINORS)
    return {one.to_wire()[:8]: one.reply().to_wire()[:8] for one in asked}


_REPLY_HEADS = _reply_heads()


def plain_resolution(message: bytes) -> tuple[bytes, int] | None:
    """The handle and the operation flags, if `message` is a plain resolution request.

    `message` is one whole message with its envelope. Plain is: in the clear, outside a session,
    of all values, with no signature, digest or authoritative answer wanted. The handle is as it
    was sent, not checked for UTF-8. Without the flag PUBL, values that are not public are wanted
    as well: only a record that has none may be answered here.
    """
    if len(message) < _HANDLE_OFFSET:
        return None
    head, size_bytes, operation, flags, unusual, body_bytes, handle_bytes = _QUESTION.unpack_from(
        message
    )
    end = _HANDLE_OFFSET + handle_bytes
    if (
        head not in _REPLY_HEADS
        or size_bytes != len(message) - 20
        or operation != _RESOLUTION
        or flags & _OTHER_FLAGS
        or unusual
        or body_bytes != size_bytes - _LEAST_CONTENT_SIZE_BYTES
        or message[end:] not in _TAILS
    ):
        return None
    return message[_HANDLE_OFFSET:end], flags


def plain_answer(
    question: bytes, handle: bytes, flags: int, values: bytes, site_serial: int
) -> bytes:
    """The whole reply to what `plain_resolution` read as `handle` and `flags`.

    `values` are those of `public_values`: prepared once for a record, not for each question.
    """
    body_bytes = 4 + len(handle) + len(values)
    head = _ANSWER.pack(
        _REPLY_HEADS[question[:8]],
        question[8:12],
        _LEAST_CONTENT_SIZE_BYTES + body_bytes,
        _SUCCESS,
        flags | _AUTH,
        site_serial,
        question[36:40],
        body_bytes,
    )
    end = _HANDLE_OFFSET + len(handle)
    return b"".join((head, question[44:end], values, _NO_CREDENTIAL))


def plain_refusal(
    question: bytes, flags: int, response_code: int, site_serial: int, text: bytes = b""
) -> bytes:
    """The whole reply that says no, with the error's `text` in UTF-8."""
    body_bytes = 4 + len(text)
    head = _ANSWER.pack(
        _REPLY_HEADS[question[:8]],
        question[8:12],
        _LEAST_CONTENT_SIZE_BYTES + body_bytes,
        _RESOLUTION | response_code,
        flags | _AUTH,
        site_serial,
        question[36:40],
        body_bytes,
    )
    return b"".join((head, len(text).to_bytes(4, "big"), text, _NO_CREDENTIAL))
