"""Both paths of a running node give the same answers to recorded and generated requests."""

import contextlib
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import pytest

from resolver.identifier import check_suffix
from resolver.record import HandleValue
from resolver.value_json import values_to_json
from tests.answering import get, head_of, header_of, json_of
from tests.conftest import RunningNode
from tests.generated_requests import RECORDS, Callers, Generator, encoded
from tests.recorded import Exchange, http_exchanges, proxy_exchanges
from tests.tenant import Tenant, tenant

# As long as the prefix that was recorded.
PREFIX = "88.102.8"
SEED = 20_261_123
NUMBER = 400
PATIENCE_S = 30
# Far longer than an idle worker is late with its date.
LATE_S = 10
_SEGMENT_PAUSE_S = 0.005
_DATES = re.compile(rb"^(date|expires): .*$", re.MULTILINE)
_PROBE = b"GET /robots.txt HTTP/1.1\r\nHost: probe\r\n\r\n"
# What is framed, or ends, in a way that leaves it open whether a request is complete.
_UNSURE = re.compile(rb"content-length|transfer-encoding|expect|x-longest|x-bare", re.IGNORECASE)
RECORDED = {
    "ITEM1": RECORDS["ITEM1"],
    "ALL": (*RECORDS["PRIVATE"], HandleValue(13, "HS_ALIAS", f"{PREFIX}/ITEM1".encode())),
    "ADMIN": RECORDS["PRIVATE"],
    "LOC": RECORDS["LOC"],
    "ALIAS": RECORDS["ALIAS"],
    "MULTI": RECORDS["MULTI"],
    "NOURL": RECORDS["NOURL"],
    "JSURL": (HandleValue(1, "URL", b"javascript:alert(1)"),),
    "UTF": RECORDS["产品/一"],
}


@dataclass(frozen=True)
class Answer:
    """What came, and when it was asked for and had come; `is_open`: the connection lasts."""

    raw: bytes
    is_open: bool
    asked_at_s: float
    came_at_s: float

    @property
    def lasting(self) -> tuple[bytes, bool]:
        """What does not depend on the time."""
        return _DATES.sub(rb"\1: DATE", self.raw), self.is_open

    def check_dates(self) -> None:
        """The date is that of the answer, and what expires has not expired before it was given."""
        for text in header_of(self.raw, "date"):
            at_s = parsedate_to_datetime(text).timestamp()
            assert int(self.asked_at_s) - LATE_S <= at_s <= self.came_at_s

    def expires_s(self) -> float | None:
        found = header_of(self.raw, "expires")
        return parsedate_to_datetime(found[0]).timestamp() if found else None


