"""10320/loc: several locations of one identifier, and the choice of one of them.

Source: specs §2; recorded redirects of Handle.Net 9.3.1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import fromstring

from resolver.record import VALUE_DATA_SIZE_BYTES_MAX
from resolver.redirect_target import redirect_target

# One per country is more than any publisher has used.
LOCATIONS_MAX = 256
# Keeps a sum of weights finite.
WEIGHT_MAX = 1e6
HTTP_STATUS_DEFAULT = 302
_HTTP_STATUSES = {"301": 301, "302": 302, "303": 303, "307": 307, "308": 308}
_CHOOSEBY_DEFAULT = "locatt,address,country,score,weighted"
_MEDIA_TYPE_ATTRIBUTES = ("media-type", "media_type", "ctype")
# An Accept header of a browser has five entries.
_ACCEPT_ENTRIES_MAX = 32
_HTML = "text/html"
# Below 0.001, the lowest quality that an Accept header can state.
_QUALITY_UNTYPED = 0.0005


@dataclass(frozen=True, slots=True)
class Location:
    """One `<location>`: `href` is fit for a redirect; `attributes` are as written."""

    href: str
    attributes: Mapping[str, str]
    weight: float
    http_status: int
    is_conneg: bool


@dataclass(frozen=True, slots=True)
class Locations:
    """A 10320/loc document: the safe locations in their order, and how to choose."""

    chooseby: tuple[str, ...]
    entries: tuple[Location, ...]


@dataclass(frozen=True, slots=True)
class ChosenLocation:
    """Where to redirect; `vary_accept` says that another Accept header could lead elsewhere."""

    href: str
    http_status: int
    vary_accept: bool


def locations_from_xml(document: bytes) -> Locations | None:
    """Read a 10320/loc document; None if it is none, too large, or defines entities."""
    if len(document) > VALUE_DATA_SIZE_BYTES_MAX:
        return None
    try:
        root = fromstring(document, forbid_dtd=True)
    except (ParseError, ValueError, LookupError):
        # ValueError: entities and encodings that are refused; LookupError: unknown encodings.
        return None
    elements = root.findall("location")
    if root.tag != "locations" or len(elements) > LOCATIONS_MAX:
        return None
    chooseby = root.get("chooseby", _CHOOSEBY_DEFAULT).split(",")
    entries = (_location(element.attrib) for element in elements)
    return Locations(
        tuple(method.strip() for method in chooseby),
        tuple(entry for entry in entries if entry is not None),
    )


def _location(attributes: Mapping[str, str]) -> Location | None:
    href = redirect_target(attributes.get("href", ""))
    if href is None:
        return None
    return Location(
        href=href,
        attributes=attributes,
        weight=_weight(attributes.get("weight", "1")),
        http_status=_HTTP_STATUSES.get(attributes.get("http_sc", ""), HTTP_STATUS_DEFAULT),
        is_conneg=attributes.get("http_role") == "conneg",
    )


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 1.0
    return min(max(weight, 0.0), WEIGHT_MAX) if math.isfinite(weight) else 1.0


def choose_location(
    document: bytes,
    *,
    locatt: Sequence[tuple[str, str]] = (),
    country: str | None = None,
    accept: str | None = None,
    random_unit: float,
) -> ChosenLocation | None:
    """The location for one request; None if the document offers none.

    `locatt` are the attributes the requester asks for; `country` is the requester's ISO 3166
    code; `random_unit` is 0 ≤ x < 1. A weight of 0 is chosen only by locatt, country or Accept.
    """
    locations = locations_from_xml(document)
    if locations is None:
        return None
    chosen = _choose(locations, locatt, country, accept, random_unit)
    if chosen is None:
        return None
    vary = any(location.is_conneg for location in locations.entries)
    return ChosenLocation(chosen.href, chosen.http_status, vary)


def _choose(
    locations: Locations,
    locatt: Sequence[tuple[str, str]],
    country: str | None,
    accept: str | None,
    random_unit: float,
) -> Location | None:
    pool: Sequence[Location] = locations.entries
    asked = _with_attributes(pool, locatt) if "locatt" in locations.chooseby else []
    negotiated = _negotiated(asked or pool, accept)
    if negotiated is not None:
        return negotiated
    if asked:
        return _weighted(asked, random_unit, explicit=True)
    pool = [location for location in pool if not location.is_conneg]
    explicit = False
    if "country" in locations.chooseby:
        pool, explicit = _of_country(pool, country)
    return _weighted(pool, random_unit, explicit)


def _with_attributes(
    pool: Sequence[Location], wanted: Sequence[tuple[str, str]]
) -> Sequence[Location]:
    if not wanted:
        return []
    return [one for one in pool if all(one.attributes.get(key) == text for key, text in wanted)]


def _of_country(pool: Sequence[Location], country: str | None) -> tuple[Sequence[Location], bool]:
    """The locations of that country (an explicit choice), else those of no country, else all."""
    wanted = (country or "").lower()
    own = [one for one in pool if wanted and _country(one) == wanted]
    if own:
        return own, True
    return [one for one in pool if not _country(one)] or pool, False


def _country(location: Location) -> str:
    return location.attributes.get("country", "").strip().lower()


def _weighted(pool: Sequence[Location], random_unit: float, explicit: bool) -> Location | None:
    weights = [location.weight for location in pool]
    if not any(weights):
        if not explicit:
            return None
        weights = [1.0] * len(pool)
    left = random_unit * sum(weights)
    last = None
    for location, weight in zip(pool, weights, strict=True):
        if weight:
            last = location
            left -= weight
            if left < 0:
                break
    return last


def _negotiated(pool: Sequence[Location], accept: str | None) -> Location | None:
    """The conneg location whose media type the requester likes best, and better than HTML.

    A conneg location without a media type takes every requester that does not take HTML.
    """
    candidates = [location for location in pool if location.is_conneg]
    if not candidates or not accept:
        return None
    ranges = _accept_ranges(accept)
    best, best_quality = None, _quality(ranges, _HTML)
    for location in candidates:
        media_type = _media_type(location)
        quality = _quality(ranges, media_type) if media_type else _QUALITY_UNTYPED
        if quality > best_quality:
            best, best_quality = location, quality
    return best


def _media_type(location: Location) -> str:
    for name in _MEDIA_TYPE_ATTRIBUTES:
        if name in location.attributes:
            return location.attributes[name].strip().lower()
    return ""


def _accept_ranges(accept: str) -> dict[str, float]:
    """Media ranges and their quality, for example `{"text/*": 0.5}`."""
    ranges: dict[str, float] = {}
    for entry in accept.split(",", _ACCEPT_ENTRIES_MAX)[:_ACCEPT_ENTRIES_MAX]:
        media_range, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                quality = _q(parameter[2:])
        ranges[media_range] = quality
    return ranges


def _q(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return min(max(quality, 0.0), 1.0) if math.isfinite(quality) else 0.0


def _quality(ranges: Mapping[str, float], media_type: str) -> float:
    kind = media_type.partition("/")[0]
    for media_range in (media_type, f"{kind}/*", "*/*"):
        if media_range in ranges:
            return ranges[media_range]
    return 0.0
