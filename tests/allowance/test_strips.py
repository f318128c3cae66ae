"""Activated strips into grants of their own purse, on a real chain and a real ledger."""

from eth_utils.address import to_checksum_address
from tests.allowance.conftest import Office
from tests.chain.lab import START_S

from freehold.clock import Day
from freehold.ledger.model import Source

ALICE = to_checksum_address("0x" + "a1" * 20)
TODAY = Day.of(START_S).number
NEXT_MONTH = Day(TODAY).month.next().first.number
DIEM = 10**18
USD = 10**9


async def test_activated_strips_are_a_purse_beside_the_stake(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM // 2, onward=2 * DIEM, of="strips")
    await office.confirm()
    assert await office.granted(account) == {TODAY: USD}
    assert await office.granted(account, Source.STRIP) == {TODAY: USD // 2}
    assert await office.available(account) == USD * 3 // 2
    assert await office.allowance.next_days(account, 1) == [(TODAY + 1, 3 * USD)]
    await office.close_books()


async def test_a_coming_month_is_granted_from_its_first_day_on_and_not_after_its_last(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=NEXT_MONTH, today=DIEM, onward=DIEM, of="strips")
    await office.confirm()
    await office.allowance.refresh(account)
    assert await office.granted(account, Source.STRIP) == {}
    last = Day(NEXT_MONTH).month.next().first.number - 1
    for day in (NEXT_MONTH, last, last + 1):
        await office.anvil.mine(at_s=Day(day).start_s)
        await office.confirm()
        await office.allowance.refresh(account)
    assert await office.granted(account, Source.STRIP) == {NEXT_MONTH: USD, last: USD}
    assert (await office.ledger.time()).opened_day == last + 1
    await office.close_books()


async def test_a_day_is_never_open_without_its_strips(office: Office) -> None:
    """The hold call asks for a refresh only while the day is unopened: the strips must be there when it is opened."""
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM, of="strips")
    await office.confirm()
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.confirm()
    assert await office.ledger.needs_day(account)
    await office.allowance.refresh(account)
    assert not await office.ledger.needs_day(account)
    assert await office.granted(account, Source.STRIP) == {TODAY: USD, TODAY + 1: USD}


async def test_books_that_grant_more_than_was_activated_are_told(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM, of="strips")
    await office.confirm()
    await office.ledger.raise_grant(account, TODAY, Source.STRIP, 2 * USD, "a slip")
    (found,) = await office.allowance.check()
    assert found.law == "the strip credit of a day is what is activated for it on chain"


async def test_a_reorg_takes_activated_strips_back(office: Office) -> None:
    account = await office.register.open(ALICE)
    before = await office.anvil.rpc.call("evm_snapshot")
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM, of="strips")
    await office.confirm()
    assert await office.granted(account, Source.STRIP) == {TODAY: USD}
    await office.anvil.rpc.call("evm_revert", before)
    await office.anvil.mine(5)
    await office.poll()
    assert await office.available(account) == 0
    await office.close_books()
