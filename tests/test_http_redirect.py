"""Identifiers as web addresses: recorded exchanges, where they lead, and the pages for people."""

import re
import uuid
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import fromstring

import httpx
import pytest

from tests.conftest import RunningNode
from tests.recorded import Exchange, differences, proxy_exchanges, replayed
from tests.tenant import Tenant, counted, ledger_rows, tenant, text_value

PREFIX = "88.102.5"
EXCHANGES = {exchange.name: exchange for exchange in proxy_exchanges()}
LOCATIONS = (
    '<locations><location id="0" href="http://zero.example/" weight="0" country="gb"'
    ' cr_type="MR-LIST"/><location id="1" href="http://one.example/" weight="1"/>'
    '<location id="2" href="http://two.example/" weight="0"/>'
    '<location id="3" href="http://json.example/" weight="0" http_role="conneg"'
    ' media-type="application/json"/></locations>'
)

# What differs from the recorded answers of the Handle.Net 9.3.1 proxy, and why.
_HTML = "the pages are this node's own, in Chinese and English, and say on what they depend"
DIVERGENCES: dict[str, tuple[set[str], str]] = {
    "action=showurls": ({"body"}, "the attributes of a location stand in another order"),
    "noredirect": ({"body", "vary"}, _HTML),
    "alias": (
        {"location", "content-type", "body"},
        "Location is relative, so that it holds behind any proxy; a body says where it leads",
    ),
    "alias ignore": ({"body", "vary"}, _HTML),
    "no url": ({"body", "vary"}, _HTML),
    "javascript url": (
        {"status", "location", "expires", "body", "vary"},
        "only http and https are led to; other addresses are shown as text",
    ),
    "utf8 url": ({"body"}, "the link of the body is the Location; its text is as registered"),
    "prefix not here": ({"body", "vary"}, _HTML),
    "not found": ({"body", "vary"}, _HTML),
    "hdl form": ({"body", "vary"}, _HTML),
    "trailing slash": ({"body", "vary"}, _HTML),
    "favicon": ({"body", "vary"}, "a small icon of this node's own"),
    "help": ({"location"}, "the form of this node, not a page of another site"),
}


@pytest.fixture(scope="module")
def factory(node: RunningNode) -> Tenant:
    """The enterprise of the recorded prefix, with the records that were led to."""
    made = tenant(node, PREFIX, 5)
    _put(made, "ITEM1", text_value(1, "URL", "http://www.example.com/product/1"))
    _put(made, "LOC", text_value(1, "10320/loc", LOCATIONS))
    _put(made, "ALIAS", text_value(1, "HS_ALIAS", f"{PREFIX}/ITEM7"))
    _put(
        made,
        "MULTI",
        text_value(5, "URL", "http://five.example/"),
        text_value(3, "URL", "http://three.example/"),
        text_value(1, "URL.SUB", "http://sub.example/"),
    )
    _put(made, "NOURL", text_value(1, "EMAIL", "a@b.c"))
    _put(made, "JSURL", text_value(1, "URL", "javascript:alert(1)"))
    _put(made, "UTF", text_value(1, "URL", "http://例子.example/路径?q=一"))
    return made


@pytest.fixture
def client(factory: Tenant) -> Iterator[httpx.Client]:
    with factory.client() as opened:
        yield opened


def _put(factory: Tenant, suffix: str, *values: dict[str, Any]) -> str:
    path = f"{PREFIX}/{suffix}"
    with factory.operator as operator:
        operator.put(f"/api/handles/{path}", json=list(values)).raise_for_status()
    return f"/{path}"


