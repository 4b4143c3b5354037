"""Whether an answer is right: judged from its bytes and what was registered, without a socket."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.load_products import Json, product_values

FOUND = 1
NOT_FOUND = 100
_VALUES_NOT_FOUND = 200
# What counts as an answer to a question; everything else is a refusal.
_ANSWERS = (FOUND, NOT_FOUND, _VALUES_NOT_FOUND)
# Of a body that is not understood: enough to see what it is.
_SHOWN_CHARACTERS_MAX = 200


class WrongAnswerError(Exception):
    """The node answered something else than was registered; says which, what and what instead."""


class NotAnsweredError(Exception):
    """No answer to the question came: the connection failed, or the node refused."""


@dataclass(frozen=True, slots=True)
class Question:
    """An identifier, and between which revisions the answer must lie; 0 is never changed."""

    identifier: str
    number: int
    oldest: int = 0
    newest: int = 0


def read_one(status: int, body: bytes) -> Json:
    """The answer to one question.

    Raises:
        NotAnsweredError: if it is a refusal.
        WrongAnswerError: if it is no answer of the API.
    """
    document = _document(status, body)
    code = document.get("responseCode")
    if code not in _ANSWERS:
        raise NotAnsweredError(f"refused: HTTP {status}, responseCode {code}")
    if (status, code) not in ((200, FOUND), (404, NOT_FOUND), (400, _VALUES_NOT_FOUND)):
        raise WrongAnswerError(f"HTTP {status} with responseCode {code}")
    return document


def read_many(status: int, body: bytes, count: int) -> list[Json]:
    """The results of a batch of `count` questions.

    Raises:
        NotAnsweredError: if the batch was refused.
        WrongAnswerError: if there is not one result for each question.
    """
    document = _document(status, body)
    if status != 200:
        raise NotAnsweredError(
            f"batch refused: HTTP {status}, responseCode {document.get('responseCode')}"
        )
    results = document.get("results")
    if not isinstance(results, list) or len(results) != count:
        found = len(results) if isinstance(results, list) else "no"
        raise WrongAnswerError(f"batch of {count} identifiers: {found} results")
    return [result if isinstance(result, dict) else {} for result in results]


def _document(status: int, body: bytes) -> Json:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    shown = body[:_SHOWN_CHARACTERS_MAX].decode("utf-8", "replace")
    if status in (200, 404):
        raise WrongAnswerError(f"HTTP {status} without a JSON object: {shown!r}")
    raise NotAnsweredError(f"refused: HTTP {status} {shown!r}")


def check_found(question: Question, answer: Json, name: str = "handle") -> int:
    """The revision that an answer shows; `name` is the member that echoes the identifier.

    Raises:
        WrongAnswerError: if anything in it is not as it was registered.
    """
    asked = question.identifier
    _check_echo(asked, answer, name)
    code = answer.get("responseCode")
    if code == NOT_FOUND and question.oldest < min(1, question.newest):
        return 0  # registered a moment ago: another worker need not know yet
    if code != FOUND:
        raise WrongAnswerError(f"{asked}: responseCode {code}, but it is registered")
    values = [one for one in answer.get("values") or [] if isinstance(one, dict)]
    revision = _revision(asked, values)
    if revision > question.newest:
        raise WrongAnswerError(
            f"{asked}: revision {revision}, though {question.newest} is the newest that was written"
        )
    if revision < question.oldest:
        raise WrongAnswerError(
            f"{asked}: revision {revision}, after revision {question.oldest} was acknowledged"
            " or seen"
        )
    _check_values(asked, values, product_values(question.number, revision))
    return revision


def check_not_found(identifier: str, answer: Json) -> None:
    """Return if the answer says that there is no such identifier.

    Raises:
        WrongAnswerError: if it says anything else.
    """
    _check_echo(identifier, answer, "handle")
    code = answer.get("responseCode")
    if code != NOT_FOUND:
        raise WrongAnswerError(f"{identifier}: responseCode {code}, but it is not registered")


def _check_echo(asked: str, answer: Json, name: str) -> None:
    if answer.get(name) != asked:
        raise WrongAnswerError(f"{asked}: the answer is about {answer.get(name)!r}")


def _revision(asked: str, values: Sequence[Json]) -> int:
    texts = [_text(one) for one in values if one.get("type") == "REVISION"]
    if not texts:
        return 0
    text = texts[0]
    if not (isinstance(text, str) and text.isascii() and text.isdigit()):
        raise WrongAnswerError(f"{asked}: revision {text!r} was never written")
    return int(text)


def _check_values(asked: str, found: Sequence[Json], registered: Sequence[Json]) -> None:
    """Compare everything but the timestamps."""
    shown = {one.get("index"): one for one in found}
    for wanted in registered:
        _check_value(asked, shown.pop(wanted["index"], None), wanted)
    if shown or len(found) != len(registered):
        indexes = ", ".join(str(index) for index in shown) or "twice the same"
        raise WrongAnswerError(f"{asked}: values that were never registered: {indexes}")


def _check_value(asked: str, found: Json | None, wanted: Json) -> None:
    place = f"{asked}: value {wanted['index']} ({wanted['type']})"
    if found is None:
        raise WrongAnswerError(f"{place} is missing, registered was {_text(wanted)!r}")
    if {**found, "timestamp": None} == {**wanted, "timestamp": None}:
        return
    if _text(found) != _text(wanted):
        raise WrongAnswerError(f"{place} is {_text(found)!r}, registered was {_text(wanted)!r}")
    raise WrongAnswerError(f"{place} is {found}, registered was {wanted}")


def _text(value: Json) -> Any:
    data = value.get("data")
    return data.get("value") if isinstance(data, dict) else data
