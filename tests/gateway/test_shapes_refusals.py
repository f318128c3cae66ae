"""What each API refuses, by the name of the field; and whatever is sent, the answer is one of ours."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.house import Customer, House, prepare, worker
from tests.gateway.raw import ask
from tests.gateway.shapes import COMPLETIONS, MESSAGES, NATIVE, RESPONSES, TRANSLATED, Spoken, events, scripted

from freehold.db import Database
from freehold.gateway.admission import bound
from freehold.gateway.asking import Ask
from freehold.gateway.settings import DoorSettings
from freehold.gateway.shapes import completions, messages, responses
from freehold.gateway.shapes.completions import Completions
from freehold.gateway.shapes.messages import Messages
from freehold.gateway.shapes.responses import Responses
from freehold.pricing.bounds import ITEM_TOKENS
from freehold.problems import InvalidRequest, UnsupportedParameter
from freehold.upstream.model import Kind, Model

READ: dict[str, Callable[[bytes], Ask]] = {
    "responses": Responses().read,
    "messages": Messages().read,
    "completions": Completions().read,
}
ODD: list[Any] = [7, 7.5, "x", True, ["x"], [7], {"x": 1}, {"type": "x"}, [{"type": "x"}], [["x"]], [None]]


def read(spoken: Spoken, **fields: Any) -> Ask:
    return READ[spoken.name](json.dumps(spoken.body("m", **fields)).encode())


@pytest.mark.parametrize(
    ("spoken", "fields"),
    [(RESPONSES, responses.FIELDS), (MESSAGES, messages.FIELDS), (COMPLETIONS, completions.FIELDS)],
    ids=["responses", "messages", "completions"],
)
def test_every_field_of_the_wrong_type_is_named(spoken: Spoken, fields: dict[str, Any]) -> None:
    for name, (right, _) in fields.items():
        for value in ODD:
            if not right(value):
                with pytest.raises((InvalidRequest, UnsupportedParameter)) as caught:
                    read(spoken, **{name: value})
                assert caught.value.param == name


PART = {"type": "input_text", "text": "x"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
TOOL = {"type": "function", "name": "f", "parameters": {}}
BLOCK = {"type": "text", "text": "x"}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("spoken", "fields", "param"),
    [
        (RESPONSES, {"input": None}, "input"),
        (RESPONSES, {"input": 5}, "input"),
        (RESPONSES, {"input": []}, "input"),
        (RESPONSES, {"input": [5]}, "input[0]"),
        (RESPONSES, {"input": [{"role": "x", "content": "x"}]}, "input[0].role"),
        (RESPONSES, {"input": user(5)}, "input[0].content"),
        (RESPONSES, {"input": user([5])}, "input[0].content[0]"),
        (RESPONSES, {"input": user([{**PART, "text": 5}])}, "input[0].content[0].text"),
        (RESPONSES, {"input": user([{"type": "input_image"}])}, "input[0].content[0].image_url"),
        (RESPONSES, {"input": [{**CALL, "call_id": 5}]}, "input[0].call_id"),
        (RESPONSES, {"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
        (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens"),
        (RESPONSES, {"max_output_tokens": "5"}, "max_output_tokens"),
        (RESPONSES, {"model": 5}, "model"),
        (RESPONSES, {"tools": {}}, "tools"),
        (RESPONSES, {"tools": [5]}, "tools[0]"),
        (RESPONSES, {"tools": [{"type": "function"}]}, "tools[0].name"),
        (RESPONSES, {"tools": [{**TOOL, "parameters": []}]}, "tools[0].parameters"),
        (RESPONSES, {"tools": [TOOL], "tool_choice": "all"}, "tool_choice"),
        (RESPONSES, {"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name"),
        (RESPONSES, {"text": {"format": 5}}, "text.format"),
        (RESPONSES, {"text": {"format": {"type": "x"}}}, "text.format.type"),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "x", "schema": 5}}}, "text.format.schema"),
        (RESPONSES, {"reasoning": {"effort": 5}}, "reasoning.effort"),
        (RESPONSES, {"truncation": "some"}, "truncation"),
        (RESPONSES, {"top_logprobs": 99}, "top_logprobs"),
        (RESPONSES, {"freehold": 5}, "freehold"),
        (MESSAGES, {"max_tokens": None}, "max_tokens"),
        (MESSAGES, {"max_tokens": 0}, "max_tokens"),
        (MESSAGES, {"messages": 5}, "messages"),
        (MESSAGES, {"messages": []}, "messages"),
        (MESSAGES, {"messages": [5]}, "messages[0]"),
        (MESSAGES, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        (MESSAGES, {"messages": user(None)}, "messages[0].content"),
        (MESSAGES, {"messages": user([{**BLOCK, "text": 5}])}, "messages[0].content[0].text"),
        (MESSAGES, {"messages": user([{"type": "image"}])}, "messages[0].content[0].source"),
        (MESSAGES, {"messages": user([{"type": "tool_use", "id": "t", "name": "f", "input": "x"}])}, "messages[0].content[0].input"),
        (MESSAGES, {"messages": user([{"type": "tool_result", "content": "x"}])}, "messages[0].content[0].tool_use_id"),
        (MESSAGES, {"system": 5}, "system"),
        (MESSAGES, {"system": [PICTURE]}, "system"),
        (MESSAGES, {"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        (MESSAGES, {"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "x"}}, "tool_choice.type"),
        (MESSAGES, {"metadata": {"user_id": 5}}, "metadata.user_id"),
        (MESSAGES, {"thinking": {"type": "x"}}, "thinking.type"),
        (MESSAGES, {"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        (MESSAGES, {"output_config": {"effort": 5}}, "output_config.effort"),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        (COMPLETIONS, {"prompt": None}, "prompt"),
        (COMPLETIONS, {"prompt": []}, "prompt"),
        (COMPLETIONS, {"prompt": {}}, "prompt"),
        (COMPLETIONS, {"prompt": ["x", 5]}, "prompt[1]"),
        (COMPLETIONS, {"prompt": [[]]}, "prompt[0]"),
        (COMPLETIONS, {"prompt": [1, -1]}, "prompt"),
        (COMPLETIONS, {"n": 0}, "n"),
        (COMPLETIONS, {"n": 3, "best_of": 2}, "best_of"),
        (COMPLETIONS, {"best_of": 3, "stream": True}, "best_of"),
        (COMPLETIONS, {"best_of": 21}, "best_of"),
        (COMPLETIONS, {"logprobs": -1}, "logprobs"),
        (COMPLETIONS, {"max_tokens": -1}, "max_tokens"),
        (COMPLETIONS, {"stream_options": {"include_usage": 1}}, "include_usage"),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_shape_is_named(spoken: Spoken, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(spoken, **fields)
    assert caught.value.param == param
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("spoken", "fields", "param"),
    [
        (RESPONSES, {"previous_response_id": "r"}, "previous_response_id"),
        (RESPONSES, {"conversation": "c"}, "conversation"),
        (RESPONSES, {"background": True}, "background"),
        (RESPONSES, {"prompt": {"id": "p"}}, "prompt"),
        (RESPONSES, {"service_tier": "flex"}, "service_tier"),
        (RESPONSES, {"Service_Tier": "flex"}, "Service_Tier"),
        (RESPONSES, {"max_tokens": 5}, "max_tokens"),
        (RESPONSES, {"n": 2}, "n"),
        (RESPONSES, {"tools": [{"type": "web_search"}]}, "tools[0]"),
        (RESPONSES, {"tools": [{"type": "mcp", "server_url": "x"}]}, "tools[0]"),
        (RESPONSES, {"tools": [TOOL], "tool_choice": {"type": "file_search"}}, "tool_choice"),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        (RESPONSES, {"input": [{"type": "computer_call"}]}, "input[0]"),
        (RESPONSES, {"input": user([{"type": "input_image", "file_id": "f"}])}, "input[0].content[0].file_id"),
        (RESPONSES, {"input": user([{"type": "input_file", "file_data": "x"}])}, "input[0].content[0]"),
        (RESPONSES, {"input": user([{"type": "input_audio"}])}, "input[0].content[0]"),
        (MESSAGES, {"container": "c"}, "container"),
        (MESSAGES, {"mcp_servers": [{}]}, "mcp_servers"),
        (MESSAGES, {"speed": "fast"}, "speed"),
        (MESSAGES, {"inference_geo": "us"}, "inference_geo"),
        (MESSAGES, {"service_tier": "priority"}, "service_tier"),
        (MESSAGES, {"max_completion_tokens": 5}, "max_completion_tokens"),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        (MESSAGES, {"messages": user([{"type": "image", "source": {"type": "file", "file_id": "f"}}])}, "messages[0].content[0].source"),
        (MESSAGES, {"messages": user([{"type": "document", "source": {"type": "base64", "data": "x"}}])}, "messages[0].content[0].source"),
        (MESSAGES, {"messages": user([{"type": "container_upload", "file_id": "f"}])}, "messages[0].content[0]"),
        (COMPLETIONS, {"service_tier": "priority"}, "service_tier"),
        (COMPLETIONS, {"use_beam_search": True}, "use_beam_search"),
        (COMPLETIONS, {"max_completion_tokens": 5}, "max_completion_tokens"),
    ],
)  # fmt: skip
def test_what_changes_the_price_or_holds_state_upstream_is_refused(
    spoken: Spoken, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        read(spoken, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize("spoken", [RESPONSES, MESSAGES, COMPLETIONS], ids=lambda spoken: spoken.name)
@pytest.mark.parametrize(
    "name", ["plugins", "web_search_options", "prediction", "n_cmpl", "id_slot", "N_Predict", "modalities"]
)
def test_translation_passes_nothing_on_that_a_chat_is_refused_for(spoken: Spoken, name: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        read(spoken, **{name: {"x": 1}})
    assert caught.value.param == name


def test_a_message_has_no_prompt_that_an_upstream_keeps() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        read(MESSAGES, prompt={"id": "p"})
    assert caught.value.param == "prompt"


def test_refused_fields_may_be_null_or_false() -> None:
    read(RESPONSES, background=False, conversation=None, previous_response_id=None, service_tier="auto", prompt=None)
    read(MESSAGES, container=None, service_tier="standard_only")
    read(COMPLETIONS, service_tier="default", best_of=None)


def test_opaque_reasoning_counts_in_the_bound() -> None:
    thought = {"type": "reasoning", "summary": [], "encrypted_content": "x" * 1_000}
    model = Model("m", Kind.CHAT, 100_000, 100, "m")
    plain, opaque = (
        bound(read(RESPONSES, input=[*user("x"), *more]), model, DoorSettings()) for more in ([], [thought])
    )
    assert opaque.input > plain.input + 1_000


def test_each_prompt_may_fill_the_context() -> None:
    model = Model("m", Kind.CHAT, 100, 50, "m")
    assert bound(read(COMPLETIONS, prompt=["x" * 90, "y" * 90]), model, DoorSettings()).input == (90 + ITEM_TOKENS) * 2
    assert bound(read(COMPLETIONS, prompt=["x" * 500, "y" * 500]), model, DoorSettings()).input == 200


TEXT = st.text(max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def sometimes(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return likely | likely | likely | VALUES


def like(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any of these fields, each sometimes of a wrong type."""
    return st.fixed_dictionaries({}, optional={name: sometimes(value) for name, value in fields.items()})


