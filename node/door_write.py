"""Writing over HTTP with an API key: `PUT` and `DELETE /api/handles/{handle}`, and many at once.

Source: specs §1.1–1.4. Without a key that owns the prefix nothing is written.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from node.announcer import Announcer
from node.callers import Caller, Callers, UnknownKeyError
from node.http_exchange import (
    BadRequestError,
    BodyTooLargeError,
    Exchange,
    Parameters,
    Reply,
    decoded_path,
)
from node.problems import http_status, retry_later
from registry.bulk import BulkRegistration, StagedRow, bulk_registration
from registry.database import Database
from registry.records import Author, PostgresRecords, Refused, Written, prefix_refusal
from resolver import identifier
from resolver.errors import (
    InvalidIdentifierError,
    InvalidValueError,
    RegistryUnavailableError,
)
from resolver.handle_json import dump, error_answer, values_from_json
from resolver.identifier import Identifier, fold
from resolver.record import HandleValue, check_values, values_to_wire
from resolver.resolve import Resolver
from resolver.response_code import ResponseCode
from resolver.value_json import value_from_json

HANDLES = b"/api/handles/"
# The largest record (240 KB) with every byte written as hexadecimal, and room for names.
BODY_SIZE_BYTES_MAX = 1024 * 1024
# SNMS takes 2,000 identifiers a call; so do we.
ITEMS_MAX = 2_000
BULK_BODY_SIZE_BYTES_MAX = 16 * 1024 * 1024
INDEXES_MAX = 1_000
_DOOR = "http"


class _RefusedError(Exception):
    """A write that is answered with a code and changes nothing."""

    def __init__(
        self, code: ResponseCode, message: str | None = None, handle: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.handle = handle


@dataclass(frozen=True, slots=True)
class _Put:
    identifier: Identifier
    values: tuple[HandleValue, ...]
    indexes: tuple[str, ...]
    overwrite: bool


class WriteDoor:
    """Writes records for callers whose key owns the prefix."""

    def __init__(
        self,
        records: PostgresRecords,
        database: Database,
        resolver: Resolver,
        callers: Callers,
        announcer: Announcer,
        now_s: Callable[[], float],
    ) -> None:
        self._records = records
        self._database = database
        self._resolver = resolver
        self._callers = callers
        self._announcer = announcer
        self._now_s = now_s

    async def put(self, exchange: Exchange) -> Reply:
        """Create or replace a record, or add and replace values of it."""
        return await self._guarded(exchange, self._put)

    async def delete(self, exchange: Exchange) -> Reply:
        """Delete a record, or values of it."""
        return await self._guarded(exchange, self._delete)

    async def put_many(self, exchange: Exchange) -> Reply:
        """Register up to 2,000 records; each item succeeds or fails for itself."""
        return await self._guarded(exchange, self._put_many)

    async def _guarded(
        self, exchange: Exchange, act: Callable[[Exchange], Awaitable[Reply]]
    ) -> Reply:
        try:
            return await act(exchange)
        except _RefusedError as error:
            return _refusal(exchange, error.code, error.message, error.handle)
        except BadRequestError as error:
            return _refusal(exchange, ResponseCode.PROTOCOL_ERROR, str(error))
        except BodyTooLargeError as error:
            reply = _refusal(exchange, ResponseCode.PROTOCOL_ERROR, str(error))
            reply.status = 413
            return reply
        except RegistryUnavailableError as error:
            # The commit may have happened without its confirmation: repeating it is harmless.
            message = f"The registry is away ({error}); nothing is confirmed as written: try again"
            return _refusal(exchange, ResponseCode.SERVER_BACKUP, message)

    async def _put(self, exchange: Exchange) -> Reply:
        parameters = exchange.parameters()
        text = decoded_path(exchange.path[len(HANDLES) :])
        if parameters.flag("mintNewSuffix"):
            text = _minted(text)
        caller = await self._caller(exchange, text)
        asked = _writable(text, caller)
        put = await self._parsed(exchange, asked, parameters)
        author = Author(caller.actor, _DOOR)
        if put.indexes:
            written = await self._records.put_values(
                asked, put.values, author, self._now_s(), overwrite=put.overwrite
            )
        else:
            written = await self._records.put(
                asked, put.values, author, self._now_s(), overwrite=put.overwrite
            )
        done = await self._acknowledged(written, asked)
        return Reply(201 if done.created else 200, error_answer(1, None, asked.text))

    async def _delete(self, exchange: Exchange) -> Reply:
        text = decoded_path(exchange.path[len(HANDLES) :])
        caller = await self._caller(exchange, text)
        asked = _writable(text, caller, for_new=False)
        indexes = exchange.parameters().all("index")
        author = Author(caller.actor, _DOOR)
        if indexes:
            numbers = [_number(index) for index in indexes]
            written = await self._records.remove_values(asked, numbers, author, self._now_s())
        else:
            written = await self._records.delete(asked, author, self._now_s())
        await self._acknowledged(written, asked)
        return Reply(200, error_answer(1, None, asked.text))

    async def _put_many(self, exchange: Exchange) -> Reply:
        caller = await self._caller(exchange, None)
        items = _items(await exchange.body(BULK_BODY_SIZE_BYTES_MAX))
        results: list[dict[str, object]] = []
        by_prefix: dict[str, dict[str, tuple[StagedRow, dict[str, object]]]] = {}
        for position, item in enumerate(items):
            result, staged = _staged(position, item, caller)
            results.append(result)
            if staged is None:
                continue
            prefix_key, row = staged
            chunk = by_prefix.setdefault(prefix_key, {})
            if row[0] in chunk:
                _fail(result, ResponseCode.HANDLE_ALREADY_EXISTS, "is twice in this request")
            else:
                chunk[row[0]] = (row, result)
        totals = {"added": 0, "changed": 0, "unchanged": 0}
        for prefix_key, chunk in by_prefix.items():
            await self._write_chunk(prefix_key, chunk, Author(caller.actor, _DOOR), totals)
        await self._announcer.drain_if_possible()
        return Reply(200, dump({"responseCode": 1, **totals, "results": results}))

    async def _write_chunk(
        self,
        prefix_key: str,
        chunk: dict[str, tuple[StagedRow, dict[str, object]]],
        author: Author,
        totals: dict[str, int],
    ) -> None:
        async with self._database.connection() as connection:
            refusal = await prefix_refusal(connection, prefix_key)
        if refusal is not None:
            for _, result in chunk.values():
                _fail(result, refusal.code, refusal.message or "")
            return
        async with bulk_registration(self._database, prefix_key, author) as bulk:
            await _write(bulk, [row for row, _ in chunk.values()], self._now_s(), totals)

    async def _caller(self, exchange: Exchange, text: str | None) -> Caller:
        try:
            caller = await self._callers.of(exchange, self._now_s())
        except UnknownKeyError:
            raise _RefusedError(
                ResponseCode.AUTHENTICATION_FAILED, "The API key is unknown or revoked", text
            ) from None
        if caller.owner is None:
            raise _RefusedError(ResponseCode.AUTHENTICATION_NEEDED, None, text)
        return caller

    async def _parsed(self, exchange: Exchange, asked: Identifier, parameters: Parameters) -> _Put:
        media_type = (exchange.header(b"content-type") or "").partition(";")[0].strip()
        if media_type.lower() != "application/json":
            raise BadRequestError(f"java.lang.Exception: Unsupported media type {media_type[:100]}")
        body = await exchange.body(BODY_SIZE_BYTES_MAX)
        try:
            parsed = values_from_json(body)
        except InvalidValueError as error:
            raise BadRequestError(str(error)) from None
        is_other = parsed.handle is not None and fold(parsed.handle) != asked.key
        if is_other and not parameters.flag("mintNewSuffix"):
            raise BadRequestError("java.lang.Exception: Mismatched handle in PUT request")
        indexes = tuple(parameters.all("index"))
        if indexes and "various" not in indexes:
            wanted = {_number(index) for index in indexes}
            if wanted != {value.index for value in parsed.values}:
                raise BadRequestError("java.lang.Exception: Mismatched indexes in PUT request")
        _check(parsed.values, asked)
        overwrite = parameters.flag("overwrite", default=True)
        return _Put(asked, parsed.values, indexes, overwrite)

    async def _acknowledged(self, written: Written | Refused, asked: Identifier) -> Written:
        """Make sure that no worker of a healthy node answers with the old value any more."""
        if isinstance(written, Refused):
            raise _RefusedError(written.code, written.message, asked.text)
        if written.changed:
            self._resolver.outdated(asked.key, written.record.version)
            await self._announcer.drain_if_possible()
        return written


def _writable(text: str, caller: Caller, *, for_new: bool = True) -> Identifier:
    try:
        asked = identifier.for_registration(text) if for_new else identifier.from_text(text)
    except InvalidIdentifierError as error:
        raise _RefusedError(ResponseCode.INVALID_HANDLE, str(error), text) from None
    if not caller.may_write(asked.prefix_key):
        raise _RefusedError(
            ResponseCode.INSUFFICIENT_PERMISSIONS,
            "This API key may not write below this prefix",
            text,
        )
    return asked


def _check(values: tuple[HandleValue, ...], asked: Identifier) -> None:
    seen: set[int] = set()
    try:
        check_values(values)
    except InvalidValueError as error:
        raise _RefusedError(ResponseCode.INVALID_VALUE, str(error), asked.text) from None
    for value in values:
        if value.index in seen:
            raise _RefusedError(
                ResponseCode.VALUE_ALREADY_EXISTS,
                f"Index conflict for {value.index}",
                asked.text,
            )
        seen.add(value.index)


def _minted(text: str) -> str:
    return f"{text if '/' in text else f'{text}/'}{uuid.uuid4()}"


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11):
        raise BadRequestError(f'java.lang.NumberFormatException: For input string: "{text[:100]}"')
    return int(text)


def _items(body: bytes) -> list[object]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"body is not JSON: {error}") from None
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise BadRequestError('body: expected {"items": [{"handle": …, "values": […]}]}')
    if len(items) > ITEMS_MAX:
        raise BadRequestError(f"items: {len(items)} items, at most {ITEMS_MAX} are allowed")
    return items


def _staged(
    position: int, item: object, caller: Caller
) -> tuple[dict[str, object], tuple[str, StagedRow] | None]:
    text = item.get("handle") if isinstance(item, dict) else None
    result: dict[str, object] = {"handle": text if isinstance(text, str) else "", "responseCode": 1}
    try:
        if not isinstance(item, dict) or not isinstance(text, str):
            raise InvalidValueError(f"items[{position}].handle: expected text")
        asked = _writable(text, caller)
        raw = item.get("values")
        if not isinstance(raw, list):
            raise InvalidValueError(f"items[{position}].values: expected a list")
        path = f"items[{position}].values"
        values = tuple(value_from_json(one, f"{path}[{n}]") for n, one in enumerate(raw[:1001]))
        _check(values, asked)
    except InvalidValueError as error:
        _fail(result, ResponseCode.INVALID_VALUE, str(error))
        return result, None
    except _RefusedError as error:
        _fail(result, error.code, error.message or "")
        return result, None
    return result, (asked.prefix_key, (asked.key, asked.text, values_to_wire(values)))


def _fail(result: dict[str, object], code: ResponseCode, message: str) -> None:
    result["responseCode"] = int(code)
    result["message"] = message


async def _write(
    bulk: BulkRegistration, rows: list[StagedRow], now_s: float, totals: dict[str, int]
) -> None:
    done = await bulk.write(rows, now_s)
    totals["added"] += done.added
    totals["changed"] += done.changed
    totals["unchanged"] += done.unchanged


def _refusal(
    exchange: Exchange, code: ResponseCode, message: str | None, handle: str | None = None
) -> Reply:
    reply = Reply(
        http_status(code, is_secure=exchange.is_secure),
        error_answer(code, message, handle),
        headers=retry_later(code),
    )
    if code == ResponseCode.AUTHENTICATION_NEEDED and exchange.is_secure:
        reply.headers.append((b"www-authenticate", b'Bearer realm="idnode"'))
    return reply
