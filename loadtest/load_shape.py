"""How many users ask at which moment of a run."""

import math
from typing import Any

from locust import LoadTestShape

from loadtest.load_day import share_of_peak
from loadtest.load_user import SETTINGS

# One of each kind: a factory, a partner, a registrar.
_USERS_LEAST = 3


class FactoryDay(LoadTestShape):
    """The 24 hours of a factory in the time of the run."""

    def tick(self) -> tuple[int, float] | None:
        """Users, and how many of them come or go in a second; None at the end."""
        elapsed_s = _elapsed_s(self)
        if elapsed_s >= SETTINGS.time_s:
            return None
        share = share_of_peak(24 * elapsed_s / SETTINGS.time_s)
        users = max(_USERS_LEAST, math.ceil(SETTINGS.users * share))
        return users, float(SETTINGS.users)


class Constant(LoadTestShape):
    """The same users all the time."""

    def tick(self) -> tuple[int, float] | None:
        """Users, and how many of them come or go in a second; None at the end."""
        elapsed_s = _elapsed_s(self)
        return None if elapsed_s >= SETTINGS.time_s else (SETTINGS.users, float(SETTINGS.users))


def _elapsed_s(shape: Any) -> float:
    """Seconds of the run; Locust's own signature says too little for a type checker."""
    return float(shape.get_run_time())


SHAPES: dict[str, type[LoadTestShape]] = {"day": FactoryDay, "constant": Constant}
