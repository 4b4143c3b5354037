"""Days as the authorities count them, in Python and in SQL."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.day import date_of, day_number, number_of
from registry.database import Database

MIDNIGHT_S = datetime(2026, 11, 23, 16, tzinfo=UTC).timestamp()  # 00:00 of the 24th in Shanghai


@pytest.mark.parametrize(
    ("now_s", "day"),
    [
        (0.0, date(1970, 1, 1)),
        (57_599.999, date(1970, 1, 1)),
        (57_600.0, date(1970, 1, 2)),
        (MIDNIGHT_S - 0.001, date(2026, 11, 23)),
        (MIDNIGHT_S, date(2026, 11, 24)),
        (datetime(2028, 2, 29, 15, 59, 59, tzinfo=UTC).timestamp(), date(2028, 2, 29)),
    ],
)
def test_a_day_begins_at_midnight_in_shanghai(now_s: float, day: date) -> None:
    assert date_of(day_number(now_s)) == day


@given(st.dates())
def test_a_day_and_its_number_are_one(day: date) -> None:
    assert date_of(number_of(day)) == day


async def test_the_database_begins_a_day_at_the_same_moment(database: Database) -> None:
    moments = [MIDNIGHT_S + offset_s for offset_s in (-86_400, -0.6, -0.4, -1e-3, 0, 0.4, 0.6, 60)]
    async with database.connection() as connection:
        found = await connection.fetch(
            "SELECT shanghai_day(at) AS day FROM unnest($1::timestamptz[]) AS at",
            [datetime.fromtimestamp(moment, UTC) for moment in moments],
        )
    assert [row["day"] for row in found] == [day_number(moment) for moment in moments]
