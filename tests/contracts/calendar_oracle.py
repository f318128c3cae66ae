"""Days and months by Python's own calendar, for comparison with the contracts' arithmetic."""

from datetime import UTC, date, datetime, timedelta

EPOCH = date(1970, 1, 1)


def month_of(day: int) -> int:
    """Months since 1970-01 of the UTC day with this number."""
    found = EPOCH + timedelta(days=day)
    return (found.year - 1970) * 12 + found.month - 1


def first_day(month: int) -> int:
    return (date(1970 + month // 12, month % 12 + 1, 1) - EPOCH).days


def days_in(month: int) -> int:
    return first_day(month + 1) - first_day(month)


def label(month: int) -> str:
    return f"{1970 + month // 12:04}-{month % 12 + 1:02}"


def moment(text: str) -> int:
    """Seconds since 1970 of a UTC time such as "2028-02-29 12:00"."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def month(text: str) -> int:
    """Of "2028-02"."""
    year, of_year = text.split("-")
    return (int(year) - 1970) * 12 + int(of_year) - 1
