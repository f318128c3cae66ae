"""What attempts at upstreams cost the operator."""

import pytest

from freehold.ledger.model import Attempt
from freehold.problems import Conflict, InvalidRequest, NotFound

from .conftest import Bench

TRIES = (Attempt("near", 0, "refused"), Attempt("near", 4, "died"), Attempt("far", 30))


async def test_each_attempt_is_booked_and_owed_and_costs_the_account_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000)
    charge = await bench.settle(await bench.hold(100), 70, attempts=TRIES)
    assert (charge.cost_nano, charge.attempts) == (70, TRIES)
    assert await bench.available() == 930
    assert [await bench.line(f"cost:upstream:{name}") for name in ("near", "far")] == [-4, -30]
    assert [await bench.line(f"payable:upstream:{name}") for name in ("near", "far")] == [4, 30]
    assert await bench.line("revenue:usage") == 70


async def test_attempts_are_read_back_with_their_charge(bench: Bench) -> None:
    await bench.prepaid(1_000)
    with_tries, without = await bench.hold(100), await bench.hold(100)
    await bench.settle(with_tries, 70, attempts=TRIES)
    await bench.settle(without, 70)
    page = await bench.ledger.charges(bench.account_id)
    assert {charge.request_id: charge.attempts for charge in page.charges} == {
        with_tries.request_id: TRIES,
        without.request_id: (),
    }


async def test_a_call_that_cost_the_account_nothing_may_cost_the_operator(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.settle(await bench.hold(100), 0, attempts=TRIES[:2], outcome="upstream_died")
    assert (await bench.available(), await bench.line("cost:upstream:near")) == (1_000, -4)


async def test_a_repeat_books_its_attempts_once_and_others_are_another_body(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    await bench.settle(hold, 70, attempts=TRIES)
    assert (await bench.settle(hold, 70, attempts=TRIES)).attempts == TRIES
    assert await bench.line("payable:upstream:far") == 30
    with pytest.raises(Conflict):
        await bench.settle(hold, 70, attempts=TRIES[:2])


@pytest.mark.parametrize("wrong", [Attempt("near", -1), Attempt("near", 2**63), Attempt("", 1)])
async def test_an_attempt_has_an_upstream_and_a_cost(bench: Bench, wrong: Attempt) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    with pytest.raises(InvalidRequest):
        await bench.settle(hold, 70, attempts=(wrong,))


async def test_what_a_released_calls_attempts_cost_is_owed_once_and_the_account_pays_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    tries = (Attempt("one", 7, "upstream_died"), Attempt("two", 0, "refused"), Attempt("one", 5, "upstream_died"))
    for _ in range(2):
        await bench.ledger.release(hold, tries)
    assert await bench.available() == 1_000
    assert (await bench.line("cost:upstream:one"), await bench.line("payable:upstream:one")) == (-12, 12)
    assert await bench.line("cost:upstream:two") == 0
    with pytest.raises(NotFound):
        await bench.ledger.charge(bench.account_id, hold.request_id)


async def test_a_release_without_paid_attempts_posts_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.ledger.release(await bench.hold(100))
    await bench.ledger.release(await bench.hold(100), (Attempt("one", 0, "refused"),))
    assert await bench.database.fetchval("select count(*) from ledger.postings") == 1
    with pytest.raises(InvalidRequest):
        await bench.ledger.release(await bench.hold(100), (Attempt("", 1),))
