"""A node that serves HTTPS with a certificate of its own making, and administrators with keys."""

import base64
import contextlib
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, padding, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from resolver.wire import DsaPublicKey, RsaPublicKey
from tests.conftest import RunningNode, free_port
from tests.tenant import Tenant, tenant

PREFIX = "88.102.5"
KEYS = f"{PREFIX}/ADMIN"
# May do everything below the prefix; list and read alone; nothing at all.
OWNER, READER, STRANGER = f"300:{KEYS}", f"304:{KEYS}", f"305:{KEYS}"
OWNER_BY_RSA, OWNER_BY_DSA, OWNER_BY_ED25519 = f"301:{KEYS}", f"302:{KEYS}", f"303:{KEYS}"
# Administers the server, by no HS_ADMIN at all.
SERVER_ADMIN = f"306:{KEYS}"
SECRET = "secret"
LIST_AND_READ = "110000000000"
CNONCE = bytes(range(16))
# Values of the handle with the keys that everybody reads, and the others.
PUBLIC_INDEXES = {100, 101, 102, 103, 301, 302, 303}
SECRET_INDEXES = {300, 304, 305, 306}

PrivateKey = rsa.RSAPrivateKey | dsa.DSAPrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """The key at index 301."""
    return rsa.generate_private_key(65_537, 2_048)


@cache
def dsa_key() -> dsa.DSAPrivateKey:
    """The key at index 302."""
    return dsa.generate_private_key(2_048)


@cache
def ed25519_key() -> ed25519.Ed25519PrivateKey:
    """The key at index 303."""
    return ed25519.Ed25519PrivateKey.generate()


def public_data(key: PrivateKey) -> bytes:
    """The data of an HS_PUBKEY value."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        return RsaPublicKey(numbers.e, numbers.n).to_wire()
    if isinstance(public, dsa.DSAPublicKey):
        values = public.public_numbers()
        group = values.parameter_numbers
        return DsaPublicKey(group.q, group.p, group.g, values.y).to_wire()
    name = b"ED25519_PUB_KEY"
    raw = public.public_bytes_raw()
    return len(name).to_bytes(4) + name + b"\x00\x00" + len(raw).to_bytes(4) + raw


def signed(key: PrivateKey, data: bytes) -> bytes:
    """The signature of `data`, with SHA-256 where a digest has to be chosen."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, dsa.DSAPrivateKey):
        return key.sign(data, hashes.SHA256())
    return key.sign(data)


def text(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode()


def basic(identity: str, secret: str = SECRET) -> dict[str, str]:
    """The header that proves `index:handle` with a secret, as pyhandle sends it."""
    pair = f"{quote(identity)}:{secret}".encode()
    return {"Authorization": f"Basic {text(pair)}"}


def handle_header(**fields: str) -> dict[str, str]:
    """`Authorization: Handle …`."""
    shown = ", ".join(f'{name}="{value}"' for name, value in fields.items())
    return {"Authorization": f"Handle {shown}"}


def fields_of(answer: httpx.Response) -> dict[str, str]:
    """The fields of the Handle challenge in an answer."""
    challenge = answer.headers.get_list("www-authenticate")[-1]
    return dict(re.findall(r'(\w+)="([^"]*)"', challenge))


def admin_value(index: int, identity: str, permissions: str = "1" * 12) -> dict[str, Any]:
    """An HS_ADMIN value as it is sent."""
    number, _, handle = identity.partition(":")
    value = {"handle": handle, "index": int(number), "permissions": permissions}
    return {"index": index, "type": "HS_ADMIN", "data": {"format": "admin", "value": value}}


def secret_value(index: int, secret: str = SECRET) -> dict[str, Any]:
    """An HS_SECKEY value that administrators read."""
    data = {"format": "string", "value": secret}
    return {"index": index, "type": "HS_SECKEY", "data": data, "permissions": "1100"}


def public_value(index: int, key: PrivateKey) -> dict[str, Any]:
    """An HS_PUBKEY value."""
    data = {"format": "base64", "value": text(public_data(key))}
    return {"index": index, "type": "HS_PUBKEY", "data": data}


def admin_record() -> list[dict[str, Any]]:
    """The handle with everybody's keys."""
    return [
        *_owners(),
        secret_value(300),
        public_value(301, rsa_key()),
        public_value(302, dsa_key()),
        public_value(303, ed25519_key()),
        *(secret_value(index) for index in (304, 305, 306)),
    ]


def prefix_record() -> list[dict[str, Any]]:
    """The prefix handle, which says who may do what below the prefix."""
    return [*_owners(), admin_value(110, READER, LIST_AND_READ)]


def _owners() -> list[dict[str, Any]]:
    owners = (OWNER, OWNER_BY_RSA, OWNER_BY_DSA, OWNER_BY_ED25519)
    return [admin_value(100 + number, owner) for number, owner in enumerate(owners)]


@dataclass(frozen=True)
class HttpsNode:
    """A running node with HTTPS, and the enterprise whose prefix has administrators."""

    factory: Tenant
    port: int

    @property
    def node(self) -> RunningNode:
        return self.factory.node

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> Path:
        """What clients have to trust."""
        return self.node.data / "tls.pem"

    def context(self, *shown: str) -> ssl.SSLContext:
        """A client that believes the node's own certificate alone; `shown` are the files of its
        own."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if shown:
            context.load_cert_chain(*shown)
        return context

    def client(self, headers: dict[str, str] | None = None, *shown: str) -> httpx.Client:
        """An HTTPS client that sends these headers."""
        verify = self.context(*shown)
        return httpx.Client(base_url=self.url, headers=headers or {}, verify=verify, timeout=60)

    def plain(self, headers: dict[str, str] | None = None) -> httpx.Client:
        """An HTTP client."""
        return httpx.Client(base_url=self.node.url, headers=headers or {}, timeout=60)


@contextlib.contextmanager
def https_node(folder: Path, prefix_number: int = 5, **environment: str) -> Iterator[HttpsNode]:
    """A node with HTTPS, with the administrators of these tests."""
    port = free_port()
    running = RunningNode(folder, free_port())
    running.environment = {
        "IDNODE_HTTPS": f"127.0.0.1:{port}",
        "IDNODE_HANDLE": "off",
        "IDNODE_SERVER_ADMINS": SERVER_ADMIN,
        **environment,
    }
    running.start()
    try:
        made = HttpsNode(tenant(running, PREFIX, prefix_number), port)
        with made.factory.operator as operator:
            operator.put(f"/api/handles/0.NA/{PREFIX}", json=prefix_record()).raise_for_status()
            operator.put(f"/api/handles/{KEYS}", json=admin_record()).raise_for_status()
        yield made
    finally:
        running.stop()


def own_certificate(
    folder: Path,
    key: PrivateKey,
    subject: str,
    attribute: ObjectIdentifier = NameOID.USER_ID,
) -> tuple[str, str]:
    """The files of a certificate that nobody but its owner has issued, and of its key."""
    name = x509.Name([x509.NameAttribute(attribute, subject)])
    now = datetime.now(UTC)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, algorithm)
    )
    certificate, private = folder / "caller.pem", folder / "caller.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(certificate), str(private)
