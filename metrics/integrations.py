"""Integrations: applications of other owners that resolve through this node, and how they count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from metrics.place import Home, Place, place_class, place_classes
from metrics.policy import Span, Words

# No complete day with a success yet · successes, but evidence is missing · successes and all
# evidence · successes before the window only.
REGISTERED: Final = "registered"
RESOLVING: Final = "resolving"
COMPLETED: Final = "completed"
DORMANT: Final = "dormant"
STATES: Final = (REGISTERED, RESOLVING, COMPLETED, DORMANT)
ACTIVE_STATES: Final = frozenset({RESOLVING, COMPLETED})

MISSING_OWNER: Final = "owner"
MISSING_CONTRACT: Final = "contract"
MISSING_FIRST_RESOLUTION: Final = "first_resolution"
MISSING_RESOLUTION_IN_WINDOW: Final = "resolution_in_window"
MISSING_WORDS: Final = {
    MISSING_OWNER: Words("缺应用单位名称", "the owner's name is missing"),
    MISSING_CONTRACT: Words("缺合同摘要（SHA-256）", "the contract's SHA-256 digest is missing"),
    MISSING_FIRST_RESOLUTION: Words(
        "尚无首次解析记录（完整日）", "no successful resolution on a complete day yet"
    ),
    MISSING_RESOLUTION_IN_WINDOW: Words(
        "统计窗口内无成功解析", "no successful resolution in the window"
    ),
}


@dataclass(frozen=True, slots=True)
class ApplicationEntry:
    """One row of the application register.

    `kind` is one of the kinds a policy names (supply-chain …), `type` the docking agreement's
    (APP, web page …); `contract_sha256` the digest of the access agreement; `first_success_day`
    the day number of the first success, where it is older than the ledger days at hand.
    """

    id: str
    name: str
    kind: str
    type: str
    owner: str
    place: Place
    contract_sha256: str | None
    sandbox: bool
    first_success_day: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one application stands in one window."""

    entry: ApplicationEntry
    place_class: str
    state: str
    successes: int  # external, in the window
    missing: tuple[str, ...]  # keys of MISSING_WORDS
    first_success_day: int | None = None  # of those at hand, up to the end of the window

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE_STATES

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.entry.id,
            "name": self.entry.name,
            "kind": self.entry.kind,
            "type": self.entry.type,
            "owner": self.entry.owner,
            "place": self.place_class,
            "region": self.entry.place.region,
            "state": self.state,
            "successes": self.successes,
            "contract_sha256": self.entry.contract_sha256,
            "missing": [
                {"id": key, "zh": MISSING_WORDS[key].zh, "en": MISSING_WORDS[key].en}
                for key in self.missing
            ],
        }


def first_success_days(
    applications: Iterable[ApplicationEntry], successes: Mapping[str, Mapping[int, int]]
) -> dict[str, int]:
    """The day number of the first success of each application that has one, by its id."""
    found: dict[str, int] = {}
    for entry in applications:
        days = [day for day, count in successes.get(entry.id, {}).items() if count > 0]
        if entry.first_success_day is not None:
            days.append(entry.first_success_day)
        if days:
            found[entry.id] = min(days)
    return found


def standings(
    applications: Iterable[ApplicationEntry],
    successes: Mapping[str, Mapping[int, int]],
    first_days: Mapping[str, int],
    span: Span,
    home: Home,
) -> tuple[Standing, ...]:
    """The standing of every application that is not a sandbox, in the order given.

    `successes` holds the external successes by application id and day number, damaged days left
    out; `first_days` are those of `first_success_days`. Days after the span do not count, not even
    as a first resolution.
    """
    return tuple(
        _standing(entry, successes.get(entry.id, {}), first_days.get(entry.id), span, home)
        for entry in applications
        if not entry.sandbox
    )


def first_days_by_place(
    reading: str, found: Iterable[Standing], home: Home
) -> dict[str, dict[str, int]]:
    """What a reading counts, by place class: application ids, owners, or regions.

    Each comes with the day number of its first success at hand. The first reading asks for
    complete evidence; the other two for an application that resolves.
    """
    first_days: dict[str, dict[str, int]] = {label: {} for label in place_classes(home)}
    for standing in found:
        key, day = _key(reading, standing), standing.first_success_day
        if key and day is not None:
            days = first_days[standing.place_class]
            days[key] = min(day, days.get(key, day))
    return first_days


def counts_by_state(found: Iterable[Standing], home: Home) -> dict[tuple[str, str], int]:
    """The number of applications by (state, place class), zeros included."""
    counts = {(state, label): 0 for state in STATES for label in place_classes(home)}
    for standing in found:
        counts[standing.state, standing.place_class] += 1
    return counts


def _standing(
    entry: ApplicationEntry,
    by_day: Mapping[int, int],
    first_day: int | None,
    span: Span,
    home: Home,
) -> Standing:
    in_window = sum(count for day, count in by_day.items() if day in span)
    has_resolved = first_day is not None and first_day <= span.last
    missing = _missing(entry, in_window, has_resolved)
    return Standing(
        entry,
        place_class(entry.place, home),
        _state(in_window, missing),
        in_window,
        missing,
        first_day if has_resolved else None,
    )


def _missing(entry: ApplicationEntry, in_window: int, has_resolved: bool) -> tuple[str, ...]:
    present = {
        MISSING_OWNER: bool(entry.owner.strip()),
        MISSING_CONTRACT: bool(entry.contract_sha256),
        MISSING_FIRST_RESOLUTION: has_resolved,
        MISSING_RESOLUTION_IN_WINDOW: in_window > 0,
    }
    return tuple(key for key, is_present in present.items() if not is_present)


def _state(in_window: int, missing: tuple[str, ...]) -> str:
    if in_window > 0:
        return RESOLVING if missing else COMPLETED
    return REGISTERED if MISSING_FIRST_RESOLUTION in missing else DORMANT


def _key(reading: str, standing: Standing) -> str:
    if reading == "applications":
        return standing.entry.id if standing.state == COMPLETED else ""
    if not standing.is_active:
        return ""
    # One owner is one owner, however often the name was typed with other spaces or case.
    owner = " ".join(standing.entry.owner.split()).casefold()
    return owner if reading == "owners" else standing.entry.place.region
