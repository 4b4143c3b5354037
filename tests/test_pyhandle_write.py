"""The field's REST client writes: pyhandle's own integration tests, over HTTPS, unchanged."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from node.config import terminal_environment
from tests import https_node
from tests.https_node import (
    KEYS,
    OWNER,
    OWNER_BY_RSA,
    PREFIX,
    SECRET,
    HttpsNode,
    own_certificate,
)
from tests.tenant import texts

SUITE = "handleclient_write_integration_test"
MODIFIED = f"{PREFIX}/PYHANDLE-WRITE"
# What the suite needs to know of the server and its user; as pyhandle's own template names it.
TESTVALUES = {
    "user": OWNER,
    "password": SECRET,
    "url_extension_REST_API": "/api/handles/",
    "handle_to_be_modified": MODIFIED,
    "handle_to_be_created": f"{PREFIX}/PYHANDLE-CREATED",
}
# Every test of pyhandle's class, and how it ends against the node. The suite's record names an
# administrator that does not live here; its user is let in because it administers the server.
PASSING = {
    "test_delete_handle_normal",
    "test_delete_handle_too_many_args",
    "test_delete_handle_value_inexistent_entry",
    "test_delete_handle_value_one_entry",
    "test_delete_handle_value_several_entries",
    "test_delete_handle_value_several_entries_one_nonexistent",
    "test_delete_handle_value_several_occurrences",
    "test_modify_handle_value_HS_ADMIN",
    "test_modify_handle_value_corrupted",
    "test_modify_handle_value_one",
    "test_modify_handle_value_several",
    "test_modify_handle_value_several_inexistent",
    "test_modify_handle_value_without_authentication",
    "test_register_handle_already_exists",
}
FAILING = {
    "test_delete_handle_inexistent": "HandleNotFoundException",
    "test_generate_and_register_handle": "found an array",
    "test_register_handle": 'No support for argument "additional_URLs"',
}
"""The suite expects of pyhandle what it did some versions ago: it ends so on every server."""

# A program of a user, with a certificate or a password: registers a handle, changes it, deletes it.
PROGRAM = """
import json, sys
from pyhandle.client.resthandleclient import RESTHandleClient
how, url, name, verify, *more = sys.argv[1:]
if how == "certificate":
    client = RESTHandleClient(
        handle_server_url=url, HTTPS_verify=verify, handleowner=more[0],
        certificate_only=more[1], private_key=more[2],
    )
else:
    client = RESTHandleClient.instantiate_with_username_and_password(
        url, *more, HTTPS_verify=verify, handleowner=more[0]
    )
try:
    client.register_handle(name, "http://a.example/", TEST="1")
    client.modify_handle_value(name, TEST="2")
    found = client.get_value_from_handle(name, "TEST")
    client.delete_handle_value(name, "TEST")
    left = client.get_value_from_handle(name, "TEST")
    client.delete_handle(name)
    sys.stdout.write(json.dumps([found, left, client.retrieve_handle_record_json(name)]))
except Exception as error:
    sys.stdout.write(json.dumps(type(error).__name__))
"""


@pytest.fixture(scope="module")
def made(scratch: Path) -> Iterator[HttpsNode]:
    with https_node.https_node(scratch / "pyhandle-write", IDNODE_SERVER_ADMINS=OWNER) as node:
        yield node


def _run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    # As for any user, but nothing outside this machine can be reached.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**terminal_environment(), **nowhere, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _ends(made: HttpsNode, folder: Path, **values: object) -> tuple[dict[str, str], str]:
    """How every test of the suite ends: ok, FAIL or ERROR."""
    spec = find_spec("pyhandle")
    assert spec is not None
    assert spec.origin is not None
    suite = folder / "tests"
    shutil.copytree(Path(spec.origin).parent / "tests", suite)
    urls = {"handle_server_url_read": made.url, "handle_server_url_write": made.url}
    file = suite / "resources" / "testvalues_for_integration_tests_IGNORE.json"
    file.write_text(json.dumps({**TESTVALUES, **urls, **values}), "utf-8")
    done = _run(suite / "testcases", "-m", "unittest", "-v", SUITE)
    found = re.findall(r"^(test_\w+) \(.*?\)(?:\n.*?)? \.\.\. (\w+)$", done.stderr, re.M)
    return dict(found), done.stderr


def test_pyhandles_own_write_tests_pass_over_https_with_verification(
    made: HttpsNode, tmp_path: Path
) -> None:
    ends, log = _ends(made, tmp_path, HTTPS_verify=str(made.certificate))
    assert ends.keys() == PASSING | FAILING.keys(), log
    assert {name for name, end in ends.items() if end == "ok"} == PASSING, log
    assert len(PASSING) == 14
    for reason in FAILING.values():
        assert reason in log


def test_what_the_suite_wrote_is_there(made: HttpsNode, tmp_path: Path) -> None:
    _ends(made, tmp_path, HTTPS_verify=str(made.certificate))
    history = made.factory.history(MODIFIED)
    assert len(history) > 10
    assert {entry.actor for entry in history} == {f"handle:{OWNER}"}


def test_without_verification_of_the_certificate_nothing_is_sent(
    made: HttpsNode, tmp_path: Path
) -> None:
    ends, log = _ends(made, tmp_path, HTTPS_verify=True)
    assert "CERTIFICATE_VERIFY_FAILED" in log
    assert "ok" not in ends.values(), log


def test_a_wrong_password_writes_nothing(made: HttpsNode, tmp_path: Path) -> None:
    name = f"{PREFIX}/PYHANDLE-WRONG"
    verify = str(made.certificate)
    done = _run(tmp_path, "-c", PROGRAM, "password", made.url, name, verify, OWNER, "wrong")
    assert json.loads(done.stdout) == "HandleAuthenticationError", done.stderr
    with made.client() as client:
        assert client.get(f"/api/handles/{name}").status_code == 404


def test_a_password_registers_changes_and_deletes(made: HttpsNode, tmp_path: Path) -> None:
    name = f"{PREFIX}/PYHANDLE-PASSWORD"
    verify = str(made.certificate)
    done = _run(tmp_path, "-c", PROGRAM, "password", made.url, name, verify, OWNER, SECRET)
    assert json.loads(done.stdout) == ["2", None, None], done.stderr


def test_a_client_certificate_registers_changes_and_deletes(
    made: HttpsNode, tmp_path: Path
) -> None:
    files = own_certificate(tmp_path, https_node.rsa_key(), OWNER_BY_RSA)
    name = f"{PREFIX}/PYHANDLE-CERTIFICATE"
    words = ("certificate", made.url, name, str(made.certificate), OWNER_BY_RSA, *files)
    done = _run(tmp_path, "-c", PROGRAM, *words)
    assert json.loads(done.stdout) == ["2", None, None], done.stdout + done.stderr


def test_the_certificate_of_another_key_writes_nothing(made: HttpsNode, tmp_path: Path) -> None:
    files = own_certificate(tmp_path, rsa.generate_private_key(65_537, 2_048), OWNER_BY_RSA)
    name = f"{PREFIX}/PYHANDLE-STOLEN"
    words = ("certificate", made.url, name, str(made.certificate), OWNER_BY_RSA, *files)
    done = _run(tmp_path, "-c", PROGRAM, *words)
    assert json.loads(done.stdout) == "HandleAuthenticationError", done.stdout + done.stderr
    with made.client() as client:
        assert client.get(f"/api/handles/{name}").status_code == 404
        assert 300 not in texts(client.get(f"/api/handles/{KEYS}"))
