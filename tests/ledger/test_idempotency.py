"""One key, one call: its repeat waits, or gets the first answer, and is never held."""

import asyncio

import pytest

from freehold.clock import SystemClock
from freehold.ledger.jobs import once
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Hold, KeyState
from freehold.ledger.problems import (
    AnswerStored,
    IdempotencyConflict,
    IdempotencyInProgress,
    InsufficientCredit,
    KeyRevoked,
)
from freehold.problems import InvalidRequest

from .conftest import Bench, new_account, settlement

CALLERS = 64


async def keys(bench: Bench) -> int:
    return int(await bench.database.fetchval("select count(*) from ledger.idempotency"))


async def test_while_the_first_call_runs_its_repeat_is_told_to_ask_again(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100, idempotency_key="k")
    with pytest.raises(IdempotencyInProgress, match=f"req_{hold.request_id.hex}") as refused:
        await bench.hold(100, idempotency_key="k")
    assert (refused.value.status, refused.value.headers()) == (409, {"retry-after": "1"})
    assert await bench.held() == 100


async def test_the_repeat_of_a_settled_call_gets_its_answer_and_holds_nothing(bench: Bench) -> None:
    await bench.prepaid(100)
    hold = await bench.hold(100, idempotency_key="k")
    await bench.settle(hold, 100, answer=b"\x00sealed")
    with pytest.raises(AnswerStored) as stored:
        await bench.hold(100, idempotency_key="k")
    assert (stored.value.request_id, stored.value.answer) == (hold.request_id, b"\x00sealed")
    assert await bench.held() == 0


async def test_an_answer_that_is_not_kept_names_its_request_only(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100, idempotency_key="k")
    await bench.settle(hold, 100)
    with pytest.raises(AnswerStored) as stored:
        await bench.hold(100, idempotency_key="k")
    assert (stored.value.request_id, stored.value.answer) == (hold.request_id, None)


async def test_an_answer_that_follows_is_waited_for_a_while(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100, idempotency_key="k")
    assert not await bench.ledger.store_answer(hold, b"too early")
    await bench.settle(hold, 100, answer_follows=True)
    with pytest.raises(IdempotencyInProgress):
        await bench.hold(100, idempotency_key="k")
    assert await bench.ledger.store_answer(hold, b"answer")
    assert not await bench.ledger.store_answer(hold, b"another")
    with pytest.raises(AnswerStored) as stored:
        await bench.hold(100, idempotency_key="k")
    assert stored.value.answer == b"answer"


async def test_an_answer_that_never_follows_holds_its_key_up_for_half_a_minute_only(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.settle(await bench.hold(100, idempotency_key="k"), 100, answer_follows=True)
    await bench.database.execute("update ledger.idempotency set answer_due = answer_due - interval '31 seconds'")
    with pytest.raises(AnswerStored) as stored:
        await bench.hold(100, idempotency_key="k")
    assert stored.value.answer is None


@pytest.mark.parametrize("settled", [False, True])
async def test_another_body_under_the_same_key_is_a_conflict(bench: Bench, settled: bool) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100, idempotency_key="k", body=b"one")
    if settled:
        await bench.settle(hold, 100, answer=b"answer")
    with pytest.raises(IdempotencyConflict, match=f"req_{hold.request_id.hex}") as refused:
        await bench.hold(100, idempotency_key="k", body=b"two")
    assert (refused.value.status, refused.value.headers()) == (409, {"x-should-retry": "false"})


