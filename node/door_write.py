"""Writing over HTTP: `PUT` and `DELETE /api/handles/{handle}`, and many at once.

With an API key that owns the prefix, or as an identity that administers it. Without either nothing
is written.

Source: specs §1.1–1.5.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from node.administration import Administration, Done
from node.announcer import Announcer
from node.callers import Caller, Callers
from node.http_exchange import (
    BadRequestError,
    Exchange,
    Parameters,
    RefusedError,
    Reply,
    decoded_path,
    document_of,
)
from node.http_identity import NOBODY, Identities
from node.identity import Identity
from node.problems import caller_of, identifier_of, refusal
from registry.bulk import RegistrationRefusedError, StagedRow, bulk_registration
from registry.database import Database
from registry.records import Author, PostgresRecords, Refused, Written, refusal_of_values
from resolver import identifier
from resolver.errors import (
    InvalidIdentifierError,
    InvalidValueError,
    RegistryUnavailableError,
)
from resolver.handle_json import dump, error_answer, values_from_json
from resolver.identifier import Identifier, fold
from resolver.record import VALUES_MAX, HandleValue, values_to_wire
from resolver.response_code import ResponseCode
from resolver.value_json import value_from_json

HANDLES = b"/api/handles/"
# The largest record (240 KB) with every byte written as hexadecimal, and room for names.
BODY_SIZE_BYTES_MAX = 1024 * 1024
# SNMS takes 2,000 identifiers a call; so do we.
ITEMS_MAX = 2_000
BULK_BODY_SIZE_BYTES_MAX = 16 * 1024 * 1024
_DOOR = "http"
# In place of indexes: those of the body.
_VARIOUS = "various"

_Result = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Put:
    values: tuple[HandleValue, ...]
    is_of_values: bool
    overwrite: bool


@dataclass(slots=True)
class _Bulk:
    """The items of one request that can be written, by prefix key and key, and what was done."""

    rows: dict[str, dict[str, tuple[StagedRow, _Result]]]
    added: int = 0
    changed: int = 0
    unchanged: int = 0


class WriteDoor:
    """Writes records for callers whose key owns the prefix, and for its administrators."""

    def __init__(
        self,
        records: PostgresRecords,
        database: Database,
        callers: Callers,
        announcer: Announcer,
        now_s: Callable[[], float],
        identities: Identities = NOBODY,
        administration: Administration | None = None,
    ) -> None:
        self._identities = identities
        self._administration = administration
        self._records = records
        self._database = database
        self._callers = callers
        self._announcer = announcer
        self._now_s = now_s

    async def put(self, exchange: Exchange) -> Reply:
        """Create or replace a record, or add and replace values of it."""
        text = decoded_path(exchange.path[len(HANDLES) :])
        return await self._answered(exchange, self._put(exchange, text), text)

    async def delete(self, exchange: Exchange) -> Reply:
        """Delete a record, or values of it."""
        text = decoded_path(exchange.path[len(HANDLES) :])
        return await self._answered(exchange, self._delete(exchange, text), text)

    async def put_many(self, exchange: Exchange) -> Reply:
        """Register up to 2,000 records; each item succeeds or fails for itself."""
        return await self._answered(exchange, self._put_many(exchange), None)

    async def _put(self, exchange: Exchange, text: str) -> Reply:
        parameters = exchange.parameters()
        caller, identity = await self._known_caller(exchange)
        if identity is not None:
            return await self._put_as(identity, exchange, identifier_of(text), parameters)
        if parameters.flag("mintNewSuffix"):
            text = _minted(text)
        asked = _registrable(text)
        _check_owner(caller, asked)
        put = await _put_of(exchange, asked, parameters)
        write = self._records.put_values if put.is_of_values else self._records.put
        written = await write(
            asked, put.values, _author(caller), self._now_s(), overwrite=put.overwrite
        )
        done = await self._acknowledged(written, asked)
        return Reply(201 if done.created else 200, error_answer(1, None, asked.text))

    async def _put_as(
        self, identity: Identity, exchange: Exchange, asked: Identifier, parameters: Parameters
    ) -> Reply:
        assert self._administration is not None
        put = await _put_of(exchange, asked, parameters)
        mint = parameters.flag("mintNewSuffix")
        if put.is_of_values and not mint:
            done = await self._administration.add_values(
                identity, asked, put.values, overwrite=put.overwrite, now_s=self._now_s()
            )
        else:
            done = await self._administration.create(
                identity, asked, put.values, overwrite=put.overwrite, mint=mint, now_s=self._now_s()
            )
        done = _done(done)
        assert done.record is not None
        named = done.record.handle if mint else asked.text
        return Reply(201 if done.created else 200, error_answer(1, None, named))

    async def _delete(self, exchange: Exchange, text: str) -> Reply:
        caller, identity = await self._known_caller(exchange)
        asked = identifier_of(text)
        indexes = exchange.parameters().integers("index")
        if identity is not None:
            return await self._delete_as(identity, asked, indexes)
        _check_owner(caller, asked)
        author, now_s = _author(caller), self._now_s()
        if indexes:
            written = await self._records.remove_values(asked, indexes, author, now_s)
        else:
            written = await self._records.delete(asked, author, now_s)
        await self._acknowledged(written, asked)
        return Reply(200, error_answer(1, None, asked.text))

    async def _delete_as(
        self, identity: Identity, asked: Identifier, indexes: tuple[int, ...]
    ) -> Reply:
        write, now_s = self._administration, self._now_s()
        assert write is not None
        if indexes:
            _done(await write.remove_values(identity, asked, indexes, now_s=now_s))
        else:
            _done(await write.delete(identity, asked, now_s=now_s))
        return Reply(200, error_answer(1, None, asked.text))

    async def _put_many(self, exchange: Exchange) -> Reply:
        caller = await caller_of(self._callers, exchange, self._now_s())
        if caller.owner is None:
            raise RefusedError(ResponseCode.AUTHENTICATION_NEEDED, status=403)
        items = _items(await exchange.body(BULK_BODY_SIZE_BYTES_MAX))
        bulk = _Bulk({})
        results = [_staged(bulk, position, item, caller) for position, item in enumerate(items)]
        for prefix_key in bulk.rows:
            await self._write(bulk, prefix_key, _author(caller))
        await self._announcer.tell(await self._versions(bulk))
        totals = {"added": bulk.added, "changed": bulk.changed, "unchanged": bulk.unchanged}
        return Reply(200, dump({"responseCode": 1, **totals, "results": results}))

    async def _write(self, bulk: _Bulk, prefix_key: str, author: Author) -> None:
        """Write the items of one prefix in one transaction, or say in each why they are not."""
        staged = bulk.rows[prefix_key].values()
        try:
            async with bulk_registration(self._database, prefix_key, author) as registration:
                done = await registration.write([row for row, _ in staged], self._now_s())
        except RegistrationRefusedError as error:
            for _, result in staged:
                _fail(result, ResponseCode.SERVER_NOT_RESPONSIBLE, str(error))
            return
        bulk.added += done.added
        bulk.changed += done.changed
        bulk.unchanged += done.unchanged

    async def _versions(self, bulk: _Bulk) -> dict[str, int]:
        keys = [key for rows in bulk.rows.values() for key in rows]
        records = await self._records.fetch_many(keys)
        return {key: record.version for key, record in records.items()}

    async def _known_caller(self, exchange: Exchange) -> tuple[Caller, Identity | None]:
        """The owner of the API key; where there is none, the identity."""
        caller = await caller_of(self._callers, exchange, self._now_s())
        if caller.owner is not None:
            return caller, None
        identity = await self._identities.of(exchange)
        if identity is None:
            raise RefusedError(ResponseCode.AUTHENTICATION_NEEDED)
        return caller, identity

    async def _acknowledged(self, written: Written | Refused, asked: Identifier) -> Written:
        """Make sure that no worker of a healthy node answers with the old value any more."""
        if isinstance(written, Refused):
            raise RefusedError(written.code, written.message)
        if written.changed:
            await self._announcer.tell({asked.key: written.record.version})
        return written

    async def _answered(
        self, exchange: Exchange, work: Awaitable[Reply], handle_text: str | None
    ) -> Reply:
        try:
            return await work
        except RefusedError as error:
            return await self._identities.reply_to(exchange, error, handle_text)
        except RegistryUnavailableError as error:
            # The commit may have happened without its confirmation: repeating it is harmless.
            message = f"The registry is away ({error}); nothing is confirmed as written: try again"
            return refusal(ResponseCode.SERVER_BACKUP, message, handle_text)


def _done(done: Done | Refused) -> Done:
    if isinstance(done, Refused):
        raise RefusedError(done.code, done.message)
    return done


def _author(caller: Caller) -> Author:
    return Author(caller.actor, _DOOR)


def _registrable(text: str) -> Identifier:
    try:
        return identifier.for_registration(text)
    except InvalidIdentifierError as error:
        raise RefusedError(ResponseCode.INVALID_HANDLE, str(error)) from None


def _check_owner(caller: Caller, asked: Identifier) -> None:
    if not caller.may_write(asked.prefix_key):
        raise RefusedError(
            ResponseCode.INSUFFICIENT_PERMISSIONS, "This API key may not write below this prefix"
        )


async def _put_of(exchange: Exchange, asked: Identifier, parameters: Parameters) -> _Put:
    if exchange.media_type != "application/json":
        shown = exchange.media_type[:100]
        raise BadRequestError(f"java.lang.Exception: Unsupported media type {shown}")
    body = await exchange.body(BODY_SIZE_BYTES_MAX)
    try:
        parsed = values_from_json(body)
    except InvalidValueError as error:
        raise BadRequestError(str(error)) from None
    is_other = parsed.handle is not None and fold(parsed.handle) != asked.key
    if is_other and not parameters.flag("mintNewSuffix"):
        raise BadRequestError("java.lang.Exception: Mismatched handle in PUT request")
    is_of_values = bool(parameters.all("index"))
    if is_of_values and _VARIOUS not in parameters.all("index"):
        wanted = set(parameters.integers("index"))
        if wanted != {value.index for value in parsed.values}:
            raise BadRequestError("java.lang.Exception: Mismatched indexes in PUT request")
    _check(parsed.values)
    return _Put(parsed.values, is_of_values, parameters.flag("overwrite", default=True))


def _check(values: tuple[HandleValue, ...]) -> None:
    refused = refusal_of_values(values)
    if refused is not None:
        raise RefusedError(refused.code, refused.message)


def _minted(text: str) -> str:
    return f"{text if '/' in text else f'{text}/'}{uuid.uuid4()}"


def _items(body: bytes) -> list[object]:
    document = document_of(body)
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise BadRequestError('body: expected {"items": [{"handle": …, "values": […]}]}')
    if len(items) > ITEMS_MAX:
        raise BadRequestError(f"items: {len(items)} items, at most {ITEMS_MAX} are allowed")
    return items


def _staged(bulk: _Bulk, position: int, item: object, caller: Caller) -> _Result:
    """The result of one item, which is staged if it can be written."""
    text = item.get("handle") if isinstance(item, dict) else None
    result: _Result = {"handle": text if isinstance(text, str) else "", "responseCode": 1}
    try:
        asked, values = _item(f"items[{position}]", item, caller)
    except InvalidValueError as error:
        _fail(result, ResponseCode.INVALID_VALUE, str(error))
        return result
    except RefusedError as error:
        _fail(result, error.code, error.message)
        return result
    rows = bulk.rows.setdefault(asked.prefix_key, {})
    if asked.key in rows:
        _fail(result, ResponseCode.HANDLE_ALREADY_EXISTS, "is twice in this request")
    else:
        rows[asked.key] = (asked.key, asked.text, values_to_wire(values)), result
    return result


def _item(path: str, item: object, caller: Caller) -> tuple[Identifier, tuple[HandleValue, ...]]:
    text = item.get("handle") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(text, str):
        raise InvalidValueError(f"{path}.handle: expected text")
    asked = _registrable(text)
    _check_owner(caller, asked)
    found = item.get("values")
    if not isinstance(found, list):
        raise InvalidValueError(f"{path}.values: expected a list")
    if len(found) > VALUES_MAX:
        raise InvalidValueError(f"{path}.values: {len(found)} values, at most {VALUES_MAX} allowed")
    values = tuple(value_from_json(one, f"{path}.values[{n}]") for n, one in enumerate(found))
    _check(values)
    return asked, values


def _fail(result: _Result, code: ResponseCode, message: str | None) -> None:
    result["responseCode"] = int(code)
    if message:
        result["message"] = message
