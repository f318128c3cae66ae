"""Lending on the real Morpho Blue: what is said before a transaction is what the contract then finds."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.chain.defi.credit_lab import ALL, ONE, USD, Town, town, undone

from freehold.chain.abi import Contract
from freehold.chain.contracts import ERC20
from freehold.chain.defi import lending
from freehold.chain.defi.problems import BeyondCredit
from freehold.chain.problems import NotEnough, Reverted
from freehold.chain.steps import Step, rehearse
from freehold.chain.wallet import DevWallet, read
from freehold.problems import NotFound

pytestmark = pytest.mark.timeout(1_200)  # the first test fetches and compiles


@pytest.fixture(scope="module")
async def built() -> AsyncIterator[Town]:
    async with town() as made:
        yield made


@pytest.fixture
async def place(built: Town) -> AsyncIterator[Town]:
    async with undone(built.anvil):
        yield built


async def done(wallet: DevWallet, place: Town, order: lending.Order) -> lending.Lent:
    return await lending.carry_out(wallet, place.defi, order)


async def borrowed(place: Town, wallet: DevWallet, usdc: int, *, diem: int) -> lending.Lent:
    return await done(
        wallet, place, await lending.borrow(wallet, place.defi, "DIEM", usdc * USD, collateral=diem * ONE)
    )


async def test_what_is_lent_comes_back_with_interest(place: Town) -> None:
    alice, bob = await place.holder("alice", usdc=1_000), await place.holder("bob", diem=100)
    lent = await done(alice, place, await lending.supply(alice, place.defi, "diem", 1_000 * USD))
    assert (lent.market, lent.supplied, lent.account.supplied) == ("DIEM", 1_000 * USD, 1_000 * USD)
    assert await place.balance(place.contracts.usdc, alice) == 0
    await borrowed(place, bob, 9_000, diem=100)
    await place.wait(30 * 86_400)
    grown = (await lending.account_of(place.rpc, place.defi, "DIEM", alice.address)).supplied
    taken = await done(alice, place, await lending.withdraw(alice, place.defi, "DIEM", None))
    assert grown > 1_000 * USD
    assert 0 <= taken.withdrawn - grown <= USD // 1_000  # a second or so more
    assert await place.balance(place.contracts.usdc, alice) == taken.withdrawn
    with pytest.raises(NotFound, match="alice has lent nothing in the market against DIEM"):
        await lending.withdraw(alice, place.defi, "DIEM", None)


async def test_more_than_was_lent_and_more_than_is_there_are_refused_with_what_is(place: Town) -> None:
    alice, bob = await place.holder("alice", usdc=100_000), await place.holder("bob", diem=1_500)
    await done(alice, place, await lending.supply(alice, place.defi, "DIEM", 100_000 * USD))
    with pytest.raises(BeyondCredit, match=r"has 100000 USDC in this market and asks for 100001 USDC"):
        await lending.withdraw(alice, place.defi, "DIEM", 100_001 * USD)
    await borrowed(place, bob, 120_000, diem=1_500)
    with pytest.raises(BeyondCredit, match=r"lent out all but 80000(\.\d+)? USDC, and 90000 USDC are asked for"):
        await lending.withdraw(alice, place.defi, "DIEM", 90_000 * USD)
    with pytest.raises(BeyondCredit, match=r"has 79999\.\d+ USDC left to lend, and 81000 USDC"):
        await lending.borrow(bob, place.defi, "DIEM", 81_000 * USD)


async def test_a_debt_over_the_limit_is_refused_with_the_number_that_is_allowed(place: Town) -> None:
    alice = await place.holder("alice", diem=10)
    with pytest.raises(BeyondCredit, match=r"asks for 1500 USDC, and may borrow 14\d\d\.\d+ USDC more") as refused:
        await lending.borrow(alice, place.defi, "DIEM", 1_500 * USD, collateral=10 * ONE)
    assert "77 % may be owed" in refused.value.message
    assert await place.balance(place.contracts.diem, alice) == 10 * ONE  # nothing was pledged for it
    allowed = int(refused.value.message.split("may borrow ")[1].split(" USDC")[0].replace(".", "").ljust(10, "0"))
    made = await done(alice, place, await lending.borrow(alice, place.defi, "DIEM", allowed, collateral=10 * ONE))
    assert (made.borrowed, made.pledged) == (allowed, 10 * ONE)
    assert made.account.health.healthy
    with pytest.raises(BeyondCredit, match=r"may borrow 0(\.0000\d\d)? USDC more"):
        await lending.borrow(alice, place.defi, "DIEM", 1 * USD)


async def test_the_limit_said_is_the_contracts_own_to_the_unit(place: Town) -> None:
    """The next unit above what is said to be spare is refused by Morpho itself."""
    alice = await place.holder("alice", diem=7)
    await done(alice, place, await lending.borrow(alice, place.defi, "DIEM", 0, collateral=7 * ONE))
    account = await lending.account_of(place.rpc, place.defi, "DIEM", alice.address)
    market, morpho = place.defi.markets["DIEM"], lending.morpho(place.defi)

    async def tried(amount: int) -> None:
        to = (alice.address, alice.address)
        await rehearse(alice, [Step(morpho, "borrow", (market.parameters, amount, 0, *to), "Borrowing")])

    await tried(account.health.spare)
    with pytest.raises(Reverted, match="Borrowing was refused by the contract: insufficient collateral"):
        await tried(account.health.spare + 1)


async def test_a_debt_is_repaid_in_whole_and_its_collateral_comes_back(place: Town) -> None:
    alice = await place.holder("alice", diem=10, usdc=100)
    await borrowed(place, alice, 1_000, diem=10)
    await place.wait(86_400)
    owed = (await lending.account_of(place.rpc, place.defi, "DIEM", alice.address)).health.debt
    assert owed > 1_000 * USD
    paid = await done(alice, place, await lending.repay(alice, place.defi, "DIEM", None, collateral=None))
    assert owed <= paid.repaid <= owed + 1_000
    assert (paid.released, paid.account.empty) == (10 * ONE, True)
    assert await place.balance(place.contracts.diem, alice) == 10 * ONE
    assert await place.balance(place.contracts.usdc, alice) == 1_100 * USD - paid.repaid


async def test_no_approval_is_left_over(place: Town) -> None:
    alice = await place.holder("alice", diem=10, usdc=100)
    await borrowed(place, alice, 1_000, diem=10)
    await done(alice, place, await lending.repay(alice, place.defi, "DIEM", 5 * USD))
    await done(alice, place, await lending.repay(alice, place.defi, "DIEM", None))
    await done(alice, place, await lending.supply(alice, place.defi, "DIEM", 10 * USD))
    for token in (place.contracts.diem, place.contracts.usdc):
        assert await read(place.rpc, token, "allowance", alice.address, place.defi.morpho) == 0


async def test_collateral_that_a_debt_needs_stays(place: Town) -> None:
    alice = await place.holder("alice", diem=10)
    await borrowed(place, alice, 700, diem=10)
    with pytest.raises(
        BeyondCredit, match=r"700(\.\d+)? USDC would still be owed: (5\.0\d+) DIEM can be taken out"
    ) as it:
        await lending.repay(alice, place.defi, "DIEM", 0, collateral=6 * ONE)
    free = int(it.value.message.split("owed: ")[1].split(" DIEM")[0].replace(".", "").ljust(19, "0"))
    taken = await done(alice, place, await lending.repay(alice, place.defi, "DIEM", 0, collateral=free - 10**12))
    assert taken.released == free - 10**12
    with pytest.raises(BeyondCredit, match=r"has pledged .* and asks for 20 DIEM"):
        await lending.repay(alice, place.defi, "DIEM", 0, collateral=20 * ONE)


async def test_a_principal_is_collateral_too(place: Town) -> None:
    alice = await place.holder("alice", diem=10)
    symbol = next(name for name in place.defi.markets if name != "DIEM")
    month = int(symbol[6:10]) * 12 + int(symbol[11:]) - 1 - 1970 * 12
    strips, principal = place.contracts.strips, Contract(ERC20, address=place.defi.markets[symbol].collateral)
    await alice.send(place.contracts.diem, "approve", strips.address, ALL, what="Approving")
    await alice.send(strips, "split", month, 10 * ONE, alice.address, what="Splitting")
    made = await done(alice, place, await lending.borrow(alice, place.defi, symbol, 100 * USD, collateral=10 * ONE))
    assert made.account.health.collateral == 10 * ONE
    assert await place.balance(principal, alice) == 0
    assert await place.balance(place.contracts.usdc, alice) == 100 * USD


async def test_who_has_too_little_is_told_how_much(place: Town) -> None:
    alice = await place.holder("alice", diem=1, usdc=5)
    with pytest.raises(NotEnough, match="alice has 5 USDC and needs 6 USDC"):
        await lending.supply(alice, place.defi, "DIEM", 6 * USD)
    with pytest.raises(NotEnough, match="alice has 1 DIEM and needs 2 DIEM"):
        await lending.borrow(alice, place.defi, "DIEM", 1, collateral=2 * ONE)
    with pytest.raises(NotFound, match="owes nothing in the market against DIEM"):
        await lending.repay(alice, place.defi, "DIEM", None)
    with pytest.raises(NotFound, match="no market against 'HOLD'; there are DIEM, pDIEM-"):
        await lending.supply(alice, place.defi, "HOLD", 1)


async def test_a_healthy_debt_is_not_liquidated_and_the_price_that_would_be_is_named(place: Town) -> None:
    alice, bob = await place.holder("alice", diem=10), await place.holder("bob", usdc=2_000)
    await borrowed(place, alice, 1_000, diem=10)
    with pytest.raises(BeyondCredit, match=r"can be liquidated when DIEM is below 129\.87\d* USD, and it is at 18[23]"):
        await lending.liquidate(bob, place.defi, "DIEM", alice.address)


async def test_after_a_price_fall_anybody_liquidates_and_earns(place: Town) -> None:
    alice, bob = await place.holder("alice", diem=10), await place.holder("bob", usdc=2_000)
    carol = await place.holder("carol", diem=300)
    await borrowed(place, alice, 1_300, diem=10)
    await place.crash(carol, 150)
    order = await lending.liquidate(bob, place.defi, "DIEM", alice.address)
    made = await done(bob, place, order)
    assert abs(made.seized - order.seized) <= ONE // 1_000
    assert await place.balance(place.contracts.diem, bob) == made.seized
    assert await place.balance(place.contracts.usdc, bob) == 2_000 * USD - made.repaid
    worth = made.seized * made.account.health.price // 10**36
    assert worth > made.repaid or made.unpaid  # the incentive
    assert await read(place.rpc, place.contracts.usdc, "allowance", bob.address, place.defi.morpho) == 0


async def test_a_part_of_a_debt_is_liquidated_for_no_more_than_was_offered(place: Town) -> None:
    alice, bob = await place.holder("alice", diem=10), await place.holder("bob", usdc=500)
    carol = await place.holder("carol", diem=300)
    await borrowed(place, alice, 1_400, diem=10)
    await place.crash(carol, 20)
    made = await done(bob, place, await lending.liquidate(bob, place.defi, "DIEM", alice.address, 500 * USD))
    assert 499 * USD < made.repaid <= 500 * USD
    assert 0 < made.account.health.collateral == 10 * ONE - made.seized
    assert made.unpaid == 0


async def test_borrowers_are_listed_the_nearest_to_liquidation_first(place: Town) -> None:
    people = [(await place.holder(name, diem=10), owed) for name, owed in (("alice", 200), ("bob", 900), ("carol", 5))]
    for wallet, owed in people:
        await borrowed(place, wallet, owed, diem=10)
    await place.holder("carol", usdc=10)
    await done(people[2][0], place, await lending.repay(people[2][0], place.defi, "DIEM", None))
    found = await lending.borrowers(place.rpc, place.deployment, place.defi, "DIEM")
    assert [each.owner for each in found] == [people[1][0].address, people[0][0].address]


async def test_steps_are_tried_in_a_row_before_the_first_is_sent(place: Town) -> None:
    alice = await place.holder("alice", diem=2)
    diem, strips = place.contracts.diem, place.contracts.strips
    month = (await read(place.rpc, strips, "months"))[0]
    approve = Step(diem, "approve", (strips.address, 2 * ONE), "Approving")
    split = Step(strips, "split", (month, 2 * ONE, alice.address), "Splitting 2 DIEM")
    assert await rehearse(alice, [approve, split]) == [True, None]
    with pytest.raises(Reverted, match=r"Splitting 2 DIEM was refused by the contract: .* may take 0 of"):
        await rehearse(alice, [split, approve])
    assert await read(place.rpc, diem, "allowance", alice.address, strips.address) == 0
    with pytest.raises(Reverted, match="has less than is needed"):
        await rehearse(
            alice,
            [
                replace(approve, arguments=(strips.address, ALL)),
                replace(split, arguments=(month, 3 * ONE, alice.address)),
            ],
        )


async def test_what_the_last_step_would_refuse_is_known_before_the_first_is_sent(place: Town) -> None:
    """USDC that may not be paid out: the contract's own refusal, and nothing was pledged for it."""
    alice = await place.holder("alice", diem=2)
    deployer = await DevWallet.open(place.rpc, "deployer")
    usdc = Contract(CIRCLE, address=place.contracts.usdc.address, name="USDC")
    await deployer.send(usdc, "blacklist", alice.address, what="Blocking alice")
    with pytest.raises(Reverted, match="Borrowing 10 USDC was refused by the contract"):
        await lending.borrow(alice, place.defi, "DIEM", 10 * USD, collateral=2 * ONE)
    assert await place.balance(place.contracts.diem, alice) == 2 * ONE
    assert await read(place.rpc, place.contracts.diem, "allowance", alice.address, place.defi.morpho) == 0


CIRCLE = [{"type": "function", "name": "blacklist", "inputs": [{"name": "account", "type": "address"}], "outputs": []}]
