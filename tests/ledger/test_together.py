"""Many callers at once, in one worker, two workers and two processes."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from freehold.clock import SystemClock
from freehold.db import Database
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Hold, Source
from freehold.ledger.problems import InsufficientCredit, KeyLimitReached
from freehold.problems import Problem

from .conftest import Bench, drained, new_account, settlement

CALLERS = 64


async def attempts(bench: Bench, ledgers: list[Ledger], amount: int, callers: int = CALLERS) -> list[object]:
    """What each of many callers that hold together got, round-robin over `ledgers`."""
    return await asyncio.gather(
        *(ledgers[number % len(ledgers)].hold(bench.request(amount)) for number in range(callers)),
        return_exceptions=True,
    )


def held(results: list[object]) -> list[Hold]:
    return [result for result in results if isinstance(result, Hold)]


async def test_of_64_callers_exactly_10_get_what_pays_for_10(bench: Bench) -> None:
    await bench.allowance(70)
    await bench.prepaid(39)
    results = await attempts(bench, [bench.ledger], 10)
    assert len(held(results)) == 10
    assert all(isinstance(result, Hold | InsufficientCredit) for result in results)
    assert (await bench.available(), await bench.held()) == (9, 100)
    await asyncio.gather(*(bench.settle(hold, 10) for hold in held(results)))
    assert (await bench.available(), await bench.held()) == (9, 0)


async def test_two_workers_together_admit_exactly_10(bench: Bench) -> None:
    await bench.prepaid(109)
    async with Ledger(bench.database, clock=SystemClock()) as other:
        results = await attempts(bench, [bench.ledger, other], 10)
    assert len(held(results)) == 10


async def test_two_processes_together_admit_exactly_10(bench: Bench, database_url: str) -> None:
    await bench.prepaid(109)
    counts = await drained(database_url, bench.account_id)
    assert sum(counts) == 10
    assert (await bench.available(), await bench.held()) == (9, 0)


async def test_under_serializable_isolation_too_exactly_10_are_admitted(bench: Bench, database_url: str) -> None:
    await bench.prepaid(109)
    name = await bench.database.fetchval("select current_database()")
    await bench.database.execute(f"alter database {name} set default_transaction_isolation = 'serializable'")
    database = await Database.connect(database_url)
    try:
        async with Ledger(database) as one, Ledger(database) as two:
            results = await attempts(bench, [one, two], 10)
            assert len(held(results)) == 10
            await asyncio.gather(*(one.settle(hold, settlement(10)) for hold in held(results)))
    finally:
        await bench.database.execute(f"alter database {name} reset default_transaction_isolation")
        await database.close()


@pytest.mark.parametrize("cap", ["day_cap_nano", "month_cap_nano", "total_cap_nano"])
async def test_a_keys_cap_admits_exactly_what_fits_however_many_ask(bench: Bench, cap: str) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, **{cap: 109})
    async with Ledger(bench.database, clock=SystemClock()) as other:
        results = await attempts(bench, [bench.ledger, other], 10)
    assert len(held(results)) == 10
    assert all(isinstance(result, Hold | KeyLimitReached) for result in results)


async def test_no_update_is_lost_on_a_hot_account(bench: Bench) -> None:
    await bench.prepaid(1_000_000)

    async def caller(number: int) -> int:
        spent = 0
        for turn in range(10):
            cost = (number * 7 + turn) % 90
            spent += (await bench.settle(await bench.hold(90), cost)).cost_nano
        return spent

    spent = sum(await asyncio.gather(*(caller(number) for number in range(CALLERS))))
    assert await bench.available() == 1_000_000 - spent
    assert await bench.line("revenue:usage") == spent


async def test_accounts_that_share_a_batch_do_not_share_credit(bench: Bench) -> None:
    others = [await new_account(bench.ledger, bench.database) for _ in range(8)]
    for account_id in others:
        await bench.ledger.grant(account_id, Source.PROMO, 25, "promo", starts_at_s=0, expires_at_s=2**40)
    benches = [Bench(bench.ledger, bench.database, account_id) for account_id in others]
    results = await asyncio.gather(*(attempts(one, [bench.ledger], 10, callers=8) for one in benches))
    assert [len(held(result)) for result in results] == [2] * 8


async def test_duplicates_that_arrive_together_hold_once(bench: Bench) -> None:
    await bench.prepaid(1_000)
    request = bench.request(100)
    holds = await asyncio.gather(*(bench.ledger.hold(request) for _ in range(16)))
    assert len(set(holds)) == 1
    assert await bench.held() == 100


async def test_the_same_settlement_that_arrives_many_times_together_charges_once(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    async with Ledger(bench.database, clock=SystemClock()) as other:
        charges = await asyncio.gather(*(ledger.settle(hold, settlement(60)) for ledger in [bench.ledger, other] * 8))
    assert {charge.cost_nano for charge in charges} == {60}
    assert await bench.available() == 940


async def test_the_same_request_id_at_two_workers_is_held_once(bench: Bench) -> None:
    await bench.prepaid(1_000)
    request = bench.request(100)
    async with Ledger(bench.database, clock=SystemClock()) as other:
        results = await asyncio.gather(bench.ledger.hold(request), other.hold(request), return_exceptions=True)
    assert len(held(list(results))) == 1
    assert sum(isinstance(result, Problem) for result in results) == 1
    assert await bench.held() == 100


async def test_raises_and_holds_of_one_day_do_not_disturb_each_other(bench: Bench) -> None:
    await bench.allowance(100)

    async def rise(to: int) -> None:
        await bench.ledger.raise_grant(bench.account_id, 21_000, Source.ALLOWANCE, to, f"evt:{to}")

    async def call() -> None:
        await bench.settle(await bench.hold(2), 1)

    await asyncio.gather(*(rise(100 + number) for number in range(20)), *(call() for _ in range(40)))
    assert await bench.available() == 119 - 40


async def test_charges_of_an_account_are_in_the_order_of_its_ledger_time(bench: Bench) -> None:
    await bench.prepaid(100_000)
    noon = (await bench.ledger.time()).at_s

    async def call() -> None:
        for _ in range(5):
            await bench.settle(await bench.hold(2), 1)

    async def tick() -> None:
        for second in range(1, 20):
            await bench.ledger.set_time(noon + second, opened_day=0)

    await asyncio.gather(*(call() for _ in range(16)), tick())
    rows = await bench.database.fetch("select at_s from ledger.charges order by position")
    assert [row["at_s"] for row in rows] == sorted(row["at_s"] for row in rows)


async def test_in_one_batch_each_answer_names_its_own_legs(bench: Bench) -> None:
    await bench.allowance(25)
    await bench.prepaid(1_000)
    first = bench.request(10)
    known = await bench.ledger.hold(first)
    requests = [bench.request(10), bench.request(15), first, bench.request(10), bench.request(2_000), bench.request(0)]
    async with bench.database.transaction() as conn:
        results = await bench.ledger._hold_batch(conn, bench.ledger.epoch, requests)
    assert [
        [(leg.source, leg.amount_nano) for leg in result.legs] if isinstance(result, Hold) else type(result)
        for result in results
    ] == [
        [(Source.ALLOWANCE, 10)],
        [(Source.ALLOWANCE, 5), (Source.PREPAID, 10)],
        [(Source.ALLOWANCE, 10)],
        [(Source.PREPAID, 10)],
        InsufficientCredit,
        [],
    ]
    assert results[2] == known


async def test_a_batch_that_is_not_in_order_is_refused_whole(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(key_id=2)
    for keys in ([1, 2, 1], [2, 1, 2]):
        count = len(keys)
        with pytest.raises(asyncpg.DataError, match="in the order of its keys"):
            await bench.database.fetch(
                bench.ledger._sql["hold_batch"],
                bench.ledger.epoch,
                [bench.account_id] * count,
                keys,
                [uuid4() for _ in keys],
                *([10] * count, [10] * count, [0] * count, [1] * count, [60.0] * count, [False] * count, [0] * count),
                *([None] * count, [None] * count, [0] * count, [0] * count),
            )
    assert await bench.held() == 0
