"""Many identifiers in one request: `POST /api/resolve`."""

from dataclasses import dataclass

from metrics.dimension import CHANNEL_BATCH
from node.callers import Caller, Callers
from node.http_exchange import BadRequestError, Exchange, RefusedError, Reply, document_of
from node.problems import caller_of, refusal_of
from node.tally import Tally
from resolver import identifier
from resolver.errors import InvalidIdentifierError
from resolver.handle_json import dump
from resolver.identifier import Identifier
from resolver.query import Query
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode
from resolver.value_json import values_to_json

PATH = b"/api/resolve"
IDENTIFIERS_MAX = 1_000
# 1,000 identifiers of 255 bytes, every byte escaped as \u00xx.
BODY_SIZE_BYTES_MAX = 2 * 1024 * 1024
# Enough for every type a template knows.
FILTERS_MAX = 100


@dataclass(frozen=True, slots=True)
class _Batch:
    texts: tuple[str, ...]
    query: Query


class BatchDoor:
    """Answers each identifier for itself; each is one resolution, counted once."""

    def __init__(self, resolver: Resolver, callers: Callers, tally: Tally) -> None:
        self._resolver = resolver
        self._callers = callers
        self._tally = tally

    async def answer(self, exchange: Exchange, now_s: float) -> Reply:
        """The replies to all questions; counted before they are returned."""
        source = self._tally.source(exchange)
        try:
            caller = await caller_of(self._callers, exchange, now_s)
            batch = _batch(await exchange.body(BODY_SIZE_BYTES_MAX))
        except RefusedError as error:
            # Not one question was looked at: the refusal is one.
            self._tally.count(now_s, error.code, CHANNEL_BATCH, source)
            return refusal_of(error)
        return await self._resolved(batch, caller, source, now_s)

    async def _resolved(self, batch: _Batch, caller: Caller, source: str, now_s: float) -> Reply:
        asked = [_identifier(text) for text in batch.texts]
        wellformed = [item for item in asked if isinstance(item, Identifier)]
        answers = iter(await self._resolver.resolve_many(wellformed, now_s))
        results = []
        for text, item in zip(batch.texts, asked, strict=True):
            resolution: Resolution | None = None
            if isinstance(item, Identifier):
                resolution = next(answers)
                code, result = _result(item, batch.query, resolution)
            else:
                code, result = _invalid(text, item)
            self._tally.count(
                now_s,
                code,
                CHANNEL_BATCH,
                source,
                caller=caller,
                identifier=item if isinstance(item, Identifier) else None,
                resolution=resolution,
            )
            results.append(result)
        return Reply(200, dump({"results": results}))


def _invalid(text: str, message: str) -> tuple[ResponseCode, dict[str, object]]:
    code = ResponseCode.INVALID_HANDLE
    return code, {"identifier": text, "responseCode": int(code), "message": message}


def _result(
    asked: Identifier, query: Query, resolution: Resolution
) -> tuple[ResponseCode, dict[str, object]]:
    code = resolution.code
    result: dict[str, object] = {"identifier": asked.text, "responseCode": int(code)}
    if code != ResponseCode.SUCCESS:
        if resolution.message:
            result["message"] = resolution.message
        return code, result
    values = query.select(resolution.record.values)
    if not values and not query.is_plain:
        code = ResponseCode.VALUES_NOT_FOUND
        result["responseCode"] = int(code)
    result["values"] = values_to_json(values)
    if resolution.stale_age_s is not None:
        result["stale"] = True
        result["staleSeconds"] = resolution.stale_age_s
    return code, result


def _identifier(text: str) -> Identifier | str:
    try:
        return identifier.from_text(text)
    except InvalidIdentifierError as error:
        return str(error)


def _batch(body: bytes) -> _Batch:
    document = document_of(body)
    if not isinstance(document, dict):
        raise BadRequestError('body: expected an object such as {"identifiers": ["88.…/…"]}')
    unknown = sorted(set(document) - {"identifiers", "types", "indexes"})
    if unknown:
        raise BadRequestError(
            f"{unknown[0][:100]!r}: unknown member; expected identifiers, types, indexes"
        )
    texts = _list(document, "identifiers", str, IDENTIFIERS_MAX)
    types = _list(document, "types", str, FILTERS_MAX)
    indexes = _list(document, "indexes", int, FILTERS_MAX)
    return _Batch(
        tuple(str(text) for text in texts),
        Query(tuple(int(index) for index in indexes), tuple(str(type_) for type_ in types)),
    )


def _list(
    document: dict[str, object], name: str, kind: type[str] | type[int], most: int
) -> list[str | int]:
    value = document.get(name, [] if name != "identifiers" else None)
    if not isinstance(value, list):
        raise BadRequestError(f"{name}: expected a list")
    if len(value) > most:
        raise BadRequestError(f"{name}: {len(value)} items, at most {most} are allowed")
    for position, item in enumerate(value):
        is_whole = kind is int and isinstance(item, float) and item.is_integer()
        if not (isinstance(item, kind) or is_whole) or isinstance(item, bool):
            wanted = "text" if kind is str else "a whole number"
            raise BadRequestError(f"{name}[{position}]: expected {wanted}")
    return value
