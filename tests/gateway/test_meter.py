"""What a call came to: usage that can be believed, else the stated rule."""

import json
from typing import Any

import pytest

from freehold.gateway.meter import BadFrame, Meter, Pass, StreamReader, shown_usage
from freehold.pricing.model import INPUT, OUTPUT

LIES: list[Any] = [
    None,
    "many",
    [],
    {},
    {"prompt_tokens": 5},
    {"completion_tokens": 5},
    {"prompt_tokens": -1, "completion_tokens": 1},
    {"prompt_tokens": 1, "completion_tokens": -1},
    {"prompt_tokens": "5", "completion_tokens": "5"},
    {"prompt_tokens": None, "completion_tokens": None},
    {"prompt_tokens": 10**30, "completion_tokens": 1},
    {"prompt_tokens": 1, "completion_tokens": 1.5},
]


def meter(estimate: int = 10, bound: int = 100, most_output: int = 50) -> Meter:
    return Meter(estimated_input=lambda: estimate, bound=bound, most_output=most_output, embedding=False)


def chunk(text: str | None = None, *, finish: str | None = None, **fields: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c1", "model": "vendor/x", "choices": [choice], **fields}).encode()


def test_believable_usage_is_charged_as_reported() -> None:
    found = meter()
    found.see_answer({"prompt_tokens": 7, "completion_tokens": 3}, shown_bytes=4_000)
    assert found.reading() == ({INPUT: 7, OUTPUT: 3}, False)


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_charged_by_the_rule(lie: Any) -> None:
    found = meter()
    found.see_answer(lie, shown_bytes=41)
    assert found.reading() == ({INPUT: 10, OUTPUT: 11}, True)


def test_the_rule_stays_within_what_was_held() -> None:
    found = meter(estimate=1_000, bound=100, most_output=5)
    found.see_answer(None, shown_bytes=4_000)
    assert found.reading() == ({INPUT: 100, OUTPUT: 5}, True)


def test_each_content_delta_counts_once_and_only_while_the_client_is_there() -> None:
    found = meter()
    reader = StreamReader(found, "x")
    reader.see(chunk(""), counted=True)
    reader.see(chunk("a"), counted=True)
    reader.see(chunk("b"), counted=True)
    reader.see(chunk("c"), counted=False)
    assert found.reading() == ({INPUT: 10, OUTPUT: 2}, True)


@pytest.mark.parametrize(
    "delta", [{"reasoning_content": "hm"}, {"tool_calls": [{"index": 0}]}, {"refusal": "no"}, {"reasoning": "hm"}]
)
def test_output_that_is_not_text_counts_too(delta: dict[str, Any]) -> None:
    found = meter()
    StreamReader(found, "x").see(json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode(), counted=True)
    assert found.deltas == 1


def test_the_clients_name_of_the_model_comes_back() -> None:
    shown, leave = StreamReader(meter(), "public").see(chunk("é"), counted=True)
    assert json.loads(shown)["model"] == "public"
    assert leave is Pass.NOW


def test_a_finish_frame_waits_for_the_settlement() -> None:
    assert StreamReader(meter(), "x").see(chunk(finish="stop"), counted=True)[1] is Pass.SETTLED


def test_usage_is_taken_out_wherever_the_upstream_puts_it() -> None:
    found = meter()
    reader = StreamReader(found, "x")
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    shown, _ = reader.see(chunk("a", usage=None), counted=True)
    assert "usage" not in json.loads(shown)
    shown, _ = reader.see(chunk(finish="stop", usage=usage), counted=True)
    assert "usage" not in json.loads(shown)
    assert found.reading() == ({INPUT: 7, OUTPUT: 3}, False)
    alone = json.dumps({"choices": [], "usage": usage}).encode()
    assert reader.see(alone, counted=True) == (b"", Pass.NEVER)
    assert json.loads(reader.usage_frame()) == {"id": "c1", "model": "x", "choices": [], "usage": usage}


def test_an_estimate_is_what_the_client_is_shown() -> None:
    found = meter()
    found.see_answer({"prompt_tokens": -1}, shown_bytes=8)
    assert shown_usage(found) == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


@pytest.mark.parametrize("data", [b"{", b"[]", b"3", b'{"error":{"message":"secret"}}', b'{"choices":[3]}', b"\xff"])
def test_a_frame_that_is_no_chunk_ends_the_stream(data: bytes) -> None:
    with pytest.raises(BadFrame) as caught:
        StreamReader(meter(), "x").see(data, counted=True)
    assert "secret" not in str(caught.value)
