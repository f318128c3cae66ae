"""A stream without a maximum of its own holds little at first, and more as it goes on; when it can't, it ends."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.gateway.house import Customer, House, worker
from tests.gateway.raw import CHAT, Response, ask

from freehold.db import Database
from freehold.gateway.stepping import LEAST
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Hold
from freehold.ledger.problems import DayUnopened
from freehold.pricing.bounds import input_bound
from freehold.problems import LedgerUnavailable
from freehold.upstream.scripted import Script

PROMPT = {"role": "user", "content": "hello there"}
INPUT = 4
"""Tokens of PROMPT by the stated rule."""
ASKED = {"model": "scripted-echo", "messages": [PROMPT], "stream": True, "stream_options": {"include_usage": True}}
BOUND_NANO = input_bound(ASKED) * 1_000


class Growing(Ledger):
    """Remembers by how many tokens holds grew; `lost` is a database that can't be reached."""

    lost = False

    async def extend(self, hold: Hold, more_nano: int, *, tokens: int = 0, day_unopened_ok: bool = False) -> Hold:
        if Growing.lost:
            raise LedgerUnavailable(reason="it is lost")
        found = await super().extend(hold, more_nano, tokens=tokens, day_unopened_ok=day_unopened_ok)
        GROWN.append(tokens)
        return found


class DayBegins(Ledger):
    """A new day begins under each call: today's allowance is asked for before its hold can grow."""

    async def extend(self, hold: Hold, more_nano: int, *, tokens: int = 0, day_unopened_ok: bool = False) -> Hold:
        raise DayUnopened


class NoAllowance:
    """The allowance, while the chain's tables can't be read."""

    async def refresh(self, account_id: int) -> None:
        raise asyncpg.LockNotAvailableError("somebody has it")


GROWN: list[int] = []


@pytest.fixture
async def growing(prepared: Database) -> AsyncIterator[House]:
    GROWN.clear()
    Growing.lost = False
    async with worker(prepared, ledger_type=Growing) as house:
        yield house


async def stream(house: House, customer: Customer, chunks: int, **more: Any) -> Response:
    house.scripted.script = Script().with_directives({"chunks": ["x "] * chunks, **more.pop("script", {})})
    return await ask(house.port, CHAT, {**ASKED, **more}, customer.token)


def finish(answer: Response) -> list[str]:
    return [
        choice["finish_reason"]
        for chunk in answer.chunks()
        for choice in chunk.get("choices", [])
        if choice["finish_reason"] is not None
    ]


def usage(answer: Response) -> dict[str, Any]:
    (found,) = [chunk["usage"] for chunk in answer.chunks() if chunk.get("usage")]
    return dict(found)


@pytest.mark.parametrize("chunks", [300, 3])
async def test_a_hold_that_cannot_grow_for_whatever_reason_is_settled(prepared: Database, chunks: int) -> None:
    async with worker(prepared, ledger_type=DayBegins) as house:
        customer = await house.customer(prepaid="1")
        await house.allowance.refresh(customer.account_id)
        house.door.allowance = NoAllowance()
        reported = {"usage": {"prompt_tokens": INPUT, "completion_tokens": 2_000}}
        answer = await stream(house, customer, chunks, script=reported)
        assert answer.text() == "x " * min(chunks, 256)
        assert await house.held_nano(customer) == 0
        (charge,) = await house.charges(customer)
        assert charge.cost_nano + charge.absorbed_nano == (
            INPUT * 1_000 + 256 * 2_000 if chunks == 300 else INPUT * 1_000 + 2_000 * 2_000
        )


async def test_what_is_held_doubles_as_the_stream_goes_on(growing: House) -> None:
    customer = await growing.customer(prepaid="1")
    answer = await stream(growing, customer, 900)
    assert answer.text() == "x " * 900
    assert finish(answer) == ["stop"]
    assert b'"max_tokens":4096' in growing.scripted.seen[-1].body
    assert GROWN == [256, 512]
    (charge,) = await growing.charges(customer)
    assert (charge.usage["output"], charge.estimated, charge.absorbed_nano) == (900, False, 0)
    assert await growing.held_nano(customer) == 0
    assert await growing.ledger.check() == []


async def test_a_short_stream_is_held_once(growing: House) -> None:
    customer = await growing.customer(prepaid="1")
    await stream(growing, customer, 100)
    assert GROWN == []


async def test_an_explicit_maximum_is_held_whole_from_the_start(growing: House) -> None:
    customer = await growing.customer(prepaid="1")
    await stream(growing, customer, 1_000, max_tokens=1_000)
    assert GROWN == []


@pytest.mark.parametrize("cap", ["balance", "key", "ledger"])
async def test_a_stream_whose_hold_can_not_grow_ends_with_length_and_is_charged_what_was_delivered(
    growing: House, cap: str
) -> None:
    tokens = 256 if cap == "ledger" else 400
    usd = f"{(tokens * 2_000 + BOUND_NANO) / 10**9:.9f}" if cap == "balance" else "1"
    day_cap_nano = tokens * 2_000 + BOUND_NANO if cap == "key" else None
    Growing.lost = cap == "ledger"
    customer = await growing.customer(prepaid=usd, day_cap_nano=day_cap_nano)
    before_nano = await growing.left_nano(customer)
    answer = await stream(growing, customer, 1_000)
    assert finish(answer) == ["length"]
    assert answer.body.endswith(b"data: [DONE]\n\n")
    delivered = answer.text().count("x ")
    assert tokens - LEAST <= delivered <= tokens
    assert usage(answer) == {
        "prompt_tokens": INPUT,
        "completion_tokens": delivered,
        "total_tokens": INPUT + delivered,
    }
    (charge,) = await growing.charges(customer)
    assert (charge.outcome, charge.estimated) == ("complete", True)
    assert charge.cost_nano == INPUT * 1_000 + delivered * 2_000
    assert charge.absorbed_nano == 0
    assert await growing.left_nano(customer) == before_nano - charge.cost_nano
    assert await growing.held_nano(customer) == 0
    assert growing.scripted.seen[-1].closed


async def test_one_that_ends_by_itself_where_the_hold_ends_is_not_cut(growing: House) -> None:
    Growing.lost = True
    customer = await growing.customer(prepaid="1")
    assert finish(await stream(growing, customer, 256)) == ["stop"]


async def test_usage_beyond_what_was_seen_is_held_before_it_is_charged(growing: House) -> None:
    customer = await growing.customer(prepaid="1")
    reported = {"prompt_tokens": 3, "completion_tokens": 900, "total_tokens": 903}
    answer = await stream(growing, customer, 10, script={"usage": reported})
    assert usage(answer) == reported
    (charge,) = await growing.charges(customer)
    assert (charge.cost_nano, charge.absorbed_nano) == (3 * 1_000 + 900 * 2_000, 0)
    assert charge.held_nano == charge.cost_nano


async def test_frames_with_much_text_count_for_more_than_one_token(growing: House) -> None:
    customer = await growing.customer(prepaid="1")
    await stream(growing, customer, 0, script={"chunks": ["word " * 20] * 18})
    assert GROWN == [256]


async def test_todays_allowance_pays_for_a_step_too(growing: House) -> None:
    customer = await growing.customer(allowance="1", prepaid="0")
    assert finish(await stream(growing, customer, 600)) == ["stop"]
    assert GROWN == [256, 512]
