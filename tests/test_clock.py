import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.clock import DAY_S, Day, FrozenClock, Month, SystemClock, rfc3339, utc


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


def test_a_month_is_a_calendar_month_in_utc() -> None:
    month = Month.parse("2028-02")
    assert (str(month), str(month.first), month.next()) == ("2028-02", "2028-02-01", Month.parse("2028-03"))
    assert month.end_s - month.start_s == 29 * DAY_S
    assert Month.of(month.end_s - 1) == month and Month.of(month.end_s) == month.next()
    assert Month.parse("2027-12").next() == Month.parse("2028-01")


@pytest.mark.parametrize("text", ["2028", "2028-00", "2028-13", "2028-1", "28-01", "9999-12", "1969-12", "2028-01-01"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="month"):
        Month.parse(text)
