"""The serial number of this node's site: it grows when the site changes, and only then."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from node.whole_file import write_whole
from resolver.own_site import OwnSite, Reach, site_of
from resolver.wire import SITE_SERIAL_UNKNOWN

_FILE: Final = "site.json"
# A hundred bytes in fact; anything longer was not written by a node.
_FILE_SIZE_BYTES_MAX: Final = 4_096


def numbered_site(folder: Path, reach: Reach, public_key: bytes) -> OwnSite:
    """The site of this node with its serial number, which `folder` remembers.

    Workers that start at once find the same number: what they would write is the same. Where the
    folder cannot be written, the number is that of the content, which changes as well.

    Raises:
        InvalidValueError: if the address is none.
    """
    site = site_of(reach, public_key, serial=0)
    serial = _kept(folder / _FILE, hashlib.sha256(site.to_wire()).hexdigest())
    return OwnSite(replace(site, serial=serial), is_certain=reach.is_certain)


def _kept(file: Path, digest: str) -> int:
    known, serial = _load(file)
    if known == digest:
        return serial
    serial = _next(serial)
    try:
        write_whole(file, json.dumps({"digest": digest, "serial": serial}))
    except OSError:
        return int(digest[:4], 16) % (SITE_SERIAL_UNKNOWN - 1) + 1
    return serial


def _load(file: Path) -> tuple[str, int]:
    """The digest of the last site and its number; 0 if there was none."""
    try:
        if file.stat().st_size > _FILE_SIZE_BYTES_MAX:
            return "", 0
        document = json.loads(file.read_text())
        digest, serial = str(document["digest"]), int(document["serial"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0
    return (digest, serial) if 0 < serial < SITE_SERIAL_UNKNOWN else ("", 0)


def _next(serial: int) -> int:
    """1 to 65,534: clients take 65,535 for "unknown"."""
    return serial % (SITE_SERIAL_UNKNOWN - 1) + 1
