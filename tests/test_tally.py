"""The tally: what an answer counts as, and which address asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import Message

from metrics.counting import Counting
from metrics.dimension import CALLER_APPLICATION, CHANNEL_BATCH, CHANNEL_HTTP_JSON, OUTCOMES
from metrics.journal import CountMeaning, JournalSize, SourceMeaning, read_snapshot
from node.callers import Caller
from node.http_exchange import Exchange
from node.tally import Tally
from resolver import identifier
from resolver.prefix_directory import PrefixState
from resolver.resolve import Resolution
from resolver.response_code import ResponseCode

NOW_S = 1_790_000_000.0
DAY = 20_717
PROXY, PROXY_BEFORE = "10.0.0.1", "10.0.0.2"
HOSTED = PrefixState("88.608.5288", hosted=True)
SELF_RUN = PrefixState("88.608.7", hosted=False)
HOMED = PrefixState("88.608", homed=True)
ASKED = identifier.from_text("88.608.5288/a")


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    opened = Counting(tmp_path, NOW_S, JournalSize(128, 128, 65_536, 8, 8, 2_048))
    yield opened
    opened.close()


@pytest.fixture
def tally(counting: Counting) -> Tally:
    return Tally(counting, (PROXY, PROXY_BEFORE))


def _exchange(peer: str | None, *forwarded: bytes) -> Exchange:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    headers = [(b"host", b"localhost"), *((b"x-forwarded-for", value) for value in forwarded)]
    client = None if peer is None else (peer, 40_000)
    return Exchange({"type": "http", "client": client, "headers": headers}, receive)


def _counted(counting: Counting) -> CountMeaning:
    (journal,) = counting.journals
    ((_, meaning, value),) = journal.counts()
    assert value == 1
    return meaning


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("192.0.2.7", (), "192.0.2.7"),
        ("192.0.2.7", (b"198.51.100.1",), "192.0.2.7"),  # not a trusted proxy
        (PROXY, (), PROXY),
        (PROXY, (b"198.51.100.1",), "198.51.100.1"),
        (PROXY, (b"203.0.113.9, 198.51.100.1",), "198.51.100.1"),
        (PROXY, (b"198.51.100.1 , 10.0.0.2",), "198.51.100.1"),
        (PROXY, (b"10.0.0.2",), PROXY_BEFORE),
        # What the caller made up comes in a line of its own, the proxy's line after it.
        (PROXY, (b"203.0.113.9", b"198.51.100.1"), "198.51.100.1"),
        (PROXY, (b"203.0.113.9", b"198.51.100.1,10.0.0.2"), "198.51.100.1"),
        (PROXY, (b"2001:DB8:0::1",), "2001:db8::1"),
        (PROXY, (b"nonsense",), PROXY),
        (PROXY, (b"198.51.100.1, nonsense",), PROXY),
        (PROXY, (b"198.51.100.1, ",), PROXY),
        (PROXY, (b"203.0.113.9" + b", 10.0.0.2" * 32,), PROXY_BEFORE),
        ("::ffff:192.0.2.7", (), "192.0.2.7"),
        ("::ffff:10.0.0.1", (b"198.51.100.1",), "198.51.100.1"),
        (None, (), ""),
    ],
)
def test_the_source_is_the_peer_or_what_a_trusted_proxy_says(
    tally: Tally, peer: str | None, forwarded: tuple[bytes, ...], source: str
) -> None:
    assert tally.source(_exchange(peer, *forwarded)) == source


def test_a_trusted_proxy_cannot_damage_the_journal(tally: Tally, counting: Counting) -> None:
    source = tally.source(_exchange(PROXY, b"fe80::1%\x1f20717\x1f" + b"z" * 9_000))
    tally.count(NOW_S, ResponseCode.SUCCESS, CHANNEL_HTTP_JSON, source)
    (journal,) = counting.journals
    ((_, meaning, value),) = read_snapshot(journal.path).sources
    assert (meaning.day, value) == (DAY, 1)
    assert meaning.source.startswith("fe80::1%?20717?zzz")


@pytest.mark.parametrize(
    ("text", "prefix", "level", "key"),
    [
        ("88.608.5288/a", HOSTED, "enterprise", "88.608.5288"),
        ("88.608.7/a", SELF_RUN, "node", "88.608.7"),
        ("88.608.5288", HOSTED, "node", "88.608.5288"),  # its prefix handle: a routing question
        ("0.NA/88.608.5288", HOSTED, "node", "88.608.5288"),
        ("88.608/a", HOMED, "node", "88.608"),  # of the node itself, and of no enterprise
        ("88.608.8", HOMED, "node", "88.608"),
        ("88.999.1/a", None, "node", ""),
    ],
)
def test_a_hosted_identifier_counts_for_its_enterprise_and_all_else_for_the_node(
    tally: Tally, counting: Counting, text: str, prefix: PrefixState | None, level: str, key: str
) -> None:
    resolution = Resolution(ResponseCode.HANDLE_NOT_FOUND, prefix)
    tally.count(
        NOW_S,
        resolution.code,
        CHANNEL_BATCH,
        "192.0.2.7",
        caller=Caller(CALLER_APPLICATION, "app-1"),
        identifier=identifier.from_text(text),
        resolution=resolution,
    )
    assert _counted(counting) == CountMeaning(
        DAY, level, key, "application", "app-1", "batch", "not_found"
    )
    (journal,) = counting.journals
    ((_, source, value),) = journal.snapshot().sources
    assert (source, value) == (SourceMeaning(DAY, key, "192.0.2.7"), 1)


@pytest.mark.parametrize(
    ("code", "stale_age_s", "outcome"),
    [
        (ResponseCode.SUCCESS, None, "found"),
        (ResponseCode.SUCCESS, 0, "found_stale"),
        (ResponseCode.SUCCESS, 3_600, "found_stale"),
        (ResponseCode.VALUES_NOT_FOUND, 60, "values_not_found"),
        (ResponseCode.HANDLE_NOT_FOUND, None, "not_found"),
        (ResponseCode.SERVER_NOT_RESPONSIBLE, None, "not_responsible"),
        (ResponseCode.SERVICE_REFERRAL, None, "referred"),
        (ResponseCode.PREFIX_REFERRAL, 60, "referred"),
        (ResponseCode.INVALID_HANDLE, None, "invalid"),
        (ResponseCode.PROTOCOL_ERROR, None, "invalid"),
        (ResponseCode.AUTHENTICATION_NEEDED, None, "refused"),
        (ResponseCode.AUTHENTICATION_FAILED, None, "refused"),
        (ResponseCode.INSUFFICIENT_PERMISSIONS, None, "refused"),
        (ResponseCode.SERVER_TOO_BUSY, None, "unavailable"),
    ],
)
def test_each_answer_has_its_outcome(
    tally: Tally, counting: Counting, code: ResponseCode, stale_age_s: int | None, outcome: str
) -> None:
    resolution = Resolution(code, HOSTED, stale_age_s=stale_age_s)
    tally.count(NOW_S, code, CHANNEL_HTTP_JSON, "::1", identifier=ASKED, resolution=resolution)
    assert _counted(counting).outcome == outcome


@pytest.mark.parametrize("code", ResponseCode)
def test_no_answer_is_left_uncounted(tally: Tally, counting: Counting, code: ResponseCode) -> None:
    tally.count(NOW_S, code, CHANNEL_HTTP_JSON, "::1")
    counted = _counted(counting)
    assert counted.outcome in OUTCOMES
    assert (counted.outcome == "found") == (code == ResponseCode.SUCCESS)
    assert (counted.level, counted.prefix, counted.caller_class) == ("node", "", "anonymous")
