"""What one worker of an instance does for all of them."""

import subprocess
import sys
from pathlib import Path

from metrics.counting import Counting
from metrics.flushing import Flushing
from node.duty import Duty
from registry.database import Database

NOON_S = 1_790_000_000.0

HOLDER = """
import sys, time
from pathlib import Path
from node.duty import Duty
duty = Duty(Path(sys.argv[1]))
sys.stdout.write(f"{duty.is_ours()}\\n")
sys.stdout.flush()
time.sleep(600)
"""


def test_one_holds_the_duty_until_it_lets_go(tmp_path: Path) -> None:
    one, other = Duty(tmp_path / "duty.lock"), Duty(tmp_path / "duty.lock")
    assert one.is_ours()
    assert one.is_ours()
    assert not other.is_ours()
    one.release()
    one.release()
    assert other.is_ours()
    assert not one.is_ours()
    other.release()


def test_the_duty_of_a_killed_process_goes_to_another(tmp_path: Path) -> None:
    duty = Duty(tmp_path / "duty.lock")
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "duty.lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not duty.is_ours()
        holder.kill()
    assert duty.is_ours()
    duty.release()


async def test_who_is_not_on_duty_leaves_the_journals_of_the_dead_alone(
    tmp_path: Path, database: Database
) -> None:
    dead = Counting(tmp_path, NOON_S)
    dead.count(NOON_S, "enterprise", "88.1", "anonymous", "", "http_json", "found", "192.0.2.1")
    left = dead.journals[0].path
    dead.close()
    counting = Counting(tmp_path, NOON_S)
    flushing = Flushing(tmp_path, counting, database.connection)
    await flushing.check()
    assert left.exists()
    # Its counts are shown all the same.
    assert sum((await flushing.totals() or {}).values()) == 1
    assert await flushing.adopt(NOON_S) == 1
    assert not left.exists()
    counting.close()


async def test_who_is_not_on_duty_writes_again_what_an_older_ledger_lacks(
    tmp_path: Path, database: Database
) -> None:
    counting = Counting(tmp_path, NOON_S)
    flushing = Flushing(tmp_path, counting, database.connection)
    counting.count(NOON_S, "enterprise", "88.1", "anonymous", "", "http_json", "found", "192.0.2.1")
    await flushing.flush(NOON_S)
    async with database.connection() as connection:
        await connection.execute("DELETE FROM ledger_count")
    await flushing.flush(NOON_S)
    assert await _written(database) == 0
    await flushing.check()
    await flushing.flush(NOON_S)
    assert await _written(database) == 1
    counting.close()


async def _written(database: Database) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM ledger_count"))
