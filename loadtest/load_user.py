"""What all users of the load test do: ask, compare with what was registered, and add up.

Importing it (as everything of Locust) makes the standard library cooperate with gevent.
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from locust import FastHttpUser
from locust.user.task import LOCUST_STATE_STOPPING

from loadtest.load_answers import (
    NotAnsweredError,
    Question,
    WrongAnswerError,
    check_found,
    check_not_found,
    read_many,
    read_one,
)
from loadtest.load_products import Products, products_of
from loadtest.load_result import LoadSums
from loadtest.load_revisions import ChangingRecords
from loadtest.load_settings import from_environment

SETTINGS = from_environment()
PRODUCTS = products_of(SETTINGS.prefixes, SETTINGS.products)
RECORDS = ChangingRecords(SETTINGS.grace_s)
SUMS = LoadSums()

# Longer than the node lets anybody wait; after it the answer counts as not received.
ANSWER_WITHIN_S = 20.0
# Of all reads, so many ask for what registrars write: the part where answers could be too old.
_CHANGING_SHARE = 0.1

_numbers = itertools.count(1)


class LoadUser(FastHttpUser):
    """A user with a connection of its own, which asks one thing after the other."""

    abstract = True
    concurrency = 1
    network_timeout = ANSWER_WITHIN_S
    connection_timeout = ANSWER_WITHIN_S

    def on_start(self) -> None:
        """Give the user a number, a random sequence and a memory."""
        self.number = next(_numbers)
        self.chooser = random.Random(self.number)
        self.key: str | None = SETTINGS.key if SETTINGS.is_key_for_all else None
        self._seen: dict[str, int] = {}
        pool = self.client.client.clientpool.get_client(str(self.host))._connection_pool
        # The client would repeat a GET whose answer was lost, and nobody would hear of the loss.
        pool.size = -1

    def stop(self, force: bool = False) -> bool:
        """End after the request under way; returns whether it ended at once."""
        if force or self._state is None:
            return bool(super().stop(force))
        # Locust kills a user that waits, but it may wake up before the kill arrives: then a
        # request would be cut off that nobody can say of whether it was sent.
        self._state = LOCUST_STATE_STOPPING
        return False

    def question(self, products: Products, number: int) -> Question:
        """The question for product `number`, or now and then for a record that changes."""
        if self.chooser.random() < _CHANGING_SHARE:
            changing = RECORDS.question(self.chooser, self._seen, time.monotonic())
            if changing is not None:
                return changing
        return Question(products.identifier(number), number)

    def resolve(self, question: Question, name: str) -> None:
        """Resolve one identifier and check the answer."""

        def check(status: int, body: bytes) -> None:
            answer = read_one(status, body)
            SUMS.answered += 1
            self._note(question, check_found(RECORDS.as_of_now(question), answer))

        self._resolve(question.identifier, name, check)

    def resolve_unknown(self, identifier: str, name: str) -> None:
        """Ask for what nobody registered; the right answer is that it does not exist."""

        def check(status: int, body: bytes) -> None:
            answer = read_one(status, body)
            SUMS.answered += 1
            check_not_found(identifier, answer)

        self._resolve(identifier, name, check)

    def resolve_many(self, questions: Sequence[Question], name: str) -> None:
        """Resolve a batch and check each of its answers."""
        asked = [question.identifier for question in questions]

        def check(status: int, body: bytes) -> None:
            results = read_many(status, body, len(questions))
            SUMS.answered += len(results)
            for question, result in zip(questions, results, strict=True):
                asked_now = RECORDS.as_of_now(question)
                self._note(question, check_found(asked_now, result, "identifier"))

        SUMS.sent += len(asked)
        body = json.dumps({"identifiers": asked})
        self.exchange("POST", "/api/resolve", name, self.key, check, body)

    def acknowledged(self, identifier: str, revision: int) -> None:
        """This user itself was told that `revision` is written: it must see no older one."""
        self._seen[identifier] = revision

    def exchange(
        self,
        method: str,
        path: str,
        name: str,
        key: str | None,
        check: Callable[[int, bytes], object],
        body: str | None = None,
    ) -> bool:
        """Send one request and let `check` judge its answer; returns whether it was right."""
        headers = {} if key is None else {"X-API-Key": key}
        if body is not None:
            headers["Content-Type"] = "application/json"
        # Locust's own signatures say too little for a type checker.
        client: Any = self.client
        options = {"name": name, "headers": headers, "data": body, "catch_response": True}
        with client.request(method, path, **options) as response:
            failure = _failure(response, check)
            if failure is None:
                response.success()
            else:
                response.failure(SUMS.failed(failure))
        return failure is None

    def _resolve(self, identifier: str, name: str, check: Callable[[int, bytes], object]) -> None:
        SUMS.sent += 1
        self.exchange("GET", f"/api/handles/{identifier}", name, self.key, check)

    def _note(self, question: Question, revision: int) -> None:
        if revision:
            seen = self._seen.get(question.identifier, 0)
            self._seen[question.identifier] = max(seen, revision)
            RECORDS.seen(question.identifier, revision, time.monotonic())


def _failure(response: Any, check: Callable[[int, bytes], object]) -> str | None:
    """What is wrong with a response, None if nothing is."""
    if not response.status_code:
        return f"no answer: {response.error!r}"
    try:
        check(response.status_code, response.content or b"")
    except WrongAnswerError as error:
        SUMS.wrong += 1
        return f"wrong answer: {error}"
    except NotAnsweredError as error:
        return str(error)
    return None
