"""Binary records: whole, cut short at every byte, and with junk after."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.errors import InvalidValueError
from resolver.record import Reference
from resolver.wire._reader import Reader
from resolver.wire._records import (
    AdminRecord,
    DsaPublicKey,
    Interface,
    OpaqueKey,
    PublicKey,
    RsaPublicKey,
    Server,
    SiteInfo,
    address_from_text,
    public_key_from_wire,
    references_from_wire,
    references_to_wire,
)

# The body of a recorded GET_SITE_INFO answer of Handle.Net 9.3.1.
SITE = bytes.fromhex(
    "0001020b00018002000000000000000100000004646573630000000d6c6f6f706261636b20706565720000000100"
    "0000010000000000000000000000007f000001000001210000000b5253415f5055425f4b45590000000000030100"
    "010000010100b8f3dc496019bf5c38c40371b1857bec8d04a1106c1d633dc8c08470ea21358f988d04e2e331834f"
    "7decd2d656921b493918ec4cdad73e3df1605182c7d5767707b72d39abc9faf1da9cd165f47bcb9994db8bfdfe29"
    "a5b8641559709fa2594cb775e4c9e0384d1441831930a9c46144ac085c5b55c664a0ab68b879b674603bef93f845"
    "a2c0ab5ce525079a6cbf02ca34b14c827bac13eae2b5f4585cdb9d661b2a7fafed974477353c81ed4bb6332e1051"
    "4fb3371eadfd6906d64d9562489431d60a25f5698ddb3ced177238679873a28c678e069562e8abd9b3452ed11219"
    "978f127aea186a0977d3c902a2d402abbb005c9b766a8af08a8e02a33a3209250000000000000003030100000a51"
    "020000000a51030200001f40"
)
# HS_ADMIN of the recorded ITEM1, and the same as old software writes it.
ADMIN = bytes.fromhex("0fff0000000e38382e3130322e352f41444d494e0000012c")
ADMIN_LEGACY = ADMIN + b"\x00\x00"
VLIST = bytes.fromhex("00000002" + "0000000e38382e3130322e352f41444d494e0000012c" * 2)
RSA_KEY = SITE[69:358]
DSA_KEY = bytes.fromhex(
    "0000000b4453415f5055425f4b4559" + "0000" + "0000000200ff" + "0000000117" + "0000000102"
    "000000020100"
)

READERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "HS_SITE": (SITE, SiteInfo.from_wire),
    "HS_ADMIN": (ADMIN, AdminRecord.from_wire),
    "HS_ADMIN legacy": (ADMIN_LEGACY, AdminRecord.from_wire),
    "RSA key": (RSA_KEY, public_key_from_wire),
    "DSA key": (DSA_KEY, public_key_from_wire),
}
CASES = pytest.mark.parametrize(("data", "from_wire"), READERS.values(), ids=READERS)


@CASES
def test_a_recorded_record_is_written_as_it_was_read(
    data: bytes, from_wire: Callable[[bytes], Any]
) -> None:
    assert from_wire(data).to_wire() == data


@CASES
def test_a_record_cut_short_anywhere_is_damaged(
    data: bytes, from_wire: Callable[[bytes], object]
) -> None:
    for size in range(len(data)):
        if data[:size] in (ADMIN, RSA_KEY[:-4]):
            continue  # whole without the zero bytes that some software adds
        with pytest.raises(InvalidValueError, match=r"damaged at byte \d+: expected"):
            from_wire(data[:size])


@CASES
@pytest.mark.parametrize("junk", [b"\x00", b"\x00\x00\x00", b"\x01\x02", b"junk"])
def test_a_record_with_junk_after_is_damaged(
    data: bytes, from_wire: Callable[[bytes], object], junk: bytes
) -> None:
    with pytest.raises(InvalidValueError, match="damaged at byte"):
        from_wire(data + junk)


def test_the_recorded_site_has_the_recorded_fields() -> None:
    site = SiteInfo.from_wire(SITE)
    assert (site.protocol_major, site.protocol_minor, site.serial) == (2, 11, 1)
    assert (site.is_primary, site.is_multi_primary, site.hash_option) == (True, False, 2)
    assert site.attributes == (("desc", "loopback peer"),)
    (server,) = site.servers
    assert (server.server_id, server.address_text) == (1, "127.0.0.1")
    assert server.interfaces == (
        Interface(3, 1, 2641),
        Interface(2, 0, 2641),
        Interface(3, 2, 8000),
    )
    key = public_key_from_wire(server.public_key)
    assert isinstance(key, RsaPublicKey)
    assert (key.exponent, key.modulus.bit_length()) == (65537, 2048)


def test_the_recorded_admin_has_the_recorded_fields() -> None:
    assert AdminRecord.from_wire(ADMIN) == AdminRecord("88.102.5/ADMIN", 300, 0xFFF)
    assert AdminRecord.from_wire(ADMIN_LEGACY).legacy_length


def test_dsa_numbers_are_q_p_g_y_in_that_order() -> None:
    assert public_key_from_wire(DSA_KEY) == DsaPublicKey(q=255, p=23, g=2, y=256)


def test_a_group_is_written_as_it_was_read_and_damaged_when_cut_short_or_followed_by_junk() -> None:
    references = references_from_wire(VLIST)
    assert references == (Reference("88.102.5/ADMIN", 300),) * 2
    assert references_to_wire(references) == VLIST
    for broken in [*(VLIST[:size] for size in range(len(VLIST))), VLIST + b"\x00"]:
        with pytest.raises(InvalidValueError, match="HS_VLIST is damaged at byte"):
            references_from_wire(broken)


def test_an_rsa_key_without_the_four_zero_bytes_is_the_same_key() -> None:
    assert public_key_from_wire(RSA_KEY[:-4]) == public_key_from_wire(RSA_KEY)


def test_a_key_of_an_unknown_type_stays_as_it_is() -> None:
    data = b"\x00\x00\x00\x0bSM2_PUB_KEY and more"
    assert public_key_from_wire(data) == OpaqueKey("SM2_PUB_KEY", data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1f\xff" + ADMIN[2:], "byte 0: expected twelve permission bits"),
        (ADMIN[:-4] + b"\xff\xff\xff\xff", "byte 20: expected an index of 0 or more"),
        (ADMIN[:2] + b"\x7f\xff\xff\xff", "byte 2: expected a length of 0 to 2048"),
        (b"\x00\x01\x00\x00\x00\x01\xff\x00\x00\x00\x01", "byte 2: expected UTF-8 text"),
    ],
)
def test_a_damaged_admin_record_says_where(data: bytes, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        AdminRecord.from_wire(data)


@pytest.mark.parametrize(
    ("offset", "byte", "message"),
    [
        (1, 2, "byte 0: expected format version 1"),
        (6, 0x81, "byte 6: expected the mask bits"),
        (7, 3, "byte 7: expected hash option"),
        (12, 0x7F, "byte 12: expected a count of 0 to"),
        (362, 4, "byte 362: expected interface type"),
        (364, 1, "byte 364: expected a port"),
    ],
)
def test_a_damaged_site_says_where(offset: int, byte: int, message: str) -> None:
    data = SITE[:offset] + bytes([byte]) + SITE[offset + 1 :]
    with pytest.raises(InvalidValueError, match=message):
        SiteInfo.from_wire(data)


def test_a_count_beyond_the_bytes_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InvalidValueError, match="expected a count of 0 to 1, found 1000"):
        Reader(bytes.fromhex("000003e8") + bytes(8), "list").count(1_000, 8)


@pytest.mark.parametrize("text", ["127.0.0.1", "2001:db8::1"])
def test_an_address_keeps_its_text(text: str) -> None:
    assert Server(1, address_from_text(text)).address_text == text


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "1.2.3.4:80"])
def test_a_name_is_no_address(text: str) -> None:
    with pytest.raises(InvalidValueError, match="IPv4 or IPv6"):
        address_from_text(text)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ADMINS = st.builds(
    AdminRecord,
    TEXT,
    st.integers(0, 2**31 - 1),
    st.integers(0, 0xFFF),
    st.booleans(),
)
INTERFACES = st.builds(Interface, st.integers(0, 3), st.integers(0, 255), st.integers(0, 65_535))
SERVERS = st.builds(
    Server,
    st.integers(-(2**31), 2**31 - 1),
    st.binary(min_size=16, max_size=16),
    st.binary(max_size=40),
    st.lists(INTERFACES, max_size=4).map(tuple),
)
SITES = st.builds(
    SiteInfo,
    servers=st.lists(SERVERS, max_size=3).map(tuple),
    serial=st.integers(0, 65_535),
    is_primary=st.booleans(),
    is_multi_primary=st.booleans(),
    hash_option=st.integers(0, 2),
    hash_filter=TEXT,
    attributes=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    protocol_major=st.integers(0, 255),
    protocol_minor=st.integers(0, 255),
)
NUMBER = st.integers(1, 2**200)
KEYS = st.builds(RsaPublicKey, NUMBER, NUMBER) | st.builds(
    DsaPublicKey, NUMBER, NUMBER, NUMBER, NUMBER
)


@given(ADMINS)
def test_any_admin_record_comes_back(admin: AdminRecord) -> None:
    assert AdminRecord.from_wire(admin.to_wire()) == admin


@settings(max_examples=50)
@given(SITES)
def test_any_site_comes_back(site: SiteInfo) -> None:
    assert SiteInfo.from_wire(site.to_wire()) == site


@given(KEYS)
def test_any_key_comes_back(key: PublicKey) -> None:
    assert public_key_from_wire(key.to_wire()) == key


@pytest.mark.parametrize(
    "from_wire",
    [SiteInfo.from_wire, AdminRecord.from_wire, references_from_wire, public_key_from_wire],
)
@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_record_or_damaged(
    from_wire: Callable[[bytes], object], data: bytes
) -> None:
    try:
        from_wire(data)
        reason = "damaged at byte"
    except InvalidValueError as error:
        reason = str(error)
    assert "damaged at byte" in reason
