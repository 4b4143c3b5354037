"""The statement of one day and level: what was counted, in the one form that is sealed.

A statement holds the counts themselves; every total in its document is computed from them when
it is written and computed again when it is read. It is never changed: a correction is a document
of its own, which names what it corrects and brings the corrected statement.

Source: specs/measures (what counts); docking agreement, tables T3 and T8, and the daily latency
and peak of the monitoring interface.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import islice
from typing import Final, NamedTuple, TypeAlias, TypeVar

from metrics.canonical import CanonicalError, Value, to_canonical
from metrics.countable import UNCOUNTABLE_REASONS, is_countable, uncountable_reason
from metrics.counting import SOURCE_OVERFLOW
from metrics.day import date_of, day_number, number_of
from metrics.dimension import CALLER_CLASSES, CHANNELS, LEVELS, OUTCOMES
from metrics.members import (
    DocumentError,
    Members,
    choice_at,
    number_at,
    read_document,
    text_at,
)
from metrics.policy import RESOLUTION_READINGS

# A statement of this form is read by the rules of what counts that were in force when the form
# was made. Another rule, reading or member is another form, or old statements become wrong.
STATEMENT_FORM: Final = "idnode-statement-1"
CORRECTION_FORM: Final = "idnode-correction-1"

# Rows of sources that are spelt together: each on its own takes three times as long.
_BATCH_ROWS = 10_000

_DAY_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class StatementError(ValueError):
    """A document that is no statement, or whose numbers do not fit each other.

    Says where, and both what was expected and what was found.
    """


class CountRow(NamedTuple):
    """How often one kind of resolution was counted; the columns of `ledger_count`."""

    prefix: str
    caller_class: str
    caller: str
    channel: str
    outcome: str
    value: int


class SourceRow(NamedTuple):
    """How many resolutions of a prefix came from one address; the columns of `ledger_source`."""

    prefix: str
    source: str
    value: int


@dataclass(frozen=True, slots=True)
class Sources:
    """What a statement says of the addresses that asked: how many, not which.

    `distinct` addresses asked `total` times; `overflow` questions more came from addresses that
    were not told apart. `digest`: SHA-256 in hex of the canonical array of all rows, so that the
    list can be checked when somebody may see it. All this is of the whole day, as the ledger does
    not tell the levels of addresses apart; a killed process may have counted one question more
    than its source.
    """

    distinct: int
    total: int
    overflow: int
    digest: str


@dataclass(frozen=True, slots=True)
class Latency:
    """How long `count` answers took, and at which seconds since 1970 the extremes fell.

    Times are whole microseconds, each rounded down by itself.
    """

    count: int
    total_us: int
    least_us: int
    least_at_s: int
    greatest_us: int
    greatest_at_s: int

    @property
    def mean_us(self) -> int:
        """The mean, rounded down."""
        return self.total_us // self.count


@dataclass(frozen=True, slots=True)
class Peak:
    """The second of the day (since 1970) with the most resolutions, and how many."""

    at_s: int
    count: int


@dataclass(frozen=True, slots=True)
class Registered:
    """What was registered: on the day, and in all at its end. On the level of the node these are
    prefixes of enterprises, on the level of enterprises identifiers."""

    added: int
    total: int


@dataclass(frozen=True, slots=True)
class Flag:
    """Resolutions that look made-up to a rule. They are counted all the same."""

    rule: str
    subject: str
    count: int


@dataclass(frozen=True, slots=True)
class RawLog:
    """A file of the raw log of the day: its name, SHA-256 in hex, and size."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What was counted on a day (day number of Asia/Shanghai) at one level.

    `origin` names the log, `prefix` the node. `counts` are in order, each kind once and none of
    zero; `flags`, `raw_logs` and `damage` are in order too. `damage` says why nothing is claimed
    for the day, whatever was counted; it is empty for a whole day. No address of a person belongs
    into it, a flag's subject included.
    """

    origin: str
    prefix: str
    day: int
    level: str
    counts: tuple[CountRow, ...]
    sources: Sources
    latency: Latency | None = None
    peak: Peak | None = None
    registered: Registered | None = None
    flags: tuple[Flag, ...] = ()
    raw_logs: tuple[RawLog, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def readings(self) -> dict[str, int]:
        """The resolutions that each reading of the volume counts."""
        kinds = _by_kind(self.counts)
        return {
            reading: sum(value for kind, value in kinds.items() if is_countable(reading, *kind))
            for reading in RESOLUTION_READINGS
        }

    @property
    def excluded(self) -> dict[str, int]:
        """The resolutions that no reading counts, by the reason."""
        excluded: dict[str, int] = dict.fromkeys(UNCOUNTABLE_REASONS, 0)
        for kind, value in _by_kind(self.counts).items():
            reason = uncountable_reason(*kind)
            if reason is not None:
                excluded[reason] += value
        return excluded

    @property
    def counted(self) -> int:
        """All resolutions, whether a reading counts them or none."""
        return sum(row.value for row in self.counts)

    def to_bytes(self) -> bytes:
        """The canonical document, with every total.

        Raises:
            StatementError: for what `from_bytes` would refuse.
        """
        return _written(_document(self), _read_statement)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Statement":
        """The statement in a canonical document.

        Raises:
            StatementError: for another form, a missing, unknown or unfit member, and for a total
                that its counts do not give, with the place and both numbers.
        """
        return _read(data, _read_statement)


@dataclass(frozen=True, slots=True)
class Correction:
    """A new statement in the place of a sealed one, which stays in the log.

    `index` and `leaf` (a leaf hash, 32 bytes) say which entry of the log it corrects.
    """

    index: int
    leaf: bytes
    reason: str
    statement: Statement

    def to_bytes(self) -> bytes:
        """The canonical document.

        Raises:
            StatementError: for what `from_bytes` would refuse.
        """
        return _written(_correction_document(self), _read_correction)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Correction":
        """The correction in a canonical document.

        Raises:
            StatementError: as for a statement.
        """
        return _read(data, _read_correction)


Entry: TypeAlias = Statement | Correction
"""What is sealed as a leaf of the log."""


def entry_from_bytes(data: bytes) -> Entry:
    """The statement or correction in a canonical document.

    Raises:
        StatementError: if it is neither.
    """
    return _read(data, _read_entry)


def count_rows(rows: Iterable[Sequence[object]]) -> tuple[CountRow, ...]:
    """The counts of one day and level, from rows of the ledger in any order.

    A row is prefix, caller class, caller, channel, outcome and value. What several journals
    counted is added up, and what was opened but never counted is left out.
    """
    return tuple(CountRow._make((*key, value)) for key, value in _summed(rows))


def source_rows(rows: Iterable[Sequence[object]]) -> tuple[SourceRow, ...]:
    """The sources of one day, from rows of the ledger (prefix, source, value), likewise."""
    return tuple(SourceRow._make((*key, value)) for key, value in _summed(rows))


def sources_of(rows: Iterable[SourceRow]) -> Sources:
    """What a statement says of these sources; they may come from a cursor.

    Raises:
        StatementError: if they do not come by prefix and source in the order of code points
            (that of bytes, `COLLATE "C"`), each pair once.
    """
    known: set[str] = set()
    total = overflow = 0
    digest = hashlib.sha256(b"[")
    separator = b""
    for batch in _batches(_in_order(rows)):
        # The bytes between the brackets: a list of ten million is never whole in memory.
        digest.update(separator + to_canonical([list(row) for row in batch])[1:-1])
        separator = b","
        for _, source, value in batch:
            if source == SOURCE_OVERFLOW:
                overflow += value
            else:
                known.add(source)
                total += value
    digest.update(b"]")
    return Sources(len(known), total, overflow, digest.hexdigest())


def _in_order(rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
    before: tuple[str, ...] = ()
    for row in rows:
        if row[:-1] <= before:
            raise StatementError(f"sources: expected more than {before}, found {row[:-1]}")
        before = row[:-1]
        yield row


def _batches(rows: Iterator[SourceRow]) -> Iterator[list[SourceRow]]:
    while batch := list(islice(rows, _BATCH_ROWS)):
        yield batch


def _summed(rows: Iterable[Sequence[object]]) -> list[tuple[tuple[str, ...], int]]:
    values: Counter[tuple[str, ...]] = Counter()
    for *key, value in rows:
        assert isinstance(value, int)
        values[tuple(map(str, key))] += value
    return sorted((key, value) for key, value in values.items() if value)


def _by_kind(counts: Iterable[CountRow]) -> Counter[tuple[str, str]]:
    """The counts by caller class and outcome, which decide what counts."""
    kinds: Counter[tuple[str, str]] = Counter()
    for row in counts:
        kinds[row.caller_class, row.outcome] += row.value
    return kinds


# Writing


def _document(statement: Statement) -> dict[str, Value]:
    return {
        "form": STATEMENT_FORM,
        "origin": statement.origin,
        "prefix": statement.prefix,
        "day": date_of(statement.day).isoformat(),
        "level": statement.level,
        "counts": [list(row) for row in statement.counts],
        "sources": _block(statement.sources),
        "latency": _latency_block(statement.latency),
        "peak": _block(statement.peak),
        "registered": _block(statement.registered),
        "flags": [asdict(flag) for flag in statement.flags],
        "raw_logs": [asdict(log) for log in statement.raw_logs],
        "damage": list(statement.damage),
        **_totals(statement),
    }


def _totals(statement: Statement) -> dict[str, Value]:
    """The members that the counts give."""
    readings = statement.readings
    return {
        "requests_received": readings["requests"],
        "external_successes": readings["external_successes"],
        "readings": readings,
        "excluded": statement.excluded,
        "counted": statement.counted,
    }


def _correction_document(correction: Correction) -> dict[str, Value]:
    return {
        "form": CORRECTION_FORM,
        "corrects": {"index": correction.index, "leaf": correction.leaf.hex()},
        "reason": correction.reason,
        "statement": _document(correction.statement),
    }


def _block(block: Sources | Peak | Registered | None) -> dict[str, Value] | None:
    return None if block is None else asdict(block)


def _latency_block(latency: Latency | None) -> dict[str, Value] | None:
    return None if latency is None else asdict(latency) | {"mean_us": latency.mean_us}


# Reading

_T = TypeVar("_T")


def _written(document: dict[str, Value], read: Callable[[Members], object]) -> bytes:
    try:
        data = to_canonical(document)
    except CanonicalError as error:
        raise StatementError(str(error)) from error
    # Nothing is sealed that would be refused when it is read.
    _read(data, read)
    return data


def _read(data: bytes, read: Callable[[Members], _T]) -> _T:
    try:
        return read_document(data, read)
    except (CanonicalError, DocumentError) as error:
        raise StatementError(str(error)) from error


def _read_entry(members: Members) -> Entry:
    is_correction = members.peek("form") == CORRECTION_FORM
    return _read_correction(members) if is_correction else _read_statement(members)


def _read_correction(members: Members) -> Correction:
    members.same("form", CORRECTION_FORM)
    index, leaf = members.object("corrects", _read_corrected)
    return Correction(
        index, leaf, members.text("reason"), members.object("statement", _read_statement)
    )


def _read_corrected(members: Members) -> tuple[int, bytes]:
    return members.number("index"), bytes.fromhex(members.digest("leaf"))


def _read_statement(members: Members) -> Statement:
    members.same("form", STATEMENT_FORM)
    day = _read_day(members)
    statement = Statement(
        origin=members.text("origin"),
        prefix=members.text("prefix"),
        day=day,
        level=members.choice("level", LEVELS),
        counts=members.entries("counts", _read_count, lambda row: row[:-1]),
        sources=members.object("sources", _read_sources),
        latency=members.optional("latency", lambda block: _read_latency(block, day)),
        peak=members.optional("peak", lambda block: _read_peak(block, day)),
        registered=members.optional("registered", _read_registered),
        flags=members.entries("flags", _read_flag, lambda flag: (flag.rule, flag.subject)),
        raw_logs=members.entries("raw_logs", _read_raw_log, lambda log: log.name),
        damage=members.entries("damage", text_at, str),
    )
    for name, expected in _totals(statement).items():
        members.same(name, expected)
    return statement


def _read_day(members: Members) -> int:
    found = members.text("day")
    try:
        # Python reads other forms of a date too.
        if _DAY_FORM.fullmatch(found):
            return number_of(date.fromisoformat(found))
    except ValueError:
        pass
    raise DocumentError(f"{members.where('day')}: expected a date as 2026-01-31, found {found!r}")


def _read_count(where: str, found: Value) -> CountRow:
    prefix, caller_class, caller, channel, outcome, value = _cells(where, found, 6)
    return CountRow(
        _name(f"{where}[0]", prefix),
        choice_at(f"{where}[1]", caller_class, CALLER_CLASSES),
        _name(f"{where}[2]", caller),
        choice_at(f"{where}[3]", channel, CHANNELS),
        choice_at(f"{where}[4]", outcome, OUTCOMES),
        number_at(f"{where}[5]", value, at_least=1),
    )


def _cells(where: str, found: Value, number: int) -> Sequence[Value]:
    if isinstance(found, list) and len(found) == number:
        return found
    raise DocumentError(f"{where}: expected an array of {number}")


def _name(where: str, found: Value) -> str:
    """A prefix or caller; empty for what has none."""
    return "" if found == "" else text_at(where, found)


def _read_sources(members: Members) -> Sources:
    sources = Sources(
        distinct=members.number("distinct"),
        total=members.number("total"),
        overflow=members.number("overflow"),
        digest=members.digest("digest"),
    )
    if sources.distinct > sources.total:
        raise DocumentError(
            f"{members.where('distinct')}: expected at most {sources.total} (total),"
            f" found {sources.distinct}"
        )
    return sources


def _read_latency(members: Members, day: int) -> Latency:
    latency = Latency(
        count=members.number("count", at_least=1),
        total_us=members.number("total_us"),
        least_us=members.number("least_us"),
        least_at_s=_second(members, "least_at_s", day),
        greatest_us=members.number("greatest_us"),
        greatest_at_s=_second(members, "greatest_at_s", day),
    )
    members.same("mean_us", latency.mean_us)
    # The total was rounded down once, the extremes each: it may be almost 1 µs more for each.
    least = latency.count * latency.least_us
    greatest = latency.count * (latency.greatest_us + 1) - 1
    if not least <= latency.total_us <= greatest:
        raise DocumentError(
            f"{members.where('total_us')}: expected {least} to {greatest} of {latency.count}"
            f" between the extremes, found {latency.total_us}"
        )
    return latency


def _read_peak(members: Members, day: int) -> Peak:
    return Peak(_second(members, "at_s", day), members.number("count", at_least=1))


def _second(members: Members, name: str, day: int) -> int:
    """A second since 1970 that falls on the day."""
    second = members.number(name)
    if day_number(second) == day:
        return second
    raise DocumentError(
        f"{members.where(name)}: expected a second of day {day} in Asia/Shanghai,"
        f" found {second} of day {day_number(second)}"
    )


def _read_registered(members: Members) -> Registered:
    return Registered(members.number("added"), members.number("total"))


def _read_flag(where: str, found: Value) -> Flag:
    members = Members(where, found)
    flag = Flag(members.text("rule"), members.text("subject"), members.number("count", at_least=1))
    members.done()
    return flag


def _read_raw_log(where: str, found: Value) -> RawLog:
    members = Members(where, found)
    log = RawLog(members.text("name"), members.digest("sha256"), members.number("size_bytes"))
    members.done()
    return log
