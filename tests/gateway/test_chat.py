"""Reading chat requests: what passes, what is refused, what the upstream is sent."""

import json
from typing import Any

import pytest

from freehold.gateway.shapes import chat
from freehold.problems import InvalidRequest, Problem, UnsupportedParameter
from freehold.upstream.model import Kind, Model

MODEL = Model("small", Kind.CHAT, 8_192, 4_096, "vendor/small-1")
SAID = [{"role": "user", "content": "hi"}]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "small", "messages": SAID, **fields}).encode()


def sent(max_output: int = 64, model: Model = MODEL, **fields: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(chat.upstream_body(chat.read(body(**fields)), model, max_output))
    return value


def test_unknown_fields_pass_untouched() -> None:
    fields = {"temperature": 0.30000000000000004, "top_k": 5, "x_vendor": {"deep": [1, None, "é"]}, "seed": 2**70}
    given = sent(**fields)
    assert {name: given[name] for name in fields} == fields


def test_the_upstream_sees_its_own_name_of_the_model() -> None:
    assert sent()["model"] == "vendor/small-1"


def test_the_maximum_goes_upstream_under_one_name() -> None:
    assert "max_completion_tokens" not in sent(max_completion_tokens=64)
    assert sent(max_completion_tokens=64)["max_tokens"] == 64
    thinking = Model("small", Kind.CHAT, 8_192, 4_096, "vendor/small-1", hidden_output=True)
    assert sent(model=thinking, max_tokens=64)["max_completion_tokens"] == 64
    assert "max_tokens" not in sent(model=thinking, max_tokens=64)


def test_a_plain_answer_has_the_fields_that_openais_always_has() -> None:
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    chat.complete(answer["choices"])
    (choice,) = answer["choices"]
    assert choice["logprobs"] is None
    assert choice["message"] == {"role": "assistant", "content": "hi", "refusal": None, "annotations": []}


def test_store_goes_upstream_as_false() -> None:
    assert sent(store=True)["store"] is False


def test_a_stream_is_always_asked_for_its_usage() -> None:
    assert sent(stream=True)["stream_options"] == {"include_usage": True}
    assert sent(stream=True, stream_options={"include_usage": False})["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(stream_options={"include_usage": True})


@pytest.mark.parametrize(
    ("fields", "wants"),
    [
        ({"stream": True}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"stream": False, "stream_options": {"include_usage": True}}, False),
    ],
)
def test_only_a_client_that_asks_wants_the_usage_frame(fields: dict[str, Any], wants: bool) -> None:
    assert chat.read(body(**fields)).wants_usage is wants


@pytest.mark.parametrize(
    ("fields", "maximum"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 7, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 8, "max_completion_tokens": None}, 8),
    ],
)
def test_the_explicit_maximum_is_read_under_both_names(fields: dict[str, Any], maximum: int | None) -> None:
    assert chat.read(body(**fields)).max_output == maximum


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "include_usage"),
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"messages": [{"content": "hello"}]}, "messages"),
        ({"messages": [{"role": 5, "content": "hello"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": ["f"]}]}, "messages"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": 5}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"logit_bias": []}, "logit_bias"),
        ({"response_format": "json"}, "response_format"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"metadata": "x"}, "metadata"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    ],
)
def test_a_field_of_the_wrong_shape_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat.read(body(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"n_predict": 100_000}, "n_predict"),
        ({"N_Predict": 100_000}, "N_Predict"),
        ({"MAX_TOKENS": 100_000}, "MAX_TOKENS"),
        ({"best_of": 4}, "best_of"),
        ({"models": ["dear"]}, "models"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools"),
        ({"tools": ["function"]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "file_id": "x"}]}]}, "messages"),
    ],
)
def test_what_changes_the_price_or_holds_state_upstream_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        chat.read(body(**fields))
    assert caught.value.param == param


def test_refused_fields_may_be_null_or_false() -> None:
    nothing = {"background": False, "conversation": None, "audio": None, "service_tier": "auto", "modalities": ["text"]}
    assert chat.read(body(**nothing)).model == "small"


def test_functions_that_the_caller_runs_pass() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert sent(tools=tools)["tools"] == tools


def test_the_last_of_a_repeated_field_counts_and_alone_goes_upstream() -> None:
    raw = b'{"model":"small","max_tokens":1,"messages":[{"role":"user","content":"x"}],"max_tokens":9}'
    ask = chat.read(raw)
    assert ask.max_output == 9
    assert chat.upstream_body(ask, MODEL, 9).count(b"max_tokens") == 1


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"a":"\xff"}', b'{"a":1e999}', b"[" * 100_000, b'{"a":' * 5_000],
)
def test_what_is_not_a_json_object_is_refused_in_a_sentence(raw: bytes) -> None:
    with pytest.raises(Problem) as caught:
        chat.read(raw)
    assert caught.value.status == 400
    assert caught.value.message.endswith(".")
