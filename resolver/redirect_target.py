"""The Location of a redirect: an http or https URL that is safe to put into a header."""

import ipaddress
import re
from urllib.parse import quote

import idna

# Browsers and proxies commonly take header lines of at most 8 KiB.
LOCATION_SIZE_BYTES_MAX = 8_000

# Browsers strip tab and line ends anywhere; the others have no place in a URL or a header.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_URL = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(?:(.*)@)?(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::([0-9]{1,5}))?")
_USERINFO = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*")
_HOST = re.compile(r"(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
# A percent sign that escapes nothing; every other escape is kept as it was written.
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What RFC 3986 allows after the authority. The rest is escaped, so quotes, angle brackets and
# backslashes never reach a browser.
_SAFE = "!#$%&'()*+,-./:;=?@[]_~"


def redirect_target(url_text: str, append: str = "") -> str | None:
    """The Location for a URL or IRI with `append` after it, in ASCII; None if it is not safe.

    Safe means: scheme http or https written at the very start, a host that every browser reads
    alike, no control characters or outer white space that browsers strip, and `append` (which the
    requester chose) does not reach into the host.

    Source: WHATWG URL §4.4 (what browsers strip and rewrite); RFC 3986 §3; recorded redirects.
    """
    text = url_text + append
    if len(text) > LOCATION_SIZE_BYTES_MAX or _has_control(text) or text.endswith(" "):
        return None
    match = _URL.fullmatch(text)
    if match is None:
        return None
    scheme, authority_text, rest = match.groups()
    if append and len(scheme) + len("://") + len(authority_text) > len(url_text):
        return None
    authority = _authority(authority_text)
    if authority is None:
        return None
    location = f"{scheme.lower()}://{authority}{_escaped(rest)}"
    return location if len(location) <= LOCATION_SIZE_BYTES_MAX else None


def _has_control(text: str) -> bool:
    return not text.isprintable() and _CONTROL.search(text) is not None


def _authority(text: str) -> str | None:
    """`[userinfo@]host[:port]` with the host in ASCII; None if browsers could read it apart."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    userinfo, host_text, port = match.groups()
    if userinfo is not None and not _USERINFO.fullmatch(userinfo):
        return None
    host = _host(host_text)
    if host is None or (port is not None and int(port) > 0xFFFF):
        return None
    before = "" if userinfo is None else f"{userinfo}@"
    return f"{before}{host}" if port is None else f"{before}{host}:{port}"


def _host(text: str) -> str | None:
    if text.startswith("["):
        return text if _is_ipv6(text[1:-1]) else None
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except UnicodeError:
            return None
    return text if _HOST.fullmatch(text) else None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _escaped(rest: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", rest), safe=_SAFE)
