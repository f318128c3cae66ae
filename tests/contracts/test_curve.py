"""The curve: near its formula everywhere, and in Solidity exactly the integral that fractions give."""

import random
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.curve_oracle import CurveOracle
from tests.contracts.evm import refused
from tests.contracts.freehold_chain import ALICE, COMMITTED, DEPLOYER, ONE, OPERATOR, Freehold, deploy
from tests.contracts.lengths import draws, limit_s

from freehold.chain import curve

POINTS = curve.points()
ORACLE = CurveOracle(POINTS)
EVEN = [(0, 2 * ONE), (100 * ONE, 4 * ONE)]


def test_the_table_fits_the_contract_and_spans_zero_to_fifty_thousand() -> None:
    supplies = [supply for supply, _ in POINTS]
    assert len(POINTS) <= 256
    assert (supplies[0], supplies[-1]) == (0, 50_000 * ONE)
    assert supplies == sorted(set(supplies))
    assert all(rate < following for (_, rate), (_, following) in pairwise(POINTS))


def test_the_table_is_within_a_ten_thousandth_of_the_formula_everywhere() -> None:
    """On every whole DIEM near each segment's middle, and on forty places of each segment."""
    for (start, _), (end, _) in pairwise(POINTS):
        for step in range(41):
            supply = Fraction(start) + Fraction(end - start) * step / 40
            line = ORACLE.rate(supply)
            formula = Fraction(curve.rate(supply / ONE)) * ONE
            assert 0 <= line / formula - 1 <= Fraction(1, 10_000)


@given(start=st.integers(0, 49_999), width=st.integers(1, 2_000), part=st.fractions(0, 1))
def test_the_error_bound_bounds_the_error_of_any_chord(start: int, width: int, part: Fraction) -> None:
    end = min(start + width, 50_000)
    low, high = Fraction(curve.rate(start)), Fraction(curve.rate(end))
    line = low + (high - low) * part
    formula = Fraction(curve.rate(start + (end - start) * part))
    assert line / formula - 1 <= Fraction(curve.error_bound(start, end)) + Fraction(1, 10**40)


def test_the_formula_has_the_live_networks_rates() -> None:
    assert round(curve.rate(10_000), 3) == Decimal("93.341")
    assert round(curve.rate(38_000), 1) == Decimal("665.0")


def test_the_contract_keeps_the_points_and_sums_their_cost(chain: Freehold) -> None:
    words = chain.staking.curve()
    read = [(word >> 176, word >> 96 & (1 << 80) - 1, word & (1 << 96) - 1) for word in words]
    assert read == [(supply, rate, ORACLE.cost(supply)) for supply, rate in POINTS]


def supplies() -> st.SearchStrategy[int]:
    edges = st.sampled_from(POINTS).flatmap(lambda point: st.integers(-3, 3).map(lambda near: point[0] + near))
    return st.one_of(st.integers(0, 50_000 * ONE), edges.map(lambda supply: min(max(supply, 0), 50_000 * ONE)))


@settings(max_examples=1_000)
@given(supply=supplies())
def test_the_cost_of_any_supply_is_the_integral_rounded_up(deployed: Freehold, supply: int) -> None:
    assert deployed.staking.costOf(supply) == ORACLE.cost(supply)


@settings(max_examples=1_000)
@given(supply=supplies())
def test_the_inverse_gives_the_largest_supply_that_a_lock_pays_for(deployed: Freehold, supply: int) -> None:
    """Near every supply: never more than the lock pays for, and not 1 wei less."""
    for lock in {max(ORACLE.cost(supply) + off, 0) for off in (-1, 0, 1)}:
        if lock <= ORACLE.cost(ORACLE.end):
            bought = deployed.staking.quoteMint(lock)
            assert ORACLE.area(bought) <= lock
            assert bought == ORACLE.end or ORACLE.area(bought + 1) > lock


def test_the_inverse_is_exact_where_its_root_is_a_billionth_of_a_wei_too_large(chain: Freehold) -> None:
    """On this long and almost flat line each of these supplies costs 10^-18 wei or so more than the lock."""
    points = [(0, 2 * ONE), (10**24, 2 * ONE + 2)]
    oracle = CurveOracle(points)
    chain.govern(chain.staking, "setCurve", points)
    for thousands in range(1, 1_000):
        supply = thousands * 10**21 + 1
        assert chain.staking.quoteMint(int(oracle.area(supply))) == supply - 1


