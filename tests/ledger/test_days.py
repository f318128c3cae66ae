import pytest

from freehold.ledger.model import LedgerTime, Source
from freehold.ledger.problems import DayUnopened, InsufficientCredit
from freehold.problems import Conflict

from .conftest import DAY, NOON, Bench

TOMORROW = DAY.next()


async def test_a_day_that_may_be_issued_and_was_not_stops_the_hold(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.ledger.set_time(NOON + 1, opened_day=DAY.number)
    assert await bench.ledger.needs_day(bench.account_id)
    with pytest.raises(DayUnopened):
        await bench.hold(1)
    assert (await bench.hold(1, day_unopened_ok=True)).legs[0].source is Source.PREPAID
    await bench.allowance(500)
    assert not await bench.ledger.needs_day(bench.account_id)
    assert (await bench.hold(1)).legs[0].source is Source.ALLOWANCE


async def test_a_day_without_allowance_is_opened_too(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.ledger.set_time(NOON + 1, opened_day=DAY.number)
    assert await bench.allowance(0) is None
    assert (await bench.hold(1)).amount_nano == 1


async def test_before_a_days_block_is_confirmed_other_purses_pay(bench: Bench) -> None:
    await bench.prepaid(1_000)
    assert not await bench.ledger.needs_day(bench.account_id)
    assert (await bench.hold(1)).legs[0].source is Source.PREPAID


async def test_yesterdays_allowance_pays_nothing_today(bench: Bench) -> None:
    await bench.allowance(500)
    assert await bench.available() == 500
    await bench.ledger.set_time(DAY.end_s - 1, opened_day=0)
    await bench.settle(await bench.hold(1), 1)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    assert await bench.available() == 0
    with pytest.raises(InsufficientCredit):
        await bench.hold(1)


async def test_a_call_held_at_2359_settles_against_its_own_day_and_the_rest_is_breakage(bench: Bench) -> None:
    await bench.allowance(500)
    await bench.ledger.set_time(DAY.end_s - 1, opened_day=0)
    hold = await bench.hold(300)
    await bench.ledger.set_time(DAY.end_s + 60, opened_day=TOMORROW.number)
    await bench.allowance(500, TOMORROW)
    charge = await bench.settle(hold, 120)
    assert (charge.day, charge.cost_nano, charge.legs[0].source) == (DAY.number, 120, Source.ALLOWANCE)
    assert await bench.available() == 500
    assert await bench.line("breakage:expired") == 180
    assert await bench.ledger.expire() == 1
    assert await bench.line("breakage:expired") == 380


async def test_a_hold_released_after_midnight_becomes_breakage(bench: Bench) -> None:
    await bench.allowance(500)
    hold = await bench.hold(300)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    assert await bench.ledger.expire() == 1
    await bench.ledger.release(hold)
    assert await bench.line("breakage:expired") == 500
    assert (await bench.available(), await bench.held()) == (0, 0)


async def test_expiry_posts_what_is_left_once_and_under_the_days_name(bench: Bench) -> None:
    await bench.allowance(500)
    await bench.settle(await bench.hold(200), 150)
    assert await bench.ledger.expire() == 0
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    assert [await bench.ledger.expire(), await bench.ledger.expire()] == [1, 0]
    posted = await bench.database.fetchval(
        "select amounts from ledger.postings where external_id = $1", f"day:{DAY.number}:allowance:expire"
    )
    assert posted == [-350, 350]


async def test_expiry_goes_in_steps(bench: Bench) -> None:
    for number in range(5):
        await bench.ledger.grant(
            bench.account_id, Source.PROMO, 10, f"promo:{number}", starts_at_s=0, expires_at_s=NOON + 1
        )
    await bench.ledger.set_time(NOON + 1, opened_day=0)
    assert [await bench.ledger.expire(2) for _ in range(4)] == [2, 2, 1, 0]
    assert await bench.line("breakage:expired") == 50


async def test_an_id_that_looks_like_anothers_expiry_does_not_stop_it(bench: Bench) -> None:
    for name in ("promo:1", "promo:1:open", "promo:1:expire"):
        await bench.ledger.grant(bench.account_id, Source.PROMO, 10, name, starts_at_s=0, expires_at_s=NOON + 1)
    await bench.ledger.set_time(NOON + 1, opened_day=0)
    assert await bench.ledger.expire() == 3
    assert await bench.line("breakage:expired") == 30


async def test_opening_a_day_again_returns_the_first_grant_and_another_amount_is_refused(bench: Bench) -> None:
    first = await bench.allowance(500)
    assert await bench.allowance(500) == first
    with pytest.raises(Conflict):
        await bench.allowance(501)
    assert await bench.available() == 500


async def test_a_days_grant_is_raised_to_at_least_the_new_amount(bench: Bench) -> None:
    await bench.allowance(500)

    async def rise(to: int, name: str) -> int:
        grant = await bench.ledger.raise_grant(bench.account_id, DAY.number, Source.ALLOWANCE, to, name)
        assert grant is not None
        return grant.amount_nano

    assert [await rise(700, "evt:1"), await rise(700, "evt:1"), await rise(600, "evt:2")] == [700, 700, 700]
    assert await bench.available() == 700
    assert await bench.line("issuance:allowance") == -700


async def test_a_raise_without_a_grant_makes_it(bench: Bench) -> None:
    assert await bench.ledger.raise_grant(bench.account_id, DAY.number, Source.ALLOWANCE, 0, "evt:0") is None
    made = await bench.ledger.raise_grant(bench.account_id, DAY.number, Source.ALLOWANCE, 300, "evt:1")
    assert made is not None
    assert (made.starts_at_s, made.expires_at_s) == (DAY.start_s, DAY.end_s)
    opened = await bench.allowance(500)
    assert opened is not None
    assert (opened.id, opened.amount_nano) == (made.id, 500)


async def test_a_day_raised_after_its_end_becomes_breakage_again(bench: Bench) -> None:
    await bench.allowance(500)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    assert await bench.ledger.expire() == 1
    await bench.ledger.raise_grant(bench.account_id, DAY.number, Source.ALLOWANCE, 600, "evt:late")
    assert await bench.ledger.expire() == 1
    assert await bench.line("breakage:expired") == 600


async def test_ledger_time_never_goes_back_unless_forced(bench: Bench) -> None:
    await bench.ledger.set_time(NOON + 100, opened_day=DAY.number)
    await bench.ledger.set_time(NOON + 50, opened_day=DAY.number - 1)
    now = await bench.ledger.time()
    assert (now.at_s, now.opened_day, now.provisional) == (NOON + 100, DAY.number, False)
    await bench.ledger.set_time(NOON - 50, opened_day=3, force=True)
    now = await bench.ledger.time()
    assert (now.at_s, now.opened_day) == (NOON - 50, 3)


async def test_when_the_chain_stalls_ledger_time_runs_on_by_the_wall_clock(bench: Bench) -> None:
    await stalled_for(bench, 119)
    assert await bench.ledger.time() == LedgerTime(NOON, False, DAY.number - 1)
    await stalled_for(bench, 600)
    now = await bench.ledger.time()
    assert now.provisional
    assert NOON + 600 <= now.at_s < NOON + 660
    await bench.ledger.set_time(NOON + 300, opened_day=0)
    assert await bench.ledger.time() == LedgerTime(NOON + 300, False, DAY.number - 1)


async def test_provisional_time_ends_grants_but_posts_no_breakage(bench: Bench) -> None:
    await bench.allowance(500)
    await stalled_for(bench, 86_400)
    with pytest.raises(InsufficientCredit):
        await bench.hold(1)
    assert await bench.ledger.expire() == 0
    await bench.ledger.set_time(NOON + 1, opened_day=0)
    assert (await bench.hold(500)).amount_nano == 500


async def test_the_same_block_again_is_no_news(bench: Bench) -> None:
    await stalled_for(bench, 600)
    await bench.ledger.set_time(NOON, opened_day=0)
    assert (await bench.ledger.time()).provisional


async def test_before_any_block_was_seen_ledger_time_is_the_wall_clocks(bench: Bench) -> None:
    await bench.database.execute("update ledger.clock set at_s = 0, refreshed_at = 'epoch'")
    assert (await bench.ledger.time()).provisional
    await bench.ledger.set_time(NOON - 10**9, opened_day=0)
    assert (await bench.ledger.time()).at_s == NOON - 10**9
    await bench.ledger.set_time(NOON, opened_day=0)


async def stalled_for(bench: Bench, seconds: int) -> None:
    await bench.database.execute(
        "update ledger.clock set refreshed_at = clock_timestamp() - $1 * interval '1 second'", float(seconds)
    )
