"""What counts: which resolutions belong to which reading of the volume, and which to none."""

from typing import Final

from metrics.dimension import (
    CALLER_CLASSES,
    CALLER_OPERATOR,
    CALLER_PROBE,
    CALLER_SANDBOX,
    EXTERNAL_CALLERS,
    OUTCOMES,
    SUCCESSES,
    UNCOUNTABLE_OUTCOMES,
)

# Never countable, whatever the reading: own probes, load tests and trials, the operator.
UNCOUNTABLE_CALLERS: Final = frozenset({CALLER_OPERATOR, CALLER_PROBE, CALLER_SANDBOX})
UNCOUNTABLE_REASONS: Final = (
    *(caller for caller in CALLER_CLASSES if caller in UNCOUNTABLE_CALLERS),
    *(outcome for outcome in OUTCOMES if outcome in UNCOUNTABLE_OUTCOMES),
)


def is_countable(reading: str, caller_class: str, outcome: str) -> bool:
    """Whether a resolution belongs to a reading of the volume.

    What is never countable belongs to none. `successes` drops the question who asked; as long as
    every countable caller stands outside the operator it equals `external_successes`.
    """
    if uncountable_reason(caller_class, outcome) is not None:
        return False
    if reading == "requests":
        return True
    return outcome in SUCCESSES and (reading == "successes" or caller_class in EXTERNAL_CALLERS)


def uncountable_reason(caller_class: str, outcome: str) -> str | None:
    """The caller class or else the outcome that keeps a resolution out of every reading."""
    if caller_class in UNCOUNTABLE_CALLERS:
        return caller_class
    return outcome if outcome in UNCOUNTABLE_OUTCOMES else None
