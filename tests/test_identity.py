"""Identities: index and handle, compared as handles are."""

import pytest

from node.identity import Identity
from resolver.errors import InvalidIdentifierError


@pytest.mark.parametrize(
    ("text", "handle", "index"),
    [
        ("300:88.102.5/ADMIN", "88.102.5/ADMIN", 300),
        ("0:88.102.5/ADMIN", "88.102.5/ADMIN", 0),
        ("300%3A88.102.5/ADMIN", "88.102.5/ADMIN", 300),
        ("300%3a88.102.5/ADMIN", "88.102.5/ADMIN", 300),
        ("300%3A88.102.5/100%25", "88.102.5/100%", 300),
        ("300:88.102.5/100%25", "88.102.5/100%25", 300),
        ("300:88.102.5/A:B", "88.102.5/A:B", 300),
        ("300%3A88.102.5/%E4%BA%A7", "88.102.5/产", 300),
        ("2147483647:0.NA/88.102.5", "0.NA/88.102.5", 2**31 - 1),
        ("1:88.102.5", "88.102.5", 1),
    ],
)
def test_an_identity_is_read_with_its_colon_plain_or_encoded(
    text: str, handle: str, index: int
) -> None:
    found = Identity.from_text(text)
    assert (found.handle, found.index) == (handle, index)
    assert Identity.from_text(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "300",
        "300:",
        "300%3A",
        ":88.102.5/ADMIN",
        "88.102.5/ADMIN",
        "-1:88.102.5/ADMIN",
        "+1:88.102.5/ADMIN",
        "1 :88.102.5/ADMIN",
        "\uff13:88.102.5/ADMIN",
        "2147483648:88.102.5/ADMIN",
        "99999999999:88.102.5/ADMIN",
        "300:88.102.5/" + "A" * 255,
        "300:88.102.5/A\x00",
        "300%3A88.102.5/%FF",
        "300%3A88.102.5/%00",
    ],
)
def test_what_is_not_index_and_handle_is_no_identity(text: str) -> None:
    with pytest.raises(InvalidIdentifierError):
        Identity.from_text(text)


def test_identities_are_equal_without_ascii_case_and_only_with_the_same_index() -> None:
    one = Identity("88.102.5/Admin-é", 300)
    assert one == Identity("88.102.5/ADMIN-é", 300)
    assert hash(one) == hash(Identity("88.102.5/ADMIN-é", 300))
    assert one != Identity("88.102.5/ADMIN-É", 300)
    assert one != Identity("88.102.5/Admin-é", 301)
    assert one != Identity("88.102.5/Admin-é", 0)
    assert one != "300:88.102.5/Admin-é"


def test_a_slashless_name_is_its_prefix_handle() -> None:
    assert Identity("88.102.5", 300) == Identity("0.na/88.102.5", 300)
    assert Identity("0.NA/88.102.5", 300).is_named_by("88.102.5", 300)
    assert Identity("88.102.5", 300) != Identity("0.NA/0.NA/88.102.5", 300)


@pytest.mark.parametrize(
    ("handle", "index", "is_named"),
    [
        ("88.102.5/ADMIN", 300, True),
        ("88.102.5/admin", 300, True),
        ("88.102.5/ADMIN", 0, True),
        ("88.102.5/ADMIN", 301, False),
        ("88.102.5/ADMIN2", 300, False),
        ("88.102.5/ADMIN2", 0, False),
    ],
)
def test_a_reference_names_the_identity_with_its_handle_and_index_or_any(
    handle: str, index: int, is_named: bool
) -> None:
    assert Identity("88.102.5/Admin", 300).is_named_by(handle, index) == is_named


def test_a_reference_to_one_index_does_not_name_who_has_any() -> None:
    assert not Identity("88.102.5/ADMIN", 0).is_named_by("88.102.5/ADMIN", 300)
