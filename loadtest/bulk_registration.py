"""Bulk registration against a plain COPY of the same rows, in one run on one database.

    python -m loadtest.bulk_registration --rows 1000000

Starts from a running node (`idnode up`) found by its data folder, registers a generated file
through the command line as a factory does, and copies the same rows into a table of the same
shape (16 hash partitions, primary key, no triggers). Prints rates, their ratio, and the memory
of the registering process.
"""

import argparse
import asyncio
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg

_COPY_CHUNK_ROWS = 10_000
_PARTITIONS = 16
_TABLE = f"""
    DROP TABLE IF EXISTS plain_copy;
    CREATE TABLE plain_copy (
        key text COLLATE "C" NOT NULL, handle text COLLATE "C" NOT NULL, version bigint NOT NULL,
        first_version bigint NOT NULL, change_id bigint NOT NULL, changed_at timestamptz NOT NULL,
        deleted boolean NOT NULL, data bytea NOT NULL, PRIMARY KEY (key)
    ) PARTITION BY HASH (key);
    DO $$ BEGIN
        FOR n IN 0..{_PARTITIONS - 1} LOOP
            EXECUTE format('CREATE TABLE plain_copy_p%s PARTITION OF plain_copy
                            FOR VALUES WITH (MODULUS {_PARTITIONS}, REMAINDER %s)', n, n);
        END LOOP;
    END $$"""
_COLUMNS = (
    *("key", "handle", "version", "first_version"),
    *("change_id", "changed_at", "deleted", "data"),
)


def gtin(number: int) -> str:
    """A GTIN-14 with its check digit."""
    body = f"{number:013d}"
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(body))
    return f"{body}{-total % 10}"


def write_products(path: Path, rows: int) -> None:
    """A CSV file of made-up products."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("gtin", "brand", "name", "size"))
        writer.writerows(
            (gtin(690000000000 + n), f"品牌 {n % 997}", f"Product number {n}", f"{n % 100} g")
            for n in range(rows)
        )


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; exit code 1 if the ratio is below what is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--prefix", default="88.608.9001")
    parser.add_argument("--data", type=Path, default=Path("var"))
    parser.add_argument("--at-least", type=float, default=0.5)
    options = parser.parse_args(words)
    _allot(options.prefix, options.data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "products.csv"
        write_products(path, options.rows)
        registered = _register(path, options.prefix, options.data)
    copied_s = asyncio.run(_copy(options.data, options.prefix, options.rows))
    ratio = copied_s / registered["seconds"]
    result = {
        "rows": options.rows,
        "registered_rows_per_s": round(options.rows / registered["seconds"]),
        "copied_rows_per_s": round(options.rows / copied_s),
        "ratio": round(ratio, 3),
        "at_least": options.at_least,
        "client_memory_mb": round(registered["memory_mb"]),
        "cores": os.cpu_count(),
    }
    sys.stdout.write(f"{json.dumps(result)}\n")
    return 0 if ratio >= options.at_least else 1


def _allot(prefix: str, data: Path) -> None:
    code = "91450200MA5EXAMPL9"
    name = "示例工厂 Example Factory"
    for words in (
        ["enterprise", "add", "--name", name, "--credit-code", code, "--division", "450200"],
        ["prefix", "allot", prefix, "--enterprise", code],
    ):
        subprocess.run(
            [sys.executable, "-m", "node", *words],
            env={**os.environ, "IDNODE_DATA": str(data)},
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _register(path: Path, prefix: str, data: Path) -> dict[str, float]:
    """Wall time and peak memory of the registering process, its start included."""
    words = ["register", str(path), "--prefix", prefix, "--suffix", "gtin", "--json"]
    words += ["--value", "NAME=name", "--value", "BRAND=brand", "--value", "SIZE=size"]
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "node", *words],
        env={**os.environ, "IDNODE_DATA": str(data)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"register ended with {process.returncode}")
    seconds = time.perf_counter() - began_s
    return {"seconds": seconds, "memory_mb": usage.ru_maxrss * 1024 / 1_000_000}


async def _copy(data: Path, prefix: str, rows: int) -> float:
    """Seconds that COPY of the registered rows takes; reading them is not counted."""
    url = json.loads((data / "run.json").read_text())["postgres_url"]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_TABLE)
        spent_s = 0.0
        copied = 0
        for chunk in _chunks(prefix, rows):
            found = await connection.fetch(
                f"SELECT {', '.join(_COLUMNS)} FROM identifier WHERE key = ANY($1)", chunk
            )
            place = {key: number for number, key in enumerate(chunk)}
            records = sorted((tuple(row) for row in found), key=lambda row: place[row[0]])
            began_s = time.perf_counter()
            await connection.copy_records_to_table("plain_copy", records=records, columns=_COLUMNS)
            spent_s += time.perf_counter() - began_s
            copied += len(records)
        await connection.execute("DROP TABLE plain_copy")
        if copied != rows:
            raise SystemExit(f"{copied} rows are registered, {rows} were in the file")
        return spent_s
    finally:
        await connection.close()


def _chunks(prefix: str, rows: int) -> Iterator[list[str]]:
    for start in range(0, rows, _COPY_CHUNK_ROWS):
        numbers = range(start, min(start + _COPY_CHUNK_ROWS, rows))
        yield [f"{prefix}/{gtin(690000000000 + n)}" for n in numbers]


if __name__ == "__main__":
    sys.exit(main())
