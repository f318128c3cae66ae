"""A hold that grows while its call runs."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from freehold.clock import SystemClock
from freehold.db import Connection
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Hold, KeyState, Source
from freehold.ledger.problems import (
    DayUnopened,
    InsufficientCredit,
    KeyExpired,
    KeyLimitReached,
    KeyRevoked,
    WorkerFenced,
)
from freehold.problems import Conflict, InvalidRequest, NotFound

from .conftest import DAY, NOON, Bench, settlement

CALLERS = 64


async def test_an_extended_hold_holds_more_and_is_settled_whole(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.ledger.extend(await bench.hold(100), 50)
    assert (hold.amount_nano, hold.step, [leg.amount_nano for leg in hold.legs]) == (150, 1, [150])
    assert (await bench.available(), await bench.held()) == (850, 150)
    charge = await bench.settle(hold, 140)
    assert (charge.held_nano, charge.cost_nano, charge.absorbed_nano) == (150, 140, 0)
    assert (await bench.available(), await bench.held()) == (860, 0)


async def test_an_extension_goes_on_with_the_next_purse(bench: Bench) -> None:
    await bench.allowance(120)
    await bench.prepaid(1_000)
    hold = await bench.ledger.extend(await bench.hold(100), 50)
    assert [(leg.source, leg.amount_nano) for leg in hold.legs] == [(Source.ALLOWANCE, 120), (Source.PREPAID, 30)]
    charge = await bench.settle(hold, 125)
    assert [(leg.source, leg.amount_nano) for leg in charge.legs] == [(Source.ALLOWANCE, 120), (Source.PREPAID, 5)]


async def test_an_extended_hold_is_released_whole_also_by_who_knows_only_its_first_step(bench: Bench) -> None:
    await bench.allowance(120)
    await bench.prepaid(1_000)
    first = await bench.hold(100)
    await bench.ledger.extend(first, 50)
    await bench.ledger.release(first)
    assert (await bench.available(), await bench.held()) == (1_120, 0)


async def test_what_the_first_step_knows_settles_the_whole_hold(bench: Bench) -> None:
    await bench.prepaid(1_000)
    first = await bench.hold(100)
    await bench.ledger.extend(first, 50)
    charge = await bench.settle(first, 150)
    assert (charge.held_nano, charge.cost_nano, charge.absorbed_nano) == (150, 150, 0)


async def test_an_extension_that_credit_does_not_cover_changes_nothing(bench: Bench) -> None:
    await bench.prepaid(149)
    hold = await bench.hold(100)
    with pytest.raises(InsufficientCredit, match=r"0\.000000049 USD is left"):
        await bench.ledger.extend(hold, 50)
    assert await bench.held() == 100
    assert (await bench.ledger.extend(hold, 49)).amount_nano == 149


@pytest.mark.parametrize(
    ("cap", "named"), [("day_cap_nano", "daily"), ("month_cap_nano", "monthly"), ("total_cap_nano", "total")]
)
async def test_an_extension_keeps_to_the_keys_caps(bench: Bench, cap: str, named: str) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(**{cap: 149})
    hold = await bench.hold(100)
    with pytest.raises(KeyLimitReached, match=named):
        await bench.ledger.extend(hold, 50)
    assert (await bench.ledger.extend(hold, 49)).amount_nano == 149


async def test_the_same_step_sent_again_is_one_step(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    extended = await bench.ledger.extend(hold, 50)
    assert await bench.ledger.extend(hold, 50) == extended
    assert await bench.held() == 150
    with pytest.raises(Conflict):
        await bench.ledger.extend(hold, 51)
    assert (await bench.ledger.extend(extended, 50)).amount_nano == 200
    with pytest.raises(Conflict):
        await bench.ledger.extend(hold, 50)


async def test_a_hold_that_has_ended_is_not_extended(bench: Bench) -> None:
    await bench.prepaid(1_000)
    settled, released = await bench.hold(100), await bench.hold(100)
    await bench.settle(settled, 10)
    await bench.ledger.release(released)
    for hold in (settled, released):
        with pytest.raises(NotFound):
            await bench.ledger.extend(hold, 1)


async def test_a_revoked_or_ended_key_extends_nothing_and_a_changed_one_does(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    await bench.put_key(version=2)
    async with bench.database.transaction() as conn:
        await bench.ledger.set_price_version(conn, 7)
    hold = await bench.ledger.extend(hold, 50)
    assert (hold.amount_nano, hold.price_version) == (150, 0)
    await bench.put_key(version=3, expires_at_s=NOON)
    with pytest.raises(KeyExpired):
        await bench.ledger.extend(hold, 50)
    await bench.put_key(version=4, state=KeyState.REVOKED)
    with pytest.raises(KeyRevoked):
        await bench.ledger.extend(hold, 50)
    assert (await bench.settle(hold, 150)).cost_nano == 150


async def test_a_lapsed_workers_hold_is_not_extended(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    await bench.database.execute("update ledger.epochs set beat_at = beat_at - interval '1 minute'")
    await bench.database.execute("update ledger.epochs set lapsed_at = clock_timestamp()")
    with pytest.raises(WorkerFenced):
        await bench.ledger.extend(hold, 50)
    assert await bench.held() == 100
    await bench.ledger.sweep()
    assert await bench.held() == 0
    with pytest.raises(NotFound):
        await bench.ledger.extend(hold, 50)


async def test_a_sweep_absorbs_the_whole_extended_hold(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.ledger.extend(await bench.hold(100), 50)
    await bench.database.execute("update ledger.epochs set lapsed_at = clock_timestamp()")
    assert await bench.ledger.sweep() == 1
    assert (await bench.ledger.charge(bench.account_id, hold.request_id)).absorbed_nano == 150
    assert await bench.available() == 1_000


async def test_todays_unissued_allowance_matters_only_where_nothing_else_pays(bench: Bench) -> None:
    await bench.prepaid(200)
    hold = await bench.hold(100)
    await bench.ledger.set_time(DAY.end_s, opened_day=DAY.number + 1)
    hold = await bench.ledger.extend(hold, 50)
    with pytest.raises(DayUnopened):
        await bench.ledger.extend(hold, 51)
    with pytest.raises(InsufficientCredit):
        await bench.ledger.extend(hold, 51, day_unopened_ok=True)
    await bench.allowance(1, DAY.next())
    assert (await bench.ledger.extend(hold, 51)).amount_nano == 201


async def test_an_extension_after_midnight_counts_for_its_holds_day(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(day_cap_nano=100)
    late = await bench.hold(60)
    other = await bench.hold(10)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    await bench.hold(100)
    results = await asyncio.gather(
        bench.ledger.extend(late, 20), bench.ledger.extend(other, 20), return_exceptions=True
    )
    assert sorted(type(result) for result in results if isinstance(result, Hold)) == [Hold]
    assert sum(isinstance(result, KeyLimitReached) for result in results) == 1
    (spend,) = await bench.ledger.key_spend(bench.account_id)
    assert (spend.day_held_nano, spend.month_held_nano, spend.total_held_nano) == (100, 190, 190)
    assert await bench.ledger.check() == []


async def test_only_a_step_above_nothing_is_asked_for(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    for more in (0, -1):
        with pytest.raises(InvalidRequest):
            await bench.ledger.extend(hold, more)


async def test_64_streams_that_extend_over_two_workers_get_exactly_what_is_there(bench: Bench) -> None:
    await bench.prepaid(CALLERS * 10 + 1_009)
    async with Ledger(bench.database, clock=SystemClock()) as other:
        ledgers = [bench.ledger, other]
        holds = await asyncio.gather(*(ledgers[n % 2].hold(bench.request(10)) for n in range(CALLERS)))

        async def stream(number: int) -> Hold:
            hold = holds[number]
            for _ in range(4):
                try:
                    hold = await ledgers[number % 2].extend(hold, 10)
                except InsufficientCredit:
                    break
            return hold

        grown = await asyncio.gather(*(stream(number) for number in range(CALLERS)))
        assert sum(hold.step for hold in grown) == 100
        assert (await bench.available(), await bench.held()) == (9, CALLERS * 10 + 1_000)
        charges = await asyncio.gather(
            *(ledgers[n % 2].settle(hold, settlement(hold.amount_nano)) for n, hold in enumerate(grown))
        )
        assert sum(charge.cost_nano for charge in charges) == CALLERS * 10 + 1_000
        assert await bench.held() == 0


class LosesAnswers(Ledger):
    """A ledger whose connection breaks right after PostgreSQL committed a batch of holds, once."""

    loses = False

    async def _hold_batch(
        self, connection: Connection, epoch: int, requests: Sequence[object]
    ) -> list[Hold | Exception]:
        results = await super()._hold_batch(connection, epoch, requests)  # type: ignore[arg-type]
        if self.loses:
            self.loses = False
            raise ConnectionResetError("lost after the commit")
        return results


async def test_an_extension_whose_commit_is_unknown_is_made_once(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with LosesAnswers(bench.database, clock=SystemClock()) as ledger:
        hold = await ledger.hold(bench.request(100))
        ledger.loses = True
        extended = await ledger.extend(hold, 50)
        assert extended == replace(hold, amount_nano=150, step=1, legs=extended.legs)
        assert await bench.held() == 150
        await ledger.release(extended)


async def test_a_caller_that_leaves_while_it_extends_keeps_its_call(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    call = asyncio.create_task(bench.ledger.extend(hold, 50))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    assert (await bench.settle(hold, 90)).cost_nano == 90
    assert await bench.available() == 910
