"""The JSON that the HTTP doors take and give, as schemas of the OpenAPI document.

What is taken is described as exactly as it is checked: what a schema allows is not refused for its
form, and what it does not allow is.
"""

from typing import Any, Final

from node.door_batch import FILTERS_MAX, IDENTIFIERS_MAX
from node.door_write import ITEMS_MAX
from node.http_exchange import PARAMETERS_MAX
from node.http_proof import ALGORITHMS, NONCE_SIZE_BYTES_MAX, SIGNATURE_SIZE_BYTES_MAX
from resolver.record import (
    INDEX_MAX,
    REFERENCES_MAX,
    TYPE_CHARACTERS_MAX,
    VALUE_DATA_SIZE_BYTES_MAX,
    VALUES_MAX,
)
from resolver.response_code import ResponseCode

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
# Indexes that may be asked for; those of stored values are 1 and above.
INDEX_ASKED: Final[Schema] = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}


def reference(name: str) -> Schema:
    """A pointer to one of the named schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema, items_max: int | None = None) -> Schema:
    """A list, bounded where a list is taken."""
    return {"type": "array", "items": items} | (
        {} if items_max is None else {"maxItems": items_max}
    )


def answered(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object as it is given: these members and no others."""
    return {**taken(required, **optional), "additionalProperties": False}


def taken(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object as it is read: other members do not matter."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def _or_null(*schemas: Schema) -> Schema:
    return {"anyOf": [*schemas, {"type": "null"}]}


def digits_up_to(number_max: int) -> str:
    """A pattern for 1 … `number_max` in decimal digits, leading zeros allowed."""
    text = str(number_max)
    shorter = [f"[1-9][0-9]{{0,{len(text) - 2}}}"]
    below = [
        f"{text[:n]}[{'1' if n == 0 else '0'}-{int(digit) - 1}][0-9]{{{len(text) - n - 1}}}"
        for n, digit in enumerate(text)
        if int(digit) > (1 if n == 0 else 0)
    ]
    return f"^0*(?:{'|'.join([*shorter, *below, text])})$"


# --- values, as they are answered ---

_REFERENCE = answered({"handle": TEXT, "index": COUNT})
_DATA = answered(
    {
        "format": {"enum": ["string", "base64", "admin", "vlist", "site", "key"]},
        "value": {"type": ["string", "object", "array"]},
    }
)
_VALUE = answered(
    {
        "index": {"type": "integer", "minimum": 1, "maximum": INDEX_MAX},
        "type": TEXT,
        "data": reference("Data"),
        "ttl": {
            "description": "Seconds, or the time until which the value may be kept",
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}],
        },
    },
    permissions={
        "type": "string",
        "pattern": "^[01]{4}$",
        "description": "Admin read and write, public read and write; absent for 1110",
    },
    timestamp={"type": "string", "format": "date-time"},
    references=array(reference("Reference")),
)

# --- values, as they are taken ---

