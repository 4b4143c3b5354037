"""Enterprises: their codes, their places, entered twice, listed and shown."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from stdnum.cn import uscc

from registry import enterprises, prefixes
from registry.database import Database
from registry.place_code import check_place, place_name
from registry.records import Author
from registry.refusal import ConflictError, InvalidEntryError, UnknownEntryError

AUTHOR = Author("cli:test", "cli")


def _credit_code(number: int) -> str:
    body = f"91450200{number:09d}"
    return body + uscc.calc_check_digit(body)


CODE = _credit_code(1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


async def _add(database: Database, **changed: Any) -> tuple[enterprises.Enterprise, bool]:
    entry: dict[str, Any] = {"name": "柳州样品厂", "credit_code": CODE, "division": "450200"}
    return await enterprises.add(database, author=AUTHOR, **(entry | changed))


async def test_the_same_entry_twice_changes_nothing(database: Database) -> None:
    first, is_new = await _add(database)
    again, is_new_again = await _add(database, name=" 柳州样品厂 ", credit_code=CODE.lower())
    assert (is_new, is_new_again) == (True, False)
    assert again == first
    async with database.connection() as connection:
        details = await connection.fetch("SELECT actor, door, detail FROM change")
    assert [tuple(row) for row in details] == [("cli:test", "cli", f"enterprise add {CODE}")]


async def test_another_enterprise_cannot_take_a_code(database: Database) -> None:
    await _add(database)
    with pytest.raises(ConflictError, match="already belongs to 柳州样品厂"):
        await _add(database, name="南宁样品厂")
    with pytest.raises(ConflictError) as caught:
        await _add(database, credit_code=CODE, division=None, country="VN")
    assert caught.value.do == f"write the country before it: VN-{CODE}"


def test_a_wrong_check_character_is_named_with_the_right_one() -> None:
    right = CODE[-1]
    wrong = "A" if right != "A" else "B"
    with pytest.raises(InvalidEntryError, match=f"ends with '{wrong}'.* is '{right}'"):
        enterprises.check_credit_code(CODE[:-1] + wrong)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("9145020000000001", "has 16 characters, 18 are expected"),
        ("914502000000I00017", "'I' at position 13"),
        ("91450A000000000017", "'A' at position 6: characters 3 to 8"),
        ("9145020000000001*X", r"'\*' at position 17"),
    ],
)
def test_a_malformed_credit_code_says_which_character(code: str, reason: str) -> None:
    with pytest.raises(InvalidEntryError, match=reason):
        enterprises.check_credit_code(code)


def test_codes_of_every_registering_authority_are_accepted() -> None:
    body = "N2450200000000001"
    code = body + uscc.calc_check_digit(body)
    assert enterprises.check_credit_code(f" {code[:8]}-{code[8:]} ") == code


def test_a_code_typed_in_full_width_digits_is_read() -> None:
    assert enterprises.check_credit_code(CODE.replace("9", "\uff19")) == CODE


async def test_a_foreign_registration_number_is_free(database: Database) -> None:
    added, _ = await _add(database, credit_code="0100-109 106/ĐN", division=None, country="vn")
    assert (added.credit_code, added.country, added.division) == ("0100-109 106/ĐN", "VN", None)
    with pytest.raises(InvalidEntryError, match="has 65 characters, at most 64"):
        await _add(database, credit_code="9" * 65, division=None, country="VN")
    with pytest.raises(InvalidEntryError, match="registration number is empty"):
        await _add(database, credit_code=" ", division=None, country="VN")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "name is empty"),
        ("样" * 201, "has 201 characters, at most 200"),
        ("样品\x1b[2J厂", r"U\+001B at position 3"),
        ("样品\u202e厂", r"U\+202E at position 3"),
    ],
)
async def test_a_name_that_cannot_be_stored_is_refused(
    database: Database, name: str, reason: str
) -> None:
    with pytest.raises(InvalidEntryError, match=reason):
        await _add(database, name=name)


@pytest.mark.parametrize(
    ("division", "country", "reason"),
    [
        ("45020", None, "is not six digits"),
        ("\uff1450200", None, "is not six digits"),
        ("990000", None, "does not exist in GB/T 2260"),
        ("459900", None, "does not exist in GB/T 2260"),
        ("810000", None, "is entered as a region"),
        (None, None, "no division is given"),
        (None, "CN", "no division is given"),
        ("450200", "VN", "together with country VN"),
        (None, "XX", "is not an ISO 3166-1 code"),
    ],
)
def test_a_place_that_does_not_exist_is_refused(
    division: str | None, country: str | None, reason: str
) -> None:
    with pytest.raises(InvalidEntryError, match=reason):
        check_place(division, country)


def test_a_country_written_as_a_name_gets_its_code_as_advice() -> None:
    with pytest.raises(InvalidEntryError) as caught:
        check_place(None, "Vietnam")
    assert caught.value.do == "give VN for Viet Nam"


def test_a_county_founded_after_the_data_is_accepted_in_a_known_city() -> None:
    assert check_place("330113", None).division == "330113"
    assert place_name("330113", "CN") == "浙江省杭州市"
    assert place_name("450200", "CN") == "广西壮族自治区柳州市"
    assert place_name("450000", "CN") == "广西壮族自治区"
    assert place_name(None, "VN") == "Viet Nam"


async def test_all_enterprises_are_listed_across_pages(database: Database) -> None:
    codes = [_credit_code(number) for number in range(5)]
    for code in codes:
        await _add(database, credit_code=code)
    listed = [entry async for entry in enterprises.stream(database)]
    assert [entry.credit_code for entry in listed] == codes
    page = await enterprises.page(database, after_id=listed[1].id, limit=2)
    assert page == listed[2:4]


async def test_an_enterprise_is_shown_with_its_prefixes_and_counts(database: Database) -> None:
    await _add(database)
    for prefix in ("88.608.5288", "88.608.5289"):
        await prefixes.allot(
            database, prefix=prefix, credit_code=CODE, node_prefix=None, author=AUTHOR
        )
    await prefixes.suspend(database, "88.608.5289", reason="欠费", author=AUTHOR)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO registration_tally (prefix_key, day, shard, added, removed)"
            " VALUES ('88.608.5288', 1, 0, 7, 2), ('88.608.5288', 2, 1, 3, 0)"
        )
    account = await enterprises.show(database, CODE)
    assert account.identifiers == 8
    assert account.holdings == (
        enterprises.Holding("88.608.5288", "hosted", False, 8),
        enterprises.Holding("88.608.5289", "hosted", True, 0),
    )


async def test_an_unknown_enterprise_says_how_to_add_it(database: Database) -> None:
    with pytest.raises(UnknownEntryError) as caught:
        await enterprises.show(database, CODE)
    assert "idnode enterprise add" in caught.value.do
