"""What was asked by datagram a moment ago: a client that hears nothing asks again.

It then gets the same answer, and it is neither counted again nor done again. Two shelves, of which
the older one is thrown away when its time is over or the younger one is full.
"""

from collections.abc import Hashable, Sequence
from typing import Final, TypeAlias

# Clients ask again after some seconds; what is held between one and two of these times is known.
REPEATED_S: Final = 10.0
# Questions that were answered at once; 6 MB for both shelves. At the node's full speed that is a
# second's worth.
MARKS_MAX: Final = 32_768
# Answers of the door, and their bytes on one shelf: what changes something is not done twice.
ANSWERS_MAX: Final = 4_096
ANSWERS_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024

Answers: TypeAlias = Sequence[bytes]


class Repeats:
    """Questions and answers of the last moments.

    The hot path looks at `marks` and `older_marks` itself; a mark is a number that stands for a
    sender and its very datagram.
    """

    def __init__(self) -> None:
        self.marks: set[int] = set()
        self.older_marks: set[int] = set()
        self._answers: dict[Hashable, Answers | None] = {}
        self._older: dict[Hashable, Answers | None] = {}
        self._size_bytes = 0

    def mark(self, mark: int) -> None:
        """Remember that a question was answered and counted."""
        self.marks.add(mark)
        if len(self.marks) > MARKS_MAX:
            self.turn_marks()

    def begin(self, key: Hashable) -> bool:
        """A message is worked on from now on; False if it is already, or was answered."""
        if key in self._answers or key in self._older:
            return False
        if len(self._answers) >= ANSWERS_MAX:
            self.turn_answers()
        self._answers[key] = None
        return True

    def answered(self, key: Hashable, answers: Answers) -> None:
        """Keep the messages that answer what was begun, unless too much has come since."""
        shelf = self._answers if key in self._answers else self._older
        if key not in shelf:
            return
        shelf[key] = answers
        self._size_bytes += sum(map(len, answers))
        if self._size_bytes > ANSWERS_SIZE_BYTES_MAX:
            self.turn_answers()

    def answers(self, key: Hashable) -> Answers:
        """The messages that were the answer; none while it is worked on."""
        return self._answers.get(key) or self._older.get(key) or ()

    def turn(self) -> None:
        """Time passes; to be called each REPEATED_S."""
        self.turn_marks()
        self.turn_answers()

    def turn_marks(self) -> None:
        """Forget the older marks."""
        self.marks, self.older_marks = set(), self.marks

    def turn_answers(self) -> None:
        """Forget the older answers."""
        self._answers, self._older = {}, self._answers
        self._size_bytes = 0
