"""Who asks over HTTP, by keys of a handle: secrets, signatures, certificates; who is refused."""

import base64
import hashlib
import hmac
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from node.client_certificate import is_key, subject_of
from node.http_exchange import Exchange, RefusedError
from node.http_identity import HttpIdentities, UnprovenError
from node.http_proof import (
    basic_from_header,
    fields_from_header,
    nonce_of,
    proof_from_fields,
    proof_with_key,
)
from node.http_sessions import HttpSessions
from node.identity import Identity
from node.node_key import NodeKey
from registry.database import Database
from registry.records import PostgresRecords
from resolver.errors import InvalidValueError
from resolver.hot_redis import RedisCache
from resolver.identifier import from_text
from resolver.response_code import ResponseCode
from resolver.signature import is_signature_of
from resolver.wire import RsaPublicKey
from tests import administered, https_node
from tests.administered import administrators, put
from tests.https_node import (
    CNONCE,
    KEYS,
    OWNER,
    OWNER_BY_DSA,
    OWNER_BY_ED25519,
    OWNER_BY_RSA,
    PREFIX,
    PUBLIC_INDEXES,
    READER,
    SECRET,
    SECRET_INDEXES,
    STRANGER,
    HttpsNode,
    PrivateKey,
    basic,
    handle_header,
    own_certificate,
    signed,
    text,
)
from tests.tenant import counted, text_value

SECRETS = f"/api/handles/{KEYS}"
NOT_VERIFIED = 'error="Identity not verified"'
ALGORITHMS = ["SHA1", "SHA-1", "SHA256", "SHA-256", "MD5", "HMAC-SHA1", "HMAC-SHA256"]


@pytest.fixture(scope="module")
def made(scratch: Path) -> Iterator[HttpsNode]:
    # Behind a proxy on this machine, which says so in a header.
    with https_node.https_node(scratch / "identity", IDNODE_TRUSTED_PROXIES="127.0.0.1") as node:
        yield node


@pytest.fixture(scope="module")
def client(made: HttpsNode) -> Iterator[httpx.Client]:
    with made.client() as opened:
        yield opened


def indexes(answer: httpx.Response) -> set[int]:
    """Of the values that were answered."""
    assert answer.status_code == 200, answer.text
    return {value["index"] for value in answer.json()["values"]}


def is_believed(answer: httpx.Response) -> bool:
    """True if the secrets were shown; False if nobody is believed at all."""
    if answer.status_code == 401:
        assert answer.content == b""
        return False
    return 300 in indexes(answer)


# Basic


def test_a_secret_proves_who_asks(client: httpx.Client) -> None:
    assert indexes(client.get(SECRETS)) == PUBLIC_INDEXES
    assert indexes(client.get(SECRETS, headers=basic(OWNER))) == PUBLIC_INDEXES | SECRET_INDEXES


def test_the_secret_of_any_index_is_tried_for_index_0(client: httpx.Client) -> None:
    assert is_believed(client.get(SECRETS, headers=basic(f"0:{KEYS}")))


def test_a_handle_is_compared_without_ascii_case(client: httpx.Client) -> None:
    assert is_believed(client.get(SECRETS, headers=basic(OWNER.lower())))


