"""Requests and tokens per minute, decided with the hold. Time passes by moving what was counted back."""

import asyncio

import pytest

from freehold.clock import SystemClock
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Hold, RateState
from freehold.ledger.problems import InsufficientCredit, RateLimited, TooLargeForRate

from .conftest import Bench, drained, settlement

CALLERS = 64


async def seconds_pass(bench: Bench, seconds: int) -> None:
    await bench.database.execute("update ledger.rates set second = second - $1", seconds)
    await bench.database.execute(
        "update ledger.holds set rate_seconds = (select array_agg(s - $1) from unnest(rate_seconds) s)", seconds
    )


async def counted(bench: Bench) -> tuple[int, int]:
    """Requests and tokens counted, however old."""
    row = await bench.database.fetchrow(
        "select ledger.total(requests) as requests, ledger.total(tokens) as tokens from ledger.rates"
    )
    return (0, 0) if row is None else (row["requests"], row["tokens"])


async def test_requests_beyond_the_limit_wait_until_the_first_is_a_minute_old(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(rpm=2)
    await bench.hold(1)
    await seconds_pass(bench, 20)
    await bench.hold(1)
    with pytest.raises(RateLimited, match=r"limit of 2 requests per minute is reached: 2 were counted") as refused:
        await bench.hold(1)
    assert refused.value.status == 429 and refused.value.code == "rate_limited"
    assert refused.value.retry_after_s is not None and 39 <= refused.value.retry_after_s <= 41
    await seconds_pass(bench, refused.value.retry_after_s)
    await bench.hold(1)
    with pytest.raises(RateLimited):
        await bench.hold(1)


async def test_a_refusal_by_rate_counts_and_holds_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(rpm=1, tpm=100)
    await bench.hold(1, tokens=10)
    for _ in range(3):
        with pytest.raises(RateLimited):
            await bench.hold(1, tokens=10)
    assert await counted(bench) == (1, 10)
    assert await bench.held() == 1


async def test_a_refusal_for_another_reason_is_named_first_and_not_counted(bench: Bench) -> None:
    await bench.prepaid(10)
    await bench.put_key(rpm=1)
    with pytest.raises(InsufficientCredit):
        await bench.hold(11)
    await bench.hold(1)
    with pytest.raises(InsufficientCredit):
        await bench.hold(10)


async def test_a_hold_says_where_its_key_stands(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(rpm=10, tpm=100)
    await bench.hold(1, tokens=30)
    hold = await bench.hold(1, tokens=20)
    assert hold.rate is not None
    assert (hold.rate.requests_limit, hold.rate.requests_remaining) == (10, 8)
    assert (hold.rate.tokens_limit, hold.rate.tokens_remaining) == (100, 50)
    assert hold.rate.requests_reset_s == hold.rate.tokens_reset_s == 61
    with pytest.raises(RateLimited) as refused:
        await bench.hold(1, tokens=51)
    assert refused.value.rate is not None
    assert (refused.value.rate.requests_remaining, refused.value.rate.tokens_remaining) == (8, 50)


async def test_a_key_without_a_limit_has_no_state_and_no_row(bench: Bench) -> None:
    await bench.prepaid(1_000)
    assert (await bench.hold(1, tokens=30)).rate is None
    assert await bench.database.fetchval("select count(*) from ledger.rates") == 0


async def test_a_limit_on_one_of_them_leaves_the_other_open(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(rpm=10)
    assert (await bench.hold(1, tokens=10**9)).rate == RateState(10, 9, 61, None, None, None)
    await bench.put_key(tpm=10**10)
    hold = await bench.hold(1, tokens=1)
    assert hold.rate == RateState(None, None, None, 10**10, 9 * 10**9 - 1, 61)


async def test_tokens_are_counted_by_the_bound_and_corrected_by_the_settlement(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(tpm=100)
    hold = await bench.hold(1, tokens=90)
    with pytest.raises(RateLimited, match=r"100 tokens per minute .* 90 were counted .* asks for 11"):
        await bench.hold(1, tokens=11)
    await bench.settle(hold, 1, tokens=30)
    assert await counted(bench) == (1, 30)
    await bench.hold(1, tokens=70)


async def test_tokens_beyond_the_bound_are_counted_too(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(tpm=100)
    await bench.settle(await bench.hold(1, tokens=10), 1, tokens=99)
    with pytest.raises(RateLimited):
        await bench.hold(1, tokens=2)


async def test_a_released_call_took_no_tokens_but_was_a_request(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(rpm=5, tpm=100)
    await bench.ledger.release(await bench.hold(1, tokens=90))
    assert await counted(bench) == (1, 0)


async def test_a_settlement_that_says_no_tokens_leaves_what_was_counted(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(tpm=100)
    await bench.settle(await bench.hold(1, tokens=90), 1)
    assert await counted(bench) == (1, 90)


async def test_a_correction_meets_the_second_it_was_counted_in_and_a_late_one_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(tpm=100)
    early = await bench.hold(1, tokens=50)
    await seconds_pass(bench, 30)
    late = await bench.hold(1, tokens=40)
    await bench.settle(early, 1, tokens=10)
    assert await counted(bench) == (2, 50)
    await seconds_pass(bench, 101)
    await bench.settle(late, 1, tokens=0)
    hold = await bench.hold(1, tokens=100)
    assert hold.rate is not None and hold.rate.tokens_remaining == 0


async def test_a_call_larger_than_the_limit_is_told_that_waiting_does_not_help(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(tpm=100)
    with pytest.raises(TooLargeForRate, match="101 tokens") as refused:
        await bench.hold(1, tokens=101)
    assert refused.value.headers() == {"x-should-retry": "false"}


async def test_an_extension_counts_its_tokens_and_is_refused_beyond_the_limit(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(rpm=1, tpm=100)
    hold = await bench.hold(1, tokens=40)
    await seconds_pass(bench, 2)
    hold = await bench.ledger.extend(hold, 1, tokens=40)
    assert await counted(bench) == (1, 80)
    with pytest.raises(RateLimited):
        await bench.ledger.extend(hold, 1, tokens=21)
    await bench.settle(hold, 2, tokens=5)
    assert await counted(bench) == (1, 5), "all its steps together count what it took"


@pytest.mark.parametrize(("took", "kept"), [(0, [0, 0, 0]), (7, [7, 0, 0]), (45, [40, 5, 0]), (130, [40, 40, 50])])
async def test_what_an_extended_call_took_counts_in_its_first_steps(bench: Bench, took: int, kept: list[int]) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(tpm=1_000)
    hold = await bench.hold(1, tokens=40)
    for _ in range(2):
        await seconds_pass(bench, 5)
        hold = await bench.ledger.extend(hold, 1, tokens=40)
    await bench.settle(hold, 3, tokens=took)
    tokens = await bench.database.fetchval("select tokens from ledger.rates")
    found = [sum(tokens[at : at + 4]) for at in (9, 4, 0)]
    assert (found, sum(tokens)) == (kept, took)


async def test_a_released_call_counts_no_tokens_of_any_step(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(tpm=1_000)
    hold = await bench.hold(1, tokens=40)
    await seconds_pass(bench, 5)
    await bench.ledger.release(await bench.ledger.extend(hold, 1, tokens=40))
    assert (await counted(bench))[1] == 0


async def test_of_64_callers_over_two_workers_exactly_the_limit_passes(bench: Bench) -> None:
    await bench.prepaid(100_000)
    await bench.put_key(rpm=20, tpm=10_000)
    async with Ledger(bench.database, clock=SystemClock()) as other:
        ledgers = [bench.ledger, other]
        results = await asyncio.gather(
            *(ledgers[n % 2].hold(bench.request(1, tokens=10)) for n in range(CALLERS)), return_exceptions=True
        )
    assert sum(isinstance(result, Hold) for result in results) == 20
    assert sum(isinstance(result, RateLimited) for result in results) == CALLERS - 20


async def test_of_64_callers_over_two_workers_exactly_the_tokens_pass(bench: Bench) -> None:
    await bench.prepaid(100_000)
    await bench.put_key(tpm=109)
    async with Ledger(bench.database, clock=SystemClock()) as other:
        ledgers = [bench.ledger, other]
        results = await asyncio.gather(
            *(ledgers[n % 2].hold(bench.request(1, tokens=10)) for n in range(CALLERS)), return_exceptions=True
        )
        holds = [result for result in results if isinstance(result, Hold)]
        assert len(holds) == 10
        await asyncio.gather(*(ledgers[n % 2].settle(hold, settlement(1, tokens=1)) for n, hold in enumerate(holds)))
    assert (await counted(bench))[1] == 10


async def test_two_processes_together_pass_exactly_the_limit(bench: Bench, database_url: str) -> None:
    await bench.prepaid(100_000)
    await bench.put_key(rpm=30)
    assert sum(await drained(database_url, bench.account_id)) == 30
