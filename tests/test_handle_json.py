"""JSON of the HTTP API: recorded answers byte for byte, and any input without surprises."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.errors import InvalidValueError
from resolver.handle_json import (
    dump,
    error_answer,
    jsonp,
    list_answer,
    prefixes_answer,
    referral_answer,
    resolution_answer,
    site_answer,
    value_from_json,
    value_to_json,
    values_from_json,
    values_not_found_answer,
)
from resolver.record import VALUES_MAX, HandleValue, Reference
from resolver.response_code import ResponseCode
from resolver.wire._records import AdminRecord, DsaPublicKey, SiteInfo

TRANSCRIPT = Path(__file__).parent / "data" / "vectors" / "http-9.3.1.txt"


class Exchange(NamedTuple):
    """One recorded request and its answer."""

    title: str
    request: str
    request_body: str
    answer: str


def exchanges() -> Iterator[Exchange]:
    for section in re.split(r"^### ", TRANSCRIPT.read_text(), flags=re.MULTILINE)[1:]:
        lines = section.rstrip("\n").split("\n")
        requests = [line[2:] for line in lines if line.startswith(">")]
        body = requests[-1] if requests[-1][:1] in ("{", "[") else ""
        answer = section.rstrip("\n").partition("\n< \n< ")[2]
        yield Exchange(lines[0], requests[0], body, answer)


RECORDED = list(exchanges())


def recorded_answers(start: str) -> list[str]:
    """The recorded JSON answers that begin so and were recorded whole, each once."""
    answers = {one.answer: None for one in RECORDED if re.match(start, one.answer)}
    return [answer for answer in answers if answer.endswith("}")]


def answer_to(title: str) -> str:
    (answer,) = (one.answer for one in RECORDED if one.title == title)
    return answer


def stamped_values(document: Any) -> Iterator[HandleValue]:
    """The values of an answer, with the timestamps that reading ignores."""
    for value in document["values"]:
        stamp = datetime.fromisoformat(value["timestamp"]) if "timestamp" in value else None
        timestamp_s = int(stamp.timestamp()) if stamp else 0
        yield replace(value_from_json(value), timestamp_s=timestamp_s)


RESOLVED = recorded_answers(r'\{\s*"responseCode": ?1,\s*"handle": ?"[^"]*",\s*"values"')
ERRORS = recorded_answers(r'\{"responseCode":\d+(,"message"|,"handle"[^,]*\}|\})')


def test_the_transcript_was_read() -> None:
    assert len(RECORDED) > 90
    assert len(RESOLVED) > 8
    assert len(ERRORS) > 25


@pytest.mark.parametrize("answer", RESOLVED)
def test_a_recorded_resolution_is_written_byte_for_byte(answer: str) -> None:
    document = json.loads(answer)
    values = list(stamped_values(document))
    pretty = "\n" in answer
    assert resolution_answer(document["handle"], values, pretty).decode() == answer


@pytest.mark.parametrize("answer", ERRORS)
def test_a_recorded_answer_without_values_is_written_byte_for_byte(answer: str) -> None:
    document = json.loads(answer)
    code, message = document["responseCode"], document.get("message")
    assert error_answer(code, message, document.get("handle")).decode() == answer


def test_values_of_a_recorded_answer_that_was_cut_off_are_written_byte_for_byte() -> None:
    answer = answer_to("get all formats anonymous")
    place, count = answer.index('"values":[') + len('"values":['), 0
    while not answer.startswith('{"index":13', place):
        document, end = json.JSONDecoder().raw_decode(answer, place)
        (value,) = stamped_values({"values": [document]})
        assert dump(value_to_json(value)).decode() == answer[place:end]
        place, count = end + 1, count + 1
    assert count == 10


def test_the_recorded_jsonp_is_written_byte_for_byte() -> None:
    answer = answer_to("jsonp")
    assert jsonp("cb", answer[3:-2].encode()).decode() == answer


def test_the_recorded_values_not_found_is_written_byte_for_byte() -> None:
    answer = answer_to("get type none")
    assert values_not_found_answer("88.102.5/ITEM1").decode() == answer


@pytest.mark.parametrize("answer", recorded_answers('{"responseCode":1,"prefix"'))
def test_a_recorded_list_is_written_byte_for_byte(answer: str) -> None:
    document = json.loads(answer)
    total, page, page_size = (document[name] for name in ("totalCount", "page", "pageSize"))
    written = list_answer(document["prefix"], document["handles"], int(total), page, page_size)
    assert written.decode() == answer


def test_a_list_without_pages_leaves_them_out() -> None:
    written = list_answer("88.102.5", [], 0, pretty=True)
    assert written == (
        b'{\n  "responseCode": 1,\n  "prefix": "88.102.5",\n  "totalCount": "0",\n'
        b'  "handles": []\n}'
    )


def test_the_recorded_prefixes_are_written_byte_for_byte() -> None:
    answer = answer_to("prefixes")
    assert prefixes_answer(["0.NA/20.500.12345", "0.NA/88.102.5"]).decode() == answer


def test_the_recorded_site_is_written_byte_for_byte() -> None:
    answer = answer_to("site")
    data = {"format": "site", "value": json.loads(answer)["site"]}
    value = value_from_json({"index": 1, "type": "HS_SITE", "data": data})
    assert site_answer(SiteInfo.from_wire(value.data)).decode() == answer


def test_a_referral_has_the_values_before_the_handle() -> None:
    value = HandleValue(1, "HS_SERV", b"88.102/S")
    assert referral_answer(ResponseCode.PREFIX_REFERRAL, [value], "88.1/2") == (
        b'{"responseCode":303,"values":[{"index":1,"type":"HS_SERV","data":{"format":"string",'
        b'"value":"88.102/S"},"ttl":86400}],"handle":"88.1/2"}'
    )


PUT_BODIES = {
    one.title: one.request_body for one in RECORDED if re.match("https? PUT /api/h", one.request)
}
BROKEN_PUTS = ("put invalid json", "put all formats")  # the second one was recorded in part


@pytest.mark.parametrize("title", PUT_BODIES)
def test_a_recorded_put_body_is_read_unless_it_is_broken(title: str) -> None:
    body = PUT_BODIES[title]
    if title in BROKEN_PUTS:
        with pytest.raises(InvalidValueError, match="not valid JSON"):
            values_from_json(body.encode())
    else:
        document = json.loads(body)
        values = document.get("values", [document]) if isinstance(document, dict) else document
        parsed = values_from_json(body.encode())
        assert [one.index for one in parsed.values] == [one["index"] for one in values]


def test_a_put_body_may_name_the_handle() -> None:
    assert values_from_json(b'{"handle":"88.1/2","values":[]}').handle == "88.1/2"
    assert values_from_json(b'{"values":[]}').handle is None
    assert values_from_json(b'{"index":1,"type":"URL","data":"x"}').handle is None


# --- shapes ----------------------------------------------------------------------------------


def read(**changes: object) -> HandleValue:
    return value_from_json({"index": 1, "type": "URL", "data": "x"} | changes)


@pytest.mark.parametrize(
    ("text", "permissions"),
    [
        (None, 0b1110),
        ("1110", 0b1110),
        ("1100", 0b1100),
        ("0100", 0b1100),
        ("0000", 0b1000),
        ("01", 0b1111),
        ("000", 0b1100),
        ("00000", 0b0000),
        ("10111", 0b0111),
        ("*", 0b1111),
    ],
)
def test_permissions_are_read_from_the_right_and_four_digits_keep_admin_read(
    text: str | None, permissions: int
) -> None:
    assert read(permissions=text).permissions == permissions


def test_a_secret_key_is_not_public_unless_it_is_said() -> None:
    assert not read(type="hs_seckey").is_public
    assert read(type="HS_SECKEY", permissions="1110").is_public
    assert read(type="HS_PUBKEY").is_public


def test_unusual_permissions_are_shown() -> None:
    shown = {bits: value_to_json(HandleValue(1, "A", b"", permissions=bits)) for bits in (14, 3)}
    assert "permissions" not in shown[14]
    assert shown[3]["permissions"] == "0011"


def test_an_absolute_ttl_is_a_date_both_ways() -> None:
    value = read(ttl="2030-01-01T00:00:00Z")
    assert (value.ttl, value.ttl_type) == (1_893_456_000, 1)
    assert value_to_json(value)["ttl"] == "2030-01-01T00:00:00Z"
    assert read(ttl="2030-01-01T08:00:00+08:00") == value
    assert (read(ttl=60).ttl, read(ttl=60).ttl_type, read().ttl) == (60, 0, 86_400)


def test_the_timestamp_of_the_input_is_ignored() -> None:
    assert read(timestamp="2023-11-14T22:13:20Z").timestamp_s == 0


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        ("行", "行".encode()),
        ({"format": "string", "value": ""}, b""),
        ({"format": "base64", "value": "AAEC/w=="}, b"\x00\x01\x02\xff"),
        ({"format": "BASE64", "value": "AAEC\r\n_w"}, b"\x00\x01\x02\xff"),
        ({"format": "hex", "value": "00ff80"}, b"\x00\xff\x80"),
        (
            {
                "format": "admin",
                "value": {
                    "handle": "88.102.5/ADMIN",
                    "index": "300",
                    "permissions": "011111110011",
                    "legacyByteLength": True,
                },
            },
            AdminRecord("88.102.5/ADMIN", 300, 0x7F3, legacy_length=True).to_wire(),
        ),
        (
            {"format": "vlist", "value": [{"handle": "a/b", "index": 1}]},
            bytes.fromhex("0000000100000003612f6200000001"),
        ),
        (
            {"format": "key", "value": {"kty": "DSA", "y": "AQA", "p": "Fw", "q": "_w", "g": "Ag"}},
            DsaPublicKey(q=255, p=23, g=2, y=256).to_wire(),
        ),
    ],
)
def test_every_format_of_data_is_read(data: object, wire: bytes) -> None:
    assert read(data=data).data == wire


@pytest.mark.parametrize(
    ("type_", "data", "shown"),
    [
        ("URL", b"http://a.x/", {"format": "string", "value": "http://a.x/"}),
        ("URL", b"", {"format": "string", "value": ""}),
        ("T", b"\t\n\r\x0b\x13", {"format": "string", "value": "\t\n\r\x0b\x13"}),
        ("T", b"a\x08", {"format": "base64", "value": "YQg="}),
        ("T", b"\x14", {"format": "base64", "value": "FA=="}),
        ("T", b"\x7f", {"format": "base64", "value": "fw=="}),
        ("T", b"\xff\xfe", {"format": "base64", "value": "//4="}),
        ("HS_ADMIN", b"who?", {"format": "string", "value": "who?"}),
        ("HS_SITE", b"\x00\x01", {"format": "base64", "value": "AAE="}),
        ("HS_PUBKEY", b"\x00\x00\x00\x03SM9", {"format": "base64", "value": "AAAAA1NNOQ=="}),
        ("hs_vlist", bytes(4), {"format": "vlist", "value": []}),
        ("HS_\u017fITE", b"\x00\x01", {"format": "base64", "value": "AAE="}),
    ],
)
def test_data_is_shown_in_its_format(type_: str, data: bytes, shown: dict[str, object]) -> None:
    assert value_to_json(HandleValue(1, type_, data))["data"] == shown


def test_a_shown_admin_may_be_changed_without_harm() -> None:
    value = HandleValue(100, "HS_ADMIN", AdminRecord("a/b", 300).to_wire())
    value_to_json(value)["data"]["value"]["handle"] = "c/d"
    assert value_to_json(value)["data"]["value"]["handle"] == "a/b"


def test_a_site_with_everything_unusual_comes_back() -> None:
    site = {
        "version": 1,
        "protocolVersion": "2.10",
        "serialNumber": 7,
        "primarySite": False,
        "multiPrimary": True,
        "hashOption": 0,
        "hashFilter": "f",
        "attributes": [],
        "servers": [
            {
                "serverId": 2,
                "address": "2001:db8::2",
                "publicKey": {"format": "base64", "value": "AAE="},
                "interfaces": [{"query": False, "admin": False, "protocol": 9, "port": 1}],
            }
        ],
    }
    value = read(type="HS_SITE.PREFIX", data={"format": "site", "value": site})
    assert dump(value_to_json(value)["data"]["value"]) == dump(site)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": None}, "index: expected an integer from -2147483648 to 2147483647"),
        ({"index": True}, "index: expected an integer"),
        ({"index": 1.5}, "index: expected an integer"),
        ({"index": 2**31}, "index: expected an integer"),
        ({"type": 5}, "type: expected a string, found 5"),
        ({"type": "\ud800"}, "type: expected valid Unicode"),
        ({"data": None}, "data: expected a string or .*, found nothing"),
        ({"data": {"format": "xml", "value": ""}}, "data.format: expected one of string, base64"),
        ({"data": {"format": "string"}}, "data.value: expected a string"),
        ({"data": {"format": "base64", "value": "A"}}, "data.value: expected base64"),
        ({"data": {"format": "base64", "value": "A!=="}}, "data.value: expected base64"),
        ({"data": {"format": "hex", "value": "0g"}}, "data.value: expected pairs"),
        ({"data": {"format": "admin", "value": []}}, "data.value: expected an object"),
        ({"data": {"format": "vlist", "value": [{}]}}, r"data.value\[0\].handle: expected"),
        ({"data": {"format": "key", "value": {"kty": "EC"}}}, "kty: expected RSA or DSA"),
        (
            {"data": {"format": "key", "value": {"kty": "RSA", "n": "", "e": "AQAB"}}},
            "data.value: HS_PUBKEY is damaged at byte 24",
        ),
        ({"data": {"format": "site", "value": {}}}, "data.value.servers: expected an array"),
        (
            {"data": {"format": "site", "value": {"protocolVersion": "2", "servers": []}}},
            "protocolVersion: expected a version like 2.11",
        ),
        (
            {"data": {"format": "site", "value": {"servers": [{"address": "h"}]}}},
            r"data.value.servers\[0\].address: expected an IPv4 or IPv6 address, found 'h'",
        ),
        ({"ttl": "86400"}, "ttl: expected a number of seconds or a date"),
        ({"ttl": "1960-01-01"}, "ttl: expected a date from 1970"),
        ({"ttl": 1.5}, "ttl: expected an integer"),
        ({"permissions": 1110}, "permissions: expected a string"),
        ({"permissions": "1"}, "permissions: expected four digits"),
        ({"permissions": "rw--"}, "permissions: expected four digits"),
        ({"references": [{"handle": "a/b", "index": -1}]}, r"references\[0\].index: expected"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{message}|[.]{message}"):
        read(**changes)


def test_a_whole_number_may_be_written_with_a_fraction_of_zero() -> None:
    assert read(index=1.0) == read(index=1)


def test_the_path_starts_at_the_body() -> None:
    body = b'[{"index":1,"type":"A","data":"x"},{"index":2,"type":"A","data":{"format":"string"}}]'
    with pytest.raises(InvalidValueError, match=r"^values\[1\]\.data\.value: expected a string"):
        values_from_json(body)
    with pytest.raises(InvalidValueError, match=r"^values\[0\]: expected an object, found 'a\\n'"):
        values_from_json(b'["a\\n"]')


def test_a_long_input_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidValueError) as caught:
        read(permissions="x" * 10_000)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b"[" * 5_000, b'"\\ud800"', b"1 1"])
def test_invalid_json_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(InvalidValueError, match=r"\Abody is not valid JSON: .+\Z"):
        values_from_json(body)


def test_more_values_than_a_record_may_have_are_refused() -> None:
    body = orjson.dumps([{}] * (VALUES_MAX + 1))
    with pytest.raises(InvalidValueError, match="1001 values, at most 1000"):
        values_from_json(body)


def test_line_separators_are_escaped_and_nothing_else() -> None:
    text = "\u2028\u2029\u2027é<&>'\x7f"
    assert dump({"a": text}) == '{"a":"\\u2028\\u2029\u2027é<&>\'\x7f"}'.encode()


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        ("cb", b"cb"),
        ("jQuery.x_$1", b"jQuery.x_$1"),
        ("alert(1)//", b"alert1"),
        ("<>", b"callback"),
        ("", b"callback"),
        ("一", b"callback"),
    ],
)
def test_the_callback_name_is_cleaned(callback: str, name: bytes) -> None:
    assert jsonp(callback, b"{}") == name + b"({});"


def test_a_broken_identifier_can_be_echoed() -> None:
    written = error_answer(ResponseCode.INVALID_HANDLE, "no", "88.1/\udcff行")
    assert json.loads(written)["handle"] == "88.1/?行"


# --- any input -------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.builds(
    HandleValue,
    index=st.integers(1, 2**31 - 1),
    type=TEXT | st.sampled_from(["HS_ADMIN", "HS_SITE", "HS_VLIST", "HS_PUBKEY"]),
    data=st.binary(max_size=30)
    | TEXT.map(str.encode)
    | st.builds(AdminRecord, TEXT, st.integers(0, 9)).map(AdminRecord.to_wire),
    ttl=st.integers(0, 2**31 - 1),
    ttl_type=st.integers(0, 1),
    permissions=st.integers(8, 15),
    references=st.lists(st.builds(Reference, TEXT, st.integers(0, 9)), max_size=2).map(tuple),
)


@given(st.lists(VALUES, max_size=3))
def test_any_values_come_back_from_their_json(values: list[HandleValue]) -> None:
    document = orjson.loads(resolution_answer("88.1/2", values))
    assert [value_from_json(value) for value in document["values"]] == values


KEYS = [
    *("index", "type", "data", "ttl", "permissions", "references", "handle", "values"),
    *("format", "value", "servers", "address", "publicKey", "interfaces", "port", "protocol"),
    *("attributes", "name", "kty", "n", "e", "y", "p", "q", "g"),
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(
        ["admin", "vlist", "site", "key", "hex", "base64", "RSA", "0" * 12, "1.2.3.4"]
    )
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=12,
)
VALID = [json.loads(answer) for answer in RESOLVED]


def refusal(read_it: Callable[[Any], object], document: object) -> str:
    """Why the document is refused; empty if it is read."""
    try:
        read_it(document)
    except InvalidValueError as error:
        return str(error)
    return ""


@settings(max_examples=200)
@given(DOCUMENTS)
def test_any_document_is_read_or_refused(document: object) -> None:
    assert "\n" not in refusal(values_from_json, json.dumps(document).encode())
    assert "\n" not in refusal(value_from_json, document)


def spoil(data: st.DataObject, node: Any, junk: object) -> None:
    """Put `junk` in the place of one member, anywhere below `node`."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], (dict, list)) or not node[key] or data.draw(st.booleans()):
            node[key] = junk
            return
        node = node[key]


@settings(max_examples=200)
@given(st.data(), st.sampled_from(VALID), DOCUMENTS)
def test_a_valid_document_with_one_wrong_member_is_read_or_refused(
    data: st.DataObject, valid: Any, junk: object
) -> None:
    document = json.loads(json.dumps(valid))
    spoil(data, document, junk)
    reason = refusal(values_from_json, json.dumps(document).encode())
    assert reason == "" or "expected" in reason or "not valid JSON" in reason


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    assert "\n" not in refusal(values_from_json, body)


def test_a_body_cut_short_anywhere_is_refused() -> None:
    body = answer_to("get").encode()
    assert len(values_from_json(body).values) == 4
    for size in range(len(body)):
        with pytest.raises(InvalidValueError, match="body is not valid JSON"):
            values_from_json(body[:size])
