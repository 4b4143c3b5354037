"""Configuration: the one place that reads the environment."""

import os
from dataclasses import dataclass
from pathlib import Path


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
        policy: `IDNODE_POLICY`, a policy file; None means the bundled one.
        trusted_proxies: `IDNODE_TRUSTED_PROXIES`, addresses (comma-separated) whose
            `X-Forwarded-For` is believed; empty means that the peer is the source. A wrong
            entry lets callers choose the address under which they are counted.
        language: `IDNODE_LANG`, `zh` or `en`; default from `LC_ALL` and `LANG`.
        operator_key: `IDNODE_OPERATOR_KEY_FILE`; default: `operator.key` in `data`.
        workers: `IDNODE_WORKERS`, processes that serve HTTP, default 1.
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
    workers: int

    @property
    def http(self) -> str:
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return f"{host}:{self.http_port}"


def from_environment() -> Config:
    """The configuration as the environment gives it.

    Raises:
        ConfigError: for a setting that cannot be used.
    """
    data = Path(_get("IDNODE_DATA") or "var").absolute()
    host, port = _host_port(_get("IDNODE_HTTP") or "127.0.0.1:8000")
    policy, key_file = _get("IDNODE_POLICY"), _get("IDNODE_OPERATOR_KEY_FILE")
    proxies = (_get("IDNODE_TRUSTED_PROXIES") or "").split(",")
    return Config(
        data=data,
        http_host=host,
        http_port=port,
        postgres_url=_url("IDNODE_POSTGRES_URL", ("postgresql://", "postgres://")),
        redis_url=_url("IDNODE_REDIS_URL", ("redis://", "rediss://", "unix://")),
        node_prefix=_get("IDNODE_NODE_PREFIX"),
        policy=Path(policy) if policy else None,
        trusted_proxies=tuple(proxy.strip() for proxy in proxies if proxy.strip()),
        language=_language(),
        operator_key_file=Path(key_file) if key_file else data / "operator.key",
        workers=_workers(_get("IDNODE_WORKERS") or "1"),
    )


def terminal_environment() -> dict[str, str]:
    """The environment that child processes inherit."""
    return dict(os.environ)


def _get(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"IDNODE_HTTP is {text!r}: expected host:port, such as 127.0.0.1:8000")
    return host, int(port)


def _url(name: str, schemes: tuple[str, ...]) -> str | None:
    text = _get(name)
    if text and not text.startswith(schemes):
        # The value may hold a password: it is not shown.
        raise ConfigError(f"{name} does not begin with {' or '.join(schemes)}")
    return text


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 64:
        raise ConfigError(f"IDNODE_WORKERS is {text!r}: expected a number from 1 to 64")
    return int(text)


def _language() -> str:
    for name in ("IDNODE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = _get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"