@pytest.mark.parametrize(
    "headers",
    [
        basic(OWNER, "wrong"),
        basic(OWNER, ""),
        basic(OWNER_BY_RSA),
        basic(f"399:{KEYS}"),
        basic(f"300:{PREFIX}/NOBODY"),
        basic("300:10.1000/ELSEWHERE"),
        basic("300"),
        basic(f"x:{KEYS}"),
        {"Authorization": "Basic"},
        {"Authorization": "Basic ====="},
        {"Authorization": "basic " + text(b"300:88.102.5/ADMIN:secret")},
        {"Authorization": "Basic " + text(b"\xff%3A\xfe:secret")},
    ],
)
def test_a_wrong_secret_is_refused_whatever_is_asked(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    for path in (SECRETS, f"/api/handles/{PREFIX}/NOT-THERE"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (401, b"")
        basic_challenge, challenge = answer.headers.get_list("www-authenticate")
        assert basic_challenge == 'Basic realm="handle"'
        assert challenge.endswith(NOT_VERIFIED)


def test_over_plain_http_nobody_is_believed(made: HttpsNode) -> None:
    with made.plain(basic(OWNER)) as client:
        assert indexes(client.get(SECRETS)) == PUBLIC_INDEXES
        for answer in (
            client.put(f"/api/handles/{PREFIX}/PLAIN", json=[]),
            client.get(SECRETS, params={"publicOnly": "false"}),
            client.get("/api/handles", params={"prefix": PREFIX}),
            client.get("/api/prefixes"),
        ):
            assert (answer.status_code, answer.json()["responseCode"]) == (403, 402)
            assert "www-authenticate" not in answer.headers


def test_a_trusted_proxy_says_whether_somebody_reads_along(made: HttpsNode) -> None:
    with made.plain(basic(OWNER)) as client:
        for protocol, is_private in (
            ("https", True),
            ("http, https", True),
            ("https, http", False),
        ):
            answer = client.get(SECRETS, headers={"X-Forwarded-Proto": protocol})
            assert (300 in indexes(answer)) == is_private, protocol


def test_an_api_key_goes_before_an_identity(made: HttpsNode) -> None:
    headers = {"X-API-Key": made.node.operator_key, **basic(OWNER, "wrong")}
    with made.client(headers) as client:
        assert is_believed(client.get(SECRETS))


def test_other_schemes_are_nobodys(client: httpx.Client) -> None:
    answer = client.get(SECRETS, headers={"Authorization": "Digest username=x"})
    assert indexes(answer) == PUBLIC_INDEXES


# What is read


def test_private_values_are_for_who_may_read_them(made: HttpsNode) -> None:
    path = f"/api/handles/{PREFIX}/PRIVATE"
    values = [text_value(1, "URL", "http://a.example/"), text_value(2, "DESC", "x")]
    values[1]["permissions"] = "1100"
    with made.factory.operator as operator:
        operator.put(path, json=values).raise_for_status()
    expected = {OWNER: {1, 2}, READER: {1, 2}, STRANGER: {1}}
    for identity, found in expected.items():
        with made.client(basic(identity)) as client:
            assert indexes(client.get(path)) == found, identity
            assert indexes(client.get(path, params={"publicOnly": "true"})) == {1}
            asked = client.get(path, params={"publicOnly": "false"})
            if identity == STRANGER:
                assert (asked.status_code, asked.json()["responseCode"]) == (403, 400)
            else:
                assert indexes(asked) == found


def test_values_that_nobody_reads_are_shown_to_nobody(made: HttpsNode) -> None:
    path = f"/api/handles/{PREFIX}/WRITE-ONLY"
    value = text_value(1, "DESC", "x", permissions="00100")
    with made.factory.operator as operator:
        operator.put(path, json=[value]).raise_for_status()
    with made.client(basic(OWNER)) as client:
        assert indexes(client.get(path)) == set()


def test_who_asks_for_private_values_is_asked_who_it_is(client: httpx.Client) -> None:
    answer = client.get(SECRETS, params={"publicOnly": "false"})
    assert answer.status_code == 401
    assert answer.json() == {"responseCode": 402, "handle": KEYS}


def test_who_may_not_read_is_counted_as_refused(made: HttpsNode, client: httpx.Client) -> None:
    private = f"{SECRETS}?publicOnly=false"
    before = counted(made.node)
    client.get(private, headers=basic(STRANGER))
    client.get(private)
    client.get(SECRETS, headers=basic(OWNER, "wrong"))
    client.get(SECRETS, headers=basic(OWNER))
    assert counted(made.node) - before == {
        ("enterprise", "http_json", "refused", "anonymous"): 2,
        ("node", "http_json", "refused", "anonymous"): 1,
        ("enterprise", "http_json", "found", "anonymous"): 1,
    }


def test_private_values_are_asked_for_in_every_form_of_the_question(client: httpx.Client) -> None:
    headers = basic(OWNER)
    assert is_believed(client.post(SECRETS, headers=headers))
    assert 'cb({"responseCode":1' in client.get(f"{SECRETS}?callback=cb", headers=headers).text
    assert indexes(client.get(f"{SECRETS}?type=HS_SECKEY&auth", headers=headers)) == SECRET_INDEXES
    assert indexes(client.get(f"{SECRETS}?index=300", headers=headers)) == {300}
    assert client.get(f"{SECRETS}?index=300").json()["responseCode"] == 200
    assert client.head(SECRETS, headers=basic(OWNER, "wrong")).status_code == 401


def test_a_right_that_is_taken_away_ends_at_once(made: HttpsNode) -> None:
    path = f"/api/handles/{PREFIX}/RIGHTS"
    record = [https_node.admin_value(100, STRANGER), https_node.secret_value(1, "x")]
    with made.factory.operator as operator, made.client(basic(STRANGER)) as client:
        operator.put(path, json=record).raise_for_status()
        assert indexes(client.get(path)) == {100, 1}
        operator.put(f"{path}?index=100", json=https_node.admin_value(100, OWNER))
        assert indexes(client.get(path)) == {100}


# Challenges


def challenged(client: httpx.Client, **headers: str) -> dict[str, str]:
    """The fields of a Handle challenge."""
    answer = client.put(f"/api/handles/{PREFIX}/X", json=[], headers=headers)
    assert answer.status_code == 401
    found = answer.headers.get_list("www-authenticate")[-1]
    assert found.startswith("Handle ")
    return fields_from_header(found.removeprefix("Handle "))


def test_who_writes_without_a_word_is_asked_who_it_is(client: httpx.Client) -> None:
    answer = client.put(f"/api/handles/{PREFIX}/X", json=[])
    assert answer.json() == {"responseCode": 402, "handle": f"{PREFIX}/X"}
    fields = challenged(client)
    assert fields.keys() == {"sessionId", "nonce"}
    assert len(base64.b64decode(fields["nonce"])) == 16
    assert challenged(client) != fields


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Requested-With": "XMLHttpRequest"},
        {"Authorization": "Handle"},
        {"Authorization": 'Handle clientCert="false"'},
    ],
)
def test_scripts_and_those_who_speak_the_protocol_are_not_asked_for_a_password(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    answer = client.delete(f"/api/handles/{PREFIX}/X", headers=headers)
    assert answer.status_code == 401
    assert "Basic" not in answer.headers["www-authenticate"]


def test_the_node_signs_what_a_caller_wants_signed(client: httpx.Client) -> None:
    fields = challenged(client, **handle_header(cnonce=text(CNONCE)))
    jwk = client.get("/api/site").json()["site"]["servers"][0]["publicKey"]["value"]
    key = RsaPublicKey(*(_number(jwk[name]) for name in ("e", "n"))).to_wire()
    assert fields["serverAlg"] == "SHA-256"
    signature, nonce = (base64.b64decode(fields[name]) for name in ("serverSignature", "nonce"))
    assert is_signature_of(key, "SHA-256", signature, nonce + CNONCE)


def _number(jwk: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(jwk + "=="))


def test_a_damaged_nonce_is_not_signed(client: httpx.Client) -> None:
    for cnonce in ("%", "AAA=A", text(bytes(65))):
        assert challenged(client, **handle_header(cnonce=cnonce)).keys() == {"sessionId", "nonce"}


# Answers to challenges


def answer_with_key(key: PrivateKey, identity: str, algorithm: str, nonce: bytes) -> dict[str, str]:
    """The fields that answer a challenge with a private key."""
    return {
        "id": identity,
        "type": "HS_PUBKEY",
        "cnonce": text(CNONCE),
        "alg": algorithm,
        "signature": text(signed(key, nonce + CNONCE)),
    }


def mac(algorithm: str, secret: bytes, challenge: bytes) -> bytes:
    """What a secret makes of a challenge."""
    if algorithm.startswith("HMAC-"):
        return hmac.digest(secret, challenge, algorithm.removeprefix("HMAC-").lower())
    name = algorithm.replace("-", "").lower()
    return hashlib.new(name, secret + challenge + secret).digest()


def answer_with_secret(
    algorithm: str, nonce: bytes, *, secret: str = SECRET, identity: str = OWNER
) -> dict[str, str]:
    """The fields that answer a challenge with a secret."""
    signature = mac(algorithm, secret.encode(), nonce + CNONCE)
    return {
        "id": identity,
        "type": "HS_SECKEY",
        "cnonce": text(CNONCE),
        "alg": algorithm,
        "signature": text(signature),
    }


def stretched(nonce: bytes, **more: str) -> dict[str, str]:
    """The fields that answer a challenge with a stretched secret."""
    salt = bytes(16)
    key = hashlib.pbkdf2_hmac("sha1", SECRET.encode(), salt, 1_000, 20)
    return {
        **answer_with_secret("HMAC-SHA1", nonce),
        "alg": "PBKDF2-HMAC-SHA1",
        "salt": text(salt),
        "iterations": "1000",
        "length": "160",
        "signature": text(hmac.digest(key, nonce + CNONCE, "sha1")),
        **more,
    }


Answer = Callable[[bytes], dict[str, str]]


def proved(client: httpx.Client, answer: Answer) -> httpx.Response:
    """What is answered to who answers a challenge in the request itself."""
    fields = challenged(client)
    nonce = base64.b64decode(fields["nonce"])
    sent = handle_header(version="0", sessionId=fields["sessionId"], **answer(nonce))
    return client.get(SECRETS, headers=sent)


def _of_key(make: Callable[[], PrivateKey], identity: str, algorithm: str) -> Answer:
    return lambda nonce: answer_with_key(make(), identity, algorithm, nonce)


@pytest.mark.parametrize(
    "answer",
    [
        _of_key(https_node.rsa_key, OWNER_BY_RSA, "SHA256"),
        _of_key(https_node.rsa_key, OWNER_BY_RSA.replace(":", "%3A"), "SHA-256"),
        _of_key(https_node.rsa_key, f"0:{KEYS}", "SHA-256"),
        _of_key(https_node.dsa_key, OWNER_BY_DSA, "SHA256"),
        _of_key(https_node.ed25519_key, OWNER_BY_ED25519, "Ed25519"),
        stretched,
    ],
)
def test_a_signature_of_both_nonces_proves_who_asks(client: httpx.Client, answer: Answer) -> None:
    assert is_believed(proved(client, answer))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_digest_with_a_secret_proves_who_asks(client: httpx.Client, algorithm: str) -> None:
    assert is_believed(proved(client, lambda nonce: answer_with_secret(algorithm, nonce)))
    wrong = proved(client, lambda nonce: answer_with_secret(algorithm, nonce, secret="other"))
    assert not is_believed(wrong)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: answer_with_secret("SHA256", bytes(16)),
        lambda nonce: answer_with_secret("SHA256", nonce, identity=OWNER_BY_RSA),
        lambda nonce: answer_with_secret("SHA256", nonce) | {"type": "HS_PUBKEY"},
        lambda nonce: answer_with_secret("SHA256", nonce) | {"type": ""},
        lambda nonce: answer_with_secret("SHA256", nonce) | {"alg": "SHA-512"},
        lambda nonce: answer_with_secret("SHA256", nonce) | {"cnonce": ""},
        lambda nonce: answer_with_secret("SHA256", nonce) | {"signature": ""},
        lambda nonce: answer_with_secret("SHA256", nonce) | {"id": ""},
        lambda nonce: stretched(nonce, iterations="100001"),
        lambda nonce: stretched(nonce, iterations="0"),
        lambda nonce: stretched(nonce, iterations="a"),
        lambda nonce: stretched(nonce, length="161"),
        lambda nonce: stretched(nonce, length="4000"),
        lambda nonce: stretched(nonce, salt=text(bytes(65))),
        _of_key(https_node.rsa_key, OWNER_BY_DSA, "SHA256"),
        _of_key(https_node.rsa_key, OWNER_BY_RSA, "MD5"),
        _of_key(lambda: rsa.generate_private_key(65_537, 2_048), OWNER_BY_RSA, "SHA256"),
    ],
)
def test_a_wrong_answer_proves_nothing(client: httpx.Client, answer: Answer) -> None:
    refused = proved(client, answer)
    assert not is_believed(refused)
    (challenge,) = refused.headers.get_list("www-authenticate")
    assert challenge.endswith(NOT_VERIFIED)


