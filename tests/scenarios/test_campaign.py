"""What the money path is judged by, in a short form; `make campaign` runs the long one."""

import asyncio
import contextlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.gateway.house import Customer, House, worker
from tests.gateway.raw import CHAT, Response, ask, connect, request

from freehold.db import Database
from freehold.ledger.model import Charge

LONG = "CAMPAIGN" in os.environ
CALLERS = 64
EACH = 100 if LONG else 8
PASSING = 1_000 if LONG else 80
STREAMS = 10_000 if LONG else 200
KILLS = 20 if LONG else 3
REVOKED = 20 if LONG else 1
SEED = int(os.environ.get("SEED", "1"))

CALL = {"model": "scripted-exact", "messages": [{"role": "user", "content": "go"}], "max_tokens": 100}
CALL_NANO = 100_000
"""What CALL costs: exactly its hold."""

PATIENCE_S = 600.0
"""Awaiting anything for longer than this is a failure, on however slow a machine."""
ALL_CLOSED_S = 3.0 if LONG else PATIENCE_S
"""How soon after the last stream was cancelled nothing is held."""

WORDS = [f"{n} " for n in range(12)]
PROMPT = "hello there"
RULE_INPUT = 4
"""A quarter of the bytes of "user" and PROMPT, rounded up."""
REPORTED_INPUT = 3
"""What the scripted upstream reports for PROMPT."""


class Process:
    """A worker in a process of its own, which may be killed."""

    def __init__(self, url: str) -> None:
        self.port = 0
        self._url = url
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        child = self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.gateway.house"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={"PYTHONPATH": "src", "PATH": "/usr/bin:/bin"},
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({"url": self._url}).encode() + b"\n")
        await child.stdin.drain()
        async with asyncio.timeout(PATIENCE_S):
            self.port = int(json.loads(await child.stdout.readline())["port"])

    async def kill(self) -> None:
        assert self._child is not None
        self.port = 0
        self._child.kill()
        await self._child.wait()

    async def stop(self) -> None:
        assert self._child is not None
        if self._child.stdin is not None and self._child.returncode is None:
            self._child.stdin.close()
        await self._child.wait()


@asynccontextmanager
async def processes(url: str, count: int) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        found = [Process(url) for _ in range(count)]
        for one in found:
            await one.start()
            stack.push_async_callback(one.stop)
        yield found


