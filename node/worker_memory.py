"""How the memory of a worker is collected: never much of it while callers wait."""

import gc
from typing import Final

# A full collection looks at every kept answer: some 0.1 s with 200,000 of them (measured), 5 ms
# with 10,000. So the collector does not begin it by itself (a hundred times more rarely than it
# would), but it is done once in this time: what it finds by then is some megabytes.
FULL_EVERY_S: Final = 120.0
_FULL_EVERY: Final = 1_000


def settle() -> None:
    """What was loaded at the start is not looked at again, and full collections become rare.

    Cycles that die young are found by the two short collections (0.3 ms), which stay as they are.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _FULL_EVERY)


async def collect() -> None:
    """Free what only the full collection finds: cycles that lived as long as a connection."""
    gc.collect()