# Certificates


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    def make(
        key: PrivateKey, subject: str, attribute: ObjectIdentifier = NameOID.USER_ID
    ) -> tuple[str, str]:
        return own_certificate(tmp_path, key, subject, attribute)

    return make


WITH_CERTIFICATE = handle_header(clientCert="true")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("attribute", [NameOID.USER_ID, NameOID.COMMON_NAME])
def test_a_certificate_that_nobody_has_issued_proves_who_asks(
    made: HttpsNode,
    certificate: Callable[..., tuple[str, str]],
    attribute: ObjectIdentifier,
    version: ssl.TLSVersion,
) -> None:
    context = made.context(*certificate(https_node.rsa_key(), OWNER_BY_RSA, attribute))
    context.minimum_version = context.maximum_version = version
    with httpx.Client(base_url=made.url, verify=context, headers=WITH_CERTIFICATE) as client:
        assert is_believed(client.get(SECRETS))
        name = f"/api/handles/{PREFIX}/BY-CERTIFICATE-{version.name}-{attribute.dotted_string}"
        assert client.put(name, json=[]).status_code == 201
        # On the same connection.
        assert client.delete(name).status_code == 200


def test_an_ed25519_certificate_proves_who_asks(
    made: HttpsNode, certificate: Callable[..., tuple[str, str]]
) -> None:
    files = certificate(https_node.ed25519_key(), OWNER_BY_ED25519)
    with made.client(WITH_CERTIFICATE, *files) as client:
        assert is_believed(client.get(SECRETS))


