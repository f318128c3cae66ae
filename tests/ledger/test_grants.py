import asyncio

import pytest

from freehold.ledger.model import FOREVER_S, Source
from freehold.problems import Conflict, InvalidRequest, NotFound

from .conftest import DAY, Bench


async def test_a_grant_is_posted_once_for_its_id_also_when_concurrent(bench: Bench) -> None:
    made = await asyncio.gather(*(bench.prepaid(1_000, "evt:1") for _ in range(10)))
    assert len({grant.id for grant in made}) == 1
    assert await bench.available() == 1_000
    assert await bench.line("cash:usdc") == -1_000


async def test_the_same_id_with_another_body_is_refused(bench: Bench) -> None:
    await bench.prepaid(1_000, "evt:1")
    with pytest.raises(Conflict, match="evt:1"):
        await bench.prepaid(1_001, "evt:1")
    assert await bench.available() == 1_000


async def test_a_grant_joins_its_callers_transaction(bench: Bench) -> None:
    class Undone(Exception):
        pass

    with pytest.raises(Undone):
        async with bench.database.transaction() as conn:
            await bench.ledger.grant(
                bench.account_id, Source.PROMO, 5, "promo:1", starts_at_s=0, expires_at_s=FOREVER_S, conn=conn
            )
            raise Undone
    assert await bench.available() == 0


async def test_a_grant_needs_an_account_and_an_amount(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.ledger.grant(999, Source.PROMO, 5, "promo:1", starts_at_s=0, expires_at_s=FOREVER_S)
    for amount in (0, -1, 2**63):
        with pytest.raises(InvalidRequest):
            await bench.prepaid(amount)
    with pytest.raises(InvalidRequest, match="ends after it starts"):
        await bench.ledger.grant(bench.account_id, Source.PROMO, 5, "promo:1", starts_at_s=9, expires_at_s=9)


async def test_a_reversal_takes_what_is_available_and_absorbs_the_rest(bench: Bench) -> None:
    await bench.prepaid(1_000, "evt:1")
    await bench.settle(await bench.hold(700), 700)
    taken = await bench.ledger.reverse(bench.account_id, "evt:1", 100, "evt:1:reorg")
    assert taken == 300
    assert await bench.available() == 0
    assert await bench.line("absorbed:reorg") == -600
    assert await bench.line("cash:usdc") == -100
    assert await bench.line("revenue:usage") == 700


async def test_a_reversal_again_returns_what_the_first_took(bench: Bench) -> None:
    await bench.prepaid(1_000, "evt:1")
    first = await bench.ledger.reverse(bench.account_id, "evt:1", 400, "evt:1:reorg")
    assert [first, await bench.ledger.reverse(bench.account_id, "evt:1", 400, "evt:1:reorg")] == [600, 600]
    with pytest.raises(Conflict):
        await bench.ledger.reverse(bench.account_id, "evt:1", 300, "evt:1:reorg")
    assert await bench.available() == 400


async def test_a_reversal_to_more_than_there_is_takes_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000, "evt:1")
    assert await bench.ledger.reverse(bench.account_id, "evt:1", 1_000, "evt:1:reorg") == 0
    with pytest.raises(NotFound):
        await bench.ledger.reverse(bench.account_id, "evt:2", 0, "evt:2:reorg")
    with pytest.raises(InvalidRequest):
        await bench.ledger.reverse(bench.account_id, "evt:1", -1, "evt:1:reorg")


async def test_a_stake_that_returns_after_a_reorg_is_not_granted_twice(bench: Bench) -> None:
    grant = await bench.allowance(1_000)
    assert grant is not None
    await bench.settle(await bench.hold(700), 700)
    assert await bench.ledger.reverse(bench.account_id, grant.external_id, 0, "reorg:1") == 300
    raised = await bench.ledger.raise_grant(bench.account_id, DAY.number, Source.ALLOWANCE, 1_000, "evt:again")
    assert raised is not None
    assert (await bench.available(), raised.amount_nano) == (300, 1_000)
    assert await bench.line("absorbed:reorg") == 0
    assert await bench.line("issuance:allowance") == -1_000


async def test_what_is_held_stays_with_its_call_when_its_grant_is_reversed(bench: Bench) -> None:
    await bench.prepaid(1_000, "evt:1")
    hold = await bench.hold(400)
    assert await bench.ledger.reverse(bench.account_id, "evt:1", 0, "evt:1:reorg") == 600
    await bench.settle(hold, 400)
    assert await bench.line("absorbed:reorg") == -400


async def test_grants_are_listed_in_the_order_that_they_are_drawn(bench: Bench) -> None:
    await bench.prepaid(10)
    await bench.allowance(20)
    await bench.ledger.grant(bench.account_id, Source.PROMO, 5, "promo:1", starts_at_s=0, expires_at_s=1)
    assert [grant.source for grant in await bench.ledger.grants(bench.account_id, live_only=True)] == [
        Source.ALLOWANCE, Source.PREPAID,
    ]  # fmt: skip
    assert len(await bench.ledger.grants(bench.account_id, live_only=False)) == 3


async def test_a_reversed_grant_that_comes_back_makes_good_what_was_spent_of_it(bench: Bench) -> None:
    await bench.prepaid(100)
    await bench.settle(await bench.hold(70), 70)
    assert await bench.ledger.reverse(bench.account_id, "evt:1", 0, "evt:1:reverse:1") == 30
    assert (await bench.available(), await bench.line("absorbed:reorg")) == (0, -70)
    for _ in range(2):
        grant = await bench.ledger.restore(bench.account_id, "evt:1", 100, "evt:2")
        assert (grant.amount_nano, grant.available_nano) == (100, 30)
    assert (await bench.available(), await bench.line("absorbed:reorg")) == (30, 0)
    with pytest.raises(Conflict):
        await bench.ledger.restore(bench.account_id, "evt:1", 101, "evt:2")
    with pytest.raises(NotFound):
        await bench.ledger.restore(bench.account_id, "evt:3", 100, "evt:4")
