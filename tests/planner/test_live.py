import numpy as np
import pytest

from freehold.clock import Day
from freehold.planner.live import Crossing, crossing, usage_of_days
from freehold.planner.model import Assumptions, Choice, InvalidAssumption, Usage

TODAY = Day.parse("2026-11-23")


def days_before(count: int) -> Day:
    return Day(TODAY.number - count)


def test_days_without_a_charge_used_nothing_and_the_running_day_is_left_out() -> None:
    spent = [(days_before(1), 2_000_000_000), (TODAY, 9_000_000_000), (days_before(4), 500_000_000)]
    usage = usage_of_days(spent, until=TODAY, calls=3)
    assert usage.first_day == days_before(4)
    assert usage.demand.tolist() == [0.5, 0.0, 0.0, 2.0]
    assert (usage.provenance.days, usage.provenance.days_with_data) == (4, 2)
    assert "2026-11-23" in usage.provenance.notes[0]


def test_an_account_without_an_ended_day_has_no_plan() -> None:
    with pytest.raises(InvalidAssumption):
        usage_of_days([(TODAY, 1)], until=TODAY)


def test_the_day_that_turned_the_answer_is_named() -> None:
    """κ is 0.5 at no resale, no discount and no hazard: one DIEM pays when used on more than half of the days."""
    given = Assumptions(diem_price=50, horizon_days=100, resale=0, discount_rate=0, hazard=0, fee=0)
    usage = Usage(first_day=Day(100), demand=np.array([0.0, 0, 1, 1, 1, 1]))
    assert crossing(usage, given) == Crossing(Day(104), Choice.HOLD)
    assert crossing(Usage(first_day=Day(100), demand=usage.demand[::-1].copy()), given) is None
    falling = Usage(first_day=Day(100), demand=np.array([1.0, 0, 0]))
    assert crossing(falling, given) == Crossing(Day(101), Choice.RENT)


def test_the_crossing_is_said_in_words() -> None:
    assert Crossing(TODAY, Choice.HOLD).sentence.endswith("holding DIEM pays.")
    assert Crossing(TODAY, Choice.RENT).sentence.endswith("holding DIEM no longer pays.")
