"""Days close in order, when nothing of them can change, and their trees prove each charge."""

import asyncio
from dataclasses import replace

import pytest
from tests.receipts.lab import DOMAIN, FIRST, KEY, Till, receipts_of

from freehold.clock import Day
from freehold.ledger.model import Source
from freehold.receipts import tree
from freehold.receipts.model import PurseTotals, day_hash
from freehold.receipts.receipts import CHUNK
from freehold.receipts.signing import signer_of

SECOND, THIRD = FIRST.next(), FIRST.next().next()


async def test_a_day_closes_when_it_has_ended_and_its_totals_add_up(till: Till) -> None:
    account = await till.account(prepaid=10_000, allowance=1_000)
    charges = [await till.charge(account, cost) for cost in (400, 900)]
    assert await till.receipts.close_next() is None
    await till.until(SECOND)
    closed = await till.receipts.close_next()
    assert closed is not None
    assert (closed.day, closed.count) == (FIRST.number, 2)
    assert closed.totals[Source.ALLOWANCE] == PurseTotals(0, 1_000, 1_000, 0, 0)
    assert closed.totals[Source.PREPAID] == PurseTotals(0, 10_000, 300, 0, 9_700)
    assert closed == await till.receipts.day(FIRST.number)
    for charge in charges:
        signed = await till.receipts.signed(charge)
        assert signed.root == closed.root
        assert tree.root_of(tree.leaf(signed.hash), signed.siblings) == closed.root
        assert signed.signature is not None and signer_of(signed.hash, signed.signature) == KEY.address
    signature = till.receipts.sign_day(closed)
    assert signature is not None and signer_of(day_hash(closed, DOMAIN), signature) == KEY.address
    assert await till.receipts.close_next() is None


async def test_what_is_left_of_an_allowance_expires_with_its_day(till: Till) -> None:
    account = await till.account(allowance=1_000)
    await till.charge(account, 1)
    await till.until(SECOND)
    closed = await till.receipts.close_next()
    assert closed is not None
    assert closed.totals[Source.ALLOWANCE] == PurseTotals(0, 1_000, 1, 999, 0)


async def test_a_day_with_an_open_hold_waits_for_it_and_so_do_those_after_it(till: Till) -> None:
    account = await till.account(prepaid=10_000)
    hold = await till.hold(account, 100)
    await till.until(SECOND)
    later = await till.charge(account, 5)
    await till.until(THIRD)
    assert await till.close_all() == 0
    charge = await till.settle(hold, 70)
    assert charge.day == FIRST.number
    assert await till.close_all() == 2
    first, second = await till.receipts.day(FIRST.number), await till.receipts.day(SECOND.number)
    assert first is not None and second is not None
    assert first.totals[Source.PREPAID] == PurseTotals(0, 10_000, 70, 0, 9_930)
    assert second.totals[Source.PREPAID] == PurseTotals(9_930, 0, 5, 0, 9_925)
    assert (await till.receipts.signed(later)).root == second.root


async def test_a_day_does_not_close_before_its_end_is_confirmed(till: Till) -> None:
    account = await till.account(prepaid=10_000)
    await till.charge(account, 5)
    await till.ledger.set_time(SECOND.start_s + 5, opened_day=FIRST.number)
    assert await till.close_all() == 0
    await till.until(SECOND, seconds=6)
    assert await till.close_all() == 1


async def test_a_day_does_not_close_by_provisional_time(till: Till) -> None:
    account = await till.account(prepaid=10_000)
    await till.charge(account, 5)
    await till.until(SECOND)
    await till.database.execute("update ledger.clock set refreshed_at = clock_timestamp() - interval '1 day'")
    assert await till.close_all() == 0


async def test_days_of_downtime_are_closed_one_by_one_and_a_day_without_receipts_has_root_0(till: Till) -> None:
    account = await till.account(prepaid=10_000)
    await till.charge(account, 5)
    await till.until(Day(FIRST.number + 4))
    assert await till.close_all() == 4
    closed = list(reversed(await till.receipts.days()))
    assert [one.day for one in closed] == [FIRST.number + n for n in range(4)]
    assert [one.root == bytes(32) for one in closed] == [False, True, True, True]
    assert closed[3].totals[Source.PREPAID] == PurseTotals(9_995, 0, 0, 0, 9_995)


async def test_credit_given_and_ended_counts_in_the_day_that_it_happens_in(till: Till) -> None:
    account = await till.account()
    await till.ledger.grant(account, Source.PROMO, 500, "gift", starts_at_s=0, expires_at_s=SECOND.start_s + 3_600)
    await till.charge(account, 200)
    await till.until(SECOND)
    await till.until(SECOND, seconds=4_000)
    await till.until(THIRD)
    assert await till.close_all() == 2
    second, first = await till.receipts.days()
    assert first.totals[Source.PROMO] == PurseTotals(0, 500, 200, 0, 300)
    assert second.totals[Source.PROMO] == PurseTotals(300, 0, 0, 300, 0)


async def test_a_closed_day_cannot_be_rewritten(till: Till) -> None:
    account = await till.account(prepaid=10_000)
    await till.charge(account, 5)
    await till.until(SECOND)
    await till.close_all()
    for change in ("update receipts.days set count = 9", "delete from receipts.nodes"):
        with pytest.raises(Exception, match="append-only"):
            await till.database.execute(change)


async def test_another_book_has_days_of_its_own_over_the_same_charges(till: Till) -> None:
    account = await till.account(prepaid=10_000)
    charge = await till.charge(account, 5)
    await till.until(SECOND)
    await till.close_all()
    other = receipts_of(till.database, replace(DOMAIN, book="0x" + "29" * 20))
    assert await other.close_next() is not None
    assert (await other.signed(charge)).root != (await till.receipts.signed(charge)).root


async def test_a_tree_of_several_rows_proves_every_leaf(till: Till) -> None:
    account = await till.account(prepaid=10**9)
    charges = await asyncio.gather(*(till.charge(account, 1) for _ in range(CHUNK + 3)))
    await till.until(SECOND)
    closed = await till.receipts.close_next()
    assert closed is not None and closed.count == CHUNK + 3
    for charge in charges[::97]:
        signed = await till.receipts.signed(charge)
        assert tree.root_of(tree.leaf(signed.hash), signed.siblings) == closed.root


async def test_the_check_finds_a_charge_that_was_changed_after_its_day_was_closed(till: Till) -> None:
    account = await till.account(prepaid=10_000)
    await till.charge(account, 5)
    await till.until(SECOND)
    await till.close_all()
    assert await till.receipts.check() == []
    async with till.database.transaction() as conn:
        await conn.execute("set local session_replication_role = replica")
        await conn.execute("update ledger.charges set usage = '{\"input\": 4}'")
    (found,) = await till.receipts.check()
    assert (found.law, found.subject) == ("a closed day's root is over its receipts", "2027-01-15")


async def test_the_check_finds_a_day_that_is_missing_or_wrong_in_the_book(till: Till) -> None:
    account = await till.account(prepaid=10_000)
    await till.charge(account, 5)
    await till.until(Day(FIRST.number + 3))
    await till.close_all()
    third, second, first = await till.receipts.days()
    assert [one.subject for one in await till.receipts.check()] == ["2027-01-15", "2027-01-16"]
    for closed in (first, second):
        await till.receipts.saw(closed.day, closed.root, closed.totals_hash())
    assert await till.receipts.check() == []
    await till.receipts.saw(third.day, b"\x01" * 32, third.totals_hash())
    (found,) = await till.receipts.check()
    assert (found.law, found.subject) == ("what is published is what was closed", "2027-01-17")
