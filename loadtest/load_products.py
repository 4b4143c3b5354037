"""The products of a load test: what is registered, and so what every answer must show.

Everything follows from a prefix and a number, so that a user on any machine knows the right answer
without having asked for it.
"""

import csv
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

PREFIXES = ("88.608.7001", "88.608.7002", "88.608.7003", "88.608.7004")
COUNT = 10_000
# Exponent of the popularity: with 1 the first of 2,500 products gets one read of nine.
_ZIPF_EXPONENT = 1.0
_TTL_S = 86_400
_COLUMNS = {"NAME": "name", "SPEC": "spec", "URL": "page"}


def value(index: int, type_: str, text: str) -> Json:
    """One value as an answer shows it, without its timestamp."""
    data = {"format": "string", "value": text}
    return {"index": index, "type": type_, "data": data, "ttl": _TTL_S}


def product_values(number: int, revision: int = 0) -> list[Json]:
    """The values of product `number`; from revision 1 on they say which revision they are."""
    changed = f" v{revision}" if revision else ""
    values = [
        value(1, "NAME", f"轴承 Bearing {number}{changed}"),
        value(2, "SPEC", f"{10 + number % 90}x{20 + number % 80}x{5 + number % 30} mm"),
        value(3, "URL", f"https://example.com/p/{number}"),
    ]
    return [*values, value(4, "REVISION", str(revision))] if revision else values


@dataclass(frozen=True)
class Products:
    """The products of one prefix, numbered from 0, some of them read far more than others."""

    prefix: str
    count: int
    _by_rank: list[int] = field(init=False, repr=False, compare=False)
    _weights: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Popular products are spread over the numbers: a scanned pallet has some of each.
        by_rank = list(range(self.count))
        random.Random(self.prefix).shuffle(by_rank)
        ranks = range(1, self.count + 1)
        weights = itertools.accumulate(math.pow(rank, -_ZIPF_EXPONENT) for rank in ranks)
        object.__setattr__(self, "_by_rank", by_rank)
        object.__setattr__(self, "_weights", list(weights))

    def identifier(self, number: int) -> str:
        """The identifier of product `number`."""
        return f"{self.prefix}/P{number:07d}"

    def popular(self, chooser: random.Random) -> int:
        """A number, drawn with the popularity of Zipf's law."""
        (number,) = chooser.choices(self._by_rank, cum_weights=self._weights)
        return number

    def run(self, chooser: random.Random, length: int) -> range:
        """Consecutive numbers, as a scanner meets them on a pallet."""
        length = min(length, self.count)
        start = chooser.randrange(self.count - length + 1)
        return range(start, start + length)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """What a product file holds: suffix, then the text of each value."""
        for number in range(self.count):
            texts = (one["data"]["value"] for one in product_values(number))
            yield (f"P{number:07d}", *texts)

    def write_file(self, path: Path) -> list[str]:
        """Write a CSV file for `idnode register`; returns the options that read it."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("code", *_COLUMNS.values()))
            writer.writerows(self.rows())
        options = ["--prefix", self.prefix, "--suffix", "code"]
        for type_, column in _COLUMNS.items():
            options += ["--value", f"{type_}={column}"]
        return options


def products_of(prefixes: tuple[str, ...], count: int) -> list[Products]:
    """`count` products in all, as evenly as they divide; every prefix has at least one."""
    each, more = divmod(max(count, len(prefixes)), len(prefixes))
    return [Products(prefix, each + (place < more)) for place, prefix in enumerate(prefixes)]
