"""Buying and selling on Uniswap v3: what the quote says is what comes, never worse than the bound, and refusals in words."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest
from tests.chain.defi.credit_lab import ONE, USD, Town, town, undone
from tests.chain.defi.lab import FOLDER

from freehold.chain.defi import pools, swaps, uniswap
from freehold.chain.defi.deploy import deploy_defi
from freehold.chain.defi.swaps import Quote, Traded
from freehold.chain.problems import NotEnough, Reverted
from freehold.chain.wallet import DevWallet
from freehold.problems import InvalidRequest, NotFound

pytestmark = pytest.mark.timeout(1_200)  # the first test of all fetches and compiles
HALF = Decimal("0.005")


@pytest.fixture(scope="module")
async def made() -> AsyncIterator[Town]:
    async with town() as found:
        yield found


@pytest.fixture
async def place(made: Town) -> AsyncIterator[Town]:
    async with undone(made.anvil):
        yield made


async def quoted(
    place: Town, amount: int, symbol: str = "DIEM", *, buying: bool, in_usdc: bool = False, slippage: Decimal = HALF
) -> Quote:
    return await swaps.quote(
        place.rpc, place.deployment, place.defi, symbol, amount, buying=buying, in_usdc=in_usdc, slippage=slippage
    )


async def traded(place: Town, wallet: DevWallet, quote: Quote) -> Traded:
    return await swaps.carry_out(wallet, await swaps.prepare(wallet, place.defi, quote))


async def holdings(place: Town, wallet: DevWallet) -> tuple[int, int]:
    contracts = place.contracts
    return await place.balance(contracts.diem, wallet), await place.balance(contracts.usdc, wallet)


@pytest.mark.parametrize("in_usdc", [False, True])
@pytest.mark.parametrize("buying", [False, True])
async def test_what_was_quoted_is_what_comes(place: Town, buying: bool, in_usdc: bool) -> None:
    alice = await place.holder("alice", diem=10, usdc=2_000)
    quote = await quoted(place, 500 * USD if in_usdc else 3 * ONE, "diem", buying=buying, in_usdc=in_usdc)
    asked = quote.paid if quote.exact_paid else quote.received
    assert asked == (500 * USD if in_usdc else 3 * ONE)
    before = await holdings(place, alice)
    done = await traded(place, alice, quote)
    assert (done.paid, done.received, done.symbol, done.buying) == (quote.paid, quote.received, "DIEM", buying)
    diem, usdc = await holdings(place, alice)
    moved = (diem - before[0], usdc - before[1])
    assert moved == ((done.received, -done.paid) if buying else (-done.paid, done.received))
    state = await pools.state_of(place.rpc, place.deployment, place.defi, "DIEM")
    assert state.root == quote.root_after
    assert abs(done.price_after - state.price) < Decimal("1e-9")
    given = place.contracts.usdc if buying else place.contracts.diem
    assert await alice.read(given, "allowance", alice.address, place.defi.router) == 0


async def test_impact_is_what_a_full_range_pool_of_its_size_must_have(place: Town) -> None:
    """x·y = k over 500 DIEM: of n DIEM that enter, n/(500 + n) of the value is lost, and the fee is beside it."""
    for sold in (1, 50, 150):
        quote = await quoted(place, sold * ONE, buying=False)
        entering = Decimal(sold) * Decimal("0.997")
        assert abs(quote.impact - entering / (500 + entering)) < Decimal("1e-5")
        assert abs(quote.price / quote.state.price - Decimal("0.997") * (1 - quote.impact)) < Decimal("1e-5")
    assert quote.fee == 150 * ONE * 3 // 1_000
    bought = await quoted(place, 100 * ONE, buying=True)
    assert abs(bought.impact - Decimal(100) / 500) < Decimal("1e-5")  # pays 500/400, so a fifth is lost
    assert (bought.least_received, bought.most_paid) == (100 * ONE, uniswap.more_down(bought.paid, HALF))


async def test_a_trade_that_comes_out_worse_than_its_bound_is_refused_and_nothing_moves(place: Town) -> None:
    alice, bob = await place.holder("alice", diem=10, usdc=2_000), await place.holder("bob", diem=60, usdc=100_000)
    selling = await quoted(place, 5 * ONE, buying=False)
    await traded(place, bob, await quoted(place, 20 * ONE, buying=False))
    held = await holdings(place, alice)
    with pytest.raises(
        Reverted, match="Selling DIEM was refused by the contract: the price has moved, and it would give less"
    ):
        await swaps.prepare(alice, place.defi, selling)
    buying = await quoted(place, 5 * ONE, buying=True)
    await traded(place, bob, await quoted(place, 20 * ONE, buying=True))
    with pytest.raises(
        Reverted,
        match="Buying DIEM was refused by the contract: it would take more of the wallet's tokens than was allowed",
    ):
        await swaps.prepare(alice, place.defi, buying)
    assert await holdings(place, alice) == held
    assert await alice.read(place.contracts.usdc, "allowance", alice.address, place.defi.router) == 0
    wide = replace(buying, slippage=Decimal("0.2"))
    done = await traded(place, alice, wide)
    assert done.received == 5 * ONE
    assert buying.most_paid < done.paid <= wide.most_paid


async def test_a_wallet_that_has_approved_more_pays_no_more_than_its_bound(place: Town) -> None:
    alice, bob = await place.holder("alice", usdc=2_000), await place.holder("bob", usdc=100_000)
    usdc, router = place.contracts.usdc, place.defi.router
    await alice.send(usdc, "approve", router, 2_000 * USD, what="Approving")
    buying = await quoted(place, 5 * ONE, buying=True)
    await traded(place, bob, await quoted(place, 20 * ONE, buying=True))
    with pytest.raises(Reverted, match="it would cost more than the most that was allowed"):
        await swaps.prepare(alice, place.defi, buying)
    await traded(place, alice, await quoted(place, ONE, buying=True))
    assert await alice.read(usdc, "allowance", alice.address, router) > 1_500 * USD  # what others gave stays theirs


async def test_no_slippage_is_a_bound_too(place: Town) -> None:
    alice = await place.holder("alice", diem=10)
    quote = await quoted(place, ONE, buying=False, slippage=Decimal(0))
    assert quote.least_received == quote.received
    assert (await traded(place, alice, quote)).received == quote.received


async def test_a_quote_does_not_wait_for_ever(place: Town) -> None:
    alice = await place.holder("alice", diem=10)
    quote = await quoted(place, ONE, buying=False)
    await place.wait(uniswap.DEADLINE_S + 1)
    with pytest.raises(Reverted, match="it waited too long; ask for a new quote"):
        await swaps.prepare(alice, place.defi, quote)


async def test_strips_and_principals_are_bought_and_sold(place: Town) -> None:
    alice = await place.holder("alice", usdc=1_000)
    for symbol in list(place.defi.pools)[1:]:
        token = pools.token_at(place.defi.pools[symbol].base, symbol)
        done = await traded(place, alice, await quoted(place, ONE, symbol.lower(), buying=True))
        assert await place.balance(token, alice) == done.received == ONE
        await traded(place, alice, await quoted(place, ONE, symbol, buying=False))
        assert await place.balance(token, alice) == 0


async def test_more_than_there_is_is_refused_in_words(place: Town) -> None:
    alice = await place.holder("alice", diem=1, usdc=100)
    for amount in (500 * ONE, 10**9 * ONE):
        with pytest.raises(
            InvalidRequest, match=r"The pool has (500|499\.\d+) DIEM, and can't give \d+ DIEM at any price"
        ):
            await quoted(place, amount, buying=True)
    with pytest.raises(InvalidRequest, match="can't give 1000000 USDC at any price"):
        await quoted(place, 10**6 * USD, buying=False, in_usdc=True)
    with pytest.raises(NotEnough, match="alice has 1 DIEM and needs 2 DIEM"):
        await swaps.prepare(alice, place.defi, await quoted(place, 2 * ONE, buying=False))
    with pytest.raises(NotFound, match="no pool of 'HOLD' against USDC; there are pools of DIEM, pDIEM-"):
        await quoted(place, ONE, "HOLD", buying=True)
    with pytest.raises(InvalidRequest, match="buy nothing here: trade more"):
        await quoted(place, 1, buying=False)


async def test_a_strip_that_is_over_is_not_bought(place: Town) -> None:
    strip = list(place.defi.pools)[2]
    month = pools.strip_month(strip)
    assert month is not None
    await place.anvil.mine(at_s=month.end_s)
    with pytest.raises(InvalidRequest, match=f"{strip} is over and worth nothing"):
        await quoted(place, ONE, strip, buying=True)
    assert (await quoted(place, ONE, strip, buying=False)).received > 0


async def test_the_price_of_diem_is_the_half_hours_mean_or_else_that_of_the_moment(place: Town) -> None:
    bob = await place.holder("bob", diem=60)
    await traded(place, bob, await quoted(place, 50 * ONE, buying=False))
    state = await pools.state_of(place.rpc, place.deployment, place.defi, "DIEM")
    read = await pools.diem_price(place.rpc, place.deployment, place.defi)
    assert read.mean
    assert abs(read.usd - 183) < 1 < 183 - state.price  # one sale hardly moves the mean
    assert read.source.startswith(f"the half hour's mean of the Uniswap v3 pool {state.pool.address} at 2027-01-15T")
    young = await deploy_defi(place.rpc, place.deployment, FOLDER, say=print, ripen=False)
    now = await pools.diem_price(place.rpc, place.deployment, young)
    assert (now.mean, round(now.usd)) == (False, 183)
    assert "has no half hour's history yet" in now.source
