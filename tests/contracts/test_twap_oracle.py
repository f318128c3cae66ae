"""TwapOracle against the real Uniswap v3: the half hour's mean, in Morpho's unit, and what it costs to move it."""

from collections.abc import Iterator
from decimal import Decimal, localcontext
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.compiled import compiled
from tests.contracts.evm import Contract, Evm, Signer, refused
from tests.contracts.freehold_chain import ALICE, BOB, DEPLOYER, ONE, Freehold, artifact, deploy, deploy_usdc
from tests.contracts.uniswap import FEE, Pool, make_pool

WINDOW_S = 1_800
BLOCK_S = 12
UNIT = 10**24
"""Of the oracle's answer: 1 USD for 1 DIEM."""
USD = 10**6
DEPTH_DIEM = 1_000 * ONE
PRICE_USD = 183
ATTACKER = Signer.of("attacker").address
A, B = ALICE.address, BOB.address
LOW, HIGH = "0x" + "01" * 20, "0x" + "fe" * 20


class Market:
    """DIEM and USDC in a pool at 183 USD, two hours old, and the oracle over it."""

    def __init__(self, *, base_first: bool, observations: int = WINDOW_S // BLOCK_S + 2) -> None:
        chain = deploy()
        self.evm = chain.evm
        usdc = deploy_usdc(self.evm)
        while (int(chain.diem.address, 16) < int(usdc.address, 16)) != base_first:
            usdc = deploy_usdc(self.evm)
        for owner in (DEPLOYER, ATTACKER):
            chain.give_diem(owner, 10_000 * ONE)
            usdc.mint(owner, 10**17, sender=DEPLOYER)
        quote_amount = PRICE_USD * USD * DEPTH_DIEM // ONE
        self.pool = make_pool(self.evm, chain.diem, usdc, base_amount=DEPTH_DIEM, quote_amount=quote_amount)
        self.pool.approve(ATTACKER)
        self.pool.approve(DEPLOYER)
        self.pool.grow(observations)
        self.y0 = usdc.balanceOf(self.pool.contract.address)
        self.oracle = self.evm.deploy(
            artifact("TwapOracle"), self.pool.contract.address, chain.diem.address, usdc.address, sender=DEPLOYER
        )
        self.evm.warp(4 * WINDOW_S)

    def worth(self) -> float:
        """The oracle's price in USD."""
        return self.oracle.price() / UNIT

    def trade(self) -> None:
        """Enough to change the tick: Uniswap keeps an observation of a block only then."""
        self.pool.buy(100 * USD, sender=ATTACKER)

    def push(self, factor: float) -> int:
        """Buy until the price is `factor` times what it was; returns the USDC paid."""
        net = self.y0 * (factor**0.5 - 1)
        paid = int(net * 1_000_000 / (1_000_000 - FEE))
        self.pool.buy(paid, sender=ATTACKER)
        return paid


@pytest.fixture(scope="module", params=[True, False], ids=["DIEM first", "USDC first"])
def standing(request: pytest.FixtureRequest) -> Market:
    return Market(base_first=request.param)


@pytest.fixture
def market(standing: Market) -> Iterator[Market]:
    with standing.evm.undone():
        yield standing


def within(found: float, wanted: float, relative: float) -> bool:
    return abs(found / wanted - 1) <= relative


# ---- the price


def test_it_says_what_10_to_the_36_of_diem_are_worth_in_usdc(market: Market) -> None:
    assert within(market.oracle.price(), PRICE_USD * UNIT, 1.01e-4)  # a tick is a basis point


def test_it_names_its_pool_its_tokens_and_its_window(market: Market) -> None:
    assert market.oracle.POOL() == market.pool.contract.address
    assert (market.oracle.BASE(), market.oracle.QUOTE()) == (market.pool.base.address, market.pool.quote.address)
    assert market.oracle.WINDOW() == WINDOW_S


def test_the_tokens_must_be_the_pools(market: Market) -> None:
    base, quote = market.pool.base.address, market.pool.quote.address
    pool, first, second = market.pool.contract, market.pool.contract.token0(), market.pool.contract.token1()
    for wrong in ((base, base), (A, quote), (base, A), (quote, quote)):
        with refused("NotInPool", *wrong, first, second):
            market.evm.deploy(artifact("TwapOracle"), pool.address, *wrong, sender=DEPLOYER)


@pytest.fixture(scope="module")
def fixed() -> tuple[Contract, Contract, Contract]:
    """A pool that says what it is told, and oracles over it for either token."""
    evm = Evm()
    pool = evm.deploy(compiled("Doubles")["FixedPool"], LOW, HIGH, sender=DEPLOYER)
    one, other = (
        evm.deploy(artifact("TwapOracle"), pool.address, *pair, sender=DEPLOYER) for pair in ((LOW, HIGH), (HIGH, LOW))
    )
    return pool, one, other


@settings(max_examples=300, deadline=None)
@given(tick=st.integers(-270_000, 270_000))
def test_every_tick_is_its_power_of_1_0001(fixed: tuple[Contract, Contract, Contract], tick: int) -> None:
    pool, one, other = fixed
    pool.setMoved(tick * WINDOW_S, sender=DEPLOYER)
    with localcontext(prec=60):
        power = Decimal("1.0001") ** tick
        for oracle, exact in ((one, power * 10**36), (other, 10**36 / power)):
            assert abs(oracle.price() - exact) <= exact / 10**9 + 1  # sqrt prices have 96 binary digits below 1


@pytest.mark.parametrize("tick", [-887_272, -443_636, -1, 0, 1, 443_636, 443_637, 887_272])
def test_the_widest_ticks_have_a_price_too(fixed: tuple[Contract, Contract, Contract], tick: int) -> None:
    pool, one, other = fixed
    pool.setMoved(tick * WINDOW_S, sender=DEPLOYER)
    with localcontext(prec=60):
        power = Decimal("1.0001") ** tick
        for oracle, exact in ((one, power * 10**36), (other, 10**36 / power)):
            assert abs(oracle.price() - exact) <= exact / 10**7 + 1


@pytest.mark.parametrize(("moved", "tick"), [(0, 0), (1_799, 0), (1_800, 1), (-1, -1), (-1_800, -1), (-1_801, -2)])
def test_the_mean_tick_is_rounded_down(fixed: tuple[Contract, Contract, Contract], moved: int, tick: int) -> None:
    pool, one, _ = fixed
    pool.setMoved(moved, sender=DEPLOYER)
    assert one.meanTick() == tick


# ---- the window


def test_a_history_that_is_too_short_is_refused() -> None:
    market = Market(base_first=True, observations=2)
    market.trade()
    market.evm.warp(1)
    market.trade()
    with refused("HistoryTooShort", WINDOW_S):
        market.oracle.price()


def test_a_real_move_is_followed_within_the_window(market: Market) -> None:
    market.push(1.44)
    assert within(market.worth(), PRICE_USD, 2e-4)
    market.evm.warp(WINDOW_S // 2)
    assert within(market.worth(), PRICE_USD * 1.2, 3e-4)  # half the way, as the geometric mean goes
    market.evm.warp(WINDOW_S // 2)
    assert within(market.worth(), PRICE_USD * 1.44, 3e-4)


def test_a_crash_is_followed_without_a_limit(market: Market) -> None:
    market.pool.sell(9 * DEPTH_DIEM, sender=ATTACKER)  # to a hundredth
    market.evm.warp(WINDOW_S)
    assert within(market.worth(), PRICE_USD / (1 + 9 * (1 - FEE / 1e6)) ** 2, 3e-4)


def test_an_hour_of_swaps_in_every_block_does_not_make_it_revert() -> None:
    """A block a second: the pool then needs 1,800 observations and one more."""
    market = Market(base_first=True, observations=WINDOW_S + 1)
    before = market.worth()
    for second in range(3_600):
        market.evm.warp(1)
        if second % 2:
            market.pool.buy(183 * USD, sender=ATTACKER)
        else:
            market.pool.sell(ONE, sender=ATTACKER)
        if second % 60 == 59:
            assert within(market.worth(), before, 0.01)
    assert market.pool.contract.slot0()[3] == WINDOW_S + 1


def test_too_few_observations_for_its_blocks_make_it_refuse() -> None:
    market = Market(base_first=True, observations=100)
    for _ in range(150):
        market.evm.warp(1)
        market.trade()
    with refused("HistoryTooShort", WINDOW_S):
        market.oracle.price()


# ---- attacks


def test_within_a_block_nothing_moves_it(market: Market) -> None:
    """A sandwich, or a flash loan: buy, let a victim trade, sell, all in one block."""
    before = market.oracle.price()
    market.push(100.0)
    assert market.oracle.price() == before
    market.pool.buy(1_000 * USD, sender=DEPLOYER)
    assert market.oracle.price() == before
    market.pool.sell(9 * DEPTH_DIEM // 10, sender=ATTACKER)
    assert market.oracle.price() == before


def test_a_sandwich_leaves_at_most_its_last_price_for_the_next_block(market: Market) -> None:
    bought = market.pool.base.balanceOf(ATTACKER)
    market.push(4.0)
    bought = market.pool.base.balanceOf(ATTACKER) - bought
    market.pool.buy(50 * USD, sender=DEPLOYER)
    market.pool.sell(bought, sender=ATTACKER)
    market.evm.warp(BLOCK_S)
    assert within(market.worth(), PRICE_USD, 3e-4)


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1.05, 10_000), blocks=st.integers(1, 30))
def test_a_price_held_for_blocks_moves_the_mean_by_their_share_of_the_window(
    standing: Market, factor: float, blocks: int
) -> None:
    with standing.evm.undone():
        before = standing.pool.price
        standing.push(factor)
        reached = standing.pool.price / before
        standing.evm.warp(blocks * BLOCK_S)
        share = blocks * BLOCK_S / WINDOW_S
        assert within(standing.worth(), PRICE_USD * reached**share, 3e-4)


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1.05, 10_000))
def test_to_move_the_price_costs_what_the_formula_says(standing: Market, factor: float) -> None:
    """Once others trade it back, the attacker has lost y0·(k^¼ − k^−¼)² and the fee on what went in."""
    with standing.evm.undone():
        fair = standing.pool.price
        had = standing.pool.base.balanceOf(ATTACKER)
        paid = standing.push(factor)
        reached = standing.pool.price / fair
        got = standing.pool.base.balanceOf(ATTACKER) - had
        lost = paid - got * fair
        fee = paid * FEE / 1_000_000
        reference = standing.y0 * (reached**0.25 - reached**-0.25) ** 2
        assert within(lost - fee, reference, 1e-5)


