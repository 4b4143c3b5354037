"""Many identifiers in one request: `POST /api/resolve`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from metrics.dimension import CHANNEL_BATCH
from node.admission import asker_of
from node.callers import Caller, Callers
from node.http_exchange import BadRequestError, Exchange, RefusedError, Reply, document_of
from node.prepared_answers import batch_item, json_body
from node.problems import caller_of, refusal_of
from node.tally import Kind, Tally, kind_of, prepared_kind
from resolver import identifier
from resolver.errors import InvalidIdentifierError
from resolver.handle_json import dump
from resolver.identifier import Identifier, fold
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
        results: list[bytes | None] = [None] * len(batch.texts)
        kinds: Counter[Kind] = Counter()
        if batch.query.is_plain:
            self._take_prepared(batch.texts, caller, now_s, results, kinds)
        left = [place for place, result in enumerate(results) if result is None]
        if left:
            asked = [_identifier(batch.texts[place]) for place in left]
            answers = await self._answers(asked, caller, now_s)
            for place, item, resolution in zip(left, asked, answers, strict=True):
                code, results[place] = _result(batch.texts[place], item, batch.query, resolution)
                named = item if isinstance(item, Identifier) else None
                kinds[kind_of(code, CHANNEL_BATCH, caller, named, resolution)] += 1
        self._tally.count_many(now_s, kinds, source)
        return Reply(200, b'{"results":[%b]}' % b",".join(one for one in results if one))

    def _take_prepared(
        self,
        texts: Sequence[str],
        caller: Caller,
        now_s: float,
        results: list[bytes | None],
        kinds: Counter[Kind],
    ) -> None:
        """Fill in what is prepared, and count it."""
        found: Counter[str] = Counter()
        prepared = self._resolver.prepared([fold(text) for text in texts], now_s)
        for place, kept in enumerate(prepared):
            if kept is not None and kept.json is not None and kept.prefix is not None:
                results[place] = batch_item(texts[place], kept.json)
                found[kept.prefix.key] += 1
        self._resolver.lookups.add("l1", "hit", found.total())
        for prefix_key, number in found.items():
            kinds[prepared_kind(prefix_key, caller, CHANNEL_BATCH)] += number

    async def _answers(
        self, asked: Sequence[Identifier | str], caller: Caller, now_s: float
    ) -> list[Resolution | None]:
        """The resolutions of what is well-formed, None in the place of what is not."""
        wellformed = [item for item in asked if isinstance(item, Identifier)]
        found = await self._resolver.resolve_many(wellformed, now_s, asker=asker_of(caller))
        answers = iter(found)
        return [next(answers) if isinstance(item, Identifier) else None for item in asked]


def _result(
    text: str, item: Identifier | str, query: Query, resolution: Resolution | None
) -> tuple[ResponseCode, bytes]:
    if resolution is None:
        code = ResponseCode.INVALID_HANDLE
        return code, dump({"identifier": text, "responseCode": int(code), "message": str(item)})
    code, result = _resolved_result(text, query, resolution)
    return code, dump(result)


def _resolved_result(
    text: str, query: Query, resolution: Resolution
) -> tuple[ResponseCode, dict[str, object]]:
    code = resolution.code
    result: dict[str, object] = {"identifier": text, "responseCode": int(code)}
    if code != ResponseCode.SUCCESS:
        if resolution.message:
            result["message"] = resolution.message
        if resolution.referral:
            result["values"] = values_to_json(resolution.referral)
        return code, result
    values = query.select(resolution.record.values)
    if not values and not query.is_plain:
        code = ResponseCode.VALUES_NOT_FOUND
        result["responseCode"] = int(code)
    result["values"] = values_to_json(values)
    if resolution.stale_age_s is not None:
        result["stale"] = True
        result["staleSeconds"] = resolution.stale_age_s
    elif query.is_plain and resolution.entry is not None and resolution.entry.prepared is not None:
        json_body(resolution.entry.prepared, resolution.record, resolution.prefix)
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