def test_a_certificate_is_nothing_unless_the_request_says_so(
    made: HttpsNode, certificate: Callable[..., tuple[str, str]]
) -> None:
    with made.client({}, *certificate(https_node.rsa_key(), OWNER_BY_RSA)) as client:
        assert indexes(client.get(SECRETS)) == PUBLIC_INDEXES
        assert client.put(f"/api/handles/{PREFIX}/X", json=[]).status_code == 401


@pytest.mark.parametrize(
    ("make", "subject"),
    [
        (lambda: rsa.generate_private_key(65_537, 2_048), OWNER_BY_RSA),
        (https_node.rsa_key, OWNER_BY_DSA),
        (https_node.rsa_key, OWNER),
        (https_node.rsa_key, f"399:{KEYS}"),
        (https_node.rsa_key, "somebody"),
    ],
)
def test_the_certificate_of_another_key_proves_nothing(
    made: HttpsNode,
    certificate: Callable[..., tuple[str, str]],
    make: Callable[[], PrivateKey],
    subject: str,
) -> None:
    with made.client(WITH_CERTIFICATE, *certificate(make(), subject)) as client:
        answer = client.get(SECRETS)
        assert not is_believed(answer)
        assert answer.headers["www-authenticate"].endswith(NOT_VERIFIED)
        # Whatever it is, it does not keep anybody from reading.
        client.headers.clear()
        assert indexes(client.get(SECRETS)) == PUBLIC_INDEXES


