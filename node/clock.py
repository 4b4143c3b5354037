"""The only place that reads the clock; everything else takes the time as an argument."""

import time


def now_s() -> float:
    """Seconds since 1970, UTC."""
    return time.time()