TYPES = st.sampled_from([
    "message", "input_text", "output_text", "text", "refusal", "input_image", "image", "function_call", "reasoning",
    "function_call_output", "custom_tool_call", "function", "custom", "tool_use", "tool_result", "thinking", "document",
    "search_result", "json_schema", "json_object", "allowed_tools", "base64", "url", "any", "tool", "auto", "enabled",
])  # fmt: skip
PARTS = st.lists(
    like(
        type=TYPES, text=TEXT, image_url=TEXT, refusal=TEXT, source=like(type=TYPES, data=TEXT, media_type=TEXT, url=TEXT),
        id=TEXT, name=TEXT, input=st.dictionaries(TEXT, TEXT, max_size=2), tool_use_id=TEXT, content=TEXT, title=TEXT,
        thinking=TEXT,
    ),
    max_size=3,
)  # fmt: skip
ITEMS = st.lists(
    like(
        type=TYPES, role=st.sampled_from(["user", "assistant", "system", "developer"]), content=TEXT | PARTS, call_id=TEXT,
        name=TEXT, arguments=TEXT, output=TEXT | PARTS, summary=PARTS, input=TEXT,
    ),
    max_size=4,
)  # fmt: skip
TOOLS = st.lists(
    like(type=TYPES, name=st.sampled_from(["f", "g"]), parameters=st.just({"type": "object"}), input_schema=st.just({}),
         format=like(type=TYPES), strict=st.booleans(), description=TEXT),
    max_size=3,
)  # fmt: skip
CHOICES = st.sampled_from(["auto", "none", "required"]) | like(
    type=TYPES, name=st.sampled_from(["f", "g"]), mode=TEXT, tools=TOOLS
)
SHARED = {
    "stream": st.booleans(), "temperature": st.floats(0, 2), "metadata": st.just({}), "tools": TOOLS, "tool_choice": CHOICES,
    "service_tier": TEXT, "store": st.booleans(), "freehold": st.just({"store": False}),
}  # fmt: skip
FORM = like(type=TYPES, name=TEXT, schema=st.just({"type": "object"}))
BODIES = {
    "responses": like(
        input=TEXT | ITEMS, instructions=TEXT, max_output_tokens=st.integers(0, 500), reasoning=like(effort=TEXT, summary=TEXT),
        text=like(format=FORM, verbosity=TEXT), include=st.lists(TEXT), top_logprobs=st.integers(0, 20), **SHARED,
    ),
    "messages": like(
        messages=ITEMS, system=TEXT | PARTS, max_tokens=st.integers(0, 500), stop_sequences=st.lists(TEXT, max_size=2),
        thinking=like(type=TYPES, budget_tokens=st.integers(0, 2_000)), output_config=like(effort=TEXT, format=FORM), **SHARED,
    ),
    "completions": like(
        prompt=TEXT | st.lists(TEXT, max_size=3) | st.lists(st.integers(-1, 9), max_size=4), max_tokens=st.integers(-1, 500),
        n=st.integers(0, 3), best_of=st.integers(0, 4), echo=st.booleans(), logprobs=st.integers(-1, 6), suffix=TEXT, **SHARED,
    ),
}  # fmt: skip
CODES = {
    "invalid_request": 400,
    "unsupported_parameter": 400,
    "insufficient_credit": 402,
    "model_not_found": 404,
    "request_too_large": 413,
}


