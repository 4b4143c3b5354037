"""One HTTP exchange below the framework: what was asked, and the reply as bytes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import orjson
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from resolver.response_code import ResponseCode

JSON = b"application/json;charset=utf-8"
HTML = b"text/html;charset=utf-8"
# A message of the Handle protocol.
NATIVE = b"application/x-hdl-message"

# An answer that has no body has no length either (RFC 9110 §8.6).
_NO_CONTENT = 204
# More parameters than a resolution can mean anything by.
PARAMETERS_MAX = 1_000
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,10}")
_INTEGER_RANGE: Final = range(-(2**31), 2**31)

Headers = list[tuple[bytes, bytes]]


class RefusedError(Exception):
    """A request that is answered with a response code and changes nothing.

    `status` is set where HTTP knows more than the response code says.
    """

    def __init__(
        self, code: ResponseCode, message: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class BadRequestError(RefusedError):
    """What was sent cannot be understood; the message says what, where and what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(ResponseCode.PROTOCOL_ERROR, message)


class BodyTooLargeError(RefusedError):
    """The body is longer than this door reads."""

    def __init__(self, message: str) -> None:
        super().__init__(ResponseCode.PROTOCOL_ERROR, message, status=413)


class DisconnectedError(Exception):
    """The caller went away before the body was complete."""


@dataclass(slots=True)
class Reply:
    """A complete answer; `headers` come besides type and length."""

    status: int
    body: bytes = b""
    content_type: bytes | None = JSON
    headers: Headers = field(default_factory=list)


@dataclass(slots=True)
class Exchange:
    """The request of one exchange, read as far as needed."""

    scope: Scope
    receive: Receive

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def path(self) -> bytes:
        """The path as it was sent, percent-encoded, without the query."""
        return bytes(self.scope.get("raw_path") or self.scope["path"].encode())

    @property
    def peer(self) -> str:
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def header(self, name: bytes) -> str | None:
        """The first header `name` (lower case), or None."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value.decode("latin-1"))
        return None

    @property
    def accepts_gzip(self) -> bool:
        """True if the caller takes a compressed answer."""
        for part in (self.header(b"accept-encoding") or "").split(",")[:20]:
            coding, _, parameter = part.partition(";")
            if coding.strip().lower() == "gzip":
                weight = parameter.replace(" ", "").lower()
                return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
        return False

    @property
    def media_type(self) -> str:
        """The type of the body, lower case, without parameters; empty if it is not said."""
        return (self.header(b"content-type") or "").partition(";")[0].strip().lower()

    def parameters(self) -> "Parameters":
        """The parameters of the query.

        Raises:
            BadRequestError: for more of them than are read.
        """
        return Parameters.from_form(bytes(self.scope.get("query_string") or b""))

    async def body(self, size_bytes_max: int) -> bytes:
        """The whole body.

        Raises:
            BodyTooLargeError: if it is longer; the rest is not read.
            DisconnectedError: if the caller went away.
        """
        length = self.header(b"content-length") or ""
        # The parser took it as a number; 19 digits of it are enough to say that it is too large.
        if length and int(length[:19]) > size_bytes_max:
            raise BodyTooLargeError(
                f"body is {length[:19]} bytes, at most {size_bytes_max} are read"
            )
        parts: list[bytes] = []
        size_bytes = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            part = message.get("body", b"")
            size_bytes += len(part)
            if size_bytes > size_bytes_max:
                raise BodyTooLargeError(
                    f"body is longer than {size_bytes_max} bytes, no more is read"
                )
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Named parameters, each with its values in order."""

    values: Mapping[str, list[str]]

    @classmethod
    def from_form(cls, form: bytes) -> "Parameters":
        """Read a query or a form body; broken UTF-8 becomes U+FFFD."""
        found: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(
                form.decode("latin-1"),
                keep_blank_values=True,
                encoding="utf-8",
                errors="replace",
                max_num_fields=PARAMETERS_MAX,
            )
        except ValueError:
            raise BadRequestError(f"more than {PARAMETERS_MAX} parameters") from None
        for name, value in pairs:
            found.setdefault(name, []).append(value)
        return cls(found)

    @classmethod
    def from_document(cls, document: object) -> "Parameters":
        """Read a JSON object of strings, numbers, booleans and lists of them."""
        if not isinstance(document, dict):
            raise BadRequestError("body: expected a JSON object of parameters")
        found: dict[str, list[str]] = {}
        for name, value in document.items():
            items = value if isinstance(value, list) else [value]
            if len(items) > PARAMETERS_MAX:
                raise BadRequestError(f"{name}: more than {PARAMETERS_MAX} values")
            found[name] = [_plain(name, item) for item in items]
        return cls(found)

    def all(self, name: str) -> list[str]:
        return self.values.get(name, [])

    def first(self, name: str) -> str | None:
        values = self.values.get(name)
        return values[0] if values else None

    def integers(self, name: str) -> tuple[int, ...]:
        """The values of `name`, 32 bits each.

        Raises:
            BadRequestError: in the words of the reference server, which clients show as it is.
        """
        return tuple(_integer(text) for text in self.all(name))

    def flag(self, name: str, default: bool = False) -> bool:
        """True when present and empty, "yes" or "true" (Handle.Net: HTTP API)."""
        value = self.first(name)
        return default if value is None else value.lower() in ("", "yes", "true")


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or int(text) not in _INTEGER_RANGE:
        shown = text[:100]
        raise BadRequestError(f'java.lang.NumberFormatException: For input string: "{shown}"')
    return int(text)


def _plain(name: str, item: object) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float) and item.is_integer():
        return str(int(item))  # 1.0 is a whole number in JSON
    if isinstance(item, str | int | float):
        return str(item)
    raise BadRequestError(f"{name}: expected text, a number, true or false")


def document_of(body: bytes) -> object:
    """What a JSON body says.

    Raises:
        BadRequestError: if it is not JSON.
    """
    try:
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"body is not JSON: {error}") from None
    return document


def decoded_path(path: bytes) -> str:
    """The text of a percent-encoded path; bytes that are not UTF-8 become lone surrogates."""
    return unquote_to_bytes(path).decode("utf-8", "surrogateescape")


async def send_reply(send: Send, reply: Reply, *, with_body: bool = True) -> None:
    """Send a reply; HEAD gets the headers alone, with the length the body would have."""
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": reply.status,
        "headers": _framed(reply),
    }
    await send(start)
    await send({"type": "http.response.body", "body": reply.body if with_body else b""})


def reply_bytes(reply: Reply, first_headers: Headers, *, is_last: bool) -> bytes:
    """A reply as it is sent, by uvicorn or without it: the same bytes."""
    headers = [*first_headers, *_framed(reply)]
    if is_last:
        headers.append((b"connection", b"close"))
    head = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"%b%b\r\n%b" % (STATUS_LINE[reply.status], head, reply.body)


def _framed(reply: Reply) -> Headers:
    headers = [*reply.headers]
    if reply.status != _NO_CONTENT:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    if reply.content_type is not None:
        headers.insert(0, (b"content-type", reply.content_type))
    return headers
