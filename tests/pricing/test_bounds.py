"""The input bound: never below what a byte-level tokenizer can make of a request, whatever is in it.

tests/upstream/test_embedded.py holds it against a real model.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.pricing.bounds import estimated_input, input_bound, text_bound
from freehold.problems import InvalidRequest, UnsupportedParameter

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.text(max_size=20), "content": st.text() | st.none()},
        optional={"name": st.text(max_size=20), "tool_calls": st.lists(JSON, max_size=2)},
    ),
    min_size=1,
    max_size=4,
)


def chat(content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}


@given(st.text())
def test_a_texts_bound_is_at_least_its_bytes_and_those_of_its_normal_form(text: str) -> None:
    assert text_bound(text) >= len(text.encode())


def test_a_character_that_normalises_to_a_sentence_is_bounded_by_the_sentence() -> None:
    assert text_bound("\ufdfa") == 33


@given(MESSAGES, st.dictionaries(st.sampled_from(["tools", "documents", "response_format"]), JSON))
def test_the_bound_covers_every_byte_of_what_a_template_can_print(messages: Any, fields: Any) -> None:
    printed = "".join(json.dumps(value, indent=4) for value in fields.values() if value is not None)
    for message in messages:
        printed += message["role"] + (message["content"] or "") + message.get("name", "")
        printed += json.dumps(message.get("tool_calls", ""), indent=1)
    assert input_bound({"messages": messages, **fields}) >= len(printed.encode())


@given(MESSAGES, MESSAGES)
def test_more_messages_never_lower_the_bound(some: Any, more: Any) -> None:
    assert input_bound({"messages": some + more}) > input_bound({"messages": some})


@given(MESSAGES, st.dictionaries(st.sampled_from(["tools", "functions"]), JSON))
def test_the_estimate_is_never_above_the_bound(messages: Any, fields: Any) -> None:
    body = {"messages": messages, **fields}
    assert 0 <= estimated_input(body) <= input_bound(body)


def test_the_estimate_is_a_quarter_of_the_bytes_rounded_up() -> None:
    assert estimated_input({"input": "x" * 41}) == 11
    assert estimated_input({"messages": [{"content": "x" * 41}]}) == 11


def test_fields_that_no_template_prints_cost_nothing() -> None:
    silent = {"metadata": {"long": "x" * 1000}, "user": "u" * 100, "n": 5, "stop": ["s" * 50], "max_tokens": 10}
    assert input_bound(chat("hi", **silent)) == input_bound(chat("hi"))


def test_fields_that_nobody_knows_are_counted() -> None:
    assert input_bound(chat("hi", documents=["x" * 1000])) >= input_bound(chat("hi")) + 1000


def test_a_string_of_json_is_bounded_as_if_it_were_printed_with_indentation() -> None:
    packed = json.dumps({"a": [[1, 2], {"b": [3]}] * 20})
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": packed}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert input_bound({"messages": [message]}) >= len(json.dumps(json.loads(packed), indent=4))


def test_nesting_too_deep_to_print_is_refused() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        input_bound(chat("hi", tools=deep))


def test_a_character_that_normalises_to_a_sentence_is_bounded_inside_tools_too() -> None:
    assert input_bound(chat("hi", tools=["\ufdfa" * 100])) - input_bound(chat("hi", tools=[""])) >= 3_300


def test_each_image_costs_the_models_bound_and_its_data_nothing() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}
    one = input_bound(chat([picture]), image_tokens=500)
    assert 500 <= one < 1_500
    assert input_bound(chat([picture, picture]), image_tokens=500) >= one + 500
    assert estimated_input(chat([picture]), image_tokens=500) == 501


def test_an_image_for_a_model_that_takes_none_is_refused() -> None:
    with pytest.raises(UnsupportedParameter, match="takes no images"):
        input_bound(chat([{"type": "image_url", "image_url": {"url": "x"}}]))


@pytest.mark.parametrize("kind", ["input_audio", "file", "video_url"])
def test_content_that_cannot_be_bounded_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedParameter, match=kind):
        input_bound(chat([{"type": kind}]))


@pytest.mark.parametrize(
    ("given_input", "least"),
    [("abcd", 4), (["ab", "cd"], 4), ([1, 2, 3], 3), ([[1, 2], [3]], 3), (["日本"], 6)],
)
def test_every_item_of_an_embedding_is_bounded(given_input: Any, least: int) -> None:
    items = len(given_input) if isinstance(given_input, list) and not isinstance(given_input[0], int) else 1
    for name in ("input", "prompt"):
        assert input_bound({name: given_input}) == least + 8 * items


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": ["hi"]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [5]}]},
        {"input": []},
        {"input": None},
        {"input": {"a": 1}},
        {"input": [True]},
        {"input": [[]]},
        {"input": [["a"]]},
        {"input": [1, "a"]},
    ],
)
def test_a_shape_that_no_request_has_is_refused(body: Any) -> None:
    with pytest.raises(InvalidRequest):
        input_bound(body)
