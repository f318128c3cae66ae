"""How list prices moved, and where they may go."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from freehold.clock import Day
from freehold.planner.list_prices import LARGEST_JUMP, Listed, history, read_history
from freehold.planner.loaders.problems import BadRows, UnknownListPrices
from freehold.planner.model import Assumptions, Usage
from freehold.planner.planner import plan

FIRST = date(2026, 1, 1)


def listed(model: str, *prices: tuple[int, float]) -> list[Listed]:
    return [Listed(FIRST + timedelta(days), "p", model, usd, 2 * usd) for days, usd in prices]


def test_changes_are_counted_a_model_and_year() -> None:
    made = history([*listed("a", (0, 4.0), (100, 2.0), (200, 2.0)), *listed("b", (100, 1.0), (365, 1.0))])
    assert made.models == 2
    assert made.factors.tolist() == [0.5]
    assert made.changes_a_year == pytest.approx(365 / (365 + 265))
    assert (made.first, made.last) == (FIRST, FIRST + timedelta(365))


def test_a_price_blends_input_and_output() -> None:
    rows = [Listed(FIRST, "p", "a", 1.0, 4.0), Listed(FIRST + timedelta(9), "p", "a", 1.0, 8.0)]
    assert history(rows, output_share=0.5).factors.tolist() == [9 / 5]
    assert history(rows, output_share=0.0).factors.tolist() == []


def test_a_wild_change_is_cut() -> None:
    assert history(listed("a", (0, 1.0), (9, 1_000.0), (10, 1.0))).factors.tolist() == [LARGEST_JUMP, 1 / LARGEST_JUMP]


def test_paths_move_by_the_factors_seen_as_often_as_they_were_seen() -> None:
    made = history(listed("a", (0, 4.0), (100, 2.0), (365, 2.0)))
    paths = made.paths(365, 20_000, seed=3)
    assert paths.shape == (20_000, 365)
    jumps = np.log2(1 / paths[:, -1])
    assert np.allclose(jumps, np.round(jumps))
    assert jumps.mean() == pytest.approx(1.0, abs=0.03)
    assert (np.diff(paths, axis=1) <= 0).all()
    assert np.array_equal(paths, made.paths(365, 20_000, seed=3))


def test_prices_that_never_changed_stand_still() -> None:
    assert (history(listed("a", (0, 4.0), (365, 4.0))).paths(30, 10, seed=1) == 1.0).all()


def test_when_list_prices_fall_a_fixed_workload_needs_fewer_diem() -> None:
    usage = Usage(Day(20_000), np.random.default_rng(1).gamma(2.0, 20.0, 56))
    still = plan(usage, Assumptions(diem_price=150.0, paths=500))
    falling = plan(usage, Assumptions(diem_price=150.0, list_price_change=-1.0, paths=500))
    assert 0 < falling.size < still.size
    assert falling.saving < still.saving


def test_a_history_of_falling_list_prices_makes_holding_win_less_often() -> None:
    usage = Usage(Day(20_000), np.random.default_rng(1).gamma(2.0, 20.0, 56))
    given = Assumptions(diem_price=150.0, hazard=0.1, paths=2_000)
    falls = history(listed("a", (0, 4.0), (50, 2.0), (100, 1.0), (150, 0.5), (200, 0.25)))
    still = plan(usage, given)
    falling = plan(usage, given, list_prices=falls.paths(given.horizon_days, given.paths, seed=1))
    assert falling.hold_beats_rent < still.hold_beats_rent
    assert falling.size_by_risk < still.size_by_risk
    assert falling.cost("rent").spread.mean < 0.6 * still.cost("rent").spread.mean


HEAD = "observed_date,provider,model,input_usd_per_mtok,output_usd_per_mtok\n"


def test_a_history_is_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(HEAD + "2026-01-01,p,a,1.5,\n2026-01-01,p,auto,-1000000.0,-1\n", "utf-8")
    assert read_history(path) == [Listed(FIRST, "p", "a", 1.5, 0.0), Listed(FIRST, "p", "auto", 0.0, 0.0)]


def test_a_bad_price_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(HEAD + "2026-01-01,p,a,1,2\n2026-01-02,p,a,x,2\n", "utf-8")
    with pytest.raises(BadRows, match=r"prices\.csv, line 3"):
        read_history(path)


def test_a_table_without_prices_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("a,b\n", "utf-8")
    with pytest.raises(UnknownListPrices, match="no column observed_date"):
        read_history(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"observed_date,provider,model,input_usd_per_mtok,output_usd_per_mtok\n", "no row with a price"),
        (
            b"observed_date,provider,model,input_usd_per_mtok,output_usd_per_mtok\n2026-01-01,p,m,,\n",
            "no row with a price",
        ),
        (b"\x7fELF\xd0\x00", "no text in UTF-8"),
        (b"a" * 200_000, "no table"),
        (b"", "no column observed_date"),
    ],
)
def test_what_is_no_history_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    file = tmp_path / "prices.csv"
    file.write_bytes(content)
    with pytest.raises(UnknownListPrices, match=named):
        read_history(file)


def test_a_history_needs_a_price() -> None:
    with pytest.raises(ValueError, match="at least one price"):
        history([])


def test_the_real_history_has_prices_that_fall_and_rise(traces: Path) -> None:
    made = history(read_history(traces / "llm_prices" / "genai_prices_history.csv"))
    assert made.models > 1_500
    assert 0 < made.changes_a_year < 1
    assert made.factors.min() < 0.5 < 2 < made.factors.max()
