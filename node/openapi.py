"""The OpenAPI document: every path, what it takes, and every reply it can give.

It is written down rather than derived: the doors beside the framework have no annotations, and
what a prefix, an index or a page may be is known to the doors alone.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from node import openapi_schemas as schemas
from node.administrators import PUBLIC_KEY, SECRET_KEY
from node.door_list import PAGE_MAX
from node.http_exchange import PARAMETERS_MAX
from node.openapi_schemas import TEXT, Schema, array, reference
from node.version import VERSION
from registry.records import LIST_PAGE_SIZE_MAX
from resolver.identifier import IDENTIFIER_SIZE_BYTES_MAX, PREFIX_SIZE_BYTES_MAX

# The document names the prefixes that live here, so that it says exactly what is answered; they
# are no secret, every printed identifier begins with one. Beyond this many it names their form.
PREFIXES_NAMED_MAX: Final = 100

_ANY_PREFIX = r"[0-9]{1,10}(?:\.[0-9]{1,16}){2,6}"
_EXAMPLE = "88.608.1001/00041250500735"
_SUMMARY = "Industrial identifier resolution secondary node (工业互联网标识解析二级节点)"
_DESCRIPTION = f"""\
Resolves identifiers, for machines as the HTTP JSON API of Handle.Net 9 and for people as web pages,
and registers them for callers with an API key, and for administrators of the Handle protocol: over
TLS, with `Basic` and `index%3Ahandle` as user, with a `Handle` session or challenge, or with a
certificate of their own. Over plain HTTP these are not looked at.

