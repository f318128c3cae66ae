"""Whatever is sent, the answer is one of ours, in OpenAI's shape: never a 500, and nothing stays held."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.house import House
from tests.gateway.raw import CHAT, ask

TEXT = st.text(max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
CONTENT = TEXT | st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", "file", "input_audio", "x"]), "text": TEXT})
    | VALUES,
    max_size=3,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "tool", "x"]), "content": CONTENT | VALUES})
    | VALUES,
    max_size=4,
)
CHATS = st.fixed_dictionaries(
    {"model": st.sampled_from(["scripted-echo", "scripted-exact", "scripted-embedding", "x"]) | VALUES},
    optional={
        "messages": MESSAGES | VALUES,
        "max_tokens": st.integers(-1, 5_000) | VALUES,
        "max_completion_tokens": st.integers(-1, 5_000) | VALUES,
        "n": st.integers(-1, 200) | VALUES,
        "stream": st.booleans() | VALUES,
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans() | VALUES}) | VALUES,
        "tools": VALUES,
        "service_tier": VALUES,
        "modalities": VALUES,
        "store": VALUES,
        "metadata": VALUES,
        "input": VALUES,
        "encoding_format": VALUES,
        "previous_response_id": VALUES,
    },
)
LIKELY = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["scripted-echo", "scripted-exact"]),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": TEXT}),
            min_size=1,
            max_size=3,
        ),
    },
    optional={
        "max_tokens": st.integers(1, 100),
        "n": st.integers(1, 3),
        "stream": st.booleans(),
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
        "temperature": st.floats(0, 2),
        "stop": st.lists(TEXT, max_size=2),
    },
)
INPUTS = st.fixed_dictionaries(
    {"model": st.just("scripted-embedding")},
    optional={"input": VALUES | TEXT | st.lists(TEXT, max_size=3) | st.lists(st.integers(0, 9), max_size=5)},
)

CODES = {
    "invalid_request": 400,
    "unsupported_parameter": 400,
    "insufficient_credit": 402,
    "model_not_found": 404,
    "request_too_large": 413,
}

few = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def answered(house: House, path: str, body: bytes) -> None:
    customer = await house.customer(prepaid="1000")
    response = await ask(house.port, path, body, customer.token)
    assert response.headers["x-request-id"].startswith("req_")
    if response.status != 200:
        assert CODES.get(response.code()) == response.status, response.body
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert response.events()[-1] == "data: [DONE]"
    else:
        assert response.json()["usage"]
        assert "x-freehold-cost" in response.headers
    assert await house.held_nano(customer) == 0


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@few
@given(st.binary(max_size=200), st.sampled_from([CHAT, "/v1/embeddings"]))
async def test_any_bytes_are_answered(house: House, body: bytes, path: str) -> None:
    await answered(house, path, body)


@few
@given(VALUES, st.sampled_from([CHAT, "/v1/embeddings"]))
async def test_any_json_is_answered(house: House, body: Any, path: str) -> None:
    await answered(house, path, encoded(body))


@few
@given(CHATS)
async def test_any_chat_is_answered(house: House, body: Any) -> None:
    await answered(house, CHAT, encoded(body))


@few
@given(LIKELY)
async def test_any_likely_chat_is_answered(house: House, body: Any) -> None:
    await answered(house, CHAT, encoded(body))


@few
@given(INPUTS)
async def test_any_embedding_is_answered(house: House, body: Any) -> None:
    await answered(house, "/v1/embeddings", encoded(body))
