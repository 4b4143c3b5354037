"""What lives here: `GET /api/handles?prefix=…`, `/api/prefixes`, `/api/site` (specs §1.1–1.3)."""

from ipaddress import ip_address

from node.callers import Caller, Callers
from node.config import Config
from node.http_exchange import BadRequestError, Exchange, Parameters, RefusedError, Reply
from node.problems import caller_of, identifier_of, refusal, refusal_of
from registry.records import LIST_PAGE_SIZE_MAX, PostgresRecords
from resolver.errors import RegistryUnavailableError
from resolver.handle_json import list_answer, prefixes_answer, site_answer
from resolver.identifier import PREFIX_HANDLE_PREFIX
from resolver.prefix_directory import PrefixDirectory
from resolver.response_code import ResponseCode
from resolver.wire import Interface, Server, SiteInfo
from resolver.wire import _records as records_wire

PAGE_MAX = 1_000_000


class ListDoor:
    """Lists identifiers for those who may write below the prefix, prefixes for the operator."""

    def __init__(
        self,
        config: Config,
        records: PostgresRecords,
        directory: PrefixDirectory,
        callers: Callers,
    ) -> None:
        self._config = config
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
            caller = await self._known_caller(exchange, now_s)
            return await self._listed(parameters, prefix, caller)
        except RefusedError as error:
            return refusal_of(error, prefix)
        except RegistryUnavailableError as error:
            return refusal(ResponseCode.SERVER_TOO_BUSY, str(error), prefix)

    async def prefixes(self, exchange: Exchange, now_s: float) -> Reply:
        """The prefix handles that this node homes."""
        try:
            caller = await self._known_caller(exchange, now_s)
            if not caller.is_operator:
                raise RefusedError(
                    ResponseCode.INSUFFICIENT_PERMISSIONS, "Only the operator lists prefixes"
                )
        except RefusedError as error:
            return refusal_of(error)
        if not self._directory.is_known:
            message = "the table of prefixes was not loaded yet"
            return refusal(ResponseCode.SERVER_TOO_BUSY, message)
        keys = sorted(state.key for state in self._directory.states())
        return Reply(200, prefixes_answer([f"{PREFIX_HANDLE_PREFIX}/{key}" for key in keys]))

    def site(self) -> Reply:
        """Where this node is reached."""
        try:
            address = ip_address(self._config.http_host)
        except ValueError:
            address = ip_address("127.0.0.1")
        packed = address.packed if address.version == 6 else bytes(12) + address.packed
        interface = Interface(
            records_wire.INTERFACE_QUERY, records_wire.PROTOCOL_HTTP, self._config.http_port
        )
        server = Server(1, packed, b"", (interface,))
        site = SiteInfo((server,), serial=1, is_primary=True)
        return Reply(200, site_answer(site))

    async def _known_caller(self, exchange: Exchange, now_s: float) -> Caller:
        caller = await caller_of(self._callers, exchange, now_s)
        if caller.owner is None:
            raise RefusedError(ResponseCode.AUTHENTICATION_NEEDED)
        return caller

    async def _listed(self, parameters: Parameters, prefix: str, caller: Caller) -> Reply:
        key = self._key(prefix)
        if not caller.may_write(key):
            raise RefusedError(
                ResponseCode.INSUFFICIENT_PERMISSIONS, "This API key does not own this prefix"
            )
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
        if state is None:
            message = "That prefix doesn't live here"
            raise RefusedError(ResponseCode.SERVER_NOT_RESPONSIBLE, message)
        return state.key


def _number(parameters: Parameters, name: str) -> int | None:
    text = parameters.first(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= PAGE_MAX):
        raise BadRequestError(f"{name}: expected a number from 0 to {PAGE_MAX}")
    return int(text)
