from uuid import uuid4

import pytest

from freehold.ledger.model import FOREVER_S, Source
from freehold.ledger.problems import InsufficientCredit
from freehold.problems import Conflict, InvalidRequest, NotFound

from .conftest import DAY, NOON, Bench


async def test_a_settled_hold_charges_its_cost_and_gives_the_rest_back(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(600)
    assert (await bench.available(), await bench.held()) == (400, 600)
    charge = await bench.settle(hold, 250)
    assert (charge.cost_nano, charge.absorbed_nano, charge.remaining[Source.PREPAID]) == (250, 0, 750)
    assert (await bench.available(), await bench.held()) == (750, 0)
    assert await bench.line("revenue:usage") == 250


async def test_a_hold_that_does_not_fit_is_refused_with_the_numbers_and_writes_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000)
    before = await everything(bench)
    with pytest.raises(InsufficientCredit) as refused:
        await bench.hold(1_001)
    assert "up to 0.000001001 USD" in refused.value.message
    assert "(allowance 0.00, prepaid 0.000001)" in refused.value.message
    assert "2027-07-02T00:00:00Z" in refused.value.message
    assert await everything(bench) == before


async def test_a_refusal_says_to_wait_while_the_new_day_has_no_confirmations(bench: Bench) -> None:
    with pytest.raises(InsufficientCredit) as pending:
        await bench.hold(1)
    assert pending.value.headers()["retry-after"] == "5"
    await bench.ledger.set_time(NOON + 1, opened_day=DAY.number)
    with pytest.raises(InsufficientCredit) as final:
        await bench.hold(1, day_unopened_ok=True)
    assert "retry-after" not in final.value.headers()


async def test_a_hold_draws_by_priority_then_end_then_start(bench: Bench) -> None:
    async def grant(source: Source, name: str, starts: int, ends: int) -> int:
        made = await bench.ledger.grant(bench.account_id, source, 10, name, starts_at_s=starts, expires_at_s=ends)
        return made.id

    late = await grant(Source.PREPAID, "a", 0, FOREVER_S)
    promo = await grant(Source.PROMO, "b", 0, NOON + 10)
    strip = await grant(Source.STRIP, "c", 5, NOON + 500)
    sooner = await grant(Source.ALLOWANCE, "d", 5, NOON + 400)
    earlier = await grant(Source.ALLOWANCE, "e", 4, NOON + 400)
    hold = await bench.hold(45)
    assert [leg.grant_id for leg in hold.legs] == [earlier, sooner, strip, promo, late]
    assert [leg.amount_nano for leg in hold.legs] == [10, 10, 10, 10, 5]
    charge = await bench.settle(hold, 25)
    assert [(leg.source, leg.amount_nano) for leg in charge.legs] == [
        (Source.ALLOWANCE, 10), (Source.ALLOWANCE, 10), (Source.STRIP, 5),
    ]  # fmt: skip
    assert await bench.available() == 25


async def test_a_grant_that_has_not_begun_pays_nothing(bench: Bench) -> None:
    await bench.ledger.grant(
        bench.account_id, Source.PROMO, 10, "promo:1", starts_at_s=NOON + 1, expires_at_s=NOON + 100
    )
    with pytest.raises(InsufficientCredit):
        await bench.hold(1)
    await bench.ledger.set_time(NOON + 1, opened_day=0)
    await bench.settle(await bench.hold(1), 1)


async def test_a_flexible_hold_takes_an_eighth_of_what_is_left_but_at_least_its_least(bench: Bench) -> None:
    await bench.prepaid(8_000)
    assert (await bench.hold(5_000, least=10)).amount_nano == 1_000
    assert (await bench.hold(500, least=10)).amount_nano == 500
    assert (await bench.hold(5_000, least=2_000)).amount_nano == 2_000
    with pytest.raises(InsufficientCredit):
        await bench.hold(9_000, least=4_501)


async def test_a_flexible_hold_counts_the_keys_caps_as_what_is_left(bench: Bench) -> None:
    await bench.prepaid(1_000_000)
    await bench.put_key(version=1, day_cap_nano=800)
    assert (await bench.hold(5_000, least=10)).amount_nano == 100