def test_who_promises_a_certificate_and_shows_none_is_told_so(made: HttpsNode) -> None:
    with made.client(WITH_CERTIFICATE) as client:
        answer = client.get(SECRETS)
    assert not is_believed(answer)
    assert answer.headers["www-authenticate"].endswith('error="No client certificate"')


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_no_browser_has_a_certificate_that_the_node_asks_for(made: HttpsNode, version: str) -> None:
    """Browsers ask their users only if one was issued by who is named."""
    words = ["openssl", "s_client", version, "-connect", f"127.0.0.1:{made.port}"]
    done = subprocess.run(words, input="", capture_output=True, text=True, timeout=60, check=False)
    names = done.stdout.partition("Acceptable client certificate CA names\n")[2]
    assert names.partition("\n")[0].replace(" ", "") == "CN=idnode", done.stdout


def test_a_subject_is_an_identity_and_a_key(tmp_path: Path) -> None:
    key = https_node.rsa_key()
    file, _ = own_certificate(tmp_path, key, OWNER)
    der = ssl.PEM_cert_to_DER_cert(Path(file).read_text())
    identity, found = subject_of(der)
    assert identity == Identity(KEYS, 300)
    assert is_key(https_node.public_data(key), found)
    assert not is_key(b"", found)
    for damaged in (b"", der[:-1], b"\x30\x80" + der, b"x" * 100):
        with pytest.raises(InvalidValueError):
            subject_of(damaged)


# Reading of headers


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        ("", {}),
        ('a="1", b="2"', {"a": "1", "b": "2"}),
        ('a = "1",b ="%25%3A", a1="c"', {"a": "1", "b": "%:"}),
        ('id="301%3A88.1/\xe4\xba\xa7"', {"id": "301:88.1/产"}),
        ('a="1" b="', {"a": "1"}),
        ('a="' + "x" * 8_192 + '"', {}),
    ],
)
def test_the_fields_of_a_header_are_read(header: str, fields: dict[str, str]) -> None:
    assert fields_from_header(header) == fields


def test_a_basic_header_is_read_as_pyhandle_writes_it() -> None:
    value = basic("300:88.1/产:品%", "a:b")["Authorization"].removeprefix("Basic ")
    identity, secret = basic_from_header(value)
    assert (str(identity), secret) == ("300:88.1/产:品%", b"a:b")


def test_a_nonce_may_be_written_in_either_alphabet() -> None:
    data = bytes([0xFB, 0xFF, 0xFE, 0x01])
    for written in ("-__-AQ", "+//+AQ==", " //+AQ=="):
        assert nonce_of({"n": written}, "n") == data
    assert nonce_of({}, "n") == b""


