"""Clients as people have them, in an environment of their own, each before a real server: plain, streams, tools, forms."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.clients.conftest import TALKER, THINKER, Outside

HERE = Path(__file__).parent
SAID = "You said: hello there"
CALL = ["get_weather", {"city": "sample"}]


async def run(outside: Outside, program: str, model: str = TALKER) -> dict[str, Any]:
    """What one of the programs beside this file found out."""
    native = "responses" in outside.house.scripted.models[model].shapes
    environment = {"URL": outside.house.url, "KEY": outside.customer.token, "MODEL": model, "NATIVE": str(int(native))}
    code, said = await outside.run("python", str(HERE / program), **environment)
    assert code == 0, said
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    assert await outside.house.held_nano(outside.customer) == 0
    assert all(not charge.estimated for charge in await outside.house.charges(outside.customer))
    return found


async def test_openai(outside: Outside) -> None:
    found = await run(outside, "with_openai.py")
    weather = "You said: What is the weather in Paris?"
    assert found["chat"] == {
        "plain": weather,
        "stream": weather,
        "call": ["tool_calls", *CALL],
        "after": "stop",
        "parsed": "City",
        "usage": 16,
    }
    assert found["responses"] == {
        "plain": SAID,
        "stream": SAID,
        "first and last": ["response.created", "response.completed"],
        "call": CALL,
        "streamed call": CALL,
        "after": True,
        "parsed": "City",
        "thought": ["reasoning", "message"],
        "reasoning": 3,
        "cut": "max_output_tokens",
    }
    assert found["completions"] == {
        "plain": ["once uponYou said: once upon"] * 2,
        "stream": "You said: once upon",
    }
    assert found["refused"] == {"code": "unsupported_parameter", "param": "previous_response_id"}
    assert found["models"]["ids"] == [TALKER, THINKER]


async def test_anthropic(outside: Outside) -> None:
    found = await run(outside, "with_anthropic.py", THINKER)
    assert found == {
        "plain": [SAID, "end_turn"],
        "stream": [SAID, "end_turn", 3, 4],
        "plain usage": [5, 4],
        "call": ["tool_use", *CALL],
        "streamed call": CALL,
        "after": "end_turn",
        "shaped": {"city": "sample"},
        "thought": ["thinking", "text"],
        "seen": "end_turn",
        "count": 3 if "messages" in outside.house.scripted.models[THINKER].shapes else 4,  # an estimate by bytes
        "models": [TALKER, THINKER],
        "request id": "req_",
        "refused": "invalid_request_error",
        "poor": [402, "billing_error"],
    }


async def test_langchain(outside: Outside) -> None:
    found = await run(outside, "with_langchain.py")
    expected = {
        "plain": SAID,
        "stream": SAID,
        "usage": [7, 7],
        "call": CALL,
        "after": [[], True],
        "shaped": "City",
    }
    assert found == {"chat": expected, "responses": expected}


async def test_pydantic_ai(outside: Outside) -> None:
    found = await run(outside, "with_pydantic_ai.py", THINKER)
    expected = {
        "plain": SAID,
        "stream": SAID,
        "used": ["sample", "sample"],
        "told": [True, True],
        "usage": 4,
        "shaped": "City",
    }
    assert found == {"chat": expected, "responses": expected, "messages": expected}


@pytest.mark.parametrize("stream", [True, False])
async def test_llm(outside: Outside, stream: bool) -> None:
    folder = outside.home / "llm"
    folder.mkdir()
    model = {"model_id": "here", "model_name": TALKER, "api_base": outside.house.url, "api_key_name": "freehold"}
    # JSON is YAML, too.
    entry = json.dumps([{**model, "supports_tools": True, "supports_schema": True}])
    (folder / "extra-openai-models.yaml").write_text(entry)
    (folder / "keys.json").write_text(json.dumps({"freehold": outside.customer.token}))
    environment = {"LLM_USER_PATH": str(folder)}
    options = ["-m", "here", *([] if stream else ["--no-stream"])]
    assert await outside.run("llm", "hello there", *options, **environment) == (0, SAID + "\n")
    code, said = await outside.run("llm", "A city", "--schema", "name, people int", *options, **environment)
    assert (code, json.loads(said)) == (0, {"name": "sample", "people": 1})
    tool = "def get_weather(city: str) -> str:\n    return 'sunny in ' + city\n"
    code, said = await outside.run("llm", "What is the weather?", "--functions", tool, "--td", *options, **environment)
    assert code == 0
    assert "sunny in sample" in said
    assert await outside.house.held_nano(outside.customer) == 0
