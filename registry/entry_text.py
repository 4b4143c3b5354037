"""Text that people enter: names, owners, reasons."""

import unicodedata

from registry.refusal import InvalidEntryError

# The registry's columns allow no more; the longest company names registered are below 100.
NAME_LENGTH_MAX = 200

# Control and invisible format characters, broken surrogates, line and paragraph separators: they
# would let an entry look like another one. Private use is allowed: rare characters of names.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def check_text(what: str, text: str, length_max: int = NAME_LENGTH_MAX) -> str:
    """`text` as it is stored: NFC, without white space around it.

    Raises:
        InvalidEntryError: if it is empty, too long or has a character that cannot be seen.
    """
    for position, character in enumerate(text, start=1):
        if unicodedata.category(character) in _REFUSED_CATEGORIES:
            raise InvalidEntryError(
                f"{what} has the invisible character U+{ord(character):04X} at position {position}",
                "write it without that character",
            )
    stored = unicodedata.normalize("NFC", text).strip()
    if not stored:
        raise InvalidEntryError(f"{what} is empty", f"give the {what}")
    if len(stored) > length_max:
        raise InvalidEntryError(
            f"{what} has {len(stored)} characters, at most {length_max} are allowed",
            f"shorten the {what}",
        )
    return stored
