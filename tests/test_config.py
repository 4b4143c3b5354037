"""Settings: what they are when nothing is said, and one line for each that cannot be used."""

from pathlib import Path

import pytest

from node.config import Config, ConfigError, from_environment, terminal_environment
from node.identity import Identity


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in terminal_environment():
        if name.startswith("IDNODE_"):
            monkeypatch.delenv(name)


def test_nothing_set_means_the_defaults_of_the_record() -> None:
    read = from_environment()
    made = Config(
        data=read.data,
        http_host="127.0.0.1",
        http_port=8_000,
        postgres_url=None,
        redis_url=None,
        node_prefix=None,
        policy=None,
        trusted_proxies=(),
        language=read.language,
        operator_key_file=read.data / "operator.key",
        handle_host="127.0.0.1",
        handle_port=2_641,
    )
    assert read == made
    assert (read.http, read.https) == ("127.0.0.1:8000", None)
    assert read.handle == "127.0.0.1:2641"


def test_every_setting_of_serving_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "WORKERS": "3",
        "L1_ENTRIES": "0",
        "L2": "off",
        "COUNTING": "off",
        "RATE_PER_SOURCE": "1",
        "RATE_PER_CALLER": "2",
        "UNKNOWN_RATE": "0",
        "HTTPS": "[::1]:8443",
        "TLS_CERT": "cert.pem",
        "TLS_KEY": "key.pem",
        "HANDLE": "[::]:2642",
        "PUBLIC_ADDRESS": "[2001:DB8::1]",
        "UDP_RATE": "7",
        "SERVER_ADMINS": "300:88.608/ADMIN, 301:88.608/ADMIN,",
    }.items():
        monkeypatch.setenv(f"IDNODE_{name}", text)
    read = from_environment()
    assert (read.workers, read.l1_entries) == (3, 0)
    assert (read.shared_cache, read.counting) == (False, False)
    assert (read.rate_per_source, read.rate_per_caller, read.unknown_rate) == (1, 2, 0)
    assert (read.https_host, read.https_port, read.https) == ("::1", 8_443, "[::1]:8443")
    assert (read.tls_certificate, read.tls_key) == (Path("cert.pem"), Path("key.pem"))
    assert (read.handle, read.handle_is_chosen) == ("[::]:2642", True)
    assert read.public_address == "2001:db8::1"
    assert (read.udp_rate, read.limits_loopback_udp) == (7, True)
    admins = (Identity("88.608/ADMIN", 300), Identity("88.608/ADMIN", 301))
    assert read.server_admins == admins


def test_the_handle_protocol_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDNODE_HANDLE", "off")
    read = from_environment()
    assert (read.handle, read.handle_host, read.handle_port) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("IDNODE_WORKERS", "0", "a number from 1 to 64"),
        ("IDNODE_WORKERS", "65", "a number from 1 to 64"),
        ("IDNODE_WORKERS", "\uff12", "a number from 1 to 64"),
        ("IDNODE_L1_ENTRIES", "-1", "a number from 0 to"),
        ("IDNODE_RATE_PER_SOURCE", "9" * 5_000, "a number from 0 to"),
        ("IDNODE_UNKNOWN_RATE", "1.5", "a number from 0 to"),
        ("IDNODE_L2", "no", "on or off"),
        ("IDNODE_COUNTING", "0", "on or off"),
        ("IDNODE_HTTPS", "8443", "host:port"),
        ("IDNODE_HTTPS", "127.0.0.1:99999", "host:port"),
        ("IDNODE_HANDLE", "on", "host:port"),
        ("IDNODE_PUBLIC_ADDRESS", "node.example", "an IP address"),
        ("IDNODE_PUBLIC_ADDRESS", "0.0.0.0", "an address that others can reach"),
        ("IDNODE_UDP_RATE", "-1", "a number from 0 to"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError) as raised:
        from_environment()
    assert str(raised.value).startswith(f"{name} is {text!r}: expected {expected}")


@pytest.mark.parametrize("text", ["88.608/ADMIN", "x:88.608/ADMIN", "300:"])
def test_an_administrator_that_is_no_identity_is_named(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("IDNODE_SERVER_ADMINS", f"300:88.608/ADMIN,{text}")
    with pytest.raises(ConfigError, match=f"^IDNODE_SERVER_ADMINS has '{text}': expected index"):
        from_environment()


def test_https_without_files_is_served_with_a_certificate_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IDNODE_HTTPS", "127.0.0.1:8443")
    read = from_environment()
    assert (read.https, read.tls_certificate, read.tls_key) == ("127.0.0.1:8443", None, None)


@pytest.mark.parametrize("missing", ["IDNODE_TLS_CERT", "IDNODE_TLS_KEY"])
def test_a_certificate_and_its_key_go_together(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in {"IDNODE_TLS_CERT", "IDNODE_TLS_KEY"} - {missing}:
        monkeypatch.setenv(name, "file.pem")
    monkeypatch.setenv("IDNODE_HTTPS", "127.0.0.1:8443")
    with pytest.raises(ConfigError, match=f"^{missing} is not set"):
        from_environment()