async def wait_for(event: asyncio.Event, callers: Sequence["asyncio.Task[Any]"]) -> None:
    """Until something has happened, or a caller has failed, which is raised."""
    waiting = asyncio.create_task(event.wait())
    try:
        async with asyncio.timeout(PATIENCE_S):
            done, _ = await asyncio.wait({waiting, *callers}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    for ended in done - {waiting}:
        ended.result()


async def nothing_held(house: House, customer: Customer) -> None:
    """Until every settlement under way is known, and every lapsed worker's hold is swept."""
    async with asyncio.timeout(PATIENCE_S):
        while await house.held_nano(customer):
            await house.ledger.sweep()
            await asyncio.sleep(0.05)


def is_whole(answer: Response) -> bool:
    """Whether its client was told that this is all."""
    return answer.status == 200 and (
        "event-stream" not in answer.headers["content-type"] or answer.body.endswith(b"data: [DONE]\n\n")
    )


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_many_callers_get_exactly_what_the_balance_pays_for(prepared: Database, count: int) -> None:
    async with worker(prepared) as house, processes(prepared.url, count) as workers:
        customer = await house.customer(prepaid=f"{PASSING * CALL_NANO / 10**9:.9f}")

        async def caller(number: int) -> list[Response]:
            ports = [workers[(number + n) % count].port for n in range(EACH)]
            return [
                await ask(port, CHAT, {**CALL, "stream": n % 3 == 0}, customer.token) for n, port in enumerate(ports)
            ]

        answers = [answer for some in await asyncio.gather(*map(caller, range(CALLERS))) for answer in some]
        await nothing_held(house, customer)
        unsure = [answer for answer in answers if not is_whole(answer) and answer.status != 402]
        while unsure and (last := await ask(workers[0].port, CHAT, CALL, customer.token)).status != 402:
            answers.append(last)  # what was given back while others were refused
        assert {answer.code() for answer in answers if answer.status == 402} == {"insufficient_credit"}
        charged = {charge.request_id: charge.cost_nano for charge in await _charges(house, customer)}
        passed = {_id(answer) for answer in answers if is_whole(answer)}
        assert passed <= set(charged) <= passed | set(map(_id, unsure))
        assert set(charged.values()) == {CALL_NANO}
        assert len(charged) == PASSING
        assert unsure or Counter(answer.status for answer in answers) == {200: PASSING, 402: CALLERS * EACH - PASSING}
        assert await house.left_nano(customer) == 0
        assert await house.held_nano(customer) == 0
        assert await house.ledger.check() == []


async def test_workers_killed_at_random_lose_nothing_and_charge_what_was_answered(prepared: Database) -> None:
    drawn = random.Random(SEED)
    async with worker(prepared) as house, processes(prepared.url, 2) as workers:
        customer = await house.customer(prepaid="100")
        answered: list[str] = []
        more, over = asyncio.Event(), asyncio.Event()

        async def caller(number: int) -> None:
            n = number
            while not over.is_set():
                n += 1
                port = workers[n % 2].port
                if port == 0:
                    await asyncio.sleep(0.01)  # until it is started again
                    continue
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    answer = await ask(port, CHAT, {**CALL, "stream": n % 2 == 0}, customer.token)
                    assert answer.status == 200 or answer.code() == "ledger_unavailable", answer.body
                    if is_whole(answer):
                        answered.append(answer.headers["x-request-id"])
                        more.set()

        callers = [asyncio.create_task(caller(number)) for number in range(16)]
        for _ in range(KILLS):
            await asyncio.sleep(drawn.uniform(0.1, 1.0))
            victim = drawn.choice(workers)
            await victim.kill()
            await victim.start()
            more.clear()
            await wait_for(more, callers)
        over.set()
        await asyncio.gather(*callers)
        # As if the killed workers' 15 seconds had passed, however young this server is.
        await prepared.execute(
            "update ledger.epochs set lapsed_at = clock_timestamp() where id <> $1", house.ledger.epoch
        )
        await nothing_held(house, customer)
        assert await _sum_nano(house, customer) + await house.left_nano(customer) == 100 * 10**9
        for request_id in answered:
            charge = await house.charge(customer, request_id)
            assert (charge.cost_nano, charge.outcome) == (CALL_NANO, "complete")
        assert len(set(answered)) == len(answered)
        assert await house.ledger.check() == []


@pytest.mark.parametrize("count", [2, 4])
async def test_a_revoked_key_gets_nothing_more_through_on_any_worker(prepared: Database, count: int) -> None:
    drawn = random.Random(SEED)
    async with worker(prepared) as house, processes(prepared.url, count) as workers:
        for _ in range(REVOKED):
            customer = await house.customer(prepaid="1")
            revoked = asyncio.Event()
            warm, late = asyncio.Event(), 0

            async def caller(
                number: int, customer: Customer = customer, revoked: asyncio.Event = revoked, warm: asyncio.Event = warm
            ) -> int:
                """Calls worker after worker; how many calls were sent after the key was revoked, all refused."""
                refused = n = 0
                while refused < 2 * count:
                    n += 1
                    known = revoked.is_set()
                    port = workers[(number + n) % count].port
                    answer = await ask(port, CHAT, {**CALL, "stream": n % 2 == 0}, customer.token)
                    if known and answer.status != 503:  # which went to no upstream either
                        assert (answer.status, answer.code()) == (401, "key_revoked"), answer.body
                        refused += 1
                    elif n > count:
                        warm.set()
                return refused

            callers = [asyncio.create_task(caller(number)) for number in range(8)]
            await wait_for(warm, callers)
            await asyncio.sleep(drawn.random() * 0.2)
            await house.revoke(customer)
            revoked.set()
            late = sum(await asyncio.gather(*callers))
            assert late == 8 * 2 * count
            await nothing_held(house, customer)
            assert await _sum_nano(house, customer) + await house.left_nano(customer) == 10**9


async def test_streams_cancelled_at_random_chunks_are_charged_to_the_token(prepared: Database) -> None:
    drawn = random.Random(SEED)
    async with worker(prepared) as house:
        customers = [await house.customer(prepaid="100") for _ in range(8)]
        plans = [(drawn.choice(customers), drawn.randrange(len(WORDS)), drawn.random() < 0.5) for _ in range(STREAMS)]
        room = asyncio.Semaphore(40)

        async def cancelled(customer: Customer, at: int, silent: bool) -> str:
            """`silent`: the upstream says nothing more after `at` chunks, so that its usage never comes."""
            script = {"chunks": WORDS, **({"hang_after": at} if silent else {})}
            body = {
                "model": "scripted-echo", "stream": True, "max_tokens": 50,
                "messages": [{"role": "user", "content": PROMPT}], "metadata": {"freehold_script": script},
            }  # fmt: skip
            async with room, connect(house.port) as connection:
                await connection.send(request(CHAT, json.dumps(body).encode(), customer.token))
                head = await connection.head()
                assert head.status == 200
                said = b""
                while said.count(b'"content":"') < at + 1:
                    said += await connection.part()
                connection.leave()
                return head.headers["x-request-id"]

        ids = await asyncio.gather(*(cancelled(*plan) for plan in plans))
        async with asyncio.timeout(ALL_CLOSED_S):
            await house.app.quiet()
        for customer in customers:
            assert await house.held_nano(customer) == 0
        for request_id, (customer, at, silent) in zip(ids, plans, strict=True):
            charge = await house.charge(customer, request_id)
            usage = {"input": RULE_INPUT, "output": at} if silent else {"input": REPORTED_INPUT, "output": len(WORDS)}
            assert (charge.usage, charge.estimated) == (usage, silent)
            assert charge.cost_nano == usage["input"] * 1_000 + usage["output"] * 2_000
            assert (charge.absorbed_nano, charge.outcome in ("disconnected", "complete")) == (0, True)
        spent = [100 * 10**9 - await house.left_nano(customer) for customer in customers]
        assert spent == [await _sum_nano(house, customer) for customer in customers]
        assert await house.ledger.check() == []


def _id(answer: Response) -> UUID:
    return UUID(answer.headers["x-request-id"].removeprefix("req_"))


async def _sum_nano(house: House, customer: Customer) -> int:
    return sum(charge.cost_nano for charge in await _charges(house, customer))


async def _charges(house: House, customer: Customer) -> Sequence[Charge]:
    found: dict[UUID, Charge] = {}
    after: str | None = None
    while True:
        page = await house.ledger.charges(customer.account_id, limit=1_000, after=after)
        found.update((charge.request_id, charge) for charge in page.charges)
        if page.next is None:
            return list(found.values())
        after = page.next
