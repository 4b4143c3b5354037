"""One question to another node, in the native protocol over TCP."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from resolver.response_code import ResponseCode
from resolver.signature import is_signature_of
from resolver.wire import (
    Envelope,
    HandleRequest,
    InvalidMessageError,
    Message,
    MessageStream,
    Opcode,
    OpFlag,
    SiteInfo,
    SiteResponse,
    response_body,
)

# Across the country and back takes a tenth of a second; a node that is busy gets its time.
SITE_TIMEOUT_S = 10.0
# The port that IANA gave to the Handle protocol.
NATIVE_PORT = 2641

# As the reference client asks (recorded), and signed: who answers has the key that its site names.
_EXPIRES_AFTER_S = 12 * 3600
_FLAGS = OpFlag.RECU | OpFlag.CACR | OpFlag.PUBL | OpFlag.CERT
_READ_SIZE_BYTES = 65_536


class UnansweredError(Exception):
    """The other node gave no answer that can be used; says why in one line."""


@dataclass(frozen=True, slots=True)
class ToldSite:
    """A site as its node tells it, and whether the node has signed that with a key of the site."""

    site: SiteInfo
    is_signed: bool


async def site_of(
    host: str, port: int, *, timeout_s: float = SITE_TIMEOUT_S, now_s: float
) -> ToldSite:
    """HS_SITE of the node that answers at `host` and `port`.

    Raises:
        UnansweredError: if it cannot be reached, or answers with anything else, or signs with
            another key than those of its site.

    Source: specs §3.4 (GET_SITE_INFO).
    """
    request = Message(
        Envelope(request_id=secrets.randbits(31)),
        Opcode.GET_SITE_INFO,
        HandleRequest().to_wire(),
        flags=int(_FLAGS),
        expiration_s=int(now_s) + _EXPIRES_AFTER_S,
    )
    try:
        async with asyncio.timeout(timeout_s):
            return _site(request, await _answer(host, port, request))
    except TimeoutError:
        raise UnansweredError(f"no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise UnansweredError(error.strerror or str(error)) from None
    except InvalidMessageError as error:
        raise UnansweredError(f"its answer is no message: {error}") from None


async def _answer(host: str, port: int, request: Message) -> Message:
    async with _connected(host, port) as (reader, writer):
        writer.write(request.to_wire())
        await writer.drain()
        stream = MessageStream()
        while True:
            data = await reader.read(_READ_SIZE_BYTES)
            if not data:
                raise UnansweredError("it closed the connection without an answer")
            stream.feed(data)
            while (whole := stream.take()) is not None:
                message = Message.from_wire(whole)
                if message.envelope.request_id == request.envelope.request_id:
                    return message


@contextlib.asynccontextmanager
async def _connected(
    host: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        # Whoever has answered may hang up as it likes.
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _site(request: Message, answer: Message) -> ToldSite:
    if answer.response_code != ResponseCode.SUCCESS:
        raise UnansweredError(f"it answered with response code {answer.response_code}")
    found, _ = response_body(answer)
    if answer.opcode != request.opcode or not isinstance(found, SiteResponse):
        raise UnansweredError(f"it answered to operation {answer.opcode}, not {request.opcode}")
    return ToldSite(found.site, _is_signed(answer, found.site))


def _is_signed(answer: Message, site: SiteInfo) -> bool:
    """False for an answer without a signature: not every server signs."""
    credential = answer.credential
    if credential is None or not credential.signature:
        return False
    algorithm, signature, signed = credential.algorithm, credential.signature, answer.signed_bytes()
    keys = (server.public_key for server in site.servers)
    if any(is_signature_of(key, algorithm, signature, signed) for key in keys):
        return True
    raise UnansweredError("its answer is signed with another key than its site names")
