"""The files of HTTPS: taken as they should be, and each way to be wrong gets one line."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.start_error import StartError
from node.tls import tls_context


@dataclass(frozen=True)
class Files:
    """A certificate and its key."""

    certificate: Path
    key: Path


def made(folder: Path, name: str, *words: str) -> Files:
    files = Files(folder / f"{name}.pem", folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-subj", "/CN=localhost"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", *(words or ("-nodes",))]
    command += ["-out", str(files.certificate), "-keyout", str(files.key)]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return made(tmp_path, "node")


def test_tls_begins_with_1_2_and_cannot_be_renegotiated(files: Files) -> None:
    context = tls_context(files.certificate, files.key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def refusal(certificate: Path, key: Path) -> str:
    with pytest.raises(StartError) as raised:
        tls_context(certificate, key)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_missing_file_is_named_with_its_setting(files: Files, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.pem"
    assert f"{nowhere} of IDNODE_TLS_CERT cannot be read" in refusal(nowhere, files.key)
    assert f"{nowhere} of IDNODE_TLS_KEY cannot be read" in refusal(files.certificate, nowhere)


def test_a_folder_is_no_key(files: Files, tmp_path: Path) -> None:
    assert f"{tmp_path} of IDNODE_TLS_KEY" in refusal(files.certificate, tmp_path)


def test_another_certificates_key_is_refused(files: Files, tmp_path: Path) -> None:
    other = made(tmp_path, "other")
    assert "is not the key of the certificate in" in refusal(files.certificate, other.key)


@pytest.mark.parametrize("text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_what_is_no_pem_is_refused(files: Files, text: str) -> None:
    files.certificate.write_text(text)
    assert "expected PEM" in refusal(files.certificate, files.key)


def test_a_key_with_a_passphrase_is_refused_without_a_question(tmp_path: Path) -> None:
    files = made(tmp_path, "locked", "-passout", "pass:secret")
    assert "without passphrase" in refusal(files.certificate, files.key)
