"""Time as a value. Ledger time is the ledger's; this is the machine's clock, and the arithmetic of UTC days."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol

DAY_S = 86_400


class Clock(Protocol):
    """What the rest of Freehold may know of the machine's time."""

    def now(self) -> float:
        """Wall time, unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards, for timeouts, heartbeats and rates."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class FrozenClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


@dataclass(frozen=True, order=True, slots=True)
class Day:
    """A UTC day, counted from 1970-01-01."""

    number: int

    @classmethod
    def of(cls, at_s: float) -> "Day":
        """The day that contains unix time `at_s`."""
        return cls(int(at_s // DAY_S))

    @classmethod
    def parse(cls, text: str) -> "Day":
        """The day written as `YYYY-MM-DD`. Raises ValueError."""
        return cls(date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal())

    @property
    def start_s(self) -> int:
        return self.number * DAY_S

    @property
    def end_s(self) -> int:
        """The next 00:00: the first second that is no longer this day's."""
        return (self.number + 1) * DAY_S

    @property
    def month(self) -> "Month":
        return Month.of(self.start_s)

    def next(self) -> "Day":
        return Day(self.number + 1)

    def __str__(self) -> str:
        return utc(self.start_s).strftime("%Y-%m-%d")


@dataclass(frozen=True, order=True, slots=True)
class Month:
    """A calendar month, UTC, counted from January of year 0."""

    number: int

    @classmethod
    def of(cls, at_s: float) -> "Month":
        """The month that contains unix time `at_s`."""
        moment = utc(at_s)
        return cls(moment.year * 12 + moment.month - 1)

    @classmethod
    def parse(cls, text: str) -> "Month":
        """`2026-11`, from 1970 to 9998. Raises ValueError."""
        found = re.fullmatch(r"([0-9]{4})-([0-9]{2})", text)
        if found is None or not 1 <= int(found[2]) <= 12 or not 1970 <= int(found[1]) <= 9998:
            raise ValueError(f"{text!r} is not a month such as 2026-11")
        return cls(int(found[1]) * 12 + int(found[2]) - 1)

    @property
    def first(self) -> Day:
        return Day.of(datetime(self.number // 12, self.number % 12 + 1, 1, tzinfo=UTC).timestamp())

    @property
    def start_s(self) -> int:
        return self.first.start_s

    @property
    def end_s(self) -> int:
        """The first second of the next month."""
        return self.next().start_s

    def next(self) -> "Month":
        return Month(self.number + 1)

    def __str__(self) -> str:
        return f"{self.number // 12:04}-{self.number % 12 + 1:02}"


def utc(at_s: float) -> datetime:
    """Unix seconds as an aware UTC datetime."""
    return datetime.fromtimestamp(at_s, UTC)


def rfc3339(at_s: float) -> str:
    """Unix seconds as `2026-11-23T00:00:00Z`."""
    return utc(int(at_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
