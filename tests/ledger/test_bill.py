"""A month as its entries say."""

from dataclasses import replace

import pytest

from freehold.clock import Day, Month
from freehold.ledger.model import BillGroup, Source
from freehold.ledger.problems import BillDiffers
from freehold.problems import NotFound

from .conftest import DAY, NOON, Bench

JULY = Month.of(NOON)


async def test_a_month_shows_what_each_purse_got_used_and_lost(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.allowance(100)
    await bench.settle(await bench.hold(100), 60)
    await bench.settle(await bench.hold(100), 90)
    await bench.ledger.reverse(bench.account_id, "evt:1", 900, "evt:1:reorg")
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    late = await bench.hold(50)
    await bench.settle(late, 50)
    await bench.ledger.expire()
    bill = await bench.ledger.bill(bench.account_id, JULY)
    purses = {purse.source: purse for purse in bill.purses}
    allowance, prepaid = purses[Source.ALLOWANCE], purses[Source.PREPAID]
    assert (allowance.opening_nano, allowance.granted_nano, allowance.used_nano) == (0, 100, 100)
    assert (prepaid.granted_nano, prepaid.used_nano, prepaid.reversed_nano) == (1_000, 100, 100)
    assert (allowance.closing_nano, prepaid.closing_nano) == (0, 800)
    assert [(top_up.external_id, top_up.amount_nano) for top_up in bill.top_ups] == [("evt:1", 1_000)]
    assert bill.by_day() == (BillGroup(str(DAY), 2, 150), BillGroup(str(DAY.next()), 1, 50))
    assert bill.by_purse() == (BillGroup("allowance", 2, 100), BillGroup("prepaid", 1, 100))
    assert (bill.calls, bill.used_nano, bill.opening_nano, bill.closing_nano) == (3, 200, 0, 800)
    assert bill.closing_nano == await bench.available()


async def test_what_ended_unused_is_expired(bench: Bench) -> None:
    await bench.allowance(100)
    late = await bench.hold(30)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    await bench.ledger.expire()
    await bench.settle(late, 10)
    allowance = next(p for p in (await bench.ledger.bill(bench.account_id, JULY)).purses if p.source == "allowance")
    assert (allowance.granted_nano, allowance.used_nano, allowance.expired_nano) == (100, 10, 90)
    assert allowance.closing_nano == 0


async def test_one_months_closing_is_the_nexts_opening(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.settle(await bench.hold(100), 60)
    late = await bench.hold(100)
    await bench.ledger.set_time(JULY.end_s, opened_day=0)
    await bench.settle(await bench.hold(100), 5)
    assert not (await bench.ledger.bill(bench.account_id, JULY)).final
    await bench.settle(late, 7)
    july = await bench.ledger.bill(bench.account_id, JULY)
    august = await bench.ledger.bill(bench.account_id, JULY.next())
    assert (july.used_nano, july.closing_nano, july.final) == (67, 933, True)
    assert (august.opening_nano, august.used_nano, august.closing_nano, august.final) == (933, 5, 928, False)
    assert august.top_ups == ()
    assert (await bench.ledger.bill(bench.account_id, Month(JULY.number - 1))).closing_nano == 0


async def test_lines_are_summed_by_model_and_key(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(key_id=2)
    for key_id, model, cost in ((1, "small", 10), (1, "large", 100), (2, "small", 1), (2, "small", 0)):
        await bench.settle(await bench.hold(100, key_id=key_id), cost, model=model)
    bill = await bench.ledger.bill(bench.account_id, JULY)
    assert bill.by_model() == (BillGroup("large", 1, 100), BillGroup("small", 3, 11))
    assert bill.by_key() == (BillGroup("1", 2, 110), BillGroup("2", 2, 1))
    assert bill.by_day() == (BillGroup(str(DAY), 4, 111),)
    assert {str(Day(line.day)) for line in bill.lines} == {str(DAY)}


async def test_an_extended_calls_charge_is_one_call_over_its_purses(bench: Bench) -> None:
    await bench.allowance(10)
    await bench.prepaid(1_000)
    hold = await bench.ledger.extend(await bench.hold(8), 8)
    await bench.settle(hold, 16)
    bill = await bench.ledger.bill(bench.account_id, JULY)
    assert bill.by_purse() == (BillGroup("allowance", 1, 10), BillGroup("prepaid", 0, 6))
    assert bill.calls == 1


async def test_a_bill_that_does_not_add_up_is_not_shown(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.settle(await bench.hold(100), 60)
    bill = await bench.ledger.bill(bench.account_id, JULY)
    assert bill.differences() == ()
    assert replace(bill, lines=()).differences() == ("prepaid: 60 used, lines of 0",)
    assert replace(bill, top_ups=()).differences() == ("top-ups don't sum to 1000",)
    wrong = tuple(replace(purse, closing_nano=purse.closing_nano + 1) for purse in bill.purses)
    assert len(replace(bill, purses=wrong).differences()) == 4
    async with bench.database.transaction() as conn:
        await conn.execute(
            "insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)"
            " values ($1, 'xfer:1', 'transfer', $2, '', array['purse:prepaid', 'transit'], array[1, 1], array[5, -5])",
            bench.account_id,
            NOON,
        )
    try:
        with pytest.raises(BillDiffers, match="2027-07"):
            await bench.ledger.bill(bench.account_id, JULY)
    finally:
        async with bench.database.transaction() as conn:
            await conn.execute("set local session_replication_role = replica")
            await conn.execute("delete from ledger.postings where external_id = 'xfer:1'")


async def test_a_bill_of_nobody_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.ledger.bill(999_999, JULY)