# A number may be written as text, as some clients do; ten digits at most are read.
_INDEX: Final[Schema] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": INDEX_MAX},
        {"type": "string", "maxLength": 10, "pattern": digits_up_to(INDEX_MAX)},
    ]
}
_INDEX_OR_ZERO: Final[Schema] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": INDEX_MAX},
        {"type": "string", "pattern": "^0{1,10}$"},
        {"type": "string", "maxLength": 10, "pattern": digits_up_to(INDEX_MAX)},
    ]
}
_TYPE: Final[Schema] = {
    "type": "string",
    "pattern": rf"^[^\x00-\x1f\x7f-\x9f]{{1,{TYPE_CHARACTERS_MAX}}}$",
}
_BASE64_CHARACTER = r"\s*[A-Za-z0-9+/_-]"
_NEW_DATA: Final[Schema] = {
    "description": (
        "Text, or a format and a value. Besides these formats, `admin`, `site` and `key` are read "
        "in the shapes in which they are answered"
    ),
    "anyOf": [
        {"type": "string", "maxLength": VALUE_DATA_SIZE_BYTES_MAX},
        taken(
            {
                "format": {"const": "string"},
                "value": {"type": "string", "maxLength": VALUE_DATA_SIZE_BYTES_MAX},
            }
        ),
        taken(
            {
                "format": {"const": "hex"},
                "value": {
                    "type": "string",
                    "maxLength": VALUE_DATA_SIZE_BYTES_MAX * 2,
                    "pattern": r"^[ \t\n\r\f\v]*(?:[0-9A-Fa-f]{2}[ \t\n\r\f\v]*)*$",
                },
            }
        ),
        taken(
            {
                "format": {"const": "base64"},
                "value": {
                    "type": "string",
                    "maxLength": VALUE_DATA_SIZE_BYTES_MAX,
                    "pattern": (
                        f"^(?:(?:{_BASE64_CHARACTER}){{4}})*(?:(?:{_BASE64_CHARACTER}){{2,3}})?"
                        r"[\s=]*$"
                    ),
                },
            }
        ),
        taken(
            {
                "format": {"const": "vlist"},
                "value": array(reference("NewReference"), VALUES_MAX),
            }
        ),
    ],
}
_NEW_VALUE = taken(
    {"index": _INDEX, "type": _TYPE, "data": reference("NewData")},
    ttl={
        "description": "Seconds, or a time before 2038; 86400 by default",
        **_or_null(
            {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
            {
                "type": "string",
                "pattern": (
                    "^(?:19[7-9][0-9]|20[0-2][0-9]|203[0-7])-(?:0[1-9]|1[0-2])"
                    "-(?:0[1-9]|1[0-9]|2[0-8])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"
                ),
                "examples": ["2030-01-01T00:00:00Z"],
            },
        ),
    },
    permissions={
        "description": "Admin read and write, public read and write; 1110 by default",
        **_or_null({"type": "string", "pattern": r"^(?:[01]{2,5}|\*)$"}),
    },
    references=_or_null(array(reference("NewReference"), REFERENCES_MAX)),
)
_NEW_VALUES = {**array(reference("NewValue")), "description": f"At most {VALUES_MAX} values"}
NEW_RECORD: Final[Schema] = {
    "description": (
        "The values, or an object with the values, or one value. An object may name the identifier "
        "again as `handle`"
    ),
    "anyOf": [
        reference("NewValues"),
        taken({"values": reference("NewValues")}),
        reference("NewValue"),
    ],
    "examples": [
        [{"index": 1, "type": "URL", "data": {"format": "string", "value": "https://a.example/1"}}]
    ],
}
NEW_RECORDS: Final[Schema] = taken(
    {
        "items": array(
            {
                "description": "Each succeeds or fails for itself, also for its form",
                "anyOf": [
                    taken({"handle": TEXT, "values": reference("NewValues")}),
                    {"type": ["object", "array", "string", "number", "boolean", "null"]},
                ],
            },
            ITEMS_MAX,
        )
    }
)

# --- questions ---

_PLAIN: Final[Schema] = {"type": ["string", "number", "boolean"]}
_INDEX_POSTED: Final[Schema] = {
    "anyOf": [INDEX_ASKED, {"type": "string", "pattern": "^[+-]?[0-9]{1,9}$"}]
}


def _one_or_more(items: Schema) -> Schema:
    return {"anyOf": [items, array(items)]}


QUESTION: Final[Schema] = {
    "type": "object",
    "description": f"The parameters of the query, by name; at most {PARAMETERS_MAX} of one name",
    "properties": {"index": _one_or_more(_INDEX_POSTED), "type": _one_or_more(_PLAIN)},
    "additionalProperties": _one_or_more(_PLAIN),
    "examples": [{"index": [1, 2], "type": ["URL"]}],
}
QUESTIONS: Final[Schema] = {
    **answered(
        {"identifiers": array(TEXT, IDENTIFIERS_MAX)},
        types=array(TEXT, FILTERS_MAX),
        indexes=array({"type": "integer"}, FILTERS_MAX),
    ),
    "examples": [{"identifiers": ["88.608.1001/00041250500735"], "types": ["NAME"]}],
}

# --- answers ---

_CODE: Final[Schema] = {
    "description": "Response code of the Handle protocol (RFC 3652 §2.2.2.3)",
    "enum": [int(code) for code in ResponseCode],
}
_SUCCESS: Final[Schema] = {"const": int(ResponseCode.SUCCESS)}

_RESOLUTION = answered(
    {"identifier": TEXT, "responseCode": _CODE},
    message=TEXT,
    values=array(reference("Value")),
    stale={"type": "boolean"},
    staleSeconds=COUNT,
)
_ITEM_RESULT = answered({"handle": TEXT, "responseCode": _CODE}, message=TEXT)
_RECORD = answered(
    {
        "responseCode": {"enum": [int(ResponseCode.SUCCESS), int(ResponseCode.VALUES_NOT_FOUND)]},
        "handle": TEXT,
        "values": array(reference("Value")),
    }
)
REFERRAL: Final[Schema] = answered(
    {
        "responseCode": {
            "enum": [int(ResponseCode.SERVICE_REFERRAL), int(ResponseCode.PREFIX_REFERRAL)]
        },
        "handle": TEXT,
        "values": array(reference("Value")),
    }
)
RESULTS: Final[Schema] = answered({"results": array(reference("Resolution"))})
DONE: Final[Schema] = answered({"responseCode": _SUCCESS, "handle": TEXT})
ALL_DONE: Final[Schema] = answered(
    {
        "responseCode": _SUCCESS,
        "added": COUNT,
        "changed": COUNT,
        "unchanged": COUNT,
        "results": array(reference("ItemResult")),
    }
)
LISTED: Final[Schema] = answered(
    {
        "responseCode": _SUCCESS,
        "prefix": TEXT,
        "totalCount": {"type": "string", "pattern": "^[0-9]+$"},
        "handles": array(TEXT),
    },
    page=COUNT,
    pageSize=COUNT,
)
PREFIXES: Final[Schema] = answered(
    {
        "responseCode": _SUCCESS,
        "totalCount": {"type": "string", "pattern": "^[0-9]+$"},
        "prefixes": array(TEXT),
    }
)
_INTERFACE = answered(
    {
        "query": {"type": "boolean"},
        "admin": {"type": "boolean"},
        "protocol": {"enum": ["UDP", "TCP", "HTTP", "HTTPS"]},
        "port": {"type": "integer", "minimum": 0, "maximum": 65_535},
    }
)
_SERVER = answered(
    {
        "serverId": {"type": "integer"},
        "address": TEXT,
        "publicKey": reference("Data"),
        "interfaces": array(_INTERFACE),
    }
)
SITE: Final[Schema] = answered(
    {
        "responseCode": _SUCCESS,
        "site": answered(
            {
                "version": {"type": "integer"},
                "protocolVersion": TEXT,
                "serialNumber": COUNT,
                "primarySite": {"type": "boolean"},
                "multiPrimary": {"type": "boolean"},
                "attributes": array(answered({"name": TEXT, "value": TEXT})),
                "servers": array(_SERVER),
            }
        ),
    }
)
SESSION: Final[Schema] = answered(
    {"sessionId": TEXT, "nonce": TEXT},
    serverAlg=TEXT,
    serverSignature=TEXT,
    authenticated={"const": True},
    id=TEXT,
    error=TEXT,
)
_FIELD: Final[Schema] = {"type": ["string", "number", "boolean"]}
_FIELDS: Final = ("sessionId", "id", "type", "cnonce", "alg", "signature")
_PBKDF2_FIELDS: Final = ("salt", "iterations", "length")
PROOF: Final[Schema] = {
    **taken({}, **dict.fromkeys((*_FIELDS, *_PBKDF2_FIELDS), _FIELD)),
    "additionalProperties": _one_or_more(_FIELD),
}
VERIFIED: Final[Schema] = answered({"responseCode": _SUCCESS, "isValid": {"type": "boolean"}})


def base64(groups_max: int) -> Schema:
    """Without padding or with it, in either alphabet; up to so many groups of three bytes."""
    character = "[A-Za-z0-9+/_-]"
    groups = f"(?:{character}{{4}}){{0,{groups_max - 1}}}(?:{character}{{2,4}})?"
    return {"type": "string", "pattern": f"^{groups}={{0,2}}$"}


NONCE: Final = base64(NONCE_SIZE_BYTES_MAX // 3)
BASE64: Final = base64(SIGNATURE_SIZE_BYTES_MAX // 3)
# Of secrets that are stretched, more has to be said than a schema can.
ALGORITHM: Final[Schema] = {"enum": [name for name in ALGORITHMS if "PBKDF2" not in name]}
HEALTH: Final[Schema] = answered({"status": {"const": "alive"}, "version": TEXT})
READY: Final[Schema] = answered(
    {"status": {"enum": ["ready", "not ready"]}, "missing": array(TEXT)}
)
MEASURES: Final[Schema] = answered({"policies": array({"type": "object"})})

NAMED: Final[dict[str, Schema]] = {
    "Problem": answered({"responseCode": _CODE}, message=TEXT, handle=TEXT),
    "Record": _RECORD,
    "Resolution": _RESOLUTION,
    "ItemResult": _ITEM_RESULT,
    "Value": _VALUE,
    "Data": _DATA,
    "Reference": _REFERENCE,
    "NewValues": _NEW_VALUES,
    "NewValue": _NEW_VALUE,
    "NewData": _NEW_DATA,
    "NewReference": taken({"handle": TEXT, "index": _INDEX_OR_ZERO}),
}
