"""Usage as an upstream should never report it, over HTTP, in every API: it crashes nothing, and credits nobody."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests.gateway.house import House, prepare, worker
from tests.gateway.raw import Response, ask
from tests.gateway.shapes import ALL, CHATS, NATIVE, PRICE, TRANSLATED, Spoken, scripted

from freehold.db import Database
from freehold.upstream.model import Model, Terms
from freehold.upstream.scripted import MODELS, Scripted

EMBEDDING = "scripted-embedding"
CREDIT_NANO = 10**9
WORDS = ["one ", "two ", "three ", "four "]
AT_ONCE = 8
NOT_TOKENS: tuple[Any, ...] = (None, -1, -(10**30), "3", "", 1.5, True, 10**9 + 1, 2**63, 10**30, 1e300, [], [3], {})
"""What isn't a number of tokens."""
NOT_USAGE: tuple[Any, ...] = ("missing", None, "many", 7, -7, True, [], [{}], {}, {"tokens": 3})


def lies(read: str, made: str, *, output: bool = True) -> Iterator[Any]:
    """Everything that can't be believed, under an API's own names of what was read and made."""
    yield from NOT_USAGE
    yield {made: 3}
    for wrong in NOT_TOKENS:
        yield {read: wrong, made: 3}
        if output:
            yield {read: 3, made: wrong}
    if output:
        yield {read: 3}


def details(read: str, made: str) -> Iterator[Any]:
    """Parts that can't be of their whole."""
    inside, of_made = f"{read}_details", f"{made}_details"
    for wrong in (-1, "1", 1.5, True, 10**30, [], {}):
        yield {read: 3, made: 3, inside: {"cached_tokens": wrong}}
        yield {read: 3, made: 3, of_made: {"reasoning_tokens": wrong}}
    for wrong in ("a", [1], 7):
        yield {read: 3, made: 3, inside: wrong}
        yield {read: 3, made: 3, of_made: wrong}
    yield {read: 3, made: 3, inside: {"cached_tokens": 4}}
    yield {read: 3, made: 3, of_made: {"reasoning_tokens": 4}}


def of_messages() -> Iterator[Any]:
    """The same under Anthropic's names."""
    for wrong in (-1, "1", 1.5, True, 10**30, []):
        yield {"input_tokens": 3, "output_tokens": 3, "cache_read_input_tokens": wrong}
        yield {"input_tokens": 3, "output_tokens": 3, "cache_creation_input_tokens": wrong}
        yield {"input_tokens": 3, "output_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": wrong}}
    yield {"input_tokens": 3, "output_tokens": 3, "cache_creation": "none"}


@pytest.fixture(scope="module")
async def house(postgres_url: str, migrated_template: str) -> AsyncIterator[House]:
    """One worker whose books are checked when all was reported."""
    server = await asyncpg.connect(postgres_url)
    await server.execute(f'create database "gateway_usage" template "{migrated_template}" strategy file_copy')
    database = await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path="/gateway_usage")), max_size=20)
    await prepare(database)
    models: list[Model] = [*scripted().models.values(), *(model for model in MODELS if model.id == EMBEDDING)]
    upstream = Scripted(terms=Terms(failures=1_000_000), models=models)
    async with worker(database, scripted=upstream) as opened:
        for model in (NATIVE, TRANSLATED, EMBEDDING):
            await opened.set_price(model, PRICE)
        yield opened
        assert await opened.ledger.check() == []
    await database.close()
    await server.execute('drop database "gateway_usage" with (force)')
    await server.close()


async def reported(house: House, path: str, body: dict[str, Any], lie: Any) -> None:
    """One call whose upstream says this: it is answered, and billed by the rule, within what was held."""
    customer = await house.customer(prepaid="1")
    answer: Response = await ask(house.port, path, body, customer.token)
    assert answer.status == 200, (lie, answer.body)
    (charge,) = await house.charges(customer)
    assert (charge.estimated, charge.outcome) == (True, "complete"), (lie, charge)
    assert all(tokens >= 0 for tokens in charge.usage.values()), (lie, charge)
    assert charge.usage["input"] > 0, (lie, charge)
    assert 0 < charge.cost_nano <= charge.held_nano, (lie, charge)
    assert await house.left_nano(customer) == CREDIT_NANO - charge.cost_nano, lie
    assert await house.held_nano(customer) == 0, lie


async def each(calls: Iterator[Any]) -> None:
    """Some at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(call: Any) -> None:
        async with room:
            await call

    await asyncio.gather(*map(one, calls))


@pytest.mark.parametrize("spoken", [CHATS, *ALL], ids=lambda spoken: spoken.name)
@pytest.mark.parametrize("model", [NATIVE, TRANSLATED])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_no_lie_crashes_or_credits(house: House, spoken: Spoken, model: str, stream: bool) -> None:
    own = model == NATIVE and spoken.name in ("messages", "responses")
    names = ("input_tokens", "output_tokens") if own else ("prompt_tokens", "completion_tokens")
    told = [*lies(*names), *(of_messages() if own and spoken.name == "messages" else details(*names))]

    def calls() -> Iterator[Any]:
        for lie in told:
            script = {"usage": lie, "chunks": WORDS}
            yield reported(house, spoken.path, spoken.body(model, stream=stream, script=script), lie)

    await each(calls())


async def test_nor_of_embeddings(house: House) -> None:
    def calls() -> Iterator[Any]:
        for lie in lies("prompt_tokens", "total_tokens", output=False):
            metadata = {"freehold_script": json.dumps({"usage": lie})}
            body = {"model": EMBEDDING, "input": "hello there", "metadata": metadata}
            yield reported(house, "/v1/embeddings", body, lie)

    await each(calls())


@pytest.mark.parametrize("spoken", [CHATS, *ALL], ids=lambda spoken: spoken.name)
@pytest.mark.parametrize("model", [NATIVE, TRANSLATED])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_what_is_huge_and_could_be_costs_no_more_than_was_held_and_could_be_paid(
    house: House, spoken: Spoken, model: str, stream: bool
) -> None:
    customer = await house.customer(prepaid="1")
    script = {"usage": {"prompt_tokens": 10**9, "completion_tokens": 10**9}, "chunks": WORDS}
    body = spoken.body(model, stream=stream, script=script, **{spoken.limit: 20})
    assert (await ask(house.port, spoken.path, body, customer.token)).status == 200
    (charge,) = await house.charges(customer)
    assert (charge.cost_nano, charge.estimated) == (charge.held_nano, False)
    assert charge.cost_nano + charge.absorbed_nano == 10**9 * (PRICE["input"] + PRICE["output"]) // 10**6
    assert await house.left_nano(customer) == CREDIT_NANO - charge.cost_nano > 0
