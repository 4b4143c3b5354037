"""Records that change while they are read: what was written, and what may no longer be answered."""

import random
from dataclasses import dataclass, field, replace

from loadtest.load_answers import Question


@dataclass(slots=True)
class Revisions:
    """One changing record.

    Attributes:
        newest: the newest revision that may have reached the node, acknowledged or not.
    """

    identifier: str
    number: int
    newest: int = 0
    _known: list[tuple[float, int]] = field(default_factory=list)

    def known(self, revision: int, now_s: float) -> None:
        """From `now_s` on this revision, or a newer one, is what must be answered."""
        if not self._known or revision > self._known[-1][1]:
            self._known.append((now_s, revision))

    def oldest(self, now_s: float, grace_s: float) -> int:
        """The oldest revision that a question sent at `now_s` may be answered with."""
        # Times only grow: what a later one has outdated is not needed again.
        while len(self._known) > 1 and self._known[1][0] + grace_s <= now_s:
            del self._known[0]
        since_s, revision = self._known[0] if self._known else (now_s, 0)
        return revision if since_s + grace_s <= now_s else 0


class ChangingRecords:
    """All records that registrars write and everybody reads.

    `grace_s` is how long after an acknowledgement another worker may still answer with the old
    value; with one worker it is 0, and then what anybody has seen binds all later answers.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._records: dict[str, Revisions] = {}
        self._identifiers: list[str] = []

    def add(self, record: Revisions) -> None:
        """Offer a record to the readers, once it is acknowledged."""
        self._records[record.identifier] = record
        self._identifiers.append(record.identifier)

    def drop(self, record: Revisions) -> None:
        """Ask for it no more: a write of it was not confirmed, and may still arrive."""
        if record.identifier in self._identifiers:
            self._identifiers.remove(record.identifier)

    def question(
        self, chooser: random.Random, seen: dict[str, int], now_s: float
    ) -> Question | None:
        """A question for any record, None if there is none yet.

        `seen` is what the asking user has seen itself, by identifier: that binds at once.
        """
        if not self._identifiers:
            return None
        record = self._records[chooser.choice(self._identifiers)]
        oldest = max(record.oldest(now_s, self._grace_s), seen.get(record.identifier, 0))
        return Question(record.identifier, record.number, oldest, record.newest)

    def seen(self, identifier: str, revision: int, now_s: float) -> None:
        """Somebody was answered with this revision."""
        record = self._records.get(identifier)
        if record is not None and self._grace_s == 0:
            record.known(revision, now_s)

    def as_of_now(self, question: Question) -> Question:
        """The question when its answer has come: meanwhile a newer revision may be right, too."""
        record = self._records.get(question.identifier)
        return question if record is None else replace(question, newest=record.newest)
