"""What is over is dropped after a day, and nothing that still matters."""

import pytest

from freehold.ledger.jobs import tidy
from freehold.ledger.ledger import KEEP_S
from freehold.problems import Conflict, NotFound

from .conftest import Bench


async def pass_time(bench: Bench, seconds: float) -> None:
    """Let the ledger's rows be that much older."""
    await bench.database.execute("update ledger.holds set opened_at = opened_at - $1 * interval '1 second'", seconds)
    await bench.database.execute("update ledger.rates set second = second - $1::bigint", int(seconds))
    await bench.database.execute("update ledger.epochs set lapsed_at = lapsed_at - $1 * interval '1 second'", seconds)


async def test_a_settled_holds_row_goes_with_its_charge_and_its_repeats_are_known(bench: Bench) -> None:
    await bench.prepaid(1_000)
    request = bench.request(100)
    hold = await bench.ledger.hold(request)
    charge = await bench.settle(hold, 70)
    assert await bench.database.fetchval("select count(*) from ledger.holds") == 0
    with pytest.raises(Conflict):
        await bench.ledger.hold(request)
    again = await bench.settle(hold, 70)
    assert (again.request_id, again.cost_nano, again.legs) == (charge.request_id, 70, charge.legs)
    with pytest.raises(NotFound):
        await bench.ledger.extend(hold, 1)
    assert (await bench.available(), await bench.held()) == (930, 0)


async def test_a_released_hold_is_remembered_for_a_day(bench: Bench) -> None:
    await bench.prepaid(1_000)
    request = bench.request(100)
    await bench.ledger.release(await bench.ledger.hold(request))
    assert await tidy(bench.ledger) == 0
    with pytest.raises(Conflict):
        await bench.ledger.hold(request)
    await pass_time(bench, KEEP_S)
    assert await tidy(bench.ledger) == 1
    assert await bench.database.fetchval("select count(*) from ledger.holds") == 0


async def test_an_open_hold_and_its_worker_are_kept_however_old(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    await bench.database.execute("update ledger.epochs set lapsed_at = clock_timestamp()")
    await pass_time(bench, KEEP_S)
    assert await tidy(bench.ledger) == 0
    assert await bench.ledger.sweep() == 1
    assert (await bench.ledger.charge(bench.account_id, hold.request_id)).absorbed_nano == 100
    assert await tidy(bench.ledger) == 1, "the worker's life"


async def test_counts_of_a_minute_that_is_long_past_are_dropped_and_others_kept(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(rpm=10)
    await bench.hold(1)
    assert await tidy(bench.ledger) == 0
    assert await bench.database.fetchval("select count(*) from ledger.rates") == 1
    await pass_time(bench, KEEP_S)
    assert await tidy(bench.ledger) == 1
    assert (await bench.hold(1)).rate is not None


async def test_it_is_dropped_in_steps(bench: Bench) -> None:
    await bench.prepaid(1_000)
    for _ in range(5):
        await bench.ledger.release(await bench.hold(1))
    await pass_time(bench, KEEP_S)
    assert await bench.ledger.forget_ended(limit=2) == 2
    assert await tidy(bench.ledger, limit=2) == 3
