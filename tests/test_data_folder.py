"""The data folder: one node at a time, nothing half-written, one clear line when it cannot be."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from node.data_folder import DataFolder, DataFolderError, RunInfo
from node.file_lock import FileLock, is_locked

_INFO = RunInfo(
    pid=os.getpid(),
    http="127.0.0.1:8000",
    postgres_url="postgresql://idnode:secret@/idnode?host=/sockets&port=5432",
    redis_url="unix:///sockets/valkey.sock?password=secret",
    started_at_s=1_700_000_000.25,
)
# A node that dies without closing anything.
_DIES = """
import os, sys
from pathlib import Path
from node.data_folder import DataFolder, RunInfo
folder = DataFolder.open(Path(sys.argv[1]))
folder.write_run_info(RunInfo(os.getpid(), "127.0.0.1:1", "postgresql://", "unix://", 1.0))
os._exit(9)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    opened = DataFolder.open(tmp_path / "deep" / "data")
    yield opened
    opened.close()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 40 MB; mounting one is for root."""
    mount = Path(tempfile.mkdtemp(prefix="idnode-disk-"))
    argv = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(mount)]
    if os.geteuid() != 0 or subprocess.run(argv, check=False).returncode != 0:
        mount.rmdir()
        pytest.skip("mounting a small disk needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)
    mount.rmdir()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_made_with_its_parents_and_closed_to_others(folder: DataFolder) -> None:
    assert folder.journals_dir.is_dir()
    assert folder.logs_dir.is_dir()
    # Servers of root pass through as another user; reading stays forbidden.
    assert _mode(folder.path) == (0o711 if os.geteuid() == 0 else 0o700)
    for private in (folder.journals_dir, folder.logs_dir, folder.path / "secrets"):
        assert _mode(private) == 0o700


def test_a_second_node_on_the_folder_gets_one_line_with_pid_and_address(
    folder: DataFolder,
) -> None:
    folder.write_run_info(_INFO)
    with pytest.raises(DataFolderError) as caught:
        DataFolder.open(folder.path)
    line = str(caught.value)
    assert "\n" not in line
    assert f"pid {os.getpid()}" in line
    assert "http://127.0.0.1:8000" in line
    assert str(folder.path) in line


def test_a_second_node_is_refused_while_the_first_is_still_starting(folder: DataFolder) -> None:
    with pytest.raises(DataFolderError, match="in use by a starting node"):
        DataFolder.open(folder.path)


def test_a_closed_folder_can_be_opened_again(folder: DataFolder) -> None:
    folder.close()
    folder.close()
    DataFolder.open(folder.path).close()


def test_run_info_is_read_by_others_while_the_node_runs(folder: DataFolder) -> None:
    assert DataFolder.read_run_info(folder.path) is None
    folder.write_run_info(_INFO)
    assert DataFolder.read_run_info(folder.path) == _INFO
    assert _mode(folder.run_file) == 0o600
    folder.remove_run_info()
    folder.remove_run_info()
    assert DataFolder.read_run_info(folder.path) is None


def test_run_info_of_a_closed_folder_is_not_believed(folder: DataFolder) -> None:
    folder.write_run_info(_INFO)
    folder.close()
    assert folder.run_file.exists()
    assert DataFolder.read_run_info(folder.path) is None


def test_run_info_of_a_killed_node_is_not_believed_and_the_folder_is_free(tmp_path: Path) -> None:
    path = tmp_path / "data"
    argv = [sys.executable, "-c", _DIES, str(path)]
    dead = subprocess.run(argv, cwd=Path(__file__).parents[1], check=False)
    assert dead.returncode == 9
    assert (path / "run.json").exists()
    assert DataFolder.read_run_info(path) is None
    folder = DataFolder.open(path)
    # The lock is held again, so the stale file would now be believed if it were still there.
    assert DataFolder.read_run_info(path) is None
    folder.close()


def test_run_info_of_a_missing_folder_is_none(tmp_path: Path) -> None:
    assert DataFolder.read_run_info(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"a": 1}'])
def test_a_damaged_run_file_is_read_as_none(folder: DataFolder, content: str) -> None:
    folder.run_file.write_text(content)
    assert DataFolder.read_run_info(folder.path) is None


def test_a_secret_is_made_once_and_private(folder: DataFolder) -> None:
    assert not folder.has_secret("postgres")
    secret = folder.store_secret("postgres")
    assert len(secret) == 43
    assert folder.store_secret("postgres") == secret
    assert folder.store_secret("valkey") != secret
    assert _mode(folder.path / "secrets" / "postgres") == 0o600
    folder.close()
    again = DataFolder.open(folder.path)
    assert again.store_secret("postgres") == secret
    again.close()


def test_a_secret_cannot_be_named_out_of_its_folder(folder: DataFolder) -> None:
    with pytest.raises(ValueError, match="secret name"):
        folder.store_secret("../run")


def test_a_file_where_the_folder_should_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataFolderError, match="a file stands where a folder was expected"):
        DataFolder.open(tmp_path / "data")
    with pytest.raises(DataFolderError, match="a file stands where a folder was expected"):
        DataFolder.open(tmp_path / "data" / "below")


def test_a_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="control character"):
        DataFolder.open(tmp_path / "da\nta")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "data"
    DataFolder.open(path).close()
    path.chmod(0o500)
    try:
        with pytest.raises(DataFolderError, match="change its owner or choose another folder"):
            DataFolder.open(path)
    finally:
        path.chmod(0o700)


def test_a_read_only_file_system_is_reported_and_leaves_the_lock_free(small_disk: Path) -> None:
    path = small_disk / "data"
    path.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DataFolderError, match="file system is read-only") as caught:
        DataFolder.open(path)
    assert str(path) in str(caught.value)


def test_a_disk_without_room_is_reported_in_megabytes(small_disk: Path) -> None:
    with pytest.raises(DataFolderError) as caught:
        DataFolder.open(small_disk / "data")
    line = str(caught.value)
    assert "MB are free" in line
    assert "50 MB are needed" in line
    assert str(small_disk / "data") in line
    # The refusal let go of the lock.
    assert not is_locked(small_disk / "data" / "lock")


def test_a_disk_filled_to_the_last_byte_is_reported(small_disk: Path) -> None:
    with (small_disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(DataFolderError, match=r"only 0 MB are free|no room is left"):
        DataFolder.open(small_disk / "data")


def test_a_lock_is_not_inherited_by_programs(tmp_path: Path) -> None:
    lock = FileLock.take(tmp_path / "lock")
    assert lock is not None
    sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.release()
        assert not is_locked(tmp_path / "lock")
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_folder_reached_through_a_link_is_the_same_folder(
    folder: DataFolder, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(folder.path)
    with pytest.raises(DataFolderError, match="in use"):
        DataFolder.open(tmp_path / "link")


def test_a_folder_removed_and_made_again_is_a_new_folder(folder: DataFolder) -> None:
    secret = folder.store_secret("postgres")
    folder.close()
    shutil.rmtree(folder.path)
    again = DataFolder.open(folder.path)
    assert again.store_secret("postgres") != secret
    again.close()
