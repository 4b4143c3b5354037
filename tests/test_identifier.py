"""Identifiers: how a name is split, compared, and accepted for registration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.errors import InvalidIdentifierError
from resolver.identifier import (
    IDENTIFIER_SIZE_BYTES_MAX,
    PREFIX_SIZE_BYTES_MAX,
    check_prefix,
    check_suffix,
    fold,
    for_registration,
    from_text,
)


@pytest.mark.parametrize(
    ("text", "prefix", "suffix", "key"),
    [
        ("88.100.1/abc", "88.100.1", "abc", "88.100.1/ABC"),
        ("88.100.1/a/b//c", "88.100.1", "a/b//c", "88.100.1/A/B//C"),
        ("88.100.1/", "88.100.1", "", "88.100.1/"),
        ("/x", "", "x", "/X"),
        ("88.100.1/产品é", "88.100.1", "产品é", "88.100.1/产品é"),
        ("ß/\u0131", "ß", "\u0131", "ß/\u0131"),
        ("0.na/88.1.2", "0.na", "88.1.2", "0.NA/88.1.2"),
        ("88.1.2", "0.NA", "88.1.2", "0.NA/88.1.2"),
    ],
)
def test_a_name_is_split_at_its_first_slash_and_folded(
    text: str, prefix: str, suffix: str, key: str
) -> None:
    found = from_text(text)
    assert (found.text, found.prefix, found.suffix, found.key) == (text, prefix, suffix, key)


def test_a_slashless_name_stands_for_its_prefix_handle() -> None:
    assert from_text("88.1.a").key == from_text("0.NA/88.1.A").key
    assert from_text("88.1.2").is_prefix_handle
    assert from_text("0.na/88.1.2").is_prefix_handle
    assert not from_text("88.1.2/0.NA").is_prefix_handle


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1))
def test_a_name_of_any_characters_keeps_its_text_and_can_be_folded_again(text: str) -> None:
    if len(text.encode()) > IDENTIFIER_SIZE_BYTES_MAX:
        return
    found = from_text(text)
    assert found.text == text
    assert fold(found.key) == found.key
    assert found.key == f"{found.prefix_key}/{fold(found.suffix)}"


@given(st.text())
def test_folding_touches_ascii_letters_only(text: str) -> None:
    folded = fold(text)
    assert len(folded) == len(text)
    for before, after in zip(text, folded, strict=True):
        assert after == (before.upper() if before.isascii() else before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Empty handle invalid"),
        ("88.1.2/" + "x" * 249, "256 bytes long, at most 255"),
        ("88.1.2/" + "产" * 83, "256 bytes long, at most 255"),
        ("88.1.2/a\x00b", "NUL"),
        ("88.1.2/\ud800", "not valid UTF-8"),
    ],
)
def test_a_name_that_cannot_be_stored_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidIdentifierError, match=message):
        from_text(text)


def test_the_longest_name_is_read() -> None:
    text = "88.1.2/" + "x" * (IDENTIFIER_SIZE_BYTES_MAX - 7)
    assert from_text(text).text == text


@pytest.mark.parametrize("text", ["88.100.1", "88.608.7001", "86.1000.1.2.3", "1.2.3"])
def test_a_prefix_of_three_numbers_or_more_can_be_allotted(text: str) -> None:
    assert check_prefix(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "88", "88.100", "88.100.", ".88.100.1", "88..1", "88.100.a", "88.100.1/"),
        *("八八.1.2", " 88.100.1", "88.100.1\n", "0.NA", "88.1.2.3.4.5.6.7.8"),
    ],
)
def test_a_prefix_of_another_form_cannot_be_allotted(text: str) -> None:
    with pytest.raises(InvalidIdentifierError, match="is not of the form"):
        check_prefix(text)


def test_a_prefix_that_is_too_long_cannot_be_allotted() -> None:
    text = "88." + "1" * PREFIX_SIZE_BYTES_MAX
    with pytest.raises(InvalidIdentifierError, match="longer than 64 bytes"):
        check_prefix(text)


@pytest.mark.parametrize("suffix", ["a", "A-1_2.3:4;5", "a/b", "产品", "é", "(01)06901", "😀"])
def test_a_suffix_of_visible_characters_is_accepted(suffix: str) -> None:
    check_suffix(suffix)
    assert for_registration(f"88.1.2/{suffix}").suffix == suffix


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("", "suffix is empty"),
        ("a b", r"U\+0020 at position 2"),
        ("a\n", r"U\+000A at position 2"),
        ("\u200bx", r"U\+200B at position 1"),
        ("a\u3000", r"U\+3000 at position 2"),
        ("\ue000", r"U\+E000 at position 1"),
        ("e\u0301", "normal form NFC"),
    ],
)
def test_a_suffix_that_cannot_be_seen_or_typed_again_is_refused(suffix: str, message: str) -> None:
    with pytest.raises(InvalidIdentifierError, match=message):
        for_registration(f"88.1.2/{suffix}")


def test_a_name_without_a_slash_cannot_be_registered() -> None:
    with pytest.raises(InvalidIdentifierError, match="expected prefix/suffix"):
        for_registration("88.1.2")
