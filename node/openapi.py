"""The OpenAPI document: what the framework knows of its routes, and the doors beside it."""

from typing import Any

from fastapi import FastAPI

SUMMARY = "Industrial identifier resolution secondary node (工业互联网标识解析二级节点)"

_Schema = dict[str, Any]


def _object(required: dict[str, _Schema], **optional: _Schema) -> _Schema:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT: _Schema = {"type": "string"}
_INTEGER: _Schema = {"type": "integer"}
_REFERENCE = _object({"handle": _TEXT, "index": _INTEGER})
_VALUE = _object(
    {
        "index": _INTEGER,
        "type": _TEXT,
        "data": _object({"format": _TEXT, "value": {}}),
        "ttl": {"type": ["integer", "string"]},
    },
    permissions={"type": "string", "pattern": "^[01]{4}$"},
    timestamp={"type": "string", "format": "date-time"},
    references={"type": "array", "items": _REFERENCE},
)
_VALUES: _Schema = {"type": "array", "items": _VALUE}
_PROBLEM = _object({"responseCode": _INTEGER}, message=_TEXT, handle=_TEXT)
_RECORD = _object({"responseCode": _INTEGER, "handle": _TEXT, "values": _VALUES})
_DONE = _object({"responseCode": _INTEGER, "handle": _TEXT})
_RESULT = _object(
    {"identifier": _TEXT, "responseCode": _INTEGER},
    message=_TEXT,
    values=_VALUES,
    stale={"type": "boolean"},
    staleSeconds=_INTEGER,
)
_ITEM_RESULT = _object({"handle": _TEXT, "responseCode": _INTEGER}, message=_TEXT)
_NEW_VALUE: _Schema = {
    "type": "object",
    "properties": {
        "index": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
        "type": {"type": "string", "minLength": 1, "maxLength": 32},
        "data": {
            "oneOf": [_TEXT, _object({"format": {"enum": ["string"]}, "value": _TEXT})],
        },
        "ttl": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    },
    "required": ["index", "type", "data"],
}
_NEW_VALUES: _Schema = {"type": "array", "items": _NEW_VALUE, "maxItems": 100}


def _json(schema: _Schema) -> _Schema:
    return {"application/json": {"schema": schema}}


def _answer(description: str, schema: _Schema) -> _Schema:
    return {"description": description, "content": _json(schema)}


_PROBLEMS: dict[int | str, _Schema] = {
    400: _answer("Not well-formed, or a prefix that does not live here", _PROBLEM),
    401: _answer("An API key is needed", _PROBLEM),
    403: _answer("No API key, an unknown one, or one that does not own the prefix", _PROBLEM),
    404: _answer("No such identifier", _PROBLEM),
    405: _answer("This method is not served here", _PROBLEM),
    409: _answer("It is there already", _PROBLEM),
    413: _answer("The body is too large", _PROBLEM),
    429: _answer("Too many requests", _PROBLEM),
    503: _answer("A store is away: try again", _PROBLEM),
}


def _with(statuses: dict[int | str, _Schema], *problems: int) -> dict[int | str, _Schema]:
    return {**statuses, **{status: _PROBLEMS[status] for status in problems}}


def _route(
    summary: str,
    responses: dict[int | str, _Schema],
    body: _Schema | None = None,
    parameters: list[_Schema] | None = None,
    *,
    secured: bool = False,
) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _json(body)}
    if parameters:
        extra["parameters"] = parameters
    if secured:
        extra["security"] = [{"bearer": []}, {"key": []}]
    return {
        "summary": summary,
        "responses": responses,
        "response_model": None,
        "openapi_extra": extra,
    }


def _query(name: str, schema: _Schema, description: str) -> _Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


