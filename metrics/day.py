"""Days as the authorities count them: the calendar of Asia/Shanghai."""

from datetime import date, timedelta

# China has had no daylight saving time since 1991, so the offset is a constant.
SHANGHAI_OFFSET_S = 8 * 3600
DAY_S = 86_400
_EPOCH = date(1970, 1, 1)


def day_number(now_s: float) -> int:
    """Days since 1970-01-01 in Asia/Shanghai at `now_s` (seconds since 1970, UTC)."""
    return (int(now_s) + SHANGHAI_OFFSET_S) // DAY_S


def date_of(day: int) -> date:
    """The calendar date of a day number."""
    return _EPOCH + timedelta(days=day)


def number_of(day: date) -> int:
    """The day number of a calendar date."""
    return (day - _EPOCH).days
