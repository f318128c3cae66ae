"""Reported usage is believed only when it can be true."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.pricing.usage import MAX_TOKENS, usage_of

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