_HANDLE: _Schema = {
    "name": "handle",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "The identifier, prefix/suffix; a slash may be written as %2F",
}
_INDEXES = _query("index", {"type": "array", "items": _INTEGER}, "Values by index")
_TYPES = _query(
    "type", {"type": "array", "items": _TEXT}, "Values by type; `URL.` means URL and below"
)
_FLAG: _Schema = {"type": "string", "enum": ["", "true", "yes", "false"]}
_SELECTION = [
    _HANDLE,
    _INDEXES,
    _TYPES,
    _query("auth", _FLAG, "Ask the registry, not a cache"),
    _query("pretty", _FLAG, "Indented"),
    _query("publicOnly", _FLAG, "false also asks for values that only administrators may read"),
]

PUT = _route(
    "Create or replace a record, or values of it",
    _with(
        {200: _answer("Replaced", _DONE), 201: _answer("Created", _DONE)},
        *(400, 401, 403, 404, 409, 413, 503),
    ),
    {"oneOf": [_NEW_VALUES, _object({"values": _NEW_VALUES}, handle=_TEXT)]},
    [
        _HANDLE,
        _query("index", {"type": "array", "items": _TEXT}, "Indexes of the body, or `various`"),
        _query("overwrite", _FLAG, "false refuses to replace"),
        _query("mintNewSuffix", _FLAG, "Append a new UUID to the suffix"),
    ],
    secured=True,
)
DELETE = _route(
    "Delete a record, or values of it",
    _with({200: _answer("Deleted", _DONE)}, 400, 401, 403, 404, 503),
    None,
    [_HANDLE, _INDEXES],
    secured=True,
)
PUT_MANY = _route(
    "Register up to 2,000 records",
    _with(
        {
            200: _answer(
                "Each item's own result",
                _object(
                    {
                        "responseCode": _INTEGER,
                        "added": _INTEGER,
                        "changed": _INTEGER,
                        "unchanged": _INTEGER,
                        "results": {"type": "array", "items": _ITEM_RESULT},
                    }
                ),
            )
        },
        *(400, 401, 403, 413, 503),
    ),
    _object(
        {
            "items": {
                "type": "array",
                "maxItems": 2_000,
                "items": _object({"handle": _TEXT, "values": _NEW_VALUES}),
            }
        }
    ),
    secured=True,
)
_STATUS = {"status": _TEXT}
HEALTH = _route(
    "The process lives; touches no store",
    {200: _answer("Alive", _object({**_STATUS, "version": _TEXT}))},
)
_READY = _object({**_STATUS, "missing": {"type": "array", "items": _TEXT}})
READY = _route(
    "Ready for full service, or what is missing",
    {200: _answer("Ready", _READY), 503: _answer("Something is missing", _READY)},
)
METRICS = _route(
    "Metrics for Prometheus",
    {200: {"description": "Text format 0.0.4", "content": {"text/plain": {"schema": _TEXT}}}},
)
MEASURES = _route(
    "Where the node stands against each policy",
    _with(
        {
            200: _answer(
                "Readings, thresholds and verdicts",
                _object({"policies": {"type": "array", "items": {"type": "object"}}}),
            )
        },
        503,
    ),
)

