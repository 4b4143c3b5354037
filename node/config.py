"""Configuration: the one place that reads the environment."""

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from node.identity import Identity
from resolver.errors import InvalidIdentifierError

# More processes than any machine of one node has cores for.
WORKERS_MAX = 64
# Some 12 GB in each worker: beyond that Redis is the better place.
_ENTRIES_MAX = 10_000_000
# More than a node can answer: larger numbers are slips of the pen.
_RATE_MAX = 10_000_000
_DIGITS_MAX = 20

# Some 240 MB with answers of 600 bytes, beyond the record of the hour of any factory.
_L1_ENTRIES = 200_000
# A factory behind one address reads some 1,000 a second at a change of shift.
_RATE_PER_SOURCE = 5_000
# About a third of what one worker answers.
_RATE_PER_CALLER = 20_000
# PostgreSQL answers ten times as many look-ups: the rest is left for names that exist.
_UNKNOWN_RATE = 1_000
# What a written address can be made to receive: 4 Mbit/s at most, which harms nobody. A client that
# connects once is no stranger any more.
_UDP_RATE = 1_000
# Nobody lists as many people who may do everything.
_SERVER_ADMINS_MAX = 100


class ConfigError(Exception):
    """A setting that cannot be used; says which, what it is and what was expected."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator decided.

    Attributes:
        data: folder of journals, keys and, when embedded, the stores. `IDNODE_DATA`, default
            `./var`. Losing it loses the counts of the last second; two nodes on one folder
            are refused.
        http_host, http_port: where HTTP is served. `IDNODE_HTTP` as `host:port`, default
            `127.0.0.1:8000`; anything but loopback is reachable by others.
        postgres_url: `IDNODE_POSTGRES_URL`; None means the embedded server.
        redis_url: `IDNODE_REDIS_URL`; None means the embedded server.
        node_prefix: `IDNODE_NODE_PREFIX`, such as `88.608`; when set, only prefixes below it can
            be allotted.
        policy: `IDNODE_POLICY`, a policy file or a folder of them, judged by besides the bundled
            ones; None means those alone.
        trusted_proxies: `IDNODE_TRUSTED_PROXIES`, addresses (comma-separated) whose
            `X-Forwarded-For` is believed; empty means that the peer is the source. A wrong
            entry lets callers choose the address under which they are counted.
        language: `IDNODE_LANG`, `zh` or `en`; default from `LC_ALL` and `LANG`.
        operator_key: `IDNODE_OPERATOR_KEY_FILE`; default: `operator.key` in `data`.
        workers: `IDNODE_WORKERS`, processes that serve, 1 to 64, default 1; `--workers` of `up`
            and `serve` goes before it. Each takes up to 300 MB and 12 connections to PostgreSQL.
        l1_entries: `IDNODE_L1_ENTRIES`, answers that a worker keeps, default 200000 (some 240 MB
            of small answers); 0 means no cache in the process: every answer costs a round trip.
        shared_cache: `IDNODE_L2`, `on` or `off`, default on. Off means that the cache in Redis is
            neither read nor filled, so that every miss of a worker reaches PostgreSQL;
            announcements still travel over Redis.
        counting: `IDNODE_COUNTING`, `on` or `off`, default on. Off is for measuring alone: no
            resolution is counted, and nothing can be claimed of that time.
        rate_per_source: `IDNODE_RATE_PER_SOURCE`, requests a second of one anonymous source
            address, default 5000. 0 means no limit: one address may take the whole node.
        rate_per_caller: `IDNODE_RATE_PER_CALLER`, requests a second of the owner of an API key,
            default 20000. 0 means no limit: one caller may take the whole node.
        limits_loopback: whether the rates hold for this machine itself, too: true where one of
            the two was set. What a trusted proxy forwards is its client's in any case.
        unknown_rate: `IDNODE_UNKNOWN_RATE`, look-ups a second and worker in PostgreSQL for names
            that no cache knows and that turn out not to exist, default 1000. 0 means no limit:
            random names may keep PostgreSQL busy.
        https_host, https_port: where HTTPS is served besides HTTP. `IDNODE_HTTPS` as
            `host:port`; None means nowhere.
        tls_certificate, tls_key: `IDNODE_TLS_CERT`, `IDNODE_TLS_KEY`, PEM files of the
            certificate with its chain, and of its private key, read when a worker starts. Neither
            means a certificate that the node makes and nobody else vouches for.
        handle_host, handle_port: where the Handle protocol is served over UDP and TCP.
            `IDNODE_HANDLE` as `host:port`, default `127.0.0.1:2641`, or `off`; None means nowhere.
        handle_is_chosen: whether `IDNODE_HANDLE` was set. Where it was not, a node whose port is
            taken serves without the protocol.
        public_address: `IDNODE_PUBLIC_ADDRESS`, the IP address under which others reach this node,
            as HS_SITE tells it; None means the one on which it listens. A wrong one sends clients
            elsewhere.
        udp_rate: `IDNODE_UDP_RATE`, packets a second of answers to datagrams from one network (/24,
            or /56 of IPv6) in which no sender has completed a connection lately, default 1000.
            0 means no limit: the node can be used to flood others.
        limits_loopback_udp: whether that holds for this machine itself, too: true where it was set.
        server_admins: `IDNODE_SERVER_ADMINS`, identities such as `300:88.608/ADMIN`, separated by
            commas, that may do everything over the Handle protocol; default none.
    """

    data: Path
    http_host: str
    http_port: int
    postgres_url: str | None
    redis_url: str | None
    node_prefix: str | None
    policy: Path | None
    trusted_proxies: tuple[str, ...]
    language: str
    operator_key_file: Path
    workers: int = 1
    l1_entries: int = _L1_ENTRIES
    shared_cache: bool = True
    counting: bool = True
    rate_per_source: int = _RATE_PER_SOURCE
    rate_per_caller: int = _RATE_PER_CALLER
    limits_loopback: bool = False
    unknown_rate: int = _UNKNOWN_RATE
    https_host: str | None = None
    https_port: int | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    handle_host: str | None = None
    handle_port: int | None = None
    handle_is_chosen: bool = False
    public_address: str | None = None
    udp_rate: int = _UDP_RATE
    limits_loopback_udp: bool = False
    server_admins: tuple[Identity, ...] = ()

    @property
    def http(self) -> str:
        """`host:port` of HTTP."""
        return _address(self.http_host, self.http_port)

    @property
    def handle(self) -> str | None:
        """`host:port` of the Handle protocol, None where it is not served."""
        if self.handle_host is None or self.handle_port is None:
            return None
        return _address(self.handle_host, self.handle_port)

    @property
    def https(self) -> str | None:
        """`host:port` of HTTPS, None where it is not served."""
        if self.https_host is None or self.https_port is None:
            return None
        return _address(self.https_host, self.https_port)


