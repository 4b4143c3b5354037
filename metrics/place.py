"""Where the owner of an application is registered, and on which side of the border that lies."""

import re
from dataclasses import dataclass
from typing import Final

import pycountry
from stdnum import numdb

MAINLAND: Final = "CN"
# Divisions of GB/T 2260 that ISO 3166-1 lists under codes of their own.
_DIVISION_OF_COUNTRY: Final = {"TW": "71", "HK": "81", "MO": "82"}
_COUNTRY_OF_DIVISION: Final = {"71": "TW", "81": "HK", "82": "MO"}

OTHER_PROVINCE: Final = "other_province"
HK_MO_TW: Final = "hk_mo_tw"
FOREIGN: Final = "foreign"

_DIVISION_FORM = re.compile(r"[1-9][0-9]{5}")
_COUNTRY_FORM = re.compile(r"[A-Z]{2}")


class PlaceError(ValueError):
    """The division or country code names no place."""


@dataclass(frozen=True, slots=True)
class Home:
    """The province that a policy calls its own: two digits of GB/T 2260, and its label value."""

    province: str
    label: str


@dataclass(frozen=True, slots=True)
class Place:
    """A registered place: ISO 3166-1 alpha-2 `country`, and the six-digit `division` if given.

    The division is never empty for mainland China; Hong Kong, Macao and Taiwan carry their own
    country codes, whichever way they were written.
    """

    country: str
    division: str = ""

    @property
    def region(self) -> str:
        """What counts as one region: the province (two digits), outside the mainland the country.

        Hong Kong, Macao and Taiwan are a region each.
        """
        return self.division[:2] if self.country == MAINLAND else self.country


def place_of(*, division: str | None = None, country: str | None = None) -> Place:
    """The place behind a division code (GB/T 2260), a country code (ISO 3166-1), or both.

    A division of a known province is accepted even where the list of cities and counties does not
    have it: divisions are made and renamed every year, provinces are not.

    Raises:
        PlaceError: for a code of the wrong form, an unknown province or country, two codes that
            contradict each other, no code at all, and CN without a division.
    """
    code = _checked_country(country) if country else ""
    if division:
        return _place_of_division(_checked_division(division), code)
    if not code:
        raise PlaceError("no place given: expected --division (GB/T 2260) or --country (ISO 3166)")
    if code == MAINLAND:
        raise PlaceError("country CN says too little: give --division, six digits of GB/T 2260")
    return Place(code)


def place_class(place: Place, home: Home) -> str:
    """On which side of the border `place` lies, as one of `place_classes(home)`."""
    if place.country in _DIVISION_OF_COUNTRY:
        return HK_MO_TW
    if place.country != MAINLAND:
        return FOREIGN
    return home.label if place.region == home.province else OTHER_PROVINCE


def place_classes(home: Home) -> tuple[str, ...]:
    """Every label value that `place_class` can give, the home region first."""
    return (home.label, OTHER_PROVINCE, HK_MO_TW, FOREIGN)


def province_name(province: str) -> str | None:
    """The Chinese name of a province by the two digits of GB/T 2260; None if there is none."""
    return next(
        (found for _, data in _divisions(province) if (found := data.get("province"))), None
    )


def _place_of_division(division: str, country: str) -> Place:
    actual = _COUNTRY_OF_DIVISION.get(division[:2], MAINLAND)
    if country and country != actual:
        raise PlaceError(
            f"division {division} lies in {actual}, not in {country}: give one of them"
        )
    return Place(actual, division)


def _checked_division(division: str) -> str:
    if not _DIVISION_FORM.fullmatch(division):
        raise PlaceError(f"division {division!r}: expected six digits of GB/T 2260, as in 440100")
    if province_name(division[:2]) is None:
        raise PlaceError(f"division {division}: GB/T 2260 has no province {division[:2]}")
    return division


def _checked_country(country: str) -> str:
    code = country.upper()
    if not _COUNTRY_FORM.fullmatch(code) or pycountry.countries.get(alpha_2=code) is None:
        raise PlaceError(
            f"country {country!r}: expected two letters of ISO 3166-1 alpha-2, as in VN"
        )
    return code


def _divisions(number: str) -> list[tuple[str, dict[str, str]]]:
    return numdb.get("cn/loc").info(number)
