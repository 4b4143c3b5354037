"""Answers that are made once: what is kept, under which prefix, and what a batch makes of it."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.prepared_answers import GZIP_FROM_BYTES, batch_item, json_body, keep_redirect
from resolver import handle_json
from resolver.entry import Prepared
from resolver.prefix_directory import PrefixState
from resolver.query import Query
from resolver.record import HandleValue, Record
from resolver.value_json import values_to_json

PREFIX = PrefixState("88.1.2")
VALUES = (
    HandleValue(1, "URL", b"http://a.example/"),
    HandleValue(300, "HS_SECKEY", b"secret", permissions=0x0C),
)
RECORD = Record.of("88.1.2/a", 7, VALUES)
LOCATION = b"http://a.example/"


def redirected(prefix: PrefixState | None, record: Record = RECORD, body: bytes = b"x") -> Prepared:
    """What is kept of a redirect."""
    prepared = Prepared()
    keep_redirect(prepared, record, prefix, 60, LOCATION, body)
    return prepared


def test_the_answer_is_made_of_public_values_once() -> None:
    prepared = Prepared()
    body = json_body(prepared, RECORD, PREFIX)
    assert body == handle_json.resolution_answer("88.1.2/a", VALUES[:1])
    assert prepared.json == b"%d\r\n\r\n%b" % (len(body), body)
    assert prepared.prefix is PREFIX
    # It is given as it was kept: nobody looks at the record again.
    assert json_body(prepared, Record.of("88.1.2/a", 8), PREFIX) == body


def test_a_redirect_is_kept_as_it_is_sent_after_the_headers_that_change() -> None:
    assert redirected(PREFIX).redirect == (
        60,
        b"\r\nlocation: http://a.example/\r\ncontent-length: 1\r\n\r\nx",
    )


@pytest.mark.parametrize(
    ("prefix", "handle"),
    [
        (None, "88.1.2/a"),
        (PrefixState("88.1.2", suspended=True), "88.1.2/a"),
        (PrefixState("88.1.2", hosted=False), "88.1.2/a"),
        (PrefixState("88.1.2", homed=True), "88.1.2/a"),
        (PREFIX, "0.NA/88.1.2"),
        (PREFIX, "88.1.2"),
        (PREFIX, "88.1.22/a"),
        (PREFIX, "88.1.3/a"),
    ],
)
def test_nothing_is_kept_of_what_is_not_below_a_hosted_prefix_in_service(
    prefix: PrefixState | None, handle: str
) -> None:
    record = Record.of(handle, 1, VALUES)
    prepared = redirected(prefix, record)
    assert json_body(prepared, record, prefix) == handle_json.resolution_answer(handle, VALUES[:1])
    assert (prepared.json, prepared.redirect, prepared.prefix) == (None, None, None)


def test_under_another_state_of_the_prefix_everything_is_made_anew() -> None:
    prepared, other = redirected(PREFIX), PrefixState("88.1.2")
    json_body(prepared, RECORD, PREFIX)
    keep_redirect(prepared, RECORD, other, 60, LOCATION, b"y")
    assert prepared.prefix is other
    assert prepared.json is None
    json_body(prepared, RECORD, other)
    assert prepared.json is not None
    assert prepared.redirect is not None
    assert prepared.redirect[1].endswith(b"y")


def test_a_redirect_that_is_compressed_for_some_is_kept_for_nobody() -> None:
    assert redirected(PREFIX, body=b"x" * (GZIP_FROM_BYTES - 1)).redirect is not None
    assert redirected(PREFIX, body=b"x" * GZIP_FROM_BYTES).redirect is None


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(TEXTS | st.just('"values":['), TEXTS | st.just('"values":['), TEXTS)
def test_a_batch_shows_the_values_of_the_prepared_answer_under_the_name_asked_for(
    suffix: str, asked: str, data: str
) -> None:
    record = Record.of(f"88.1.2/{suffix}", 1, (HandleValue(1, "DESC", data.encode()), VALUES[1]))
    prepared = Prepared()
    json_body(prepared, record, PREFIX)
    assert prepared.json is not None
    item = batch_item(asked, prepared.json)
    shown = values_to_json(Query().select(record.values))
    assert item == handle_json.dump({"identifier": asked, "responseCode": 1, "values": shown})
    assert orjson.loads(item)["identifier"] == asked
