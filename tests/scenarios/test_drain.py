"""64 callers drain an account together that can pay 10 calls: exactly 10 succeed."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from tests.gateway.house import Customer, House, worker
from tests.gateway.raw import CHAT, ask

from freehold.db import Database

CALLERS = 64
CALL = {"model": "scripted-exact", "messages": [{"role": "user", "content": "go"}], "max_tokens": 100}
CALL_NANO = 100_000
"""What CALL costs: exactly its hold."""


async def drain(house: House, customer: Customer, ports: Sequence[int]) -> None:
    """64 callers at once, spread over the ports; then the books."""
    calls = (ask(ports[n % len(ports)], CHAT, {**CALL, "stream": n % 3 == 0}, customer.token) for n in range(CALLERS))
    answers = await asyncio.gather(*calls)
    assert Counter(answer.status for answer in answers) == {200: 10, 402: CALLERS - 10}
    assert {answer.code() for answer in answers if answer.status == 402} == {"insufficient_credit"}
    assert await house.left_nano(customer) == 0
    assert await house.held_nano(customer) == 0
    charges = await house.charges(customer)
    assert [charge.cost_nano for charge in charges] == [CALL_NANO] * 10
    assert await house.ledger.check() == []


async def test_exactly_ten_calls_of_sixty_four_succeed(house: House) -> None:
    await drain(house, await house.customer(prepaid="0.001"), [house.port])


async def test_over_two_purses_too(house: House) -> None:
    await drain(house, await house.customer(allowance="0.00045", prepaid="0.00055"), [house.port])


async def test_with_two_workers_too(prepared: Database) -> None:
    async with worker(prepared) as one, worker(prepared) as two:
        customer = await one.customer(prepaid="0.001")
        await drain(one, customer, [one.port, two.port])
