"""How the memory of a worker is collected: never much of it while callers wait."""

import gc

# A full collection looks at every kept answer: some 0.1 s with 200,000 of them (measured), many
# times the longest wait that a caller should see. Cycles die young here, in the two short
# collections (0.3 ms), which stay as they are; the full one comes a hundred times more rarely.
_FULL_EVERY = 1_000


def settle() -> None:
    """What was loaded at the start is not looked at again, and full collections become rare."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _FULL_EVERY)
