"""Answers that are made once and given to everybody who asks plainly.

An HTTP answer is kept as the transport takes it after the headers that all answers of its kind
share, so that giving it again costs one joining of bytes.
"""

import gzip
from email.utils import formatdate
from typing import Final

from node.http_exchange import HTML, JSON, NATIVE, Reply
from resolver import handle_json
from resolver.entry import Prepared
from resolver.hot import Kept
from resolver.identifier import fold
from resolver.prefix_directory import PrefixState
from resolver.query import Query
from resolver.record import Record
from resolver.wire import public_values

# The reference server names both, though its answers do not depend on the second.
VARY: Final = (b"vary", b"Accept-Encoding, User-Agent")
# Smaller answers gain nothing from compression.
GZIP_FROM_BYTES: Final = 4_096

# Headers in the order in which the front sends them; the length comes last.
JSON_HEADERS: Final = b"content-type: %b\r\n%b: %b\r\ncontent-length: " % (JSON, *VARY)
REDIRECT_HEADERS: Final = b"content-type: %b\r\nexpires: " % HTML
_END_OF_HEAD: Final = b"\r\n\r\n"
_VALUES: Final = b'"values":['


def json_body(prepared: Prepared, record: Record, prefix: PrefixState | None) -> bytes:
    """The body of the plain JSON answer, kept in `prepared`."""
    if prepared.json is not None and prepared.prefix is prefix:
        return prepared.json[prepared.json.index(_END_OF_HEAD) + len(_END_OF_HEAD) :]
    body = handle_json.resolution_answer(record.handle, Query().select(record.values))
    if _begun(prepared, record.handle, prefix):
        prepared.json = b"%d%b%b" % (len(body), _END_OF_HEAD, body)
    return body


def finish(reply: Reply, *, accepts_gzip: bool) -> None:
    """What every answer gets: what it depends on, and compression where it pays."""
    if reply.status == 200 and reply.body:
        reply.headers.append(VARY)
    # What clients of the native protocol say of themselves as HTTP clients is not to be trusted.
    is_compressed = accepts_gzip and reply.content_type != NATIVE
    if is_compressed and len(reply.body) >= GZIP_FROM_BYTES:
        reply.body = gzip.compress(reply.body, 1, mtime=0)
        reply.headers.append((b"content-encoding", b"gzip"))


def batch_item(text: str, json_answer: bytes) -> bytes:
    """The answer for `text` in a batch, out of a prepared JSON answer: the same values."""
    # A quote inside a text is escaped: these bytes stand for themselves only once.
    values = json_answer[json_answer.index(_VALUES) :]
    return b'{"identifier":%b,"responseCode":1,%b' % (handle_json.dump(text), values)


def keep_redirect(
    prepared: Prepared,
    record: Record,
    prefix: PrefixState | None,
    ttl_s: int,
    location: bytes,
    body: bytes,
) -> None:
    """Keep in `prepared` where an identifier leads everybody, unless that would be compressed."""
    if len(body) < GZIP_FROM_BYTES and _begun(prepared, record.handle, prefix):
        rest = b"\r\nlocation: %b\r\ncontent-length: %d%b%b"
        prepared.redirect = (ttl_s, rest % (location, len(body), _END_OF_HEAD, body))


def native_values(kept: Kept, prefix: PrefixState | None) -> bytes | None:
    """The public values of a record, as wire.plain_answer takes them, kept; None if no answer of
    it may be prepared.

    Raises:
        InvalidValueError: if what is stored is damaged.
    """
    if kept.native is not None and kept.prefix is prefix:
        return kept.native
    if not _begun(kept, kept.handle, prefix):
        return None
    kept.native = public_values(kept.wire, kept.stamp_s)
    return kept.native


def _begun(prepared: Prepared, handle: str, prefix: PrefixState | None) -> bool:
    """True if answers about `handle` may be prepared: an identifier below a hosted prefix that is
    in service (it may have been suspended while the record was looked for).

    Prefix handles and what is homed are left out: they are counted at another level, and seldom
    asked for.
    """
    if prefix is None or prefix.suspended or not prefix.hosted or prefix.homed:
        return False
    if not fold(handle).startswith(f"{prefix.key}/"):
        return False
    if prepared.prefix is not prefix:
        prepared.begin(prefix)
    return True


def expires(now_s: float, ttl_s: int) -> bytes:
    """The HTTP date until which a redirect may be kept."""
    return formatdate(int(now_s) + ttl_s, usegmt=True).encode()
