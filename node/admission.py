"""Which requests are worked on: neither one caller, nor all together, take the whole worker."""

from collections.abc import MutableMapping
from typing import Any

from starlette.types import Receive, Send

from metrics.dimension import LEVEL_NODE, OUTCOME_REFUSED, OUTCOME_UNAVAILABLE
from metrics.worker_numbers import REFUSED_BODY_SIZE, REFUSED_IN_FLIGHT, WorkerNumbers
from node.callers import ANONYMOUS, Caller, Callers, UnknownKeyError, key_of
from node.http_exchange import Exchange, Reply
from node.problems import over_limit
from node.rate_limit import Bucket, Rates
from node.tally import Kind, Tally
from resolver import unknown_budget

# Requests that a worker is busy with; those that wait for their caller's body are not counted. At
# some 100 µs each a thousand is a tenth of a second's wait: more would only make all of them late.
IN_FLIGHT_MAX = 1_000
# Whoever watches the node must see it in a flood, too: these are always answered, and cost the
# same however often they are asked,
_WATCHED = frozenset((b"/health", b"/ready"))
# and the page of the numbers that tell of the flood has some room of its own.
_METRICS, _METRICS_ROOM = b"/metrics", 50
_BODY_TOO_LARGE = 413


class Admission:
    """Lets requests in, or says why not; what it refuses is counted."""

    def __init__(
        self, rates: Rates, callers: Callers, tally: Tally, numbers: WorkerNumbers
    ) -> None:
        self._rates = rates
        self._callers = callers
        self._tally = tally
        self._numbers = numbers
        self._in_flight = 0
        # What the protocol refuses before a request is there.
        self.count = numbers.add

    def __enter__(self) -> None:
        """A request is worked on until `__exit__`."""
        self._in_flight += 1

    def __exit__(self, *ended: object) -> None:
        self._in_flight -= 1

    @property
    def is_full(self) -> bool:
        """True while as many requests are worked on as may be."""
        return self._in_flight >= IN_FLIGHT_MAX

    def refusal(self, exchange: Exchange, channel: str | None, now_s: float) -> Reply | None:
        """The reply to a request that is not let in; None for one that is.

        `channel` is set where the request is a resolution, which is then counted in the ledger.
        """
        if exchange.path in _WATCHED:
            return None
        source = self._tally.source(exchange)
        caller = self._caller(exchange, now_s)
        room = _METRICS_ROOM if exchange.path == _METRICS else 0
        if self._in_flight > IN_FLIGHT_MAX + room:
            self._numbers.add(REFUSED_IN_FLIGHT)
            self._count(channel, caller, source, OUTCOME_UNAVAILABLE, now_s)
            message = f"The node is working on {IN_FLIGHT_MAX} requests: try again in a second"
            return over_limit(exchange, 503, message, "busy_text", 1)
        bucket = self._rates.bucket(caller, source, exchange.peer)
        if bucket.admits(now_s):
            return None
        self._numbers.add(bucket.slot)
        self._count(channel, caller, source, OUTCOME_REFUSED, now_s)
        return _too_often(exchange, caller, bucket, now_s)

    def answered(self, status: int) -> None:
        """A door has answered: what it refused for its size is counted, too."""
        if status == _BODY_TOO_LARGE:
            self._numbers.add(REFUSED_BODY_SIZE)

    def watching(self, send: Send) -> Send:
        """`send`, with `answered` told of the answer."""

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.answered(message["status"])
            await send(message)

        return sending

    def waiting(self, receive: Receive) -> Receive:
        """`receive`, during which the request is not worked on: slow bodies hold up nobody."""

        async def receiving() -> MutableMapping[str, Any]:
            self._in_flight -= 1
            try:
                return await receive()
            finally:
                self._in_flight += 1

        return receiving

    def _caller(self, exchange: Exchange, now_s: float) -> Caller:
        """The caller as far as that is remembered. A key that is not is looked up at the expense
        of its source: otherwise random keys would keep PostgreSQL busy."""
        try:
            text = key_of(exchange)
        except UnknownKeyError:
            return ANONYMOUS
        caller = None if text is None else self._callers.remembered(text, now_s)[0]
        return ANONYMOUS if caller is None else caller

    def _count(
        self, channel: str | None, caller: Caller, source: str, outcome: str, now_s: float
    ) -> None:
        if channel is not None:
            kind = Kind(LEVEL_NODE, "", caller.caller_class, caller.name, channel, outcome)
            self._tally.count_many(now_s, {kind: 1}, source)


def asker_of(caller: Caller) -> str:
    """The account that pays for the caller's questions after names that do not exist."""
    return unknown_budget.ANONYMOUS if caller.owner is None else unknown_budget.KNOWN


def _too_often(exchange: Exchange, caller: Caller, bucket: Bucket, now_s: float) -> Reply:
    who = "This address" if caller.owner is None else "The owner of this API key"
    after_s = bucket.retry_after_s(now_s)
    message = f"{who} sends more than {bucket.rate} requests a second: try again in {after_s} s"
    return over_limit(exchange, 429, message, "rate_text", after_s)