_PAGE: _Schema = {"text/html": {"schema": _TEXT}}
_RESOLVE = _with(
    {
        200: _answer(
            "The values; response code 200 if there are none of this kind", {"oneOf": [_RECORD]}
        )
    },
    *(400, 401, 403, 404, 503),
)
_DOORS: dict[str, dict[str, Any]] = {
    "/api/handles/{handle}": {
        "get": {"summary": "Resolve", "parameters": _SELECTION, "responses": _RESOLVE},
        "head": {
            "summary": "Resolve, headers only",
            "parameters": _SELECTION,
            "responses": {str(status): {"description": "As GET"} for status in _RESOLVE},
        },
        "post": {
            "summary": "Resolve, with the parameters in the body",
            "parameters": [_HANDLE],
            "requestBody": {
                "content": {
                    **_json(
                        _object(
                            {},
                            index={"type": "array", "items": _INTEGER, "maxItems": 100},
                            type={"type": "array", "items": _TEXT, "maxItems": 100},
                        )
                    ),
                }
            },
            "responses": _RESOLVE,
        },
    },
    "/api/handles": {
        "get": {
            "summary": "Identifiers below a prefix",
            "security": [{"bearer": []}, {"key": []}],
            "parameters": [
                {**_query("prefix", _TEXT, "The prefix"), "required": True},
                _query("page", {"type": "integer", "minimum": 0}, "From 0"),
                _query("pageSize", {"type": "integer", "minimum": 0}, "0 counts only"),
            ],
            "responses": _with(
                {
                    200: _answer(
                        "One page, or all",
                        _object(
                            {
                                "responseCode": _INTEGER,
                                "prefix": _TEXT,
                                "totalCount": _TEXT,
                                "handles": {"type": "array", "items": _TEXT},
                            },
                            page=_INTEGER,
                            pageSize=_INTEGER,
                        ),
                    )
                },
                *(400, 401, 403, 503),
            ),
        },
    },
    "/api/resolve": {
        "post": {
            "summary": "Resolve up to 1,000 identifiers",
            "requestBody": {
                "required": True,
                "content": _json(
                    _object(
                        {"identifiers": {"type": "array", "items": _TEXT, "maxItems": 1_000}},
                        types={"type": "array", "items": _TEXT, "maxItems": 100},
                        indexes={"type": "array", "items": _INTEGER, "maxItems": 100},
                    )
                ),
            },
            "responses": _with(
                {
                    200: _answer(
                        "Each identifier's own result, in the order asked",
                        _object({"results": {"type": "array", "items": _RESULT}}),
                    )
                },
                *(400, 403, 503),
            ),
        },
    },
    "/api/prefixes": {
        "get": {
            "summary": "Prefix handles that live here (operator)",
            "security": [{"bearer": []}, {"key": []}],
            "responses": _with(
                {
                    200: _answer(
                        "All of them",
                        _object(
                            {
                                "responseCode": _INTEGER,
                                "totalCount": _TEXT,
                                "prefixes": {"type": "array", "items": _TEXT},
                            }
                        ),
                    )
                },
                *(401, 403, 503),
            ),
        },
    },
    "/api/site": {
        "get": {
            "summary": "Where this node is reached",
            "responses": {
                200: _answer(
                    "The site", _object({"responseCode": _INTEGER, "site": {"type": "object"}})
                )
            },
        },
    },
    "/{identifier}": {
        "get": {
            "summary": "Redirect to the product's page, or show the values",
            "parameters": [
                {
                    **_HANDLE,
                    "name": "identifier",
                    "schema": {"type": "string", "pattern": "^[0-9.]{3,20}/[0-9A-Za-z]{1,30}$"},
                },
                _INDEXES,
                _TYPES,
                _query("noredirect", _FLAG, "Show the values"),
            ],
            "responses": {
                **{
                    status: {"description": description, "content": _PAGE}
                    for status, description in (
                        (200, "The values"),
                        (301, "An alias"),
                        (302, "The product's page"),
                        (303, "A chosen location"),
                        (307, "A chosen location"),
                        (308, "A chosen location"),
                        (400, "Not well-formed, or a prefix that does not live here"),
                        (403, "An unknown API key"),
                        (404, "No such identifier"),
                        (503, "A store is away: try again"),
                    )
                }
            },
        },
    },
}


def document(app: FastAPI) -> _Schema:
    """The document: the framework's routes and the doors beside it."""
    found = app.openapi()
    paths = found["paths"]
    moved = paths.pop("/api/handles/{handle:path}", None)
    if moved is not None:
        paths["/api/handles/{handle}"] = moved
    for path, methods in _DOORS.items():
        target = paths.setdefault(path, {})
        for method, operation in methods.items():
            target[method] = {
                **operation,
                "responses": {str(k): v for k, v in operation["responses"].items()},
            }
    for methods in paths.values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
    components = found.setdefault("components", {})
    components.pop("schemas", None)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    return found
