"""The numbers of all workers together: living, dead, and dying at the wrong moment."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from metrics.worker_numbers import (
    CONNECTIONS,
    L1_EMPTIED,
    L1_HIT,
    REFUSED_RATE_SOURCE,
    WorkerNumbers,
    totals,
)

_DYING = """
import os, sys
from pathlib import Path
from metrics.worker_numbers import CONNECTIONS, L1_HIT, WorkerNumbers
numbers = WorkerNumbers(Path(sys.argv[1]))
numbers.add_many(L1_HIT, 40)
numbers.show(CONNECTIONS, 7)
os.kill(os.getpid(), 9)
"""


def die_counting(folder: Path) -> None:
    """A process that counts 40 hits, has 7 connections, and is killed."""
    done = subprocess.run([sys.executable, "-c", _DYING, str(folder)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_the_workers_are_added_up(tmp_path: Path) -> None:
    one, other = WorkerNumbers(tmp_path), WorkerNumbers(tmp_path)
    one.add(L1_HIT)
    other.add_many(L1_HIT, 2)
    other.add(REFUSED_RATE_SOURCE)
    one.show(CONNECTIONS, 3)
    other.show(CONNECTIONS, 4)
    other.show(CONNECTIONS, 5)

    found = one.totals()

    assert found == other.totals() == totals(tmp_path)
    assert found.workers == 2
    assert found.cache_lookups["l1", "hit"] == 3
    assert sum(found.cache_lookups.values()) == 3
    assert found.refused["rate_source"] == 1
    assert sum(found.refused.values()) == 1
    assert found.connections == 8
    assert (found.l1_emptied, found.cache_entries) == (0, 0)
    one.close()
    other.close()


def test_what_a_killed_worker_counted_stays_and_what_it_held_goes(tmp_path: Path) -> None:
    living = WorkerNumbers(tmp_path)
    living.add(L1_HIT)
    die_counting(tmp_path)
    die_counting(tmp_path)

    for _ in range(3):
        found = living.totals()
        assert found.workers == 1
        assert found.cache_lookups["l1", "hit"] == 81
        assert found.connections == 0

    assert len(list(tmp_path.glob("*.numbers"))) == 1
    living.close()


def test_a_closed_worker_is_a_dead_one(tmp_path: Path) -> None:
    numbers = WorkerNumbers(tmp_path)
    numbers.add(L1_EMPTIED)
    numbers.close()

    found = totals(tmp_path)

    assert (found.workers, found.l1_emptied) == (0, 1)
    assert totals(tmp_path) == found


def test_a_death_between_adding_and_removing_adds_nothing_twice(tmp_path: Path) -> None:
    die_counting(tmp_path)
    (dead,) = tmp_path.glob("*.numbers")
    shutil.copy(dead, tmp_path / "kept")
    before = totals(tmp_path)
    shutil.move(tmp_path / "kept", dead)  # as if whoever added it had died before the removal

    assert totals(tmp_path) == before

    assert not dead.exists()
    die_counting(tmp_path)
    assert totals(tmp_path).cache_lookups["l1", "hit"] == 80


def test_a_death_before_adding_adds_once(tmp_path: Path) -> None:
    die_counting(tmp_path)
    (tmp_path / "retired.new").write_bytes(b"half written")

    assert totals(tmp_path).cache_lookups["l1", "hit"] == 40
    assert totals(tmp_path).cache_lookups["l1", "hit"] == 40


def test_a_file_that_was_never_finished_is_removed(tmp_path: Path) -> None:
    unfinished = tmp_path / "5f0c2a52-0000-4000-8000-000000000000.numbers"
    unfinished.write_bytes(b"\0" * 4096)

    assert totals(tmp_path).workers == 0

    assert not unfinished.exists()


def test_a_file_with_fewer_slots_is_read(tmp_path: Path) -> None:
    numbers = WorkerNumbers(tmp_path)
    numbers.add(L1_HIT)
    data = bytearray(numbers.path.read_bytes())
    numbers.close()
    numbers.path.unlink()
    older = data[:12] + (3).to_bytes(4, "little") + data[16 : 32 + 3 * 8]
    numbers.path.write_bytes(older)

    assert totals(tmp_path).cache_lookups["l1", "hit"] == 1
