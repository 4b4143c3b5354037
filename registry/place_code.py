"""Where an enterprise or an application's owner is registered: division or country."""

import re
from dataclasses import dataclass
from typing import Final

import pycountry
from stdnum import numdb

from registry.refusal import InvalidEntryError

CHINA: Final = "CN"

# Divisions of these provinces are places of their own in the measures (国家（地区）) and are
# written as countries and regions of ISO 3166-1.
_REGIONS: Final = {"71": "TW", "81": "HK", "82": "MO"}
_DIVISION_FORM: Final = re.compile(r"[0-9]{6}")
# The data marks when a code was in force: "[1983-]市辖区".
_IN_FORCE: Final = re.compile(r"\[[0-9]*-[0-9]*\]")
_DO_DIVISION: Final = (
    "give the six digits of GB/T 2260, such as 450200 for Liuzhou, or the country if it is abroad"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A division inside mainland China, or a country or region (division None)."""

    division: str | None
    country: str


def check_place(division: str | None, country: str | None) -> Place:
    """The place that the two say; no country means China.

    Source: GB/T 2260 by python-stdnum, ISO 3166-1 by pycountry.

    Raises:
        InvalidEntryError: if they do not name exactly one known place.
    """
    code = check_country(country or CHINA)
    if code != CHINA:
        if division:
            raise InvalidEntryError(
                f"division {division} is given together with country {code}",
                "give the division for China, or the country for abroad, not both",
            )
        return Place(None, code)
    if not division:
        raise InvalidEntryError("no division is given", _DO_DIVISION)
    return Place(check_division(division), CHINA)


def check_division(division: str) -> str:
    """The six digits, if they name a place of mainland China.

    A county that the data does not know is accepted inside a city that it does: counties are
    founded every year.

    Raises:
        InvalidEntryError: says what is wrong.
    """
    if not _DIVISION_FORM.fullmatch(division):
        raise InvalidEntryError(f"division {division!r} is not six digits", _DO_DIVISION)
    region = _REGIONS.get(division[:2])
    if region:
        raise InvalidEntryError(
            f"division {division} is entered as a region", f"give country {region}"
        )
    if not _county(division) and not _county(f"{division[:4]}00"):
        raise InvalidEntryError(f"division {division} does not exist in GB/T 2260", _DO_DIVISION)
    return division


def check_country(country: str) -> str:
    """The ISO 3166-1 alpha-2 code in upper case.

    Raises:
        InvalidEntryError: says what is wrong, and the code meant if the name is known.
    """
    code = country.strip().upper()
    found = pycountry.countries.get(alpha_2=code) if len(code) == 2 else None
    if found is not None:
        return code
    raise InvalidEntryError(f"country {country!r} is not an ISO 3166-1 code", _do_country(country))


def place_name(division: str | None, country: str) -> str:
    """The place in words: province and division in Chinese, or the country in English."""
    if division is None:
        found = pycountry.countries.get(alpha_2=country)
        return country if found is None else str(found.name)
    province = _names(division).get("province", "")
    county = _county(division) or _county(f"{division[:4]}00")
    return province if county == province else f"{province}{county}"


def _county(division: str) -> str:
    return _IN_FORCE.sub("", _names(division).get("county", ""))


def _names(division: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, names in numdb.get("cn/loc").info(division):
        found.update(names)
    return found


def _do_country(country: str) -> str:
    try:
        meant = pycountry.countries.lookup(country.strip())
    except LookupError:
        return "give two letters, such as VN for Viet Nam"
    return f"give {meant.alpha_2} for {meant.name}"
