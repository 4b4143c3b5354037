"""What the doctor looks at on this machine: the program, the folder, the limits, the key."""

import os
import platform
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from metrics.policy import PolicyError
from metrics.policy_file import policies_beside_bundled
from node.cli.context import Desk
from node.cli.finding import Finding, judged
from node.data_folder_error import DataFolderError, free_mb
from node.node_key import FILE_NAME, NodeKey, fingerprint
from node.start_error import StartError
from registry.api_keys import parse_key

# A day of journals and logs of a busy node, with the database growing beside them.
_FREE_MB_WELL = 1_000
# A connection a client, twice that of the largest load test, and the files of the stores.
_DESCRIPTORS_WELL = 4_096
_KEY_FILE_SIZE_BYTES_MAX = 4_096


def machine_findings(desk: Desk) -> Iterator[Finding]:
    """The checks that need no store and no node."""
    yield Finding("Python", "ok", platform.python_version())
    yield _folder(desk)
    yield _descriptors(desk)
    yield _key_file(desk)
    yield _node_key(desk)
    yield _policy(desk)


def _folder(desk: Desk) -> Finding:
    check, path = desk.text("doctor.folder"), desk.config.data
    if not path.exists():
        return Finding(check, "warn", desk.text("doctor.missing", path=path), "idnode up")
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        return Finding(check, "fail", str(path), desk.text("doctor.folder.do"))
    try:
        free = free_mb(path)
    except DataFolderError as error:
        return Finding(check, "fail", str(error), desk.text("doctor.folder.do"))
    found = desk.text("doctor.free", path=path, free=f"{free:,}")
    return judged(check, free >= _FREE_MB_WELL, found, desk.text("doctor.free.do"), "warn")


def _descriptors(desk: Desk) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judged(
        desk.text("doctor.descriptors"),
        soft == resource.RLIM_INFINITY or soft >= _DESCRIPTORS_WELL,
        f"{_limit(soft)} / {_limit(hard)}",
        desk.text("doctor.descriptors.do", wanted=_DESCRIPTORS_WELL),
        "warn",
    )


def _limit(number: int) -> str:
    return "∞" if number == resource.RLIM_INFINITY else f"{number:,}"


def _key_file(desk: Desk) -> Finding:
    check, path = desk.text("doctor.key"), desk.config.operator_key_file
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key_text = _head(path)
    except FileNotFoundError:
        return Finding(
            check, "warn", desk.text("doctor.missing", path=path), desk.text("doctor.key.do")
        )
    except (OSError, UnicodeDecodeError) as error:
        return Finding(check, "warn", f"{path}: {error}", desk.text("doctor.key.readable.do"))
    if mode & 0o077:
        return Finding(check, "fail", f"{path}: {mode:04o}", f"chmod 600 {path}")
    return judged(
        check, parse_key(key_text) is not None, str(path), desk.text("doctor.key.form.do")
    )


def _node_key(desk: Desk) -> Finding:
    check, path = desk.text("doctor.node_key"), desk.config.data / FILE_NAME
    try:
        path.stat()
        key = NodeKey.kept(desk.config.data)
    except FileNotFoundError:
        return Finding(check, "warn", desk.text("doctor.missing", path=path), "idnode up")
    except OSError as error:
        return Finding(check, "warn", f"{path}: {error}", desk.text("doctor.key.readable.do"))
    except StartError as error:
        return Finding(check, "fail", str(error))
    return Finding(check, "ok", f"SHA-256 {fingerprint(key.public_key)}")


def _head(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(_KEY_FILE_SIZE_BYTES_MAX).strip()


def _policy(desk: Desk) -> Finding:
    check = desk.text("doctor.policy")
    try:
        policies = policies_beside_bundled(desk.config.policy)
    except (OSError, PolicyError) as error:
        return Finding(check, "fail", str(error), desk.text("doctor.policy.do"))
    return Finding(check, "ok", ", ".join(policy.id for policy in policies))
