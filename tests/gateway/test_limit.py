"""A limit ends what takes too long, and nothing else; and who cancels is always heard."""

import asyncio

import pytest

from freehold.gateway.limit import Limit


async def test_what_takes_too_long_is_a_time_out() -> None:
    limit = Limit(0.01)
    with pytest.raises(TimeoutError), limit:
        await asyncio.Event().wait()
    assert limit.expired
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_is_in_time_goes_on() -> None:
    limit = Limit(0.01)
    with limit:
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert not limit.expired


async def test_it_can_be_brought_nearer_and_never_put_off() -> None:
    limit = Limit(0.01)
    with pytest.raises(TimeoutError), limit:
        limit.at_most(1_000)
        await asyncio.Event().wait()
    limit = Limit(1_000)
    with pytest.raises(TimeoutError), limit:
        limit.at_most(0.01)
        await asyncio.Event().wait()


async def test_who_cancels_is_heard_also_when_time_is_up_at_once() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        with Limit(1_000):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def both() -> None:
        limit = Limit(1_000)
        with limit:
            limit._expire()
            task.cancel()
            await asyncio.Event().wait()

    task = asyncio.create_task(both())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_another_error_passes_through_a_limit_that_has_expired() -> None:
    with pytest.raises(ZeroDivisionError), Limit(0.01):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ZeroDivisionError from None


async def test_many_limits_end_each_in_its_time() -> None:
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        with pytest.raises(TimeoutError), Limit(seconds):
            await asyncio.Event().wait()
        ended.append(seconds)

    async with asyncio.timeout(60):
        await asyncio.gather(*map(wait, (0.3, 0.01, 0.6, 0.15)))
    assert ended == [0.01, 0.15, 0.3, 0.6]


def test_each_loop_keeps_its_own_limits() -> None:
    async def late() -> None:
        with pytest.raises(TimeoutError), Limit(0.01):
            await asyncio.Event().wait()

    async def outer() -> None:
        with pytest.raises(TimeoutError), Limit(0.05):
            await asyncio.to_thread(asyncio.run, late())
            await asyncio.Event().wait()

    asyncio.run(outer())
    asyncio.run(late())
