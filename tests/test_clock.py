import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.clock import Day, FrozenClock, SystemClock, rfc3339, utc


@given(st.integers(0, 10**10))
def test_a_time_lies_within_its_day(at_s: int) -> None:
    day = Day.of(at_s)
    assert day.start_s <= at_s < day.end_s
    assert day.next().start_s == day.end_s


def test_a_day_ends_at_the_next_midnight_utc() -> None:
    midnight = Day.of(1_800_000_000).end_s
    assert rfc3339(midnight) == "2027-01-16T00:00:00Z"
    assert Day.of(midnight - 0.001) == Day.of(1_800_000_000)
    assert Day.of(midnight) == Day.of(1_800_000_000).next()


def test_a_day_is_written_as_its_date_and_ordered() -> None:
    assert str(Day(0)) == "1970-01-01"
    assert Day(1) > Day(0)


def test_times_are_written_in_utc_to_the_second() -> None:
    assert rfc3339(0.9) == "1970-01-01T00:00:00Z"
    assert utc(0).tzinfo is not None


def test_a_frozen_clock_moves_only_when_told() -> None:
    clock = FrozenClock(now=100.0)
    assert (clock.now(), clock.monotonic()) == (100.0, 0.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (102.5, 2.5)


def test_the_systems_clock_never_runs_backwards() -> None:
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    assert clock.now() == pytest.approx(clock.now(), abs=60)
