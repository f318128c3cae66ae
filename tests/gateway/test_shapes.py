"""Every API: the same money path, natively and by translation."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests.gateway.house import House, prepare, worker
from tests.gateway.raw import Response, ask, connect, request
from tests.gateway.shapes import (
    ALL,
    COMPLETIONS,
    MESSAGES,
    NATIVE,
    PRICE,
    RESPONSES,
    TRANSLATED,
    Spoken,
    events,
    scripted,
    send,
)

from freehold.db import Database
from freehold.gateway.metrics import Counted, Metrics
from freehold.metrics import Numbers
from freehold.upstream.model import UpstreamCall

WORDS = ["one ", "two ", "three ", "four "]
USED = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 5},
}

shapes = pytest.mark.parametrize("spoken", ALL, ids=lambda spoken: spoken.name)
both = pytest.mark.parametrize("model", [NATIVE, TRANSLATED])
streams = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


@pytest.fixture(scope="module")
async def shared(postgres_url: str, migrated_template: str) -> AsyncIterator[House]:
    server = await asyncpg.connect(postgres_url)
    await server.execute(f'create database "gateway_shapes" template "{migrated_template}" strategy file_copy')
    database = await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path="/gateway_shapes")), max_size=20)
    await prepare(database)
    async with worker(database, scripted=scripted()) as house:
        for model in (NATIVE, TRANSLATED):
            await house.set_price(model, PRICE)
        yield house
    await database.close()
    await server.execute('drop database "gateway_shapes" with (force)')
    await server.close()


@pytest.fixture
def house(shared: House) -> House:
    shared.scripted.gate = None
    shared.scripted.hanging = asyncio.Event()
    shared.scripted.seen.clear()
    shared.app.left.clear()
    return shared


def native_path(spoken: Spoken, model: str) -> str:
    return spoken.path.removeprefix("/v1/") if model == NATIVE else "chat/completions"


class TestMoney:
    @shapes
    @both
    @streams
    async def test_a_call_says_what_it_cost_and_its_charge_agrees(
        self, house: House, spoken: Spoken, model: str, stream: bool
    ) -> None:
        customer = await house.customer(prepaid="1")
        response = await send(house, spoken, customer, spoken.body(model, stream=stream))
        assert response.status == 200, response.body
        assert (spoken.streamed(response) if stream else spoken.said(response.json())) == "You said: hello there"
        (charge,) = await house.charges(customer)
        assert charge.usage == {"input": 3, "output": 4}
        assert (charge.cost_nano, charge.outcome, charge.estimated) == (3 * 1_000 + 4 * 4_000, "complete", False)
        if stream:
            place = next(n for n, block in enumerate(response.events()) if block.startswith(": freehold"))
            assert response.events()[place] == ": freehold cost=0.000019 purse=prepaid=0.000019"
            assert place == len(response.events()) - (3 if spoken is RESPONSES else 2)
            assert spoken.ended(response)
        else:
            assert response.headers["x-freehold-cost"] == "0.000019"
        assert house.scripted.seen[-1].path == native_path(spoken, model)
        assert await house.held_nano(customer) == 0

    @shapes
    @both
    @streams
    async def test_cached_written_and_reasoning_tokens_are_priced_and_shown(
        self, house: House, spoken: Spoken, model: str, stream: bool
    ) -> None:
        customer = await house.customer(prepaid="1")
        body = spoken.body(model, stream=stream, script={"usage": USED})
        response = await send(house, spoken, customer, body)
        (charge,) = await house.charges(customer)
        thought = 5 if spoken is not MESSAGES or model == TRANSLATED else 0  # Anthropic doesn't tell it apart
        units = {"input": 50, "cached_input": 40, "cache_write": 10, "output": 20 - thought, "reasoning": thought}
        assert charge.usage == {unit: n for unit, n in units.items() if n}
        assert charge.cost_nano == sum(n * PRICE[unit] // 1_000_000 for unit, n in units.items())
        shown = usage_shown(spoken, response, stream)
        if spoken is MESSAGES:
            assert shown["input_tokens"] == 50
            assert (shown["cache_read_input_tokens"], shown["cache_creation_input_tokens"]) == (40, 10)
            assert shown["output_tokens"] == 20
        elif spoken is RESPONSES:
            assert shown["input_tokens"] == 100
            assert shown["input_tokens_details"] == {"cached_tokens": 40, "cache_write_tokens": 10}
            assert shown["output_tokens_details"] == {"reasoning_tokens": 5}
            assert shown["total_tokens"] == 120
        elif not stream:
            assert shown == USED

    async def test_a_cache_kept_for_an_hour_has_its_own_price(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        used = {**USED, "prompt_tokens_details": {"cache_write_tokens": 10, "cache_write_1h_tokens": 4}}
        await send(house, MESSAGES, customer, MESSAGES.body(NATIVE, script={"usage": used}))
        (charge,) = await house.charges(customer)
        assert charge.usage == {"input": 90, "cache_write": 6, "cache_write_1h": 4, "output": 20}

    @shapes
    @both
    @streams
    @pytest.mark.parametrize("lie", ["missing", None, "a lot", {"prompt_tokens": -1, "completion_tokens": 10**15}])
    async def test_usage_that_cannot_be_believed_is_estimated(
        self, house: House, spoken: Spoken, model: str, stream: bool, lie: Any
    ) -> None:
        customer = await house.customer(prepaid="1")
        script = {"usage": lie, "chunks": WORDS}
        response = await send(house, spoken, customer, spoken.body(model, stream=stream, script=script))
        assert response.status == 200
        (charge,) = await house.charges(customer)
        assert charge.estimated
        assert charge.usage["output"] == (4 if stream else 5)  # deltas, or a quarter of 19 bytes
        shown = usage_shown(spoken, response, stream)
        if spoken is not COMPLETIONS or not stream:
            names = (
                ("input_tokens", "output_tokens")
                if spoken is not COMPLETIONS
                else ("prompt_tokens", "completion_tokens")
            )
            assert tuple(shown[name] for name in names) == (charge.usage["input"], charge.usage["output"])

    @shapes
    @both
    async def test_an_explicit_maximum_is_held_whole_or_refused(self, house: House, spoken: Spoken, model: str) -> None:
        customer = await house.customer(prepaid="0.01")
        response = await send(house, spoken, customer, spoken.body(model, **{spoken.limit: 4_000}))
        assert response.status == 402
        error = response.json()["error"]
        assert error["code"] == "insufficient_credit"
        if spoken is MESSAGES:
            assert (error["type"], response.json()["type"]) == ("billing_error", "error")
            assert response.json()["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
        assert house.scripted.seen == []
        assert (await send(house, spoken, customer, spoken.body(model, **{spoken.limit: 40}))).status == 200

    @both
    async def test_a_stream_without_a_maximum_is_cut_off_where_credit_ends(self, house: House, model: str) -> None:
        customer = await house.customer(prepaid="0.002")
        script = {"chunks": [f"{n} " for n in range(1_000)]}
        response = await send(house, RESPONSES, customer, RESPONSES.body(model, stream=True, script=script))
        (charge,) = await house.charges(customer)
        assert charge.cost_nano <= 2_000_000
        assert await house.left_nano(customer) == 2_000_000 - charge.cost_nano
        last = events(response)[-1]
        assert last["type"] == "response.incomplete"
        assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
        said = RESPONSES.streamed(response)
        assert 200 < len(said.split()) < 1_000
        assert RESPONSES.said(last["response"]) == said
        done = [event for event in events(response) if event["type"] == "response.output_text.done"]
        assert [event["text"] for event in done] == [said]
        assert charge.usage["output"] == len(said.split())
        numbers = [event["sequence_number"] for event in events(response)]
        assert numbers == sorted(set(numbers))

    @shapes
    @both
    @streams
    async def test_a_repeated_call_gets_the_first_answer_again(
        self, house: House, spoken: Spoken, model: str, stream: bool
    ) -> None:
        customer = await house.customer(prepaid="1")
        body = spoken.body(model, stream=stream)
        first = await send(house, spoken, customer, body, **{"idempotency-key": "k"})
        again = await send(house, spoken, customer, body, **{"idempotency-key": "k"})
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["x-request-id"] == first.headers["x-request-id"]
        assert again.headers.get("request-id") == first.headers.get("request-id")
        assert again.body == first.body
        assert len(house.scripted.seen) == len(await house.charges(customer)) == 1

    @shapes
    @both
    async def test_a_client_that_leaves_pays_for_the_deltas_that_came(
        self, house: House, spoken: Spoken, model: str
    ) -> None:
        customer = await house.customer(prepaid="1")
        body = spoken.body(model, stream=True, script={"chunks": WORDS, "hang_after": 2})
        async with connect(house.port) as connection:
            await connection.send(request(spoken.path, json.dumps(body).encode(), customer.token))
            assert (await connection.head()).status == 200
            said = b""
            while b"two " not in said:
                said += await connection.part()
            connection.leave()
        await house.app.quiet()
        (charge,) = await house.charges(customer)
        assert (charge.outcome, charge.estimated, charge.usage["output"]) == ("disconnected", True, 2)
        assert await house.held_nano(customer) == 0

    @shapes
    @both
    async def test_a_stream_that_breaks_says_so_in_its_own_words(
        self, house: House, spoken: Spoken, model: str
    ) -> None:
        customer = await house.customer(prepaid="1")
        body = spoken.body(model, stream=True, script={"chunks": WORDS, "die_after": 2})
        response = await send(house, spoken, customer, body)
        found = events(response)
        if spoken is MESSAGES:
            assert (found[-1]["type"], found[-1]["error"]["type"]) == ("error", "api_error")
        elif spoken is RESPONSES:
            assert [event["type"] for event in found[-2:]] == ["error", "response.failed"]
            assert found[-2]["code"] == found[-2]["error"]["code"] == "upstream_error"
            assert found[-1]["response"]["status"] == "failed"
        else:
            assert found[-1]["error"]["code"] == "upstream_error"
        assert not spoken.ended(response)
        (charge,) = await house.charges(customer)
        assert (charge.outcome, charge.usage["output"]) == ("upstream_died", 2)

    @shapes
    @both
    @streams
    async def test_an_upstream_that_dies_at_once_costs_nothing(
        self, house: House, spoken: Spoken, model: str, stream: bool
    ) -> None:
        customer = await house.customer(prepaid="1")
        response = await send(house, spoken, customer, spoken.body(model, stream=stream, script={"die": True}))
        assert (response.status, response.json()["error"]["code"]) == (502, "upstream_error")
        assert await house.charges(customer) == []
        assert await house.held_nano(customer) == 0

    @both
    async def test_a_stream_that_ends_without_its_last_event_has_broken(self, house: House, model: str) -> None:
        customer = await house.customer(prepaid="1")
        script = {"chunks": WORDS, "done": False}
        response = await send(house, MESSAGES, customer, MESSAGES.body(model, stream=True, script=script))
        assert MESSAGES.ended(response)  # everything but the marker came: it is whole
        (charge,) = await house.charges(customer)
        assert charge.outcome == "complete"


def usage_shown(spoken: Spoken, response: Response, stream: bool) -> dict[str, Any]:
    """The usage object that the client got."""
    if not stream:
        found: dict[str, Any] = response.json()["usage"]
        return found
    told = events(response)
    if spoken is RESPONSES:
        return dict(told[-1]["response"]["usage"])
    return next((dict(event["usage"]) for event in told if event.get("type") == "message_delta"), {})


class TestWhatGoesUpstream:
    async def test_a_native_request_passes_as_it_is(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        body = RESPONSES.body(NATIVE, store=True, vendor={"deep": [1, None]}, max_output_tokens=77)
        await send(house, RESPONSES, customer, body)
        assert json.loads(house.scripted.seen[-1].body) == {**body, "store": False, "max_output_tokens": 77}

    async def test_an_upstream_that_would_store_by_itself_is_told_not_to(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        await send(house, RESPONSES, customer, RESPONSES.body(NATIVE))
        assert json.loads(house.scripted.seen[-1].body)["store"] is False

    async def test_a_native_message_keeps_its_blocks(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        body = MESSAGES.body(NATIVE, messages=[{"role": "user", "content": [block]}], top_k=5, service_tier="auto")
        await send(house, MESSAGES, customer, body)
        assert json.loads(house.scripted.seen[-1].body) == {
            name: value for name, value in body.items() if name != "service_tier"
        }

    async def test_a_native_completion_is_asked_for_the_usage_of_its_stream(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        response = await send(house, COMPLETIONS, customer, COMPLETIONS.body(NATIVE, stream=True, suffix="end"))
        sent = json.loads(house.scripted.seen[-1].body)
        assert sent["stream_options"] == {"include_usage": True}
        assert sent["suffix"] == "end"
        assert all("usage" not in event for event in events(response))

    @shapes
    async def test_store_is_never_asked_of_an_upstream(self, house: House, spoken: Spoken) -> None:
        customer = await house.customer(prepaid="1")
        for model in (NATIVE, TRANSLATED):
            if spoken is not MESSAGES:
                await send(house, spoken, customer, spoken.body(model, store=True))
                assert json.loads(house.scripted.seen[-1].body)["store"] is False

    async def test_a_response_becomes_a_chat(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        picture = "data:image/png;base64,AAAA"
        items = [
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": picture, "detail": "low"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "opaque"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I'll see.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        ]  # fmt: skip
        body = {
            "model": TRANSLATED, "instructions": "Be kind.", "input": items, "max_output_tokens": 50, "seed": 7,
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
                      {"type": "function", "name": "g", "parameters": {"type": "object"}}],
            "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
            "reasoning": {"effort": "high", "summary": "auto"}, "top_logprobs": 2, "include": ["message.output_text.logprobs"],
            "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}, "verbosity": "low"},
        }  # fmt: skip
        response = await send(house, RESPONSES, customer, body)
        assert response.status == 200, response.body
        assert json.loads(house.scripted.seen[-1].body) == {
            "model": TRANSLATED,
            "seed": 7,
            "messages": [
                {"role": "system", "content": "Be kind.\n\nBe brief."},
                {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": picture, "detail": "low"}}]},
                {"role": "assistant", "content": "I'll see.", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "one"},
                {"role": "tool", "tool_call_id": "c2", "content": "two"},
            ],
            "tools": [{"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}}],
            "tool_choice": "required",
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True}},
            "verbosity": "low",
            "reasoning_effort": "high",
            "logprobs": True,
            "top_logprobs": 2,
            "max_tokens": 50,
        }  # fmt: skip

    async def test_a_message_becomes_a_chat(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        body = {
            "model": TRANSLATED, "max_tokens": 50, "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "I'll see."}, {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "one"}]}, {"type": "text", "text": "go on"}]},
            ],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            "stop_sequences": ["END"], "top_k": 5, "temperature": 0.5, "metadata": {"user_id": "u1"},
            "thinking": {"type": "enabled", "budget_tokens": 8_000},
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        }  # fmt: skip
        response = await send(house, MESSAGES, customer, body)
        assert response.status == 200, response.body
        assert json.loads(house.scripted.seen[-1].body) == {
            "model": TRANSLATED,
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
                {"role": "assistant", "content": "I'll see.", "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
                {"role": "tool", "tool_call_id": "t1", "content": "one"},
                {"role": "user", "content": "go on"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
            "stop": ["END"],
            "top_k": 5,
            "temperature": 0.5,
            "user": "u1",
            "reasoning_effort": "medium",
            "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": True}},
            "max_tokens": 50,
        }  # fmt: skip


CALLS = {
    "reasoning_content": "Hm.",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ],
}


class TestWhatComesBack:
    @both
    @streams
    async def test_tools_and_thoughts_of_a_response(self, house: House, model: str, stream: bool) -> None:
        customer = await house.customer(prepaid="1")
        script = {"chunks": [], "message": CALLS, "finish_reason": "tool_calls"}
        response = await send(house, RESPONSES, customer, RESPONSES.body(model, stream=stream, script=script))
        answer = events(response)[-1]["response"] if stream else response.json()
        thought, first, second = answer["output"]
        assert (thought["type"], thought["summary"]) == ("reasoning", [{"type": "summary_text", "text": "Hm."}])
        assert [(call["call_id"], call["name"], call["arguments"]) for call in (first, second)] == [
            ("c1", "f", '{"a":1}'),
            ("c2", "g", "{}"),
        ]
        assert answer["status"] == first["status"] == "completed"
        if stream:
            kinds = [event["type"] for event in events(response)]
            assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 3
            assert kinds.count("response.function_call_arguments.done") == 2
            assert [event["sequence_number"] for event in events(response)] == list(range(len(kinds)))

    @both
    @streams
    async def test_tools_and_thoughts_of_a_message(self, house: House, model: str, stream: bool) -> None:
        customer = await house.customer(prepaid="1")
        script = {"chunks": [], "message": CALLS, "finish_reason": "tool_calls"}
        response = await send(house, MESSAGES, customer, MESSAGES.body(model, stream=stream, script=script))
        if not stream:
            thought, first, second = response.json()["content"]
            assert (thought["type"], thought["thinking"]) == ("thinking", "Hm.")
            assert [(call["id"], call["name"], call["input"]) for call in (first, second)] == [
                ("c1", "f", {"a": 1}),
                ("c2", "g", {}),
            ]
            assert response.json()["stop_reason"] == "tool_use"
            return
        found = events(response)
        begun = [event["content_block"]["type"] for event in found if event["type"] == "content_block_start"]
        assert begun == ["thinking", "tool_use", "tool_use"]
        blocks = [event["index"] for event in found if event["type"].startswith("content_block")]
        assert blocks == sorted(blocks)  # one after the other
        said = [event["delta"] for event in found if event["type"] == "content_block_delta"]
        assert "".join(each.get("partial_json", "") for each in said) == '{"a":1}{}'
        assert [found[0]["type"], found[1]["type"], found[-1]["type"]] == ["message_start", "ping", "message_stop"]
        assert found[-2]["delta"]["stop_reason"] == "tool_use"

    @both
    @streams
    async def test_a_refusal_is_told_as_one(self, house: House, model: str, stream: bool) -> None:
        customer = await house.customer(prepaid="1")
        script = {"chunks": [], "message": {"refusal": "I won't."}}
        response = await send(house, RESPONSES, customer, RESPONSES.body(model, stream=stream, script=script))
        answer = events(response)[-1]["response"] if stream else response.json()
        assert answer["output"][0]["content"] == [{"type": "refusal", "refusal": "I won't."}]
        response = await send(house, MESSAGES, customer, MESSAGES.body(model, stream=stream, script=script))
        ended = events(response)[-2]["delta"] if stream else response.json()
        assert ended["stop_reason"] == "refusal"

    @pytest.mark.parametrize(
        ("finish", "status", "stop"),
        [
            ("stop", ("completed", None), "end_turn"),
            ("length", ("incomplete", "max_output_tokens"), "max_tokens"),
            ("content_filter", ("incomplete", "content_filter"), "refusal"),
        ],
    )
    @both
    async def test_how_an_answer_ended(
        self, house: House, model: str, finish: str, status: tuple[str, str | None], stop: str
    ) -> None:
        customer = await house.customer(prepaid="1")
        script = {"finish_reason": finish}
        answer = (await send(house, RESPONSES, customer, RESPONSES.body(model, script=script))).json()
        details = answer["incomplete_details"]
        assert (answer["status"], details and details["reason"]) == status
        told = (await send(house, MESSAGES, customer, MESSAGES.body(model, script=script))).json()
        assert told["stop_reason"] == stop
        text = (await send(house, COMPLETIONS, customer, COMPLETIONS.body(model, script=script))).json()
        assert text["choices"][0]["finish_reason"] == finish

    @both
    async def test_log_probabilities_come_with_the_text(self, house: House, model: str) -> None:
        customer = await house.customer(prepaid="1")
        body = COMPLETIONS.body(model, "a b", logprobs=1)
        found = (await send(house, COMPLETIONS, customer, body)).json()["choices"][0]["logprobs"]
        assert found["tokens"] == ["You", " said:", " a", " b"]
        assert found["text_offset"] == [0, 3, 9, 11]
        assert found["token_logprobs"] == [-0.5] * 4

    async def test_the_public_name_of_the_model_is_shown(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        for spoken in ALL:
            for model in (NATIVE, TRANSLATED):
                response = await send(house, spoken, customer, spoken.body(model))
                assert response.json()["model"] == model


class TestCompletions:
    async def test_each_prompt_and_choice_is_held_and_charged(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        body = COMPLETIONS.body(NATIVE, prompt=["a", "b c"], n=2, best_of=3, max_tokens=10)
        response = await send(house, COMPLETIONS, customer, body)
        assert [choice["text"] for choice in response.json()["choices"]] == ["You said: a"] * 2 + ["You said: b c"] * 2
        (charge,) = await house.charges(customer)
        assert charge.usage == {"input": 2, "output": (3 + 4) * 3}
        poor = await house.customer(prepaid="0.0002")
        dear = COMPLETIONS.body(NATIVE, prompt=["a", "b"], n=2, best_of=3, max_tokens=10)
        assert (await send(house, COMPLETIONS, poor, dear)).status == 402  # 6 times 10 tokens
        assert (await send(house, COMPLETIONS, poor, {**dear, "prompt": "a"})).status == 200

    async def test_every_token_of_a_token_array_counts(self, house: House) -> None:
        customer = await house.customer(prepaid="0.0002")
        body = COMPLETIONS.body(NATIVE, prompt=[[1] * 80, [2] * 80], max_tokens=1)
        assert (await send(house, COMPLETIONS, customer, body)).status == 402
        assert (await send(house, COMPLETIONS, customer, {**body, "prompt": [1] * 80})).status == 200

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"prompt": ["a", "b"]}, "prompt"),
            ({"prompt": [1, 2]}, "prompt"),
            ({"suffix": "x"}, "suffix"),
            ({"best_of": 2}, "best_of"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"echo": True, "logprobs": 1}, "echo"),
        ],
    )
    async def test_what_no_chat_can_say_is_refused_where_the_upstream_speaks_only_chat(
        self, house: House, fields: dict[str, Any], param: str
    ) -> None:
        customer = await house.customer(prepaid="1")
        response = await send(house, COMPLETIONS, customer, COMPLETIONS.body(TRANSLATED, **fields))
        assert (response.status, response.code()) == (400, "unsupported_parameter")
        assert response.json()["error"]["param"] == param
        assert (await send(house, COMPLETIONS, customer, COMPLETIONS.body(NATIVE, **fields))).status == 200

    async def test_without_a_maximum_it_is_sixteen_tokens(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        body = COMPLETIONS.body(TRANSLATED, " ".join(["x"] * 50))
        del body["max_tokens"]
        response = await send(house, COMPLETIONS, customer, body)
        assert response.json()["usage"]["completion_tokens"] == 16
        assert response.json()["choices"][0]["finish_reason"] == "length"


class TestCounting:
    @both
    async def test_tokens_are_counted_and_nothing_is_charged(self, house: House, model: str) -> None:
        customer = await house.customer()
        body = {"model": model, "messages": [{"role": "user", "content": "hello there"}], "system": "Be kind."}
        response = await send_count(house, customer.token, body)
        assert (response.status, response.json()["input_tokens"]) == (200, 5 if model == NATIVE else 8), response.body
        assert len(house.scripted.seen) == (1 if model == NATIVE else 0)
        assert await house.charges(customer) == []

    async def test_a_revoked_key_counts_nothing(self, house: House) -> None:
        customer = await house.customer()
        body = {"model": TRANSLATED, "messages": [{"role": "user", "content": "hi"}]}
        assert (await send_count(house, customer.token, body)).status == 200
        await house.revoke(customer)
        refused = await send_count(house, customer.token, body)
        assert (refused.status, refused.json()["error"]["type"]) == (401, "authentication_error")


async def send_count(house: House, token: str, body: Any) -> Response:
    return await ask(house.port, "/v1/messages/count_tokens", body, token)


class TestWhoAsks:
    async def test_a_key_comes_as_x_api_key_or_as_a_bearer(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        for headers in ({"x-api-key": customer.token}, {"authorization": f"Bearer {customer.token}"}):
            response = await ask(house.port, MESSAGES.path, MESSAGES.body(TRANSLATED), None, **headers)
            assert response.status == 200
        wrong = await ask(house.port, MESSAGES.path, MESSAGES.body(TRANSLATED), None, **{"x-api-key": "sk-ant"})
        assert (wrong.status, wrong.json()["error"]["type"]) == (401, "authentication_error")

    async def test_models_are_listed_in_anthropics_words_to_its_clients(self, house: House) -> None:
        customer = await house.customer()
        version = {"anthropic-version": "2023-06-01", "x-api-key": customer.token}
        listed = (await ask(house.port, "/v1/models?limit=1", b"", None, method="GET", **version)).json()
        assert [model["id"] for model in listed["data"]] == [NATIVE]
        assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (True, NATIVE, NATIVE)
        after = f"/v1/models?limit=1&after_id={NATIVE}"
        listed = (await ask(house.port, after, b"", None, method="GET", **version)).json()
        assert ([model["id"] for model in listed["data"]], listed["has_more"]) == ([TRANSLATED], False)
        one = (await ask(house.port, f"/v1/models/{NATIVE}", b"", None, method="GET", **version)).json()
        assert (one["type"], one["display_name"]) == ("model", NATIVE)
        none = await ask(house.port, "/v1/models/x", b"", None, method="GET", **version)
        assert (none.status, none.json()["error"]["type"]) == (404, "not_found_error")
        bad = await ask(house.port, "/v1/models?limit=0", b"", None, method="GET", **version)
        assert (bad.status, bad.json()["error"]["param"]) == (400, "limit")


class TestRoutes:
    async def test_what_is_not_served_of_messages_is_said_in_anthropics_words(self, house: House) -> None:
        response = await ask(house.port, "/v1/messages/batches", {}, None)
        assert (response.status, response.json()["error"]["type"]) == (404, "not_found_error")

    @shapes
    async def test_another_method_is_told_the_right_one(self, house: House, spoken: Spoken) -> None:
        response = await ask(house.port, spoken.path, b"", None, method="GET")
        assert (response.status, response.headers["allow"]) == (405, "POST")

    async def test_paths_that_clients_make_up_are_counted_under_one_name(self, house: House) -> None:
        counted = Counted(house.door, Metrics(Numbers.private()))
        assert counted.route("/v1/messages/a") is counted.route("/v1/messages/b")
        assert counted.route("/v1/messages/a") is not counted.route("/v1/messages/count_tokens")

    async def test_an_image_costs_the_models_bound_at_most(self, house: House) -> None:
        customer = await house.customer(prepaid="0.004")
        picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}
        one = RESPONSES.body(NATIVE, input=[{"role": "user", "content": [picture]}], max_output_tokens=1)
        two = RESPONSES.body(NATIVE, input=[{"role": "user", "content": [picture, picture]}], max_output_tokens=1)
        assert (await send(house, RESPONSES, customer, one)).status == 200
        assert (await send(house, RESPONSES, customer, two)).status == 402


class TestUpstreamsThatMisbehave:
    @pytest.mark.parametrize("spoken", [RESPONSES, MESSAGES], ids=lambda spoken: spoken.name)
    async def test_a_native_stream_without_its_last_event_has_broken(self, house: House, spoken: Spoken) -> None:
        customer = await house.customer(prepaid="1")
        body = spoken.body(NATIVE, stream=True)
        end = b"data: [DONE]\n\n"
        begun = {
            "responses": b'data: {"type":"response.output_text.delta","delta":"hi","output_index":0}\n\n',
            "messages": b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}\n\n',
        }[spoken.name]
        with saying(house, begun + end):
            response = await send(house, spoken, customer, body, **{"idempotency-key": "k"})
            assert not spoken.ended(response)
            assert "error" in events(response)[-1] or events(response)[-1]["type"] == "response.failed"
        repeated = await send(house, spoken, customer, body, **{"idempotency-key": "k"})
        assert (repeated.status, repeated.json()["error"]["code"]) == (409, "idempotency_conflict")  # nothing was kept
        (charge,) = await house.charges(customer)
        assert (charge.outcome, charge.usage["output"]) == ("upstream_died", 1)

    @pytest.mark.parametrize(
        "said",
        [
            b"data: 5\n\n",
            b"data: {}\n\n",
            b"data: nonsense\n\n",
            b'data: {"type":"error","error":{"message":"sk-secret"}}\n\n',
            b'data: {"type":"response.completed"}\n\n',
            b'data: {"type":"response.failed","response":{"usage":{"input_tokens":1,"output_tokens":1}}}\n\n',
            b'data: {"type":"message_start"}\n\n',
            b'data: {"type":"x\\ny"}\n\n',
            b'data: {"choices":[{"delta":{"tool_calls":[5]}}]}\n\n',
            b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}\n\n',
        ],
    )
    @pytest.mark.parametrize("spoken", [RESPONSES, MESSAGES], ids=lambda spoken: spoken.name)
    @both
    async def test_nonsense_is_an_upstreams_fault_and_shows_nothing_of_it(
        self, house: House, spoken: Spoken, model: str, said: bytes
    ) -> None:
        customer = await house.customer(prepaid="1")
        with saying(house, said):
            response = await send(house, spoken, customer, spoken.body(model, stream=True))
        assert response.status in (200, 502), response.body
        assert b"sk-secret" not in response.body
        assert await house.held_nano(customer) == 0
        if response.status == 502:
            assert response.json()["error"]["code"] == "upstream_error"


@contextmanager
def saying(house: House, raw: bytes) -> Iterator[None]:
    """The upstream says these bytes to every stream."""
    original = house.scripted.send

    class Raw:
        status, content_type, retry_after_s = 200, "text/event-stream", None

        async def read(self, limit_bytes: int) -> bytes:
            return raw

        async def chunks(self) -> AsyncIterator[bytes]:
            yield raw

        async def close(self) -> None:
            return

    async def answer(call: UpstreamCall) -> Any:
        return Raw()

    house.scripted.send = answer  # type: ignore[method-assign]
    try:
        yield
    finally:
        house.scripted.send = original  # type: ignore[method-assign]
