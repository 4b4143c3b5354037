"""The site of this node: what HS_SITE says, what prefix handles get of it, its serial number."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from node.reach import reach_of
from node.site_serial import numbered_site
from resolver.errors import InvalidValueError
from resolver.own_site import OwnSite, Reach, site_of
from resolver.record import HandleValue, Record, values_to_wire
from resolver.wire import (
    INTERFACE_ADMIN,
    INTERFACE_QUERY,
    PROTOCOL_HTTP,
    PROTOCOL_HTTPS,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    Interface,
    RsaPublicKey,
    SiteInfo,
)

KEY = RsaPublicKey(65_537, (1 << 2_047) + 9).to_wire()
REACH = Reach("192.0.2.7", 2641, 8000)
SITE = site_of(REACH, KEY, 3)
HANDLE = "0.NA/88.608.5288"
BOTH = INTERFACE_ADMIN | INTERFACE_QUERY


def stored(*values: HandleValue, deleted: bool = False) -> Record:
    return Record(HANDLE, 41, values_to_wire(values), 1_700_000_000, deleted)


def shown(record: Record | None) -> list[tuple[int, str]]:
    assert record is not None
    return [(value.index, value.type) for value in record.values]


def test_a_site_names_its_address_its_key_and_its_doors_as_the_reference_server_does() -> None:
    (server,) = SITE.servers
    assert (server.server_id, server.address_text, server.public_key) == (1, "192.0.2.7", KEY)
    assert server.interfaces == (
        Interface(BOTH, PROTOCOL_TCP, 2641),
        Interface(INTERFACE_QUERY, PROTOCOL_UDP, 2641),
        Interface(BOTH, PROTOCOL_HTTP, 8000),
    )
    assert (SITE.serial, SITE.is_primary, SITE.is_multi_primary) == (3, True, False)
    assert SiteInfo.from_wire(SITE.to_wire()) == SITE


def test_a_door_that_is_not_open_is_not_named() -> None:
    (server,) = site_of(Reach("2001:db8::7", None, 8000, 8443), KEY, 1).servers
    assert server.address_text == "2001:db8::7"
    # Without the native protocol there is no tunnel of it, either.
    assert server.interfaces == (
        Interface(INTERFACE_QUERY, PROTOCOL_HTTP, 8000),
        Interface(BOTH, PROTOCOL_HTTPS, 8443),
    )


def test_a_name_is_no_address() -> None:
    with pytest.raises(InvalidValueError):
        site_of(Reach("node.example", 2641), KEY, 1)


def test_a_prefix_handle_that_was_never_stored_says_where_the_prefix_lives() -> None:
    record = OwnSite(SITE).laid_over(None, HANDLE, is_homed=False)
    assert shown(record) == [(1, "HS_SITE")]
    assert record is not None
    assert (record.handle, record.version, record.deleted) == (HANDLE, 0, False)
    assert record.values[0].data == SITE.to_wire()
    assert record.values[0].is_public


def test_a_homed_prefix_says_who_answers_for_what_is_derived_from_it_too() -> None:
    record = OwnSite(SITE).laid_over(None, "0.NA/88.608", is_homed=True)
    assert shown(record) == [(1, "HS_SITE"), (2, "HS_SITE.PREFIX")]


def test_a_deleted_prefix_handle_is_made_anew_at_its_version() -> None:
    record = OwnSite(SITE).laid_over(stored(deleted=True), HANDLE, is_homed=False)
    assert shown(record) == [(1, "HS_SITE")]
    assert record is not None
    assert (record.version, record.deleted) == (41, False)


def test_what_is_stored_keeps_its_indexes_version_and_time() -> None:
    kept = (HandleValue(1, "DESC", b"x"), HandleValue(100, "HS_ADMIN", b"\0"))
    record = OwnSite(SITE).laid_over(stored(*kept), HANDLE, is_homed=True)
    assert shown(record) == [
        (2, "HS_SITE"),
        (3, "HS_SITE.PREFIX"),
        (1, "DESC"),
        (100, "HS_ADMIN"),
    ]
    assert record is not None
    assert (record.version, record.stamp_s) == (41, 1_700_000_000)
    assert {value.timestamp_s for value in record.values} == {1_700_000_000}


@pytest.mark.parametrize("type_", ["HS_SITE", "hs_site", "HS_SITE.6", "HS_SERV"])
def test_a_site_or_service_of_its_own_goes_before_ours(type_: str) -> None:
    record = stored(HandleValue(7, type_, b"88.608/SVC"))
    assert OwnSite(SITE).laid_over(record, HANDLE, is_homed=False) is record
    homed = OwnSite(SITE).laid_over(record, HANDLE, is_homed=True)
    assert shown(homed) == [(1, "HS_SITE.PREFIX"), (7, type_)]


def test_a_site_for_derived_prefixes_of_its_own_goes_before_ours() -> None:
    record = stored(HandleValue(2, "HS_SITE.PREFIX", b""))
    laid_over = OwnSite(SITE).laid_over(record, HANDLE, is_homed=True)
    assert shown(laid_over) == [(1, "HS_SITE"), (2, "HS_SITE.PREFIX")]


def test_an_address_that_is_a_guess_is_not_published() -> None:
    own = OwnSite(SITE, is_certain=False)
    assert own.laid_over(None, HANDLE, is_homed=True) is None
    record = stored(HandleValue(1, "DESC", b"x"))
    assert own.laid_over(record, HANDLE, is_homed=True) is record


# Where it is reached


EVERYWHERE, V6_EVERYWHERE = ("0.0.0.0", 2641), ("::", 2641)
HTTP = ("192.0.2.9", 8000)


@pytest.mark.parametrize(
    ("public_address", "native", "http", "address"),
    [
        ("203.0.113.5", ("192.0.2.7", 2641), HTTP, "203.0.113.5"),
        ("203.0.113.5", EVERYWHERE, None, "203.0.113.5"),
        (None, ("192.0.2.7", 2641), HTTP, "192.0.2.7"),
        (None, ("localhost", 2641), HTTP, "127.0.0.1"),
        (None, ("2001:db8::7", 2641), HTTP, "2001:db8::7"),
        (None, EVERYWHERE, HTTP, "192.0.2.9"),
        (None, None, HTTP, "192.0.2.9"),
        (None, EVERYWHERE, ("0.0.0.0", 8000), None),
        (None, V6_EVERYWHERE, None, None),
        (None, ("node.example", 2641), None, None),
    ],
)
def test_the_address_is_the_public_one_or_that_of_a_door(
    public_address: str | None,
    native: tuple[str, int] | None,
    http: tuple[str, int] | None,
    address: str | None,
) -> None:
    reach = reach_of(public_address=public_address, native=native, http=http, https=None)
    assert reach.is_certain is (address is not None)
    assert reach.address == (address or "127.0.0.1")
    assert reach.native_port == (None if native is None else 2641)
    assert (reach.http_port, reach.https_port) == (None if http is None else http[1], None)


# The serial number


def test_the_serial_number_grows_when_the_site_changes_and_only_then(tmp_path: Path) -> None:
    moved = replace(REACH, address="192.0.2.8")
    numbers = [
        numbered_site(tmp_path, reach, KEY).site.serial
        for reach in (REACH, REACH, moved, moved, REACH)
    ]
    assert numbers == [1, 1, 2, 2, 3]
    assert numbered_site(tmp_path, REACH, b"").site.serial == 4


def test_the_number_for_unknown_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text(json.dumps({"digest": "x", "serial": 65_534}))
    assert numbered_site(tmp_path, REACH, KEY).site.serial == 1


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"digest": "x", "serial": 70000}', "x" * 9_000]
)
def test_a_damaged_file_begins_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "site.json").write_text(content)
    assert numbered_site(tmp_path, REACH, KEY).site.serial == 1
    assert numbered_site(tmp_path, REACH, KEY).site.serial == 1


def test_without_a_folder_the_number_is_that_of_the_content(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    first, again = (numbered_site(nowhere, REACH, KEY).site for _ in range(2))
    moved = numbered_site(nowhere, replace(REACH, native_port=None), KEY).site
    assert first == again
    assert 0 < first.serial < 65_535
    assert moved.serial != first.serial
