import pytest

from freehold.clock import Month
from freehold.ledger.model import KeyState
from freehold.ledger.problems import KeyExpired, KeyLimitReached, KeyRevoked, StaleKey, StalePrice
from freehold.problems import NotFound

from .conftest import DAY, NOON, Bench


async def test_a_revoked_keys_next_hold_is_refused(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.settle(await bench.hold(1), 1)
    await bench.put_key(version=2, state=KeyState.REVOKED)
    with pytest.raises(KeyRevoked):
        await bench.hold(1)


async def test_an_unknown_key_is_refused_as_revoked(bench: Bench) -> None:
    await bench.prepaid(1_000)
    with pytest.raises(KeyRevoked):
        await bench.hold(1, key_id=99)


async def test_a_key_ends_at_its_second_of_ledger_time(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(version=1, expires_at_s=NOON + 10)
    await bench.settle(await bench.hold(1), 1)
    await bench.ledger.set_time(NOON + 10, opened_day=0)
    with pytest.raises(KeyExpired, match="2027-07-01T12:00:10Z"):
        await bench.hold(1)


async def test_a_changed_key_and_a_new_price_are_found_at_the_next_hold(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(version=2)
    with pytest.raises(StaleKey):
        await bench.hold(1, key_version=1)
    async with bench.database.transaction() as conn:
        await bench.ledger.set_price_version(conn, 7)
    with pytest.raises(StalePrice) as stale:
        await bench.hold(1, key_version=2)
    assert stale.value.current == 7
    assert (await bench.hold(1, key_version=2, price_version=7)).price_version == 7


async def test_a_price_version_is_not_seen_before_its_transaction_is_committed(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with bench.database.transaction() as conn:
        await bench.ledger.set_price_version(conn, 7)
        assert (await bench.hold(1)).price_version == 0


async def test_a_price_version_never_goes_back(bench: Bench) -> None:
    async with bench.database.transaction() as conn:
        await bench.ledger.set_price_version(conn, 7)
        await bench.ledger.set_price_version(conn, 6)
    with pytest.raises(StalePrice) as stale:
        await bench.hold(1)
    assert stale.value.current == 7


async def test_a_daily_limit_counts_used_and_held_and_says_when_it_resets(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, day_cap_nano=100)
    await bench.settle(await bench.hold(50), 40)
    await bench.hold(30)
    with pytest.raises(KeyLimitReached) as refused:
        await bench.hold(31)
    assert "daily limit of 0.0000001 USD has 0.00000007 USD used or held" in refused.value.message
    assert "resets at 2027-07-02T00:00:00Z" in refused.value.message
    assert (await bench.hold(30)).amount_nano == 30


async def test_a_daily_limit_begins_anew_with_the_ledgers_day(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, day_cap_nano=100)
    await bench.settle(await bench.hold(100), 100)
    with pytest.raises(KeyLimitReached):
        await bench.hold(1)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    await bench.settle(await bench.hold(100), 100)
    (spend,) = await bench.ledger.key_spend(bench.account_id)
    assert (spend.day, spend.day_used_nano, spend.total_used_nano) == (DAY.number + 1, 100, 200)


async def test_a_hold_of_yesterday_does_not_count_against_today(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, day_cap_nano=100)
    late = await bench.hold(90)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    today = await bench.hold(100)
    charge = await bench.settle(late, 80)
    assert charge.day == DAY.number
    await bench.settle(today, 60)
    (spend,) = await bench.ledger.key_spend(bench.account_id)
    assert (spend.day_used_nano, spend.day_held_nano, spend.total_used_nano) == (60, 0, 140)


async def test_a_day_that_comes_again_still_knows_what_it_used_and_holds(bench: Bench) -> None:
    """A dev chain that lost its tail brings ledger time back."""
    await bench.prepaid(10_000)
    await bench.put_key(version=1, day_cap_nano=100)
    await bench.settle(await bench.hold(40), 40)
    open_one = await bench.hold(20)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    await bench.settle(await bench.hold(10), 10)
    await bench.ledger.set_time(NOON, opened_day=0, force=True)
    with pytest.raises(KeyLimitReached):
        await bench.hold(41)
    await bench.hold(40)
    await bench.settle(open_one, 20)


async def test_what_a_day_used_before_its_first_block_counts_in_it(bench: Bench) -> None:
    """The chain stalls, its day begins by the wall clock, and the next block is of the day before."""
    await bench.prepaid(10_000)
    await bench.put_key(version=1, day_cap_nano=100, month_cap_nano=120)
    month = Month.of(NOON)
    await bench.ledger.set_time(month.end_s - 200, opened_day=0)
    await bench.database.execute("update ledger.clock set refreshed_at = clock_timestamp() - interval '300 s'")
    early = await bench.hold(80)
    await bench.ledger.set_time(month.end_s - 100, opened_day=0)
    charge = await bench.settle(early, 80)
    assert (charge.day, charge.at_s) == (Month.of(NOON).next().first.number, month.end_s - 100)
    await bench.settle(await bench.hold(10), 10)
    await bench.ledger.set_time(month.end_s + 1, opened_day=0)
    with pytest.raises(KeyLimitReached, match="daily"):
        await bench.hold(21)
    await bench.settle(await bench.hold(20), 20)
    await bench.ledger.set_time(month.end_s + 86_400, opened_day=0)
    with pytest.raises(KeyLimitReached, match="monthly"):
        await bench.hold(21)


async def test_a_monthly_limit_counts_every_day_of_the_month_and_says_when_it_resets(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, month_cap_nano=100)
    await bench.settle(await bench.hold(50), 40)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    await bench.hold(30)
    with pytest.raises(KeyLimitReached) as refused:
        await bench.hold(31)
    assert "monthly limit of 0.0000001 USD has 0.00000007 USD used or held" in refused.value.message
    assert "resets at 2027-08-01T00:00:00Z" in refused.value.message
    await bench.hold(30)
    (spend,) = await bench.ledger.key_spend(bench.account_id)
    assert (str(spend.month), spend.month_used_nano, spend.month_held_nano) == ("2027-07", 40, 60)


async def test_a_monthly_limit_begins_anew_with_the_ledgers_month(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, month_cap_nano=100)
    late = await bench.hold(100)
    with pytest.raises(KeyLimitReached):
        await bench.hold(1)
    july = Month.of(NOON)
    await bench.ledger.set_time(july.end_s - 1, opened_day=0)
    with pytest.raises(KeyLimitReached):
        await bench.hold(1)
    await bench.ledger.set_time(july.end_s, opened_day=0)
    (spend,) = await bench.ledger.key_spend(bench.account_id)
    assert (spend.month, spend.month_used_nano, spend.month_held_nano) == (july.next(), 0, 0)
    today = await bench.hold(100)
    await bench.settle(late, 80)
    await bench.settle(today, 60)
    (spend,) = await bench.ledger.key_spend(bench.account_id)
    assert (spend.month_used_nano, spend.month_held_nano, spend.total_used_nano) == (60, 0, 140)


async def test_a_month_that_comes_again_still_knows_what_it_used_and_holds(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, month_cap_nano=100)
    await bench.settle(await bench.hold(40), 40)
    open_one = await bench.hold(20)
    await bench.ledger.set_time(Month.of(NOON).end_s, opened_day=0)
    await bench.settle(await bench.hold(10), 10)
    await bench.ledger.set_time(NOON, opened_day=0, force=True)
    with pytest.raises(KeyLimitReached):
        await bench.hold(41)
    await bench.hold(40)
    await bench.settle(open_one, 20)


async def test_cost_above_a_hold_counts_in_no_limit(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, day_cap_nano=100, month_cap_nano=100, total_cap_nano=100)
    charge = await bench.settle(await bench.hold(60), 130)
    assert (charge.cost_nano, charge.absorbed_nano) == (60, 70)
    assert (await bench.hold(40)).amount_nano == 40


async def test_a_keys_limits_are_read_as_they_were_put(bench: Bench) -> None:
    await bench.put_key(version=2, month_cap_nano=5, rpm=6, tpm=7)
    limits = await bench.ledger.key_limits(bench.account_id, bench.key_id)
    assert (limits.month_cap_nano, limits.rpm, limits.tpm) == (5, 6, 7)
    assert await bench.ledger.limits(bench.account_id) == [limits]
    await bench.put_key(version=3)
    limits = await bench.ledger.key_limits(bench.account_id, bench.key_id)
    assert (limits.month_cap_nano, limits.rpm, limits.tpm) == (None, None, None)


async def test_a_total_limit_never_resets(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.put_key(version=1, total_cap_nano=100)
    await bench.settle(await bench.hold(100), 100)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    with pytest.raises(KeyLimitReached, match=r"total limit of 0\.0000001 USD .* resets never"):
        await bench.hold(1)


async def test_new_caps_keep_what_was_used(bench: Bench) -> None:
    await bench.prepaid(10_000)
    await bench.settle(await bench.hold(100), 100)
    await bench.put_key(version=2, day_cap_nano=50)
    with pytest.raises(KeyLimitReached):
        await bench.hold(1, key_version=2)
    await bench.put_key(version=3, day_cap_nano=150)
    assert (await bench.hold(50, key_version=3)).amount_nano == 50


async def test_an_older_version_of_a_key_changes_nothing(bench: Bench) -> None:
    await bench.put_key(version=5, state=KeyState.REVOKED)
    await bench.put_key(version=4)
    limits = await bench.ledger.key_limits(bench.account_id, bench.key_id)
    assert (limits.version, limits.state) == (5, KeyState.REVOKED)


async def test_a_route_that_holds_nothing_asks_the_same_of_a_key(bench: Bench) -> None:
    await bench.ledger.require_key(bench.account_id, bench.key_id, 1)
    with pytest.raises(StaleKey):
        await bench.ledger.require_key(bench.account_id, bench.key_id, 2)
    await bench.put_key(version=1, expires_at_s=NOON)
    with pytest.raises(KeyExpired):
        await bench.ledger.require_key(bench.account_id, bench.key_id, 1)
    await bench.put_key(version=2, state=KeyState.REVOKED)
    with pytest.raises(KeyRevoked):
        await bench.ledger.require_key(bench.account_id, bench.key_id, 2)


async def test_limits_of_an_unknown_key_are_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.ledger.key_limits(bench.account_id, 99)