@pytest.fixture(scope="module")
async def house(postgres_url: str, migrated_template: str) -> AsyncIterator[House]:
    server = await asyncpg.connect(postgres_url)
    await server.execute(f'create database "shapes_refusals" template "{migrated_template}" strategy file_copy')
    database = await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path="/shapes_refusals")), max_size=20)
    await prepare(database)
    async with worker(database, scripted=scripted()) as house:
        for model in (NATIVE, TRANSLATED):
            await house.set_price(model, {"input": 1_000, "output": 2_000})
        yield house
    await database.close()
    await server.execute('drop database "shapes_refusals" with (force)')
    await server.close()


@pytest.fixture(scope="module")
async def rich(house: House) -> Customer:
    return await house.customer(prepaid="100000")


MODELS = st.sampled_from([NATIVE, TRANSLATED, NATIVE, TRANSLATED, "x", None])


@pytest.mark.parametrize("spoken", [RESPONSES, MESSAGES, COMPLETIONS], ids=lambda spoken: spoken.name)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
async def test_anything_is_answered(house: House, rich: Customer, spoken: Spoken, data: st.DataObject) -> None:
    body = {"model": data.draw(MODELS), **data.draw(BODIES[spoken.name])}
    raw = json.dumps(body).encode("utf-8", "surrogatepass")
    response = await ask(house.port, spoken.path, raw, rich.token)
    if response.status != 200:
        assert CODES.get(response.json()["error"]["code"]) == response.status, response.body
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert spoken.ended(response), response.body
        assert events(response)
    else:
        assert response.json()["usage"]
    assert await house.held_nano(rich) == 0


async def test_nesting_without_end_is_refused(house: House) -> None:
    customer = await house.customer(prepaid="1")
    deep = b'{"a":' * 3_000 + b"1" + b"}" * 3_000
    for path, before in (
        (RESPONSES.path, b'"input":[{"type":"reasoning","summary":[],"x":'),
        (MESSAGES.path, b'"max_tokens":5,"messages":[{"role":"user","content":[{"type":"tool_use","id":"t","name":"f","input":'),
    ):  # fmt: skip
        after = b"}]}" if path == RESPONSES.path else b"}]}]}"
        for model in (NATIVE, TRANSLATED):
            raw = b'{"model":"' + model.encode() + b'",' + before + deep + after
            response = await ask(house.port, path, raw, customer.token)
            assert response.status == 400, response.body[:300]
    assert await house.held_nano(customer) == 0
