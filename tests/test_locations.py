"""10320/loc: the recorded choices, and documents that offer nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.locations import LOCATIONS_MAX, ChosenLocation, choose_location, locations_from_xml

# As the recorded server had it.
DOCUMENT = b"""<locations>
<location id="0" href="http://zero.example/" country="gb" weight="0" cr_type="MR-LIST"/>
<location id="1" href="http://one.example/" weight="1"/>
<location id="2" href="http://two.example/" weight="0"/>
<location id="3" href="http://json.example/" weight="0" http_role="conneg"
 media-type="application/json"/>
</locations>"""


def chosen_href(
    document: bytes = DOCUMENT, *, random_unit: float = 0.0, **asked: Any
) -> str | None:
    chosen = choose_location(document, random_unit=random_unit, **asked)
    return None if chosen is None else chosen.href


def locations(*entries: str, chooseby: str | None = None) -> bytes:
    opening = "<locations>" if chooseby is None else f'<locations chooseby="{chooseby}">'
    return (
        opening + "".join(f"<location {entry}/>" for entry in entries) + "</locations>"
    ).encode()


@pytest.mark.parametrize("random_unit", [0.0, 0.5, 0.999999])
def test_weight_zero_is_not_chosen_by_chance(random_unit: float) -> None:
    chosen = choose_location(DOCUMENT, random_unit=random_unit)
    assert chosen == ChosenLocation("http://one.example/", 302, vary_accept=True)


@pytest.mark.parametrize(
    ("asked", "href"),
    [
        ({"locatt": [("id", "2")]}, "http://two.example/"),
        ({"locatt": [("id", "3")]}, "http://json.example/"),
        ({"locatt": [("id", "0"), ("country", "gb")]}, "http://zero.example/"),
        ({"locatt": [("id", "2"), ("country", "gb")]}, "http://one.example/"),
        ({"locatt": [("id", "9")]}, "http://one.example/"),
        ({"country": "GB"}, "http://zero.example/"),
        ({"country": "CN"}, "http://one.example/"),
        ({"accept": "application/json"}, "http://json.example/"),
        ({"accept": "application/*;q=0.8, text/html;q=0.3"}, "http://json.example/"),
        ({"accept": "application/json;q=0.1, text/html"}, "http://one.example/"),
        ({"accept": "text/html,application/xml;q=0.9,*/*;q=0.8"}, "http://one.example/"),
        ({"accept": "*/*"}, "http://one.example/"),
        ({"accept": "application/json;q=0"}, "http://one.example/"),
        ({"accept": "application/json;q=nan,;;,q="}, "http://one.example/"),
        ({"accept": "application/json", "locatt": [("id", "2")]}, "http://two.example/"),
    ],
)
def test_an_explicit_wish_decides(asked: dict[str, Any], href: str) -> None:
    assert chosen_href(**asked) == href


def test_chance_follows_the_weights() -> None:
    document = locations('href="http://a.x/" weight="1"', 'href="http://b.x/" weight="3"')
    hrefs = [chosen_href(document, random_unit=n / 8) for n in range(8)]
    assert hrefs == ["http://a.x/"] * 2 + ["http://b.x/"] * 6


def test_a_conneg_location_without_a_type_takes_all_that_is_not_html() -> None:
    document = locations('href="http://a.x/"', 'href="http://data.x/" http_role="conneg"')
    assert chosen_href(document, accept="text/turtle") == "http://data.x/"
    assert chosen_href(document, accept="text/turtle, text/html;q=0.1") == "http://a.x/"
    assert chosen_href(document) == "http://a.x/"


def test_the_answer_varies_with_accept_only_where_a_location_does() -> None:
    chosen = choose_location(locations('href="http://a.x/"'), random_unit=0.0)
    assert chosen == ChosenLocation("http://a.x/", 302, vary_accept=False)


@pytest.mark.parametrize(
    ("http_sc", "status"),
    [("301", 301), ("303", 303), ("307", 307), ("308", 308), ("200", 302), ("x", 302), ("", 302)],
)
def test_only_redirects_are_taken_as_status(http_sc: str, status: int) -> None:
    chosen = choose_location(locations(f'href="http://a.x/" http_sc="{http_sc}"'), random_unit=0.0)
    assert chosen is not None
    assert chosen.http_status == status


def test_methods_that_the_document_leaves_out_are_not_used() -> None:
    entries = ('href="http://a.x/" id="1"', 'href="http://b.x/" id="2" country="cn" weight="0"')
    document = locations(*entries, chooseby="weighted")
    assert chosen_href(document, country="cn", locatt=[("id", "2")]) == "http://a.x/"


def test_a_wrong_weight_counts_as_one() -> None:
    document = locations('href="http://a.x/" weight="much"', 'href="http://b.x/" weight="inf"')
    assert chosen_href(document, random_unit=0.4) == "http://a.x/"
    assert chosen_href(document, random_unit=0.6) == "http://b.x/"


def test_an_unsafe_href_is_never_chosen() -> None:
    document = locations('href="javascript:alert(1)" id="1"', 'href="http://a.x/" weight="0.5"', "")
    assert chosen_href(document, locatt=[("id", "1")]) == "http://a.x/"
    assert chosen_href(locations('href="data:text/html,x"')) is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"http://a.x/",
        b"<locations>",
        b"<other><location href='http://a.x/'/></other>",
        b"<locations/>",
        locations('href="http://a.x/" weight="0"'),
        locations('href="http://a.x/" http_role="conneg"'),
        b"<!DOCTYPE l [<!ENTITY x 'http://a.x/'>]><locations><location href='&x;'/></locations>",
        b"<?xml version='1.0' encoding='nope'?><locations/>",
        b"<?xml version='1.0' encoding='utf-32'?><locations/>",
        b"<locations>\xff</locations>",
        b"<locations><location href='http://a.x/'/></locations>" + b" " * 65_536,
        locations(*['href="http://a.x/"'] * (LOCATIONS_MAX + 1)),
        b"<a>" * 9_000 + b"</a>" * 9_000,
    ],
)
def test_a_document_that_is_none_offers_no_location(document: bytes) -> None:
    assert choose_location(document, random_unit=0.0) is None


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: DOCUMENT[:150] + tail))
def test_any_bytes_are_a_document_or_nothing(document: bytes) -> None:
    found = locations_from_xml(document)
    assert found is None or all(one.href.startswith("http") for one in found.entries)


@given(
    st.text(max_size=40), st.lists(st.tuples(st.text(), st.text()), max_size=2), st.floats(0, 0.99)
)
def test_any_request_gets_a_location_of_the_document(
    accept: str, locatt: list[tuple[str, str]], random_unit: float
) -> None:
    hrefs = {"http://one.example/", "http://json.example/"}
    assert chosen_href(accept=accept, locatt=locatt, random_unit=random_unit) in hrefs
