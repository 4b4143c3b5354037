"""The Handle protocol inside HTTP: `POST /{handle}`, one message in, its answer out.

Clients behind firewalls ask this way. The path repeats the identifier and means nothing.

Source: specs §3.7; recorded exchanges of Handle.Net 9.3.1.
"""

from typing import Final

from metrics.dimension import CHANNEL_NATIVE_HTTP
from node.http_exchange import NATIVE, Exchange, RefusedError, Reply
from node.native_answering import NativeAnswering
from node.native_peer import Peer
from node.problems import refusal_of
from node.tally import Tally
from resolver.response_code import ResponseCode
from resolver.wire import ENVELOPE_SIZE_BYTES, MESSAGE_SIZE_BYTES_MAX

BODY_SIZE_BYTES_MAX: Final = ENVELOPE_SIZE_BYTES + MESSAGE_SIZE_BYTES_MAX
_MEDIA_TYPE: Final = NATIVE.decode()
_NO_MESSAGE: Final = f"body: expected one whole message of {_MEDIA_TYPE} that asks"


class NativeTunnel:
    """Gives the message in a request to the native door."""

    def __init__(self, answering: NativeAnswering, tally: Tally) -> None:
        self._answering = answering
        self._tally = tally

    async def answer(self, exchange: Exchange) -> Reply:
        """The reply, which was counted by the door; it has a length and is not compressed."""
        try:
            message = await exchange.body(BODY_SIZE_BYTES_MAX)
        except RefusedError as error:
            return refusal_of(error)
        peer = Peer(self._tally.source(exchange), CHANNEL_NATIVE_HTTP)
        answers = await self._answering.told(message, peer)
        if not answers:
            return refusal_of(RefusedError(ResponseCode.PROTOCOL_ERROR, _NO_MESSAGE))
        return Reply(200, b"".join(answers), NATIVE)


def is_tunneled(exchange: Exchange) -> bool:
    """True if a request carries a native message."""
    is_post = exchange.method == "POST" and not exchange.path.startswith(b"/api/")
    return is_post and exchange.media_type == _MEDIA_TYPE
