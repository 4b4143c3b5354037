"""Places of application owners."""

import pytest

from metrics.place import Home, Place, PlaceError, place_class, place_classes, place_of

GUANGXI = Home("45", "guangxi")


@pytest.mark.parametrize(
    ("division", "country", "expected"),
    [
        ("450100", "", "guangxi"),
        ("450000", "", "guangxi"),
        ("450203", "CN", "guangxi"),
        ("440100", "", "other_province"),
        ("110108", "cn", "other_province"),
        ("810000", "", "hk_mo_tw"),
        ("820000", "", "hk_mo_tw"),
        ("710000", "", "hk_mo_tw"),
        ("", "HK", "hk_mo_tw"),
        ("", "mo", "hk_mo_tw"),
        ("", "TW", "hk_mo_tw"),
        ("810000", "HK", "hk_mo_tw"),
        ("", "VN", "foreign"),
        ("", "th", "foreign"),
    ],
)
def test_a_place_lies_on_one_side_of_the_border(division: str, country: str, expected: str) -> None:
    place = place_of(division=division, country=country)

    assert place_class(place, GUANGXI) == expected
    assert expected in place_classes(GUANGXI)


def test_the_home_province_comes_from_the_policy() -> None:
    guangdong = Home("44", "guangdong")

    assert place_class(place_of(division="440100"), guangdong) == "guangdong"
    assert place_class(place_of(division="450100"), guangdong) == "other_province"
    assert place_classes(guangdong) == ("guangdong", "other_province", "hk_mo_tw", "foreign")


def test_hong_kong_is_the_same_region_however_it_is_written() -> None:
    assert place_of(division="810000").region == place_of(country="HK").region == "HK"


def test_a_region_is_a_province_inside_and_a_country_outside() -> None:
    assert place_of(division="440100").region == place_of(division="440300").region == "44"
    assert place_of(country="vn").region == "VN"


def test_a_city_that_the_list_does_not_know_is_accepted_in_a_known_province() -> None:
    assert place_of(division="459999") == Place("CN", "459999")


@pytest.mark.parametrize(
    ("division", "country", "message"),
    [
        ("", "", "no place given"),
        ("", "CN", "give --division"),
        ("", "cn", "give --division"),
        ("", "XX", "expected two letters of ISO 3166-1"),
        ("", "VNM", "expected two letters of ISO 3166-1"),
        ("", "越南", "expected two letters of ISO 3166-1"),
        ("4401", "", "expected six digits"),
        ("4401000", "", "expected six digits"),
        ("44010x", "", "expected six digits"),
        ("\uff14\uff14\uff10\uff11\uff10\uff10", "", "expected six digits"),
        ("990000", "", "no province 99"),
        ("830000", "", "no province 83"),
        ("440100", "VN", "lies in CN, not in VN"),
        ("810000", "CN", "lies in HK, not in CN"),
    ],
)
def test_a_code_that_names_no_place_is_refused(division: str, country: str, message: str) -> None:
    with pytest.raises(PlaceError, match=message):
        place_of(division=division, country=country)