@pytest.mark.timeout(limit_s(300))
def test_draws_agree_with_exact_fractions(deployed: Freehold) -> None:
    """A hundred thousand of them: as many of the cost as of the inverse."""
    draw, whole = random.Random(402031), ORACLE.cost(ORACLE.end)
    for _ in range(draws(100_000) // 2):
        supply, lock = draw.randrange(ORACLE.end + 1), draw.randrange(whole)
        assert deployed.staking.costOf(supply) == ORACLE.cost(supply)
        bought = deployed.staking.quoteMint(lock)
        assert ORACLE.area(bought) <= lock < ORACLE.area(bought + 1)


def test_minting_a_thousand_in_ten_steps_costs_exactly_what_one_step_does(chain: Freehold) -> None:
    chain.give_diem(ALICE.address, 12_345 * ONE + 678)
    chain.give_stake(ALICE.address, 1_000_000 * ONE)
    costs = []
    for steps in (1, 10):
        with chain.evm.undone():
            for _ in range(steps):
                chain.staking.mintExact(1_000 * ONE // steps, 2**255, sender=ALICE.address)
            costs.append(chain.staking.totalLocked())
    assert costs[0] == costs[1]


@settings(max_examples=50)
@given(
    start=st.integers(1, 30_000 * ONE),
    parts=st.lists(st.integers(1, 700 * ONE), min_size=1, max_size=12),
)
def test_any_split_of_a_mint_costs_exactly_the_same(deployed: Freehold, start: int, parts: list[int]) -> None:
    chain = deployed
    with chain.evm.undone():
        chain.give_diem(ALICE.address, start)
        before = chain.staking.totalLocked()
        chain.give_stake(ALICE.address, chain.staking.quoteLock(sum(parts)))
        for part in parts:
            chain.staking.mintExact(part, 2**255, sender=ALICE.address)
        assert chain.staking.totalLocked() - before == ORACLE.cost(start + sum(parts)) - ORACLE.cost(start)
        assert chain.staking.unlockedOf(ALICE.address) == 0


def test_a_new_curve_is_announced_with_the_old_one_and_prices_the_next_mint(chain: Freehold) -> None:
    chain.give_diem(ALICE.address, 1_000 * ONE)
    locked = chain.staking.positionOf(ALICE.address)
    old = chain.staking.curve()
    doubled = [(supply, rate * 2) for supply, rate in POINTS]
    with chain.evm.undone():
        chain.govern(chain.staking, "setCurve", doubled)
        changed = chain.evm.events()[0]
        assert (changed.name, changed.arguments["oldWords"]) == ("CurveChanged", old)
        assert changed.arguments["newWords"] == chain.staking.curve() != old
        assert chain.staking.positionOf(ALICE.address) == locked
        assert chain.staking.quoteLock(ONE) == CurveOracle(doubled).cost(1_001 * ONE) - CurveOracle(doubled).cost(
            1_000 * ONE
        )


def test_a_shorter_curve_leaves_no_old_points(chain: Freehold) -> None:
    short = [(0, 90 * ONE), (60_000 * ONE, 90 * ONE)]
    chain.govern(chain.staking, "setCurve", short)
    assert len(chain.staking.curve()) == 2
    assert chain.staking.quoteLock(ONE) == 90 * ONE


@pytest.mark.parametrize(
    ("points", "refusal"),
    [
        ([], ("CurveLength", 0, 256)),
        ([(0, ONE)], ("CurveLength", 1, 256)),
        ([(i * ONE, 2 * ONE) for i in range(257)], ("CurveLength", 257, 256)),
        ([(ONE, 2 * ONE), (9 * ONE, 2 * ONE)], ("CurveStart", ONE, 2 * ONE)),
        ([(0, 2 * ONE - 1), (9 * ONE, 2 * ONE)], ("CurveStart", 0, 2 * ONE - 1)),
        ([(0, 2 * ONE), (ONE, 2 * ONE), (ONE, 4 * ONE)], ("CurveSupplyNotRising", 2, ONE, ONE)),
        ([(0, 2 * ONE), (ONE, 2 * ONE - 1)], ("CurveRateFalling", 1, 2 * ONE - 1, 2 * ONE)),
        ([(0, 2 * ONE), (ONE, 2 * ONE + 1)], ("CurveSegmentNotWhole", 1, 4 * ONE * ONE + ONE)),
        (
            [(0, 10**24), (10**24, 10**24)],
            ("CurveTooCostly", 1, 10**30, 2**96 - 1),
        ),
        (EVEN, ("CurveBelow", 100 * ONE, COMMITTED)),
    ],
)
def test_a_bad_curve_is_refused(chain: Freehold, points: list[tuple[int, int]], refusal: tuple[object, ...]) -> None:
    with refused(*refusal):
        chain.govern(chain.staking, "setCurve", points)


def test_a_curve_that_ends_below_the_supply_is_refused(chain: Freehold) -> None:
    chain.give_diem(ALICE.address, 101 * ONE)
    chain.govern(chain.staking, "setCommitted", OPERATOR, 0)
    with refused("CurveBelow", 100 * ONE, 101 * ONE):
        chain.govern(chain.staking, "setCurve", EVEN)


def test_only_the_timelock_sets_the_curve(chain: Freehold) -> None:
    with refused("NotTimelock", DEPLOYER):
        chain.staking.setCurve(POINTS, sender=DEPLOYER)


def test_a_lock_or_supply_beyond_the_curve_is_refused(chain: Freehold) -> None:
    whole = ORACLE.cost(ORACLE.end)
    assert chain.staking.quoteMint(whole) == ORACLE.end
    with refused("LockBeyondCurve", whole + 1, whole):
        chain.staking.quoteMint(whole + 1)
    with refused("BeyondCurve", ORACLE.end + 1, ORACLE.end):
        chain.staking.costOf(ORACLE.end + 1)


def test_without_a_curve_nothing_can_be_minted_or_committed() -> None:
    bare = deploy(curved=False)
    with refused("LockBeyondCurve", ONE, 0):
        bare.staking.quoteMint(ONE)
    with refused("CurveBelow", 0, ONE):
        bare.govern(bare.staking, "setCommitted", OPERATOR, ONE)
