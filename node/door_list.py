"""What lives here: `GET /api/handles?prefix=…`, `/api/prefixes`, `/api/site` (specs §1.1–1.3)."""

from node.administration import Administration
from node.callers import Caller, Callers
from node.config import Config
from node.http_exchange import BadRequestError, Exchange, Parameters, RefusedError, Reply
from node.http_identity import NOBODY, Identities
from node.identity import Identity
from node.problems import caller_of, identifier_of, refusal
from node.reach import reach_of
from registry.records import LIST_PAGE_SIZE_MAX, PostgresRecords, Refused
from resolver.errors import RegistryUnavailableError
from resolver.handle_json import list_answer, prefixes_answer, site_answer
from resolver.identifier import PREFIX_HANDLE_PREFIX
from resolver.own_site import site_of
from resolver.prefix_directory import PrefixDirectory, names_prefix
from resolver.response_code import ResponseCode
from resolver.wire import SiteInfo

PAGE_MAX = 1_000_000


class ListDoor:
    """Lists identifiers for those who may write below the prefix, prefixes for the operator.

    For identities of the Handle protocol, who has the permission to list, and who administers the
    server.
    """

    def __init__(
        self,
        config: Config,
        records: PostgresRecords,
        directory: PrefixDirectory,
        callers: Callers,
        site: SiteInfo | None = None,
        identities: Identities = NOBODY,
        administration: Administration | None = None,
    ) -> None:
        self._site = site or _plain_site(config)
        self._identities = identities
        self._administration = administration
        self._records = records
        self._directory = directory
        self._callers = callers

    async def identifiers(self, exchange: Exchange, now_s: float) -> Reply:
        """Identifiers below `prefix`, one page or all."""
        prefix = None
        try:
            parameters = exchange.parameters()
            prefix = parameters.first("prefix")
            if not prefix:
                raise BadRequestError("prefix: expected the prefix whose identifiers are listed")
            key = await self._listable(exchange, prefix, now_s)
            return await self._listed(parameters, prefix, key)
        except RefusedError as error:
            return await self._identities.reply_to(exchange, error, prefix)
        except RegistryUnavailableError as error:
            return refusal(ResponseCode.SERVER_TOO_BUSY, str(error), prefix)

    async def prefixes(self, exchange: Exchange, now_s: float) -> Reply:
        """The prefix handles that this node homes."""
        try:
            caller, identity = await self._known_caller(exchange, now_s)
            if identity is not None:
                return Reply(200, prefixes_answer(await self._homed(identity)))
            if not caller.is_operator:
                raise RefusedError(
                    ResponseCode.INSUFFICIENT_PERMISSIONS, "Only the operator lists prefixes"
                )
        except RefusedError as error:
            return await self._identities.reply_to(exchange, error)
        except RegistryUnavailableError as error:
            return refusal(ResponseCode.SERVER_TOO_BUSY, str(error))
        if not self._directory.is_known:
            message = "the table of prefixes was not loaded yet"
            return refusal(ResponseCode.SERVER_TOO_BUSY, message)
        keys = sorted(state.key for state in self._directory.states())
        return Reply(200, prefixes_answer([f"{PREFIX_HANDLE_PREFIX}/{key}" for key in keys]))

    def site(self) -> Reply:
        """Where this node is reached."""
        return Reply(200, site_answer(self._site))

    async def _known_caller(
        self, exchange: Exchange, now_s: float
    ) -> tuple[Caller, Identity | None]:
        """The owner of the API key; where there is none, the identity."""
        caller = await caller_of(self._callers, exchange, now_s)
        if caller.owner is not None:
            return caller, None
        identity = await self._identities.of(exchange)
        if identity is None:
            raise RefusedError(ResponseCode.AUTHENTICATION_NEEDED)
        return caller, identity

    async def _homed(self, identity: Identity) -> list[str]:
        assert self._administration is not None
        homed = await self._administration.list_homed(identity)
        if isinstance(homed, Refused):
            raise RefusedError(homed.code, homed.message)
        return homed

    async def _listable(self, exchange: Exchange, prefix: str, now_s: float) -> str:
        """The key of a prefix whose identifiers the caller may list."""
        caller, identity = await self._known_caller(exchange, now_s)
        key = self._key(prefix)
        if identity is None:
            if not caller.may_write(key):
                raise RefusedError(
                    ResponseCode.INSUFFICIENT_PERMISSIONS, "This API key does not own this prefix"
                )
            return key
        assert self._administration is not None
        refused = await self._administration.listable(identity, prefix)
        if isinstance(refused, Refused):
            raise RefusedError(refused.code, refused.message)
        return key

    async def _listed(self, parameters: Parameters, prefix: str, key: str) -> Reply:
        page, page_size = _number(parameters, "page"), _number(parameters, "pageSize")
        if page_size is not None and page_size > LIST_PAGE_SIZE_MAX:
            raise BadRequestError(f"pageSize: at most {LIST_PAGE_SIZE_MAX} are allowed")
        total = await self._records.count(key)
        if page_size is None and total > LIST_PAGE_SIZE_MAX:
            raise BadRequestError(
                f"{total} identifiers: ask page by page, pageSize at most {LIST_PAGE_SIZE_MAX}"
            )
        size = LIST_PAGE_SIZE_MAX if page_size is None else page_size
        found = await self._records.list_page(key, page or 0, size) if size else []
        return Reply(200, list_answer(prefix, found, total, page, page_size))

    def _key(self, prefix: str) -> str:
        """The key of an allotted prefix, which may be written as its prefix handle."""
        asked = identifier_of(prefix)
        state = self._directory.responsible(asked) if asked.is_prefix_handle else None
        if state is None or not names_prefix(state, asked):
            message = "That prefix doesn't live here"
            raise RefusedError(ResponseCode.SERVER_NOT_RESPONSIBLE, message)
        return state.key


def _plain_site(config: Config) -> SiteInfo:
    """The site of a node that speaks HTTP alone."""
    http = (config.http_host, config.http_port)
    return site_of(reach_of(public_address=None, native=None, http=http, https=None), b"", 1)


def _number(parameters: Parameters, name: str) -> int | None:
    text = parameters.first(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= PAGE_MAX):
        raise BadRequestError(f"{name}: expected a number from 0 to {PAGE_MAX}")
    return int(text)
