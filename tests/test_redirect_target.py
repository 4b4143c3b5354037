"""Redirects: recorded ones stay as they are, tricks are refused."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.redirect_target import LOCATION_SIZE_BYTES_MAX, redirect_target

TRANSCRIPT = Path(__file__).parent / "data" / "vectors" / "proxy-9.3.1.txt"
RECORDED = sorted(set(re.findall(r"< 302 Found .*?Location: (\S+)", TRANSCRIPT.read_text())))


def test_every_recorded_location_stays_as_it_is_but_the_script() -> None:
    assert len(RECORDED) > 8
    for location in RECORDED:
        expected = None if location.startswith("javascript:") else location
        assert redirect_target(location) == expected


@pytest.mark.parametrize(
    ("url_text", "append", "location"),
    [
        (
            "http://例子.example/路径?q=一",
            "",
            "http://xn--fsqu00a.example/%E8%B7%AF%E5%BE%84?q=%E4%B8%80",
        ),
        ("http://www.example.com/product/1", "/a?b=c", "http://www.example.com/product/1/a?b=c"),
        ("http://www.example.com/product/1", "?q=1", "http://www.example.com/product/1?q=1"),
        ("HTTPS://Example.com", "", "https://Example.com"),
        ("http://h.example", "/x", "http://h.example/x"),
        ("http://h.example/a%2Fb%20c", "", "http://h.example/a%2Fb%20c"),
        ("http://h.example/100%", "", "http://h.example/100%25"),
        ("http://h.example/a b#c d", "", "http://h.example/a%20b#c%20d"),
        ("http://h.example/\\..\\<script>\"'", "", "http://h.example/%5C..%5C%3Cscript%3E%22'"),
        ("http://user:p%40ss@h.example:8080/", "", "http://user:p%40ss@h.example:8080/"),
        ("http://[2001:db8::1]:80/", "", "http://[2001:db8::1]:80/"),
        ("http://h.example/\u3000\u2028", "", "http://h.example/%E3%80%80%E2%80%A8"),
        ("http://h.example./?a=//b@c:d", "", "http://h.example./?a=//b@c:d"),
    ],
)
def test_a_safe_url_becomes_an_ascii_location(url_text: str, append: str, location: str) -> None:
    assert redirect_target(url_text, append) == location


@pytest.mark.parametrize(
    "url_text",
    [
        "",
        "javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "ftp://h.example/",
        "//h.example/",
        "/path",
        " http://h.example/",
        "http://h.example/ ",
        "\thttp://h.example/",
        "\u3000http://h.example/",
        "ht\ntp://h.example/",
        "http://h.example/\r\nSet-Cookie: a=b",
        "http://h.example/\x00",
        "http://h.example/\x7f",
        "http://h.example/\x85",
        "http://h.example/\ud800",
        "http:h.example",
        "http:/h.example/",
        "http:///h.example/",
        "http:\\\\h.example\\",
        "http://",
        "http://@",
        "http://h.example\\@evil.example/",
        "http://good.example\\.evil.example/",
        "http://a@b@h.example/",
        "http://h .example/",
        "http://%68.example/",
        "http://h.example:99999/",
        "http://h.example:٨٠/",
        "http://h.example:80:90/",
        "http://h..example/",
        "http://evil.example\uff0fgood.example/",
        "http://h.example\u2100/",
        "http://[::1/",
        "http://[zz]/",
        "http://[1.2.3.4]/",
        "http://" + "a" * 64 + ".example/",
        "http://h.example/" + "a" * LOCATION_SIZE_BYTES_MAX,
        "http://h.example/" + "一" * (LOCATION_SIZE_BYTES_MAX // 4),
    ],
)
def test_an_unsafe_url_is_no_redirect(url_text: str) -> None:
    assert redirect_target(url_text) is None


@pytest.mark.parametrize(
    ("url_text", "append"),
    [
        ("http://good.example", ".evil.example/"),
        ("http://good.example", "@evil.example/"),
        ("http://good.example", ":81/"),
        ("http://good.example", "\\@evil.example/"),
        ("http://", "evil.example/"),
        ("http", "://evil.example/"),
        ("", "http://evil.example/"),
        ("http://good.example/", "\r\nX: y"),
    ],
)
def test_what_the_requester_appends_cannot_change_the_host(url_text: str, append: str) -> None:
    assert redirect_target(url_text, append) is None


PIECES = st.sampled_from(["http", "https", ":", "/", "//", "@", "\\", "?", "#", "%", "%0d", "."])
URLS = st.lists(PIECES | st.text(max_size=6), max_size=8).map("".join)


@given(URLS | URLS.map("http://h.example/".__add__) | URLS.map("http://".__add__), URLS)
def test_a_location_is_printable_ascii_and_stable(url_text: str, append: str) -> None:
    location = redirect_target(url_text, append)
    if location is not None:
        assert re.fullmatch(r"https?://[!-~]+", location)
        assert '"' not in location
        assert "<" not in location
        assert redirect_target(location) == location