def test_what_a_proof_costs_is_known_before_it_is_made() -> None:
    def cost_ms(**more: str) -> float:
        return proof_from_fields(stretched(b"", **more), b"").cost_ms

    assert cost_ms(iterations="100000") > 10 * cost_ms(iterations="1000")
    assert cost_ms(id=f"0:{KEYS}") > cost_ms()
    with pytest.raises(InvalidValueError, match="expected HS_PUBKEY or HS_SECKEY"):
        proof_with_key(Identity(KEYS, 1), "HS_SITE", stretched(b""), b"")


class Budget:
    """What proofs cost, written down; with nothing left from some point on."""

    def __init__(self, admitted_max: int = 1_000) -> None:
        self.spent_ms: list[float] = []
        self._left = admitted_max

    def __call__(self, source: str, cost_ms: float) -> bool:
        assert source == "192.0.2.7"
        self._left -= 1
        if self._left >= 0:
            self.spent_ms.append(cost_ms)
        return self._left >= 0


def asking(headers: dict[str, str], scheme: str = "https") -> Exchange:
    """A request with these headers."""
    pairs = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
    scope = {"scheme": scheme, "headers": pairs, "client": ("192.0.2.7", 1), "method": "GET"}
    return Exchange(scope, _never)


async def _never() -> Any:
    raise AssertionError("nothing of a body is read")


async def identities(database: Database, folder: Path, budget: Budget) -> HttpIdentities:
    """Identities over an own database, whose administrator has the secret of these tests."""
    records = PostgresRecords(database)
    await administered.add_prefix(database)
    await put(records, from_text(administered.KEYS), administered.secret())
    return HttpIdentities(
        administrators(records),
        HttpSessions(RedisCache("redis://127.0.0.1:1")),  # never connected
        NodeKey.kept(folder),
        trusted_proxies=(),
        source_of=lambda exchange: exchange.peer,
        admits_cost=budget,
    )


async def test_who_is_right_pays_nothing_and_who_is_wrong_does(
    database: Database, tmp_path: Path
) -> None:
    budget = Budget()
    found = await identities(database, tmp_path, budget)
    owner = str(administered.OWNER)
    assert await found.of(asking(basic(owner))) == administered.OWNER
    assert budget.spent_ms == [0.0]
    with pytest.raises(UnprovenError):
        await found.of(asking(basic(owner, "wrong")))
    assert len(budget.spent_ms) == 3
    assert budget.spent_ms[2] > 0


async def test_who_has_nothing_left_is_not_even_looked_at(
    database: Database, tmp_path: Path
) -> None:
    found = await identities(database, tmp_path, Budget(0))
    for headers in (basic(str(administered.OWNER)), basic(str(administered.OWNER), "wrong")):
        with pytest.raises(RefusedError) as refused:
            await found.of(asking(headers))
        assert (refused.value.code, refused.value.status) == (ResponseCode.SERVER_TOO_BUSY, 429)
    # Without TLS it was not asked for anything.
    assert await found.of(asking(basic(str(administered.OWNER)), "http")) is None


async def test_a_dear_proof_is_paid_for_before_it_is_made(
    database: Database, tmp_path: Path
) -> None:
    budget = Budget()
    found = await identities(database, tmp_path, budget)
    fields = {"nonce": "", **stretched(b"", iterations="20000"), "type": "HS_SECKEY"}
    assert not await found.verified(asking({}), administered.OWNER, fields)
    (spent_ms,) = budget.spent_ms
    assert spent_ms > 4


async def test_without_redis_who_speaks_the_protocol_is_asked_for_a_password(
    database: Database, tmp_path: Path
) -> None:
    found = await identities(database, tmp_path, Budget())
    for headers in ({}, handle_header(cnonce=text(CNONCE))):
        asked = await found.challenge(asking(headers), None)
        assert asked == [(b"www-authenticate", b'Basic realm="handle"')]


def test_a_secret_is_in_no_log(made: HttpsNode, client: httpx.Client) -> None:
    word = "a-secret-that-nobody-else-has"
    for headers in (basic(OWNER, word), handle_header(sessionId=word, signature=word)):
        client.get(SECRETS, headers=headers)
    logs = [path.read_text(errors="replace") for path in (made.node.data / "logs").rglob("*.log")]
    assert logs
    assert not any(word in log or re.search("Traceback", log) for log in logs)


def test_a_worker_answers_an_identity_at_any_length_of_its_name(client: httpx.Client) -> None:
    long: dict[str, Any] = basic("1:88.1/" + "x" * 10_000)
    assert client.get(SECRETS, headers=long).status_code == 401
