"""The fast path of the native doors: a prepared answer to a plain question, from bytes to bytes.

The same rules hold as over HTTP (node/fast_path.py, whose look at the second, the day and the
stores is used): what may not be answered now, or is not plain, goes to the native door, which
gives the same answer. tests/test_native_fast_path.py sends every kind of question both ways.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from metrics.counting import Cells
from metrics.worker_numbers import L1_HIT, WorkerNumbers
from node.callers import ANONYMOUS
from node.fast_path import FastPath
from node.native_asker import Asker, Askers
from node.prepared_answers import native_values
from node.tally import prepared_kind
from resolver.errors import InvalidIdentifierError, InvalidValueError, RegistryUnavailableError
from resolver.hot import Hot, Kept
from resolver.identifier import from_text
from resolver.prefix_directory import PrefixDirectory
from resolver.wire import OpFlag, plain_answer, plain_resolution

# Questions that came before, whatever their number and expiration, with their answers: a hit costs
# a third of reading the question and putting the answer together. 26 MB at most.
QUESTIONS_MAX: Final = 16_384
_QUESTION_SIZE_BYTES_MAX: Final = 512
_ANSWER_SIZE_BYTES_MAX: Final = 1_024
# Prefixes for which an asker knows where it counts: a factory asks about its own and some others.
CELLS_MAX: Final = 32

# Where nothing is counted.
_NOWHERE: Final = Cells(memoryview(bytearray(8)).cast("Q"), 0, 0)
_PUBL: Final = int(OpFlag.PUBL)
# What `native_values` has before the values.
_COUNT_SIZE_BYTES: Final = 4
# An answer that is not sent: who asked may not be there.
SILENCE: Final = b""

_Known: TypeAlias = tuple[Kept, bytes, bytes, bytes]
"""A record, and the answer: before the number of the request, up to its expiration, the rest."""


class NativeFastPath:
    """What the native doors of one process share."""

    def __init__(
        self,
        opening: FastPath,
        hot: Hot,
        directory: PrefixDirectory,
        askers: Askers,
        numbers: WorkerNumbers,
        site_serial: Callable[[], int],
    ) -> None:
        self._opening = opening
        self._hot = hot
        self._directory = directory
        self._askers = askers
        self._numbers = numbers.memory
        self._site_serial = site_serial
        self._questions: dict[bytes, _Known] = {}
        # One object for equal beginnings of answers: they stay near the processor.
        self._beginnings: dict[bytes, bytes] = {}

    def forget(self) -> None:
        """Put every answer together anew, as when the site has a new serial number."""
        self._questions.clear()
        self._beginnings.clear()

    def answer(self, data: bytes, asker: Asker, now_s: float, is_again: bool) -> bytes | None:
        """The whole answer to the message `data`, counted; None if the door has to give it, and
        SILENCE if nothing is said.

        `is_again`: it was answered before, and counted then. One function, and long: each call
        would cost as much as two of its checks.
        """
        # All but the number of the request and when it expires.
        question = data[:8] + data[12:36] + data[40:]
        known = self._questions.get(question)
        if known is None:
            known = self._learn(data, question, now_s)
            if known is None:
                return None
        kept, head, middle, rest = known
        moment, prefix, opening = kept.moment, kept.prefix, self._opening
        if (
            moment.generation != self._hot.generation
            or not moment.since_s < now_s < moment.until_s
            or prefix is None
            or prefix.is_superseded
            or not (opening.since_s <= now_s < opening.until_s or opening.is_open(now_s))
        ):
            # It may have been another record's; the next question of these bytes looks again.
            self._questions.pop(question, None)
            return None
        bucket = asker.bucket
        bucket.left -= 1
        if bucket.left < 0 and not bucket.refill(now_s):
            return None
        answer = b"".join((head, data[8:12], middle, data[36:40], rest))
        if asker.network is not None and not self._askers.admits(asker, len(answer), now_s):
            return SILENCE
        kept.is_used = True
        if not is_again:
            memory, count, source = asker.cells.get(prefix.key) or self._open_cells(
                asker, prefix.key, now_s
            )
            memory[count] += 1
            memory[source] += 1
        self._numbers[L1_HIT] += 1
        return answer

    def _learn(self, data: bytes, question: bytes, now_s: float) -> _Known | None:
        """The answer to a question that was not asked before, if it can be prepared."""
        asked = plain_resolution(data)
        if asked is None:
            return None
        handle, flags = asked
        try:
            found = self._values(handle.decode(), now_s)
        except (UnicodeDecodeError, InvalidIdentifierError, InvalidValueError):
            return None
        if found is None:
            return None
        kept, values = found
        # Who wants more than public values may get all of them only where all are public.
        if not flags & _PUBL and len(values) != _COUNT_SIZE_BYTES + len(kept.wire):
            return None
        answer = plain_answer(data, handle, flags, values, self._site_serial())
        if len(answer) > _ANSWER_SIZE_BYTES_MAX or len(question) > _QUESTION_SIZE_BYTES_MAX:
            return kept, answer[:8], answer[12:36], answer[40:]
        if len(self._questions) >= QUESTIONS_MAX:
            self.forget()
        head, middle = map(self._one_of, (answer[:8], answer[12:36]))
        known = self._questions[question] = (kept, head, middle, answer[40:])
        return known

    def _one_of(self, beginning: bytes) -> bytes:
        return self._beginnings.setdefault(beginning, beginning)

    def _values(self, text: str, now_s: float) -> tuple[Kept, bytes] | None:
        identifier = from_text(text)
        kept = self._hot.kept(identifier.key)
        if kept is None or not self._hot.may_answer(kept, now_s):
            return None
        try:
            prefix = self._directory.responsible(identifier)
        except RegistryUnavailableError:
            return None
        values = native_values(kept, prefix)
        return None if values is None else (kept, values)

    def _open_cells(self, asker: Asker, prefix_key: str, now_s: float) -> Cells:
        kind = prepared_kind(prefix_key, ANONYMOUS, asker.channel)
        cells = self._opening.cells(kind, asker.source, now_s) or _NOWHERE
        if len(asker.cells) >= CELLS_MAX:
            asker.cells.clear()
        asker.cells[prefix_key] = cells
        return cells
