"""Reported usage is believed only when it can be true."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.pricing.usage import MAX_TOKENS, usage_of, usage_of_messages, usage_of_responses

TOKENS = st.integers(0, MAX_TOKENS)
NOT_TOKENS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(max_value=-1),
    st.integers(min_value=MAX_TOKENS + 1),
    st.floats(),
    st.text(),
    st.lists(st.integers()),
)


def reported(prompt: Any = 10, completion: Any = 5, **details: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}


def test_cached_and_written_tokens_are_taken_out_of_input() -> None:
    assert usage_of(reported(10, 5, cached_tokens=4, cache_write_tokens=3)) == {
        "input": 3,
        "cached_input": 4,
        "cache_write": 3,
        "output": 5,
    }


def test_units_with_nothing_used_are_left_out_but_for_input_and_output() -> None:
    assert usage_of(reported(0, 0, cached_tokens=0)) == {"input": 0, "output": 0}


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}, {"audio_tokens": 0}])
def test_details_may_be_missing_or_null(details: Any) -> None:
    assert usage_of({"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": details}) == {
        "input": 3,
        "output": 2,
    }


def test_an_embeddings_usage_has_no_completion() -> None:
    assert usage_of({"prompt_tokens": 8, "total_tokens": 8}, embedding=True) == {"input": 8, "output": 0}
    assert usage_of({"prompt_tokens": 8, "total_tokens": 8}) is None


@pytest.mark.parametrize("nothing", [None, "usage", 7, [], [("prompt_tokens", 1)], {}, {"prompt_tokens": 1}])
def test_what_is_no_usage_object_is_no_usage(nothing: Any) -> None:
    assert usage_of(nothing) is None


@given(TOKENS, TOKENS, TOKENS, TOKENS)
def test_the_parts_of_input_sum_to_the_prompt(prompt: int, completion: int, cached: int, written: int) -> None:
    usage = usage_of(reported(prompt, completion, cached_tokens=cached, cache_write_tokens=written))
    if cached + written > prompt:
        assert usage is None
    else:
        assert usage is not None
        assert sum(tokens for unit, tokens in usage.items() if unit != "output") == prompt
        assert usage["output"] == completion


@given(NOT_TOKENS, st.sampled_from(["prompt_tokens", "completion_tokens"]))
def test_a_count_that_is_none_makes_the_whole_usage_none(lie: Any, field: str) -> None:
    assert usage_of({**reported(), field: lie}) is None
    assert usage_of({**reported(), field: lie}, embedding=True) is None


@given(NOT_TOKENS.filter(lambda value: value is not None), st.sampled_from(["cached_tokens", "cache_write_tokens"]))
def test_a_detail_that_is_no_count_makes_the_whole_usage_none(lie: Any, field: str) -> None:
    assert usage_of(reported(**{field: lie})) is None


def answered(completion: int = 100, total: int | None = None, **details: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": 10,
        "completion_tokens": completion,
        "total_tokens": total,
        "completion_tokens_details": details,
    }


def test_reasoning_and_audio_are_taken_out_of_the_output() -> None:
    assert usage_of(answered(100, 110, reasoning_tokens=70, audio_tokens=20)) == {
        "input": 10,
        "output": 10,
        "reasoning": 70,
        "output_audio": 20,
    }


def test_reasoning_stands_beside_the_completion_where_the_total_says_so() -> None:
    assert usage_of(answered(100, 180, reasoning_tokens=70)) == {"input": 10, "output": 100, "reasoning": 70}
    assert usage_of(answered(5, 85, reasoning_tokens=70)) == {"input": 10, "output": 5, "reasoning": 70}
    assert usage_of(answered(5, 15, reasoning_tokens=70)) is None


def test_more_reasoning_than_output_is_no_usage() -> None:
    assert usage_of(answered(100, 110, reasoning_tokens=101)) is None
    assert usage_of(answered(100, None, reasoning_tokens=60, audio_tokens=41)) is None


def test_audio_of_the_prompt_stands_alone_and_what_must_be_cached_of_it_too() -> None:
    assert usage_of(reported(10, 1, audio_tokens=4)) == {"input": 6, "input_audio": 4, "output": 1}
    assert usage_of(reported(10, 1, audio_tokens=8, cached_tokens=5)) == {
        "input": 0,
        "cached_input": 2,
        "input_audio": 5,
        "cached_audio": 3,
        "output": 1,
    }
    assert usage_of(reported(10, 1, audio_tokens=11)) is None


def test_responses_count_as_chats_do_under_other_names() -> None:
    usage = {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 12},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 44},
        "total_tokens": 80,
    }
    assert usage_of_responses(usage) == {"input": 18, "cached_input": 12, "output": 6, "reasoning": 44}
    assert usage_of_responses({"input_tokens": 3, "output_tokens": 2}) == {"input": 3, "output": 2}
    assert usage_of_responses({"prompt_tokens": 3, "completion_tokens": 2}) is None
    assert usage_of_responses({**usage, "input_tokens_details": {"cached_tokens": 31}}) is None


def test_messages_count_caches_beside_the_input() -> None:
    assert usage_of_messages(
        {
            "input_tokens": 7,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 1_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
            "output_tokens": 9,
        }
    ) == {"input": 7, "cached_input": 1_000, "cache_write": 60, "cache_write_1h": 40, "output": 9}
    thinking = {"input_tokens": 7, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 6}}
    assert usage_of_messages(thinking) == {"input": 7, "output": 3, "reasoning": 6}
    assert usage_of_messages({"input_tokens": 7, "output_tokens": 9, "cache_read_input_tokens": None}) == {
        "input": 7,
        "output": 9,
    }


@pytest.mark.parametrize(
    "lie",
    [
        {"input_tokens": -1},
        {"output_tokens": None},
        {"cache_read_input_tokens": 1.5},
        {"cache_creation_input_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": 4}},
        {"cache_creation": 5},
        {"output_tokens_details": {"thinking_tokens": 10}},
        {"output_tokens_details": []},
        {"cache_read_input_tokens": MAX_TOKENS},
    ],
)
def test_a_message_usage_that_cannot_be_true_is_none(lie: dict[str, Any]) -> None:
    assert usage_of_messages({"input_tokens": 7, "output_tokens": 9, **lie}) is None


@given(st.dictionaries(st.text(), st.integers() | st.none() | st.dictionaries(st.text(), st.integers())))
def test_nothing_that_is_reported_breaks_the_readers(reported: dict[str, Any]) -> None:
    for read in (usage_of, usage_of_responses, usage_of_messages):
        assert read(reported) is None or read(reported) == {"input": 0, "output": 0}
