"""What lives here: `GET /api/handles?prefix=…`, `/api/prefixes`, `/api/site` (specs §1.1–1.3)."""

from ipaddress import ip_address

from node.callers import Caller, Callers, UnknownKeyError
from node.config import Config
from node.http_exchange import BadRequestError, Exchange, Parameters, Reply
from node.problems import http_status, retry_later
from registry.records import LIST_PAGE_SIZE_MAX, PostgresRecords
from resolver.errors import RegistryUnavailableError
from resolver.handle_json import error_answer, list_answer, prefixes_answer, site_answer
from resolver.identifier import PREFIX_HANDLE_PREFIX, fold
from resolver.prefix_directory import PrefixDirectory
from resolver.response_code import ResponseCode
from resolver.wire import Interface, Server, SiteInfo
from resolver.wire import _records as records_wire

_PAGE_MAX = 1_000_000


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
        try:
            parameters = exchange.parameters()
            prefix = parameters.first("prefix") or ""
            caller = await self._callers.of(exchange, now_s)
            return await self._listed(exchange, parameters, prefix, caller)
        except BadRequestError as error:
            return _refusal(exchange, ResponseCode.PROTOCOL_ERROR, str(error))
        except UnknownKeyError:
            return _refusal(exchange, ResponseCode.AUTHENTICATION_FAILED, None, prefix)
        except RegistryUnavailableError as error:
            return _refusal(exchange, ResponseCode.SERVER_TOO_BUSY, str(error), prefix)

    async def prefixes(self, exchange: Exchange, now_s: float) -> Reply:
        """The prefix handles that this node homes."""
        try:
            caller = await self._callers.of(exchange, now_s)
        except UnknownKeyError:
            return _refusal(exchange, ResponseCode.AUTHENTICATION_FAILED, None)
        except RegistryUnavailableError as error:
            return _refusal(exchange, ResponseCode.SERVER_TOO_BUSY, str(error))
        if caller.owner is None:
            return _refusal(exchange, ResponseCode.AUTHENTICATION_NEEDED, None)
        if not caller.is_operator:
            return _refusal(exchange, ResponseCode.INSUFFICIENT_PERMISSIONS, None)
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

    async def _listed(
        self, exchange: Exchange, parameters: Parameters, prefix: str, caller: Caller
    ) -> Reply:
        if not prefix:
            raise BadRequestError("prefix: expected the prefix whose identifiers are listed")
        key = fold(prefix).removeprefix(f"{PREFIX_HANDLE_PREFIX}/")
        if caller.owner is None:
            return _refusal(exchange, ResponseCode.AUTHENTICATION_NEEDED, None, prefix)
        if all(state.key != key for state in self._directory.states()):
            message = "That prefix doesn't live here"
            return _refusal(exchange, ResponseCode.SERVER_NOT_RESPONSIBLE, message, prefix)
        if not caller.may_write(key):
            return _refusal(exchange, ResponseCode.INSUFFICIENT_PERMISSIONS, None, prefix)
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


def _number(parameters: Parameters, name: str) -> int | None:
    text = parameters.first(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= _PAGE_MAX):
        raise BadRequestError(f"{name}: expected a number from 0 to {_PAGE_MAX}")
    return int(text)


def _refusal(
    exchange: Exchange, code: ResponseCode, message: str | None, text: str | None = None
) -> Reply:
    return Reply(
        http_status(code, is_secure=exchange.is_secure),
        error_answer(code, message, text),
        headers=retry_later(code),
    )
