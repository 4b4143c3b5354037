"""How long a cached entry may be believed; pure rules, the time is an argument."""

from resolver.entry import Entry

# While invalidations arrive, an entry is believed this long without asking again: a bound for
# what no announcement tells (an edit by hand in the database), not the means of coherence.
CONNECTED_S = 60.0
# A process asks anew somewhere between this age and CONNECTED_S: entries that were fetched
# together, after a start, would have to be fetched again together, and everybody would wait.
RENEWED_FROM_S = 45.0
# What is in use is renewed so long before nobody may believe it: one statement of PostgreSQL, with
# time left for one that is slow.
RENEWED_AHEAD_S = 3.0
# Without invalidations (Redis lost) nothing older than this is believed.
DISCONNECTED_S = 1.0
# Invalidations arrive for certain up to this long after a question that the bulletin answered; so
# a process that was paused, or a connection that died silently, believes nothing older, either.
HEARD_S = 1.0
# "Not found" is believed briefly; a registration ends it at once.
ABSENT_S = 5.0


def is_fresh_absence(entry: Entry, now_s: float, *, connected: bool) -> bool:
    """True if at `now_s` it may be answered that what `entry` says is absent still is."""
    return _is_within(ABSENT_S if connected else DISCONNECTED_S, entry, now_s)


def is_worth_sharing(entry: Entry, now_s: float) -> bool:
    """True if an entry of the shared cache may be answered: young enough not to be renewed yet."""
    return _is_within(RENEWED_FROM_S if entry.is_present else ABSENT_S, entry, now_s)


def stale_age_s(entry: Entry, now_s: float) -> int:
    """Seconds since `entry` was known to be right, at least 0 (RFC 8767 is the model)."""
    return max(0, int(now_s - entry.fetched_at_s))


def _is_within(cap_s: float, entry: Entry, now_s: float) -> bool:
    # A clock that stepped back makes an entry young, not old: bound that side, too.
    return -cap_s < now_s - entry.fetched_at_s < cap_s
