"""The fixed sets by which resolutions are counted; labels come from nowhere else."""

from typing import Final

# Which resolver was asked: the node's own (routing questions for prefix handles, names below
# prefixes of its own, and names it does not host) or the one of an enterprise whose prefix it
# hosts. One look-up through a recursive server can reach both, so the levels are never added.
# Source: docking agreement, tables T3, T8.
LEVEL_NODE: Final = "node"
LEVEL_ENTERPRISE: Final = "enterprise"
LEVELS: Final = (LEVEL_NODE, LEVEL_ENTERPRISE)

# The door through which the question came.
CHANNEL_HTTP_JSON: Final = "http_json"
CHANNEL_REDIRECT: Final = "redirect"
CHANNEL_BATCH: Final = "batch"
CHANNEL_NATIVE_UDP: Final = "native_udp"
CHANNEL_NATIVE_TCP: Final = "native_tcp"
CHANNEL_NATIVE_HTTP: Final = "native_http"  # native messages inside HTTP
CHANNELS: Final = (
    CHANNEL_HTTP_JSON,
    CHANNEL_REDIRECT,
    CHANNEL_BATCH,
    CHANNEL_NATIVE_UDP,
    CHANNEL_NATIVE_TCP,
    CHANNEL_NATIVE_HTTP,
)

OUTCOME_FOUND: Final = "found"
OUTCOME_FOUND_STALE: Final = "found_stale"  # right when last heard, the registry being away
OUTCOME_VALUES_NOT_FOUND: Final = "values_not_found"
OUTCOME_NOT_FOUND: Final = "not_found"
OUTCOME_NOT_RESPONSIBLE: Final = "not_responsible"  # the prefix does not live here, or suspended
OUTCOME_REFERRED: Final = "referred"  # told which other node to ask
OUTCOME_INVALID: Final = "invalid"  # not a well-formed question
OUTCOME_REFUSED: Final = "refused"  # wrong or revoked key, over a limit
OUTCOME_UNAVAILABLE: Final = "unavailable"  # we could not know the answer
OUTCOMES: Final = (
    OUTCOME_FOUND,
    OUTCOME_FOUND_STALE,
    OUTCOME_VALUES_NOT_FOUND,
    OUTCOME_NOT_FOUND,
    OUTCOME_NOT_RESPONSIBLE,
    OUTCOME_REFERRED,
    OUTCOME_INVALID,
    OUTCOME_REFUSED,
    OUTCOME_UNAVAILABLE,
)

# Found, and answered with what was found.
SUCCESSES: Final = frozenset({OUTCOME_FOUND, OUTCOME_FOUND_STALE})
# Never countable, always shown (specs/measures: refused and malformed requests).
UNCOUNTABLE_OUTCOMES: Final = frozenset({OUTCOME_INVALID, OUTCOME_REFUSED})

CALLER_APPLICATION: Final = "application"
CALLER_ENTERPRISE: Final = "enterprise"
CALLER_ANONYMOUS: Final = "anonymous"
CALLER_OPERATOR: Final = "operator"  # the operator's key, console, command line
CALLER_PROBE: Final = "probe"  # health probes of the node itself
CALLER_SANDBOX: Final = "sandbox"  # load tests and trials
CALLER_CLASSES: Final = (
    CALLER_APPLICATION,
    CALLER_ENTERPRISE,
    CALLER_ANONYMOUS,
    CALLER_OPERATOR,
    CALLER_PROBE,
    CALLER_SANDBOX,
)
# Someone outside the operator.
EXTERNAL_CALLERS: Final = frozenset({CALLER_APPLICATION, CALLER_ENTERPRISE, CALLER_ANONYMOUS})
