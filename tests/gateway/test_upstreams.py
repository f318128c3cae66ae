"""Several upstreams serve one model: another is asked where the first certainly ran nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tests.gateway.house import House, worker
from tests.gateway.raw import CHAT, Response, ask, chat

from freehold.db import Database
from freehold.ledger.model import Attempt
from freehold.upstream.health import State
from freehold.upstream.model import Model, Terms
from freehold.upstream.scripted import MODELS, Script, Scripted

COSTED = replace(MODELS[0], input_cost_nano=100_000_000, output_cost_nano=200_000_000)


def scripted(name: str, *, terms: Terms | None = None, model: Model = COSTED, **script: object) -> Scripted:
    return Scripted(name, [model], script=Script().with_directives(script), terms=terms)


@asynccontextmanager
async def served_by(database: Database, *upstreams: Scripted) -> AsyncIterator[House]:
    async with worker(database, scripted=upstreams[-1], upstreams=upstreams[:-1]) as house:
        yield house


async def call(house: House, *, stream: bool = False) -> Response:
    customer = await house.customer(prepaid="1")
    return await ask(house.port, CHAT, chat(stream=stream), customer.token)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault", [{"status": 429}, {"status": 500}, {"status": 503}, {"status": 401}, {"unreachable": True}]
)
async def test_the_next_one_is_asked_when_the_first_certainly_ran_nothing(
    prepared: Database, fault: dict[str, object], stream: bool
) -> None:
    one, two = scripted("one", **fault), scripted("two", terms=Terms(priority=1))
    async with served_by(prepared, one, two) as house:
        customer = await house.customer(prepaid="1")
        answer = await ask(house.port, CHAT, chat(stream=stream), customer.token)
        assert answer.status == 200
        assert (len(one.seen), len(two.seen)) == (1, 1)
        (charge,) = await house.charges(customer)
        outcome = "unreachable" if "unreachable" in fault else f"status {fault['status']}"
        cost_nano = COSTED.cost_nano_up(input_tokens=charge.usage["input"], output_tokens=charge.usage["output"])
        assert charge.attempts == (Attempt("one", 0, outcome), Attempt("two", cost_nano, "complete"))
        assert cost_nano > 0
        assert await house.ledger.check() == []


@pytest.mark.parametrize(
    ("fault", "status"), [({"timeout_after": -1}, 504), ({"die": True}, 502), ({"status": 400}, 400)]
)
async def test_nobody_else_is_asked_when_the_first_may_have_run_it_or_the_request_is_at_fault(
    prepared: Database, fault: dict[str, object], status: int
) -> None:
    one, two = scripted("one", **fault), scripted("two", terms=Terms(priority=1))
    async with served_by(prepared, one, two) as house:
        assert (await call(house)).status == status
        assert two.seen == []


async def test_a_prompt_too_long_for_one_is_not_sent_to_the_others(prepared: Database) -> None:
    body = {"error": {"message": "exceed_context_size", "code": "context_length_exceeded"}}
    one, two = scripted("one", status=500, body=body), scripted("two", terms=Terms(priority=1))
    async with served_by(prepared, one, two) as house:
        assert (await call(house)).status == 413
        assert two.seen == []
        assert house.door.catalogue.health()[0].failures == 0


async def test_nobody_else_is_asked_once_something_was_delivered(prepared: Database) -> None:
    one, two = scripted("one", chunks=["a", "b"], die_after=1), scripted("two", terms=Terms(priority=1))
    async with served_by(prepared, one, two) as house:
        assert b"upstream_error" in (await call(house, stream=True)).body
        assert two.seen == []


async def test_three_are_asked_at_most_and_the_last_failure_is_told(prepared: Database) -> None:
    four = [scripted(f"up {n}", status=503, terms=Terms(priority=n)) for n in range(4)]
    async with served_by(prepared, *four) as house:
        answer = await call(house)
        assert (answer.status, answer.code(), answer.headers["retry-after"]) == (503, "no_upstream", "5")
        assert [len(upstream.seen) for upstream in four] == [1, 1, 1, 0]


async def test_after_failures_in_a_row_nobody_is_asked_and_the_refusal_says_when_to_come_back(
    prepared: Database,
) -> None:
    only = scripted("only", status=500, terms=Terms(failures=2, open_s=300))
    async with served_by(prepared, only) as house:
        customer, other = await house.customer(prepaid="1"), await house.customer(prepaid="1")
        answers = [await ask(house.port, CHAT, chat(), caller.token) for caller in (customer, other, customer)]
        assert [answer.status for answer in answers] == [502, 502, 503]
        assert (answers[2].code(), len(only.seen)) == ("no_upstream", 2)
        assert 290 <= int(answers[2].headers["retry-after"]) <= 300
        assert house.door.catalogue.health()[0].state is State.OPEN
        assert await house.left_nano(customer) == 10**9
        assert await house.held_nano(customer) == 0


async def test_one_accounts_calls_alone_close_an_upstream_to_nobody(prepared: Database) -> None:
    """It may be its requests that the upstream stumbles over."""
    only = scripted("only", terms=Terms(failures=2, open_s=300))
    async with served_by(prepared, only) as house:
        customer, other = await house.customer(prepaid="1"), await house.customer(prepaid="1")
        for _ in range(4):
            assert (await ask(house.port, CHAT, chat(script={"status": 500}), customer.token)).status == 502
        assert house.door.catalogue.health()[0].state is State.CLOSED
        assert (await ask(house.port, CHAT, chat(), other.token)).status == 200


async def test_an_answer_that_breaks_off_counts_as_a_failure_too(prepared: Database) -> None:
    only = scripted("only", chunks=["a", "b"], die_after=1, terms=Terms(failures=2, open_s=300))
    async with served_by(prepared, only) as house:
        answers = [await call(house, stream=n % 2 == 0) for n in range(3)]
        assert answers[2].code() == "no_upstream"


async def test_one_that_is_full_leaves_the_call_to_the_next(prepared: Database) -> None:
    one = scripted("one", hang_after=-1, terms=Terms(max_concurrency=1))
    two = scripted("two", terms=Terms(priority=1))
    async with served_by(prepared, one, two) as house:
        customer = await house.customer(prepaid="1")
        one.gate = asyncio.Event()
        first = asyncio.create_task(ask(house.port, CHAT, chat(), customer.token))
        await one.hanging.wait()
        assert (await ask(house.port, CHAT, chat(), customer.token)).status == 200
        assert len(two.seen) == 1
        one.gate.set()
        assert (await first).status == 200
        assert [health.running for health in house.door.catalogue.health()] == [0, 0]


async def test_a_call_is_held_by_the_limits_that_every_upstream_keeps(prepared: Database) -> None:
    small = replace(COSTED, context_tokens=100, max_output_tokens=40)
    one, two = scripted("one"), scripted("two", model=small, terms=Terms(priority=1))
    async with served_by(prepared, one, two) as house:
        customer = await house.customer(prepaid="1")
        body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "x" * 2_000}]}
        assert (await ask(house.port, CHAT, body, customer.token)).status == 413
        assert b'"max_tokens":40' in (await _sent(house, one)).replace(b" ", b"")


async def _sent(house: House, upstream: Scripted) -> bytes:
    customer = await house.customer(prepaid="1")
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}]}
    assert (await ask(house.port, CHAT, body, customer.token)).status == 200
    return upstream.seen[-1].body


async def test_upstreams_are_exchanged_under_running_calls(prepared: Database) -> None:
    old, new = scripted("old", hang_after=-1), scripted("new")
    async with served_by(prepared, old) as house:
        customer = await house.customer(prepaid="1")
        old.gate = asyncio.Event()
        first = asyncio.create_task(ask(house.port, CHAT, chat(), customer.token))
        await old.hanging.wait()
        house.door.catalogue.replace([new])
        assert (await ask(house.port, CHAT, chat(), customer.token)).status == 200
        assert len(new.seen) == 1
        old.gate.set()
        assert (await first).status == 200
