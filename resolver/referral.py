"""Whom to ask instead: the service of a delegated prefix, as its prefix handle names it.

Source: specs §3.4 (302, 303) and §5; recorded: Handle.Net sends 303, its client understands both.
"""

from resolver.errors import InvalidIdentifierError
from resolver.identifier import Identifier, fold, from_text
from resolver.own_site import SERVICE, SITE, SITE_6, SITE_OF_DERIVED
from resolver.prefix_directory import PrefixState, derived_from, handle_of, names_prefix
from resolver.record import HandleValue, Record

# A prefix has seven numbers at most, and so at most six above it.
ABOVE_MAX = 6


def handles_above(identifier: Identifier, state: PrefixState) -> list[Identifier]:
    """The prefix handles, nearest first, that may say who answers for a prefix handle that is not
    here; `state` is the prefix that it is derived from. None where this node answers itself.
    """
    if names_prefix(state, identifier):
        return []
    above = derived_from(fold(identifier.suffix))
    above = above[: above.index(state.key) + 1]
    if state.homed:
        above.pop()  # that is this node
    return [handle_of(key) for key in above[:ABOVE_MAX]]


def sites(record: Record) -> tuple[HandleValue, ...]:
    """The sites that answer for identifiers of the prefix whose handle `record` is."""
    return _public(record, SITE, SITE_6)


def sites_of_derived(record: Record) -> tuple[HandleValue, ...]:
    """The sites that answer for prefix handles derived from the one that `record` is."""
    return _public(record, SITE_OF_DERIVED)


def service(record: Record) -> Identifier | None:
    """The service handle that has the sites in place of the prefix handle, if it names one."""
    for value in _public(record, SERVICE):
        try:
            return from_text(value.data.decode().strip())
        except (InvalidIdentifierError, UnicodeDecodeError):
            continue
    return None


def _public(record: Record, *types: str) -> tuple[HandleValue, ...]:
    values = record.values
    return tuple(value for value in values if value.is_public and fold(value.type) in types)
