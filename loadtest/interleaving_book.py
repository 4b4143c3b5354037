"""What a node has promised of each identifier, and whether an answer keeps it.

The writes of one identifier come one after the other and are numbered from 1 on; a deletion is a
write, too, and 0 is "never registered". What is read is the number of a write, or "not found".

Promised are (docs/decisions/0013):

1. On one connection nothing goes back, whatever fails: not behind what it answered, nor behind
   what it acknowledged.
2. What was acknowledged, by whichever worker, is answered to every question that is sent later
   than `visible_s` after the acknowledgement; `lost_s` while Redis is lost.
3. What anybody has seen of a write that was never acknowledged is answered to every question that
   is sent later than `lost_s` after that.

An answer that is marked stale is held to the first promise only. An answer that says that nothing
is known (503) promises nothing. "Not found" is right if a deletion is not older than what must be
known; it is then taken for the oldest such deletion.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, field

# How long after a loss of Redis every worker has found it again, on a busy machine.
SETTLE_S = 3.0


class BrokenPromiseError(Exception):
    """An answer that may not be; says of what, what was expected, and when what happened."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long an acknowledged write may stay unseen (s): on a healthy node, with Redis lost."""

    visible_s: float = 0.1
    lost_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was answered: the number of a write, None for "not found"."""

    number: int | None
    is_stale: bool = False


class _Times:
    """Growing numbers, and since when each is known."""

    def __init__(self) -> None:
        self._known: list[tuple[float, int]] = []

    @property
    def newest(self) -> int:
        return self._known[-1][1] if self._known else 0

    def note(self, number: int, at_s: float) -> None:
        if number > self.newest:
            self._known.append((at_s, number))

    def until(self, at_s: float) -> int:
        """The newest number that was known at `at_s`."""
        for known_s, number in reversed(self._known):
            if known_s <= at_s:
                return number
        return 0

    def since_s(self, number: int) -> float | None:
        """Since when something newer than `number` is known; None if nothing is."""
        newer = [known_s for known_s, known in self._known if known > number]
        return newer[0] if newer else None


class Story:
    """What is known of one identifier."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0
        self.is_there: bool | None = False
        self.acknowledged = _Times()
        self.sighted = _Times()
        self._deletions: list[int] = []

    def begin(self, *, deletes: bool) -> int:
        """The number of a write that is sent now."""
        self.number += 1
        self.is_there = None
        if deletes:
            self._deletions.append(self.number)
        return self.number

    def acknowledge(self, number: int, at_s: float) -> None:
        """The write is confirmed."""
        self.acknowledged.note(number, at_s)
        self.is_there = number not in self._deletions[-1:]

    def settle(self, number: int | None) -> None:
        """The registry itself was asked what became of a write that nobody confirmed."""
        self.is_there = number is not None
        if number is not None and self._deletions[-1:] == [self.number]:
            self._deletions.pop()

    def absence(self, floor: int) -> int | None:
        """The oldest write, not before `floor`, after which there was nothing; None if none."""
        if floor == 0:
            return 0
        place = bisect_left(self._deletions, floor)
        return self._deletions[place] if place < len(self._deletions) else None

    def is_deletion(self, number: int) -> bool:
        place = bisect_left(self._deletions, number)
        return self._deletions[place : place + 1] == [number]


@dataclass
class Book:
    """Judges answers; `longest_calm_s` and `longest_lost_s` are how long a write stayed unseen."""

    bounds: Bounds = field(default_factory=Bounds)
    answers: int = 0
    longest_calm_s: float = 0.0
    longest_lost_s: float = 0.0
    _calm_at_s: float = 0.0

    def lose(self) -> None:
        """Redis is lost from now on."""
        self._calm_at_s = math.inf

    def regain(self, now_s: float) -> None:
        """Redis is there again; the workers find it within moments."""
        self._calm_at_s = now_s + SETTLE_S

    def is_calm(self, now_s: float) -> bool:
        return now_s >= self._calm_at_s

    def judge(self, story: Story, found: Found, sent_s: float, now_s: float, seen: int = 0) -> int:
        """The number that the answer shows, to be remembered by its connection.

        `seen` is what this connection has shown or acknowledged before. Times are those of the
        client: `sent_s` before the first byte of the question, `now_s` when the answer came.

        Raises:
            BrokenPromiseError: if the answer may not be.
        """
        self.answers += 1
        promised = 0 if found.is_stale else self._promised(story, sent_s)
        number = self._number(story, found, max(seen, promised))
        if number is None:
            raise BrokenPromiseError(self._explained(story, found, sent_s, now_s, seen, promised))
        story.sighted.note(number, now_s)
        if found.number is not None and not found.is_stale and number < story.acknowledged.newest:
            self._measure(story, number, sent_s)
        return number

    def _promised(self, story: Story, sent_s: float) -> int:
        bounds = self.bounds
        visible_s = bounds.visible_s if self.is_calm(sent_s) else bounds.lost_s
        return max(
            story.acknowledged.until(sent_s - visible_s),
            story.sighted.until(sent_s - bounds.lost_s),
        )

    def _number(self, story: Story, found: Found, floor: int) -> int | None:
        number = found.number
        if number is None:
            return story.absence(floor)
        if not floor <= number <= story.number or number == 0 or story.is_deletion(number):
            return None
        return number

    def _measure(self, story: Story, number: int, sent_s: float) -> None:
        since_s = story.acknowledged.since_s(number)
        unseen_s = 0.0 if since_s is None else sent_s - since_s
        if self.is_calm(sent_s):
            self.longest_calm_s = max(self.longest_calm_s, unseen_s)
        else:
            self.longest_lost_s = max(self.longest_lost_s, unseen_s)

    def _explained(
        self, story: Story, found: Found, sent_s: float, now_s: float, seen: int, promised: int
    ) -> str:
        said = "not found" if found.number is None else f"write {found.number}"
        expected = f"write {max(seen, promised)} or newer (up to {story.number})"
        since_s = story.acknowledged.since_s(found.number or 0)
        acknowledged = "never" if since_s is None else f"at {since_s:.3f} s"
        return (
            f"{story.name}: answered {said}{' (stale)' if found.is_stale else ''} at {now_s:.3f} s"
            f" to a question sent at {sent_s:.3f} s; expected {expected}: this connection showed"
            f" {seen}, promised to everybody was {promised}; newest acknowledged"
            f" {story.acknowledged.newest}, something newer than the answer acknowledged"
            f" {acknowledged}; Redis {'there' if self.is_calm(sent_s) else 'lost'}"
        )