class _Page(HTMLParser):
    """The tags, the links and the visible text of a page."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.text = ""
        assert answer.headers["content-type"] == "text/html;charset=utf-8"
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


# Recorded exchanges


def test_the_transcript_was_read_whole() -> None:
    assert len(EXCHANGES) == 32
    assert not DIVERGENCES.keys() - EXCHANGES.keys()


@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=lambda exchange: exchange.name)
def test_a_name_leads_where_it_was_recorded_to_lead_except_where_a_reason_is_given(
    factory: Tenant, exchange: Exchange
) -> None:
    answer = replayed(factory.node.port, exchange)
    expected, _ = DIVERGENCES.get(exchange.name, (set(), ""))
    found = differences(exchange, answer)
    assert found.keys() == expected, found


# Where it leads


def _leads(client: httpx.Client, path: str, **headers: str) -> tuple[int, str | None]:
    answer = client.get(path, headers=headers)
    return answer.status_code, answer.headers.get("location")


@pytest.mark.parametrize(
    "start", ["", "hdl:", "HDL:", "doi:", "urn:hdl:", "urn:doi:", "hdl%3A", "%68dl:"]
)
def test_the_schemes_that_people_write_before_a_name_are_taken_off(
    client: httpx.Client, start: str
) -> None:
    path = f"/{start}{PREFIX}%2FITEM1"
    assert _leads(client, path) == (302, "http://www.example.com/product/1")


def test_an_exact_url_comes_before_one_of_a_type_below_it(
    factory: Tenant, client: httpx.Client
) -> None:
    path = _put(
        factory,
        "ORDER",
        text_value(1, "URL.MOBILE", "http://mobile.example/"),
        text_value(2, "url", "http://exact.example/"),
    )
    assert _leads(client, path) == (302, "http://exact.example/")
    assert _leads(client, f"{path}?type=URL.MOBILE") == (302, "http://mobile.example/")
    assert _leads(client, f"{path}?index=1") == (302, "http://mobile.example/")
    assert _leads(client, f"{path}?type=URL.") == (302, "http://exact.example/")


def test_an_address_that_cannot_be_led_to_is_passed_over(
    factory: Tenant, client: httpx.Client
) -> None:
    path = _put(
        factory,
        "PASSED",
        text_value(1, "URL", "data:text/html,x"),
        text_value(2, "URL", "//evil.example/"),
        text_value(3, "URL", "https://good.example/"),
    )
    assert _leads(client, path) == (302, "https://good.example/")


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "//evil.example/",
        "/local",
        "http:evil.example",
        "http://a.example/\r\nSet-Cookie: a=b",
        "http://a.example@\\evil.example/",
        "ftp://a.example/",
    ],
)
def test_only_http_and_https_are_led_to_and_other_addresses_are_shown_as_text(
    factory: Tenant, client: httpx.Client, text: str
) -> None:
    path = _put(factory, "HOSTILE", text_value(1, "URL", text))
    for query in ("", "?noredirect"):
        answer = client.get(path + query)
        assert answer.status_code == 200
        assert "location" not in answer.headers
        assert "set-cookie" not in answer.headers
        page = _Page(answer)
        assert page.links == []
        assert " ".join(text.split()) in " ".join(page.text.split())
    shown = client.get(f"{path}?action=showurls")
    assert shown.text == "<locations></locations>"


def test_urlappend_does_not_reach_into_the_host(factory: Tenant, client: httpx.Client) -> None:
    path = _put(factory, "BARE", text_value(1, "URL", "http://shop.example"))
    assert _leads(client, f"{path}?urlappend=/a%3Fb%3D%E4%B8%80") == (
        302,
        "http://shop.example/a?b=%E4%B8%80",
    )
    for hostile in (".evil.example/", "@evil.example/", ":80@evil.example/"):
        answer = client.get(path, params={"urlappend": hostile})
        assert (answer.status_code, answer.headers.get("location")) == (200, None)


def test_an_alias_leads_to_the_other_name_unless_that_is_declined(
    factory: Tenant, client: httpx.Client
) -> None:
    path = _put(
        factory,
        "OLD-NAME",
        text_value(1, "hs_alias", f"{PREFIX}/新 名?a#b"),
        text_value(2, "URL", "http://old.example/"),
    )
    location = f"/{PREFIX}/%E6%96%B0%20%E5%90%8D%3Fa%23b"
    assert _leads(client, path) == (301, location)
    assert _leads(client, f"{path}?ignore_aliases") == (302, "http://old.example/")
    assert client.get(f"{path}?noredirect").status_code == 200


def test_an_alias_never_leads_to_another_host(factory: Tenant, client: httpx.Client) -> None:
    for text in ("/evil.example/x", "//evil.example/x", "\\evil.example", "http://evil.example/"):
        path = _put(factory, "FOREIGN", text_value(1, "HS_ALIAS", text))
        status, location = _leads(client, path)
        assert status == 301
        assert location is not None
        joined = client.base_url.join(location)
        assert joined.host == client.base_url.host
        assert client.get(location).status_code == 400


# Locations


@pytest.mark.parametrize(
    ("query", "accept", "location"),
    [
        ("", "*/*", "http://one.example/"),
        ("", "text/html,*/*;q=0.1", "http://one.example/"),
        ("", "application/json", "http://json.example/"),
        ("", "text/html;q=0.5, application/json", "http://json.example/"),
        ("", "text/html, application/json;q=0.5", "http://one.example/"),
        ("?locatt=id:0", "*/*", "http://zero.example/"),
        ("?locatt=country:gb", "*/*", "http://zero.example/"),
        ("?locatt=country:gb&locatt=id:2", "*/*", "http://one.example/"),
        ("?locatt=id:9", "*/*", "http://one.example/"),
        ("?locatt=id", "*/*", "http://one.example/"),
    ],
)
def test_a_location_is_chosen_by_its_attributes_and_by_what_the_caller_can_read(
    client: httpx.Client, query: str, accept: str, location: str
) -> None:
    answer = client.get(f"/{PREFIX}/LOC{query}", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["location"]) == (302, location)
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_location_says_with_which_status_it_is_led_to(
    factory: Tenant, client: httpx.Client, status: int
) -> None:
    document = f'<locations><location href="http://a.example/" http_sc="{status}"/></locations>'
    path = _put(factory, "STATUS", text_value(1, "10320/loc", document))
    assert _leads(client, path) == (status, "http://a.example/")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<locations",
        '<!DOCTYPE x [<!ENTITY e "http://a.example/">]>'
        '<locations><location href="&e;"/></locations>',
        '<locations><location href="javascript:alert(1)"/></locations>',
    ],
)
def test_a_document_of_locations_that_leads_nowhere_gives_way_to_the_url(
    factory: Tenant, client: httpx.Client, document: str
) -> None:
    path = _put(
        factory,
        "BROKEN",
        text_value(1, "10320/loc", document),
        text_value(2, "URL", "http://url.example/"),
    )
    assert _leads(client, path) == (302, "http://url.example/")


def test_showurls_lists_every_place_with_its_attributes(
    factory: Tenant, client: httpx.Client
) -> None:
    path = _put(
        factory,
        "PLACES",
        text_value(1, "URL.SUB", "http://sub.example/"),
        text_value(2, "10320/loc", LOCATIONS),
        text_value(3, "URL", "http://url.example/?a=1&b=%22%3C"),
        text_value(4, "URL", "javascript:alert(1)"),
    )
    answer = client.get(f"{path}?action=showurls")
    assert answer.headers["content-type"] == "text/xml;charset=utf-8"
    found = [dict(location.attrib) for location in fromstring(answer.text)]
    assert found[0] == {
        "id": "0",
        "href": "http://zero.example/",
        "weight": "0",
        "country": "gb",
        "cr_type": "MR-LIST",
    }
    assert [one["href"] for one in found[1:]] == [
        "http://one.example/",
        "http://two.example/",
        "http://json.example/",
        "http://url.example/?a=1&b=%22%3C",
        "http://sub.example/",
    ]
    assert client.get(f"/{PREFIX}/NOURL?action=showurls").text == "<locations></locations>"


# Headers


@pytest.mark.parametrize(("ttl", "lasts_s"), [(3600, 3600), (0, 0), ("2038-01-01T00:00:00Z", None)])
def test_a_redirect_may_be_kept_as_long_as_the_value_says(
    factory: Tenant, client: httpx.Client, ttl: object, lasts_s: int | None
) -> None:
    path = _put(factory, "KEPT", text_value(1, "URL", "http://a.example/", ttl=ttl))
    answer = client.get(path)
    expires = parsedate_to_datetime(answer.headers["expires"])
    if lasts_s is None:
        assert expires.isoformat() == "2038-01-01T00:00:00+00:00"
    else:
        asked = parsedate_to_datetime(answer.headers["date"])
        assert abs((expires - asked).total_seconds() - lasts_s) <= 2


def test_head_says_what_get_says(client: httpx.Client) -> None:
    for path in ("ITEM1", "LOC", "ALIAS", "NOURL", "NOPE"):
        head, get = client.head(f"/{PREFIX}/{path}"), client.get(f"/{PREFIX}/{path}")
        assert (head.status_code, head.content) == (get.status_code, b"")
        for headers in (head.headers, get.headers):
            headers.pop("date"), headers.pop("expires", None)
        assert head.headers == get.headers


# Pages

PAGES = [f"/{PREFIX}/NOURL", f"/{PREFIX}/NOPE", "/10.1000/1", f"/{PREFIX}/ITEM1?index=x", "/"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_runs_nothing_loads_nothing_and_is_framed_by_nobody(
    client: httpx.Client, path: str
) -> None:
    answer = client.get(path)
    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert {"base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"} <= set(policy)
    assert not [rule for rule in policy if "script-src" in rule]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "Accept-Language" in answer.headers.get("vary", "")
    page = _Page(answer)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert all(link is not None and link.startswith("/") for link in page.links)


@pytest.mark.parametrize(
    ("path", "status", "chinese", "english"),
    [
        (f"/{PREFIX}/NOURL", 200, "索引", "Index"),
        (f"/{PREFIX}/NOURL?type=NOPE", 200, "没有可公开的数据", "no public values"),
        (f"/{PREFIX}/NOPE", 404, "标识不存在", "Not found"),
        ("/10.1000/1", 400, "不负责该标识的前缀", "does not serve the prefix"),
        ("/%FF", 400, "不是有效的标识", "not a valid identifier"),
        (f"/{PREFIX}/ITEM1?index=x", 400, "参数无效", "parameter of this request"),
        ("/", 200, "请输入工业互联网标识", "Identifier:"),
    ],
)
def test_a_page_speaks_the_language_that_the_reader_names_first(
    client: httpx.Client, path: str, status: int, chinese: str, english: str
) -> None:
    for accepted, wanted, other, tag in (
        ("zh-CN,zh;q=0.9,en;q=0.8", chinese, english, "zh-CN"),
        ("fr, zh-TW;q=0.5", chinese, english, "zh-CN"),
        ("en-GB,zh;q=0.1", english, chinese, "en"),
        ("fr", english, chinese, "en"),
        ("", english, chinese, "en"),
    ):
        answer = client.get(path, headers={"Accept-Language": accepted})
        assert answer.status_code == status
        assert wanted in answer.text
        assert other not in answer.text
        assert f'<html lang="{tag}">' in answer.text


def test_a_page_of_an_unknown_key_says_so(client: httpx.Client) -> None:
    answer = client.get(f"/{PREFIX}/ITEM1", headers={"X-API-Key": "x", "Accept-Language": "zh"})
    assert answer.status_code == 403
    assert "密钥无效" in answer.text


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></td></table><script>alert(1)</script>",
    "&lt;b&gt;",
    "\u202e\u2028<b>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_value_is_text_whatever_it_looks_like(
    factory: Tenant, client: httpx.Client, text: str
) -> None:
    path = _put(
        factory,
        "TEXT",
        text_value(1, "DESC", text),
        text_value(2, "URL", f"http://a.example/?{text}"),
        text_value(3, text if text.isprintable() else "DESC", "hostile type"),
    )
    page = _Page(client.get(f"{path}?noredirect"))
    assert not {"script", "img", "b"} & set(page.tags)
    assert len(page.links) == 1
    assert page.text.count(text) == (3 if text.isprintable() else 2)
    redirect = client.get(path)
    assert redirect.headers["location"].isascii()
    assert not re.search(r"[<>\"\s]", redirect.headers["location"])
    assert _Page(redirect).links == [redirect.headers["location"]]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_that_is_not_there_is_text_on_its_page(client: httpx.Client, text: str) -> None:
    page = _Page(client.get(f"/{PREFIX}/{quote(text, safe='')}"))
    assert not {"script", "img", "b"} & set(page.tags)
    assert f"{PREFIX}/{text}" in page.text


def test_a_value_that_is_no_text_is_shown_as_in_the_json_answer(
    factory: Tenant, client: httpx.Client
) -> None:
    admin = {"handle": f"{PREFIX}/ADMIN", "index": 300, "permissions": "111111111111"}
    path = _put(
        factory,
        "BINARY",
        {"index": 1, "type": "BIN", "data": {"format": "base64", "value": "AAEC/w=="}},
        {"index": 100, "type": "HS_ADMIN", "data": {"format": "admin", "value": admin}},
        text_value(300, "HS_SECKEY", "hidden", permissions="1100"),
    )
    page = _Page(client.get(path))
    assert "AAEC/w==" in page.text
    assert f'{{"handle":"{PREFIX}/ADMIN","index":300,"permissions":"111111111111"}}' in page.text
    assert "HS_SECKEY" not in page.text
    assert "hidden" not in page.text


def test_the_owner_of_a_record_sees_no_secret_on_a_page_either(factory: Tenant) -> None:
    path = _put(factory, "SECRET", text_value(300, "HS_SECKEY", "hidden", permissions="1100"))
    with factory.operator as operator:
        assert "hidden" not in operator.get(f"{path}?noredirect").text


# The form


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        (f" {PREFIX}/ITEM1 ", f"/{PREFIX}/ITEM1"),
        (f"hdl:{PREFIX}/产品", f"/hdl:{PREFIX}/%E4%BA%A7%E5%93%81"),
        ("/evil.example/", "/%2Fevil.example/"),
        ("//evil.example/", "/%2F/evil.example/"),
        ("a?b#c\r\nX: y", "/a%3Fb%23c%0D%0AX:%20y"),
        ("", "/"),
    ],
)
def test_the_form_leads_to_the_name_on_this_node(
    client: httpx.Client, asked: str, location: str
) -> None:
    answer = client.post("/", data={"hdl": asked})
    assert (answer.status_code, answer.headers["location"]) == (303, location)


def test_a_form_that_is_too_long_is_refused(client: httpx.Client) -> None:
    answer = client.post("/", data={"hdl": "x" * 5_000})
    assert answer.status_code == 413
    assert answer.json()["responseCode"] == 4


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_name_takes_no_other_methods(client: httpx.Client, method: str) -> None:
    answer = client.request(method, f"/{PREFIX}/ITEM1")
    assert answer.status_code == 405
    assert answer.json() == {"responseCode": 4, "message": f"Unknown method {method}"}


# Counting


def test_every_answer_is_counted_once_by_what_it_was(factory: Tenant) -> None:
    key, application_id = factory.application_key(f"redirected {uuid.uuid4()}")
    asked = {
        f"{PREFIX}/ITEM1": ("enterprise", PREFIX, "found"),
        f"hdl:{PREFIX}/item1?noredirect": ("enterprise", PREFIX, "found"),
        f"{PREFIX}/ALIAS": ("enterprise", PREFIX, "found"),
        f"{PREFIX}/LOC?action=showurls": ("enterprise", PREFIX, "found"),
        f"{PREFIX}/ITEM1?type=NOPE": ("enterprise", PREFIX, "values_not_found"),
        f"{PREFIX}/NOPE": ("enterprise", PREFIX, "not_found"),
        PREFIX: ("node", PREFIX, "found"),
        f"{PREFIX}.1": ("node", PREFIX, "not_found"),
        "10.1000/1": ("node", "", "not_responsible"),
    }
    expected: dict[tuple[str, ...], int] = {}
    with factory.client(key) as client:
        for path, (level, prefix, outcome) in asked.items():
            for method in ("GET", "HEAD"):
                client.request(method, f"/{path}")
                row = (level, prefix, "application", "redirect", outcome)
                expected[row] = expected.get(row, 0) + 1
    assert ledger_rows(factory.node, application_id) == expected


def test_a_question_that_is_refused_counts_too(factory: Tenant) -> None:
    before = counted(factory.node)
    with factory.client() as client:
        client.get("/%FF")
        client.get(f"/{PREFIX}/ITEM1?index=x")
        client.get(f"/{PREFIX}/ITEM1", headers={"X-API-Key": "x"})
    assert counted(factory.node) - before == {
        ("node", "redirect", "invalid", "anonymous"): 2,
        ("node", "redirect", "refused", "anonymous"): 1,
    }


def test_what_is_no_resolution_is_not_counted(factory: Tenant) -> None:
    before = counted(factory.node)
    with factory.client() as client:
        for path in ("/", "/robots.txt", "/favicon.ico", "/help.html"):
            client.get(path)
        client.post("/", data={"hdl": f"{PREFIX}/ITEM1"})
        client.delete(f"/{PREFIX}/ITEM1")
    assert counted(factory.node) == before
