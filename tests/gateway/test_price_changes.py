"""A new price is seen by the next call of every worker, at its moment of ledger time, and by no call before it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.gateway.house import Customer, House, worker
from tests.gateway.raw import CHAT, ask

from freehold.db import Database
from freehold.ledger.model import Charge
from freehold.pricing.model import Tier
from freehold.upstream.scripted import Script

RATE = 1_000_000
"""1 nano-USD a token, as nano-USD per million."""


@pytest.fixture
async def workers(prepared: Database) -> AsyncIterator[tuple[House, House]]:
    async with worker(prepared) as one, worker(prepared) as two:
        yield one, two


async def ask_once(house: House, customer: Customer) -> Charge:
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    answer = await ask(house.port, CHAT, body, customer.token)
    assert answer.status == 200, answer.body
    return await house.charge(customer, answer.headers["x-request-id"])


async def clock(house: House, at_s: int) -> None:
    await house.ledger.set_time(at_s, opened_day=0)


async def now(house: House) -> int:
    return (await house.ledger.time()).at_s


async def test_a_price_for_later_holds_from_its_moment_on_every_worker_and_changes_no_call_before(
    workers: tuple[House, House],
) -> None:
    one, _ = workers
    customer = await one.customer(prepaid="1")
    await one.set_price("scripted-echo", {"input": RATE, "output": RATE})
    before = [await ask_once(house, customer) for house in workers]
    begins_s = await now(one) + 3_600
    later = await one.set_price("scripted-echo", {"input": 10 * RATE, "output": 10 * RATE}, at_s=begins_s)
    await clock(one, begins_s - 1)
    before += [await ask_once(house, customer) for house in workers]
    await clock(one, begins_s)
    after = [await ask_once(house, customer) for house in workers]
    tokens = sum(before[0].usage.values())
    assert [charge.cost_nano for charge in before] == [tokens] * 4
    assert [charge.cost_nano for charge in after] == [10 * tokens] * 2
    assert {charge.price_version for charge in after} == {later}
    kept = [await one.ledger.charge(customer.account_id, charge.request_id) for charge in before]
    assert [(charge.cost_nano, charge.price_version) for charge in kept] == [
        (charge.cost_nano, charge.price_version) for charge in before
    ]


async def test_a_price_set_meanwhile_for_another_model_stays_when_the_later_one_begins(
    workers: tuple[House, House],
) -> None:
    one, two = workers
    begins_s = await now(one) + 3_600
    await one.set_price("scripted-echo", {"input": 10 * RATE}, at_s=begins_s)
    await two.set_price("scripted-exact", {"input": 7 * RATE})
    assert (await one.prices.refresh()).prices["scripted-echo"].of("input") != 10 * RATE
    assert (await one.prices.refresh()).prices["scripted-exact"].of("input") == 7 * RATE
    await clock(one, begins_s)
    for house in workers:
        book = await house.prices.refresh()
        assert book.prices["scripted-echo"].of("input") == 10 * RATE
        assert book.prices["scripted-exact"].of("input") == 7 * RATE


async def test_a_worker_that_priced_by_a_later_book_already_sees_a_change_that_came_in_late(
    workers: tuple[House, House],
) -> None:
    """The change was begun before the moment and committed after a call at it."""
    one, two = workers
    customer = await one.customer(prepaid="1")
    start_s = await now(one)
    await one.set_price("scripted-exact", {"input": 10 * RATE}, at_s=start_s + 60)
    async with one.database.transaction() as conn:
        version = await one.prices.set(conn, "scripted-echo", {"input": RATE, "output": RATE}, now_s=start_s)
        for number, effective_at_s in await one.prices.since(conn, version):
            await one.ledger.set_price_version(conn, number, effective_at_s)
        await clock(two, start_s + 60)
        early = await ask_once(two, customer)
    late = await ask_once(two, customer)
    assert early.price_version < version < late.price_version
    assert late.cost_nano == sum(late.usage.values())
    assert (await two.prices.refresh()).prices["scripted-exact"].of("input") == 10 * RATE


async def test_a_running_call_is_charged_at_the_price_that_it_was_held_at(workers: tuple[House, House]) -> None:
    one, _ = workers
    customer = await one.customer(prepaid="1")
    await one.set_price("scripted-echo", {"input": RATE, "output": RATE})
    one.scripted.gate = asyncio.Event()
    one.scripted.script = Script(hang_after=-1)
    call = asyncio.create_task(ask_once(one, customer))
    await one.scripted.hanging.wait()
    await one.set_price("scripted-echo", {"input": 50 * RATE, "output": 50 * RATE})
    one.scripted.gate.set()
    charge = await call
    assert charge.cost_nano == sum(charge.usage.values())


async def test_a_long_prompt_is_held_at_the_dearer_tier(workers: tuple[House, House]) -> None:
    one, _ = workers
    tier = Tier(1_000, {"input": 3 * RATE, "output": 5 * RATE})
    await one.set_price("scripted-echo", {"input": RATE, "output": RATE}, tiers=[tier])
    customer = await one.customer(prepaid="1")
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "x" * 1_500}], "max_tokens": 10}
    answer = await ask(one.port, CHAT, body, customer.token)
    charge = await one.charge(customer, answer.headers["x-request-id"])
    assert charge.held_nano >= 3 * 1_500 + 5 * 10
    assert charge.cost_nano == sum(charge.usage.values())  # a quarter of the bytes: below the tier
