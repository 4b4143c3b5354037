"""What a caller of the Handle HTTP API sends to prove who it is: read, and made ready to check.

Source: specs §1.5; recorded answers of Handle.Net 9.3.1.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from node.administrators import PUBLIC_KEY, SECRET_KEY
from node.identity import Identity
from node.native_cost import answer_ms, comparison_ms
from resolver.errors import InvalidIdentifierError, InvalidValueError
from resolver.signature import is_signature_of
from resolver.wire import (
    DigestAlgorithm,
    DigestAnswer,
    Pbkdf2Answer,
    SignatureAnswer,
    secret_answer_from_wire,
)

# A signature of 8,192 bits in base64, the longest handle percent-encoded, and room.
_FIELDS_SIZE_MAX = 8_192
# Both sides' nonces have 16 bytes; nobody needs four times as many.
NONCE_SIZE_BYTES_MAX = 63
# Of a key of 8,192 bits, the longest that is looked at, and some more.
SIGNATURE_SIZE_BYTES_MAX = 1_050
# Bounded names keep this linear whatever is sent.
_FIELD = re.compile(r'([A-Za-z]{1,20}) ?= ?"([^"]*)"')
_NUMBER = re.compile(r"[0-9]{1,9}")

_HMACS = {"HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256"}
_PBKDF2 = "PBKDF2-HMAC-SHA1"
_DIGESTS = {
    "MD5": DigestAlgorithm.MD5,
    "SHA1": DigestAlgorithm.SHA1,
    "SHA-1": DigestAlgorithm.SHA1,
    "SHA256": DigestAlgorithm.SHA256,
    "SHA-256": DigestAlgorithm.SHA256,
}

# What `alg` may say, in any case: digests of signatures and secrets, and of public keys alone.
ALGORITHMS = (*_DIGESTS, *_HMACS, _PBKDF2, "SM3", "SM3withSM2", "Ed25519")
_ALGORITHMS = frozenset(name.upper() for name in ALGORITHMS)

Fields = Mapping[str, str]
"""`sessionId`, `id`, `type`, `cnonce`, `alg`, `signature`, `salt`, `iterations`, `length`, …"""


@dataclass(frozen=True, slots=True)
class Proof:
    """The claim to be `identity`, which holds if `is_of` is true of a key of kind `kind`.

    `is_of` may take 50 ms; `cost_ms` is what checking it costs at most.
    """

    identity: Identity
    kind: str
    is_of: Callable[[bytes], bool]
    cost_ms: float


def authorization(header: str | None) -> tuple[str, str]:
    """The scheme of an Authorization header in lower case, and what comes after it."""
    scheme, _, rest = (header or "").strip().partition(" ")
    return scheme.lower(), rest.strip()


def fields_from_header(text: str) -> dict[str, str]:
    """The fields of `Authorization: Handle …`, decoded; none if the text is longer than any."""
    if len(text) > _FIELDS_SIZE_MAX:
        return {}
    raw = text.encode("latin-1").decode("utf-8", "surrogateescape")
    found = _FIELD.findall(raw)
    return {name: unquote(value, errors="surrogateescape") for name, value in found}


def basic_from_header(text: str) -> tuple[Identity, bytes]:
    """Whom `Authorization: Basic …` names, and the secret.

    Raises:
        InvalidValueError: if it is not of this form.
    """
    try:
        user, colon, secret = base64.b64decode(text, validate=True).partition(b":")
        identity = Identity.from_text(user.decode("utf-8", "surrogateescape"))
    except (binascii.Error, InvalidIdentifierError):
        raise InvalidValueError("Basic: expected index%3Ahandle:secret in base64") from None
    if not colon or not secret:
        raise InvalidValueError("Basic: expected a secret")
    return identity, secret


def nonce_of(fields: Fields, name: str) -> bytes:
    """A nonce, the caller's own (`cnonce`) or another's (`nonce`); empty if there is none.

    Raises:
        InvalidValueError: if it is no base64, or longer than any.
    """
    return _bytes(fields, name, NONCE_SIZE_BYTES_MAX)


def proof_from_fields(fields: Fields, nonce: bytes) -> Proof:
    """The answer to the challenge `nonce`.

    Raises:
        InvalidValueError: if it is none.
    """
    try:
        identity = Identity.from_text(fields.get("id", ""))
    except InvalidIdentifierError as error:
        raise InvalidValueError(f"id: {error}") from None
    challenge = nonce + nonce_of(fields, "cnonce")
    return proof_with_key(identity, fields.get("type", ""), fields, challenge)


def proof_with_key(identity: Identity, kind: str, fields: Fields, challenge: bytes) -> Proof:
    """The signature of `challenge` in `fields`, as one made with a key of kind `kind`.

    Raises:
        InvalidValueError: if it is none.
    """
    if fields.get("alg", "").upper() not in _ALGORITHMS:
        raise InvalidValueError(f"alg: expected one of {', '.join(ALGORITHMS)}")
    if "signature" not in fields:
        raise InvalidValueError("signature: expected base64")
    if kind == PUBLIC_KEY:
        return _with_public_key(identity, fields, challenge)
    if kind == SECRET_KEY:
        return _with_secret(identity, fields, challenge)
    raise InvalidValueError(f"type: expected {PUBLIC_KEY} or {SECRET_KEY}")


def _with_public_key(identity: Identity, fields: Fields, challenge: bytes) -> Proof:
    answer = SignatureAnswer(fields["alg"], _bytes(fields, "signature", SIGNATURE_SIZE_BYTES_MAX))

    def is_of(key: bytes) -> bool:
        return is_signature_of(
            key, answer.algorithm, answer.signature, challenge, signer=identity.handle
        )

    cost_ms = answer_ms(PUBLIC_KEY, answer.to_wire(), identity.index)
    return Proof(identity, PUBLIC_KEY, is_of, cost_ms)


def _with_secret(identity: Identity, fields: Fields, challenge: bytes) -> Proof:
    algorithm = fields["alg"].upper()
    mac = _bytes(fields, "signature", SIGNATURE_SIZE_BYTES_MAX)
    name = _HMACS.get(algorithm)
    if name is not None:

        def is_hmac_of(secret: bytes) -> bool:
            return hmac.compare_digest(hmac.digest(secret, challenge, name), mac)

        return Proof(identity, SECRET_KEY, is_hmac_of, comparison_ms(identity.index))
    answer = _pbkdf2(fields, mac) if algorithm == _PBKDF2 else _digest(algorithm, mac)
    cost_ms = answer_ms(SECRET_KEY, answer.to_wire(), identity.index)
    return Proof(identity, SECRET_KEY, lambda secret: answer.is_of(secret, challenge), cost_ms)


def _pbkdf2(fields: Fields, mac: bytes) -> Pbkdf2Answer:
    answer = Pbkdf2Answer(
        salt=_bytes(fields, "salt", NONCE_SIZE_BYTES_MAX),
        iterations=_number(fields, "iterations"),
        key_bits=_number(fields, "length"),
        mac=mac,
    )
    # The native form of the same has limits on all of these.
    secret_answer_from_wire(answer.to_wire())
    return answer


def _digest(algorithm: str, mac: bytes) -> DigestAnswer:
    found = _DIGESTS.get(algorithm)
    if found is None:
        raise InvalidValueError(f"alg: {algorithm} is none of secrets")
    return DigestAnswer(found, mac)


def _number(fields: Fields, name: str) -> int:
    text = fields.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise InvalidValueError(f"{name}: expected a number")
    return int(text)


def _bytes(fields: Fields, name: str, size_bytes_max: int) -> bytes:
    """What base64 says, in either alphabet; in a query `+` may have become a space."""
    text = fields.get(name, "").replace("-", "+").replace("_", "/").replace(" ", "+").rstrip("=")
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise InvalidValueError(f"{name}: expected base64") from None
    if len(found) > size_bytes_max:
        raise InvalidValueError(f"{name}: at most {size_bytes_max} bytes are allowed")
    return found
