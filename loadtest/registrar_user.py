"""Registrars: they register and change records, and look whether the node answers with them."""

import json
import time
import uuid

from locust import between, task

from loadtest.load_answers import NotAnsweredError, Question, WrongAnswerError
from loadtest.load_products import product_values
from loadtest.load_revisions import Revisions
from loadtest.load_user import PRODUCTS, RECORDS, SETTINGS, LoadUser

# Of this process: nobody has registered these names before, not in an earlier run either.
_RUN = uuid.uuid4().hex[:12]
# Then only changes follow: a long run must not fill the registry.
_RECORDS_MAX = 200
_NEW_SHARE = 0.4
_WRITTEN = {200: "changed", 201: "registered"}


class RegistrarUser(LoadUser):
    """An ERP system that keeps records up to date, at a low rate."""

    abstract = SETTINGS.write_key is None
    weight = 1
    wait_time = between(0.2, 0.8)

    def on_start(self) -> None:
        """Begin without records."""
        super().on_start()
        self._records: list[Revisions] = []

    @task
    def write(self) -> None:
        """Register a new record or change an old one, and read it back."""
        is_new = not self._records or self.chooser.random() < _NEW_SHARE
        if is_new and len(self._records) < _RECORDS_MAX:
            self._register()
        else:
            self._change(self.chooser.choice(self._records))

    def _register(self) -> None:
        number = len(self._records) + 1
        prefix = self.chooser.choice(PRODUCTS).prefix
        identifier = f"{prefix}/N-{_RUN}-{self.number}-{number}"
        # What was "not found" a moment ago must not stay so.
        self.resolve_unknown(identifier, "registrar: not yet registered")
        record = Revisions(identifier, number)
        if self._put(record, 201, "registrar: register"):
            self._records.append(record)
            RECORDS.add(record)
            self._read_back(record)

    def _change(self, record: Revisions) -> None:
        if self._put(record, 200, "registrar: change"):
            self._read_back(record)
        else:
            # It may still arrive, after later ones: nothing certain can be said of it any more.
            RECORDS.drop(record)
            self._records.remove(record)

    def _put(self, record: Revisions, expected: int, name: str) -> bool:
        """Write the next revision; returns whether it was acknowledged."""
        record.newest += 1
        values = product_values(record.number, record.newest)

        def check(status: int, body: bytes) -> None:
            _check_written(record.identifier, expected, status, body)
            record.known(record.newest, time.monotonic())
            self.acknowledged(record.identifier, record.newest)

        path = f"/api/handles/{record.identifier}"
        return self.exchange("PUT", path, name, SETTINGS.write_key, check, json.dumps(values))

    def _read_back(self, record: Revisions) -> None:
        newest = record.newest
        question = Question(record.identifier, record.number, newest, newest)
        self.resolve(question, "registrar: read back")


def _check_written(identifier: str, expected: int, status: int, body: bytes) -> None:
    if status not in _WRITTEN:
        raise NotAnsweredError(
            f"write refused: HTTP {status} {body[:200].decode(errors='replace')}"
        )
    if status != expected:
        raise WrongAnswerError(
            f"{identifier}: {_WRITTEN[status]}, expected it to be {_WRITTEN[expected]}"
        )
    try:
        is_told = json.loads(body) == {"responseCode": 1, "handle": identifier}
    except ValueError:
        is_told = False
    if not is_told:
        raise WrongAnswerError(f"{identifier}: the acknowledgement is {body[:200]!r}")
