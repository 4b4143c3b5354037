"""Numbers of challenges and sessions in the envelopes of native messages.

A number of ours is none of a client's: clients count sessions of their own from 1, or from 10,001.
Challenges have odd numbers, sessions even ones: none is both. Source: specs §3.5, §3.8 and §4.2.
"""

import secrets
from typing import Final

CLIENT_IDS_END: Final = 1 << 20
# Both sides read signed 32 bits.
_IDS_END: Final = 1 << 31


def new_session_id() -> int:
    """The number of a new session, which nobody can guess."""
    return CLIENT_IDS_END + 2 * secrets.randbelow((_IDS_END - CLIENT_IDS_END) // 2)


def new_challenge_id() -> int:
    """The number of a new challenge, which nobody can guess."""
    return new_session_id() + 1
