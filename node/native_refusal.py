"""How the native doors say no to a message that they do not read further."""

import struct

from resolver.response_code import ResponseCode
from resolver.wire import InvalidMessageError, Opcode, envelope_and_content, refusal

# Opcode, response code, flags, then serial and recursion, which no reply repeats, expiration.
_HEADER = struct.Struct(">iiI4xI")
_OPCODE = struct.Struct(">i")


def refused(message: bytes, code: ResponseCode, text: str, site_serial: int) -> list[bytes]:
    """The reply `code` to one whole message; none to what is itself a reply, or no message."""
    try:
        envelope, content = envelope_and_content(message)
    except InvalidMessageError:
        return []
    opcode, response_code, flags, expiration_s = 0, 0, 0, 0
    if not envelope.is_encrypted and len(content) >= _HEADER.size:
        opcode, response_code, flags, expiration_s = _HEADER.unpack_from(content)
    if response_code:
        return []
    error = InvalidMessageError(
        text,
        envelope=envelope,
        opcode=opcode,
        flags=flags,
        expiration_s=expiration_s,
        response_code=code,
    )
    return replies_to(error, site_serial)


def replies_to(error: InvalidMessageError, site_serial: int) -> list[bytes]:
    """The reply to what is no message; none if there is nobody to address it to."""
    reply = refusal(error, site_serial=site_serial)
    return [] if reply is None else [reply.to_wire()]


def is_resolution(message: bytes) -> bool:
    """True if a whole message, in the clear, asks for an identifier."""
    return message[20:24] == _OPCODE.pack(Opcode.RESOLUTION)