def from_environment() -> Config:
    """The configuration as the environment gives it.

    Raises:
        ConfigError: for a setting that cannot be used.
    """
    data = Path(_get("IDNODE_DATA") or "var").absolute()
    host, port = _host_port("IDNODE_HTTP", _get("IDNODE_HTTP") or "127.0.0.1:8000")
    https_host, https_port, certificate, key = _https()
    handle_host, handle_port = _handle()
    proxies = (_get("IDNODE_TRUSTED_PROXIES") or "").split(",")
    return Config(
        data=data,
        http_host=host,
        http_port=port,
        postgres_url=_url("IDNODE_POSTGRES_URL", ("postgresql://", "postgres://")),
        redis_url=_url("IDNODE_REDIS_URL", ("redis://", "rediss://", "unix://")),
        node_prefix=_get("IDNODE_NODE_PREFIX"),
        policy=_path("IDNODE_POLICY"),
        trusted_proxies=tuple(proxy.strip() for proxy in proxies if proxy.strip()),
        language=_language(),
        operator_key_file=_path("IDNODE_OPERATOR_KEY_FILE") or data / "operator.key",
        workers=_number("IDNODE_WORKERS", 1, 1, WORKERS_MAX),
        l1_entries=_number("IDNODE_L1_ENTRIES", _L1_ENTRIES, 0, _ENTRIES_MAX),
        shared_cache=_switch("IDNODE_L2"),
        counting=_switch("IDNODE_COUNTING"),
        rate_per_source=_number("IDNODE_RATE_PER_SOURCE", _RATE_PER_SOURCE, 0, _RATE_MAX),
        rate_per_caller=_number("IDNODE_RATE_PER_CALLER", _RATE_PER_CALLER, 0, _RATE_MAX),
        limits_loopback=any(map(_get, ("IDNODE_RATE_PER_SOURCE", "IDNODE_RATE_PER_CALLER"))),
        unknown_rate=_number("IDNODE_UNKNOWN_RATE", _UNKNOWN_RATE, 0, _RATE_MAX),
        https_host=https_host,
        https_port=https_port,
        tls_certificate=certificate,
        tls_key=key,
        handle_host=handle_host,
        handle_port=handle_port,
        handle_is_chosen=_get("IDNODE_HANDLE") is not None,
        public_address=_ip_address("IDNODE_PUBLIC_ADDRESS"),
        udp_rate=_number("IDNODE_UDP_RATE", _UDP_RATE, 0, _RATE_MAX),
        limits_loopback_udp=_get("IDNODE_UDP_RATE") is not None,
        server_admins=_identities("IDNODE_SERVER_ADMINS"),
    )


