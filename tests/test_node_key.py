"""The node's key: one and the same for every process, for ever, and what it signs is believed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from node.node_key import FILE_NAME, NodeKey
from node.start_error import StartError
from resolver.signature import is_signature_of
from resolver.wire import (
    SIGNED,
    Message,
    RsaPrivateKey,
    RsaPublicKey,
    SiteResponse,
    public_key_from_wire,
    response_body,
)
from tests.recorded_native import captured

DATA = b"what is signed"
PRINTED_KEY = (
    "import pathlib, sys; from node.node_key import NodeKey;"
    "sys.stdout.write(NodeKey.kept(pathlib.Path(sys.argv[1])).public_key.hex())"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key."""
    folder = tmp_path_factory.mktemp("key")
    NodeKey.kept(folder)
    return folder


def test_the_first_start_makes_a_key_and_the_next_one_has_it_again(made: Path) -> None:
    text = (made / FILE_NAME).read_text()
    again = NodeKey.kept(made)
    assert again.public_key == NodeKey.kept(made).public_key
    assert is_signature_of(again.public_key, "SHA-256", NodeKey.kept(made).sign(DATA), DATA)
    assert (made / FILE_NAME).read_text() == text


def test_nobody_else_may_read_the_key(made: Path) -> None:
    assert (made / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_another_folder_has_another_key(made: Path, tmp_path: Path) -> None:
    assert NodeKey.kept(tmp_path).public_key != NodeKey.kept(made).public_key


def test_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PRINTED_KEY, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    printed = {process.communicate(timeout=120)[0].decode() for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert printed == {NodeKey.kept(tmp_path).public_key.hex()}


def test_what_a_killed_process_left_half_written_is_no_key(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}.new").write_text("-----BEGIN PRIV")
    key = NodeKey.kept(tmp_path)
    assert NodeKey.kept(tmp_path).public_key == key.public_key


def recorded_server_key() -> bytes:
    bodies = (response_body(one.message)[0] for one in captured() if not one.from_client)
    site = next(body.site for body in bodies if isinstance(body, SiteResponse))
    return site.servers[0].public_key


def test_the_public_half_has_the_form_that_a_real_server_gives(made: Path) -> None:
    ours, theirs = NodeKey.kept(made).public_key, recorded_server_key()
    assert len(ours) == len(theirs)
    start = theirs.index(b"RSA_PUB_KEY") + len("RSA_PUB_KEY")
    assert ours[: start + 2] == theirs[: start + 2]
    assert ours[-4:] == theirs[-4:]
    assert isinstance(public_key_from_wire(ours), RsaPublicKey)


def test_a_signed_reply_is_believed_as_that_of_a_real_server(made: Path) -> None:
    key = NodeKey.kept(made)
    replies = [one.message for one in captured() if not one.from_client and not one.is_encrypted]
    recorded = next(
        one for one in replies if one.credential is not None and one.credential.type == SIGNED
    )
    signed = Message.from_wire(key.signed(replace(recorded, credential=None)).to_wire())
    assert signed.credential is not None
    assert recorded.credential is not None
    again = replace(signed.credential, signature=recorded.credential.signature)
    assert again == recorded.credential
    assert is_signature_of(
        key.public_key,
        signed.credential.algorithm,
        signed.credential.signature,
        signed.signed_bytes(signed.credential.session_counter),
    )


# Files that the operator puts there.


def _numbers(private: rsa.RSAPrivateKey) -> RsaPrivateKey:
    numbers = private.private_numbers()
    return RsaPrivateKey(
        numbers.public_numbers.n,
        numbers.public_numbers.e,
        numbers.d,
        numbers.p,
        numbers.q,
        numbers.dmp1,
        numbers.dmq1,
        numbers.iqmp,
    )


def test_the_key_file_of_a_handle_net_server_is_used_as_it_is(tmp_path: Path) -> None:
    private = rsa.generate_private_key(65_537, 2_048)
    (tmp_path / FILE_NAME).write_bytes(_numbers(private).to_wire())
    key = NodeKey.kept(tmp_path)
    public = private.public_key().public_numbers()
    assert key.public_key == RsaPublicKey(public.e, public.n).to_wire()
    assert is_signature_of(key.public_key, "SHA-256", key.sign(DATA), DATA)


def _pem(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


def refusal(folder: Path, data: bytes) -> str:
    (folder / FILE_NAME).write_bytes(data)
    with pytest.raises(StartError) as raised:
        NodeKey.kept(folder)
    assert "\n" not in str(raised.value)
    assert str(folder / FILE_NAME) in str(raised.value)
    assert (folder / FILE_NAME).read_bytes() == data
    return str(raised.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nx\n", bytes(2_000), b"\x00\x00\x00\x04" + b"x"],
)
def test_a_damaged_file_is_named_and_stays_as_it_is(tmp_path: Path, data: bytes) -> None:
    assert "is damaged or has a passphrase" in refusal(tmp_path, data)


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    data = _pem(ec.generate_private_key(ec.SECP256R1()), b"secret")
    assert "is damaged or has a passphrase" in refusal(tmp_path, data)


def test_a_key_of_another_kind_or_size_is_refused(tmp_path: Path) -> None:
    expected = "expected an RSA key of 2048 to 4096 bits"
    assert expected in refusal(tmp_path, _pem(ec.generate_private_key(ec.SECP256R1())))
    short = rsa.generate_private_key(65_537, 1_024)
    assert expected in refusal(tmp_path, _pem(short))
    assert expected in refusal(tmp_path, _numbers(short).to_wire())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read or made") as raised:
        NodeKey.kept(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(raised.value)
