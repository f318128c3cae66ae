"""The embedded model answers paid calls of the openai package."""

import json
from collections.abc import AsyncIterator

import pytest
from openai import APIStatusError
from tests.gateway.house import House, worker
from tests.gateway.raw import CHAT, connect, request

from freehold.db import Database
from freehold.ledger.model import Source
from freehold.pricing.seed import DEMO_PRICES
from freehold.upstream.openai_compatible import OpenAICompatible

CHAT_MODEL = "smollm2-135m"
NEVER_ENDING = {"0": -100, "2": -100}
"""The model's tokens that end an answer, which it then can't give: it goes on up to the maximum."""
ASKED = [{"role": "user", "content": "Say hello in five words."}]


@pytest.fixture
async def house(prepared: Database, embedded: OpenAICompatible) -> AsyncIterator[House]:
    async with worker(prepared, upstreams=[embedded]) as house:
        for price in DEMO_PRICES:
            await house.set_price(price.model, price.nano_per_million)
        yield house


async def test_a_plain_and_a_streamed_chat_and_an_embedding_agree_with_the_books(house: House) -> None:
    customer = await house.customer(allowance="0.000005", prepaid="1")
    client = house.sdk(customer)
    plain = await client.chat.completions.with_raw_response.create(
        model=CHAT_MODEL, messages=[{"role": "user", "content": "Say hello in five words."}], max_tokens=12
    )
    stream = await client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Say hello in five words."}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    vectors = await client.embeddings.create(model="minilm-l6", input=["hello", "wörld"])
    answer = plain.parse()
    assert answer.choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(vectors.data[0].embedding) == 384
    embedded, streamed, first = await house.charges(customer)
    assert answer.usage is not None
    assert chunks[-1].usage is not None
    assert first.usage == {"input": answer.usage.prompt_tokens, "output": answer.usage.completion_tokens}
    usage = chunks[-1].usage
    cached = usage.prompt_tokens_details.cached_tokens or 0 if usage.prompt_tokens_details else 0
    assert sum(streamed.usage.values()) == usage.total_tokens
    assert streamed.usage.get("cached_input", 0) == cached
    assert embedded.usage["input"] == vectors.usage.prompt_tokens
    assert {leg.source for charge in (first, streamed, embedded) for leg in charge.legs} == {
        Source.ALLOWANCE,
        Source.PREPAID,
    }
    assert not [charge for charge in (first, streamed, embedded) if charge.estimated or not charge.cost_nano]
    assert await house.ledger.check() == []


async def test_a_prompt_beyond_its_context_is_too_large(house: House) -> None:
    customer = await house.customer(prepaid="1")
    for words in (200_000, 20_000):
        with pytest.raises(APIStatusError) as caught:
            await house.sdk(customer).chat.completions.create(
                model=CHAT_MODEL, messages=[{"role": "user", "content": "word " * words}], max_tokens=5
            )
        assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    assert await house.charges(customer) == []
    assert await house.held_nano(customer) == 0


async def test_a_client_that_leaves_pays_for_what_came(house: House) -> None:
    customer = await house.customer(prepaid="1")
    async with connect(house.port) as connection:
        body = {"model": CHAT_MODEL, "messages": ASKED, "max_tokens": 2_000, "stream": True, "logit_bias": NEVER_ENDING}
        await connection.send(request(CHAT, json.dumps(body).encode(), customer.token))
        await connection.head()
        for _ in range(4):
            await connection.part()
        connection.leave()
    await house.app.quiet()
    (charge,) = await house.charges(customer)
    assert charge.outcome == "disconnected"
    assert 0 < charge.cost_nano <= charge.held_nano
    assert await house.held_nano(customer) == 0
