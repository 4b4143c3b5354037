"""The load test for Locust: factories, partners and registrars, who check every answer.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000

docs/load.md names the environment variables; `python -m loadtest.load` sets them all.
"""

from collections.abc import Callable
from typing import Any, cast

from locust import events

from loadtest.factory_user import FactoryUser
from loadtest.load_result import LoadResult
from loadtest.load_shape import SHAPES
from loadtest.load_user import SETTINGS, SUMS
from loadtest.partner_user import PartnerUser
from loadtest.registrar_user import RegistrarUser

__all__ = ["FactoryUser", "PartnerUser", "RegistrarUser", "Shape"]

# Locust takes the one shape that it finds here, or its own options if there is none.
Shape = SHAPES.get(SETTINGS.shape)


def _write_result(environment: Any, **_: object) -> None:
    if SETTINGS.result is None:
        return
    total = environment.stats.total
    LoadResult(
        requests=total.num_requests,
        requests_failed=total.num_failures,
        requests_per_s=total.total_rps,
        p50_ms=total.get_response_time_percentile(0.5),
        p99_ms=total.get_response_time_percentile(0.99),
        sent=SUMS.sent,
        answered=SUMS.answered,
        wrong=SUMS.wrong,
        failures=dict(SUMS.failures),
    ).write(SETTINGS.result)


# Locust's own signature says too little for a type checker.
cast(Callable[[object], object], events.quitting.add_listener)(_write_result)
