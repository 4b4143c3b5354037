"""Look-ups by tier and result, counted where every worker's are added up."""

from metrics.worker_numbers import LOOKUP_SLOTS, WorkerNumbers
from resolver.resolve import Lookups


class CountedLookups(Lookups):
    """Look-ups in the numbers of this worker."""

    def __init__(self, numbers: WorkerNumbers) -> None:
        super().__init__()
        self._numbers = numbers

    def add(self, tier: str, result: str, number: int = 1) -> None:
        self._numbers.add_many(LOOKUP_SLOTS[tier, result], number)