def test_to_double_the_mean_for_a_block_needs_more_than_any_pool_has(standing: Market) -> None:
    """With one block of 12 s the price must rise 2^150-fold; with 30 of them it costs 3.8 times what the pool has."""
    for blocks, least in ((1, 1e21), (30, 3.0)):
        needed = 2 ** (WINDOW_S / (blocks * BLOCK_S))
        cost = standing.y0 * (needed**0.25 - needed**-0.25) ** 2
        assert cost >= least * standing.y0
    assert log(2 ** (WINDOW_S / BLOCK_S), 1.0001) > 887_272  # there is no such tick


def test_an_oracle_holds_nothing_and_changes_nothing(market: Market) -> None:
    names = [entry["name"] for entry in artifact("TwapOracle")["abi"] if entry["type"] == "function"]
    assert sorted(names) == ["BASE", "POOL", "QUOTE", "WINDOW", "meanTick", "price"]
    assert {entry["stateMutability"] for entry in artifact("TwapOracle")["abi"] if entry["type"] == "function"} == {
        "view"
    }


def test_a_pool_of_principal_has_an_oracle_too(chain: Freehold) -> None:
    month = chain.strips.months()[0] + 2
    chain.give_diem(DEPLOYER, 100 * ONE)
    chain.diem.approve(chain.strips.address, 100 * ONE, sender=DEPLOYER)
    chain.strips.split(month, 100 * ONE, DEPLOYER, sender=DEPLOYER)
    _, principal = chain.series(month)
    usdc = deploy_usdc(chain.evm)
    usdc.mint(DEPLOYER, 10**12, sender=DEPLOYER)
    pool: Pool = make_pool(chain.evm, principal, usdc, base_amount=100 * ONE, quote_amount=17_000 * USD)
    pool.grow(10)
    oracle = chain.evm.deploy(
        artifact("TwapOracle"), pool.contract.address, principal.address, usdc.address, sender=DEPLOYER
    )
    chain.evm.warp(WINDOW_S)
    assert within(oracle.price(), 170 * UNIT, 2e-4)
