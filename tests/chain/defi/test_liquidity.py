"""Liquidity on Uniswap v3: what goes in comes out, with the fees that were traded through it, and ranges mean prices."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest
from tests.chain.defi.credit_lab import ONE, USD, Town, town, undone

from freehold.chain.defi import liquidity, pools, swaps, uniswap
from freehold.chain.defi.liquidity import Added, Offer, Position, Removed
from freehold.chain.problems import NotEnough, Reverted, WalletRefused
from freehold.chain.wallet import DevWallet
from freehold.problems import InvalidRequest

pytestmark = pytest.mark.timeout(1_200)  # the first test of all fetches and compiles
HALF = Decimal("0.005")
Between = tuple[Decimal, Decimal] | None


@pytest.fixture(scope="module")
async def made() -> AsyncIterator[Town]:
    async with town() as found:
        yield found


@pytest.fixture
async def place(made: Town) -> AsyncIterator[Town]:
    async with undone(made.anvil):
        yield made


async def offered(
    place: Town, amount: int, *, in_usdc: bool = False, between: Between = None, symbol: str = "DIEM"
) -> Offer:
    return await liquidity.offer(
        place.rpc, place.deployment, place.defi, symbol, amount, in_usdc=in_usdc, between=between, slippage=HALF
    )


async def added(place: Town, wallet: DevWallet, offer: Offer) -> Added:
    return await liquidity.add(wallet, await liquidity.prepare_adding(wallet, place.defi, offer))


async def taken(place: Town, wallet: DevWallet, number: int, share: str = "1") -> Removed:
    order = await liquidity.prepare_removing(
        wallet, place.deployment, place.defi, number, share=Decimal(share), slippage=HALF
    )
    return await liquidity.remove(wallet, order)


async def positions(place: Town, wallet: DevWallet) -> list[Position]:
    return await liquidity.positions_of(place.rpc, place.deployment, place.defi, wallet.address)


async def swap(place: Town, wallet: DevWallet, amount: int, *, buying: bool) -> None:
    quote = await swaps.quote(
        place.rpc, place.deployment, place.defi, "DIEM", amount, buying=buying, in_usdc=False, slippage=HALF
    )
    await swaps.carry_out(wallet, await swaps.prepare(wallet, place.defi, quote))


async def test_what_goes_in_comes_out_and_nothing_stays_allowed(place: Town) -> None:
    alice = await place.holder("alice", diem=10, usdc=2_000)
    contracts = place.contracts
    offer = await offered(place, 5 * ONE)
    assert offer.whole_range
    assert abs(offer.usdc - 5 * 183 * USD) < USD // 10  # the pool's own price
    done = await added(place, alice, offer)
    assert await place.balance(contracts.diem, alice) == 10 * ONE - done.base
    assert await place.balance(contracts.usdc, alice) == 2_000 * USD - done.usdc
    assert 0 <= offer.base - done.base < 10**13
    assert 0 <= offer.usdc - done.usdc <= 1
    for token in (contracts.diem, contracts.usdc):
        assert await alice.read(token, "allowance", alice.address, place.defi.positions) == 0
    (position,) = await positions(place, alice)
    assert (position.id, position.whole_range, position.active) == (done.id, True, True)
    assert (position.base_owed, position.usdc_owed) == (0, 0)
    out = await taken(place, alice, done.id)
    assert (out.base, out.usdc, out.closed) == (position.base, position.usdc, True)
    assert done.base - 2 <= out.base <= done.base
    assert done.usdc - 2 <= out.usdc <= done.usdc
    assert await positions(place, alice) == []


async def test_fees_of_what_was_traded_through_it_are_shown_and_collected(place: Town) -> None:
    """A pool of 500 DIEM, and as much again of alice's: half of 0.3 % of what is sold is hers."""
    alice, bob = await place.holder("alice", diem=501, usdc=93_000), await place.holder("bob", diem=20)
    done = await added(place, alice, await offered(place, 500 * ONE))
    await swap(place, bob, 10 * ONE, buying=False)
    (position,) = await positions(place, alice)
    assert abs(position.base_owed - 10 * ONE * 3 // 1_000 // 2) < 10**13
    assert position.usdc_owed == 0
    held = await place.balance(place.contracts.diem, alice)
    out = await taken(place, alice, done.id, "0")
    assert (out.base, out.base_fees, out.usdc, out.closed) == (position.base_owed, position.base_owed, 0, False)
    assert await place.balance(place.contracts.diem, alice) == held + out.base
    with pytest.raises(InvalidRequest, match="has earned nothing yet"):
        await taken(place, alice, done.id, "0")
    await swap(place, bob, ONE, buying=False)
    half = await taken(place, alice, done.id, "0.5")
    assert half.base_fees > 0
    (rest,) = await positions(place, alice)
    assert abs(rest.base - (half.base - half.base_fees)) < 10**6
    assert (rest.base_owed, rest.usdc_owed) == (0, 0)


async def test_a_range_is_of_prices_and_earns_while_the_price_is_in_it(place: Town) -> None:
    alice = await place.holder("alice", diem=10, usdc=2_000)
    around = await offered(place, ONE, between=(Decimal(150), Decimal(220)))
    low, high = around.range_usd
    assert abs(low / 150 - 1) < Decimal("0.004")  # the nearest of steps of 0.6 %
    assert abs(high / 220 - 1) < Decimal("0.004")
    assert around.usdc > 0
    await added(place, alice, around)
    above = await offered(place, ONE, between=(Decimal(190), Decimal(220)))
    assert (above.base, above.usdc) == (ONE, 0)
    await added(place, alice, above)
    below = await offered(place, 100 * USD, in_usdc=True, between=(Decimal(150), Decimal(180)))
    assert (below.base, below.usdc) == (0, 100 * USD)
    await added(place, alice, below)
    assert sorted((p.base > 0, p.usdc > 0, p.active) for p in await positions(place, alice)) == [
        (False, True, False),
        (True, False, False),
        (True, True, True),
    ]


async def test_ranges_that_cannot_be_are_refused_with_the_mend(place: Town) -> None:
    with pytest.raises(InvalidRequest, match=r"below the price of 183 USD takes USDC alone, no DIEM: .* with --usdc"):
        await offered(place, ONE, between=(Decimal(150), Decimal(180)))
    with pytest.raises(
        InvalidRequest, match=r"above the price of 183 USD takes DIEM alone, no USDC: .* without --usdc"
    ):
        await offered(place, USD, in_usdc=True, between=(Decimal(190), Decimal(220)))
    with pytest.raises(InvalidRequest, match="narrower than the pool's steps"):
        await offered(place, ONE, between=(Decimal("183.0"), Decimal("183.1")))


async def test_adding_at_a_price_that_has_moved_is_refused(place: Town) -> None:
    alice, bob = await place.holder("alice", diem=10, usdc=2_000), await place.holder("bob", diem=60)
    order = await liquidity.prepare_adding(alice, place.defi, await offered(place, ONE))
    await swap(place, bob, 20 * ONE, buying=False)
    with pytest.raises(Reverted, match=r"Adding 1 DIEM and 183.* USDC was refused .*the price has moved further"):
        await liquidity.add(alice, order)
    assert await positions(place, alice) == []


async def test_a_removal_that_would_give_less_is_refused(place: Town) -> None:
    alice, bob = await place.holder("alice", diem=10, usdc=2_000), await place.holder("bob", diem=60)
    done = await added(place, alice, await offered(place, ONE))
    order = await liquidity.prepare_removing(
        alice, place.deployment, place.defi, done.id, share=Decimal(1), slippage=HALF
    )
    await swap(place, bob, 20 * ONE, buying=False)
    with pytest.raises(Reverted, match=f"Taking out of position {done.id} was refused .*the price has moved further"):
        await liquidity.remove(alice, order)
    assert len(await positions(place, alice)) == 1


async def test_others_positions_and_none_are_refused(place: Town) -> None:
    alice, bob = await place.holder("alice", diem=1, usdc=200), await place.holder("bob")
    done = await added(place, alice, await offered(place, ONE // 2))
    with pytest.raises(WalletRefused, match=f"Position {done.id} belongs to {alice.address}"):
        await taken(place, bob, done.id)
    with pytest.raises(Reverted, match="there is no such position"):
        await taken(place, bob, 999)
    with pytest.raises(NotEnough, match=r"alice has 108\.\d+ USDC and needs 549(\.\d+)? USDC"):
        await added(place, alice, await offered(place, 3 * ONE))


async def test_ticks_and_prices_are_each_others_inverse_whichever_token_is_first() -> None:
    for base_first in (True, False):
        for usd in ("0.5", "27.3", "183", "4000"):
            tick = uniswap.tick_near(Decimal(usd), base_first=base_first)
            assert tick % uniswap.SPACING == 0
            assert abs(uniswap.price_at(tick, base_first=base_first) / Decimal(usd) - 1) < Decimal("0.0031")
    assert uniswap.tick_near(Decimal("1e-40"), base_first=True) == -uniswap.LAST_TICK


async def test_a_pool_tells_its_price_whichever_token_is_first(place: Town) -> None:
    state = await pools.state_of(place.rpc, place.deployment, place.defi, "DIEM")
    assert abs(state.price - 183) < Decimal("0.001")
    other = replace(
        state, root=2**192 // state.root, usdc="0x" + "ff" * 20 if not state.base_first else "0x" + "00" * 20
    )
    assert other.base_first != state.base_first
    assert abs(other.price - 183) < Decimal("0.001")
