"""Who calls: keys looked up once, remembered briefly, forgotten when a key or prefix changes."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from metrics.dimension import (
    CALLER_ANONYMOUS,
    CALLER_APPLICATION,
    CALLER_ENTERPRISE,
    CALLER_OPERATOR,
    CALLER_SANDBOX,
)
from node.http_exchange import Exchange
from registry import api_keys
from registry.database import Database
from resolver.errors import RegistryUnavailableError

# One entry is some 500 bytes; a node has thousands of keys, not tens of thousands in use.
REMEMBERED_MAX = 20_000
# With Redis lost a revocation is not announced: this bounds how long a revoked key still works.
REMEMBERED_S = 1.0
# While announcements arrive, a bound for what they do not tell.
REMEMBERED_CONNECTED_S = 60.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the ledger counts it, and what may be written.

    `name` is the application's id for the class `application`, otherwise empty.
    """

    caller_class: str
    name: str = ""
    owner: api_keys.KeyOwner | None = None

    def may_write(self, prefix_key: str) -> bool:
        owner = self.owner
        if owner is None:
            return False
        return owner.role == api_keys.OPERATOR or prefix_key in owner.prefixes

    @property
    def is_operator(self) -> bool:
        return self.owner is not None and self.owner.role == api_keys.OPERATOR

    @property
    def actor(self) -> str:
        return "anonymous" if self.owner is None else f"key:{self.owner.key_id}"


ANONYMOUS = Caller(CALLER_ANONYMOUS)


class UnknownKeyError(Exception):
    """A key was sent that is malformed, unknown, wrong or revoked."""


class Callers:
    """Finds the caller of a request by the key it carries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._remembered: OrderedDict[str, tuple[float, Caller | None]] = OrderedDict()
        self._generation = 0
        self.connected = False
        # Told before `forget` returns: whoever has kept a caller must not use it any more.
        self.on_forget: Callable[[], None] = _nobody

    async def of(self, exchange: Exchange, now_s: float) -> Caller:
        """The caller; without a key, the anonymous one.

        Raises:
            UnknownKeyError: for a key that opens nothing.
            RegistryUnavailableError: if the key is not remembered and cannot be looked up.
        """
        text = key_of(exchange)
        if text is None:
            return ANONYMOUS
        caller = await self._caller(text, now_s)
        if caller is None:
            raise UnknownKeyError
        return caller

    def forget(self) -> None:
        """A key or a prefix has changed: look everything up again."""
        self._generation += 1
        self._remembered.clear()
        self.on_forget()

    def remembered(self, text: str, now_s: float) -> tuple[Caller | None, float]:
        """The caller of a key that was looked up lately, and until when that holds; else None."""
        remembered = self._remembered.get(text)
        if remembered is None:
            return None, 0.0
        at_s, caller = remembered
        kept_s = REMEMBERED_CONNECTED_S if self.connected else REMEMBERED_S
        is_fresh = abs(now_s - at_s) < kept_s
        return (caller, at_s + kept_s) if is_fresh else (None, 0.0)

    async def _caller(self, text: str, now_s: float) -> Caller | None:
        caller, until_s = self.remembered(text, now_s)
        if until_s:  # known, if only as a key that opens nothing
            return caller
        parsed = api_keys.parse_key(text)
        if parsed is None:
            return None
        before, generation = self._remembered.get(text), self._generation
        try:
            async with self._database.connection() as connection:
                owner = await api_keys.find_parsed(connection, *parsed)
        except RegistryUnavailableError:
            # Who was known a moment ago goes on being served while PostgreSQL is away.
            if before is not None:
                return before[1]
            raise
        caller = None if owner is None else _caller_of(owner)
        if generation == self._generation:
            self._remember(text, caller, now_s)
        return caller

    def _remember(self, text: str, caller: Caller | None, now_s: float) -> None:
        self._remembered[text] = (now_s, caller)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)


def key_of(exchange: Exchange) -> str | None:
    """The API key that a request carries: `Authorization: Bearer …` or `X-API-Key: …`.

    Raises:
        UnknownKeyError: if it carries two that differ: which one is meant must not be guessed.
    """
    keys = set()
    header = exchange.header(b"x-api-key")
    if header is not None:
        keys.add(header.strip())
    scheme, _, token = (exchange.header(b"authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        keys.add(token.strip())
    if len(keys) > 1:
        raise UnknownKeyError
    return keys.pop() if keys else None


def _caller_of(owner: api_keys.KeyOwner) -> Caller:
    if owner.role == api_keys.OPERATOR:
        return Caller(CALLER_OPERATOR, "", owner)
    if owner.role == api_keys.ENTERPRISE:
        return Caller(CALLER_ENTERPRISE, "", owner)
    if owner.sandbox:
        return Caller(CALLER_SANDBOX, "", owner)
    return Caller(CALLER_APPLICATION, owner.application_id or "", owner)


def _nobody() -> None:
    """Nobody keeps callers."""
