"""Paid calls through the openai package and by hand: what the client sees is what the ledger has."""

import asyncio
import json

import pytest
from openai import AuthenticationError, NotFoundError
from tests.gateway.house import House, worker
from tests.gateway.raw import CHAT, ask, chat, connect, request

from freehold.db import Database
from freehold.ledger.model import Source
from freehold.money import format_usd, parse_usd
from freehold.upstream.model import Kind, Model
from freehold.upstream.scripted import Scripted

HELLO = [{"role": "user", "content": "hello there"}]


async def test_a_plain_chat_is_answered_and_its_cost_agrees_everywhere(house: House) -> None:
    customer = await house.customer(allowance="1")
    raw = await house.sdk(customer).chat.completions.with_raw_response.create(
        model="scripted-echo",
        messages=[{"role": "user", "content": "hello there"}],
        max_tokens=20,
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "You said: hello there"
    assert answer.model == "scripted-echo"
    assert answer.usage is not None
    charge = await house.charge(customer, raw.headers["x-request-id"])
    assert charge.usage == {"input": answer.usage.prompt_tokens, "output": answer.usage.completion_tokens}
    assert charge.cost_nano == answer.usage.prompt_tokens * 1_000 + answer.usage.completion_tokens * 2_000
    cost = format_usd(charge.cost_nano)
    left = parse_usd("1") - charge.cost_nano
    assert raw.headers["x-freehold-cost"] == cost
    assert raw.headers["x-freehold-purse"] == f"allowance={cost}"
    assert raw.headers["x-freehold-allowance-remaining"] == format_usd(left)
    assert raw.headers["x-freehold-prepaid-remaining"] == "0.00"
    assert raw.headers["x-freehold-allowance-reset"].endswith("T00:00:00Z")
    assert await house.left_nano(customer) == left
    assert (charge.outcome, charge.estimated) == ("complete", False)


async def test_a_streamed_chat_is_answered_and_its_usage_is_what_was_charged(house: House) -> None:
    customer = await house.customer(allowance="1")
    stream = await house.sdk(customer).chat.completions.create(
        model="scripted-echo",
        messages=[{"role": "user", "content": "hello there"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        "You said: hello there"
    )
    usage = chunks[-1].usage
    assert usage is not None
    assert not chunks[-1].choices
    (charge,) = await house.charges(customer)
    assert charge.usage == {"input": usage.prompt_tokens, "output": usage.completion_tokens}


async def test_a_stream_ends_with_its_cost(house: House) -> None:
    customer = await house.customer(allowance="1")
    response = await ask(house.port, CHAT, chat(stream=True), customer.token)
    charge = await house.charge(customer, response.headers["x-request-id"])
    cost = format_usd(charge.cost_nano)
    assert response.events()[-2:] == [f": freehold cost={cost} purse=allowance={cost}", "data: [DONE]"]
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_client_that_did_not_ask_sees_no_usage_frame(house: House) -> None:
    customer = await house.customer(allowance="1")
    response = await ask(house.port, CHAT, chat(stream=True), customer.token)
    assert response.text() == "You said: hello there"
    assert not [chunk for chunk in response.chunks() if "usage" in chunk or not chunk["choices"]]
    sent = json.loads(house.scripted.seen[-1].body)
    assert sent["stream_options"] == {"include_usage": True}


async def test_embeddings_are_answered_and_charged(house: House) -> None:
    customer = await house.customer(allowance="1")
    raw = await house.sdk(customer).embeddings.with_raw_response.create(
        model="scripted-embedding", input=["one", "two words"]
    )
    answer = raw.parse()
    assert [len(item.embedding) for item in answer.data] == [8, 8]
    charge = await house.charge(customer, raw.headers["x-request-id"])
    assert charge.usage == {"input": answer.usage.prompt_tokens, "output": 0}
    assert raw.headers["x-freehold-cost"] == format_usd(charge.cost_nano)


async def test_models_are_listed_with_their_prices(house: House) -> None:
    customer = await house.customer()
    models = await house.sdk(customer).models.list()
    assert {model.id for model in models.data} == {"scripted-echo", "scripted-exact", "scripted-embedding"}
    one = await house.sdk(customer).models.retrieve("scripted-echo")
    assert one.model_extra is not None
    assert one.model_extra["freehold"]["price"]["usd_per_million"] == {"input": "1.00", "output": "2.00"}


async def test_a_key_sees_only_its_own_models(house: House) -> None:
    customer = await house.customer(models=["scripted-echo"])
    assert [model.id for model in (await house.sdk(customer).models.list()).data] == ["scripted-echo"]
    with pytest.raises(NotFoundError, match="scripted-echo"):
        await house.sdk(customer).models.retrieve("scripted-exact")


async def test_a_revoked_key_sees_no_models(house: House) -> None:
    customer = await house.customer()
    await house.sdk(customer).models.list()
    await house.revoke(customer)
    with pytest.raises(AuthenticationError, match="revoked"):
        await house.sdk(customer).models.list()


async def test_one_call_is_paid_from_two_purses(house: House) -> None:
    customer = await house.customer(allowance="0.00001", prepaid="1")
    response = await ask(house.port, CHAT, chat(max_tokens=20), customer.token)
    assert response.status == 200
    charge = await house.charge(customer, response.headers["x-request-id"])
    assert {leg.source: leg.amount_nano for leg in charge.legs} == {
        Source.ALLOWANCE: 10_000,
        Source.PREPAID: charge.cost_nano - 10_000,
    }
    rest = format_usd(charge.cost_nano - 10_000)
    assert response.headers["x-freehold-purse"] == f"allowance=0.00001,prepaid={rest}"


async def test_unicode_comes_through(house: House) -> None:
    customer = await house.customer(allowance="1")
    text = "héllo 🌍 مرحبا \u2028 \x00 \U0001f468\u200d\U0001f469"
    plain = await ask(house.port, CHAT, chat(text), customer.token)
    assert plain.json()["choices"][0]["message"]["content"] == f"You said: {text}"
    cut = await ask(house.port, CHAT, chat(text, stream=True, script={"fragment_bytes": 3}), customer.token)
    assert cut.text() == f"You said: {text}"


@pytest.mark.parametrize("stream", [True, False])
async def test_the_upstreams_name_of_a_model_is_never_shown(prepared: Database, stream: bool) -> None:
    renamed = Model("scripted-echo", Kind.CHAT, 8_192, 4_096, "vendor/echo-v3")
    async with worker(prepared, scripted=Scripted(models=[renamed])) as house:
        customer = await house.customer(allowance="1")
        response = await ask(house.port, CHAT, chat(stream=stream), customer.token)
        assert b"hello" in response.body
        assert json.loads(house.scripted.seen[-1].body)["model"] == "vendor/echo-v3"
    assert b"vendor" not in response.body
    assert b"scripted-echo" in response.body


async def test_an_explicit_maximum_is_held_whole_or_refused(house: House) -> None:
    customer = await house.customer(prepaid="0.001")
    body = {"model": "scripted-exact", "messages": HELLO}
    refused = await ask(house.port, CHAT, {**body, "max_tokens": 1_001}, customer.token)
    assert (refused.status, refused.code()) == (402, "insufficient_credit")
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-freehold-cost"] == "0.00"
    assert await house.charges(customer) == []
    paid = await ask(house.port, CHAT, {**body, "max_tokens": 1_000}, customer.token)
    assert paid.status == 200
    assert json.loads(house.scripted.seen[-1].body)["max_tokens"] == 1_000
    assert await house.left_nano(customer) == 0


async def test_without_a_maximum_what_an_eighth_pays_for_goes_upstream(house: House) -> None:
    customer = await house.customer(prepaid="0.008")
    response = await ask(house.port, CHAT, {"model": "scripted-exact", "messages": HELLO}, customer.token)
    assert response.status == 200
    assert json.loads(house.scripted.seen[-1].body)["max_tokens"] == 1_000


async def test_without_a_maximum_256_tokens_are_the_least(house: House) -> None:
    body = {"model": "scripted-exact", "messages": HELLO}
    customer = await house.customer(prepaid="0.000256")
    assert (await ask(house.port, CHAT, body, customer.token)).status == 200
    assert json.loads(house.scripted.seen[-1].body)["max_tokens"] == 256
    poor = await house.customer(prepaid="0.000255")
    assert (await ask(house.port, CHAT, body, poor.token)).code() == "insufficient_credit"


async def test_without_a_maximum_4096_tokens_are_the_most(house: House) -> None:
    customer = await house.customer(prepaid="100")
    assert (await ask(house.port, CHAT, {"model": "scripted-exact", "messages": HELLO}, customer.token)).status == 200
    assert json.loads(house.scripted.seen[-1].body)["max_tokens"] == 4_096


async def test_n_multiplies_what_is_held(house: House) -> None:
    customer = await house.customer(prepaid="0.001")
    body = {"model": "scripted-exact", "messages": HELLO, "max_tokens": 500}
    assert (await ask(house.port, CHAT, {**body, "n": 3}, customer.token)).code() == "insufficient_credit"
    assert (await ask(house.port, CHAT, {**body, "n": 2}, customer.token)).status == 200


async def test_a_new_price_is_seen_by_the_next_request(own_house: House) -> None:
    house = own_house
    customer = await house.customer(prepaid="1")
    body = {"model": "scripted-exact", "messages": HELLO, "max_tokens": 10}
    first = await ask(house.port, CHAT, body, customer.token)
    version = await house.set_price("scripted-exact", {"input": 0, "output": 7_000_000_000})
    second = await ask(house.port, CHAT, body, customer.token)
    assert first.headers["x-freehold-cost"] == format_usd(10_000)
    assert second.headers["x-freehold-cost"] == format_usd(70_000)
    assert (await house.charge(customer, second.headers["x-request-id"])).price_version == version


async def test_a_revoked_keys_next_request_is_refused(house: House) -> None:
    customer = await house.customer(prepaid="1")
    assert (await ask(house.port, CHAT, chat(), customer.token)).status == 200
    await house.revoke(customer)
    refused = await ask(house.port, CHAT, chat(), customer.token)
    assert (refused.status, refused.code()) == (401, "key_revoked")
    assert len(house.scripted.seen) == 1


async def test_todays_allowance_is_issued_at_the_first_call(house: House) -> None:
    customer = await house.customer(allowance="0.5")
    response = await ask(house.port, CHAT, chat(max_tokens=5), customer.token)
    assert response.status == 200
    assert response.headers["x-freehold-purse"].startswith("allowance=")


async def test_the_finish_leaves_after_the_settlement(house: House) -> None:
    """Content flows at once; what tells the client that the answer is whole waits until the charge can be read."""
    customer = await house.customer(allowance="1")
    house.scripted.gate = asyncio.Event()
    async with connect(house.port) as connection:
        body = json.dumps(chat(stream=True, script={"chunks": ["a", "b"], "hang_after": 2})).encode()
        await connection.send(request(CHAT, body, customer.token))
        head = await connection.head()
        said = b""
        while b'"b"' not in said:
            said += await connection.part()
        assert not await house.charges(customer)
        house.scripted.gate.set()
        rest = await connection.part()
        assert b'"finish_reason":"stop"' in rest.replace(b": ", b":")
        assert (await house.charge(customer, head.headers["x-request-id"])).outcome == "complete"