async def test_a_released_hold_frees_its_key(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.ledger.release(await bench.hold(100, idempotency_key="k", body=b"one"))
    assert await keys(bench) == 0
    assert (await bench.hold(100, idempotency_key="k", body=b"two")).idempotency_key == "k"


async def test_a_swept_hold_frees_its_key_and_its_late_worker_does_not_take_it_back(bench: Bench) -> None:
    await bench.prepaid(1_000)
    late = await bench.hold(100, idempotency_key="k")
    await bench.database.execute("update ledger.epochs set lapsed_at = clock_timestamp()")
    await bench.ledger.sweep()
    again = await bench.hold(100, idempotency_key="k")
    assert (await bench.settle(late, 50, answer=b"late")).outcome == "unsettled"
    assert not await bench.ledger.store_answer(late, b"late")
    await bench.ledger.release(late)
    await bench.settle(again, 50, answer=b"first")
    with pytest.raises(AnswerStored) as stored:
        await bench.hold(100, idempotency_key="k")
    assert stored.value.answer == b"first"


async def test_a_refused_hold_claims_no_key(bench: Bench) -> None:
    with pytest.raises(InsufficientCredit):
        await bench.hold(100, idempotency_key="k", body=b"one")
    await bench.prepaid(1_000)
    await bench.hold(100, idempotency_key="k", body=b"two")


async def test_a_repeat_is_answered_also_without_credit_and_at_an_old_price_but_not_to_a_revoked_key(
    bench: Bench,
) -> None:
    await bench.prepaid(100)
    await bench.settle(await bench.hold(100, idempotency_key="k"), 100, answer=b"answer")
    async with bench.database.transaction() as conn:
        await bench.ledger.set_price_version(conn, 7)
    with pytest.raises(AnswerStored):
        await bench.hold(100, idempotency_key="k")
    await bench.put_key(version=2, state=KeyState.REVOKED)
    with pytest.raises(KeyRevoked):
        await bench.hold(100, idempotency_key="k")


async def test_a_key_of_one_account_is_nothing_to_another(bench: Bench) -> None:
    await bench.prepaid(1_000)
    other = Bench(bench.ledger, bench.database, await new_account(bench.ledger, bench.database))
    await other.prepaid(1_000)
    holds = await asyncio.gather(*(one.hold(100, idempotency_key="k") for one in (bench, other)))
    assert {hold.account_id for hold in holds} == {bench.account_id, other.account_id}


async def test_a_hold_sent_again_is_its_own_call_not_its_repeat(bench: Bench) -> None:
    await bench.prepaid(1_000)
    request = bench.request(100, idempotency_key="k")
    assert await bench.ledger.hold(request) == await bench.ledger.hold(request)


async def test_after_24_hours_a_key_is_new_again(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.settle(await bench.hold(100, idempotency_key="k", body=b"one"), 1, answer=b"answer")
    await bench.settle(await bench.hold(100, idempotency_key="other"), 1)
    assert await bench.ledger.forget_answers() == 0
    await bench.database.execute(
        "update ledger.idempotency set expires_at = expires_at - interval '24 hours' where key = 'k'"
    )
    again = await bench.hold(100, idempotency_key="k", body=b"two")
    with pytest.raises(IdempotencyInProgress):
        await bench.hold(100, idempotency_key="k", body=b"two")
    await bench.ledger.release(again)
    await bench.database.execute("update ledger.idempotency set expires_at = expires_at - interval '24 hours'")
    await once(bench.ledger)
    assert await keys(bench) == 0


@pytest.mark.parametrize("key", ["", "k" * 256, "a\0b"])
async def test_a_key_that_cannot_be_stored_is_refused(bench: Bench, key: str) -> None:
    await bench.prepaid(1_000)
    with pytest.raises(InvalidRequest):
        await bench.hold(100, idempotency_key=key)


async def test_of_64_callers_with_one_key_over_two_workers_one_holds(bench: Bench) -> None:
    await bench.prepaid(100_000)
    async with Ledger(bench.database, clock=SystemClock()) as other:
        ledgers = [bench.ledger, other]
        results = await asyncio.gather(
            *(ledgers[n // 2 % 2].hold(bench.request(10, idempotency_key="k")) for n in range(CALLERS)),
            return_exceptions=True,
        )
        (hold,) = (result for result in results if isinstance(result, Hold))
        assert sum(isinstance(result, IdempotencyInProgress) for result in results) == CALLERS - 1
        assert await bench.held() == 10
        await other.settle(hold, settlement(10, answer=b"answer"))
        results = await asyncio.gather(
            *(ledgers[n // 2 % 2].hold(bench.request(10, idempotency_key="k")) for n in range(CALLERS)),
            return_exceptions=True,
        )
    assert [result.answer for result in results if isinstance(result, AnswerStored)] == [b"answer"] * CALLERS
