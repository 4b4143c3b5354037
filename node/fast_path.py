"""The fast path: a cached answer to a plain question, from bytes to bytes, below the framework.

Whatever is not a whole, plain GET of an identifier whose answer is prepared goes on to the
unchanged slow path, which gives the same answer; tests/test_fast_path.py sends every kind of
request through both. Measured without the socket: 0.8 µs a request (docs/decisions/0014).
"""

import logging
import re
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any, Final

from metrics import dimension
from metrics.counting import Cells
from metrics.worker_numbers import L1_HIT, WorkerNumbers
from node.admission import Admission
from node.callers import ANONYMOUS, Caller, Callers, UnknownKeyError, key_of
from node.door_json import JsonDoor
from node.http_exchange import Exchange, Headers, Reply, decoded_path, reply_bytes
from node.http_identity import is_identity_claimed
from node.http_protocol import BoundedProtocol
from node.prepared_answers import (
    GZIP_FROM_BYTES,
    JSON_HEADERS,
    REDIRECT_HEADERS,
    expires,
    finish,
)
from node.problems import refusal
from node.rate_limit import Bucket, Rates
from node.tally import Kind, Tally, prepared_kind
from resolver.freshness import HEARD_S
from resolver.hot import Hot, Kept
from resolver.identifier import fold
from resolver.resolve import RecordSource
from resolver.response_code import ResponseCode

_log = logging.getLogger("idnode.http")

# A client's headers are the same from request to request; longer ones are a browser's and rare.
HEAD_SIZE_BYTES_MAX: Final = 2_048
# Distinct header blocks that are remembered; 8 MB at most.
HEADS_MAX: Final = 4_096
# Requests that are known as a whole, because they came before with the same bytes; of 512 bytes
# at most, so 10 MB.
REQUESTS_MAX: Final = 16_384
_REQUEST_SIZE_BYTES_MAX: Final = 512
# Prefixes for which a connection knows where it counts, at each door: 128 MB at most with as many
# connections as a worker serves.
CELLS_MAX: Final = 64
# An anonymous caller's header block means the same for ever.
_FOREVER_S: Final = float("inf")