async def test_a_free_call_needs_no_credit(bench: Bench) -> None:
    hold = await bench.hold(0)
    assert hold.legs == ()
    charge = await bench.settle(hold, 0)
    assert (charge.cost_nano, charge.legs) == (0, ())


async def test_cost_above_the_hold_is_the_operators_however_much_credit_is_left(bench: Bench) -> None:
    await bench.ledger.grant(bench.account_id, Source.PROMO, 100, "promo", starts_at_s=0, expires_at_s=FOREVER_S)
    await bench.prepaid(1_000)
    hold = await bench.hold(80)
    charge = await bench.settle(hold, 150)
    assert (charge.cost_nano, charge.absorbed_nano) == (80, 70)
    assert await bench.available(Source.PROMO) == 20
    assert await bench.available(Source.PREPAID) == 1_000
    assert await bench.line("absorbed:overage") == -70
    assert await bench.line("revenue:usage") == 150


async def test_a_released_hold_leaves_no_trace_in_the_books(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(600)
    await bench.ledger.release(hold)
    await bench.ledger.release(hold)
    assert (await bench.available(), await bench.held()) == (1_000, 0)
    with pytest.raises(NotFound):
        await bench.settle(hold, 1)
    assert await bench.database.fetchval("select count(*) from ledger.charges") == 0


async def test_releasing_a_settled_hold_changes_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(600)
    await bench.settle(hold, 100)
    await bench.ledger.release(hold)
    assert await bench.available() == 900


async def test_a_hold_again_with_the_same_body_is_the_first_one(bench: Bench) -> None:
    await bench.prepaid(1_000)
    request = bench.request(600)
    assert await bench.ledger.hold(request) == await bench.ledger.hold(request)
    assert await bench.held() == 600


async def test_a_hold_again_with_another_body_is_refused(bench: Bench) -> None:
    await bench.prepaid(1_000)
    name = uuid4()
    await bench.hold(100, request_id=name)
    with pytest.raises(Conflict):
        await bench.hold(101, request_id=name)


async def test_the_id_of_an_ended_hold_is_not_used_again(bench: Bench) -> None:
    await bench.prepaid(1_000)
    request = bench.request(100)
    await bench.settle(await bench.ledger.hold(request), 100)
    with pytest.raises(Conflict):
        await bench.ledger.hold(request)


async def test_settling_again_returns_the_first_charge_and_another_result_is_refused(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(600)
    first = await bench.settle(hold, 250)
    again = await bench.settle(hold, 250)
    assert (again.cost_nano, again.legs, again.usage) == (first.cost_nano, first.legs, first.usage)
    for other in ({"cost": 251}, {"model": "large"}, {"usage": {"input": 4}}, {"outcome": "disconnected"}):
        with pytest.raises(Conflict):
            await bench.settle(hold, **{"cost": 250, **other})  # type: ignore[arg-type]
    assert await bench.available() == 750


async def test_an_amount_that_no_column_holds_is_refused(bench: Bench) -> None:
    for amount in (-1, 2**63):
        with pytest.raises(InvalidRequest):
            await bench.hold(amount)
    await bench.prepaid(10)
    with pytest.raises(InvalidRequest):
        await bench.settle(await bench.hold(5), 2**63)


async def test_the_largest_amounts_are_decided_without_overflow(bench: Bench) -> None:
    await bench.prepaid(2**63 - 2)
    hold = await bench.hold(2**63 - 2)
    with pytest.raises(InsufficientCredit):
        await bench.hold(2**63 - 1)
    charge = await bench.settle(hold, 2**63 - 1)
    assert (charge.cost_nano, charge.absorbed_nano) == (2**63 - 2, 1)


async def everything(bench: Bench) -> list[object]:
    return [
        await bench.database.fetch(f"select * from ledger.{table} order by 1, 2")
        for table in ("keys", "grants", "holds", "postings", "charges", "accounts")
    ]
