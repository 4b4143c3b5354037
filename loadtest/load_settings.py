"""What a Locust run is told by the environment; `python -m loadtest.load` sets all of it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from loadtest.load_products import COUNT, PREFIXES

TIME_S = 60.0
USERS = 40
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600}


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """One run.

    Attributes:
        prefixes, products: what is registered: `LOAD_PREFIXES` (comma-separated) share
            `LOAD_PRODUCTS` products.
        key: `LOAD_KEY`, the API key of an application, which partners send.
        is_key_for_all: `LOAD_KEY_FOR_ALL` = on: factories and registrars read with it, too.
        write_key: what `LOAD_OPERATOR_KEY_FILE` holds; without it there are no registrars.
        shape: `LOAD_SHAPE`, `day` or `constant`; empty leaves it to Locust's own options.
        users, time_s: `LOAD_USERS` at the peak, for `LOAD_TIME` (such as 60s or 5m).
        grace_s: `LOAD_GRACE_S`, how long after an acknowledgement another worker may answer with
            the old value: 0.1, and 0 for a node of one worker.
        result: `LOAD_RESULT`, file for the sums at the end; None writes none.
    """

    prefixes: tuple[str, ...]
    products: int
    key: str | None
    is_key_for_all: bool
    write_key: str | None
    shape: str
    users: int
    time_s: float
    grace_s: float
    result: Path | None


def from_environment() -> LoadSettings:
    """The settings as the environment gives them.

    Raises:
        ValueError: for one that cannot be used.
    """
    key_file, result = _get("LOAD_OPERATOR_KEY_FILE"), _get("LOAD_RESULT")
    return LoadSettings(
        prefixes=tuple((_get("LOAD_PREFIXES") or ",".join(PREFIXES)).split(",")),
        products=int(_get("LOAD_PRODUCTS") or COUNT),
        key=_get("LOAD_KEY"),
        is_key_for_all=_get("LOAD_KEY_FOR_ALL") == "on",
        write_key=Path(key_file).read_text("utf-8").strip() if key_file else None,
        shape=_get("LOAD_SHAPE") or "",
        users=int(_get("LOAD_USERS") or USERS),
        time_s=seconds(_get("LOAD_TIME") or f"{TIME_S}"),
        grace_s=float(_get("LOAD_GRACE_S") or 0.1),
        result=Path(result) if result else None,
    )


def seconds(text: str) -> float:
    """Seconds of a text such as `90`, `60s`, `5m` or `1h`.

    Raises:
        ValueError: if it is none.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh]?)", text)
    if match is None or not float(match[1]):
        raise ValueError(f"time {text!r}: expected a number with s, m or h, such as 60s or 5m")
    return float(match[1]) * _SECONDS[match[2]]


def _get(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None