* Every path answers `OPTIONS` with the methods it serves, and other methods with 405 and `Allow`.
* An unknown path below `/api` is 404.
* Parameters that are not named here are ignored; more than {PARAMETERS_MAX} of them are 400.
* What is not HTTP is answered 400, a head above 32 kB 431, as plain text.
* Who asks too often, or for too many names that do not exist, gets 429 with `Retry-After`.
* A node with too many connections or requests answers 503 with `Retry-After`.
"""

Operation = dict[str, Any]
Responses = dict[int, Schema]


def document(prefixes: Sequence[str]) -> Schema:
    """The document of a node on which `prefixes` live."""
    paths = {
        path: {method: _complete(operation, method) for method, operation in methods.items()}
        for path, methods in _paths(_identifiers(prefixes), _prefix(prefixes)).items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "idnode",
            "version": VERSION,
            "summary": _SUMMARY,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.NAMED,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Over TLS: index%3Ahandle and the text of its HS_SECKEY",
                },
            },
        },
    }


# --- content ---


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _plain(media_type: str = "text/plain") -> Schema:
    return {media_type: {"schema": TEXT}}


_PAGE: Final = _plain("text/html")
_PROBLEM: Final = _json(reference("Problem"))
_LOCATION: Final[Schema] = {"Location": {"required": True, "schema": TEXT}}
_CHALLENGE: Final[Schema] = {"WWW-Authenticate": {"required": True, "schema": TEXT}}
_RETRY_AFTER: Final[Schema] = {"Retry-After": {"schema": {"type": "integer"}}}

_PROBLEMS: Final[dict[int, str]] = {
    400: "Not well-formed, or a prefix that does not live here",
    401: "Over TLS: nobody has said who asks, or it was not proved",
    403: "No API key, an unknown one, or one that does not own the prefix; or no right to do this",
    404: "No such identifier",
    409: "It is there already",
    413: "The body is too large",
    429: "Too many requests of this caller: try again",
    503: "A store is away, or the node has too much to do: try again",
}


def _answer(description: str, content: Schema | None = None, **more: Schema) -> Schema:
    found: Schema = {"description": description}
    return found | ({} if content is None else {"content": content}) | more


def _problems(*statuses: int, content: Schema = _PROBLEM) -> Responses:
    return {status: _answer(_PROBLEMS[status], content) for status in statuses}


def _complete(operation: Operation, method: str) -> Operation:
    return {**operation, "responses": _responses(operation["responses"], method)}


def _responses(own: Responses, method: str) -> dict[str, Schema]:
    """The replies of an operation, with those that the connection itself can give."""
    found = {
        400: _answer("Not HTTP"),
        429: _answer(_PROBLEMS[429], own.get(503, {}).get("content", _PROBLEM)),
        503: _answer("The node has too much to do: try again", _PROBLEM),
        **own,
        431: _answer("Request line and headers are longer than 32 kB", _plain()),
    }
    found[400] = {**found[400], "content": found[400].get("content", {}) | _plain()}
    # A connection too many gets the answer for programs, whatever it asked for.
    found[503] = {**found[503], "content": _PROBLEM | found[503].get("content", {})}
    for status in (429, 503):
        found[status] = {**found[status], "headers": _RETRY_AFTER}
    if 401 in found:
        found[401] = {**found[401], "headers": _CHALLENGE}
    if method == "head":
        found = {status: {"description": reply["description"]} for status, reply in found.items()}
    return {str(status): reply for status, reply in sorted(found.items())}


# --- operations ---

_NO_KEY: Final[list[Schema]] = []
_KEY: Final[list[Schema]] = [{"bearer": []}, {"key": []}]
_KEY_OR_IDENTITY: Final[list[Schema]] = [*_KEY, {"basic": []}]
_ANY_KEY: Final[list[Schema]] = [{}, *_KEY]
_ANYBODY: Final[list[Schema]] = [{}, *_KEY_OR_IDENTITY]


def _operation(
    name: str,
    summary: str,
    responses: Responses,
    parameters: Sequence[Schema] = (),
    *,
    body: Schema | None = None,
    is_body_required: bool = True,
    security: list[Schema] = _NO_KEY,
    description: str | None = None,
) -> Operation:
    found: Operation = {"operationId": name, "summary": summary, "security": security}
    if description is not None:
        found["description"] = description
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": is_body_required, "content": body}
    return {**found, "responses": responses}


def _readable(name: str, summary: str, *arguments: Any, **named: Any) -> dict[str, Operation]:
    """GET, and HEAD which answers the same without a body."""
    head = f"{name}Head", f"{summary} (headers only)"
    return {
        "get": _operation(name, summary, *arguments, **named),
        "head": _operation(*head, *arguments, **named),
    }


def _query(name: str, schema: Schema, description: str, **more: Any) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}


def _flag(name: str, description: str) -> Schema:
    return _query(name, TEXT, f"{description} (`true`, `yes` or empty say so, all else does not)")


_INDEXES: Final = _query("index", array(schemas.INDEX_ASKED), "Values by index")
_TYPES: Final = _query("type", array(TEXT), "Values by type; `URL.` means URL and all below it")
_AUTH: Final = _flag("auth", "Ask the registry, not a cache")
_FRESH_OR_NOT: Final[Schema] = {
    "Age": {
        "description": "With `Warning: 110`: the registry is away, known since as many seconds",
        "schema": {"type": "integer"},
    }
}


def _identifiers(prefixes: Sequence[str]) -> Schema:
    """Identifiers below the prefixes that live here."""
    is_named = 0 < len(prefixes) <= PREFIXES_NAMED_MAX
    which = "|".join(re.escape(prefix) for prefix in prefixes) if is_named else _ANY_PREFIX
    pattern = f"^(?:{which})/[!-~]+$"
    schema: Schema = {"type": "string", "maxLength": IDENTIFIER_SIZE_BYTES_MAX, "pattern": pattern}
    return {**schema, "examples": [_EXAMPLE]} if re.match(pattern, _EXAMPLE) else schema


def _prefix(prefixes: Sequence[str]) -> Schema:
    if 0 < len(prefixes) <= PREFIXES_NAMED_MAX:
        return {"type": "string", "enum": list(prefixes)}
    return {"type": "string", "pattern": f"^{_ANY_PREFIX}$"}


def _in_path(name: str, schema: Schema) -> Schema:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": schema,
        "description": (
            f"Prefix and suffix, at most {IDENTIFIER_SIZE_BYTES_MAX} bytes of UTF-8; the slash may "
            "be written as %2F. The pattern names ASCII characters alone, others are fine too"
        ),
    }


def _paths(identifiers: Schema, prefix: Schema) -> dict[str, dict[str, Operation]]:
    return {
        "/api/handles/{handle}": _record(_in_path("handle", identifiers)),
        "/api/handles": _records(prefix),
        "/api/resolve": {"post": _RESOLVE_MANY},
        "/api/prefixes": _readable(
            "listPrefixes",
            "Prefix handles that live here (for the operator)",
            {200: _answer("All of them", _json(schemas.PREFIXES)), **_problems(401, 403, 503)},
            security=_KEY_OR_IDENTITY,
        ),
        "/api/prefixes/{prefix}": _HOMING,
        "/api/site": _readable(
            "site",
            "Where this node is reached",
            {200: _answer("The site", _json(schemas.SITE))},
        ),
        "/api/sessions": _SESSIONS,
        "/api/sessions/this": _THIS_SESSION,
        "/api/verifications/{identity}": _verification(identifiers),
        **_operations(),
        **_pages(_in_path("identifier", identifiers)),
    }


def _record(handle: Schema) -> dict[str, Operation]:
    selection = [
        handle,
        _INDEXES,
        _TYPES,
        _AUTH,
        _flag("doNotRefer", "301 in place of a referral to another node"),
        _flag("pretty", "Indented by two spaces"),
        _flag("publicOnly", "Other values are for those who may write below the prefix"),
        _query("callback", TEXT, "Wrap the answer in a call of this function (JSONP)"),
    ]
    found = _answer(
        "The values; response code 200 if the identifier has none of the kind asked for",
        {**_json(reference("Record")), **_plain("application/javascript")},
        headers=_FRESH_OR_NOT,
    )
    elsewhere = _answer("Another node has it: the values are its site", _json(schemas.REFERRAL))
    replies = {200: found, 300: elsewhere, **_problems(400, 401, 403, 404, 503)}
    return {
        **_readable("resolve", "Resolve", replies, selection, security=_ANYBODY),
        "post": _operation(
            "resolvePosted",
            "Resolve, with the parameters in the body",
            {**replies, **_problems(413)},
            [handle],
            body=_json(schemas.QUESTION),
            is_body_required=False,
            description=(
                "A body of another type than JSON is read as a form. Parameters of the query are "
                "read, too; those of the body go first."
            ),
            security=_ANYBODY,
        ),
        "put": _put(handle),
        "delete": _delete(handle),
    }


def _links() -> Schema:
    """A record that was written can be resolved and deleted."""
    parameters = {"handle": "$request.path.handle"}
    return {
        name: {"operationId": name, "parameters": parameters}
        for name in ("resolve", "deleteRecord")
    }


def _put(handle: Schema) -> Operation:
    return _operation(
        "putRecord",
        "Create or replace a record, or values of it",
        {
            200: _answer("Replaced", _json(schemas.DONE), links=_links()),
            201: _answer("Created", _json(schemas.DONE), links=_links()),
            **_problems(400, 401, 403, 404, 409, 413, 503),
        },
        [
            handle,
            _query(
                "index",
                array({"const": "various"}),
                "Change the values of the body and leave the others; instead of `various` their "
                "indexes may be named, which must be exactly those of the body",
            ),
            _query("overwrite", TEXT, "`false` refuses to replace what is there"),
        ],
        body=_json(schemas.NEW_RECORD),
        description=(
            "`mintNewSuffix=true` appends a new UUID to the identifier, which must then still be "
            f"at most {IDENTIFIER_SIZE_BYTES_MAX} bytes long; the answer names it."
        ),
        security=_KEY_OR_IDENTITY,
    )


def _delete(handle: Schema) -> Operation:
    return _operation(
        "deleteRecord",
        "Delete a record, or values of it",
        {200: _answer("Deleted", _json(schemas.DONE)), **_problems(400, 401, 403, 404, 503)},
        [handle],
        description=(
            "`index`, which may be repeated, deletes these values and leaves the others; if one of "
            "them is missing, nothing is deleted and the answer is 400 with response code 200."
        ),
        security=_KEY_OR_IDENTITY,
    )


def _records(prefix: Schema) -> dict[str, Operation]:
    listed = _answer("One page, or all", _json(schemas.LISTED))
    number: Schema = {"type": "integer", "minimum": 0}
    return {
        **_readable(
            "listIdentifiers",
            "Identifiers below a prefix (for those who may write below it)",
            {200: listed, **_problems(400, 401, 403, 503)},
            [
                _query("prefix", prefix, "A prefix that lives here", required=True),
                _query("page", {**number, "maximum": PAGE_MAX}, "From 0"),
                _query(
                    "pageSize",
                    {**number, "maximum": LIST_PAGE_SIZE_MAX},
                    f"0 counts only; needed where there are more than {LIST_PAGE_SIZE_MAX}",
                ),
            ],
            security=_KEY_OR_IDENTITY,
        ),
        "post": _operation(
            "putRecords",
            "Register up to 2,000 records; each succeeds or fails for itself",
            {
                200: _answer("Each item's own result", _json(schemas.ALL_DONE)),
                **_problems(400, 403, 413, 503),
            },
            body=_json(schemas.NEW_RECORDS),
            security=_KEY,
        ),
    }


_PREFIX_HOMED: Final[Schema] = {
    "name": "prefix",
    "in": "path",
    "required": True,
    "schema": {
        "type": "string",
        "maxLength": PREFIX_SIZE_BYTES_MAX,
        "pattern": r"^(?!0\.[Nn][Aa]$)[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*$",
    },
    "description": "A prefix, which may also be written as its prefix handle",
}


def _homing(name: str, summary: str) -> Operation:
    done = _answer("It is so now, or was before", _json(schemas.DONE))
    return _operation(
        name,
        f"{summary} (for the operator)",
        {
            200: done,
            **_problems(400, 401, 403, 503),
            409: _answer("It is an enterprise's, or identifiers are below it", _PROBLEM),
        },
        [_PREFIX_HOMED],
        security=_KEY_OR_IDENTITY,
    )


_HOMING: Final = {
    "post": _homing("homePrefix", "Answer for a prefix without an enterprise"),
    "delete": _homing("unhomePrefix", "Answer for it no more"),
}


def _sessions(done: dict[int, Schema], *statuses: int) -> Responses:
    """The replies about sessions, of which there are none over plain HTTP."""
    return {**done, 403: _answer("Over plain HTTP there are no sessions"), **_problems(*statuses)}


_OPENED: Final = _sessions(
    {201: _answer("A session, and the nonce to sign", _json(schemas.SESSION), headers=_LOCATION)},
    *(401, 503),
)
_SESSION: Final = _sessions({200: _answer("The session", _json(schemas.SESSION))}, 401, 503)
_PROVING: Final[dict[str, Any]] = {
    "body": _json(schemas.PROOF),
    "is_body_required": False,
    "description": 'The fields may also stand in `Authorization: Handle name="value", …`.',
}
_SESSIONS: Final = {
    **_readable("session", "A new session of the Handle protocol", _OPENED),
    "post": _operation(
        "openSession",
        "A new session of the Handle protocol",
        {**_OPENED, **_problems(400, 413)},
        **_PROVING,
    ),
}
_THIS_SESSION: Final = {
    **_readable("thisSession", "The session that the request names", _SESSION),
    **{
        method: _operation(
            name,
            "Prove who the owner of the session is",
            {**_SESSION, **_problems(400, 413)},
            **_PROVING,
        )
        for method, name in (("put", "proveSession"), ("post", "proveSessionPosted"))
    },
    "delete": _operation(
        "closeSession",
        "End the session that the request names",
        _sessions({204: _answer("Ended")}, 401, 503),
    ),
}
_SIGNED: Final = [
    _query("nonce", schemas.NONCE, "What the caller had signed", required=True),
    _query("cnonce", schemas.NONCE, "What the signer added to it", required=True),
    _query("signature", schemas.BASE64, "Of both, one after the other", required=True),
    _query(
        "alg",
        schemas.ALGORITHM,
        "How it was made. Besides these, `PBKDF2-HMAC-SHA1` with `salt`, `iterations`, `length`. "
        f"Keys of both kinds are tried, or with `type` {PUBLIC_KEY} or {SECRET_KEY} alone",
        required=True,
    ),
]


def _verification(identifiers: Schema) -> dict[str, Operation]:
    keys = {**identifiers, "pattern": identifiers["pattern"].replace("^", "^[0-9]{1,9}:", 1)}
    identity = {
        "name": "identity",
        "in": "path",
        "required": True,
        "schema": {key: found for key, found in keys.items() if key != "examples"},
        "description": "`index:handle`; index 0 is any key of the handle",
    }
    return _readable(
        "verify",
        "Whether somebody has signed two nonces with a key of a handle",
        {200: _answer("The answer", _json(schemas.VERIFIED)), **_problems(400, 503)},
        [identity, *_SIGNED],
    )


_RESOLVE_MANY: Final = _operation(
    "resolveMany",
    "Resolve up to 1,000 identifiers",
    {
        200: _answer("Each one's own result, in the order asked", _json(schemas.RESULTS)),
        **_problems(400, 403, 413, 503),
    },
    body=_json(schemas.QUESTIONS),
    security=_ANY_KEY,
)


def _operations() -> dict[str, dict[str, Operation]]:
    ready = _json(schemas.READY)
    return {
        "/api/measures": _readable(
            "measures",
            "Where the node stands against each policy",
            {
                200: _answer("Readings, thresholds and verdicts", _json(schemas.MEASURES)),
                **_problems(503),
            },
        ),
        "/health": _readable(
            "health",
            "The process lives; touches no store",
            {200: _answer("Alive", _json(schemas.HEALTH))},
        ),
        "/ready": _readable(
            "ready",
            "Ready for full service, or what is missing",
            {200: _answer("Ready", ready), 503: _answer("Something is missing", ready)},
        ),
        "/metrics": _readable(
            "metrics", "Metrics for Prometheus", {200: _answer("Text format 0.0.4", _plain())}
        ),
        "/openapi.json": _readable(
            "openapi", "This document", {200: _answer("OpenAPI 3.1", _json({"type": "object"}))}
        ),
    }


def _pages(identifier: Schema) -> dict[str, dict[str, Operation]]:
    led = {
        status: _answer(description, _PAGE, headers=_LOCATION)
        for status, description in (
            (301, "An alias"),
            (302, "The product's page"),
            (303, "A chosen location"),
            (307, "A chosen location"),
            (308, "A chosen location"),
        )
    }
    shown = _answer(
        "The values, or with `action=showurls` the addresses",
        {**_PAGE, **_plain("text/xml")},
        headers=_FRESH_OR_NOT,
    )
    return {
        "/{identifier}": _readable(
            "lead",
            "Redirect to the product's page, or show the values",
            {200: shown, **led, **_problems(400, 403, 404, 503, content=_PAGE)},
            [
                identifier,
                _INDEXES,
                _TYPES,
                _AUTH,
                _flag("noredirect", "Show the values"),
                _flag("ignore_aliases", "Do not follow an alias"),
                _query("action", TEXT, "`showvalues` or `showurls`"),
                _query("urlappend", TEXT, "To be appended to the address"),
                _query("locatt", array(TEXT), "`attribute:value` of a 10320/loc location"),
            ],
            security=_ANY_KEY,
        ),
        "/": {
            **_readable(
                "form", "Asks which identifier to resolve", {200: _answer("A form", _PAGE)}
            ),
            "post": _ASK,
        },
        "/robots.txt": _readable(
            "robots", "What crawlers may do", {200: _answer("Rules", _plain())}
        ),
        "/favicon.ico": _readable(
            "favicon",
            "A picture of one pixel",
            {200: _answer("The picture", {"image/x-icon": {}})},
        ),
        "/help.html": _readable(
            "help", "Leads to the form", {302: _answer("The form", headers=_LOCATION)}
        ),
    }


_ASK: Final = _operation(
    "ask",
    "Lead to the page of the identifier that was asked for",
    {303: _answer("The page", headers=_LOCATION), **_problems(400, 413)},
    body={"application/x-www-form-urlencoded": {"schema": {"type": "object"}}},
    is_body_required=False,
    description="`hdl` is the identifier; without it the form is shown again.",
)
