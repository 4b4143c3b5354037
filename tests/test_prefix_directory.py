"""The table of prefixes: which prefix answers for a name, and which for a prefix handle."""

import pytest

from resolver.errors import RegistryUnavailableError
from resolver.identifier import from_text
from resolver.prefix_directory import (
    PrefixDirectory,
    PrefixState,
    derived_from,
    handle_of,
    names_prefix,
    refusal,
)
from resolver.response_code import ResponseCode

NODE = PrefixState("88.608", homed=True)
HOSTED = PrefixState("88.608.5288")
SELF_RUN = PrefixState("88.608.7", hosted=False)
SUSPENDED = PrefixState("88.608.9", suspended=True)


@pytest.fixture
def directory() -> PrefixDirectory:
    made = PrefixDirectory()
    made.replace([NODE, HOSTED, SELF_RUN, SUSPENDED])
    return made


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("88.608/ENTSVC", NODE),
        ("88.608.5288/A", HOSTED),
        ("88.608.7/A", SELF_RUN),
        # An identifier needs its very prefix: one below an allotted prefix is another's.
        ("88.608.5288.1/A", None),
        ("88.608.6/A", None),
        ("88/A", None),
    ],
)
def test_an_identifier_is_answered_by_its_very_prefix(
    directory: PrefixDirectory, text: str, prefix: PrefixState | None
) -> None:
    assert directory.responsible(from_text(text)) is prefix


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("0.NA/88.608", NODE),
        ("88.608", NODE),
        ("0.na/88.608.5288", HOSTED),
        ("0.NA/88.608.5288.1.2", HOSTED),
        ("0.NA/88.608.7.1", SELF_RUN),
        ("0.NA/88.608.9.1", SUSPENDED),
        ("0.NA/88.608.6", NODE),
        ("88.608.6.5", NODE),
        ("0.NA/88.6080", None),
        ("0.NA/88", None),
        ("0.NA/89.608.1", None),
        # What other servers call the mark of derived prefixes, and names that are no prefix.
        ("0.NA/0.NA/88.608", None),
        ("0.NA/88.608/X", None),
        ("0.NA/88.608.5288/X.1", None),
    ],
)
def test_a_prefix_handle_is_answered_by_the_nearest_prefix(
    directory: PrefixDirectory, text: str, prefix: PrefixState | None
) -> None:
    assert directory.responsible(from_text(text)) is prefix


def test_nothing_is_said_before_the_table_is_there() -> None:
    with pytest.raises(RegistryUnavailableError):
        PrefixDirectory().responsible(from_text("0.NA/88.608"))


@pytest.mark.parametrize(
    ("prefix", "above"),
    [
        ("88", []),
        ("88.608", ["88"]),
        ("88.608.5288.1", ["88.608.5288", "88.608", "88"]),
        ("", []),
        (".", [""]),
    ],
)
def test_a_prefix_is_derived_from_those_above_it_nearest_first(
    prefix: str, above: list[str]
) -> None:
    assert derived_from(prefix) == above


def test_a_prefix_handle_names_one_prefix() -> None:
    assert names_prefix(HOSTED, from_text("88.608.5288"))
    assert names_prefix(HOSTED, handle_of("88.608.5288"))
    assert not names_prefix(HOSTED, from_text("0.NA/88.608.5288.1"))
    assert not names_prefix(HOSTED, from_text("88.608.5288/0.NA"))


@pytest.mark.parametrize(
    ("prefix", "text", "message"),
    [
        (None, "0.NA/89.1", "That prefix doesn't live here"),
        (SUSPENDED, "0.NA/88.608.9", "That prefix is suspended"),
        (SUSPENDED, "0.NA/88.608.9.1", "That prefix is suspended"),
        (SELF_RUN, "88.608.7/A", "That prefix is run by its enterprise node"),
        (SELF_RUN, "0.NA/88.608.7", None),
        (SELF_RUN, "0.NA/88.608.7.1", None),
        (NODE, "88.608/A", None),
        (NODE, "0.NA/88.608.6", None),
    ],
)
def test_a_prefix_that_does_not_answer_says_why(
    prefix: PrefixState | None, text: str, message: str | None
) -> None:
    found = refusal(prefix, from_text(text))
    expected = None if message is None else (ResponseCode.SERVER_NOT_RESPONSIBLE, message)
    assert found == expected


def test_a_prefix_that_is_homed_or_allotted_anew_is_superseded(directory: PrefixDirectory) -> None:
    directory.replace([PrefixState("88.608"), HOSTED, SELF_RUN, SUSPENDED])
    assert NODE.is_superseded
    assert not HOSTED.is_superseded
    NODE.is_superseded = False