class Caller:
    """A raw connection, one for each question."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, *segments: bytes) -> Answer:
        """The answer to a request in these segments."""
        with socket.create_connection(("127.0.0.1", self._port), PATIENCE_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked_at_s = time.time()
            for segment in segments[:-1]:
                connection.sendall(segment)
                time.sleep(_SEGMENT_PAUSE_S)
            connection.sendall(segments[-1])
            raw = _one_answer(connection, segments[0][:1] == b"H")
            came_at_s = time.time()
            return Answer(raw, _is_open(connection), asked_at_s, came_at_s)

    def compare(self, request: bytes) -> Answer:
        """The answer, the same on both paths and however often it was given before."""
        slow = self.ask(request[:1], request[1:])
        slow.check_dates()
        for _ in range(3):
            whole = self.ask(request)
            assert whole.lasting == slow.lasting, request
            whole.check_dates()
            _check_expiry(slow, whole)
        return slow


def _one_answer(connection: socket.socket, is_head: bool) -> bytes:
    raw = b""
    while (end := raw.find(b"\r\n\r\n")) < 0:
        piece = connection.recv(65_536)
        assert piece, raw
        raw += piece
    sizes = [] if is_head else header_of(raw, "content-length")
    size = end + 4 + (int(sizes[0]) if sizes else 0)
    while len(raw) < size:
        piece = connection.recv(65_536)
        assert piece, raw
        raw += piece
    assert len(raw) == size, raw
    return raw


def _is_open(connection: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        connection.sendall(_PROBE)
        return connection.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")
    return False


def _check_expiry(one: Answer, other: Answer) -> None:
    """Both count from the moment of the answer, or from none."""
    before, after = one.expires_s(), other.expires_s()
    assert (before is None) == (after is None)
    if before is not None and after is not None and before != after:
        least = int(other.asked_at_s) - int(one.came_at_s)
        assert least <= after - before <= int(other.came_at_s) - int(one.asked_at_s)


@pytest.fixture(scope="module")
def factory(node: RunningNode) -> Tenant:
    """An enterprise with the records of the generated and of the recorded requests."""
    made = tenant(node, PREFIX, 5370)
    _put(made, {suffix: values for suffix, values in RECORDS.items() if _may_exist(suffix)})
    _put(made, RECORDED)
    return made


def _may_exist(suffix: str) -> bool:
    try:
        check_suffix(suffix)
    except ValueError:
        return False
    return True


def _put(made: Tenant, records: "dict[str, Sequence[HandleValue]]") -> None:
    with made.operator as operator:
        for suffix, values in records.items():
            path = f"/api/handles/{encoded(f'{made.prefix}/{suffix}')}"
            operator.put(path, json=values_to_json(values)).raise_for_status()


@pytest.fixture
def caller(node: RunningNode) -> Caller:
    return Caller(node.port)


GETS = [
    exchange.with_prefix(PREFIX)
    for exchange in (*http_exchanges(), *proxy_exchanges())
    if exchange.method == "GET" and exchange.scheme == "http"
]


@pytest.mark.parametrize("exchange", GETS, ids=lambda exchange: exchange.name)
@pytest.mark.usefixtures("factory")
def test_recorded_requests_are_answered_alike(caller: Caller, exchange: Exchange) -> None:
    lines = [f"{name}: {value}" for name, value in exchange.headers.items()]
    caller.compare(get(exchange.path, *lines))


def test_generated_requests_are_answered_alike(factory: Tenant, caller: Caller) -> None:
    identifiers = [f"{PREFIX}/{suffix}" for suffix in RECORDS]
    keys = {
        "owner": factory.enterprise_key()[0],
        "application": factory.application_key("wire")[0],
        "operator": factory.node.operator_key,
        "unknown": "idn_000000000000_" + "A" * 43,
    }
    generator = Generator(SEED, [*identifiers, f"{PREFIX}/NOPE", PREFIX], Callers(keys))
    complete = [request for _ in range(NUMBER) if _is_complete(request := generator.any())]
    assert len(complete) > NUMBER / 2
    statuses = {head_of(caller.compare(request).raw)[0] for request in complete}
    assert {200, 302, 400, 403, 404} <= statuses


def _is_complete(request: bytes) -> bool:
    head = request.partition(b"\r\n\r\n")[0]
    # These say how the node is, which changes all the time.
    if b"/metrics" in head or b"/ready" in head:
        return False
    is_whole = request.endswith(b"\r\n\r\n") and request.count(b"\r\n\r\n") == 1
    return is_whole and b" HTTP/1.1" in request and not _UNSURE.search(head)


@pytest.mark.parametrize("suffix", ["ITEM1", "TTL-0", "TTL-MAX", "ABSOLUTE"])
def test_a_redirect_expires_when_its_value_does(
    factory: Tenant, caller: Caller, suffix: str
) -> None:
    value = RECORDS[suffix][0]
    answer = caller.compare(get(f"/{factory.prefix}/{suffix}"))
    expires_s = answer.expires_s()
    assert expires_s is not None
    if suffix == "ABSOLUTE":
        assert expires_s == value.ttl
    else:
        assert int(answer.asked_at_s) <= expires_s - value.ttl <= answer.came_at_s


def test_requests_sent_ahead_are_answered_in_their_order(factory: Tenant, caller: Caller) -> None:
    first, second = json_of(f"{PREFIX}/ITEM1"), get(f"/{PREFIX}/MULTI")
    one, two = (caller.compare(request).lasting[0] for request in (first, second))
    whole = first + second
    with socket.create_connection(("127.0.0.1", factory.node.port), PATIENCE_S) as connection:
        for cut in (len(whole), len(first) + 20, len(first), 20):
            connection.sendall(whole[:cut])
            time.sleep(_SEGMENT_PAUSE_S)
            connection.sendall(whole[cut:])
            answers = b""
            while len(answers) < len(one) + len(two) or not answers.endswith(two[-20:]):
                piece = connection.recv(65_536)
                assert piece
                answers += piece
            assert _DATES.sub(rb"\1: DATE", answers) == one + two
