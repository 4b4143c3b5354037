"""Statements: every number of a document follows from its counts, or it is refused."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.canonical import to_canonical
from metrics.counting import SOURCE_OVERFLOW
from metrics.day import DAY_S, SHANGHAI_OFFSET_S, number_of
from metrics.dimension import CALLER_CLASSES, CHANNELS, LEVELS, OUTCOMES
from metrics.merkle import leaf_hash
from metrics.statement import (
    Correction,
    CountRow,
    Flag,
    Latency,
    Peak,
    RawLog,
    Registered,
    SourceRow,
    Sources,
    Statement,
    StatementError,
    count_rows,
    entry_from_bytes,
    source_rows,
    sources_of,
)

DAY = number_of(date(2026, 11, 23))
MIDNIGHT_S = DAY * DAY_S - SHANGHAI_OFFSET_S
DIGEST = "ab" * 32

# As journals leave them: in any order, one kind in two journals, one opened and never counted.
LEDGER = [
    ("88.102.5", "application", "app-7", "http_json", "found", 7),
    ("88.102.5", "anonymous", "", "native_udp", "not_found", 4),
    ("", "anonymous", "", "http_json", "invalid", 3),
    ("88.102.5", "application", "app-7", "http_json", "found", 5),
    ("88.102.5", "probe", "", "http_json", "found", 2),
    ("88.102.5", "sandbox", "", "batch", "found", 0),
]
ADDRESSES = [("88.102.5", "192.0.2.9", 11), ("", "2001:db8::1", 3), ("88.102.5", "192.0.2.8", 5)]
SMALL = Statement(
    origin="node.example/days",
    prefix="88.102",
    day=DAY,
    level="enterprise",
    counts=count_rows(LEDGER),
    sources=sources_of(source_rows(ADDRESSES)),
)
FULL = replace(
    SMALL,
    latency=Latency(16, 1_000, 8, MIDNIGHT_S, 400, MIDNIGHT_S + DAY_S - 1),
    peak=Peak(MIDNIGHT_S + 3_600, 6),
    registered=Registered(120, 40_000),
    flags=(Flag("one-identifier", "source 17", 5), Flag("regular", "source 17", 5)),
    raw_logs=(RawLog("2026-11-23.0.zst", DIGEST, 4_711),),
    damage=("journal 3: slot 7 holds 1, the ledger 2",),
)
CORRECTION = Correction(
    index=41, leaf=leaf_hash(SMALL.to_bytes()), reason="a journal came late", statement=FULL
)

# The form is fixed: a change of a rule, a name or an order makes other bytes, and is another form.
GOLDEN = (
    '{"counted":21,'
    '"counts":[["","anonymous","","http_json","invalid",3],'
    '["88.102.5","anonymous","","native_udp","not_found",4],'
    '["88.102.5","application","app-7","http_json","found",12],'
    '["88.102.5","probe","","http_json","found",2]],'
    '"damage":[],"day":"2026-11-23",'
    '"excluded":{"invalid":3,"operator":0,"probe":2,"refused":0,"sandbox":0},'
    '"external_successes":12,"flags":[],"form":"idnode-statement-1","latency":null,'
    '"level":"enterprise","origin":"node.example/days","peak":null,"prefix":"88.102",'
    '"raw_logs":[],"readings":{"external_successes":12,"requests":16,"successes":12},'
    '"registered":null,"requests_received":16,'
    '"sources":{"digest":"'
    "%s"
    '","distinct":3,"overflow":0,"total":19}}'
)


def test_the_form_of_a_statement_is_fixed() -> None:
    addresses = '[["","2001:db8::1",3],["88.102.5","192.0.2.8",5],["88.102.5","192.0.2.9",11]]'
    digest = hashlib.sha256(addresses.encode()).hexdigest()
    assert SMALL.to_bytes().decode() == GOLDEN % digest
    assert Statement.from_bytes((GOLDEN % digest).encode()) == SMALL


@pytest.mark.parametrize("statement", [SMALL, FULL])
def test_a_statement_reads_as_it_was_written(statement: Statement) -> None:
    assert Statement.from_bytes(statement.to_bytes()) == statement
    assert entry_from_bytes(statement.to_bytes()) == statement


def test_a_correction_names_what_it_corrects_and_brings_the_whole_statement() -> None:
    document = json.loads(CORRECTION.to_bytes())
    assert document["corrects"] == {"index": 41, "leaf": leaf_hash(SMALL.to_bytes()).hex()}
    assert document["statement"] == json.loads(FULL.to_bytes())
    assert Correction.from_bytes(CORRECTION.to_bytes()) == CORRECTION
    assert entry_from_bytes(CORRECTION.to_bytes()) == CORRECTION


def test_totals_come_from_the_rules_of_what_counts() -> None:
    assert SMALL.readings == {"external_successes": 12, "successes": 12, "requests": 16}
    assert SMALL.excluded == {"operator": 0, "probe": 2, "sandbox": 0, "invalid": 3, "refused": 0}
    assert SMALL.counted == 21


def altered(change: Callable[[Any], None], of: Statement = FULL) -> bytes:
    """The document of a statement, changed and spelt canonically again."""
    document = json.loads(of.to_bytes())
    change(document)
    return to_canonical(document)


def put(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for part in path[:-1]:
            document = document[part]
        document[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for part in path[:-1]:
            document = document[part]
        del document[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        # Totals that the counts do not give.
        (put("requests_received", value=17), "requests_received: expected 16, found 17"),
        (put("external_successes", value=13), "external_successes: expected 12, found 13"),
        (put("readings", "successes", value=0), r"readings\.successes: expected 12, found 0"),
        (put("excluded", "probe", value=0), r"excluded\.probe: expected 2, found 0"),
        (put("counted", value=22), "counted: expected 21, found 22"),
        (put("counts", 2, 5, value=13), "requests_received: expected 17, found 16"),
        (put("counts", 0, 4, value="refused"), r"excluded\.invalid: expected 0, found 3"),
        (put("latency", "mean_us", value=63), r"latency\.mean_us: expected 62, found 63"),
        (
            put("latency", "greatest_us", value=61),
            r"latency\.total_us: expected 128 to 991 of 16 between the extremes, found 1000",
        ),
        (put("sources", "distinct", value=20), r"sources\.distinct: expected at most 19"),
        # Counts that are out of order, twice, none, or of no known kind.
        (lambda d: d["counts"].reverse(), r"counts\[1\]: expected more than \('88"),
        (lambda d: d["counts"].insert(0, d["counts"][0]), r"counts\[1\]: expected more than"),
        (put("counts", 1, 5, value=0), r"counts\[1\]\[5\]: expected a whole number from 1"),
        (put("counts", 1, 5, value=True), r"counts\[1\]\[5\]: .* found True"),
        (
            put("counts", 1, 1, value="guest"),
            r"counts\[1\]\[1\]: expected one of .*, found 'guest'",
        ),
        (put("counts", 1, 3, value="fax"), r"counts\[1\]\[3\]: expected one of"),
        (put("counts", 1, 4, value="lost"), r"counts\[1\]\[4\]: expected one of"),
        (put("counts", 1, value=["88.102.5"]), r"counts\[1\]: expected an array of 6"),
        (put("counts", value={}), "counts: expected an array, found an object"),
        # Members: each once, none more, of the right kind.
        (put("note", value="x"), "note: expected no such member"),
        (drop("damage"), "damage: expected this member, found none"),
        (drop("peak"), "peak: expected this member, found none"),
        (drop("readings", "requests"), r"readings\.requests: expected this member"),
        (put("readings", "strict", value=1), r"readings\.strict: expected no such member"),
        (put("latency", "median_us", value=1), r"latency\.median_us: expected no such member"),
        (put("flags", 0, "source", value="x"), r"flags\[0\]\.source: expected no such member"),
        (put("raw_logs", 0, value="x"), r"raw_logs\[0\]: expected an object, found 'x'"),
        (put("raw_logs", 0, "sha256", value="AB" * 32), r"raw_logs\[0\]\.sha256: expected 64 hex"),
        (put("form", value="idnode-statement-2"), "form: expected 'idnode-statement-1', found"),
        (put("form", value=1), "form: expected 'idnode-statement-1', found 1"),
        (put("level", value="both"), "level: expected one of node, enterprise, found 'both'"),
        (put("origin", value=""), "origin: expected a text of 1 to 4000 characters, found ''"),
        (put("prefix", value="8" * 4_001), "prefix: expected a text of 1 to 4000 characters"),
        (
            put("registered", "total", value=-1),
            r"registered\.total: expected a whole number from 0",
        ),
        (put("flags", 1, "rule", value="a"), r"flags\[1\]: expected more than"),
        (put("damage", value=["b", "a"]), r"damage\[1\]: expected more than b, found a"),
        # Days and seconds that do not belong together.
        (put("day", value="2026-11-31"), "day: expected a date as 2026-01-31, found '2026-11-31'"),
        (put("day", value="20261123"), "day: expected a date"),
        (put("day", value="2026-W48-1"), "day: expected a date"),
        (put("peak", "at_s", value=MIDNIGHT_S - 1), r"peak\.at_s: expected a second of day 20780"),
        (put("latency", "least_at_s", value=MIDNIGHT_S + DAY_S), r"latency\.least_at_s: expected"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    change: Callable[[Any], None], error: str
) -> None:
    with pytest.raises(StatementError, match=f"^{error}"):
        Statement.from_bytes(altered(change))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (put("statement", "counted", value=1), r"statement\.counted: expected 21, found 1"),
        (put("statement", "form", value="x"), r"statement\.form: expected 'idnode-statement-1'"),
        (
            put("corrects", "leaf", value="00"),
            r"corrects\.leaf: expected 64 hex digits, found '00'",
        ),
        (put("corrects", "index", value=-1), r"corrects\.index: expected a whole number from 0"),
        (put("reason", value=""), "reason: expected a text"),
        (put("by", value="x"), "by: expected no such member"),
    ],
)
def test_a_correction_is_read_as_strictly(change: Callable[[Any], None], error: str) -> None:
    document = json.loads(CORRECTION.to_bytes())
    change(document)
    for read in (Correction.from_bytes, entry_from_bytes):
        with pytest.raises(StatementError, match=f"^{error}"):
            read(to_canonical(document))


def test_a_correction_is_no_statement_and_the_other_way_round() -> None:
    with pytest.raises(StatementError, match=r"^form: expected 'idnode-statement-1'"):
        Statement.from_bytes(CORRECTION.to_bytes())
    with pytest.raises(StatementError, match=r"^form: expected 'idnode-correction-1'"):
        Correction.from_bytes(FULL.to_bytes())
    with pytest.raises(StatementError, match=r"^form: expected this member, found none"):
        entry_from_bytes(b"{}")
    with pytest.raises(StatementError, match=r"^document: expected an object, found an array"):
        entry_from_bytes(b"[]")


def test_another_spelling_is_refused() -> None:
    with pytest.raises(StatementError, match=r"^byte 11: expected"):
        Statement.from_bytes(json.dumps(json.loads(FULL.to_bytes()), sort_keys=True).encode())


@pytest.mark.parametrize(
    "unfit",
    [
        replace(SMALL, counts=SMALL.counts[::-1]),
        replace(SMALL, level="both"),
        replace(SMALL, damage=("b", "a")),
        replace(SMALL, peak=Peak(MIDNIGHT_S - 1, 1)),
        replace(SMALL, sources=Sources(2**60, 2**60, 0, DIGEST)),
        replace(SMALL, origin="\udc00"),
    ],
)
def test_nothing_is_written_that_would_be_refused(unfit: Statement) -> None:
    with pytest.raises(StatementError):
        unfit.to_bytes()


# Rows of the ledger


def test_rows_of_several_journals_are_added_up_and_put_in_order() -> None:
    assert SMALL.counts == (
        CountRow("", "anonymous", "", "http_json", "invalid", 3),
        CountRow("88.102.5", "anonymous", "", "native_udp", "not_found", 4),
        CountRow("88.102.5", "application", "app-7", "http_json", "found", 12),
        CountRow("88.102.5", "probe", "", "http_json", "found", 2),
    )


def test_sources_are_told_by_their_number_and_digest_alone() -> None:
    assert (SMALL.sources.distinct, SMALL.sources.total, SMALL.sources.overflow) == (3, 19, 0)
    assert b"192.0.2" not in FULL.to_bytes()


def test_one_address_under_two_prefixes_is_one_source() -> None:
    assert sources_of([SourceRow("a", "s", 1), SourceRow("b", "s", 2)]).distinct == 1


def test_what_came_from_addresses_not_told_apart_is_said_apart() -> None:
    sources = sources_of(
        source_rows([("", SOURCE_OVERFLOW, 4), ("a", SOURCE_OVERFLOW, 5), ("a", "s", 1)])
    )
    assert (sources.distinct, sources.total, sources.overflow) == (1, 1, 9)


def test_no_source_is_a_source_list_too() -> None:
    assert sources_of([]) == Sources(0, 0, 0, hashlib.sha256(b"[]").hexdigest())


@pytest.mark.parametrize("number", [1, 9_999, 10_000, 10_001, 20_000])
def test_the_digest_is_that_of_the_whole_list(number: int) -> None:
    rows = [SourceRow("88.102", f"s{place:06d}", 1) for place in range(number)]
    whole = to_canonical([list(row) for row in rows])
    assert sources_of(iter(rows)).digest == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("pair", [(("a", "2"), ("a", "1")), (("a", "1"), ("a", "1"))])
def test_sources_out_of_order_are_refused(pair: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(StatementError, match=r"^sources: expected more than \('a', '[12]'\)"):
        sources_of([SourceRow(*key, 1) for key in pair])


KINDS = st.tuples(
    st.sampled_from(["", "88.102", "88.102.5", "88.102.江"]),
    st.sampled_from(CALLER_CLASSES),
    st.sampled_from(["", "app-1", "应用"]),
    st.sampled_from(CHANNELS),
    st.sampled_from(OUTCOMES),
)
ROWS = st.lists(st.tuples(KINDS, st.integers(0, 2**40)).map(lambda row: (*row[0], row[1])))


@given(ROWS, st.sampled_from(LEVELS), st.randoms(use_true_random=False))
def test_any_ledger_makes_one_statement_that_adds_up(
    rows: list[tuple[str, str, str, str, str, int]], level: str, random: Any
) -> None:
    statement = replace(SMALL, level=level, counts=count_rows(rows))
    assert Statement.from_bytes(statement.to_bytes()) == statement
    assert statement.counted == sum(row[-1] for row in rows)
    assert statement.counted == statement.readings["requests"] + sum(statement.excluded.values())
    shuffled = random.sample(rows, len(rows))
    assert replace(statement, counts=count_rows(shuffled)).to_bytes() == statement.to_bytes()


@given(st.data())
def test_a_changed_byte_is_refused_or_another_statement(data: st.DataObject) -> None:
    document = bytearray(FULL.to_bytes())
    place = data.draw(st.integers(0, len(document) - 1))
    document[place] ^= data.draw(st.integers(1, 255))
    try:
        statement = Statement.from_bytes(bytes(document))
    except StatementError:
        return
    assert statement != FULL
    assert statement.to_bytes() == document
