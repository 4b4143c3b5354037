"""How many look-ups a second may be spent on names that turn out not to exist.

Names that exist cost nothing. A name that the process has never heard of is looked up on credit:
if there is no such record, the look-up is paid for, and an account that owes is not served until
the rate has paid its debt. So a flood of random names reaches the stores at the rate, from however
many sources it comes, and names that exist are never held up by each other.
"""

from collections.abc import Callable
from typing import Final

# Who asks: callers without a key share one account, callers with a key another, so that a flood
# from nowhere does not hold up those who are known.
ANONYMOUS: Final = "anonymous"
KNOWN: Final = "known"
# Look-ups of one account whose end is not known yet: twenty of the largest batches. That much, and
# one second's worth, is what can be overspent before the debt is paid.
PENDING_MAX: Final = 20_000


class _Account:
    """One account: what is left (less than 0 is debt), and look-ups under way."""

    __slots__ = ("at_s", "left", "pending")

    def __init__(self, left: float) -> None:
        self.left = left
        self.at_s = 0.0
        self.pending = 0


class UnknownBudget:
    """Two accounts of `rate` look-ups a second each; 0 is no limit."""

    def __init__(self, rate: int = 0, on_refused: "Callable[[], None] | None" = None) -> None:
        self._rate = rate
        self._on_refused = on_refused
        self._accounts = {asker: _Account(float(rate)) for asker in (ANONYMOUS, KNOWN)}

    def admits(self, asker: str, now_s: float) -> bool:
        """Begin the look-up of an unheard name; False if it must not be made now.

        Whoever is admitted calls `settle` once.
        """
        account = self._accounts[asker]
        elapsed_s = max(0.0, now_s - account.at_s)
        account.at_s = now_s
        account.left = min(self._rate, account.left + elapsed_s * self._rate)
        if self._rate and (account.left <= 0 or account.pending >= PENDING_MAX):
            if self._on_refused is not None:
                self._on_refused()
            return False
        account.pending += 1
        return True

    def settle(self, asker: str, *, is_absent: bool) -> None:
        """End a look-up; `is_absent`: there is no such record. What could not be known is free."""
        account = self._accounts[asker]
        account.pending -= 1
        if is_absent:
            account.left -= 1
