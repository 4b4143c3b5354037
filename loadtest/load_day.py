"""The day of a factory: how much of the peak is asked at each hour."""

from itertools import pairwise

# Hour and share of the peak, straight lines between. Two shifts with a break each: the early one
# scans what goes into production, the late one what is shipped; partners and machines never sleep.
_DAY = (
    (0.0, 0.10),
    (5.0, 0.10),
    (6.0, 0.85),
    (8.0, 1.00),
    (11.5, 1.00),
    (12.0, 0.40),
    (12.5, 0.40),
    (13.0, 0.95),
    (14.0, 0.70),
    (15.0, 0.90),
    (18.0, 0.90),
    (18.5, 0.50),
    (19.0, 0.80),
    (22.0, 0.60),
    (23.0, 0.10),
    (24.0, 0.10),
)


def share_of_peak(hour: float) -> float:
    """From 0 to 1, for an hour from 0 to 24."""
    for (begin, at_begin), (end, at_end) in pairwise(_DAY):
        if begin <= hour <= end:
            return at_begin + (at_end - at_begin) * (hour - begin) / (end - begin)
    raise ValueError(f"hour {hour}: expected 0 to 24")
