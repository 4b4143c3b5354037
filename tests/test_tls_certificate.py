"""The certificate that a node makes for itself: verified by name, kept, and renewed in time."""

import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509

from node.start_error import StartError
from node.tls import tls_context
from node.tls_certificate import CERTIFICATE_FILE_NAME, KEY_FILE_NAME, kept_certificate

NAMES = ("node.example.cn", "127.0.0.1", "::1")
NOW_S = 1_800_000_000.0
DAY_S = 86_400
MADE = (
    "import pathlib, sys; from node.tls_certificate import kept_certificate;"
    "kept_certificate(pathlib.Path(sys.argv[1]), ('localhost', sys.argv[2]), 1.8e9)"
)


def handshake(folder: Path, name: str, *, trusted: Path | None = None) -> None:
    """Connect as a client that trusts the certificate and asks for `name`, strictly.

    Raises:
        ssl.SSLCertVerificationError: if the client does not believe it.
    """
    client_context = ssl.create_default_context(cafile=trusted or folder / CERTIFICATE_FILE_NAME)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    server_context = tls_context(folder / CERTIFICATE_FILE_NAME, folder / KEY_FILE_NAME)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    open_ends = [client, server]
    while open_ends:
        for end in tuple(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                continue


def contents(folder: Path) -> tuple[str, str]:
    return (folder / CERTIFICATE_FILE_NAME).read_text(), (folder / KEY_FILE_NAME).read_text()


def certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / CERTIFICATE_FILE_NAME).read_bytes())


@pytest.mark.parametrize("name", [*NAMES, "NODE.example.cn"])
def test_a_client_that_has_the_certificate_verifies_every_name(tmp_path: Path, name: str) -> None:
    kept_certificate(tmp_path, NAMES, time.time())
    handshake(tmp_path, name)


@pytest.mark.parametrize("name", ["other.example.cn", "127.0.0.2", "localhost"])
def test_another_name_is_not_verified(tmp_path: Path, name: str) -> None:
    kept_certificate(tmp_path, NAMES, time.time())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, name)


def test_a_client_with_another_nodes_certificate_is_not_fooled(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        kept_certificate(folder, NAMES, time.time())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path / "one", NAMES[0], trusted=tmp_path / "two" / CERTIFICATE_FILE_NAME)


def test_the_certificate_vouches_for_no_other(tmp_path: Path) -> None:
    kept_certificate(tmp_path, NAMES, NOW_S)
    constraints = certificate(tmp_path).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca


def test_the_files_are_named_and_the_key_is_the_owners_alone(tmp_path: Path) -> None:
    files = kept_certificate(tmp_path, NAMES, NOW_S)
    assert files == (tmp_path / CERTIFICATE_FILE_NAME, tmp_path / KEY_FILE_NAME)
    assert files[1].stat().st_mode & 0o777 == 0o600


def test_the_next_start_has_the_same_files(tmp_path: Path) -> None:
    kept_certificate(tmp_path, NAMES, NOW_S)
    before = contents(tmp_path)
    for later_days in (0, 1, 3_000, 3_619):
        kept_certificate(tmp_path, NAMES, NOW_S + later_days * DAY_S)
        assert contents(tmp_path) == before


@pytest.mark.parametrize("later_days", [3_620, 3_650, 5_000, -2])
def test_a_certificate_that_ends_soon_is_made_again_with_the_same_key(
    tmp_path: Path, later_days: int
) -> None:
    kept_certificate(tmp_path, NAMES, NOW_S)
    before, now_s = contents(tmp_path), NOW_S + later_days * DAY_S
    kept_certificate(tmp_path, NAMES, now_s)
    after = contents(tmp_path)
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)
    assert certificate(tmp_path).not_valid_before_utc.timestamp() == now_s - DAY_S
    assert certificate(tmp_path).not_valid_after_utc.timestamp() == now_s + 3_650 * DAY_S


@pytest.mark.parametrize("names", [("localhost",), (*NAMES, "localhost"), NAMES[:2]])
def test_a_certificate_is_made_again_for_other_names(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    kept_certificate(tmp_path, NAMES, time.time())
    before = contents(tmp_path)
    kept_certificate(tmp_path, names, time.time())
    after = contents(tmp_path)
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)
    handshake(tmp_path, names[0])


def test_a_damaged_or_missing_certificate_is_made_again(tmp_path: Path) -> None:
    kept_certificate(tmp_path, NAMES, time.time())
    path = tmp_path / CERTIFICATE_FILE_NAME
    for damage in (lambda: path.write_text("junk"), lambda: path.write_text(""), path.unlink):
        damage()
        kept_certificate(tmp_path, NAMES, time.time())
        handshake(tmp_path, NAMES[0])


def test_the_certificate_of_another_key_is_made_again(tmp_path: Path) -> None:
    kept_certificate(tmp_path, NAMES, time.time())
    (tmp_path / KEY_FILE_NAME).unlink()
    kept_certificate(tmp_path, NAMES, time.time())
    handshake(tmp_path, NAMES[0])


@pytest.mark.parametrize("text", ["", "junk", "-----BEGIN PRIVATE KEY-----\nx\n"])
def test_a_damaged_key_is_named_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / KEY_FILE_NAME).write_text(text)
    with pytest.raises(StartError, match="is damaged") as raised:
        kept_certificate(tmp_path, NAMES, NOW_S)
    assert str(tmp_path / KEY_FILE_NAME) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (tmp_path / KEY_FILE_NAME).read_text() == text


def test_processes_that_start_at_once_leave_files_that_fit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MADE, str(tmp_path)]
    # They even disagree about the names.
    started = [subprocess.Popen([*command, f"name{i % 2}"]) for i in range(4)]
    assert [process.wait(120) for process in started] == [0] * 4
    tls_context(tmp_path / CERTIFICATE_FILE_NAME, tmp_path / KEY_FILE_NAME)


# Names.


def names_of(folder: Path) -> list[str]:
    extension = certificate(folder).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def test_names_are_written_as_clients_compare_them(tmp_path: Path) -> None:
    names = ("节点.example.cn", "Node_1", "localhost", "LOCALHOST", "fe80::1%eth0", "::1", "0:0::1")
    kept_certificate(tmp_path, names, NOW_S)
    expected = ["xn--3bs854c.example.cn", "node_1", "localhost", "fe80::1", "::1"]
    assert names_of(tmp_path)[1:] == expected[1:]
    assert names_of(tmp_path)[0].startswith("xn--")
    before = contents(tmp_path)
    kept_certificate(tmp_path, names, NOW_S)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["", "a b", "a..b", "-a", "a/b", "x" * 300, "\ud800", "。"])
def test_what_is_no_name_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(StartError, match="is no name for a certificate"):
        kept_certificate(tmp_path, ("localhost", name), NOW_S)


@pytest.mark.parametrize("count", [0, 101])
def test_a_certificate_has_some_names_and_not_too_many(tmp_path: Path, count: int) -> None:
    with pytest.raises(StartError, match=f"certificate for {count} names"):
        kept_certificate(tmp_path, [f"name{i}" for i in range(count)], NOW_S)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read or made"):
        kept_certificate(tmp_path / "nowhere", NAMES, NOW_S)
