"""`/api/verifications`: whether somebody has signed what another one asked it to."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from registry.prefixes import SELF_RUN
from tests import https_node
from tests.https_node import (
    CNONCE,
    KEYS,
    OWNER,
    OWNER_BY_DSA,
    OWNER_BY_ED25519,
    OWNER_BY_RSA,
    PREFIX,
    HttpsNode,
    PrivateKey,
    signed,
    text,
)
from tests.tenant import counted, tenant
from tests.test_http_identity import ALGORITHMS, answer_with_secret, mac, stretched

NONCE = bytes(range(100, 116))
FORMS = {"nonce": text(NONCE), "cnonce": text(CNONCE)}


@pytest.fixture(scope="module")
def made(scratch: Path) -> Iterator[HttpsNode]:
    with https_node.https_node(scratch / "verify") as node:
        yield node


@pytest.fixture(scope="module")
def client(made: HttpsNode) -> Iterator[httpx.Client]:
    with made.client() as opened:
        yield opened


def verified(client: httpx.Client, identity: str, **fields: str) -> bool:
    answer = client.get(f"/api/verifications/{identity}", params={**FORMS, **fields})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["responseCode"] == 1
    assert isinstance(document["isValid"], bool)
    return document["isValid"]


@pytest.mark.parametrize(
    ("identity", "make", "algorithm"),
    [
        (OWNER_BY_RSA, https_node.rsa_key, "SHA-256"),
        (f"0:{KEYS}", https_node.rsa_key, "SHA256"),
        (OWNER_BY_DSA, https_node.dsa_key, "SHA256"),
        (OWNER_BY_ED25519, https_node.ed25519_key, "Ed25519"),
    ],
)
def test_a_signature_is_verified(
    client: httpx.Client, identity: str, make: Callable[[], PrivateKey], algorithm: str
) -> None:
    signature = text(signed(make(), NONCE + CNONCE))
    fields = {"alg": algorithm, "signature": signature}
    assert verified(client, identity, **fields)
    assert verified(client, identity, **fields, type="HS_PUBKEY")
    assert not verified(client, identity, **fields, nonce=text(bytes(16)))
    assert not verified(client, identity, **fields, cnonce="")
    assert not verified(client, identity, alg="SHA-1", signature=signature)
    assert not verified(client, OWNER, **fields)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_digest_with_a_secret_is_verified(client: httpx.Client, algorithm: str) -> None:
    right = answer_with_secret(algorithm, NONCE)
    wrong = right | {"signature": text(mac(algorithm, b"other", NONCE + CNONCE))}
    for fields, is_valid in ((right, True), (wrong, False)):
        sent = {name: fields[name] for name in ("alg", "signature")}
        assert verified(client, OWNER, **sent) == is_valid
        assert verified(client, f"0:{KEYS}", **sent, type="HS_SECKEY") == is_valid
        assert not verified(client, OWNER_BY_RSA, **sent)


def test_a_stretched_secret_is_verified(client: httpx.Client) -> None:
    assert verified(client, OWNER, **stretched(NONCE))
    assert not verified(client, OWNER, **stretched(NONCE, iterations="1001"))


def test_a_nonce_may_be_sent_without_percent_encoding(client: httpx.Client) -> None:
    nonce = bytes([0xFB, 0xEF, 0xBE] * 5)
    assert "+" in text(nonce)
    signature = text(signed(https_node.rsa_key(), nonce + CNONCE))
    query = f"nonce={text(nonce)}&cnonce={text(CNONCE)}&alg=SHA256&signature={signature}"
    answer = client.get(f"/api/verifications/{OWNER_BY_RSA}?{query}")
    assert answer.json() == {"responseCode": 1, "isValid": True}
    url_safe = base64.urlsafe_b64encode(nonce).decode()
    assert verified(client, OWNER_BY_RSA, nonce=url_safe, alg="SHA256", signature=signature)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "nonce: expected base64"),
        (FORMS, "alg: expected one of"),
        (FORMS | {"alg": "SHA256"}, "signature: expected base64"),
        (FORMS | {"alg": "SHA256", "signature": "%"}, "signature: expected base64"),
        (FORMS | {"alg": "SHA-512", "signature": ""}, "alg: expected one of"),
        (FORMS | {"alg": "SHA256", "signature": "", "nonce": "A"}, "nonce: expected base64"),
        (FORMS | {"alg": "SHA256", "signature": "", "cnonce": text(bytes(65))}, "cnonce: at most"),
        (FORMS | {"alg": "SHA256", "signature": "", "type": "HS_SITE"}, "type: expected"),
        (FORMS | {"alg": "SM3", "signature": "", "type": "HS_SECKEY"}, "alg: SM3 is none"),
        (
            stretched(NONCE) | {"nonce": "", "type": "HS_SECKEY", "iterations": "9999999999"},
            "iterations: expected a number",
        ),
    ],
)
def test_what_is_no_signature_at_all_is_refused(
    client: httpx.Client, fields: dict[str, str], message: str
) -> None:
    answer = client.get(f"/api/verifications/{OWNER}", params=fields)
    assert (answer.status_code, answer.json()["responseCode"]) == (400, 4)
    assert answer.json()["message"].startswith(message)


def test_an_empty_signature_is_not_valid(client: httpx.Client) -> None:
    for identity in (OWNER, OWNER_BY_RSA, OWNER_BY_DSA, OWNER_BY_ED25519):
        for algorithm in (*ALGORITHMS, "SM3", "SM3withSM2", "ed25519"):
            assert not verified(client, identity, alg=algorithm, signature="")


def test_a_key_that_is_not_there_has_signed_nothing(client: httpx.Client) -> None:
    fields = {"alg": "SHA256", "signature": text(bytes(32))}
    for identity in (f"399:{KEYS}", f"300:{PREFIX}/NOBODY", f"300:{PREFIX}"):
        assert not verified(client, identity, **fields)


def test_keys_that_live_elsewhere_are_not_known(made: HttpsNode, client: httpx.Client) -> None:
    elsewhere = tenant(made.node, "88.102.7", 7, SELF_RUN).prefix
    for handle in ("10.1000/1", f"{elsewhere}/KEYS"):
        answer = client.get(f"/api/verifications/300:{handle}", params=FORMS)
        assert (answer.status_code, answer.json()["responseCode"]) == (400, 301)


@pytest.mark.parametrize("text_", ["", "300", "x:88.102.5/ADMIN", "300:", "99999999999:a/b"])
def test_what_is_no_identity_is_refused(client: httpx.Client, text_: str) -> None:
    answer = client.get(f"/api/verifications/{text_}", params=FORMS)
    assert (answer.status_code, answer.json()["responseCode"]) == (400, 102)


def test_anybody_may_verify_and_over_plain_http_too(made: HttpsNode) -> None:
    signature = text(signed(https_node.rsa_key(), NONCE + CNONCE))
    before = counted(made.node)
    with made.plain() as plain:
        assert verified(plain, OWNER_BY_RSA, alg="SHA256", signature=signature)
        query = {**FORMS, "alg": "SHA256", "signature": signature}
        head = plain.head(f"/api/verifications/{OWNER_BY_RSA}", params=query)
        assert (head.status_code, head.content) == (200, b"")
        for method in ("POST", "PUT", "DELETE"):
            assert plain.request(method, f"/api/verifications/{OWNER}").status_code == 405
    assert counted(made.node) == before  # a verification is no resolution
