"""The journal: nothing lost by kill -9, nothing invented, and damage is noticed."""

import contextlib
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.journal import (
    FULL_SIZE,
    VALUE_MAX,
    CountMeaning,
    Journal,
    JournalDamagedError,
    JournalFullError,
    JournalSize,
    SourceMeaning,
    identity_of,
    read_snapshot,
)

NOW_S = 1_790_000_000.0
SMALL = JournalSize(32, 48, 16_384, 4, 8, 1_024)
FOUND = CountMeaning(20_717, "enterprise", "88.608.5288", "anonymous", "", "http_json", "found")
SOURCE = SourceMeaning(20_717, "88.608.5288", "192.0.2.7")

_ANY = st.characters(exclude_categories=())  # halves of surrogate pairs too
Full = Callable[[], AbstractContextManager[None]]

# Counts as fast as it can, and says in one byte which of seven questions it counted.
CHILD = """
import itertools, os, sys
from pathlib import Path
from metrics.counting import Counting
from metrics.journal import JournalSize

counting = Counting(Path(sys.argv[1]), 1.79e9, JournalSize(32, 48, 16_384, 4, 8, 1_024))
for n in itertools.count():
    name = "abcdefg"[n % 7]
    source = f"192.0.2.{n // 100 % 200}"
    counting.count(1.79e9, "node", name, "anonymous", "", "http_json", "found", source)
    os.write(1, name.encode())
"""


def _journal(folder: Path) -> Journal:
    journal = Journal(folder, NOW_S, SMALL)
    for n in range(3):
        meaning = CountMeaning(20_717, "node", f"88.608.{n}", "application", "甲", "batch", "found")
        for _ in range(n + 1):
            journal.add(journal.count_slot(meaning), 1)
            journal.add(journal.source_slot(SourceMeaning(20_717, f"88.608.{n}", "::1")), 1)
    return journal


def _used_directory(data: bytes) -> range:
    """The bytes of the directory up to the one that ends it."""
    return range(SMALL.slots_end, len(data.rstrip(b"\x00")) + 1)


def _flipped(data: bytes, offset: int, mask: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]


@pytest.mark.parametrize("seed", range(24))
def test_a_killed_process_loses_no_increment_and_invents_none(tmp_path: Path, seed: int) -> None:
    # The child rotates every few thousand counts, so that some kills come while it does.
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, pipesize=1 << 20
    )
    assert child.stdout is not None
    said = child.stdout.read(1)
    time.sleep(random.Random(seed).uniform(0, 0.08))
    child.kill()
    said += child.stdout.read()
    child.stdout.close()
    child.wait()

    counted: Counter[str] = Counter()
    sources = 0
    for path in tmp_path.glob("*.journal"):
        snapshot = read_snapshot(path)
        counted.update({meaning.prefix: value for _, meaning, value in snapshot.counts})
        sources += sum(value for _, _, value in snapshot.sources)
    received = Counter(said.decode())
    assert received <= counted
    # Killed between the increment and the byte, or between the two increments of one count.
    assert counted.total() - received.total() in (0, 1)
    assert counted.total() - sources in (0, 1)


