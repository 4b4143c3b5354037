"""The example products that a first start registers, so that there is something to resolve."""

from collections.abc import Callable
from pathlib import Path

from node.registration import register_file
from registry import enterprises, prefixes
from registry.database import Database
from registry.records import Author

PREFIX = "88.608.1001"
IDENTIFIER = f"{PREFIX}/00041250500735"
NAME = "示例工厂 Example Factory"
# Made up, with a right check character; 450200 is Liuzhou.
CREDIT_CODE = "91450200MA5EXAMPL9"
DIVISION = "450200"

_FILE = Path(__file__).parent.parent / "examples" / "products-cc0.csv"
_MARK = "examples.registered"


def are_missing(data: Path) -> bool:
    """True on the first start of a data folder, if the examples came with the program."""
    return _FILE.exists() and not (data / _MARK).exists()


async def register(database: Database, data: Path, now_s: Callable[[], float]) -> None:
    """Register the examples; a crash leaves some of them, and the next start does the rest."""
    author = Author("node", "examples")
    await enterprises.add(
        database, name=NAME, credit_code=CREDIT_CODE, division=DIVISION, author=author
    )
    await prefixes.allot(
        database, prefix=PREFIX, credit_code=CREDIT_CODE, node_prefix=None, author=author
    )
    await register_file(
        database,
        _FILE,
        prefix=PREFIX,
        suffix="gtin",
        values=["NAME=name", "BRAND=brand", "SIZE=size"],
        mapping=None,
        check="auto",
        dry_run=False,
        errors=data / "examples.errors.csv",
        actor="node",
        now_s=now_s,
        on_progress=lambda _: None,
    )
    (data / _MARK).touch()