def terminal_environment() -> dict[str, str]:
    """The environment that child processes inherit."""
    return dict(os.environ)


def _get(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _path(name: str) -> Path | None:
    text = _get(name)
    return Path(text) if text else None


def _https() -> tuple[str | None, int | None, Path | None, Path | None]:
    text, certificate, key = _get("IDNODE_HTTPS"), _path("IDNODE_TLS_CERT"), _path("IDNODE_TLS_KEY")
    if text is None:
        return None, None, certificate, key
    host, port = _host_port("IDNODE_HTTPS", text)
    files = {"IDNODE_TLS_CERT": certificate, "IDNODE_TLS_KEY": key}
    for name, file in files.items():
        if file is None and any(files.values()):
            raise ConfigError(f"{name} is not set: a certificate and its key go together")
    return host, port, certificate, key


def _handle() -> tuple[str | None, int | None]:
    text = _get("IDNODE_HANDLE") or "127.0.0.1:2641"
    return (None, None) if text == "off" else _host_port("IDNODE_HANDLE", text)


def _ip_address(name: str) -> str | None:
    text = _get(name)
    if text is None:
        return None
    try:
        address = ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ConfigError(f"{name} is {text!r}: expected an IP address") from None
    if address.is_unspecified:
        raise ConfigError(f"{name} is {text!r}: expected an address that others can reach")
    return str(address)


def _identities(name: str) -> tuple[Identity, ...]:
    texts = [text.strip() for text in (_get(name) or "").split(",") if text.strip()]
    if len(texts) > _SERVER_ADMINS_MAX:
        raise ConfigError(f"{name} has {len(texts)} entries: at most {_SERVER_ADMINS_MAX}")
    return tuple(_identity(name, text) for text in texts)


def _identity(name: str, text: str) -> Identity:
    try:
        return Identity.from_text(text)
    except InvalidIdentifierError:
        raise ConfigError(
            f"{name} has {text!r}: expected index:handle, such as 300:88.608/ADMIN"
        ) from None


def _host_port(name: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{name} is {text!r}: expected host:port, such as 127.0.0.1:8000")
    return host, int(port)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(name: str, schemes: tuple[str, ...]) -> str | None:
    text = _get(name)
    if text and not text.startswith(schemes):
        # The value may hold a password: it is not shown.
        raise ConfigError(f"{name} does not begin with {' or '.join(schemes)}")
    return text


def _number(name: str, default: int, least: int, most: int) -> int:
    text = _get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    if not is_number or not least <= int(text) <= most:
        raise ConfigError(f"{name} is {text!r}: expected a number from {least} to {most}")
    return int(text)


def _switch(name: str) -> bool:
    text = _get(name) or "on"
    if text not in ("on", "off"):
        raise ConfigError(f"{name} is {text!r}: expected on or off")
    return text == "on"


def _language() -> str:
    for name in ("IDNODE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = _get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"
