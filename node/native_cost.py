"""What cryptography for a stranger costs, in milliseconds of one core."""

from collections.abc import Callable
from typing import Final, TypeAlias

from node.administrators import PUBLIC_KEY
from resolver.errors import InvalidValueError
from resolver.wire import Pbkdf2Answer, SignatureAnswer, secret_answer_from_wire

AdmitsCost: TypeAlias = Callable[[str, float], bool]
"""Whether a source may have so many more milliseconds now; if so, they are spent."""

# An RSA signature of 2,048 bits takes 1 ms. To keep a request until its challenge is answered, or
# to look up in PostgreSQL whether it needs one, takes less; but it is done for anybody.
SIGNATURE_MS: Final = 1.0
CHALLENGE_MS: Final = 0.5
# SM2 is computed in Python; RSA, DSA and Ed25519 take less than 1 ms with a look-up of the key.
_SM2_MS: Final = 50.0
_PUBLIC_KEY_MS: Final = 1.0
# A digest, or two keys compared, with a look-up of the key.
_COMPARISON_MS: Final = 1.0
# Of PBKDF2 with HMAC-SHA1, of which one round makes 160 bits.
_ITERATION_MS: Final = 0.0005
_ROUND_BITS: Final = 160
# Index 0 lets every key of a handle be tried; few have more than this.
_KEYS_OF_ANY_INDEX: Final = 4
# A number raised to 256 bits modulo 4,096 bits takes 9 ms, and the square of the size matters.
_POWER_MS: Final = 9.0
_POWER_BITS: Final = 4_096


def answer_ms(authentication_type: str, signed: bytes, index: int) -> float:
    """Checking the answer to a challenge; SM2 and many rounds of PBKDF2 are dear."""
    try:
        if authentication_type == PUBLIC_KEY:
            once = _signature_ms(SignatureAnswer.from_wire(signed))
        else:
            once = _secret_ms(signed)
    except InvalidValueError:
        return _COMPARISON_MS
    return _of_keys(once, index)


def comparison_ms(index: int) -> float:
    """A digest, or a comparison, with the key at `index` of a handle."""
    return _of_keys(_COMPARISON_MS, index)


def _of_keys(once_ms: float, index: int) -> float:
    return once_ms if index else once_ms * _KEYS_OF_ANY_INDEX


def _signature_ms(answer: SignatureAnswer) -> float:
    return _SM2_MS if "SM3" in answer.algorithm.upper() else _PUBLIC_KEY_MS


def _secret_ms(signed: bytes) -> float:
    answer = secret_answer_from_wire(signed)
    if not isinstance(answer, Pbkdf2Answer):
        return _COMPARISON_MS
    rounds = -(-answer.key_bits // _ROUND_BITS)
    return _COMPARISON_MS + answer.iterations * rounds * _ITERATION_MS


def agreement_ms(prime_bits: int) -> float:
    """Agreeing on a session's key: our public number and the secret."""
    return 2 * _POWER_MS * (prime_bits / _POWER_BITS) ** 2