@pytest.fixture(params=["limit of file sizes", "full disk"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """A folder, and a context in which no journal of full size fits into it."""
    if request.param == "limit of file sizes":
        yield tmp_path, _limited
        return
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield disk, contextlib.nullcontext
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_is_an_error_and_leaves_no_file(full: tuple[Path, Full]) -> None:
    folder, is_full = full
    with is_full(), pytest.raises(OSError, match=r"No space left|File too large"):
        Journal(folder, NOW_S)
    assert list(folder.iterdir()) == []


def test_all_room_is_taken_at_the_creation(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOW_S)
    try:
        assert journal.path.stat().st_blocks * 512 >= FULL_SIZE.file_bytes
    finally:
        journal.close()


def test_every_flipped_byte_of_header_and_directory_is_noticed(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.close()
    data = journal.path.read_bytes()
    used = (*range(52), *_used_directory(data))
    # All bits of it, each bit of it, and what makes the kind of a meaning zero.
    masks = (0xFF, *(1 << bit for bit in range(8)), ord("C"), ord("S"), ord("C") ^ ord("S"))
    unnoticed = []
    for offset in used:
        for mask in masks:
            journal.path.write_bytes(_flipped(data, offset, mask))
            try:
                read_snapshot(journal.path)
            except JournalDamagedError:
                continue
            unnoticed.append((offset, mask))
    assert unnoticed == []


def test_a_count_without_a_meaning_is_noticed(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.close()
    data = journal.path.read_bytes()
    for slot in (3, SMALL.count_slots + 3, SMALL.count_slots + SMALL.source_slots - 1):
        journal.path.write_bytes(_flipped(data, 4_096 + 8 * slot, 1))
        with pytest.raises(JournalDamagedError, match="without a meaning"):
            read_snapshot(journal.path)


def test_a_value_that_nobody_can_have_counted_is_noticed(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.close()
    data = journal.path.read_bytes()
    for bit in range(VALUE_MAX.bit_length() - 1, 64):
        offset, mask = 4_096 + bit // 8, 1 << bit % 8
        journal.path.write_bytes(_flipped(data, offset, mask))
        with pytest.raises(JournalDamagedError, match="at most"):
            read_snapshot(journal.path)


@pytest.mark.parametrize("size", [0, 7, 51, 4_095, 4_096, SMALL.slots_end, SMALL.file_bytes - 1])
def test_a_truncated_file_is_noticed(tmp_path: Path, size: int) -> None:
    journal = _journal(tmp_path)
    journal.close()
    os.truncate(journal.path, size)
    with pytest.raises(JournalDamagedError):
        read_snapshot(journal.path)


def test_a_file_that_is_too_long_is_noticed(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.close()
    os.truncate(journal.path, SMALL.file_bytes + 1)
    with pytest.raises(JournalDamagedError, match="expected"):
        read_snapshot(journal.path)


def test_a_file_of_another_layout_says_which(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.close()
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:8] + (2).to_bytes(4, "little") + data[12:])
    with pytest.raises(JournalDamagedError, match="layout 2, this program reads layout 1"):
        read_snapshot(journal.path)


def test_a_copy_under_another_name_is_not_taken_for_the_journal(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.close()
    copy = tmp_path / f"{journal.opened_at_s:011d}-{uuid.uuid4()}.journal"
    shutil.copy(journal.path, copy)
    with pytest.raises(JournalDamagedError, match=str(journal.identity)):
        read_snapshot(copy)


def test_the_name_of_a_file_gives_its_identity_and_a_strange_name_one_of_its_own() -> None:
    identity = uuid.uuid4()
    assert identity_of(Path(f"/a/00000000001-{identity}.journal")) == identity
    strange = identity_of(Path("/a/copy of a journal.journal"))
    assert strange == identity_of(Path("/b/copy of a journal.journal"))
    assert strange != identity_of(Path("/a/other.journal"))


@pytest.mark.parametrize(
    "meaning",
    [
        FOUND,
        CountMeaning(20_717, "node", "示例/工厂", "application", "应用—甲", "redirect", "found"),
        CountMeaning(1, "", "88." + "1" * 61, "", "", "", ""),
    ],
)
def test_a_count_is_read_as_it_was_meant(tmp_path: Path, meaning: CountMeaning) -> None:
    journal = Journal(tmp_path, NOW_S, SMALL)
    journal.add(journal.count_slot(meaning), 1)
    journal.add(journal.count_slot(meaning), 1)
    read = read_snapshot(journal.path)
    journal.close()
    assert (read.identity, read.opened_at_s) == (journal.identity, int(NOW_S))
    assert read.counts == ((0, meaning, 2),)


@pytest.mark.parametrize(
    "source", ["192.0.2.7", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff%enp0s31f6"]
)
def test_a_source_is_read_as_it_was_meant(tmp_path: Path, source: str) -> None:
    journal = Journal(tmp_path, NOW_S, SMALL)
    meaning = SourceMeaning(20_717, "88.608.5288", source)
    journal.add(journal.source_slot(meaning), 1)
    read = read_snapshot(journal.path)
    journal.close()
    assert read.sources == ((SMALL.count_slots, meaning, 1),)


@settings(max_examples=200, deadline=None)
@given(
    fields=st.lists(st.text(_ANY, max_size=300), min_size=6, max_size=6),
    source=st.one_of(st.text(_ANY), st.just("fe80::1%\x1f\x00\ud800" + "x" * 5_000)),
)
def test_nothing_that_is_counted_can_damage_a_journal(
    tmp_path_factory: pytest.TempPathFactory, fields: list[str], source: str
) -> None:
    journal = Journal(tmp_path_factory.getbasetemp(), NOW_S, SMALL)
    try:
        count = CountMeaning(20_717, *fields)
        journal.add(journal.count_slot(count), 1)
        journal.add(journal.source_slot(SourceMeaning(20_717, fields[1], source)), 1)
        read = read_snapshot(journal.path)
    finally:
        journal.close()
        journal.path.unlink()
    assert [value for _, _, value in read.counts] == [1]
    assert [value for _, _, value in read.sources] == [1]
    kept = read.counts[0][1]
    if all(field.isprintable() and len(field) <= 128 for field in fields):
        assert kept == count
    # PostgreSQL takes it: no NUL, no half of a pair.
    assert all(field.isprintable() for field in (kept.prefix, kept.caller, kept.outcome))


def test_without_a_free_slot_the_journal_is_full_but_for_its_reserve(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOW_S, SMALL)
    for n in range(SMALL.count_slots - SMALL.reserved_count_slots):
        journal.count_slot(CountMeaning(n, "", "", "", "", "", ""))
    with pytest.raises(JournalFullError):
        journal.count_slot(FOUND)
    for n in range(SMALL.reserved_count_slots):
        journal.count_slot(CountMeaning(1_000 + n, "", "", "", "", "", ""), reserve=True)
    with pytest.raises(JournalFullError):
        journal.count_slot(FOUND, reserve=True)
    journal.source_slot(SOURCE)
    assert len(read_snapshot(journal.path).counts) == SMALL.count_slots
    journal.close()


def test_a_full_directory_is_full_and_still_readable(tmp_path: Path) -> None:
    size = JournalSize(64, 64, 1_000, 8, 8, 200)
    journal = Journal(tmp_path, NOW_S, size)
    opened = 0
    with contextlib.suppress(JournalFullError):
        for n in range(64):
            journal.count_slot(CountMeaning(n, "l", "p" * 60, "a", "b", "c", "d"))
            opened += 1
    assert 0 < opened < 15
    with contextlib.suppress(JournalFullError):
        for n in range(64):
            journal.source_slot(SourceMeaning(n, "p", "s"), reserve=True)
            opened += 1
    assert opened < 40
    read = read_snapshot(journal.path)
    assert len(read.counts) + len(read.sources) == opened
    journal.close()


def test_a_half_written_meaning_is_not_there(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.close()
    before = read_snapshot(journal.path)
    data = journal.path.read_bytes()
    end = len(data.rstrip(b"\x00"))
    # Its tail was written, its first byte was not.
    journal.path.write_bytes(data[: end + 1] + b"\x05\x00hello" + data[end + 8 :])
    assert read_snapshot(journal.path) == before


def test_only_what_has_grown_is_named(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    before = journal.values()
    assert journal.grown(before, journal.values()).counts == ()
    journal.add(journal.source_slot(SOURCE), 1)
    journal.add(0, 1)
    grown = journal.grown(before, journal.values())
    assert [(slot, value) for slot, _, value in grown.counts] == [(0, 2)]
    assert grown.sources == ((SMALL.count_slots + 3, SOURCE, 1),)
    journal.close()