# The longest identifier, every byte of it percent-encoded, and what stands before it.
_LINE_SIZE_BYTES_MAX: Final = 1_024
# Until it is known who asks, and where nothing is counted.
_NOTHING_LEFT: Final = Bucket("", 0, 0, {})
_NOWHERE: Final = Cells(memoryview(bytearray(8)).cast("Q"), 0, 0)
# What a path may hold to be looked up as it is; everything else the parser has to judge.
_PLAIN: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/%"
_HEADER: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)"
)
# Headers that change what is answered, how it is framed, or what becomes of the connection.
_MEANT: Final = frozenset(
    (
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"origin",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)


class Meaning:
    """What a header block says of its sender, and for how long that holds (s)."""

    __slots__ = ("accepts_gzip", "caller", "headers", "reads_all", "since_s", "until_s")

    def __init__(
        self, headers: Headers, caller: Caller, holds_s: tuple[float, float], accepts_gzip: bool
    ) -> None:
        self.headers = headers
        self.caller = caller
        self.since_s, self.until_s = holds_s
        self.accepts_gzip = accepts_gzip
        # Who may read more than public values somewhere is asked each time whether here, too.
        self.reads_all = caller.owner is not None and caller.name == ""


class FastPath:
    """What the connections of one process share.

    An answer is given at `now_s` only if `since_s <= now_s < until_s`: until the present second
    ends (its date is in the answer), for as long as invalidations arrive for certain, and not
    while the registry is away, when answers have to be marked.
    """

    def __init__(
        self,
        hot: Hot,
        records: RecordSource,
        callers: Callers,
        rates: Rates,
        tally: Tally,
        numbers: WorkerNumbers,
        door: JsonDoor,
        admission: Admission,
        now_s: Callable[[], float],
    ) -> None:
        self.admission = admission
        self._door = door
        self.hot = hot
        self.now_s = now_s
        self.numbers = numbers.memory
        self.since_s = self.until_s = 0.0
        self.json_head = b""
        self.requests: dict[bytes, tuple[Kept, Meaning, bool]] = {}
        self.connections: Iterable[FastProtocol] = ()
        self._generation = hot.generation
        self._redirect_head = b""
        self._redirect_heads: dict[int, bytes] = {}
        self._records = records
        self._callers = callers
        self._rates = rates
        self._tally = tally
        self._heads: dict[bytes, Meaning] = {}
        callers.on_forget = self._forget_callers

    def shut(self) -> None:
        """Something has changed that answers depend on: look at it before the next one."""
        self.until_s = 0.0

    def void_cells(self) -> None:
        """The places where connections count are others from now on."""
        for connection in self.connections:
            connection.void_cells()

    def is_open(self, now_s: float) -> bool:
        """Look what holds now; true if answers may be given at all."""
        second_s = int(now_s)
        if self.since_s != second_s:
            self._begin_second(second_s)
            self._tally.keep_day(now_s)  # a day ends with a second
        self.until_s = second_s + 1.0 if self._records.is_up else 0.0
        if self.hot.connected:
            self.until_s = min(self.until_s, self.hot.heard_at_s + HEARD_S)
            return now_s < self.until_s and self.hot.hears(now_s)
        return now_s < self.until_s

    def asked(self, data: bytes, now_s: float) -> tuple[Kept, Meaning, bool] | None:
        """What the request `data` asks for: the record that is kept, for whom, and whether as JSON
        (else as a redirect); None if there is none, or the parser has to judge."""
        question = self.question(data, now_s)
        if question is None:
            return None
        text, meaning, is_json = question
        key = fold(text)
        kept = self.hot.kept(key)
        if kept is None or kept.handle != text:
            return None
        if meaning.reads_all and meaning.caller.may_write(key.partition("/")[0]):
            return None
        asked = (kept, meaning, is_json)
        if len(data) <= _REQUEST_SIZE_BYTES_MAX:
            if len(self.requests) >= REQUESTS_MAX:
                self.requests.clear()
            self.requests[data] = asked
        return asked

    def question(self, data: bytes, now_s: float) -> tuple[str, Meaning, bool] | None:
        """The identifier that the request `data` names, who asks, and whether for JSON (else to be
        led on); None if it is no plain GET and the parser has to judge."""
        if self._generation != self.hot.generation:
            self._begin_generation()
        line_end = data.find(b" HTTP/1.1\r\n", 5, _LINE_SIZE_BYTES_MAX)
        if line_end < 0 or not data.startswith(b"GET /"):
            return None
        meaning = self._heads.get(data[line_end + 11 :])
        if meaning is None or not meaning.since_s <= now_s < meaning.until_s:
            meaning = self._learn(data[line_end + 11 :], now_s)
        is_json = data.startswith(b"/api/handles/", 4)
        raw = data[17 if is_json else 5 : line_end]
        if meaning is None or raw.translate(None, _PLAIN):
            return None
        return decoded_path(raw), meaning, is_json

    async def fetched(self, text: str, meaning: Meaning, source: str) -> Reply:
        """The reply to a plain question that has to be looked for; counted."""
        with self.admission:
            try:
                reply = await self._door.answer_plain(text, meaning.caller, source, self.now_s())
            except Exception:
                # Ours to mend: the log has the traceback, the caller one line.
                _log.exception("request failed: %r", text[:300])
                reply = refusal(ResponseCode.ERROR, "Internal error, see the log")
        finish(reply, accepts_gzip=meaning.accepts_gzip)
        return reply

    def redirect_head(self, ttl_s: int, now_s: float) -> bytes:
        """The first headers of a redirect that may be kept for `ttl_s`."""
        head = self._redirect_heads.get(ttl_s)
        if head is None:
            head = self._redirect_heads[ttl_s] = self._redirect_head + expires(now_s, ttl_s)
        return head

    def cells(self, kind: Kind, source: str, now_s: float) -> Cells | None:
        """Where answers of a kind are counted; None where nothing is."""
        return self._tally.cells(now_s, kind, source)

    def asker(self, meaning: Meaning, client: tuple[str, int] | None) -> tuple[str, Bucket]:
        """The source of requests with these headers, and the bucket that they take from."""
        exchange = _exchange(meaning.headers, client)
        source = self._tally.source(exchange)
        return source, self._rates.bucket(meaning.caller, source, exchange.peer)

    def _begin_second(self, second_s: int) -> None:
        self.since_s = second_s
        date = formatdate(second_s, usegmt=True).encode()
        self.json_head = b"HTTP/1.1 200 OK\r\ndate: %b\r\n%b" % (date, JSON_HEADERS)
        self._redirect_head = b"HTTP/1.1 302 Found\r\ndate: %b\r\n%b" % (date, REDIRECT_HEADERS)
        self._redirect_heads.clear()

    def _begin_generation(self) -> None:
        """Announcements were lost, or are back: that changes how long callers are believed, too.

        Requests that are known as a whole lead to records of the generation before, which are not
        answered any more: it is enough to look here.
        """
        self._generation = self.hot.generation
        self._forget_callers()

    def _forget_callers(self) -> None:
        self._heads.clear()
        self.requests.clear()

    def _learn(self, block: bytes, now_s: float) -> Meaning | None:
        """What a header block means, remembered; None if the parser has to judge it."""
        if len(block) > HEAD_SIZE_BYTES_MAX or not block.endswith(b"\r\n\r\n"):
            return None
        headers = _headers(block[:-4])
        if headers is None:
            return None
        exchange = _exchange(headers, None)
        caller, until_s = self._caller(exchange, now_s)
        if caller is None:
            return None
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        # From now on: a clock that is set back makes nobody known for longer.
        meaning = Meaning(headers, caller, (now_s, until_s), exchange.accepts_gzip)
        self._heads[block] = meaning
        return meaning

    def _caller(self, exchange: Exchange, now_s: float) -> tuple[Caller | None, float]:
        """Who asks and until when that is known; None if it has to be looked up."""
        if is_identity_claimed(exchange):
            return None, 0.0
        try:
            key = key_of(exchange)
        except UnknownKeyError:
            return None, 0.0
        return (ANONYMOUS, _FOREVER_S) if key is None else self._callers.remembered(key, now_s)


class FastProtocol(BoundedProtocol):
    """Answers what is prepared at once, and gives everything else to the slow path."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._fast: FastPath = self.app.fast
        self._fast.connections = self.connections
        self._meaning: Meaning | None = None
        self._source = ""
        self._bucket = _NOTHING_LEFT
        self._cells: dict[str, Cells] = {}
        self._redirect_cells: dict[str, Cells] = {}

    def void_cells(self) -> None:
        """The places where this connection counts are others from now on."""
        self._cells.clear()
        self._redirect_cells.clear()

    def data_received(self, data: bytes) -> None:
        if self.is_between_requests:
            answer = self._answer(data)
            if answer is not None:
                self.transport.write(answer)
                self.early_answers += 1
                if self.timeout_keep_alive_task is None:
                    self.answered_early()
                return
            if self._fetch(data):
                return
        super().data_received(data)

    def _fetch(self, data: bytes) -> bool:
        """Begin to answer a plain question whose answer is not prepared; False if the slow path
        has to."""
        fast = self._fast
        now_s = fast.now_s()
        question = fast.question(data, now_s)
        if question is None or not question[2] or fast.admission.is_full:
            return False
        text, meaning, _ = question
        if meaning is not self._meaning:
            self._mean(meaning)
        if not self._bucket.admits(now_s):
            return False
        self.begin_answering()
        task = self.loop.create_task(self._give(text, meaning))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    async def _give(self, text: str, meaning: Meaning) -> None:
        reply = await self._fast.fetched(text, meaning, self._source)
        headers = self.server_state.default_headers
        self.finish_answering(reply_bytes(reply, headers, is_last=self.is_draining))

    def _answer(self, data: bytes) -> bytes | None:
        """The whole answer to the request `data`, counted; None if the slow path has to give it.

        One function, and long: each call would cost as much as two of its checks.
        """
        fast = self._fast
        now_s = fast.now_s()
        asked = fast.requests.get(data)
        if asked is None:
            asked = fast.asked(data, now_s)
            if asked is None:
                return None
        kept, meaning, is_json = asked
        moment, prefix = kept.moment, kept.prefix
        if (
            moment.generation != fast.hot.generation
            or not moment.since_s < now_s < moment.until_s
            or now_s >= meaning.until_s
            or prefix is None
            or prefix.is_superseded
            or not (fast.since_s <= now_s < fast.until_s or fast.is_open(now_s))
        ):
            # It may have been another record's; the next request of these bytes looks again.
            fast.requests.pop(data, None)
            return None
        if meaning is not self._meaning:
            self._mean(meaning)
        if is_json:
            rest = kept.json
            if rest is None or (len(rest) >= GZIP_FROM_BYTES and meaning.accepts_gzip):
                return None
            answer = fast.json_head + rest
            cells = self._cells.get(prefix.key) or self._open_cells(prefix.key, is_json, now_s)
        else:
            if kept.redirect is None:
                return None
            answer = fast.redirect_head(kept.redirect[0], now_s) + kept.redirect[1]
            found = self._redirect_cells.get(prefix.key)
            cells = found or self._open_cells(prefix.key, is_json, now_s)
        bucket = self._bucket
        bucket.left -= 1
        if bucket.left < 0 and not bucket.refill(now_s):
            return None
        kept.is_used = True
        memory, count, source = cells
        memory[count] += 1
        memory[source] += 1
        fast.numbers[L1_HIT] += 1
        return answer

    def _mean(self, meaning: Meaning) -> None:
        """From now on this connection speaks for another caller."""
        self._meaning = meaning
        self._source, self._bucket = self._fast.asker(meaning, self.client)
        self.void_cells()

    def _open_cells(self, prefix_key: str, is_json: bool, now_s: float) -> Cells:
        assert self._meaning is not None
        channel = dimension.CHANNEL_HTTP_JSON if is_json else dimension.CHANNEL_REDIRECT
        kind = prepared_kind(prefix_key, self._meaning.caller, channel)
        found_cells = self._fast.cells(kind, self._source, now_s) or _NOWHERE
        kept = self._cells if is_json else self._redirect_cells
        if len(kept) >= CELLS_MAX:
            kept.clear()
        kept[prefix_key] = found_cells
        return found_cells


def _headers(block: bytes) -> Headers | None:
    """Header lines that can be read in one way only and change nothing but what is read of them."""
    headers: Headers = []
    has_host = False
    for line in block.split(b"\r\n"):
        found = _HEADER.fullmatch(line)
        if found is None:
            return None
        name, value = found[1].lower(), found[2]
        if name in _MEANT and (name, value.lower()) != (b"connection", b"keep-alive"):
            return None
        has_host = has_host or name == b"host"
        headers.append((name, value))
    return headers if has_host else None


def _exchange(headers: Headers, client: tuple[str, int] | None) -> Exchange:
    return Exchange({"headers": headers, "client": client}, _never)


async def _never() -> Any:
    raise AssertionError("a plain GET has no body")
